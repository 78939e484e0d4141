//! The outbox: what was committed here and waits for the sink, in the order of versions.
//!
//! The writer reads batches, writes them, and then acknowledges. An entry leaves only by
//! acknowledging or parking, so a crash in between repeats the write, which is harmless. Entries of one
//! transaction share a record as far as it stays small: a write costs the engine much the same
//! whatever its size.
//!
//! A record is a row of entries: version (8 bytes), length of the head and of the sealed part (4 bytes
//! each, big end first), head as JSON, sealed part.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::domain::{Checkpoint, Entry, ShopId, StreamId, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::engine::large_values::PART_BYTES;
use crate::store::entry::{DocumentHead, EntryHead};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::counters::Counter;
use crate::store::tx::handle::Store;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// What fits one value of the engine; a larger entry gets a record of its own, in parts.
const RECORD_BYTES_MAX: usize = PART_BYTES;

/// Position of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboxPosition {
    /// The record's number: the version of its first entry, or as great as if that were new.
    pub(crate) record: u64,
    pub(crate) version: u64,
}

impl OutboxPosition {
    /// The number of the record; records leave the outbox in the order of their numbers, but for entries that are tried
    /// again.
    pub fn record(&self) -> u64 {
        self.record
    }
}

/// An entry with its place in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxItem {
    pub position: OutboxPosition,
    /// None: nothing to write any more (its shop was purged); acknowledge it.
    pub entry: Option<Entry>,
    /// Size as stored.
    pub bytes: usize,
}

/// An entry within a record.
pub(crate) struct StoredEntry<'a> {
    pub(crate) version: u64,
    head: &'a [u8],
    pub(crate) sealed: &'a [u8],
}

impl StoredEntry<'_> {
    pub(crate) fn len(&self) -> usize {
        16 + self.head.len() + self.sealed.len()
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let length = |part: &[u8]| u32::try_from(part.len()).map_err(|_| cut("too long"));
        out.extend(self.version.to_be_bytes());
        out.extend(length(self.head)?.to_be_bytes());
        out.extend(length(self.sealed)?.to_be_bytes());
        out.extend_from_slice(self.head);
        out.extend_from_slice(self.sealed);
        Ok(())
    }

    pub(crate) fn head(&self) -> Result<EntryHead, StoreError> {
        decode("an outbox entry", self.head)
    }
}

fn cut(detail: &str) -> StoreError {
    StoreError::Record { what: "outbox entries".to_owned(), detail: detail.to_owned() }
}

/// The entries of a record.
pub(crate) fn entries(mut record: &[u8]) -> Result<Vec<StoredEntry<'_>>, StoreError> {
    let mut entries = Vec::new();
    while !record.is_empty() {
        let entry = split_entry(&mut record).ok_or_else(|| cut("cut off"))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn split_entry<'a>(record: &mut &'a [u8]) -> Option<StoredEntry<'a>> {
    let (version, rest) = record.split_first_chunk::<8>()?;
    let (head, rest) = rest.split_first_chunk::<4>()?;
    let (sealed, rest) = rest.split_first_chunk::<4>()?;
    let (head, rest) = rest.split_at_checked(u32::from_be_bytes(*head) as usize)?;
    let (sealed, rest) = rest.split_at_checked(u32::from_be_bytes(*sealed) as usize)?;
    *record = rest;
    Some(StoredEntry { version: u64::from_be_bytes(*version), head, sealed })
}

/// The documents of a shop's resource in a record.
pub(crate) fn document_ids(record: &[u8], shop: &str, resource: &str) -> Result<Vec<String>, StoreError> {
    let mut ids = Vec::new();
    for entry in entries(record)? {
        match entry.head()? {
            EntryHead::Document(DocumentHead { shop: of, resource: kind, id, .. })
            | EntryHead::Listing { shop: of, resource: kind, id, .. } => {
                if of == shop && kind == resource {
                    ids.push(id);
                }
            }
            EntryHead::Checkpoint { .. } | EntryHead::Shop { .. } | EntryHead::ShopDeleted { .. } => {}
        }
    }
    Ok(ids)
}

/// Adds an entry, new or one that was taken out before; its version, which is its place too.
pub(crate) fn append(tx: &mut Tx<'_>, head: &EntryHead, sealed: &[u8], now: Timestamp) -> Result<u64, StoreError> {
    let version = tx.next_version(now)?;
    add(tx, version, &StoredEntry { version, head: &encode("an outbox entry", head)?, sealed })?;
    Ok(version)
}

/// Adds an entry that keeps the version it got before; returns the number of the record that holds it. No other entry of
/// the transaction may have that version.
pub(crate) fn append_version(
    tx: &mut Tx<'_>,
    version: u64,
    head: &EntryHead,
    sealed: &[u8],
    now: Timestamp,
) -> Result<u64, StoreError> {
    let place = tx.next_version(now)?;
    add(tx, place, &StoredEntry { version, head: &encode("an outbox entry", head)?, sealed })
}

/// Adds an entry to the transaction's open record, or to a new one with the number `place`; returns the record's number.
fn add(tx: &mut Tx<'_>, place: u64, entry: &StoredEntry<'_>) -> Result<u64, StoreError> {
    let length = entry.len();
    let mut bytes = Vec::with_capacity(length);
    entry.write(&mut bytes)?;
    tx.count(Counter::Outbox, 1);
    tx.count(Counter::OutboxBytes, i64::try_from(length).unwrap_or(i64::MAX));
    let room = tx.open_record.filter(|(_, size)| size + length <= RECORD_BYTES_MAX);
    let (record, size) = match room {
        Some((record, size)) if tx.extend(&keyspace::outbox(record), &bytes) => (record, size + length),
        _ => {
            tx.put(keyspace::outbox(place), bytes);
            (place, length)
        }
    };
    tx.open_record = Some((record, size));
    tx.raise(Signal::Outbox);
    Ok(record)
}

/// The streams with a document or a checkpoint in a record, by shop and resource.
pub(crate) fn resources(record: &[u8]) -> Result<Vec<(ShopId, String)>, StoreError> {
    let mut found = Vec::new();
    for entry in entries(record)? {
        match entry.head()? {
            EntryHead::Document(DocumentHead { shop, resource, .. }) => found.push((shop, resource)),
            EntryHead::Checkpoint { stream, .. } => found.push((stream.shop, stream.resource)),
            EntryHead::Listing { .. } | EntryHead::Shop { .. } | EntryHead::ShopDeleted { .. } => {}
        }
    }
    Ok(found)
}

/// Adds a document; returns its version.
pub(crate) fn append_document(
    tx: &mut Tx<'_>,
    head: DocumentHead,
    sealed: &[u8],
    now: Timestamp,
) -> Result<u64, StoreError> {
    append(tx, &EntryHead::Document(head), sealed, now)
}

pub(crate) fn append_listing(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    id: &str,
    unlisted_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (shop, resource) = (stream.shop.clone(), stream.resource.clone());
    append(tx, &EntryHead::Listing { shop, resource, id: id.to_owned(), no_longer_listed_at: unlisted_at }, &[], now)?;
    Ok(())
}

pub(crate) fn append_checkpoint(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    checkpoint: &Checkpoint,
    now: Timestamp,
) -> Result<(), StoreError> {
    append(tx, &EntryHead::Checkpoint { stream: stream.clone(), checkpoint: checkpoint.clone() }, &[], now)?;
    Ok(())
}

pub(crate) fn append_shop(tx: &mut Tx<'_>, shop: &ShopId, now: Timestamp) -> Result<(), StoreError> {
    append(tx, &EntryHead::Shop { shop: shop.clone() }, &[], now)?;
    Ok(())
}

pub(crate) fn append_shop_deleted(
    tx: &mut Tx<'_>,
    shop: &ShopId,
    purge: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    append(tx, &EntryHead::ShopDeleted { shop: shop.clone(), purge }, &[], now)?;
    Ok(())
}

/// An entry that was taken out of the outbox.
pub(crate) struct RemovedEntry {
    pub(crate) version: u64,
    pub(crate) head: EntryHead,
    pub(crate) sealed: Vec<u8>,
}

/// Takes entries out; those that are not there any more are passed over.
pub(crate) fn remove(tx: &mut Tx<'_>, positions: &[OutboxPosition]) -> Result<Vec<RemovedEntry>, StoreError> {
    let mut wanted: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for position in positions {
        wanted.entry(position.record).or_default().insert(position.version);
    }
    let mut removed = Vec::with_capacity(positions.len());
    for (record, versions) in wanted {
        let key = keyspace::outbox(record);
        let Some(bytes) = tx.get(&key)? else { continue };
        let mut left = Vec::new();
        for entry in entries(&bytes)? {
            if versions.contains(&entry.version) {
                let (head, sealed) = (entry.head()?, entry.sealed.to_vec());
                removed.push(RemovedEntry { version: entry.version, head, sealed });
                tx.count(Counter::Outbox, -1);
                tx.count(Counter::OutboxBytes, -i64::try_from(entry.len()).unwrap_or(i64::MAX));
            } else {
                entry.write(&mut left)?;
            }
        }
        if left.is_empty() { tx.delete(key) } else { tx.put(key, left) }
    }
    Ok(removed)
}

impl Store {
    /// Whether documents or checkpoints of these shops wait for the sink. With more than `records_max` records it is not
    /// looked for: then yes.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_has_documents_of(&self, shops: &HashSet<ShopId>, records_max: usize) -> Result<bool, StoreError> {
        for (place, pair) in self.0.kv.scan(keyspace::OUTBOX, keyspace::OUTBOX).enumerate() {
            let is_found = place >= records_max || resources(&pair?.1)?.iter().any(|(shop, _)| shops.contains(shop));
            if is_found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Positions of the oldest entries, about `count` of them and about `bytes` (as stored).
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_positions(&self, count: usize, bytes: usize) -> Result<Vec<OutboxPosition>, StoreError> {
        let mut positions = Vec::new();
        let mut size = 0;
        for pair in self.0.kv.scan(keyspace::OUTBOX, keyspace::OUTBOX) {
            let (key, stored) = pair?;
            let record = keyspace::number_of(&key).unwrap_or(0);
            positions.extend(entries(&stored)?.iter().map(|entry| OutboxPosition { record, version: entry.version }));
            size += stored.len();
            if positions.len() >= count || size >= bytes {
                break;
            }
        }
        Ok(positions)
    }
}
