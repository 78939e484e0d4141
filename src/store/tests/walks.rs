//! What walks ask for: how urgent, and how far.

use bytes::Bytes;

use super::order::with_unreadable;
use super::{Answer, Fixture, Gone, MORE, MS, NOW, RULE, SECOND, detail, document_id, fixture, page, sweep};
use crate::domain::{
    CallKind, Entry, Failure, JobKind, ListParams, Mode, Next, Priority, Run, RunState, StepOutput, StreamId, Trigger,
    WalkRule,
};
use crate::store::Start;

async fn details(f: &Fixture) -> Vec<Priority> {
    let leases = f.lease(CallKind::Detail, 10).await;
    let priorities = leases.iter().map(|lease| lease.job.priority).collect();
    f.store.abandon(&leases);
    priorities
}

#[tokio::test]
async fn history_waits_for_what_is_new() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 0), ("1", 1, 1)], Next::End).await;
    assert_eq!(details(&f).await, [Priority::History, Priority::History]);
    f.read_details().await;
    f.start(Mode::Incremental).await;
    f.page(&[("3", 1, 0), ("2", 2, 0), ("1", 1, 1)], Next::End).await;
    assert_eq!(details(&f).await, [Priority::New, Priority::Changed]);
}

#[tokio::test]
async fn rows_that_tell_no_time_are_walked_to_the_end() {
    let f = fixture().await;
    let timeless = |id: &str| {
        let mut page = page(&[(id, 1, 90)], MORE);
        page.rows[0].time = None;
        page
    };
    for mode in [Mode::Full, Mode::Incremental] {
        let run = f.start(mode).await;
        for id in ["2", "1"] {
            let lease = f.lease(CallKind::List, 1).await.remove(0);
            f.settle(lease, timeless(id)).await;
        }
        assert_eq!(f.store.run(run).unwrap().unwrap().pages, 2, "{mode:?}");
        f.page(&[], Next::End).await;
        if mode == Mode::Full {
            for id in ["2", "1"] {
                let lease = f.lease(CallKind::List, 1).await.remove(0);
                f.settle(lease, timeless(id)).await;
            }
            f.page(&[], Next::End).await;
            f.sweep().await;
        }
        f.read_details().await;
    }
    assert_eq!(f.store.counters().unwrap().open_runs, 0);
}

#[tokio::test]
async fn a_row_that_is_the_document_needs_no_detail() {
    let f = fixture().await;
    for (hash, written) in [(1, 1), (1, 0), (2, 1)] {
        let run = f.start(Mode::Full).await;
        let mut page = page(&[("1", hash, 0)], Next::End);
        page.rows[0].body = Some(Bytes::from_static(b"{\"id\":\"1\"}"));
        let lease = f.lease(CallKind::List, 1).await.remove(0);
        f.settle(lease, page).await;
        f.sweep().await;
        assert!(details(&f).await.is_empty());
        let documents = f.drain().await.into_iter().filter(|entry| matches!(entry, Entry::Document(_))).count();
        assert_eq!(documents, written, "with hash {hash}");
        assert_eq!(f.store.run(run).unwrap().unwrap().to_fetch, 0);
    }
}

#[tokio::test]
async fn only_who_asks_for_a_full_walk_has_planned_reads_made_early() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", Some(super::DAY))).await;
    for (mode, trigger, early) in [
        (Mode::Full, Trigger::Schedule, 0),
        (Mode::Incremental, Trigger::Request, 0),
        (Mode::Full, Trigger::Request, 1),
    ] {
        f.store.start_runs(vec![f.stream.clone()], mode, trigger).await.unwrap();
        f.page(&[("1", 1, 0)], Next::End).await;
        if mode == Mode::Full {
            f.sweep().await;
        }
        assert_eq!(details(&f).await.len(), early, "{mode:?} by {trigger:?}");
    }
}

/// The other stream of the resource.
fn sibling(f: &Fixture) -> StreamId {
    StreamId { combination: ListParams(vec![("kind".into(), "b".into())]), ..f.stream.clone() }
}

/// Times since when rows are no longer listed, as the sink gets them.
async fn listings(f: &Fixture) -> Vec<(String, bool)> {
    let entries = f.drain().await.into_iter();
    let unlisted_at = |entry| match entry {
        Entry::Listing { id, no_longer_listed_at, .. } => Some((id, no_longer_listed_at.is_some())),
        _ => None,
    };
    entries.filter_map(unlisted_at).collect()
}

#[tokio::test]
async fn what_moved_from_one_list_to_another_is_still_listed() {
    let f = fixture().await;
    let (one, other) = (f.stream.clone(), sibling(&f));
    // A full walk of a stream whose list has these rows.
    let walk = async |stream: &StreamId, ids: &[&str]| {
        f.store.start_runs([stream.clone()], Mode::Full, Trigger::Schedule).await.unwrap();
        let rows: Vec<(&str, u64, i64)> = ids.iter().map(|id| (*id, 1, 0)).collect();
        // What is absent from one pass is looked for in another.
        while let Some(lease) = f.lease(CallKind::List, 1).await.pop() {
            let is_sweep = matches!(lease.job.kind, JobKind::Sweep(_));
            let output = if is_sweep { sweep(lease) } else { page(&rows, Next::End).to(lease) };
            f.store.settle(vec![output]).await.unwrap();
        }
        f.read_details().await;
    };
    walk(&one, &["1", "2"]).await;
    walk(&other, &["3"]).await;
    f.drain().await;
    walk(&other, &["3", "1"]).await;
    walk(&one, &["2"]).await;
    assert_eq!(listings(&f).await, [], "it moved");
    walk(&other, &["3"]).await;
    assert_eq!(listings(&f).await, [("1".to_owned(), true)], "now it is on neither");
    assert_eq!(f.store.next_listed(&[one.clone(), other.clone()], None).unwrap().as_deref(), Some("2"));
    walk(&one, &["2", "1"]).await;
    assert_eq!(listings(&f).await, [("1".to_owned(), false)]);
}

#[tokio::test]
async fn streams_that_follow_are_walked_when_all_before_them_have_been() {
    let f = fixture().await;
    let (one, other) = (f.stream.clone(), sibling(&f));
    let child = StreamId { resource: "parts".into(), combination: ListParams::default(), ..f.stream.clone() };
    let start = |stream: &StreamId| Start { stream: stream.clone(), followers: vec![child.clone()] };
    f.store.start_runs([start(&one), start(&other)], Mode::Full, Trigger::Schedule).await.unwrap();
    let resources = || -> Vec<String> {
        let runs = f.store.runs(None, 10, |_| true).unwrap();
        runs.into_iter().rev().map(|run| run.stream.resource).collect()
    };
    f.page(&[("1", 1, 0)], Next::End).await;
    assert_eq!(resources(), ["things", "things"], "the other one is still being walked");
    f.page(&[("2", 1, 0)], Next::End).await;
    assert_eq!(resources(), ["things", "things", "parts"]);
    assert_eq!(f.store.next_listed(&[one.clone(), other.clone()], None).unwrap().as_deref(), Some("1"));
    assert_eq!(f.store.next_listed(&[one.clone(), other.clone()], Some("1")).unwrap().as_deref(), Some("2"));
    assert_eq!(f.store.next_listed(&[one, other], Some("2")).unwrap(), None);
}

/// After a whole walk over rows of eight and nine days ago.
async fn two_old_rows() -> Fixture {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 8), ("1", 1, 9)], Next::End).await;
    f.read_details().await;
    f
}

fn walking(f: &Fixture) -> Vec<Run> {
    f.store.runs(None, 9, |run| run.state == RunState::Walking).unwrap()
}

#[tokio::test]
async fn a_list_that_ends_above_rows_that_it_showed_before_is_walked_whole() {
    let f = two_old_rows().await;
    // It ends where it should, with news or without.
    for rows in [&[("2", 1, 8), ("1", 1, 9)][..], &[("3", 1, 5), ("2", 1, 8), ("1", 1, 9)]] {
        f.start(Mode::Incremental).await;
        let next = if rows.len() == 2 { Next::End } else { MORE };
        f.page(rows, next).await;
        if rows.len() == 3 {
            f.page(&[], Next::End).await;
        }
        f.read_details().await;
        assert_eq!(walking(&f), [], "{rows:?}");
    }
    // Nothing at all, where three rows were: the next walk is whole.
    let empty = f.start(Mode::Incremental).await;
    f.page(&[], Next::End).await;
    assert_eq!(walking(&f), []);
    assert_eq!(f.store.run(empty).unwrap().unwrap().state, RunState::Unproved);
    let whole = f.start(Mode::Incremental).await;
    assert_eq!(f.store.run(whole).unwrap().unwrap().mode, Mode::Full);
    f.page(&[("3", 1, 5), ("2", 1, 8), ("1", 1, 9)], Next::End).await;
    f.sweep().await;
    // One call without rows, between a page of news and another.
    let news = f.start(Mode::Incremental).await;
    f.page(&[("7", 1, 2), ("6", 1, 2)], MORE).await;
    f.page(&[], Next::End).await;
    let [whole] = walking(&f).try_into().unwrap_or_else(|runs| panic!("one and only: {runs:?}"));
    assert_eq!((whole.mode, whole.id > news), (Mode::Full, true));
    f.page(&[("7", 1, 2), ("6", 1, 2), ("5", 1, 3), ("4", 1, 4)], MORE).await;
    f.page(&[("3", 1, 5), ("2", 1, 8), ("1", 1, 9)], Next::End).await;
    // The unknown row was below known ones.
    f.page(&[("7", 1, 2), ("6", 1, 2), ("5", 1, 3), ("4", 1, 4)], MORE).await;
    f.page(&[("3", 1, 5), ("2", 1, 8), ("1", 1, 9)], Next::End).await;
    f.sweep().await;
    assert_eq!(f.read_details().await.len(), 4);
    assert_eq!(f.store.counters().unwrap().open_runs, 0);
}

#[tokio::test]
async fn a_walk_for_news_that_ends_within_what_was_known_is_followed_by_a_whole_one_which_nothing_follows() {
    let f = two_old_rows().await;
    f.start(Mode::Incremental).await;
    f.page(&[("3", 1, 0), ("2", 1, 8)], Next::End).await;
    let [whole] = walking(&f).try_into().unwrap_or_else(|runs| panic!("one and only: {runs:?}"));
    assert_eq!(whole.mode, Mode::Full);
    // It ends above the same row, with news of its own: the row went, and that is all.
    for _ in 0..2 {
        f.page(&[("4", 1, 0), ("3", 1, 0), ("2", 1, 8)], Next::End).await;
        f.sweep().await;
    }
    assert_eq!(walking(&f), []);
    assert!(listings(&f).await.contains(&("1".to_owned(), true)));
}

/// A list in no order may end with any row: that older ones are known says nothing of where it was cut.
#[tokio::test]
async fn a_list_in_no_order_has_nothing_below_its_end() {
    let f = two_old_rows().await;
    let rule = WalkRule { newest_first: false, ..RULE };
    for (rows, new) in [(&[("1", 1, 9), ("3", 1, 0), ("2", 1, 8)][..], "3"), (&[("4", 1, 0), ("2", 1, 8)], "4")] {
        f.start(Mode::Incremental).await;
        let lease = f.lease(CallKind::List, 1).await.remove(0);
        let StepOutput::Page { lease, page, .. } = page(rows, Next::End).to(lease) else { panic!("not a page") };
        f.store.settle(vec![StepOutput::Page { lease, page, rule }]).await.unwrap();
        assert_eq!(walking(&f), [], "no whole walk follows");
        assert_eq!(f.read_details().await, [new]);
    }
}

#[tokio::test]
async fn what_is_gone_when_it_is_asked_for_counts_in_its_run_and_ends_it() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("3", 1, 0), ("2", 1, 0), ("1", 1, 0)], Next::End).await;
    f.sweep().await;
    let mut leases = f.lease(CallKind::Detail, 10).await;
    let read = leases.remove(0);
    let id = document_id(&read);
    f.settle(read, detail(&id, None)).await;
    let counts = || f.store.run(run).unwrap().unwrap();
    assert_eq!((counts().gone, counts().fetched, counts().state), (0, 1, RunState::Fetching));
    // Both in one commit.
    f.store.settle(leases.into_iter().map(|lease| Gone.to(lease)).collect()).await.unwrap();
    assert_eq!((counts().gone, counts().fetched, counts().state), (2, 1, RunState::Done));
}

#[tokio::test]
async fn one_unreadable_row_in_a_hundred_is_no_alarm_and_one_in_fewer_is() {
    for (rows, alarmed) in [(99, false), (98, true)] {
        let f = fixture().await;
        let run = f.start(Mode::Full).await;
        let ids: Vec<String> = (0..rows).map(|id| id.to_string()).collect();
        let rows: Vec<(&str, u64, i64)> = ids.iter().map(|id| (id.as_str(), 1, 0)).collect();
        let lease = f.lease(CallKind::List, 1).await.remove(0);
        f.settle(lease, with_unreadable(page(&rows, MORE), &[1])).await;
        assert_eq!(f.store.run(run).unwrap().unwrap().alarmed, alarmed, "{} rows", ids.len());
    }
}

#[tokio::test]
async fn a_first_walk_that_finds_nothing_looks_again() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[], Next::End).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    f.sweep().await;
    assert_eq!(f.read_details().await, ["1"]);
    assert_eq!(f.store.run(run).unwrap().unwrap().pass.number, 2);
    let walked = f.store.checkpoint(&f.stream).unwrap();
    f.clock.set(NOW + MS);
    f.start(Mode::Incremental).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    assert_eq!(f.store.checkpoint(&f.stream).unwrap().walked_before, walked.walked_at);
}

#[tokio::test]
async fn a_list_that_leads_in_a_circle_fails_the_run_before_the_third_time_around() {
    let f = fixture().await;
    for long in 2..10_u64 {
        let run = f.start(Mode::Full).await;
        let mut pages = 0;
        // Two pages, and then the circle.
        while f.store.run(run).unwrap().unwrap().state == RunState::Walking {
            let id = if pages < 2 { 100 + pages } else { (pages - 2) % long }.to_string();
            f.page(&[(&id, 1, 0)], MORE).await;
            pages += 1;
            assert!(pages <= 3 * (long + 2), "{pages} pages of a circle of {long}");
        }
        let failed = f.store.run(run).unwrap().unwrap();
        assert_eq!(failed.state, RunState::Failed);
        assert!(failed.error.unwrap().contains("leads in a circle"), "{long}");
    }
}

#[tokio::test]
async fn a_document_that_was_read_by_a_clock_that_was_ahead_is_read_again() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 0), ("1", 1, 0)], Next::End).await;
    // Its age was judged to be past all changes.
    f.clock.set(NOW + 40 * super::DAY);
    assert_eq!(f.read_details().await.len(), 2);
    f.clock.set(NOW + SECOND);
    for expected in [vec!["2", "1"], vec![]] {
        f.start(Mode::Full).await;
        f.page(&[("2", 1, 0), ("1", 1, 0)], Next::End).await;
        let mut read = f.read_details().await;
        read.sort_by(|one, other| other.cmp(one));
        assert_eq!(read, expected);
        f.sweep().await;
    }
}

#[tokio::test]
async fn a_walk_for_news_after_a_failed_one_goes_down_to_the_last_that_ended_well() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    f.read_details().await;
    // Three days later, of which one walk saw only the first page.
    f.clock.set(NOW + 4 * super::DAY);
    f.start(Mode::Incremental).await;
    f.page(&[("4", 1, -2), ("3", 1, -1)], MORE).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let failure = Failure::Park { reason: "503".into(), transient: true };
    f.settle(lease, failure).await;
    f.start(Mode::Incremental).await;
    f.page(&[("4", 1, -2), ("3", 1, -1)], MORE).await;
    f.page(&[("2", 1, 0), ("1", 1, 0)], Next::End).await;
    let mut read = f.read_details().await;
    read.sort();
    assert_eq!(read, ["2", "3", "4"]);
}

#[tokio::test]
async fn a_young_row_that_comes_late_is_no_sign_of_a_list_that_moves() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    let passes = [vec![("4", 1, 5)], vec![("4", 1, 5), ("5", 1, 0)]];
    for rows in passes {
        f.page(&rows, MORE).await;
        f.page(&[("1", 1, 9)], Next::End).await;
    }
    f.sweep().await;
    let run = f.store.run(run).unwrap().unwrap();
    assert_eq!((run.pass.number, run.list_moved, run.state), (2, false, RunState::Fetching));
}
