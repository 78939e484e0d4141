//! What comes after what: whole walks behind walks for news, one attempt a document, parked reads that come back.

use std::time::Duration;

use super::{DAY, Fixture, MORE, MS, NOW, SECOND, detail, document_id, fixture};
use crate::domain::{
    CallKind, Entry, Failure, FetchedDocument, Lease, ListParams, Mode, Next, Page, Rejected, RunState, StreamId,
    Trigger,
};
use crate::store::keyspace;
use crate::store::{Retried, Start, Started};

/// A fixture whose stream has its whole history: one document.
async fn walked() -> Fixture {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 9)], Next::End).await;
    f.read_details().await;
    f.drain().await;
    f
}

async fn asked(f: &Fixture, mode: Mode, trigger: Trigger) -> Started {
    f.store.start_runs(vec![f.stream.clone()], mode, trigger).await.unwrap()[0]
}

#[tokio::test]
async fn a_whole_walk_that_is_asked_for_comes_after_the_walk_for_news_that_is_under_way() {
    let f = walked().await;
    let news = f.start(Mode::Incremental).await;
    let Started::Run(whole) = asked(&f, Mode::Full, Trigger::Schedule).await else { panic!("a run of its own") };
    assert_eq!(asked(&f, Mode::Full, Trigger::Request).await, Started::Already(whole), "once");
    assert_eq!(asked(&f, Mode::Incremental, Trigger::Schedule).await, Started::Already(news));
    f.page(&[("2", 1, 0)], MORE).await;
    assert_eq!(f.lease(CallKind::List, 9).await.len(), 1, "the whole one has not begun");
    let run = f.store.run(whole).unwrap().unwrap();
    assert_eq!((run.mode, run.trigger, run.state), (Mode::Full, Trigger::Request, RunState::Walking));
}

#[tokio::test]
async fn it_begins_when_that_walk_ends_or_fails() {
    for fails in [false, true] {
        let f = walked().await;
        let news = f.start(Mode::Incremental).await;
        let whole = asked(&f, Mode::Full, Trigger::Request).await.run();
        f.page(&[("2", 1, 0)], if fails { MORE } else { Next::End }).await;
        if fails {
            f.page(&[("2", 1, 0)], MORE).await;
        }
        let ended = f.store.run(news).unwrap().unwrap().state;
        assert_eq!(ended, if fails { RunState::Failed } else { RunState::Fetching });
        f.page(&[("2", 1, 0), ("1", 1, 9)], Next::End).await;
        f.sweep().await;
        f.read_details().await;
        assert_eq!(f.store.run(whole).unwrap().unwrap().state, RunState::Done);
        assert_eq!(f.store.counters().unwrap().open_runs, 0);
    }
}

#[tokio::test]
async fn streams_that_wait_for_the_walk_for_news_wait_for_the_whole_one_behind_it() {
    let f = walked().await;
    let child = StreamId { resource: "parts".into(), combination: ListParams::default(), ..f.stream.clone() };
    let news = Start { stream: f.stream.clone(), followers: vec![child.clone()] };
    f.store.start_runs([news], Mode::Incremental, Trigger::Schedule).await.unwrap();
    asked(&f, Mode::Full, Trigger::Request).await;
    let walked = || f.store.runs(None, 9, |run| run.stream == child).unwrap().len();
    f.page(&[("1", 1, 9)], Next::End).await;
    assert_eq!(walked(), 0);
    f.page(&[("1", 1, 9)], Next::End).await;
    f.sweep().await;
    assert_eq!(walked(), 1);
}

#[tokio::test]
async fn a_walk_whose_run_is_not_kept_any_more_keeps_no_other_away() {
    let f = walked().await;
    let lost = f.start(Mode::Incremental).await;
    let key = keyspace::run(lost);
    f.store
        .transact(move |tx| {
            tx.delete(key);
            Ok(())
        })
        .await
        .unwrap();
    f.page(&[("2", 1, 0)], Next::End).await;
    let Started::Run(run) = asked(&f, Mode::Incremental, Trigger::Schedule).await else {
        panic!("the lost one is in the way")
    };
    f.page(&[("2", 1, 0), ("1", 1, 9)], Next::End).await;
    f.read_details().await;
    assert_eq!(f.store.run(run).unwrap().unwrap().state, RunState::Done);
}

#[tokio::test]
async fn no_walk_is_started_for_a_shop_that_is_gone() {
    let f = walked().await;
    assert!(f.store.delete_shop(&f.stream.shop, false).await.unwrap());
    assert!(f.store.start_runs([f.stream.clone()], Mode::Full, Trigger::Request).await.unwrap().is_empty());
    f.store.reread_documents(&f.stream.shop, "things", vec![("1".into(), f.stream.combination.clone())]).await.unwrap();
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.open_runs), (0, 0));
}

#[tokio::test]
async fn a_document_is_read_by_one_attempt_at_a_time() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 0), ("1", 1, 0)], MORE).await;
    let slow = f.lease(CallKind::Detail, 1).await.remove(0);
    assert_eq!(document_id(&slow), "2");
    // It changes meanwhile.
    f.page(&[("2", 2, 0)], MORE).await;
    let others: Vec<Lease> = f.lease(CallKind::Detail, 9).await;
    assert_eq!(others.iter().map(document_id).collect::<Vec<_>>(), ["1"]);
    f.settle(slow, detail("2", None)).await;
    let next: Vec<Lease> = f.lease(CallKind::Detail, 9).await;
    assert_eq!(next.iter().map(document_id).collect::<Vec<_>>(), ["2"], "the newer one comes after");
    f.store.abandon(&next);
    assert_eq!(f.lease(CallKind::Detail, 9).await.len(), 1, "given up, it may be leased again");
}

async fn park(f: &Fixture, transient: bool) {
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    let failure = Failure::Park { reason: "503".into(), transient };
    f.settle(lease, failure).await;
}

#[tokio::test]
async fn what_was_parked_while_the_api_was_away_comes_back_by_itself_ever_less_often() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 9), ("1", 1, 9)], Next::End).await;
    park(&f, true).await;
    park(&f, false).await;
    let minute = |minutes: u32| f.clock.set(NOW + minutes * 60 * SECOND);
    let revived = async || {
        f.start(Mode::Incremental).await;
        f.page(&[("2", 1, 9)], MORE).await;
        f.store.counters().unwrap().ready_jobs
    };
    minute(9);
    assert_eq!(revived().await, 0);
    minute(11);
    assert_eq!(revived().await, 1);
    park(&f, true).await;
    minute(30);
    assert_eq!(revived().await, 0, "twenty minutes after the second time");
    minute(32);
    assert_eq!(revived().await, 1);
    assert_eq!(f.read_details().await, ["2"]);
    assert_eq!(f.store.counters().unwrap().parked, 1, "what cannot pass waits for a retry");
    assert!(f.kv.scan(b"h", b"h").next().is_none());
}

#[tokio::test]
async fn a_document_that_was_parked_twice_comes_back_from_both_places() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 9)], Next::End).await;
    park(&f, true).await;
    f.start(Mode::Incremental).await;
    f.page(&[("1", 2, 9)], Next::End).await;
    park(&f, true).await;
    assert_eq!(f.store.counters().unwrap().parked, 2);
    f.clock.set(NOW + DAY);
    f.start(Mode::Incremental).await;
    f.page(&[("1", 2, 9)], Next::End).await;
    assert_eq!([f.read_details().await, f.read_details().await], [["1"], ["1"]], "one after the other");
    assert_eq!(f.store.counters().unwrap().parked, 0);
}

#[tokio::test]
async fn a_walk_for_news_does_not_do_away_with_what_a_whole_one_gave_up() {
    let f = walked().await;
    let whole = f.start(Mode::Full).await;
    f.page(&[("2", 1, 0)], MORE).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let failure = Failure::Park { reason: "503".into(), transient: true };
    f.settle(lease, failure).await;
    f.start(Mode::Incremental).await;
    f.page(&[("2", 1, 0)], Next::End).await;
    let parked = f.store.parked(None, 9, |_| true).unwrap();
    assert_eq!(parked.len(), 1, "no walk has read it");
    assert_eq!(f.store.retry_parked(parked[0].id).await.unwrap(), Retried::Queued);
    f.page(&[("1", 1, 9)], Next::End).await;
    f.sweep().await;
    f.read_details().await;
    assert_eq!(f.store.run(whole).unwrap().unwrap().state, RunState::Done);
}

#[tokio::test]
async fn a_whole_walk_that_failed_is_not_begun_again_by_the_one_before_it() {
    let f = walked().await;
    f.start(Mode::Incremental).await;
    let whole = asked(&f, Mode::Full, Trigger::Request).await.run();
    for _ in 0..2 {
        let lease = f.lease(CallKind::List, 1).await.remove(0);
        let failure = Failure::Park { reason: "503".into(), transient: true };
        f.settle(lease, failure).await;
    }
    assert_eq!(f.store.run(whole).unwrap().unwrap().state, RunState::Failed);
    let first = f.store.parked(None, 1, |_| true).unwrap()[0].id;
    assert_eq!(f.store.retry_parked(first).await.unwrap(), Retried::Queued);
    f.page(&[("1", 1, 9)], Next::End).await;
    assert!(f.lease(CallKind::List, 9).await.is_empty());
    let Started::Run(next) = asked(&f, Mode::Full, Trigger::Request).await else { panic!("the stream is free") };
    assert!(next > whole);
}

/// The page, with unreadable rows besides; their digests.
pub(super) fn with_unreadable(mut page: Page, digests: &[u64]) -> Page {
    let unreadable =
        |digest: &u64| Rejected { id: None, reason: "it cannot be read".into(), unreadable: Some(*digest) };
    page.rejected.extend(digests.iter().map(unreadable));
    page
}

#[tokio::test]
async fn unreadable_rows_are_distinguished_and_mark_nothing_as_gone() {
    let f = walked().await;
    let run = f.start(Mode::Full).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let page = with_unreadable(super::page(&[("2", 1, 0)], Next::End), &[1, 2, 1]);
    f.settle(lease, page).await;
    f.sweep().await;
    f.read_details().await;
    assert_eq!(f.store.parked(None, 9, |_| true).unwrap().len(), 2);
    assert_eq!(f.store.run(run).unwrap().unwrap().state, RunState::Done);
    let gone = f.drain().await.into_iter().filter(|entry| matches!(entry, Entry::Listing { .. })).count();
    assert_eq!(gone, 0, "the row of 1 may be one of them");
}

#[tokio::test]
async fn a_page_that_was_given_up_is_done_with_when_a_walk_has_read_it() {
    let f = walked().await;
    f.start(Mode::Incremental).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let failure = Failure::Park { reason: "503".into(), transient: true };
    f.settle(lease, failure).await;
    assert_eq!(f.store.counters().unwrap().parked, 1);
    f.start(Mode::Incremental).await;
    f.page(&[("1", 1, 9)], Next::End).await;
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.parked, counters.ready_jobs, counters.open_runs), (0, 0, 0));
    assert!(f.kv.scan(b"h", b"h").next().is_none());
}

#[tokio::test]
async fn a_new_version_of_an_unlisted_document_stays_marked_as_unlisted() {
    let f = walked().await;
    for _ in 0..2 {
        f.start(Mode::Full).await;
        for _ in 0..2 {
            f.page(&[("2", 1, 0)], Next::End).await;
            f.sweep().await;
        }
        f.clock.set(NOW + DAY);
    }
    f.read_details().await;
    f.drain().await;
    f.store.reread_documents(&f.stream.shop, "things", vec![("1".into(), f.stream.combination.clone())]).await.unwrap();
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, FetchedDocument { hash: 8, ..detail("1", None) }).await;
    let listed: Vec<bool> = f
        .drain()
        .await
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Document(_) => Some(false),
            Entry::Listing { no_longer_listed_at, .. } => Some(no_longer_listed_at.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(listed, [false, true], "behind the document");
}

/// Fails a read and makes it ready again.
async fn fail(f: &Fixture, lease: Lease) {
    let retry = Failure::Retry { after: Duration::ZERO, error: "no".into() };
    f.settle(lease, retry).await;
    f.store.promote().await.unwrap();
}

#[tokio::test]
async fn what_failed_twice_goes_behind_what_waits() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    for id in ["1", "2", "3"] {
        f.page(&[(id, 1, 0)], MORE).await;
    }
    for _ in 0..2 {
        let first = f.lease(CallKind::Detail, 1).await.remove(0);
        assert_eq!(document_id(&first), "1", "once more from its place");
        fail(&f, first).await;
    }
    let leases = f.lease(CallKind::Detail, 9).await;
    assert_eq!(leases.iter().map(document_id).collect::<Vec<_>>(), ["2", "3", "1"]);
    assert_eq!(leases[2].attempt, 3);
    f.store.abandon(&leases);
    assert_eq!(f.read_details().await.len(), 3);
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.retrying_jobs), (1, 0), "the next page");
}

#[tokio::test]
async fn a_re_read_that_went_behind_can_still_be_taken_back() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", Some(5 * MS))).await;
    f.clock.set(NOW + 5 * MS);
    f.store.promote().await.unwrap();
    for _ in 0..2 {
        let again = f.lease(CallKind::Detail, 1).await.remove(0);
        fail(&f, again).await;
    }
    f.start(Mode::Incremental).await;
    f.page(&[("1", 2, 0)], Next::End).await;
    // The new row's read is the more urgent one, and makes the other needless.
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", None)).await;
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.waiting_jobs), (0, 0));
}
