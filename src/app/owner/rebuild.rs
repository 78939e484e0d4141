//! What the store needs after other processes owned the schema.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::state::Opening;
use crate::app::open_store::{OpenedStore, open_or_set_aside};
use crate::catalog::Definition;
use crate::config::Config;
use crate::store::{self, Holder, Store, StoreError};

/// Where the files of an overtaken store are kept, in the data directory.
const OVERTAKEN: &str = "overtaken";
/// How long a store that was just dropped may take to close its files.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
const CLOSE_LOOK: Duration = Duration::from_millis(10);

/// Moves a store aside that another owner has overtaken, and makes a new one, which is restored from MySQL.
pub(super) async fn replace_store(opening: &Opening<'_>, opened: OpenedStore) -> anyhow::Result<OpenedStore> {
    drop(opened);
    let directory = &opening.config.data_dir;
    wait_for_lock(directory).await;
    let (moved, aside) = (store::set_aside(directory, opening.clock.now())?, directory.join(OVERTAKEN));
    // Of several such stores the last one is kept.
    let kept = std::fs::remove_dir_all(&aside).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    });
    kept.and_then(|()| std::fs::rename(&moved, &aside))
        .with_context(|| format!("cannot move the former store to {}", aside.display()))?;
    tracing::warn!(
        aside = %aside.display(),
        "another process has owned the schema since this data directory was used: moved its files aside, restoring a new \
         one from MySQL"
    );
    open_or_set_aside(opening.config, opening.clock)
}

/// Waits until the files of a dropped store are closed.
pub(super) async fn wait_for_lock(directory: &Path) {
    let closed = async {
        while Holder::find(directory).is_some() {
            tokio::time::sleep(CLOSE_LOOK).await;
        }
    };
    // The error of the next opening says which process has it.
    tokio::time::timeout(CLOSE_PATIENCE, closed).await.ok();
}

/// Counts all rate slots of the shops as used: another process may have used them a moment ago.
pub(super) async fn use_up_budgets(config: &Config, store: &Store) -> Result<(), StoreError> {
    for shop in store.shops()? {
        let definitions = config.definitions.iter().filter(|definition| shop.syncs(&definition.name));
        let paths = definitions.map(AsRef::as_ref).flat_map(Definition::paths);
        for rule in paths.filter_map(|path| config.rules.find("GET", path)) {
            if let Some(limit) = rule.limit {
                store.occupy(&shop.account, &rule.name, limit.calls).await?;
            }
        }
    }
    Ok(())
}
