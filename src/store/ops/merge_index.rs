//! Sorts the changes of the archive's index into its blocks.
//!
//! One task does it (`service::index_archive`), shop by shop. Blocks are read and built outside of transactions and written
//! in a few of them, each of which makes sure that the changes are still there: a purge removes them first. The changes go
//! last. After a crash in between, they are applied again, which alters nothing.

use std::collections::BTreeMap;

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

/// The last change of each posting.
type Changes = BTreeMap<(Term, Vec<u8>), bool>;

/// The changes that the blocks lack.
struct Unmerged {
    records: Vec<Vec<u8>>,
    bytes: usize,
    changes: Changes,
}

/// The changes that are still to be applied, and the key of the block at which that goes on; at first an empty one.
struct Rest {
    changes: Changes,
    from: Vec<u8>,
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
        let mut rest = Some(Rest { changes, from: Vec::new() });
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
        let mut unmerged = Unmerged { records: Vec::new(), bytes: 0, changes: Changes::new() };
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let (key, record) = pair?;
            unmerged.bytes += record.len();
            unmerged.records.push(key);
            each_change(&record, |is_added, term, id| {
                unmerged.changes.insert((*term, id.to_vec()), is_added);
            })?;
            if unmerged.bytes >= MERGED_BYTES_MAX {
                break;
            }
        }
        Ok(unmerged)
    }

    /// Applies changes to the blocks until enough is to be written. Returns that, and what is left.
    fn merge_some(&self, index: &[u8], rest: Rest) -> Result<(Vec<Change>, Option<Rest>), StoreError> {
        let Rest { mut changes, from } = rest;
        let blocks = keyspace::index_block(index, &[]);
        // The first block has the empty key, so that each posting has a block.
        let mut key = if from.is_empty() { blocks.clone() } else { from };
        let (mut written, mut bytes) = (Vec::new(), 0);
        let mut stored = self.0.kv.scan(&blocks, &key).peekable();
        while !changes.is_empty() {
            if bytes >= WRITTEN_BYTES {
                return Ok((written, Some(Rest { changes, from: key })));
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
            let own = match &next {
                Some(next) => {
                    let later = changes.split_off(&bound_of(next, blocks.len()));
                    std::mem::replace(&mut changes, later)
                }
                None => std::mem::take(&mut changes),
            };
            if !own.is_empty() {
                for (key, value) in rebuilt(&blocks, &key, &block, own)? {
                    bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                    written.push((key, value));
                }
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
fn bound_of(key: &[u8], prefix: usize) -> (Term, Vec<u8>) {
    let first = key.get(prefix..).unwrap_or_default();
    first.split_first_chunk().map_or_else(|| (Term::default(), Vec::new()), |(term, id)| (*term, id.to_vec()))
}

/// A block with changes, as one or more blocks; deleted if it is empty, unless it is the first.
fn rebuilt(blocks: &[u8], key: &[u8], block: &[u8], changes: Changes) -> Result<Vec<Change>, StoreError> {
    let mut postings: BTreeMap<(Term, Vec<u8>), bool> = BTreeMap::new();
    each_posting(block, |term, id| {
        postings.insert((*term, id.to_vec()), true);
    })?;
    postings.extend(changes);
    postings.retain(|_, is_there| *is_there);
    let mut parts: Vec<Change> = Vec::new();
    let (mut part_key, mut part) = (key.to_vec(), Vec::new());
    for (term, id) in postings.into_keys() {
        if part.len() >= BLOCK_BYTES {
            parts.push((part_key, Some(std::mem::take(&mut part))));
            part_key = [blocks, &term, &id].concat();
        }
        write_posting(&mut part, &term, &id);
    }
    let is_removed = part.is_empty() && part_key != blocks;
    parts.push((part_key, (!is_removed).then_some(part)));
    Ok(parts)
}
