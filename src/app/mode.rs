//! What an app is opened for, and what that needs first: the store, the sink, and the ownership of the MySQL schema.

use super::open_store;
use super::owner::{self, Entry, Opened, Opening};
use super::source_check::{self, SourceRule};
use crate::domain::health::Means;
use crate::sink::Sink;
use crate::sync::Selection;

/// What an app is opened for.
pub(super) struct Mode {
    /// The streams to work on; None: the engine is at rest.
    pub(super) runs: Option<Selection>,
    /// How it becomes the owner of the MySQL schema; None: it does not.
    pub(super) entry: Option<Entry>,
    pub(super) means: Means,
    pub(super) rule: SourceRule,
}

/// Opens store and sink, and becomes the owner of the schema: before anything calls, logs in or writes.
///
/// # Errors
/// Store or sink cannot be used; another process owns the schema.
pub(super) async fn open_owned(opening: Opening<'_>, entry: Option<&Entry>) -> anyhow::Result<(Opened, Sink)> {
    let Opening { config, clock, rule } = opening;
    let opened = open_store::open_or_set_aside(config, clock)?;
    let sink = source_check::open_sink(config, &opened.store, rule).await?;
    let opened = match entry {
        Some(entry) => owner::open(opening, opened, &sink, entry).await?,
        None => owner::open_at_rest(opening, opened, &sink).await?,
    };
    // It may be another store by now.
    if let Err(error) = source_check::claim_store(config, &opened.opened.store, rule).await {
        if let Some(owner) = &opened.owner {
            owner.leave().await;
        }
        return Err(error);
    }
    Ok((opened, sink))
}
