//! Restore: fills an empty store from the sink's mirror, with the sealed shops and a ledger of what the sink holds, so that
//! unchanged documents are not read again.
//!
//! Called by `app` once, for a store that was just made. What was in the lost store and not in the sink yet (jobs,
//! outbox, parked, checkpoints, API keys) is gone; the first walk, which is whole, finds the documents again.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::domain::{ListParams, RunId, Shop, ShopId, StreamId, Timestamp};
use crate::store::codec::encode;
use crate::store::crypto::{SealKey, random_key};
use crate::store::engine::kv::Change;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::mirror_seal::{self, OpenedRow, RowFault};
use crate::store::ops::detail;
use crate::store::ops::shop_state;
use crate::store::records::ledger::{DocumentNote, RowNote};
use crate::store::records::rate_slots;
use crate::store::records::shops::ShopRecord;
use crate::store::records::unrestored;
use crate::store::tx::handle::Store;
use crate::store::tx::sequences;
use crate::store::tx::transaction::Tx;

/// Set at creation; cleared once restore from MySQL has finished or is not needed.
pub(crate) const BLANK: &[u8] = b"mblank";
/// In a store that has taken some parts of a hand-over and not all.
pub(crate) const UNFINISHED: &[u8] = b"mhand_over";
/// Documents noted in one transaction.
const NOTED_AT_ONCE: usize = 500;

/// One document as the sink's mirror has it.
#[derive(Clone, Debug)]
pub struct Mirrored {
    pub id: String,
    pub combination: ListParams,
    pub version: u64,
    pub row_hash: u64,
    pub document_hash: u64,
    pub fetched_at: Timestamp,
    pub first_listed_at: Timestamp,
    pub no_longer_listed_at: Option<Timestamp>,
    /// When it is to be read again, from now on; None: it is final.
    pub refresh_after: Option<Duration>,
}

/// Result of restoring one shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    Yes,
    /// It is here already.
    Here,
    /// Its client id was registered again, as another shop.
    Superseded,
    /// It was deleted here since; its row goes too.
    Deleted,
    /// Its sealed part cannot be opened, or does not agree with its row.
    Unreadable(RowFault),
}

/// Whether a master key opens the sealed part of a mirrored shop.
///
/// # Errors
/// What is wrong with it.
pub fn opens_shop(master: &[u8; 32], shop: &Shop, sealed: &[u8]) -> Result<(), RowFault> {
    mirror_seal::open(&[SealKey::new(master)], shop, sealed).map(drop)
}

/// The change that marks a new store as blank.
pub(crate) fn mark_blank() -> Change {
    (BLANK.to_vec(), Some(Vec::new()))
}

impl Store {
    /// Whether this store was made new and not filled yet.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn is_blank(&self) -> Result<bool, StoreError> {
        Ok(self.0.kv.get(BLANK)?.is_some())
    }

    /// Ends the restore: nothing is left to fill the store from.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn end_blank(&self) -> Result<(), StoreError> {
        self.transact(|tx| {
            tx.delete(BLANK.to_vec());
            Ok(())
        })
        .await
    }

    /// Whether a mirrored shop can and should be restored.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn may_restore(&self, shop: &Shop, sealed: &[u8]) -> Result<Restored, StoreError> {
        if self.shop(&shop.id)?.is_some() {
            return Ok(Restored::Here);
        }
        if self.0.kv.get(&keyspace::deleted_shop(&shop.id))?.is_some()
            || self.0.kv.get(&keyspace::purged(&shop.id))?.is_some()
        {
            return Ok(Restored::Deleted);
        }
        if self.has_client(&shop.client_id)? {
            return Ok(Restored::Superseded);
        }
        Ok(match mirror_seal::open(&self.masters(), shop, sealed) {
            Ok(_) => Restored::Yes,
            Err(fault) => Restored::Unreadable(fault),
        })
    }

    /// Notes documents of a shop as listed, read and written. Those that are noted already stay as they are, so
    /// this may be repeated.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn restore_documents(
        &self,
        shop: &ShopId,
        resource: &str,
        documents: Vec<Mirrored>,
    ) -> Result<(), StoreError> {
        let now = self.now();
        for some in documents.chunks(NOTED_AT_ONCE) {
            let (shop, resource, some) = (shop.clone(), resource.to_owned(), some.to_vec());
            self.transact(move |tx| some.into_iter().try_for_each(|one| note(tx, &shop, &resource, one, now))).await?;
        }
        Ok(())
    }

    /// Makes the shop known; its documents are noted by then. `budgets` names accounts' rules, and how many slots
    /// of each the lost process may have used a moment ago. False: its client id was registered again meanwhile, and
    /// the noted documents are removed.
    ///
    /// # Errors
    /// The engine's errors, and [`StoreError::Sealed`] for a sealed part that [`Store::may_restore`] refuses.
    pub async fn restore_shop(
        &self,
        shop: &Shop,
        sealed: &[u8],
        budgets: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        let row = mirror_seal::open(&self.masters(), shop, sealed)
            .map_err(|_| StoreError::Sealed { context: format!("the row of shop {}", shop.id) })?;
        self.register(shop.clone(), row, budgets).await
    }

    /// Gives a shop back the id that it had, with credentials that were proved at the source in use and a new data key;
    /// its documents are noted by then. False: its client id is registered, as another shop.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn adopt_shop(
        &self,
        shop: Shop,
        client_secret: &SecretString,
        budgets: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        let secret = Zeroizing::new(client_secret.expose_secret().as_bytes().to_vec());
        let row = OpenedRow { data_key: random_key()?, secret, proved_at: self.0.source.get().cloned() };
        self.register(shop, row, budgets).await
    }

    /// Makes a shop known under an id that it had.
    async fn register(&self, shop: Shop, row: OpenedRow, budgets: Vec<(String, u32)>) -> Result<bool, StoreError> {
        let (id, now) = (shop.id.clone(), self.now());
        let mut record = ShopRecord::new(shop, row.proved_at);
        record.seal(&SealKey::new(&row.data_key), &row.secret)?;
        self.change_keys(move |keys| keys.add(vec![(id, row.data_key)])).await?;
        let client = keyspace::client(&record.shop.client_id);
        let restored = self.transact(move |tx| {
            if tx.get(&client)?.is_some() {
                tx.put(keyspace::removal(&record.shop.id), Vec::new());
                return Ok(false);
            }
            for (rule, used) in budgets {
                rate_slots::put(tx, &record.shop.account, &rule, used);
            }
            unrestored::forget(tx, &record.shop.id)?;
            tx.put(client, record.shop.id.as_bytes().to_vec());
            shop_state::put(tx, &record, now)?;
            Ok(true)
        });
        let restored = restored.await?;
        if !restored {
            self.resume_deletions().await?;
        }
        Ok(restored)
    }
}

fn note(tx: &mut Tx<'_>, shop: &ShopId, resource: &str, one: Mirrored, now: Timestamp) -> Result<(), StoreError> {
    let stream = StreamId { shop: shop.clone(), resource: resource.to_owned(), combination: one.combination };
    let key = keyspace::document(shop, resource, &one.id);
    if tx.get(&key)?.is_some() {
        return Ok(());
    }
    // A younger document must get a greater version, whatever the clock says.
    sequences::raise_version(tx, one.version)?;
    let row = RowNote {
        hash: one.row_hash,
        first_listed_at: one.first_listed_at,
        seen: RunId::MIN,
        pass: 1,
        time: None,
        unlisted_at: one.no_longer_listed_at,
        ..RowNote::default()
    };
    tx.put(keyspace::row(&stream, &one.id), encode("a ledger row", &row)?);
    let refresh = match one.refresh_after {
        Some(pause) => Some(detail::plan_refresh(tx, &stream, &one.id, pause, now)?),
        None => None,
    };
    let note = DocumentNote {
        hash: one.document_hash,
        version: one.version,
        fetched_at: one.fetched_at,
        refresh,
        unknown: false,
        lost: false,
        accepted_at: None,
    };
    tx.put(key, encode("a ledger document", &note)?);
    Ok(())
}
