//! Restores an empty data directory from MySQL: shops keep their ids, and unchanged documents are not read again.
//!
//! Runs at the first start of a new store: once before everything else, then in the background until MySQL can be
//! reached. The documents of a shop are restored before the shop itself, so a crash only repeats the restore, and no
//! walk begins early.

use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::Service;
use super::sink_progress::Unrestored;
use crate::catalog::Definition;
use crate::domain::{Shop, ShopState, Timestamp};
use crate::sink::mysql::{LedgerPart, LedgerRow};
use crate::sink::{Mysql, Sink, SinkError};
use crate::source::pages;
use crate::store::{Mirrored, Restored, StoreError};

/// Ledger rows per batch.
const ROWS_AT_ONCE: usize = 1_000;
/// Pause between two attempts.
pub(super) const PAUSE: Duration = Duration::from_secs(15);
/// Slack on the age of documents: one may be listed later than its own time says.
const YOUNG_SLACK: Duration = Duration::from_secs(2 * 86_400);

/// Why the restore failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{0} shops in waybill_shops are sealed with another master key: start with an empty data directory and the \
         key that they were registered with, or delete their rows and register them again"
    )]
    OtherKey(usize),
}

impl From<&RestoreError> for Unrestored {
    fn from(error: &RestoreError) -> Unrestored {
        Unrestored { why: error.to_string(), needs_operator: matches!(error, RestoreError::OtherKey(_)) }
    }
}

impl Service {
    /// Restores from MySQL, unless it was done or is not needed.
    pub(crate) async fn restore(&self) -> Result<(), RestoreError> {
        let restored = self.try_restore().await;
        let unrestored = restored.as_ref().err().map(Unrestored::from);
        *self.unrestored.lock().unwrap_or_else(PoisonError::into_inner) = unrestored;
        restored
    }

    /// Why the shops of MySQL, if it has any, are not known here.
    pub(crate) fn unrestored(&self) -> Option<String> {
        self.last_failure().map(|unrestored| unrestored.why)
    }

    /// The same, if no try will succeed until an operator acts.
    pub(super) fn restore_error(&self) -> Option<String> {
        self.last_failure().filter(|unrestored| unrestored.needs_operator).map(|unrestored| unrestored.why)
    }

    fn last_failure(&self) -> Option<Unrestored> {
        self.unrestored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn try_restore(&self) -> Result<(), RestoreError> {
        if !self.store.is_blank()? {
            return Ok(());
        }
        if let Sink::Mysql(mysql) = &self.sink {
            mysql.prepare().await?;
            // Rows of an earlier release do not note where their secrets were proved.
            self.store.set_unnoted(mysql.sources().await?.first().cloned()).await?;
            self.restore_shops(mysql).await?;
        }
        Ok(self.store.end_blank().await?)
    }

    /// Retries the restore until it succeeds or the process ends.
    pub(crate) async fn restore_later(self, stop: CancellationToken, first: RestoreError) {
        let mut error = first;
        loop {
            tracing::warn!(%error, "failed to restore from MySQL; trying again. Shops of an earlier data directory, if any, are not known yet");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match self.restore().await {
                Ok(()) => return,
                Err(again) => error = again,
            }
        }
    }

    async fn restore_shops(&self, mysql: &Mysql) -> Result<(), RestoreError> {
        let (mut restored, mut other_key) = (0, 0);
        for (shop, sealed) in mysql.shops().await? {
            match self.store.may_restore(&shop, &sealed) {
                Ok(Restored::Yes) => {}
                Ok(Restored::Here) => continue,
                Ok(Restored::Superseded) => {
                    tracing::warn!(shop.id = %shop.id, "not restored: its client id is registered as a newer shop. The rows of the old one stay");
                    continue;
                }
                Err(StoreError::Sealed { .. }) => {
                    other_key += 1;
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let mut documents = 0;
            for definition in self.definitions.iter() {
                documents += self.restore_ledger(mysql, &shop, definition).await?;
            }
            if !self.store.restore_shop(&shop, &sealed, self.budgets_in_use(&shop)).await? {
                tracing::warn!(shop.id = %shop.id, "not restored: its client id is registered as a newer shop. The rows of the old one stay");
                continue;
            }
            tracing::info!(shop.id = %shop.id, documents, "restored a shop from MySQL");
            restored += 1;
            // Nothing is called for a shop that is yet to be proved at this source.
            if shop.state == ShopState::Active && self.store.is_proved(&shop.id, self.source.origin())? {
                self.engine.start_missing_runs(std::slice::from_ref(&shop)).await?;
            }
        }
        if restored > 0 {
            tracing::warn!(
                shops = restored,
                "the data directory was empty: restored shops from MySQL. API keys are not in MySQL; create new ones"
            );
        }
        if other_key > 0 { Err(RestoreError::OtherKey(other_key)) } else { Ok(()) }
    }

    async fn restore_ledger(&self, mysql: &Mysql, shop: &Shop, definition: &Definition) -> Result<u64, RestoreError> {
        let now = self.store.clock().now();
        let refresh = definition.detail.as_ref().and_then(|detail| detail.refresh.as_ref());
        let young_since = refresh.map(|rule| now - (rule.max_age + YOUNG_SLACK));
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let part = LedgerPart {
                resource: &definition.name,
                shop: &shop.id,
                after: &after,
                young_since,
                limit: ROWS_AT_ONCE,
            };
            let rows = mysql.ledger(part).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after.clone_from(&last.id);
            count += rows.len() as u64;
            let documents = rows.into_iter().map(|row| mirrored(definition, row, now)).collect();
            self.store.restore_documents(&shop.id, &definition.name, documents).await?;
        }
    }

    /// All rate slots as used: the lost process may have used them a moment ago.
    fn budgets_in_use(&self, shop: &Shop) -> Vec<(String, u32)> {
        let paths = self.definitions_of(shop).flat_map(Definition::paths);
        let rules = paths.filter_map(|path| self.engine.rules().find("GET", path));
        rules.filter_map(|rule| rule.limit.map(|limit| (rule.name.clone(), limit.calls))).collect()
    }
}

fn mirrored(definition: &Definition, row: LedgerRow, now: Timestamp) -> Mirrored {
    // An unreadable document counts as final; a changed row is read again.
    let read = row.document.as_ref().and_then(|document| {
        let first_seen = || Some(row.first_listed_at);
        pages::document(definition, &row.id, &Bytes::copy_from_slice(document), first_seen, now).ok()
    });
    Mirrored {
        refresh_after: read.and_then(|read| read.value.refresh_after),
        id: row.id,
        combination: row.combination,
        version: row.version,
        row_hash: row.row_hash,
        document_hash: row.document_hash,
        fetched_at: row.fetched_at,
        first_listed_at: row.first_listed_at,
        no_longer_listed_at: row.no_longer_listed_at,
    }
}
