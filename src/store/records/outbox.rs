//! The outbox: what was committed here and waits for the sink, in the order of versions.
//!
//! The writer reads batches, writes them, and then acknowledges. An entry leaves only by
//! acknowledging or parking, so a crash in between repeats the write, which is harmless. Entries of one
//! transaction share a record as far as it stays small: a write costs the engine much the same
//! whatever its size.
//!
//! A record is a row of entries: version (8 bytes), length of the head and of the sealed part (4 bytes
//! each, big end first), head as JSON, sealed part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Checkpoint, Combination, Document, Entry, StreamId};
use crate::store::engine::large_values::PART_BYTES;
use crate::store::keyspace;
use crate::store::records::archive;
use crate::store::records::dead_letters;
use crate::store::records::runs::RunCounts;
use crate::store::records::shops;
use crate::store::tx::counters::Counter;
use crate::store::tx::notify::Signal;
use crate::store::{Store, StoreError, Tx, decode, document_context, encode};

/// What fits one value of the engine; a larger entry stands alone, in parts.
const RECORD_BYTES_MAX: usize = PART_BYTES;

/// Entries that settling moves into the archive at once, and about how many bytes as stored.
const ARCHIVED_MAX: usize = 256;
const ARCHIVED_BYTES_MAX: usize = 512 * 1024;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The record's number: the version of its first entry.
    record: u64,
    version: u64,
}

/// An entry with its place in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub slot: Slot,
    /// None: nothing to write any more (its shop was purged); acknowledge it.
    pub entry: Option<Entry>,
    /// Size as stored.
    pub bytes: usize,
}

/// All of a document but its body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DocumentHead {
    pub(crate) shop: String,
    pub(crate) resource: String,
    pub(crate) combination: Combination,
    pub(crate) id: String,
    pub(crate) fetched_at: i64,
    pub(crate) first_listed_at: i64,
    pub(crate) row_hash: u64,
    pub(crate) document_hash: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<u64>,
}

/// The head of an outbox record; a sealed part may follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Head {
    Document(DocumentHead),
    Listing { shop: String, resource: String, id: String, no_longer_listed_at: Option<i64> },
    Checkpoint { stream: StreamId, checkpoint: Checkpoint },
    Shop { shop: String },
    ShopDeleted { shop: String, purge: bool },
}

/// An entry within a record.
struct Stored<'a> {
    version: u64,
    head: &'a [u8],
    sealed: &'a [u8],
}

impl Stored<'_> {
    fn len(&self) -> usize {
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

    fn head(&self) -> Result<Head, StoreError> {
        decode("an outbox entry", self.head)
    }
}

fn cut(detail: &str) -> StoreError {
    StoreError::Record { what: "outbox entries".to_owned(), detail: detail.to_owned() }
}

/// The entries of a record.
fn entries(mut record: &[u8]) -> Result<Vec<Stored<'_>>, StoreError> {
    let mut entries = Vec::new();
    while !record.is_empty() {
        let entry = split_entry(&mut record).ok_or_else(|| cut("cut off"))?;
        entries.push(entry);
    }
    Ok(entries)
}

fn split_entry<'a>(record: &mut &'a [u8]) -> Option<Stored<'a>> {
    let (version, rest) = record.split_first_chunk::<8>()?;
    let (head, rest) = rest.split_first_chunk::<4>()?;
    let (sealed, rest) = rest.split_first_chunk::<4>()?;
    let (head, rest) = rest.split_at_checked(u32::from_be_bytes(*head) as usize)?;
    let (sealed, rest) = rest.split_at_checked(u32::from_be_bytes(*sealed) as usize)?;
    *record = rest;
    Some(Stored { version: u64::from_be_bytes(*version), head, sealed })
}

/// The documents of a shop's resource in a record.
pub(crate) fn document_ids(record: &[u8], shop: &str, resource: &str) -> Result<Vec<String>, StoreError> {
    let mut ids = Vec::new();
    for entry in entries(record)? {
        match entry.head()? {
            Head::Document(of) if of.shop == shop && of.resource == resource => ids.push(of.id),
            Head::Listing { shop: of, resource: kind, id, .. } if of == shop && kind == resource => ids.push(id),
            _ => {}
        }
    }
    Ok(ids)
}

/// Adds an entry, new or one that was taken out before; its version, which is its place too.
pub(crate) fn append(tx: &mut Tx<'_>, head: &Head, sealed: &[u8], now: i64) -> Result<u64, StoreError> {
    let version = tx.next_version(now)?;
    let head = encode("an outbox entry", head)?;
    let entry = Stored { version, head: &head, sealed };
    let length = entry.len();
    let mut bytes = Vec::with_capacity(length);
    entry.write(&mut bytes)?;
    tx.count(Counter::Outbox, 1);
    tx.count(Counter::OutboxBytes, i64::try_from(length).unwrap_or(i64::MAX));
    let room = tx.open_record.filter(|(_, size)| size + length <= RECORD_BYTES_MAX);
    tx.open_record = match room {
        Some((record, size)) if tx.extend(&keyspace::numbered(b'o', record), &bytes) => Some((record, size + length)),
        _ => {
            tx.put(keyspace::numbered(b'o', version), bytes);
            Some((version, length))
        }
    };
    tx.raise(Signal::Outbox);
    Ok(version)
}

/// Adds a document; returns its version.
pub(crate) fn append_document(tx: &mut Tx<'_>, head: DocumentHead, sealed: &[u8], now: i64) -> Result<u64, StoreError> {
    append(tx, &Head::Document(head), sealed, now)
}

pub(crate) fn append_listing(
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

pub(crate) fn append_checkpoint(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    checkpoint: &Checkpoint,
    now: i64,
) -> Result<(), StoreError> {
    append(tx, &Head::Checkpoint { stream: stream.clone(), checkpoint: checkpoint.clone() }, &[], now)?;
    Ok(())
}

pub(crate) fn append_shop(tx: &mut Tx<'_>, shop: &str, now: i64) -> Result<(), StoreError> {
    append(tx, &Head::Shop { shop: shop.to_owned() }, &[], now)?;
    Ok(())
}

pub(crate) fn append_shop_deleted(tx: &mut Tx<'_>, shop: &str, purge: bool, now: i64) -> Result<(), StoreError> {
    append(tx, &Head::ShopDeleted { shop: shop.to_owned(), purge }, &[], now)?;
    Ok(())
}

/// Takes entries out, each with its version; those that are not there any more are passed over.
fn remove(tx: &mut Tx<'_>, slots: &[Slot]) -> Result<Vec<(u64, Head, Vec<u8>)>, StoreError> {
    let mut wanted: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for slot in slots {
        wanted.entry(slot.record).or_default().insert(slot.version);
    }
    let mut removed = Vec::with_capacity(slots.len());
    for (record, versions) in wanted {
        let key = keyspace::numbered(b'o', record);
        let Some(bytes) = tx.get(&key)? else { continue };
        let mut left = Vec::new();
        for entry in entries(&bytes)? {
            if versions.contains(&entry.version) {
                removed.push((entry.version, entry.head()?, entry.sealed.to_vec()));
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
    /// The oldest entries in records above that of `after`, about `count` and about `bytes` (as stored):
    /// records are read whole. Their documents are opened; one that cannot be is told and left out, so that it holds
    /// up no other: the sink lacks it, and what it lacks is read again after the next full walk.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_batch(&self, after: Option<Slot>, count: usize, bytes: usize) -> Result<Vec<Waiting>, StoreError> {
        let from = after.map_or_else(|| vec![b'o'], |after| keyspace::numbered(b'o', after.record.saturating_add(1)));
        let mut batch = Vec::new();
        let mut size = 0;
        for pair in self.0.kv.scan(b"o", &from) {
            let (key, record) = pair?;
            let number = keyspace::number_of(&key).unwrap_or(0);
            for stored in entries(&record)? {
                size += stored.len();
                let (slot, bytes) = (Slot { record: number, version: stored.version }, stored.len());
                let entry = match self.open_entry(stored.version, stored.head()?, stored.sealed) {
                    Err(StoreError::Sealed { context }) => {
                        tracing::error!(context, "a document cannot be opened and is left out until it is read again");
                        None
                    }
                    opened => opened?,
                };
                batch.push(Waiting { slot, entry, bytes });
            }
            if batch.len() >= count || size >= bytes {
                break;
            }
        }
        Ok(batch)
    }

    /// Where the oldest entries stand, about `count` of them and about `bytes` (as stored).
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_slots(&self, count: usize, bytes: usize) -> Result<Vec<Slot>, StoreError> {
        let mut slots = Vec::new();
        let mut size = 0;
        for pair in self.0.kv.scan(b"o", b"o") {
            let (key, stored) = pair?;
            let record = keyspace::number_of(&key).unwrap_or(0);
            slots.extend(entries(&stored)?.iter().map(|entry| Slot { record, version: entry.version }));
            size += stored.len();
            if slots.len() >= count || size >= bytes {
                break;
            }
        }
        Ok(slots)
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
    pub async fn acknowledge(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        let now = self.now();
        self.transact(move |tx| {
            let mut counts = RunCounts::default();
            for (_, head, _) in remove(tx, &slots)? {
                acknowledged(tx, head, &mut counts);
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
    pub async fn archive(&self, slots: Vec<Slot>) -> Result<(), StoreError> {
        let now = self.now();
        self.transact(move |tx| move_to_archive(tx, &slots, now)).await
    }

    /// From now on what settling adds to the outbox moves into the archive in the same commit. What else is added waits
    /// for [`Store::archive`].
    pub fn archive_when_settling(&self) {
        self.0.archives_when_settling.store(true, Ordering::Relaxed);
    }

    /// Gives up on an entry that the sink refuses; it can be retried later.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn park_entry(&self, slot: Slot, reason: String, attempts: u32) -> Result<(), StoreError> {
        let (now, parked_max) = (self.now(), self.parked_max());
        let paused = self.transact(move |tx| {
            for (_, head, sealed) in remove(tx, &[slot])? {
                dead_letters::park_entry(tx, head, sealed, (reason.clone(), attempts), now)?;
            }
            dead_letters::pause_full(tx, parked_max, now)
        });
        for shop in paused.await? {
            self.stop_runs(&shop).await?;
        }
        Ok(())
    }
}

/// Moves the oldest entries into the archive; no more than one commit should.
pub(crate) fn archive_oldest(tx: &mut Tx<'_>, now: i64) -> Result<(), StoreError> {
    let (mut slots, mut size) = (Vec::new(), 0);
    for pair in tx.pairs(b"o", b"o") {
        let (key, stored) = pair?;
        let record = keyspace::number_of(&key).unwrap_or(0);
        slots.extend(entries(&stored)?.iter().map(|entry| Slot { record, version: entry.version }));
        size += stored.len();
        if slots.len() >= ARCHIVED_MAX || size >= ARCHIVED_BYTES_MAX {
            break;
        }
    }
    if slots.is_empty() { Ok(()) } else { move_to_archive(tx, &slots, now) }
}

fn move_to_archive(tx: &mut Tx<'_>, slots: &[Slot], now: i64) -> Result<(), StoreError> {
    let mut counts = RunCounts::default();
    for (version, head, sealed) in remove(tx, slots)? {
        if !archive::apply(tx, version, &head, &sealed)? {
            append(tx, &head, &sealed, now)?;
            continue;
        }
        // What stays in the archive of a deleted shop needs its key.
        if !matches!(head, Head::ShopDeleted { purge: false, .. }) {
            acknowledged(tx, head, &mut counts);
        }
    }
    counts.apply(tx, now)?;
    tx.raise(Signal::Progress);
    Ok(())
}

fn acknowledged(tx: &mut Tx<'_>, head: Head, counts: &mut RunCounts) {
    match head {
        Head::Document(head) => {
            metrics::counter!("waybill_documents_written_total", "resource" => head.resource.clone()).increment(1);
            counts.written(head.run);
        }
        Head::ShopDeleted { shop, purge } => shops::forget_key(tx, &shop, purge),
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
