//! StoredCounters that do not add up pause their shop, and what outlives a restart of the process is kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{DAY, Fixture, NOW, SECOND, detail, fixture, new_shop, page};
use crate::domain::{CallKind, Mode, Next, Page, Rejected, ShopState};
use crate::store::keyspace;
use crate::store::{SealKey, Settled, Store};

/// Rewrites a JSON record behind the store's back.
fn forge(f: &Fixture, key: Vec<u8>, change: impl FnOnce(&mut serde_json::Value)) {
    let mut record: serde_json::Value = serde_json::from_slice(&f.kv.get(&key).unwrap().unwrap()).unwrap();
    change(&mut record);
    f.kv.apply(&[(key, Some(serde_json::to_vec(&record).unwrap()))]).unwrap();
}

/// The shop's reason, if it is paused.
fn paused(f: &Fixture) -> Option<String> {
    let shop = f.store.shop(&f.stream.shop).unwrap().unwrap();
    (shop.state == ShopState::Paused).then(|| shop.reason.unwrap())
}

#[tokio::test]
async fn a_run_that_has_more_than_it_asked_for_pauses_its_shop_and_no_other() {
    let f = fixture().await;
    let other = f.store.create_shop(new_shop("client-2")).await.unwrap();
    let run = f.start(Mode::Full).await;
    f.page(&[("2", 1, 0), ("1", 1, 1)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 2).await;
    forge(&f, keyspace::run(run), |run| run["to_fetch"] = 1.into());
    assert_eq!(f.settle(leases.remove(0), detail("2", None)).await, Settled::Applied);
    assert_eq!(paused(&f), None, "one of one is in order");
    assert_eq!(f.settle(leases.remove(0), detail("1", None)).await, Settled::Applied, "nothing is lost");
    let reason = paused(&f).unwrap();
    assert!(reason.contains("asked for 1 details and has 2 fetched, 0 gone and 0 parked"), "{reason}");
    assert_eq!(f.store.shop(&other.id).unwrap().unwrap().state, ShopState::Active);
}

#[tokio::test]
async fn a_document_whose_version_goes_back_pauses_its_shop() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    f.read_details().await;
    f.drain().await;
    assert_eq!(paused(&f), None);
    forge(&f, keyspace::document(&f.stream.shop, "things", "1"), |note| note["v"] = (1_u64 << 60).into());
    f.start(Mode::Full).await;
    f.page(&[("1", 2, 0)], Next::End).await;
    f.read_details().await;
    let reason = paused(&f).unwrap();
    assert!(reason.contains("things 1 got version") && reason.contains("after 1152921504606846976"), "{reason}");
}

#[tokio::test]
async fn a_pause_that_was_asked_for_is_kept_by_the_wall_clock_and_never_grows() {
    let f = fixture().await;
    let left = || f.store.pause_left("client-1", "GET /things").unwrap().as_secs();
    assert_eq!(left(), 0);
    f.store.save_pause("client-1", "GET /things", Duration::from_secs(60)).await.unwrap();
    f.store.save_pause("client-1", "GET /things", Duration::from_secs(5)).await.unwrap();
    assert_eq!(left(), 60, "a shorter wish does not shorten it");
    f.clock.set(NOW + 45 * SECOND);
    assert_eq!(left(), 15);
    f.clock.set(NOW - DAY);
    assert_eq!(left(), 60, "a clock that was set back does not lengthen it");
    f.clock.set(NOW + 60 * SECOND);
    assert_eq!(left(), 0);
    assert_eq!(f.store.pause_left("client-1", "GET /things/*").unwrap(), Duration::ZERO);
    f.store.forget_occupied("client-1", "GET /things", || true).await.unwrap();
    assert_eq!(f.kv.scan(b"q", b"q").count(), 0);
}

#[tokio::test]
async fn rows_that_cannot_be_followed_are_counted_and_parked_once() {
    let f = fixture().await;
    let reason = || "has no id".to_owned();
    let rejected = [Rejected::new(None, reason()), Rejected::new(Some("x ".into()), reason())];
    for fetched in [1, 0] {
        let run = f.start(Mode::Full).await;
        let lease = f.lease(CallKind::List, 1).await.remove(0);
        let page = Page { rejected: rejected.to_vec(), ..page(&[("1", 1, 0)], Next::End) };
        f.settle(lease, page).await;
        f.read_details().await;
        f.sweep().await;
        let run = f.store.run(run).unwrap().unwrap();
        // They are parked once, and each walk that meets them says so.
        assert_eq!((run.listed, run.rejected, run.parked), (3, 2, 2));
        assert_eq!((run.to_fetch, run.fetched), (2 + fetched, fetched));
    }
    assert_eq!(f.store.counters().unwrap().parked, 2);
    assert_eq!(paused(&f), None);
}

#[tokio::test]
async fn the_first_time_of_a_row_stays_its_first() {
    let f = fixture().await;
    assert_eq!(f.store.first_listed_at(&f.stream, "1").unwrap(), None);
    for (now, hash) in [(NOW, 1), (NOW + 5 * SECOND, 1), (NOW + 9 * SECOND, 2)] {
        f.clock.set(now);
        f.start(Mode::Full).await;
        f.page(&[("1", hash, 0)], Next::End).await;
        f.read_details().await;
        f.sweep().await;
        assert_eq!(f.store.first_listed_at(&f.stream, "1").unwrap(), Some(NOW));
    }
}

#[tokio::test]
async fn the_counters_of_a_store_of_an_older_build_are_taken_over() {
    let f = fixture().await;
    let old = |name: &str, count: u64| (format!("mcount.{name}").into_bytes(), Some(count.to_be_bytes().to_vec()));
    f.kv.apply(&[old("waiting", 3), old("outbox_bytes", 70), (b"mbooks".to_vec(), None)]).unwrap();
    let store = Store::over(Arc::clone(&f.kv), SealKey::new(&[1; 32]), f.clock.clone(), Path::new("memory")).unwrap();
    let counters = store.counters().unwrap();
    assert_eq!((counters.waiting_jobs, counters.outbox_bytes, counters.ready_jobs), (3, 70, 0));
}
