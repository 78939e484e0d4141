//! The way out of the outbox: read a batch, and acknowledge, archive or park it.
//!
//! Called by the writer. An entry leaves only in one of these three ways, so a crash before that repeats the write,
//! which is harmless.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::domain::{Document, Entry, Timestamp};
use crate::store::crypto::document_context;
use crate::store::entry::{DocumentHead, EntryHead};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::archive;
use crate::store::ops::park::{self, Refusal};
use crate::store::ops::run_progress::RunCounts;
use crate::store::ops::stream_status;
use crate::store::records::archive_index::IndexChanges;
use crate::store::records::outbox::{self, OutboxItem, OutboxPosition, RemovedEntry};
use crate::store::records::shops;
use crate::store::tx::handle::Store;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// Entries that one settlement moves into the archive, and their stored bytes, roughly.
pub(crate) const ARCHIVED_MAX: usize = 256;

pub(crate) const ARCHIVED_BYTES_MAX: usize = 512 * 1024;

/// Moves the oldest entries into the archive, as many as fit one commit.
pub(crate) fn archive_oldest(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let (mut positions, mut size) = (Vec::new(), 0);
    for pair in tx.pairs(keyspace::OUTBOX, keyspace::OUTBOX) {
        let (key, stored) = pair?;
        let record = keyspace::number_of(&key).unwrap_or(0);
        positions
            .extend(outbox::entries(&stored)?.iter().map(|entry| OutboxPosition { record, version: entry.version }));
        size += stored.len();
        if positions.len() >= ARCHIVED_MAX || size >= ARCHIVED_BYTES_MAX {
            break;
        }
    }
    if positions.is_empty() { Ok(()) } else { move_to_archive(tx, &positions, now) }
}

pub(crate) fn move_to_archive(tx: &mut Tx<'_>, positions: &[OutboxPosition], now: Timestamp) -> Result<(), StoreError> {
    let (mut counts, mut index) = (RunCounts::default(), IndexChanges::default());
    for RemovedEntry { version, head, sealed } in outbox::remove(tx, positions)? {
        if !archive::apply(tx, &mut index, version, &head, &sealed)? {
            outbox::append(tx, &head, &sealed, now)?;
            continue;
        }
        // What stays in the archive of a deleted shop needs its key.
        if !matches!(head, EntryHead::ShopDeleted { purge: false, .. }) {
            acknowledged(tx, head, &mut counts);
        }
    }
    index.write(tx, now)?;
    counts.apply(tx, now)?;
    tx.raise(Signal::Progress);
    Ok(())
}

pub(crate) fn acknowledged(tx: &mut Tx<'_>, head: EntryHead, counts: &mut RunCounts) {
    match head {
        EntryHead::Document(head) => {
            metrics::counter!("waybill_documents_written_total", "resource" => head.resource.clone()).increment(1);
            counts.written(head.run);
        }
        EntryHead::ShopDeleted { shop, purge } => shops::forget_key(tx, &shop, purge),
        EntryHead::Listing { .. } | EntryHead::Checkpoint { .. } | EntryHead::Shop { .. } => {}
    }
}

pub(crate) fn document(version: u64, head: DocumentHead, body: Vec<u8>) -> Document {
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

impl Store {
    /// The oldest entries in records above that of `after`, about `count` and about `bytes` (as stored):
    /// records are read whole. Their documents are opened; one that cannot be is logged and left out, so that it holds
    /// up no other: the sink lacks it, and the repair after the next full walk re-reads it.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_batch(
        &self,
        after: Option<OutboxPosition>,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<OutboxItem>, StoreError> {
        let from =
            after.map_or_else(|| keyspace::OUTBOX.to_vec(), |after| keyspace::outbox(after.record.saturating_add(1)));
        let mut batch = Vec::new();
        let mut size = 0;
        for pair in self.0.kv.scan(keyspace::OUTBOX, &from) {
            let (key, record) = pair?;
            let number = keyspace::number_of(&key).unwrap_or(0);
            for stored in outbox::entries(&record)? {
                size += stored.len();
                let (position, bytes) = (OutboxPosition { record: number, version: stored.version }, stored.len());
                let entry = match self.open_entry(stored.version, stored.head()?, stored.sealed) {
                    Err(StoreError::Sealed { context }) => {
                        tracing::error!(
                            context,
                            "an entry cannot be opened and is left out: a document until it is read again, a shop until it \
                             has a new secret"
                        );
                        None
                    }
                    opened => opened?,
                };
                batch.push(OutboxItem { position, entry, bytes });
            }
            if batch.len() >= count || size >= bytes {
                break;
            }
        }
        Ok(batch)
    }

    fn open_entry(&self, version: u64, head: EntryHead, sealed: &[u8]) -> Result<Option<Entry>, StoreError> {
        Ok(Some(match head {
            EntryHead::Document(head) => {
                let key = match self.shop_key(&head.shop) {
                    Ok(key) => key,
                    Err(StoreError::Absent { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                };
                let body = key.open_document(&document_context(&head.shop, &head.resource, &head.id), sealed)?;
                Entry::Document(document(version, head, body))
            }
            EntryHead::Listing { shop, resource, id, no_longer_listed_at } => {
                Entry::Listing { shop, resource, id, version, no_longer_listed_at }
            }
            EntryHead::Checkpoint { stream, checkpoint } => Entry::Checkpoint { stream, checkpoint },
            // The mirror shows the shop as it is now; an older state need not be written first.
            EntryHead::Shop { shop } => match self.shop_record(&shop)? {
                Some(record) => Entry::Shop { sealed: self.mirror_part(&record)?, shop: record.shop },
                None => return Ok(None),
            },
            EntryHead::ShopDeleted { shop, purge } => Entry::ShopDeleted { shop, purge },
        }))
    }

    /// Removes entries whose commit in the sink is confirmed.
    ///
    /// # Errors
    /// The engine's errors; then nothing is removed and the batch will be written again.
    pub async fn acknowledge(&self, positions: Vec<OutboxPosition>) -> Result<(), StoreError> {
        self.count_work(positions.len());
        let now = self.now();
        self.transact(move |tx| {
            let (mut counts, mut streams) = (RunCounts::default(), BTreeSet::new());
            for RemovedEntry { head, .. } in outbox::remove(tx, &positions)? {
                match &head {
                    EntryHead::Document(head) => drop(streams.insert(head.stream())),
                    EntryHead::Checkpoint { stream, checkpoint } => {
                        stream_status::checkpoint_delivered(tx, stream, checkpoint)?;
                    }
                    EntryHead::Listing { .. } | EntryHead::Shop { .. } | EntryHead::ShopDeleted { .. } => {}
                }
                // Documents that still move from the archive need the key; the last step of the move ends that.
                let is_kept = matches!(head, EntryHead::ShopDeleted { purge: false, .. })
                    && tx.pairs(keyspace::ARCHIVE, keyspace::ARCHIVE).next().is_some();
                if !is_kept {
                    acknowledged(tx, head, &mut counts);
                }
            }
            counts.apply(tx, now)?;
            stream_status::documents_written(tx, streams)?;
            tx.raise(Signal::Progress);
            Ok(())
        })
        .await
    }

    /// Moves entries into the embedded archive: its write and its acknowledgement are one commit.
    ///
    /// # Errors
    /// The engine's errors; then nothing has moved.
    pub async fn archive(&self, positions: Vec<OutboxPosition>) -> Result<(), StoreError> {
        self.count_work(positions.len());
        let now = self.now();
        self.transact(move |tx| move_to_archive(tx, &positions, now)).await
    }

    /// Makes settling move what it adds to the outbox into the archive, in the same commit. Other entries wait for
    /// [`Store::archive`].
    pub fn archive_when_settling(&self) {
        self.0.archives_when_settling.store(true, Ordering::Relaxed);
    }

    /// Gives up on an entry that the sink refuses; it can be retried later.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn park_entry(&self, position: OutboxPosition, reason: String, attempts: u32) -> Result<(), StoreError> {
        let (now, parked_max) = (self.now(), self.parked_max());
        let paused = self.transact(move |tx| {
            if let Some(RemovedEntry { head, sealed, .. }) = outbox::remove(tx, &[position])?.pop() {
                park::park_entry(tx, head, sealed, Refusal { reason, attempts }, now)?;
            }
            park::pause_full(tx, parked_max, now)
        });
        for shop in paused.await? {
            self.stop_runs(&shop).await?;
        }
        Ok(())
    }
}
