//! Damage that is found while the store is open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::{Kv, MemoryKv, NOW, new_shop, reopen, reopened};
use crate::domain::Clock;
use crate::store::committer::Committer;
use crate::store::kv::{Change, Pairs};
use crate::store::scrub::Next;
use crate::store::{SealKey, Store, StoreError};

/// An engine in memory that seems damaged so many times.
#[derive(Default)]
struct Unsound {
    inner: MemoryKv,
    times: AtomicUsize,
    looks: AtomicUsize,
}

impl Kv for Unsound {
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
        self.inner.apply(changes)
    }

    fn look(&self, from: &[u8], _: usize) -> Result<Next, StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let seems = self.times.try_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1)).is_ok();
        if seems {
            return Err(StoreError::Unsound("it seems so".to_owned()));
        }
        Ok((from < b"c".as_slice()).then(|| b"c".to_vec()))
    }

    fn size(&self) -> u64 {
        0
    }
}

/// Whether the store failed after it was looked through, and how many looks that took.
async fn looked_through(seems_unsound: usize) -> (bool, usize) {
    let kv = Arc::new(Unsound { times: AtomicUsize::new(seems_unsound), ..Unsound::default() });
    let engine: Arc<dyn Kv> = Arc::<Unsound>::clone(&kv);
    let start = |kv, signals| Committer::start(kv, signals, None);
    let (key, clock) = (SealKey::new(&[1; 32]), Clock::manual(NOW));
    let mut inner = Store::with_committer(engine, key, clock, Path::new("memory"), start).unwrap();
    inner.unseen = Some(b"b".to_vec());
    let store = Store(Arc::new(inner));
    let failed = store.failed();
    // Kept: a store that closes sounds too.
    store.clone().scrub(CancellationToken::new()).await;
    (*failed.borrow(), kv.looks.load(Ordering::SeqCst))
}

#[tokio::test]
async fn what_seems_damaged_is_looked_at_again_while_nobody_writes() {
    assert_eq!(looked_through(0).await, (false, 2), "both parts are sound");
    assert_eq!(looked_through(1).await, (false, 3), "somebody wrote meanwhile");
    assert_eq!(looked_through(2).await, (true, 2), "nobody did");
}

#[tokio::test]
async fn a_store_that_was_found_damaged_is_not_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), &[1; 32], Clock::manual(NOW));
    let store = open().unwrap();
    store.create_shop(new_shop("client-1")).await.unwrap();
    drop(store);
    let store = reopen(open).await;
    let failed = store.failed();
    store.condemn("of a test".to_owned()).await;
    assert!(*failed.borrow());
    drop(store);
    let Err(StoreError::Damaged { detail, .. }) = reopened(open).await else { panic!("it was opened") };
    assert!(detail.contains("while it was open"), "{detail}");
}
