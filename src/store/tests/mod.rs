//! Tests: the store's rules, over the engine in memory with a clock set by hand.

mod answers;
mod archive_index;
mod archived;
mod books;
mod changes;
mod cut;
mod failed;
mod faulty;
mod fixture;
mod hand_over;
mod keys;
mod open_runs;
mod order;
mod parked;
mod records;
mod run_index;
mod scrubbed;
mod sealed_texts;
mod shops;
mod source;
mod stream_status;
mod unknown;
mod unreadable;
mod walks;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::engine::{kv::Kv, memory::MemoryKv};
use super::{OccupiedSlots, Queue, Retried, SealKey, Settled, Store, StoreError};
use crate::domain::{
    CallKind, Clock, Entry, Failure, ListParams, Mode, Next, Page, Rejected, RunState, StreamId, Trigger,
};
use fixture::{
    Answer, DAY, Fixture, Gone, HOUR, MORE, MS, NOW, RULE, SECOND, detail, document_id, fixture, new_shop, origin,
    page, reopen, reopened, sweep, token,
};

#[tokio::test]
async fn a_first_walk_lists_fetches_and_ends_with_a_checkpoint() {
    let f = fixture().await;
    let run = f.start(Mode::Incremental).await;
    assert_eq!(f.store.start_runs(vec![f.stream.clone()], Mode::Full, Trigger::Schedule).await.unwrap()[0].run(), run);
    f.page(&[("3", 1, 0), ("2", 1, 3)], MORE).await;
    f.page(&[("1", 1, 9)], MORE).await;
    f.page(&[], Next::End).await;
    f.page(&[("3", 1, 0), ("2", 1, 3)], MORE).await;
    f.page(&[("1", 1, 9)], MORE).await;
    f.page(&[], Next::End).await;
    f.sweep().await;
    assert_eq!(f.store.run(run).unwrap().unwrap().state, RunState::Fetching);
    assert_eq!(f.read_details().await, ["3", "2", "1"], "newest first");
    let entries = f.drain().await;
    let documents = entries.iter().filter(|entry| matches!(entry, Entry::Document(_))).count();
    assert_eq!(documents, 3);
    let run = f.store.run(run).unwrap().unwrap();
    assert_eq!((run.state, run.pages, run.listed, run.new), (RunState::Done, 6, 3, 3), "two passes");
    assert_eq!((run.to_fetch, run.fetched, run.written, run.parked), (3, 3, 3, 0));
    assert_eq!(run.mode, Mode::Full, "without a whole history an incremental run walks all");
    let checkpoint = f.store.checkpoint(&f.stream).unwrap();
    assert_eq!((checkpoint.walked_at, checkpoint.full_walk_at, checkpoint.newest), (Some(NOW), Some(NOW), Some(NOW)));
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.outbox, counters.outbox_bytes, counters.open_runs), (0, 0, 0, 0));
}

#[tokio::test]
async fn an_incremental_walk_stops_at_a_known_unchanged_old_page_and_not_before() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("3", 1, 0), ("2", 1, 0), ("1", 1, 9)], Next::End).await;
    f.read_details().await;
    f.start(Mode::Incremental).await;
    f.page(&[("3", 1, 0)], MORE).await; // known, but younger than the overlap
    f.page(&[("2", 2, 3)], MORE).await; // old, but changed
    f.page(&[("1", 1, 9)], MORE).await; // known, unchanged, old: enough
    assert!(f.lease(CallKind::List, 1).await.is_empty());
    assert_eq!(f.read_details().await, ["2"]);
    let run = &f.store.runs(None, 1, |_| true).unwrap()[0];
    assert_eq!((run.state, run.pages, run.new, run.changed), (RunState::Done, 3, 0, 1));
}

#[tokio::test]
async fn a_page_equal_to_the_one_before_fails_the_run_with_that_reason() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], MORE).await;
    f.page(&[("1", 1, 0)], MORE).await;
    let failed = f.store.run(run).unwrap().unwrap();
    assert_eq!(failed.state, RunState::Failed);
    assert!(failed.error.unwrap().contains("ignore the page parameter"));
    assert_ne!(f.start(Mode::Full).await, run, "the stream is free for the next run");
}

#[tokio::test]
async fn a_late_attempt_is_fenced_off() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let late = f.lease(CallKind::List, 1).await.remove(0);
    assert!(f.lease(CallKind::List, 1).await.is_empty(), "leased once only");
    f.store.abandon(std::slice::from_ref(&late));
    let current = f.lease(CallKind::List, 1).await.remove(0);
    assert_ne!(late.fencing_token, current.fencing_token);
    assert_eq!(f.settle(late, page(&[("1", 1, 0)], Next::End)).await, Settled::LeaseLost);
    assert_eq!(f.settle(current.clone(), page(&[("2", 1, 0)], Next::End)).await, Settled::Applied);
    assert_eq!(f.settle(current, page(&[("3", 1, 0)], Next::End)).await, Settled::LeaseLost);
    assert_eq!(f.read_details().await, ["2"]);
}

#[tokio::test]
async fn a_failed_attempt_waits_is_tried_again_and_parks_with_its_reason() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    let retry = Failure::Retry { after: Duration::from_secs(1), error: "503".into() };
    f.settle(lease, retry).await;
    assert_eq!(f.store.counters().unwrap().retrying_jobs, 1);
    assert_eq!(f.store.promote().await.unwrap(), Some(NOW + SECOND));
    f.clock.set(NOW + SECOND);
    assert_eq!(f.store.promote().await.unwrap(), None);
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    assert_eq!(lease.attempt, 2);
    let given_up = Failure::Park { reason: "no use".into(), transient: false };
    f.settle(lease, given_up).await;
    let parked = f.store.parked(None, 10, |_| true).unwrap().remove(0);
    assert_eq!((parked.document_id.as_deref(), parked.attempts, parked.reason.as_str()), (Some("1"), 2, "no use"));
    assert_eq!(f.store.run(run).unwrap().unwrap().state, RunState::Done);
    assert_eq!(f.store.retry_parked(parked.id).await.unwrap(), Retried::Queued);
    assert_eq!(f.store.retry_parked(parked.id).await.unwrap(), Retried::Absent);
    assert_eq!(f.store.run(run).unwrap().unwrap().state, RunState::Fetching);
    assert_eq!(f.read_details().await, ["1"]);
    let run = f.store.run(run).unwrap().unwrap();
    assert_eq!((run.state, run.to_fetch, run.fetched, run.parked), (RunState::Done, 1, 1, 0));
    assert_eq!(f.store.counters().unwrap().parked, 0);
}

#[tokio::test]
async fn rows_without_a_usable_id_are_parked_once_and_the_page_goes_on() {
    let f = fixture().await;
    for _ in 0..2 {
        f.start(Mode::Full).await;
        let lease = f.lease(CallKind::List, 1).await.remove(0);
        let rejected = vec![Rejected::new(None, "no id".into())];
        f.settle(lease, Page { rejected, ..page(&[("1", 1, 0)], Next::End) }).await;
        f.read_details().await;
        f.store.settle(f.lease(CallKind::List, 1).await.into_iter().map(sweep).collect()).await.unwrap();
    }
    assert_eq!(f.store.parked(None, 10, |_| true).unwrap().len(), 1);
    assert!(f.store.runs(None, 10, |_| true).unwrap().iter().all(|run| run.state == RunState::Done));
}

#[tokio::test]
async fn a_full_walk_notes_what_is_no_longer_listed_and_what_is_listed_again() {
    let f = fixture().await;
    let mut marks = Vec::new();
    let both = [("2", 1, 0), ("1", 1, 9)];
    for (rows, gone) in [(&both[..], false), (&both[..1], true), (&both[..1], false), (&both[..], false)] {
        let run = f.start(Mode::Full).await;
        f.page(rows, Next::End).await;
        f.sweep().await;
        if gone {
            assert_eq!(f.store.run(run).unwrap().unwrap().pass.number, 2, "absent once may be a page that slipped");
            f.page(rows, Next::End).await;
            f.sweep().await;
        }
        f.read_details().await;
        for entry in f.drain().await {
            if let Entry::Listing { id, no_longer_listed_at, .. } = entry {
                marks.push((id, no_longer_listed_at.is_some()));
            }
        }
    }
    assert_eq!(marks, [("1".to_owned(), true), ("1".to_owned(), false)], "only changes are written");
}

#[tokio::test]
async fn a_walk_passes_again_until_nothing_was_missed() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("9", 1, 1), ("8", 1, 2)], MORE).await;
    // 9 leaves the list; 7 slips to the page that was read.
    f.page(&[("6", 1, 4), ("5", 1, 5)], Next::End).await;
    // The second pass meets 7 below 8, and a 10 that is simply new.
    f.page(&[("10", 1, 0), ("8", 1, 2)], MORE).await;
    f.page(&[("8", 1, 2), ("7", 1, 3)], MORE).await;
    f.page(&[("6", 1, 4), ("5", 1, 5)], Next::End).await;
    let walking = f.store.run(run).unwrap().unwrap();
    assert_eq!((walking.pass.number, walking.listed), (3, 6), "7 was missed, so the list is read again");
    // Arrivals that push each other over the edge of a page are no drift.
    f.page(&[("12", 1, 0), ("11", 1, 0)], MORE).await;
    f.page(&[("11", 1, 0), ("10", 1, 0)], MORE).await;
    f.page(&[("8", 1, 2), ("7", 1, 3)], MORE).await;
    f.page(&[("6", 1, 4), ("5", 1, 5)], Next::End).await;
    f.sweep().await;
    let ended = f.store.run(run).unwrap().unwrap();
    assert_eq!((ended.state, ended.list_moved, ended.listed), (RunState::Fetching, false, 8));
    assert!(f.store.checkpoint(&f.stream).unwrap().full_walk_at.is_some());
}

#[tokio::test]
async fn a_row_that_goes_between_passes_asks_for_another_unless_it_came_of_age() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("9", 1, 1), ("8", 1, 2)], MORE).await;
    f.page(&[("7", 1, 3), ("6", 1, 90)], Next::End).await;
    // 6 is too old to be listed any more; 8 was taken out from among others.
    f.page(&[("9", 1, 1)], MORE).await;
    f.page(&[("7", 1, 3)], Next::End).await;
    f.sweep().await;
    assert_eq!(f.store.run(run).unwrap().unwrap().pass.number, 3, "8 may have pulled others out of sight");
    f.page(&[("9", 1, 1)], MORE).await;
    f.page(&[], Next::End).await;
    f.sweep().await;
    let ended = f.store.run(run).unwrap().unwrap();
    assert_eq!((ended.state, ended.list_moved), (RunState::Fetching, false), "7 came of age");
}

#[tokio::test]
async fn a_list_that_moves_through_all_passes_is_reported_and_walked_whole_again() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    let mut id = 100;
    for pass in 0..3 {
        f.page(&[("200", 1, 0)], MORE).await;
        id -= pass;
        f.page(&[(&id.to_string(), 1, 1)], Next::End).await;
    }
    f.sweep().await;
    let ended = f.store.run(run).unwrap().unwrap();
    assert_eq!((ended.state, ended.list_moved, ended.pass.number), (RunState::Fetching, true, 3));
    assert_eq!(f.store.checkpoint(&f.stream).unwrap().full_walk_at, None);
    let next = f.start(Mode::Incremental).await;
    assert_eq!(f.store.run(next).unwrap().unwrap().mode, Mode::Full);
}

#[tokio::test]
async fn a_planned_re_read_replaces_the_one_before_and_unchanged_content_is_not_written_again() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", Some(60 * SECOND))).await;
    f.drain().await;
    f.clock.set(NOW + 60 * SECOND);
    f.store.promote().await.unwrap();
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", Some(60 * SECOND))).await;
    assert!(f.drain().await.is_empty(), "same content");
    assert_eq!(f.store.counters().unwrap().waiting_jobs, 1);
    f.start(Mode::Incremental).await;
    f.page(&[("1", 2, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("1", None)).await;
    assert_eq!(f.store.counters().unwrap().waiting_jobs, 0, "final: nothing more is planned");
    assert_eq!(f.drain().await.len(), 2, "a changed row is written, and the checkpoint");
}

#[tokio::test]
async fn versions_rise_even_when_the_clock_falls_back() {
    let f = fixture().await;
    let mut versions = Vec::new();
    for (step, id) in [(0, "1"), (1, "2"), (2, "3")] {
        f.clock.set(NOW - DAY * step);
        f.start(Mode::Full).await;
        f.page(&[(id, 1, 0)], Next::End).await;
        f.read_details().await;
        f.store.settle(f.lease(CallKind::List, 1).await.into_iter().map(sweep).collect()).await.unwrap();
        versions.extend(f.drain().await.into_iter().filter_map(|entry| match entry {
            Entry::Document(document) => Some(document.version),
            _ => None,
        }));
    }
    assert_eq!(versions.len(), 3);
    assert!(versions.is_sorted());
}

#[tokio::test]
async fn no_secret_is_in_the_engine_in_clear() {
    let f = fixture().await;
    f.store.save_token("client-1", token("canary-token", NOW + SECOND)).await.unwrap();
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    f.read_details().await;
    let (_, key) = f.store.create_key("k", super::Scope::Read, None, None).await.unwrap();
    f.store.archive(f.store.outbox_positions(10, usize::MAX).unwrap()).await.unwrap();
    for pair in f.kv.scan(b"", b"") {
        let (name, value) = pair.unwrap();
        for canary in ["canary-secret", "canary-token", "canary-name", &key] {
            for text in [&name, &value] {
                assert!(!text.windows(canary.len()).any(|part| part == canary.as_bytes()), "{canary}");
            }
        }
    }
    let kept = f.store.token("client-1").unwrap();
    assert_eq!((kept.token.expose_secret(), kept.expires_at), ("canary-token", NOW + SECOND));
    assert_eq!(f.store.secrets(&f.stream.shop).unwrap().client_secret.expose_secret(), "canary-secret");
    assert_eq!(f.store.archived("things", None, None, 10).unwrap().documents.len(), 1);
}

#[tokio::test]
async fn another_master_key_is_refused_before_anything_is_written() {
    let f = fixture().await;
    let other = Store::over(Arc::clone(&f.kv), SealKey::new(&[2; 32]), f.clock.clone(), Path::new("memory"));
    assert!(matches!(other, Err(StoreError::WrongMasterKey { .. })));
}

#[tokio::test]
async fn a_second_process_on_the_directory_is_refused_and_a_restart_finds_all() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), &[1; 32], Clock::manual(NOW));
    let store = open().unwrap();
    assert!(matches!(open(), Err(StoreError::InUse { .. })));
    let shop = store.create_shop(new_shop("client-1")).await.unwrap();
    let stream = StreamId { shop: shop.id.clone(), resource: "things".into(), combination: ListParams::default() };
    store.start_runs(vec![stream], Mode::Full, Trigger::Request).await.unwrap();
    let queue = Queue { shop: shop.id.clone(), resource: "things".into(), kind: CallKind::List };
    let slots = OccupiedSlots { account: "client-1".into(), rule: "GET /things".into(), occupied: 5 };
    assert_eq!(store.lease(vec![queue.clone()], 2, Some(slots)).await.unwrap().len(), 1);
    drop(store);
    let store = reopen(open).await;
    assert_eq!(store.shops().unwrap(), [shop]);
    assert_eq!(store.occupied("client-1", "GET /things").unwrap(), 4, "asked for two, got one");
    let again = store.lease(vec![queue], 1, None).await.unwrap();
    assert_eq!(again[0].attempt, 2, "the attempt before the restart counts");
}
