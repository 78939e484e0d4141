//! A batch that failed: what is on the disk is unknown then, and nothing more may be built on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Kv, MemoryKv, NOW};
use crate::domain::Clock;
use crate::store::kv::{Change, Pairs};
use crate::store::scrub::Next;
use crate::store::{SealKey, Store, StoreError};

/// An engine in memory that fails one batch when it is told to, as a disk does whose `fdatasync` failed.
#[derive(Default)]
struct FailsOnce {
    inner: MemoryKv,
    fail: AtomicBool,
    batches: AtomicUsize,
}

impl Kv for FailsOnce {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        self.inner.scan(prefix, from)
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        self.inner.scan_back(prefix, before)
    }

    fn has_room(&self, _: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        if self.fail.swap(false, Ordering::SeqCst) {
            return Err(StoreError::Engine("fdatasync: Input/output error".to_owned()));
        }
        self.inner.apply(changes)
    }

    fn look(&self, from: &[u8], limit: usize) -> Result<Next, StoreError> {
        self.inner.look(from, limit)
    }

    fn size(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn after_a_batch_that_failed_nothing_more_reaches_the_engine() {
    let kv = Arc::new(FailsOnce::default());
    let engine: Arc<dyn Kv> = Arc::<FailsOnce>::clone(&kv);
    let store = Store::over(engine, SealKey::new(&[1; 32]), Clock::manual(NOW), Path::new("memory")).unwrap();
    let mut failed = store.failed();
    store.keep_time("before", 1).await.unwrap();
    assert!(!*failed.borrow());
    let before = kv.batches.load(Ordering::SeqCst);
    kv.fail.store(true, Ordering::SeqCst);
    let told = store.keep_time("lost", 2).await.unwrap_err();
    assert_eq!(told, StoreError::Engine("fdatasync: Input/output error".to_owned()), "whoever waits hears why");
    tokio::time::timeout(Duration::from_secs(10), failed.wait_for(|failed| *failed)).await.unwrap().unwrap();
    for name in ["lost", "after"] {
        assert_eq!(store.keep_time(name, 3).await, Err(StoreError::Failed));
    }
    assert_eq!(kv.batches.load(Ordering::SeqCst), before + 1, "a later success would prove nothing");
    assert_eq!((store.kept_time("lost").unwrap(), store.kept_time("before").unwrap()), (None, Some(1)));
}
