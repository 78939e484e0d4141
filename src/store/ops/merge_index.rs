//! Sorts the changes of the archive's index into its blocks.
//!
//! One task does it (`service::index_archive`), shop by shop. Blocks are read and built outside of transactions and written
//! in a few of them, each of which makes sure that the changes are still there: a purge removes them first. The changes go
//! last. After a crash in between, they are applied again, which alters nothing.

use std::ops::Range;

use crate::domain::ShopId;
use crate::store::codec::number;
use crate::store::engine::kv::Change;
use crate::store::engine::large_values::PART_BYTES;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::archive_index::{Term, each_change, each_posting, write_posting};
use crate::store::tx::handle::{Store, blocking};

/// A block is split before it is so large.
const BLOCK_BYTES: usize = if cfg!(test) { 100 } else { PART_BYTES - 1_000 };
/// Changes are merged when they have at least these records or bytes, and more than a part of what the blocks have: a
/// merge rewrites about all blocks, so fewer merges cost less, and fewer changes are read faster.
const RECORDS_MIN: usize = 1024;
const BYTES_MIN: usize = 2 * 1024 * 1024;
/// Bytes of changes that one merge takes over.
const MERGED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that one transaction writes, and records that it removes.
const WRITTEN_BYTES: usize = if cfg!(test) { 300 } else { 128 * 1024 };
const REMOVED_MAX: usize = if cfg!(test) { 3 } else { 256 };

/// The last change of each posting, in the order of the postings.
#[derive(Default)]
struct Changes {
    list: Vec<PostingChange>,
    /// The ids of the documents, one after another: a merge takes over hundreds of thousands.
    ids: Vec<u8>,
}

struct PostingChange {
    term: Term,
    id: Range<usize>,
    is_added: bool,
}

/// The changes that the blocks lack.
struct Unmerged {
    records: Vec<Vec<u8>>,
    bytes: usize,
    changes: Changes,
}

/// Changes, how many of them are applied, and the key of the block at which that goes on; at first an empty one.
struct Rest {
    changes: Changes,
    applied: usize,
    from: Vec<u8>,
}

impl Changes {
    fn add(&mut self, is_added: bool, term: &Term, id: &[u8]) {
        let from = self.ids.len();
        self.ids.extend_from_slice(id);
        self.list.push(PostingChange { term: *term, id: from..self.ids.len(), is_added });
    }

    /// Of changes in the order in which they were made.
    fn sort(&mut self) {
        let Changes { list, ids } = self;
        let posting = |change: &PostingChange| (change.term, ids.get(change.id.clone()));
        // Of equal postings the last one comes first then, and is kept.
        list.reverse();
        list.sort_by(|one, other| posting(one).cmp(&posting(other)));
        list.dedup_by(|later, kept| posting(later) == posting(kept));
    }

    fn posting(&self, change: &PostingChange) -> (Term, &[u8]) {
        (change.term, self.ids.get(change.id.clone()).unwrap_or_default())
    }
}

impl Store {
    /// The indexes that got many records since the last call.
    pub fn grown_indexes(&self) -> Vec<(String, ShopId)> {
        self.0.signals.take_indexed()
    }

    /// Has the blocks of an index take over its changes, if these are many. Returns whether it did.
    ///
    /// # Errors
    /// The engine's errors, and a damaged index.
    pub async fn merge_index(&self, resource: &str, shop: &str) -> Result<bool, StoreError> {
        let index = keyspace::archive_index_of_shop(resource, shop);
        let (store, of) = (self.clone(), index.clone());
        let unmerged = blocking(move || store.due(&of)).await?;
        let is_due = unmerged.is_some();
        if let Some(unmerged) = unmerged {
            self.merge_changes(index, unmerged).await?;
        }
        Ok(is_due)
    }

    /// The same, however few there are.
    #[cfg(test)]
    pub(crate) async fn merge_index_now(&self, resource: &str, shop: &str) -> Result<(), StoreError> {
        let index = keyspace::archive_index_of_shop(resource, shop);
        let unmerged = self.unmerged(&index)?;
        self.merge_changes(index, unmerged).await
    }

    async fn merge_changes(&self, index: Vec<u8>, unmerged: Unmerged) -> Result<(), StoreError> {
        let Unmerged { records, changes, .. } = unmerged;
        let Some(last) = records.last().cloned() else { return Ok(()) };
        let mut rest = Some(Rest { changes, applied: 0, from: Vec::new() });
        while let Some(part) = rest {
            let (store, of) = (self.clone(), index.clone());
            let (written, left) = blocking(move || store.merge_some(&of, part)).await?;
            let last = last.clone();
            let is_there = self.transact(move |tx| {
                let is_there = tx.get(&last)?.is_some();
                if is_there {
                    for (key, value) in written {
                        match value {
                            Some(value) => tx.put(key, value),
                            None => tx.delete(key),
                        }
                    }
                }
                Ok(is_there)
            });
            if !is_there.await? {
                return Ok(());
            }
            rest = left;
        }
        for removed in records.chunks(REMOVED_MAX) {
            let (removed, index) = (removed.to_vec(), index.clone());
            self.transact(move |tx| {
                let count = keyspace::index_blocks_count(&index);
                // A purge was here.
                if removed.last().is_some_and(|last| tx.get(last).is_ok_and(|found| found.is_none())) {
                    return Ok(());
                }
                let merges = number(tx.get(&count)?) + 1;
                tx.put(count, merges.to_be_bytes().to_vec());
                removed.into_iter().for_each(|record| tx.delete(record));
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The changes, if they are to be merged.
    fn due(&self, index: &[u8]) -> Result<Option<Unmerged>, StoreError> {
        let (blocks, changes) = (keyspace::index_block(index, &[]), keyspace::index_changes(index));
        let (blocks, _) = self.size_of(&blocks)?;
        let (records, bytes) = self.size_of(&changes)?;
        let is_due = records >= RECORDS_MIN.max(blocks * 2) || bytes >= BYTES_MIN.max(blocks * BLOCK_BYTES / 2);
        is_due.then(|| self.unmerged(index)).transpose()
    }

    /// Number and bytes of the records with a prefix.
    fn size_of(&self, prefix: &[u8]) -> Result<(usize, usize), StoreError> {
        let (mut records, mut bytes) = (0, 0);
        for pair in self.0.kv.scan(prefix, prefix) {
            (records, bytes) = (records + 1, bytes + pair?.1.len());
        }
        Ok((records, bytes))
    }

    fn unmerged(&self, index: &[u8]) -> Result<Unmerged, StoreError> {
        let prefix = keyspace::index_changes(index);
        let mut unmerged = Unmerged { records: Vec::new(), bytes: 0, changes: Changes::default() };
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let (key, record) = pair?;
            unmerged.bytes += record.len();
            unmerged.records.push(key);
            each_change(&record, |is_added, term, id| unmerged.changes.add(is_added, term, id))?;
            if unmerged.bytes >= MERGED_BYTES_MAX {
                break;
            }
        }
        unmerged.changes.sort();
        Ok(unmerged)
    }

    /// Applies changes to the blocks until enough is to be written. Returns that, and what is left.
    fn merge_some(&self, index: &[u8], rest: Rest) -> Result<(Vec<Change>, Option<Rest>), StoreError> {
        let Rest { changes, mut applied, from } = rest;
        let blocks = keyspace::index_block(index, &[]);
        // The first block has the empty key, so that each posting has a block.
        let mut key = if from.is_empty() { blocks.clone() } else { from };
        let (mut written, mut bytes) = (Vec::new(), 0);
        let mut stored = self.0.kv.scan(&blocks, &key).peekable();
        while applied < changes.list.len() {
            if bytes >= WRITTEN_BYTES {
                return Ok((written, Some(Rest { changes, applied, from: key })));
            }
            let block = match stored.peek() {
                Some(Ok((first, _))) if *first != key => Vec::new(),
                None => Vec::new(),
                Some(_) => stored.next().transpose()?.map_or_else(Vec::new, |pair| pair.1),
            };
            let next = match stored.peek() {
                Some(Ok((first, _))) => Some(first.clone()),
                Some(Err(_)) => return stored.next().transpose().map(|_| (written, None)),
                None => None,
            };
            let mut own = changes.list.get(applied..).unwrap_or_default();
            if let Some(next) = &next {
                let bound = bound_of(next, blocks.len());
                own = own.split_at(own.partition_point(|change| changes.posting(change) < bound)).0;
            }
            if !own.is_empty() {
                for (key, value) in rebuilt(&blocks, &key, &block, &changes, own)? {
                    bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                    written.push((key, value));
                }
                applied += own.len();
            }
            match next {
                Some(next) => key = next,
                None => break,
            }
        }
        Ok((written, None))
    }
}

/// The posting at which a block begins.
fn bound_of(key: &[u8], prefix: usize) -> (Term, &[u8]) {
    let first = key.get(prefix..).unwrap_or_default();
    first.split_first_chunk().map_or((Term::default(), &[]), |(term, id)| (*term, id))
}

/// A block with changes, as one or more blocks; deleted if it is empty, unless it is the first.
fn rebuilt(
    blocks: &[u8],
    key: &[u8],
    block: &[u8],
    changes: &Changes,
    own: &[PostingChange],
) -> Result<Vec<Change>, StoreError> {
    let mut parts = BlockParts { done: Vec::new(), prefix: blocks, key: key.to_vec(), part: Vec::new() };
    let mut own = own.iter().peekable();
    each_posting(block, |term, id| {
        let there = (*term, id);
        while let Some(change) = own.next_if(|change| changes.posting(change) < there) {
            parts.apply(changes, change);
        }
        match own.next_if(|change| changes.posting(change) == there) {
            Some(change) => parts.apply(changes, change),
            None => parts.add(term, id),
        }
    })?;
    own.for_each(|change| parts.apply(changes, change));
    let BlockParts { mut done, key, part, .. } = parts;
    let is_removed = part.is_empty() && key != blocks;
    done.push((key, (!is_removed).then_some(part)));
    Ok(done)
}

/// The blocks that one block becomes.
struct BlockParts<'a> {
    done: Vec<Change>,
    prefix: &'a [u8],
    key: Vec<u8>,
    part: Vec<u8>,
}

impl BlockParts<'_> {
    fn apply(&mut self, changes: &Changes, change: &PostingChange) {
        if change.is_added {
            let (term, id) = changes.posting(change);
            self.add(&term, id);
        }
    }

    fn add(&mut self, term: &Term, id: &[u8]) {
        if self.part.len() >= BLOCK_BYTES {
            let next = [self.prefix, term, id].concat();
            self.done.push((std::mem::replace(&mut self.key, next), Some(std::mem::take(&mut self.part))));
        }
        write_posting(&mut self.part, term, id);
    }
}
