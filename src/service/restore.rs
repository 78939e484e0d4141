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
use crate::domain::{Shop, ShopState, Timestamp, counted};
use crate::sink::mysql::{LedgerPart, LedgerRow, MirroredShop};
use crate::sink::{Mysql, Sink, SinkError};
use crate::source::pages;
use crate::store::{Mirrored, Restored, RowFault, StoreError, UnrestoredShop};

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
        "{} in waybill_shops {}: start with an empty data directory and the key that they were registered with; if that \
         is lost, adopt each with its client secret (`waybill shops adopt`, or POST /api/v1/adoptions), which keeps its id",
        counted(*.0, "shop", "shops"), if *.0 == 1 { "is sealed with another master key" } else { "are sealed with another master key" }
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
        let (mut restored, mut faulty) = (0, Vec::new());
        let rows = mysql.shops().await?;
        let mut is_our_key = !self.store.shops()?.is_empty();
        for row in rows {
            let fault = match row.unreadable {
                Some(column) if self.store.shop(&row.shop.id)?.is_none() => RowDiagnosis::Column(column),
                _ => match self.store.may_restore(&row.shop, &row.sealed)? {
                    Restored::Yes => {
                        is_our_key = true;
                        restored += u64::from(self.restore_row(mysql, &row).await?);
                        continue;
                    }
                    Restored::Here | Restored::Deleted => continue,
                    Restored::Superseded => {
                        warn_superseded(&row.shop);
                        continue;
                    }
                    Restored::Unreadable(fault) => RowDiagnosis::Sealed(fault),
                },
            };
            faulty.push((row.shop, fault));
        }
        if restored > 0 {
            tracing::warn!(
                shops = restored,
                "the data directory was empty: restored shops from MySQL. API keys are not in MySQL; create new ones"
            );
        }
        self.note_faulty(faulty, is_our_key).await
    }

    /// Restores the shop of one row, whose documents are noted before it. False: its client id is registered by now.
    async fn restore_row(&self, mysql: &Mysql, row: &MirroredShop) -> Result<bool, RestoreError> {
        let shop = &row.shop;
        let documents = self.restore_documents(mysql, shop).await?;
        if !self.store.restore_shop(shop, &row.sealed, self.budgets_in_use(shop)).await? {
            warn_superseded(shop);
            return Ok(false);
        }
        tracing::info!(shop.id = %shop.id, documents, "restored a shop from MySQL");
        // Nothing is called for a shop that is yet to be proved at this source.
        if shop.state == ShopState::Active && self.store.is_proved(&shop.id, self.source.origin())? {
            self.engine.start_missing_runs(std::slice::from_ref(shop)).await?;
        }
        Ok(true)
    }

    pub(super) async fn restore_documents(&self, mysql: &Mysql, shop: &Shop) -> Result<u64, RestoreError> {
        let mut documents = 0;
        for definition in self.definitions.iter() {
            documents += self.restore_ledger(mysql, shop, definition).await?;
        }
        Ok(documents)
    }

    /// Keeps the list of the shops that could not be restored. `is_our_key`: our master key opened a shop, so a row that
    /// does not say which key sealed it is damaged.
    async fn note_faulty(&self, faulty: Vec<(Shop, RowDiagnosis)>, is_our_key: bool) -> Result<(), RestoreError> {
        let (mut other_key, mut unrestored) = (0, Vec::new());
        for (shop, diagnosis) in faulty {
            let fault = match diagnosis {
                RowDiagnosis::Column(column) => format!("its column `{column}` cannot be read"),
                RowDiagnosis::Sealed(fault) => {
                    let is_key = matches!(fault, RowFault::OtherKey { .. })
                        || matches!(fault, RowFault::KeyOrDamage) && !is_our_key;
                    other_key += usize::from(is_key);
                    fault.to_string()
                }
            };
            unrestored.push(UnrestoredShop { id: shop.id, name: shop.name, client_id: shop.client_id, fault });
        }
        if self.store.unrestored_shops()? != unrestored {
            for UnrestoredShop { id, fault, .. } in &unrestored {
                tracing::error!(shop.id = %id, fault, "a shop of MySQL is not restored; the others do not depend on it");
            }
        }
        self.store.note_unrestored(unrestored).await?;
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
    pub(super) fn budgets_in_use(&self, shop: &Shop) -> Vec<(String, u32)> {
        let paths = self.definitions_of(shop).flat_map(Definition::paths);
        let rules = paths.filter_map(|path| self.engine.rules().find("GET", path));
        rules.filter_map(|rule| rule.limit.map(|limit| (rule.name.clone(), limit.calls))).collect()
    }
}

/// What is wrong with a row of the mirror.
enum RowDiagnosis {
    Column(&'static str),
    Sealed(RowFault),
}

fn warn_superseded(shop: &Shop) {
    tracing::warn!(shop.id = %shop.id, "not restored: its client id is registered as a newer shop. The rows of the old one stay");
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
