//! A batch that failed: what is on the disk is unknown then, and nothing more may be built on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::faulty::Faulty;
use super::{Kv, NOW};
use crate::domain::{Clock, Timestamp};
use crate::store::{SealKey, Store, StoreError};

#[tokio::test]
async fn after_a_batch_that_failed_nothing_more_reaches_the_engine() {
    let kv = Arc::new(Faulty::default());
    let engine: Arc<dyn Kv> = Arc::<Faulty>::clone(&kv);
    let store = Store::over(engine, SealKey::new(&[1; 32]), Clock::manual(NOW), Path::new("memory")).unwrap();
    let mut failed = store.failed();
    store.save_time("before", Timestamp::from_millis(1)).await.unwrap();
    assert!(!*failed.borrow());
    let before = kv.batches.load(Ordering::SeqCst);
    kv.fail.store(true, Ordering::SeqCst);
    let error = store.save_time("lost", Timestamp::from_millis(2)).await.unwrap_err();
    assert_eq!(error, StoreError::Engine("fdatasync: Input/output error".to_owned()), "whoever waits hears why");
    tokio::time::timeout(Duration::from_secs(10), failed.wait_for(|failed| *failed)).await.unwrap().unwrap();
    for name in ["lost", "after"] {
        assert_eq!(store.save_time(name, Timestamp::from_millis(3)).await, Err(StoreError::Failed));
    }
    assert_eq!(kv.batches.load(Ordering::SeqCst), before + 1, "a later success would prove nothing");
    assert_eq!(
        (store.saved_time("lost").unwrap(), store.saved_time("before").unwrap()),
        (None, Some(Timestamp::from_millis(1)))
    );
}
