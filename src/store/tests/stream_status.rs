//! What is recorded for the health, and runs that end with their shop.

use std::time::Duration;

use secrecy::SecretString;

use super::{DAY, Fixture, MORE, NOW, SECOND, detail, document_id, fixture};
use crate::domain::{
    CallKind, Cause, Checkpoint, Entry, ErrorClass, Failure, Mode, Next, RunId, RunState, ShopState, StreamStatus,
};
use crate::store::codec::encode;
use crate::store::keyspace::stream as stream_key;
use crate::store::{Changed, ShopChange};

impl Fixture {
    async fn fails(&self, kind: CallKind, failure: Failure) {
        let lease = self.lease(kind, 1).await.remove(0);
        self.settle(lease, failure).await;
    }

    fn status(&self) -> StreamStatus {
        self.store.stream_status(&self.stream).unwrap()
    }

    fn state(&self, run: RunId) -> RunState {
        self.store.run(run).unwrap().unwrap().state
    }
}

fn unavailable(text: &str) -> Failure {
    Failure::Postpone { error: Cause::new(ErrorClass::Unavailable, text) }
}

#[tokio::test]
async fn a_stream_without_a_record_takes_its_last_walk_for_its_last_success() {
    let f = fixture().await;
    assert_eq!(f.status(), StreamStatus::default());
    let checkpoint = Checkpoint { walked_at: Some(NOW - DAY), ..Checkpoint::default() };
    let (key, record) = (stream_key(b'k', &f.stream), encode("a checkpoint", &checkpoint).unwrap());
    let old = f.store.transact(move |tx| {
        tx.put(key, record);
        Ok(())
    });
    old.await.unwrap();
    assert_eq!(f.status().last_success_at, Some(NOW - DAY), "an older version's directory");
    f.start(Mode::Full).await;
    f.fails(CallKind::List, unavailable("503")).await;
    assert_eq!(f.status().last_success_at, Some(NOW - DAY), "kept in the record that this version makes");
}

#[tokio::test]
async fn what_the_health_depends_on_is_noted_when_it_changes() {
    let f = fixture().await;
    let shop = || Changed::Shop(f.stream.shop.clone());
    let changes = || f.store.signals().take_changes().what;
    assert!(changes().contains(&shop()), "it was registered");
    let run = f.start(Mode::Full).await;
    assert!(changes().is_superset(&[shop(), Changed::Run(run)].into()));
    f.fails(CallKind::List, unavailable("503")).await;
    assert_eq!(changes(), [shop()].into(), "only its record of calls changed");
    f.fails(CallKind::List, unavailable("503 again")).await;
    assert!(changes().is_empty(), "nothing new");
}

#[tokio::test]
async fn the_end_of_a_run_that_an_older_version_began_keeps_the_last_success() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let checkpoint = Checkpoint { walked_at: Some(NOW - DAY), ..Checkpoint::default() };
    let (key, record) = (stream_key(b'k', &f.stream), encode("a checkpoint", &checkpoint).unwrap());
    let status = stream_key(b'S', &f.stream);
    let old = f.store.transact(move |tx| {
        tx.put(key, record);
        tx.delete(status);
        Ok(())
    });
    old.await.unwrap();
    f.fails(CallKind::List, unavailable("503")).await;
    let status = f.status();
    assert!(status.list_trouble.is_some());
    assert_eq!(status.last_success_at, Some(NOW - DAY));
}

#[tokio::test]
async fn whether_a_list_was_read_whole_is_recorded_once() {
    let f = fixture().await;
    let old = serde_json::json!({
        "last_success_at": NOW - DAY, "unproved": {"since": NOW, "mode": "full", "text": "page 1: no total"},
    });
    let (key, record) = (stream_key(b'S', &f.stream), encode("a stream's status", &old).unwrap());
    let put = f.store.transact(move |tx| {
        tx.put(key, record);
        Ok(())
    });
    put.await.unwrap();
    assert_eq!(f.status().last_success_at, Some(NOW - DAY), "a directory that recorded it twice");
    assert_eq!(f.store.unproved(&f.stream).unwrap(), None);
}

#[tokio::test]
async fn calls_that_fail_are_recorded_once_and_the_end_of_a_run_is() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.fails(CallKind::List, unavailable("503 once")).await;
    f.clock.set(NOW + SECOND);
    f.fails(CallKind::List, unavailable("503 twice")).await;
    let trouble = f.status().list_trouble.unwrap();
    assert_eq!((trouble.since, trouble.cause.text.as_str()), (NOW, "503 once"), "what is known is not written again");
    f.page(&[("1", 1, 0)], Next::End).await;
    assert_eq!((f.status().list_trouble, f.status().last_success_at), (None, None), "its details are still to come");
    f.read_details().await;
    assert_eq!(f.status().last_success_at, Some(NOW + SECOND));
    f.clock.set(NOW + DAY);
    f.start(Mode::Full).await;
    let given_up = Failure::Park { reason: Cause::new(ErrorClass::Forbidden, "403"), transient: true };
    f.fails(CallKind::List, given_up).await;
    let status = f.status();
    assert_eq!((status.failures, status.failing_since), (1, Some(NOW + DAY)));
    let error = status.last_error.unwrap();
    assert_eq!((error.class, error.text.as_str()), (ErrorClass::Forbidden, "page 1 was given up: 403"));
    assert_eq!(status.last_success_at, Some(NOW + SECOND));
}

#[tokio::test]
async fn runs_of_a_refused_shop_end_and_their_list_jobs_go() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], MORE).await;
    let behind = f.store.start_runs(vec![f.stream.clone()], Mode::Full, crate::domain::Trigger::Request).await.unwrap();
    assert_eq!(behind[0].run(), run);
    let read_at = f.store.shop(&f.stream.shop).unwrap().unwrap().updated_at;
    f.fails(CallKind::Detail, Failure::StopShop { reason: "the account is off".into(), read_at }).await;
    let stopped = f.store.run(run).unwrap().unwrap();
    assert_eq!((stopped.state, stopped.error.as_deref()), (RunState::Stopped, Some("the account is off")));
    assert_eq!((stopped.error_class, stopped.ended_at), (Some(ErrorClass::Refused), Some(NOW)));
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.open_runs, counters.ready_jobs), (0, 2), "the details stay");
    assert!(f.lease(CallKind::List, 1).await.is_empty());
    // With a new secret the stream is walked again, and what was found is still read.
    let right = ShopChange { client_secret: Some(SecretString::from("right")), ..ShopChange::default() };
    f.store.update_shop(&f.stream.shop, right).await.unwrap();
    let next = f.start(Mode::Incremental).await;
    assert_ne!(next, run);
    for lease in f.lease(CallKind::Detail, 9).await {
        let id = document_id(&lease);
        f.settle(lease, detail(&id, None)).await;
    }
    let stopped = f.store.run(run).unwrap().unwrap();
    assert_eq!((stopped.state, stopped.fetched, stopped.pending()), (RunState::Stopped, 2, 0));
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    assert_eq!(f.state(next), RunState::Done);
}

#[tokio::test]
async fn runs_of_a_shop_that_is_paused_for_a_breach_end_at_once() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], MORE).await;
    let spoilt =
        f.store.transact(move |tx| crate::store::ops::run_progress::update(tx, Some(run), NOW, |run| run.to_fetch = 0));
    spoilt.await.unwrap();
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", None)).await;
    let shop = f.store.shop(&f.stream.shop).unwrap().unwrap();
    assert_eq!(shop.state, ShopState::Paused);
    let stopped = f.store.run(run).unwrap().unwrap();
    assert_eq!((stopped.state, stopped.error), (RunState::Stopped, shop.reason));
    assert!(stopped.error_class.is_some() && f.store.counters().unwrap().open_runs == 0);
}

#[tokio::test]
async fn a_page_that_waits_for_another_try_goes_with_its_run() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    let retry = Failure::Retry { after: Duration::from_secs(60), error: Cause::new(ErrorClass::Unavailable, "503") };
    f.fails(CallKind::List, retry).await;
    let paused = |state| ShopChange { state: Some(state), ..ShopChange::default() };
    f.store.update_shop(&f.stream.shop, paused(ShopState::Paused)).await.unwrap();
    assert_eq!(f.state(run), RunState::Stopped);
    assert_eq!(f.status().list_trouble, None);
    f.store.update_shop(&f.stream.shop, paused(ShopState::Active)).await.unwrap();
    f.clock.set(NOW + 60 * SECOND);
    f.store.promote().await.unwrap();
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.waiting_jobs, counters.retrying_jobs), (0, 0, 0));
}

#[tokio::test]
async fn documents_that_fail_in_a_row_are_noted_until_one_passes() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let ids: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    f.page(&ids.iter().map(|id| (id.as_str(), 1, 0)).collect::<Vec<_>>(), Next::End).await;
    let leases = f.lease(CallKind::Detail, 12).await;
    for (at, lease) in leases.into_iter().enumerate() {
        assert_eq!(f.status().detail_trouble.is_some(), (5..7).contains(&at), "{at}");
        match at {
            0..6 => {
                let reason = Cause::new(ErrorClass::Malformed, "the answer is not JSON");
                f.settle(lease, Failure::Park { reason, transient: false }).await;
            }
            _ => {
                let id = document_id(&lease);
                f.settle(lease, detail(&id, None)).await;
            }
        }
    }
    let batch = f.store.outbox_batch(None, 99, usize::MAX).unwrap();
    let documents: Vec<_> = batch.iter().filter(|item| matches!(item.entry, Some(Entry::Document(_)))).collect();
    for (at, item) in documents[..5].iter().enumerate() {
        assert_eq!((f.status().refused, f.status().write_trouble), (at, None));
        f.store.park_entry(item.position, "a trigger refuses it".into(), 1).await.unwrap();
    }
    assert!(f.status().write_trouble.is_some());
    f.store.acknowledge(vec![documents[5].position]).await.unwrap();
    assert_eq!((f.status().refused, f.status().write_trouble), (0, None));
}
