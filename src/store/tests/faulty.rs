//! An engine with faults, for the tests of what the store does about them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Kv, MemoryKv};
use crate::store::StoreError;
use crate::store::engine::kv::LookFrom;
use crate::store::engine::kv::{Change, Pairs};

/// In memory.
#[derive(Default)]
pub(super) struct Faulty {
    inner: MemoryKv,
    /// The next batch fails, as on a disk whose `fdatasync` failed.
    pub fail: AtomicBool,
    pub batches: AtomicUsize,
    /// The number of the batch that fails; 0: none.
    pub fail_at: AtomicUsize,
    /// Number of reads that still report damage.
    pub unsound: AtomicUsize,
    pub looks: AtomicUsize,
    /// Records that were read, one by one or by scans.
    pub reads: AtomicUsize,
}

impl Faulty {
    fn count(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
    }
}

impl Kv for Faulty {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.count();
        self.inner.get(key)
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        Box::new(self.inner.scan(prefix, from).inspect(|_| self.count()))
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        Box::new(self.inner.scan_back(prefix, before).inspect(|_| self.count()))
    }

    fn reserve(&self, _: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let number = self.batches.fetch_add(1, Ordering::SeqCst) + 1;
        if number == self.fail_at.load(Ordering::SeqCst) {
            return Err(StoreError::Engine("killed".to_owned()));
        }
        if self.fail.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Engine("fdatasync: Input/output error".to_owned()));
        }
        self.inner.apply(changes)
    }

    /// In two parts.
    fn look(&self, from: &[u8], _: usize) -> Result<LookFrom, StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let seems = self.unsound.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1)).is_ok();
        if seems {
            return Err(StoreError::Unsound("it seems so".to_owned()));
        }
        Ok((from < b"c".as_slice()).then(|| b"c".to_vec()))
    }

    fn size(&self) -> u64 {
        0
    }
}
