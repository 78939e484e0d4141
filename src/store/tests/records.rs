//! Several jobs or outbox entries in one record: each leaves by itself, and none takes another with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Answer, DAY, Fixture, MS, NOW, SECOND, detail, document_id, fixture};
use crate::domain::{CallKind, Facets, Failure, FetchedDocument, Lease, Mode, Next, StepOutput, Trigger};
use crate::store::keyspace::texts;
use crate::store::{SealKey, Settled, Store};

/// Applies a last page with that many new rows; returns their ids.
async fn numbered_page(f: &Fixture, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|id| format!("{id:03}")).collect();
    let rows: Vec<(&str, u64, i64)> = ids.iter().map(|id| (id.as_str(), 1, 0)).collect();
    f.page(&rows, Next::End).await;
    ids
}

fn done(lease: Lease) -> StepOutput {
    detail(&document_id(&lease), None).to(lease)
}

#[tokio::test]
async fn details_of_a_page_share_a_record_and_leave_it_one_by_one() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let ids = numbered_page(&f, 150).await;
    let prefix = texts(b'j', &[&f.stream.shop]);
    let records = || f.kv.scan(&prefix, b"").count();
    assert_eq!(records(), 3, "150 jobs in records of 64");
    assert_eq!(f.store.count_jobs(&f.queue(CallKind::Detail), 1000).unwrap(), 150);
    let mut first = f.lease(CallKind::Detail, 70).await;
    let second = f.lease(CallKind::Detail, 200).await;
    assert_eq!((first.len(), second.len()), (70, 80), "no job is leased twice");
    let named: Vec<String> = first.iter().chain(&second).map(document_id).collect();
    assert_eq!(named, ids, "in the order of the page");
    // One waits, one is put back, the others are done.
    let (waits, back) = (first.remove(0), first.remove(4));
    let retry = Failure::Retry { after: Duration::from_secs(1), error: "503".into() };
    let mut outputs = vec![waits.failed(retry), back.clone().failed(Failure::Postpone { error: "429".into() })];
    outputs.extend(first.into_iter().chain(second).map(done));
    assert!(f.store.settle(outputs).await.unwrap().iter().all(|settled| *settled == Settled::Applied));
    assert_eq!(records(), 1);
    let again = f.lease(CallKind::Detail, 200).await;
    assert_eq!(again.iter().map(document_id).collect::<Vec<_>>(), [document_id(&back)]);
    assert_eq!(again[0].attempt, 1, "a postponed attempt does not count");
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.waiting_jobs, counters.leased_jobs), (1, 1, 1));
    assert!(f.kv.scan(b"l", b"l").count() == 1, "only the lease under way is on disk");
}

#[tokio::test]
async fn a_job_that_comes_back_alone_takes_no_other_with_it() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("3", 1, 0), ("2", 1, 0), ("1", 1, 0)], Next::End).await;
    for (after, id) in [(1000, "3"), (500, "2"), (1500, "1")] {
        let lease = f.lease(CallKind::Detail, 1).await.remove(0);
        assert_eq!(document_id(&lease), id);
        let retry = Failure::Retry { after: Duration::from_millis(after), error: "503".into() };
        f.settle(lease, retry).await;
        // The first ones come back while the others still stand in their record.
        f.clock.set(NOW + 1500 * MS);
        f.store.promote().await.unwrap();
        if after == 1000 {
            assert_eq!(f.store.counters().unwrap().ready_jobs, 3);
        }
    }
    f.clock.set(NOW + 4 * SECOND);
    f.store.promote().await.unwrap();
    let mut ids = f.read_details().await;
    ids.sort();
    assert_eq!(ids, ["1", "2", "3"]);
    assert_eq!(f.store.counters().unwrap().ready_jobs, 0);
}

#[tokio::test]
async fn attempts_that_a_crash_cut_off_are_counted_and_their_jobs_are_still_there() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("3", 1, 0), ("2", 1, 0), ("1", 1, 0)], Next::End).await;
    assert_eq!(f.lease(CallKind::Detail, 2).await.len(), 2);
    for attempts in [[1, 2, 2], [2, 3, 3]] {
        // The process before is gone with its leases; the engine's content is what is left.
        let store =
            Store::over(Arc::clone(&f.kv), SealKey::new(&[1; 32]), f.clock.clone(), Path::new("memory")).unwrap();
        let leases = store.lease(vec![f.queue(CallKind::Detail)], 9, None).await.unwrap();
        let mut found: Vec<u32> = leases.iter().map(|lease| lease.attempt).collect();
        found.sort_unstable();
        assert_eq!(found, attempts);
        let mut ids: Vec<String> = leases.iter().map(document_id).collect();
        ids.sort();
        assert_eq!(ids, ["1", "2", "3"]);
        assert_eq!(store.counters().unwrap().ready_jobs, 3);
    }
}

#[tokio::test]
async fn an_outbox_record_gives_up_its_entries_one_by_one() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    numbered_page(&f, 60).await;
    let leases = f.lease(CallKind::Detail, 100).await;
    f.store.settle(leases.into_iter().map(done).collect()).await.unwrap();
    let records = || f.kv.scan(b"o", b"o").count();
    assert!((2..20).contains(&records()), "{}", records());
    let batch = f.store.outbox_batch(None, 1, usize::MAX).unwrap();
    let rest = f.store.outbox_batch(batch.last().map(|item| item.position), 1000, usize::MAX).unwrap();
    assert_eq!(batch.len() + rest.len(), 62, "the shop, the checkpoint and the documents");
    let positions: Vec<_> = batch.iter().chain(&rest).map(|item| item.position).collect();
    assert!(positions.is_sorted());
    f.store.park_entry(positions[30], "refused".into(), 1).await.unwrap();
    let (odd, even): (Vec<_>, Vec<_>) =
        positions.iter().partition(|position| positions.iter().position(|s| s == *position).unwrap() % 2 == 1);
    f.store.acknowledge(odd).await.unwrap();
    assert_eq!(f.store.counters().unwrap().outbox as usize, even.len() - 1);
    f.store.acknowledge(even).await.unwrap();
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.outbox, counters.outbox_bytes, counters.parked, records()), (0, 0, 1, 0));
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_retry_waiting() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("3", 1, 0), ("2", 1, 0), ("1", 1, 0)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 3).await;
    let retry = |seconds| Failure::Retry { after: Duration::from_secs(seconds), error: "503".into() };
    // One is put aside before the clock jumps ahead; of the other two one plans a re-read.
    f.settle(leases.remove(0), retry(5)).await;
    f.clock.set(NOW + DAY);
    let reread = detail("2", Some(DAY)).to(leases.remove(0));
    f.store.settle(vec![reread, leases.remove(0).failed(retry(2))]).await.unwrap();
    f.clock.set(NOW + SECOND);
    f.store.repair_delays().await.unwrap();
    assert_eq!(f.store.promote().await.unwrap(), Some(NOW + 3 * SECOND), "its pause of two seconds starts over");
    f.clock.set(NOW + 3 * SECOND);
    assert_eq!(f.store.promote().await.unwrap(), Some(NOW + 5 * SECOND), "the one from before keeps its time");
    f.clock.set(NOW + 5 * SECOND);
    assert_eq!(
        f.store.promote().await.unwrap(),
        Some(NOW + SECOND + DAY),
        "a day from then on, as the planned re-read"
    );
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.waiting_jobs, counters.retrying_jobs), (2, 1, 0));
    // Its document knows the new date: a read on request takes the planned one back.
    f.store.start_runs(vec![f.stream.clone()], Mode::Full, Trigger::Request).await.unwrap();
    f.page(&[("3", 1, 0), ("2", 1, 0), ("1", 1, 0)], Next::End).await;
    assert_eq!(f.store.counters().unwrap().waiting_jobs, 0);
}

#[tokio::test]
async fn a_look_through_large_archived_documents_ends_early_and_the_next_goes_on() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let ids = numbered_page(&f, 5).await;
    for lease in f.lease(CallKind::Detail, 5).await {
        let body = format!("\"{}\"", "x".repeat(6 << 20)).into();
        f.settle(lease, FetchedDocument { body, hash: 7, refresh_after: None, facets: Facets::Unknown }).await;
    }
    while let positions @ [_, ..] = f.store.outbox_positions(100, 1).unwrap().as_slice() {
        f.store.archive(positions.to_vec()).await.unwrap();
    }
    let first = f.store.archived("things", None, None, 100).unwrap();
    let found: Vec<&str> = first.documents.iter().map(|document| document.id.as_str()).collect();
    assert_eq!((found, first.more), (vec!["000", "001", "002"], true), "16 MiB are enough for a look");
    let last = first.last.as_ref().map(|(shop, id)| (shop.as_str(), id.as_str()));
    let rest = f.store.archived("things", None, last, 100).unwrap();
    assert_eq!((rest.documents.len(), rest.more), (ids.len() - 3, false));
}
