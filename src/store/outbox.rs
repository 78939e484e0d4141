//! The outbox: what was committed here and waits for the sink, in the order of versions.
//!
//! The writer reads batches, writes them, and then acknowledges. An entry leaves only by
//! acknowledging or parking, so a crash in between repeats the write, which is harmless.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::meta::Counter;
use super::runs::RunCounts;
use super::signal::Signal;
use super::{Store, StoreError, Tx, archive, decode_with, document_context, encode_with, keys, parked, shops};
use crate::domain::{Checkpoint, Combination, Document, Entry, StreamId};

/// An entry with its place in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub version: u64,
    /// None: nothing to write any more (its shop was purged); acknowledge it.
    pub entry: Option<Entry>,
    /// Size as stored.
    pub bytes: usize,
}

/// All of a document but its body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DocumentHead {
    pub(super) shop: String,
    pub(super) resource: String,
    pub(super) combination: Combination,
    pub(super) id: String,
    pub(super) fetched_at: i64,
    pub(super) first_listed_at: i64,
    pub(super) row_hash: u64,
    pub(super) document_hash: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<u64>,
}

/// The head of an outbox record; a sealed part may follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Head {
    Document(DocumentHead),
    Listing { shop: String, resource: String, id: String, no_longer_listed_at: Option<i64> },
    Checkpoint { stream: StreamId, checkpoint: Checkpoint },
    Shop { shop: String },
    ShopDeleted { shop: String, purge: bool },
}

fn append(tx: &mut Tx<'_>, head: &Head, sealed: &[u8], now: i64) -> Result<u64, StoreError> {
    let version = tx.next_version(now)?;
    let record = encode_with("an outbox entry", head, sealed)?;
    tx.count(Counter::Outbox, 1)?;
    tx.count(Counter::OutboxBytes, i64::try_from(record.len()).unwrap_or(i64::MAX))?;
    tx.put(keys::numbered(b'o', version), record);
    tx.raise(Signal::Outbox);
    Ok(version)
}

/// Adds a document; returns its version.
pub(super) fn append_document(tx: &mut Tx<'_>, head: DocumentHead, sealed: &[u8], now: i64) -> Result<u64, StoreError> {
    append(tx, &Head::Document(head), sealed, now)
}

pub(super) fn append_listing(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    id: &str,
    gone_at: Option<i64>,
    now: i64,
) -> Result<(), StoreError> {
    let (shop, resource) = (stream.shop.clone(), stream.resource.clone());
    append(tx, &Head::Listing { shop, resource, id: id.to_owned(), no_longer_listed_at: gone_at }, &[], now)?;
    Ok(())
}

pub(super) fn append_checkpoint(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    checkpoint: &Checkpoint,
    now: i64,
) -> Result<(), StoreError> {
    append(tx, &Head::Checkpoint { stream: stream.clone(), checkpoint: checkpoint.clone() }, &[], now)?;
    Ok(())
}

pub(super) fn append_shop(tx: &mut Tx<'_>, shop: &str, now: i64) -> Result<(), StoreError> {
    append(tx, &Head::Shop { shop: shop.to_owned() }, &[], now)?;
    Ok(())
}

pub(super) fn append_shop_deleted(tx: &mut Tx<'_>, shop: &str, purge: bool, now: i64) -> Result<(), StoreError> {
    append(tx, &Head::ShopDeleted { shop: shop.to_owned(), purge }, &[], now)?;
    Ok(())
}

/// Takes an entry out; None when it is not there any more.
pub(super) fn remove(tx: &mut Tx<'_>, version: u64) -> Result<Option<(Head, Vec<u8>)>, StoreError> {
    let key = keys::numbered(b'o', version);
    let Some(record) = tx.get(&key)? else { return Ok(None) };
    let entry = decode_with("an outbox entry", &record)?;
    tx.delete(key);
    tx.count(Counter::Outbox, -1)?;
    tx.count(Counter::OutboxBytes, -i64::try_from(record.len()).unwrap_or(i64::MAX))?;
    Ok(Some(entry))
}

/// Puts an entry back that was parked; it gets a new place but keeps its content.
pub(super) fn put_back(tx: &mut Tx<'_>, head: &Head, sealed: &[u8], now: i64) -> Result<(), StoreError> {
    append(tx, head, sealed, now).map(drop)
}

impl Store {
    /// The oldest entries above the version `after`, at most `count` and about `bytes` (as stored), with
    /// their documents opened.
    ///
    /// # Errors
    /// The engine's read errors, and [`StoreError::Sealed`] for a damaged document.
    pub fn outbox_batch(&self, after: Option<u64>, count: usize, bytes: usize) -> Result<Vec<Waiting>, StoreError> {
        let from = after.map_or_else(|| vec![b'o'], |after| keys::numbered(b'o', after.saturating_add(1)));
        let mut batch = Vec::new();
        let mut size = 0;
        for pair in self.0.kv.scan(b"o", &from).take(count) {
            let (key, record) = pair?;
            size += record.len();
            let version = keys::number_of(&key).unwrap_or(0);
            let (head, sealed) = decode_with("an outbox entry", &record)?;
            batch.push(Waiting { version, entry: self.open_entry(version, head, &sealed)?, bytes: record.len() });
            if size >= bytes {
                break;
            }
        }
        Ok(batch)
    }

    /// The versions of the oldest entries, at most `count`.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_versions(&self, count: usize) -> Result<Vec<u64>, StoreError> {
        let pairs = self.0.kv.scan(b"o", b"o").take(count);
        pairs.map(|pair| Ok(keys::number_of(&pair?.0).unwrap_or(0))).collect()
    }

    fn open_entry(&self, version: u64, head: Head, sealed: &[u8]) -> Result<Option<Entry>, StoreError> {
        Ok(Some(match head {
            Head::Document(head) => {
                let key = match self.shop_key(&head.shop) {
                    Ok(key) => key,
                    Err(StoreError::Absent { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                };
                let body = key.open_document(&document_context(&head.shop, &head.resource, &head.id), sealed)?;
                Entry::Document(document(version, head, body))
            }
            Head::Listing { shop, resource, id, no_longer_listed_at } => {
                Entry::Listing { shop, resource, id, version, no_longer_listed_at }
            }
            Head::Checkpoint { stream, checkpoint } => Entry::Checkpoint { stream, checkpoint },
            // The mirror shows the shop as it is now; an older state need not be written first.
            Head::Shop { shop } => match self.shop_record(&shop)? {
                Some(record) => Entry::Shop { sealed: record.sealed_parts(), shop: record.shop },
                None => return Ok(None),
            },
            Head::ShopDeleted { shop, purge } => Entry::ShopDeleted { shop, purge },
        }))
    }

    /// Removes entries whose commit in the sink is confirmed.
    ///
    /// # Errors
    /// The engine's errors; then nothing is removed and the batch will be written again.
    pub async fn acknowledge(&self, versions: Vec<u64>) -> Result<(), StoreError> {
        let now = self.now();
        self.transact(move |tx| {
            let mut counts = RunCounts::default();
            for version in versions {
                if let Some((head, _)) = remove(tx, version)? {
                    acknowledged(tx, head, &mut counts);
                }
            }
            counts.apply(tx, now)?;
            tx.raise(Signal::Progress);
            Ok(())
        })
        .await
    }

    /// Moves entries into the embedded archive: its write and its acknowledgement are one commit.
    ///
    /// # Errors
    /// The engine's errors; then nothing has moved.
    pub async fn archive(&self, versions: Vec<u64>) -> Result<(), StoreError> {
        let now = self.now();
        self.transact(move |tx| {
            let mut counts = RunCounts::default();
            for version in versions {
                if let Some((head, sealed)) = remove(tx, version)? {
                    archive::apply(tx, version, &head, &sealed)?;
                    // What stays in the archive of a deleted shop needs its key.
                    if !matches!(head, Head::ShopDeleted { purge: false, .. }) {
                        acknowledged(tx, head, &mut counts);
                    }
                }
            }
            counts.apply(tx, now)?;
            tx.raise(Signal::Progress);
            Ok(())
        })
        .await
    }

    /// Gives up on an entry that the sink refuses; it can be retried later.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn park_entry(&self, version: u64, reason: String, attempts: u32) -> Result<(), StoreError> {
        let now = self.now();
        self.transact(move |tx| match remove(tx, version)? {
            Some((head, sealed)) => parked::park_entry(tx, head, sealed, (reason, attempts), now),
            None => Ok(()),
        })
        .await
    }
}

fn acknowledged(tx: &mut Tx<'_>, head: Head, counts: &mut RunCounts) {
    match head {
        Head::Document(head) => counts.written(head.run),
        Head::ShopDeleted { shop, .. } => shops::forget_key(tx, &shop),
        Head::Listing { .. } | Head::Checkpoint { .. } | Head::Shop { .. } => {}
    }
}

fn document(version: u64, head: DocumentHead, body: Vec<u8>) -> Document {
    Document {
        shop: head.shop,
        resource: head.resource,
        combination: head.combination,
        id: head.id,
        version,
        fetched_at: head.fetched_at,
        first_listed_at: head.first_listed_at,
        row_hash: head.row_hash,
        document_hash: head.document_hash,
        run: head.run,
        body: Bytes::from(body),
    }
}
