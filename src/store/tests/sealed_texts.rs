//! Errors and reasons are in no record in clear, and those of earlier versions are sealed when the store opens.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Fixture, MORE, NOW, fixture, page, reopen};
use crate::domain::{
    CallKind, Cause, Clock, ErrorClass, Failure, Mode, Next, Page, Rejected, Run, ShopState, StreamStatus, Unproved,
};
use crate::store::codec::{decode, encode};
use crate::store::engine::kv::Kv;
use crate::store::entry::EntryHead;
use crate::store::keyspace;
use crate::store::ops::hand_over::import;
use crate::store::records::dead_letters::DeadLetter;
use crate::store::records::outbox;
use crate::store::records::shops::ShopRecord;
use crate::store::texts::{self, ShopKeys, Texts};
use crate::store::tx::committer::Committer;
use crate::store::{SealKey, Store, StoreError};

const SAID: &str = "canary: the host said so";

fn said() -> Cause {
    Cause::new(ErrorClass::Unavailable, SAID)
}

/// The records with a text of the host.
fn clear(kv: &dyn Kv) -> Vec<String> {
    let pairs = kv.scan(b"", b"").map(Result::unwrap);
    let found = pairs.filter(|(_, value)| String::from_utf8_lossy(value).contains("canary"));
    found.map(|(key, value)| format!("{}: {}", key.escape_ascii(), value.escape_ascii())).collect()
}

/// A shop whose every record with a text has one: a doubt, a retry, parked work, a failed run, a refusal.
async fn troubled() -> Fixture {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let rejected = Rejected::new(None, SAID.to_owned());
    let doubtful = Page { doubt: Some(SAID.to_owned()), rejected: vec![rejected], ..page(&[("1", 1, 0)], Next::End) };
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    f.settle(lease, doubtful).await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0), ("3", 1, 0)], MORE).await;
    let mut details = f.lease(CallKind::Detail, 3).await;
    f.settle(details.remove(0), Failure::Retry { after: Duration::from_secs(1), error: said() }).await;
    f.settle(details.remove(0), Failure::Park { reason: said(), transient: true }).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    f.settle(lease, Failure::Park { reason: said(), transient: true }).await;
    let read_at = f.store.shop(&f.stream.shop).unwrap().unwrap().updated_at;
    f.settle(details.remove(0), Failure::StopShop { reason: SAID.to_owned(), read_at }).await;
    f
}

/// What the store shows, which must have the text everywhere.
fn shown(store: &Store, f: &Fixture) -> String {
    let shop = store.shops().unwrap().remove(0);
    assert_eq!(store.shop(&f.stream.shop).unwrap().as_ref(), Some(&shop));
    assert_eq!((shop.state, shop.reason.as_deref()), (ShopState::Refused, Some(SAID)));
    let doubt = store.unproved(&f.stream).unwrap().unwrap();
    let status = store.stream_status(&f.stream).unwrap();
    let runs = store.runs(None, 10, |_| true).unwrap();
    let parked = store.parked(None, 10, |_| true).unwrap();
    assert_eq!(store.parked_one(parked[0].id).unwrap().as_ref(), parked.first());
    assert!(parked.iter().all(|parked| parked.reason.contains(SAID)) && parked.len() == 3, "{parked:?}");
    assert!(doubt.reason.contains(SAID) && status.last_error.as_ref().unwrap().text.contains(SAID));
    assert!(runs.iter().all(|run| run.error.as_ref().unwrap().contains(SAID)) && runs.len() == 2, "{runs:?}");
    format!("{doubt:?} {status:?} {runs:?} {parked:?}")
}

#[tokio::test]
async fn no_error_or_reason_is_stored_in_clear() {
    let f = troubled().await;
    shown(&f.store, &f);
    assert_eq!(clear(&*f.kv), Vec::<String>::new());
}

/// Writes the texts of a record as earlier versions did.
fn downgrade<T: Texts + DeserializeOwned>(f: &Fixture, prefix: &[u8]) {
    let pairs: Vec<_> = f.kv.scan(prefix, prefix).map(Result::unwrap).collect();
    for (key, value) in pairs {
        let record: T = decode("a record", &value).unwrap();
        let record = texts::open(&*f.store.0.keys, &f.stream.shop, record).unwrap();
        f.kv.apply(&[(key, Some(encode("a record", &record).unwrap()))]).unwrap();
    }
}

#[tokio::test]
async fn texts_of_an_earlier_version_are_read_and_sealed_at_the_next_start() {
    let f = troubled().await;
    let before = shown(&f.store, &f);
    downgrade_all(&f);
    assert_eq!(shown(&f.store, &f), before, "they are readable");
    let mirrored = shops_to_mirror(&*f.kv);
    let open = || Store::over(Arc::clone(&f.kv), SealKey::new(&[1; 32]), Clock::manual(NOW), Path::new("memory"));
    let store = open().unwrap();
    assert_eq!(clear(&*f.kv), Vec::<String>::new());
    assert_eq!(shown(&store, &f), before);
    assert_eq!(shops_to_mirror(&*f.kv), mirrored + 1, "the mirror gets its reason as it is written now");
    drop(store);
    drop(open().unwrap());
    assert_eq!(shops_to_mirror(&*f.kv), mirrored + 1, "once");
}

#[tokio::test]
async fn texts_that_a_process_of_an_earlier_version_hands_over_are_sealed_too() {
    for is_earlier in [false, true] {
        let f = troubled().await;
        let before = shown(&f.store, &f);
        if is_earlier {
            downgrade_all(&f);
        }
        let parts = f.store.export(7, b"head").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(directory.path(), &[1; 32], Clock::manual(NOW));
        drop(open().unwrap());
        while let Err(error) = import(directory.path(), &[1; 32], 7, &parts) {
            assert!(matches!(error, StoreError::InUse { .. }), "{error}");
            tokio::task::yield_now().await;
        }
        let store = reopen(open).await;
        assert_eq!(clear(&*store.0.kv), Vec::<String>::new());
        assert_eq!(shown(&store, &f), before);
    }
}

fn downgrade_all(f: &Fixture) {
    downgrade::<ShopRecord>(f, keyspace::SHOPS);
    downgrade::<Run>(f, keyspace::RUNS);
    downgrade::<DeadLetter>(f, keyspace::PARKED);
    downgrade::<StreamStatus>(f, keyspace::STREAM_STATUSES);
    downgrade::<Unproved>(f, keyspace::DOUBTS);
    // Its jobs had the text too.
    for prefix in [keyspace::DELAYED_JOBS, keyspace::PARKED] {
        let pairs: Vec<_> = f.kv.scan(prefix, prefix).map(Result::unwrap).collect();
        for (key, value) in pairs {
            let text = String::from_utf8(value).unwrap();
            let old = text.replace("\"last_error\":\"unavailable\"", &format!("\"last_error\":\"{SAID}\""));
            f.kv.apply(&[(key, Some(old.into_bytes()))]).unwrap();
        }
    }
    f.kv.apply(&[(b"mtexts".to_vec(), None)]).unwrap();
    assert_eq!(clear(&*f.kv).len(), 9, "{:?}", clear(&*f.kv));
}

/// Entries of the outbox that are about a shop.
fn shops_to_mirror(kv: &dyn Kv) -> usize {
    let records: Vec<_> = kv.scan(keyspace::OUTBOX, keyspace::OUTBOX).map(Result::unwrap).collect();
    let entries = records.iter().flat_map(|(_, record)| outbox::entries(record).unwrap());
    entries.filter(|entry| matches!(entry.head().unwrap(), EntryHead::Shop { .. })).count()
}

/// Counts how often transactions ask for a key.
struct Counted(Arc<dyn ShopKeys>, Arc<AtomicUsize>);

impl ShopKeys for Counted {
    fn of_shop(&self, shop: &str) -> Result<Option<SealKey>, StoreError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.of_shop(shop)
    }

    fn of_store(&self) -> SealKey {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.of_store()
    }
}

#[tokio::test]
async fn only_a_new_text_costs_a_seal() {
    let Fixture { kv, clock, stream, store } = fixture().await;
    drop(store);
    let asked = Arc::new(AtomicUsize::new(0));
    let start = |kv, keys, signals| Committer::start(kv, Arc::new(Counted(keys, Arc::clone(&asked))), signals, None);
    let keys = Store::keys_in(&kv, SealKey::new(&[1; 32]), Path::new("memory")).unwrap();
    let inner = Store::with_committer(Arc::clone(&kv), keys, clock.clone(), Path::new("memory"), start).unwrap();
    let f = Fixture { kv, clock, stream, store: Store(Arc::new(inner)) };
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], MORE).await;
    f.page(&[("3", 1, 0)], Next::End).await;
    f.read_details().await;
    f.drain().await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "work without trouble");
    f.start(Mode::Full).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    f.settle(lease, Page { doubt: Some(SAID.to_owned()), ..page(&[("1", 2, 0)], MORE) }).await;
    let once = asked.load(Ordering::SeqCst);
    assert!(once > 0);
    f.page(&[("2", 2, 0)], MORE).await;
    f.read_details().await;
    assert_eq!(asked.load(Ordering::SeqCst), once, "work for a run that has a text already");
}
