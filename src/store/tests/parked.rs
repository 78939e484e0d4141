//! What is parked is counted by shop, bounded, and put back at once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{Fixture, MORE, detail, document_id, fixture, new_shop, page};
use crate::domain::{
    CallKind, Entry, Facets, Failure, FetchedDocument, Lease, Mode, Next, Page, Rejected, ShopId, ShopState, StreamId,
};
use crate::store::codec::number;
use crate::store::keyspace::{only_shop, texts};
use crate::store::ops::completeness::LedgerState;
use crate::store::{Retried, SealKey, ShopChange, Store, StoreError};

/// Another shop of the same store.
async fn beside(f: &Fixture) -> Fixture {
    let shop = f.store.create_shop(new_shop("client-2")).await.unwrap().id;
    let stream = StreamId { shop, ..f.stream.clone() };
    Fixture { store: f.store.clone(), clock: f.clock.clone(), kv: Arc::clone(&f.kv), stream }
}

/// Lists these rows.
async fn list(f: &Fixture, ids: std::ops::Range<usize>) {
    f.start(Mode::Full).await;
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    f.page(&ids.iter().map(|id| (id.as_str(), 1, 0)).collect::<Vec<_>>(), Next::End).await;
}

/// Parks a number of details, one after another.
async fn park(f: &Fixture, count: usize) {
    for lease in f.lease(CallKind::Detail, count).await {
        let failure = Failure::Park { reason: "unreadable".into(), transient: document_id(&lease) == "2" };
        f.settle(lease, failure).await;
    }
}

/// What the store has noted of each shop, which must be what is there.
#[track_caller]
fn counted(store: &Store, kv: &dyn super::Kv) -> BTreeMap<ShopId, u64> {
    let noted: BTreeMap<ShopId, u64> = kv
        .scan(b"y", b"y")
        .map(|pair| pair.map(|(key, value)| (only_shop(&key), number(Some(value)))))
        .collect::<Result<_, StoreError>>()
        .unwrap();
    let mut there = BTreeMap::new();
    for parked in store.parked(None, usize::MAX, |_| true).unwrap() {
        *there.entry(parked.shop_id).or_default() += 1;
    }
    assert_eq!(noted, there);
    assert_eq!(store.counters().unwrap().parked, there.values().sum::<u64>());
    there
}

fn of(f: &Fixture) -> u64 {
    counted(&f.store, &*f.kv).get(&f.stream.shop).copied().unwrap_or(0)
}

fn state(f: &Fixture) -> (ShopState, Option<String>) {
    let shop = f.store.shop(&f.stream.shop).unwrap().unwrap();
    (shop.state, shop.reason)
}

async fn set(f: &Fixture, state: ShopState) {
    f.store.update_shop(&f.stream.shop, ShopChange { state: Some(state), ..ShopChange::default() }).await.unwrap();
}

#[tokio::test]
async fn what_is_parked_is_counted_by_shop_whatever_becomes_of_it() {
    let f = fixture().await;
    let other = beside(&f).await;
    list(&f, 0..6).await;
    list(&other, 0..3).await;
    park(&f, 4).await;
    park(&other, 2).await;
    assert_eq!((of(&f), of(&other)), (4, 2));
    // A document that the sink refuses, and a row without a usable id.
    f.read_details().await;
    let position = f.store.outbox_positions(100, usize::MAX).unwrap().into_iter().next_back().unwrap();
    f.store.park_entry(position, "refused".into(), 1).await.unwrap();
    f.start(Mode::Full).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let rejected = vec![Rejected::new(None, "has no id".into())];
    f.settle(lease, Page { rejected, ..page(&[], MORE) }).await;
    assert_eq!(of(&f), 6);
    // One that may work by now is put back by the end of the walk, one by a person, the rest at once.
    f.clock.set(super::NOW + super::DAY);
    f.page(&["0", "1", "2", "3", "4", "5"].map(|id| (id, 1, 0)), Next::End).await;
    f.sweep().await;
    assert_eq!(of(&f), 5);
    // A page that was given up is done with when a walk has read it.
    f.read_details().await;
    f.start(Mode::Full).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let failure = Failure::Park { reason: "503".into(), transient: true };
    f.settle(lease, failure).await;
    assert_eq!(of(&f), 6);
    f.start(Mode::Full).await;
    f.page(&["0", "1", "2", "3", "4", "5"].map(|id| (id, 1, 0)), Next::End).await;
    f.sweep().await;
    // So is the row, which the list does not show any more.
    assert_eq!(of(&f), 4);
    let first = f.store.parked(None, 1, |_| true).unwrap().remove(0).id;
    assert_ne!(f.store.retry_parked(first).await.unwrap(), Retried::Absent);
    assert_eq!(f.store.retry_parked(first).await.unwrap(), Retried::Absent);
    assert_eq!(of(&f), 3);
    assert_eq!(f.store.retry_all_parked(&f.stream.shop, None).await.unwrap().count, 3);
    assert_eq!((of(&f), of(&other)), (0, 2));
    park(&f, 2).await;
    assert_eq!(of(&f), 2);
    assert!(f.store.delete_shop(&f.stream.shop, true).await.unwrap());
    assert_eq!((of(&f), of(&other)), (0, 2));
}

#[tokio::test]
async fn a_store_without_the_count_or_with_a_wrong_one_counts_when_it_opens() {
    let f = fixture().await;
    let other = beside(&f).await;
    list(&f, 0..3).await;
    list(&other, 0..3).await;
    park(&f, 3).await;
    park(&other, 1).await;
    let right = counted(&f.store, &*f.kv);
    let key = |f: &Fixture| texts(b'y', &[&f.stream.shop]);
    let wrong = |number: u64| Some(number.to_be_bytes().to_vec());
    for changes in [
        vec![(key(&f), None), (key(&other), None)],
        vec![(key(&f), wrong(7))],
        vec![(key(&f), None), (texts(b'y', &["unknown"]), wrong(9))],
        Vec::new(),
    ] {
        f.kv.apply(&changes).unwrap();
        let key = SealKey::new(&[1; 32]);
        let store = Store::over(Arc::clone(&f.kv), key, f.clock.clone(), Path::new("memory")).unwrap();
        assert_eq!(counted(&store, &*f.kv), right);
    }
}

#[tokio::test]
async fn a_shop_of_which_too_much_is_parked_is_paused_and_no_other() {
    let f = fixture().await;
    let other = beside(&f).await;
    f.store.bound_parked(3);
    list(&f, 0..9).await;
    list(&other, 0..3).await;
    park(&f, 2).await;
    park(&other, 2).await;
    assert_eq!((state(&f), state(&other)), ((ShopState::Active, None), (ShopState::Active, None)));
    let under_way = f.lease(CallKind::Detail, 3).await;
    for (lease, parked) in under_way.into_iter().zip(3..) {
        let failure = Failure::Park { reason: "unreadable".into(), transient: false };
        f.settle(lease, failure).await;
        assert_eq!(of(&f), parked, "what comes late is parked too");
        let (state, reason) = state(&f);
        let reason = reason.unwrap();
        assert_eq!(state, ShopState::Paused);
        assert!(reason.contains("3 pages and documents of this shop are parked"), "{reason}");
        assert!(reason.contains("limits.parked_max allows 3") && reason.contains("/api/v1/parked?shop="), "{reason}");
    }
    assert_eq!(state(&other).0, ShopState::Active);
    set(&f, ShopState::Active).await;
    assert_eq!(state(&f), (ShopState::Active, None));
    park(&f, 1).await;
    assert!(state(&f).1.unwrap().contains("6 pages"), "still too much");
    // What people or the login host stopped says so, and not this.
    set(&f, ShopState::Paused).await;
    park(&f, 1).await;
    assert_eq!((state(&f), of(&f)), ((ShopState::Paused, None), 7));
    set(&f, ShopState::Active).await;
    f.read_details().await;
    assert_eq!(f.store.retry_all_parked(&f.stream.shop, None).await.unwrap().count, 7);
    assert_eq!((f.read_details().await.len(), state(&f).0), (7, ShopState::Active));
    let runs = f.store.runs(None, 9, |run| run.stream == f.stream).unwrap();
    assert!(runs.iter().all(|run| (run.parked, run.pending(), run.fetched) == (0, 0, 9)), "{runs:?}");
}

#[tokio::test]
async fn a_document_that_the_sink_refuses_counts_too() {
    let f = fixture().await;
    f.store.bound_parked(1);
    list(&f, 0..1).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("0", None)).await;
    let position = f.store.outbox_positions(100, usize::MAX).unwrap().into_iter().next_back().unwrap();
    f.store.park_entry(position, "refused".into(), 1).await.unwrap();
    assert_eq!((state(&f).0, of(&f)), (ShopState::Paused, 1));
}

#[tokio::test]
async fn all_of_a_shop_or_of_a_resource_is_put_back_in_steps() {
    let f = fixture().await;
    let other = beside(&f).await;
    list(&f, 0..1_201).await;
    list(&other, 0..2).await;
    let leases = f.lease(CallKind::Detail, 2_000).await;
    let failed = |lease: Lease| lease.failed(Failure::Park { reason: "unreadable".into(), transient: false });
    f.store.settle(leases.into_iter().map(failed).collect()).await.unwrap();
    park(&other, 2).await;
    assert_eq!((of(&f), of(&other)), (1_201, 2));
    assert_eq!(f.store.retry_all_parked(&f.stream.shop, Some("others")).await.unwrap().count, 0);
    assert_eq!(f.store.retry_all_parked(&f.stream.shop, Some("things")).await.unwrap().count, 1_201);
    assert_eq!(f.store.retry_all_parked(&f.stream.shop, None).await.unwrap().count, 0);
    assert_eq!((of(&f), of(&other)), (0, 2));
    assert_eq!(f.lease(CallKind::Detail, 2_000).await.len(), 1_201);
}

#[tokio::test]
async fn a_refused_document_is_not_put_back_over_a_newer_one() {
    let f = fixture().await;
    list(&f, 1..3).await;
    f.read_details().await;
    for item in f.store.outbox_batch(None, 100, usize::MAX).unwrap() {
        if matches!(item.entry, Some(Entry::Document(_))) {
            f.store.park_entry(item.position, "refused".into(), 1).await.unwrap();
        }
    }
    assert_eq!(of(&f), 2);
    // One of them changes, and is written.
    f.start(Mode::Incremental).await;
    f.page(&[("1", 2, 0), ("2", 1, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    assert_eq!(document_id(&lease), "1");
    f.settle(
        lease,
        FetchedDocument { body: Bytes::from_static(b"{}"), hash: 8, refresh_after: None, facets: Facets::Unknown },
    )
    .await;
    f.drain().await;
    assert_eq!(f.store.retry_all_parked(&f.stream.shop, None).await.unwrap().count, 2);
    let documents = f.drain().await.into_iter().filter_map(|entry| match entry {
        Entry::Document(document) => Some((document.id, document.version)),
        _ => None,
    });
    let documents: Vec<(String, u64)> = documents.collect();
    assert_eq!((documents.len(), documents[0].0.as_str(), of(&f)), (1, "2", 0));
    // The ledger knows the version that the sink has by now.
    let listed = f.store.listed(std::slice::from_ref(&f.stream), "1", 1).unwrap();
    assert_eq!(
        listed[0].known,
        LedgerState::Read { version: documents[0].1, is_unknown: false, is_lost: false, accepted_at: None }
    );
}
