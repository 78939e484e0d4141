//! Opens the sink, and refuses a data directory or a schema of another source before anything is called.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::domain::{OtherSource, RecordedSource, SourceOrigin};
use crate::sink::mysql::SourceClaim;
use crate::sink::{Archive, Mysql, Sink};
use crate::store::{Store, StoreError};

/// How long a start waits for MySQL to say whose schema it is. Later the restore and the writer ask before they do
/// anything.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(2);

/// Whether data directory and schema must belong to the configured source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceRule {
    Same,
    /// They are about to be moved to it.
    Moves,
}

/// Opens the sink of a store, after both were found to belong to the configured source. A directory that records none, or
/// holds nothing of one, belongs to it from now on.
///
/// # Errors
/// [`OtherSource`]; an unusable address of MySQL; store errors.
pub(super) async fn open_sink(config: &Config, store: &Store, rule: SourceRule) -> anyhow::Result<Sink> {
    let origin = config.source.origin();
    claim_store(config, store, rule).await?;
    let definitions = config.definitions.clone();
    let Some(url) = &config.mysql_url else { return Ok(Sink::Archive(Archive::new(store.clone(), definitions))) };
    let claim = SourceClaim { origin, adopts: rule == SourceRule::Same && !store.is_unused()? };
    let mysql = Mysql::at(url, config.mysql_ca_file.as_deref(), definitions)?.claimed_by(claim);
    if rule == SourceRule::Same
        && let Ok(Ok(Some(other))) = tokio::time::timeout(SCHEMA_PATIENCE, mysql.other_source()).await
    {
        return Err(other.into());
    }
    Ok(Sink::Mysql(Arc::new(mysql)))
}

/// Has a store belong to the configured source, unless it is about to be moved. Once is enough for each store.
///
/// # Errors
/// [`OtherSource`]; store errors.
pub(super) async fn claim_store(config: &Config, store: &Store, rule: SourceRule) -> anyhow::Result<()> {
    let origin = config.source.origin();
    store.use_source(origin.clone());
    if rule == SourceRule::Same { claim_directory(config, store, &origin).await } else { Ok(()) }
}

async fn claim_directory(config: &Config, store: &Store, origin: &SourceOrigin) -> anyhow::Result<()> {
    if let Some(other) = other_source(store, origin, &config.data_dir)? {
        return Err(other.into());
    }
    match store.installed_source()? {
        Some(known) if known.origin == *origin => return Ok(()),
        None if !store.is_unused()? => tracing::warn!(
            source = %origin,
            "an earlier release wrote the data directory and did not record the source of its shops; it belongs to the \
             configured one from now on"
        ),
        Some(_) | None => {}
    }
    Ok(store.adopt_source(origin.clone()).await?)
}

/// Why a data directory may not be used with this source; None: it may. Changes nothing.
///
/// # Errors
/// The store's read errors.
pub(super) fn other_source(
    store: &Store,
    origin: &SourceOrigin,
    data_dir: &Path,
) -> Result<Option<OtherSource>, StoreError> {
    let recorded = match store.installed_source()? {
        Some(known) if known.is_moving => RecordedSource::Moving(known.origin),
        Some(known) if known.origin != *origin && !store.is_unused()? => RecordedSource::Known(known.origin),
        Some(_) | None => return Ok(None),
    };
    let place = format!("the data directory {}", data_dir.display());
    Ok(Some(OtherSource { place, recorded, configured: origin.clone() }))
}
