//! Damage that is found while the store is open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::faulty::Faulty;
use super::{Kv, NOW, new_shop, reopen, reopened};
use crate::domain::Clock;
use crate::store::tx::committer::Committer;
use crate::store::{SealKey, Store, StoreError};

/// Whether the store failed after it was looked through, and how many looks that took.
async fn looked_through(seems_unsound: usize) -> (bool, usize) {
    let kv = Arc::new(Faulty::default());
    kv.unsound.store(seems_unsound, Ordering::SeqCst);
    let engine: Arc<dyn Kv> = Arc::<Faulty>::clone(&kv);
    let start = |kv, keys, signals| Committer::start(kv, keys, signals, None);
    let (key, clock) = (SealKey::new(&[1; 32]), Clock::manual(NOW));
    let keys = Store::keys_in(&engine, key, Path::new("memory")).unwrap();
    let mut inner = Store::with_committer(engine, keys, clock, Path::new("memory"), start).unwrap();
    inner.unseen = Some(b"b".to_vec());
    let store = Store(Arc::new(inner));
    let failed = store.failed();
    // Kept: a store that closes sounds too.
    store.clone().scrub(CancellationToken::new()).await;
    (*failed.borrow(), kv.looks.load(Ordering::SeqCst))
}

#[tokio::test]
async fn what_seems_damaged_is_checked_again_while_nothing_is_written() {
    assert_eq!(looked_through(0).await, (false, 2), "both parts are sound");
    assert_eq!(looked_through(1).await, (false, 3), "a write came between");
    assert_eq!(looked_through(2).await, (true, 2), "no write did");
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
    store.mark_damaged("of a test".to_owned()).await;
    assert!(*failed.borrow());
    drop(store);
    let Err(StoreError::Damaged { detail, .. }) = reopened(open).await else { panic!("it was opened") };
    assert!(detail.contains("while it was open"), "{detail}");
}
