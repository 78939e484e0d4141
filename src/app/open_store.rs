//! Opens the store with its master key, also when a rotation of that key was cut off.

use std::path::Path;

use zeroize::Zeroizing;

use super::master_key::{self, KeyFiles};
use crate::config::Config;
use crate::domain::Clock;
use crate::service::MasterKeyFiles as _;
use crate::store::{self, Holder, Store, StoreError};

/// An open store.
pub(super) struct OpenedStore {
    pub(super) store: Store,
    /// The master key that opened it.
    pub(super) master: Zeroizing<[u8; 32]>,
    /// The next master key opened it: the rotation is to be finished.
    pub(super) is_rotating: bool,
}

/// Opens the store as it is.
///
/// # Errors
/// The master key is missing or wrong; the store does not open.
pub(super) fn open_store(config: &Config, clock: &Clock) -> anyhow::Result<OpenedStore> {
    open_with(config, |master| Store::open(&config.data_dir, master, clock.clone()))
}

/// Opens the store. A damaged one is moved aside if MySQL can restore it; otherwise the error names the remedy.
///
/// # Errors
/// As [`open_store`].
pub(super) fn open_or_set_aside(config: &Config, clock: &Clock) -> anyhow::Result<OpenedStore> {
    open_with(config, |master| match Store::open(&config.data_dir, master, clock.clone()) {
        Err(StoreError::Damaged { detail, .. }) if config.mysql_url.is_some() => {
            let aside = store::set_aside(&config.data_dir, clock.now())?;
            tracing::error!(
                detail,
                aside = %aside.display(),
                "the store is damaged; moved its files aside, restoring a new one from MySQL"
            );
            Store::open(&config.data_dir, master, clock.clone())
        }
        opened => opened,
    })
}

/// Opens with the master key, or with the one that follows it if the store is that far.
fn open_with(config: &Config, open: impl Fn(&[u8; 32]) -> Result<Store, StoreError>) -> anyhow::Result<OpenedStore> {
    let files = KeyFiles::of(&config.master_key, &config.data_dir);
    let master = master_key::obtain(&config.master_key, &config.data_dir)?;
    match (open(&master), files.next()?) {
        (Err(StoreError::WrongMasterKey { .. }), Some(next)) => {
            let store = open(&next)?;
            store.also_open_with(Some(&master));
            Ok(OpenedStore { store, master: next, is_rotating: true })
        }
        (opened, next) => {
            let store = opened?;
            // Rows of MySQL may need it, if the data directory was lost in the middle.
            store.also_open_with(next.as_deref());
            files.forget_next(&master)?;
            Ok(OpenedStore { store, master, is_rotating: false })
        }
    }
}

/// The process that holds the data directory, if that is why a command failed; the inner None: unknown.
pub(crate) fn holder(error: &anyhow::Error) -> Option<Option<&Holder>> {
    error.chain().find_map(|cause| match cause.downcast_ref() {
        Some(StoreError::InUse { holder, .. }) => Some(holder.as_ref()),
        _ => None,
    })
}

/// Whether the data directory has any content; read-only commands must not create one. An unreadable directory counts
/// too, so that opening it reports the error.
pub fn is_initialized(data_dir: &Path) -> bool {
    match std::fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}
