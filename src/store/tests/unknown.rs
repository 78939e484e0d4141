//! Documents that the API does not know when it is asked for them, and lists all the same; and those that are no
//! longer asked for.

use std::sync::Arc;

use super::{Answer, Fixture, Gone, HOUR, NOW, detail, document_id, fixture, new_shop};
use crate::domain::{
    CallKind, DetailEndpoint, Lease, LeaseByKind, Mode, Next, NotFound, RunState, StepOutput, StreamId, WalkRule,
};
use crate::store::keyspace;
use crate::store::ops::completeness::LedgerState;

/// "Not found", by another detail call than that of [`Gone`].
struct GoneElsewhere;

impl Answer for GoneElsewhere {
    fn to(self, lease: Lease) -> StepOutput {
        let LeaseByKind::FetchDetail(lease) = lease.by_kind() else { panic!("not a detail") };
        let endpoint = DetailEndpoint { digest: 1, path: "/others/{id}".into() };
        StepOutput::NotFound { lease, answer: NotFound { endpoint, status: 410 } }
    }
}

impl Fixture {
    fn parked_ids(&self) -> Vec<String> {
        let parked = self.store.parked(None, 99, |_| true).unwrap();
        parked.into_iter().filter_map(|one| one.document_id).collect()
    }

    fn stored(&self) -> Vec<LedgerState> {
        let listed = self.store.listed(std::slice::from_ref(&self.stream), "", 99).unwrap();
        listed.into_iter().map(|one| one.known).collect()
    }

    /// Answers all details that are ready.
    async fn not_found(&self) -> usize {
        let leases = self.lease(CallKind::Detail, 99).await;
        let count = leases.len();
        for lease in leases {
            self.settle(lease, Gone).await;
        }
        count
    }
}

#[tokio::test]
async fn a_document_that_the_api_once_did_not_know_is_asked_for_again_while_it_is_listed() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 10).await;
    leases.sort_by_key(|lease| document_id(lease) == "1");
    for lease in leases {
        let output = if document_id(&lease) == "1" { Gone.to(lease) } else { detail("2", None).to(lease) };
        f.store.settle(vec![output]).await.unwrap();
    }
    f.start(Mode::Incremental).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    assert!(f.read_details().await.is_empty(), "not with every walk");
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    assert_eq!(f.read_details().await, ["1"]);
    f.sweep().await;
    // One that is there already may be unknown for a moment too, when its row has changed.
    f.start(Mode::Incremental).await;
    f.page(&[("1", 1, 0), ("2", 2, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 10).await.remove(0);
    f.settle(lease, Gone).await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 2, 0)], Next::End).await;
    assert_eq!(f.read_details().await, ["2"]);
}

#[tokio::test]
async fn a_run_ends_when_its_resource_has_no_details_any_more() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    for lease in f.lease(CallKind::Detail, 10).await {
        let LeaseByKind::FetchDetail(lease) = lease.by_kind() else { panic!("not a detail") };
        f.store.settle(vec![StepOutput::Obsolete(lease)]).await.unwrap();
    }
    let run = f.store.run(run).unwrap().unwrap();
    assert_eq!((run.state, run.to_fetch, run.fetched, run.gone), (RunState::Done, 0, 0, 0));
}

#[tokio::test]
async fn the_first_answer_of_a_call_that_is_not_proved_waits_for_a_document() {
    let f = fixture().await;
    let run = f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0), ("3", 1, 0)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 10).await;
    let last = leases.pop().unwrap();
    for lease in leases {
        f.settle(lease, Gone).await;
    }
    assert_eq!((f.parked_ids().len(), f.store.run(run).unwrap().unwrap().parked), (2, 2));
    assert_eq!(f.stored(), [LedgerState::Unread; 3]);
    let id = document_id(&last);
    f.settle(last, detail(&id, None)).await;
    assert_eq!(f.parked_ids(), [""; 0], "put back by the document");
    assert_eq!(f.not_found().await, 2);
    let counts = f.store.run(run).unwrap().unwrap();
    assert_eq!((counts.gone, counts.parked, counts.fetched, counts.pending()), (2, 0, 1, 0));
}

#[tokio::test]
async fn a_list_that_does_not_show_it_either_is_believed() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    assert_eq!(f.not_found().await, 2);
    assert_eq!(f.parked_ids().len(), 2);
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 0)], Next::End).await;
    f.sweep().await;
    f.page(&[("2", 1, 0)], Next::End).await;
    f.sweep().await;
    f.clock.set(NOW + HOUR);
    f.start(Mode::Incremental).await;
    f.page(&[("2", 1, 0)], Next::End).await;
    assert_eq!(f.not_found().await, 2, "both are tried again");
    assert_eq!(f.parked_ids(), ["2"]);
    assert_eq!(f.stored(), [LedgerState::Gone, LedgerState::Unread]);
}

#[tokio::test]
async fn a_call_that_is_not_proved_is_tried_a_few_times_at_growing_pauses() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let ids: Vec<String> = (0..20).map(|id| id.to_string()).collect();
    let rows: Vec<(&str, u64, i64)> = ids.iter().map(|id| (id.as_str(), 1, 0)).collect();
    f.page(&rows, Next::End).await;
    assert_eq!(f.not_found().await, 20);
    let mut calls = 0;
    for hour in 1..=48 {
        f.clock.set(NOW + hour * HOUR);
        f.start(Mode::Incremental).await;
        f.page(&rows, Next::End).await;
        let tried = f.not_found().await;
        assert!(tried <= 3, "{tried}");
        calls += tried;
    }
    assert!((20..=144).contains(&calls), "{calls}");
    assert_eq!(f.parked_ids().len(), 20);
    // The same by another definition: at once, since nothing is known of it.
    f.start(Mode::Incremental).await;
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    let StepOutput::Page { lease, page, rule } = super::page(&rows, Next::End).to(lease) else { panic!("not a page") };
    let rule = WalkRule { endpoint: Some(1), ..rule };
    f.store.settle(vec![StepOutput::Page { lease, page, rule }]).await.unwrap();
    let leases = f.lease(CallKind::Detail, 99).await;
    assert_eq!(leases.len(), 3);
    for lease in leases {
        f.settle(lease, GoneElsewhere).await;
    }
    let parked = f.store.parked(None, 99, |_| true).unwrap();
    assert_eq!(parked.len(), 20);
    let claim = "answered 410 for it, and no call of /others/{id} was ever answered";
    assert_eq!(parked.iter().filter(|one| one.reason.contains(claim)).count(), 3);
}

#[tokio::test]
async fn a_call_that_sends_nothing_any_more_takes_back_what_was_believed() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let ids: Vec<String> = (0..10).map(|id| id.to_string()).collect();
    let rows: Vec<(&str, u64, i64)> = ids.iter().map(|id| (id.as_str(), 1, 0)).collect();
    f.page(&rows[..1], Next::End).await;
    assert_eq!(f.read_details().await, ["0"]);
    f.start(Mode::Incremental).await;
    f.page(&rows, Next::End).await;
    assert_eq!(f.not_found().await, 9);
    assert_eq!(f.parked_ids().len(), 9);
    assert_eq!(f.stored().iter().filter(|known| **known == LedgerState::Unread).count(), 9);
    assert!(f.store.stream_status(&f.stream).unwrap().detail_trouble.is_some());
    // All of them were really gone.
    f.start(Mode::Incremental).await;
    f.page(&[("0", 2, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    f.settle(lease, detail("0", None)).await;
    assert_eq!(f.not_found().await, 9);
    assert_eq!(f.parked_ids(), [""; 0]);
    assert_eq!(f.stored().iter().filter(|known| **known == LedgerState::Gone).count(), 9);
    assert!(f.store.stream_status(&f.stream).unwrap().detail_trouble.is_none());
}

#[tokio::test]
async fn the_documents_of_an_earlier_version_prove_its_calls() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 10).await;
    let (second, first) = (leases.pop().unwrap(), leases.pop().unwrap());
    let id = document_id(&first);
    f.settle(first, detail(&id, None)).await;
    let key = keyspace::texts(b'G', &[&f.stream.shop, &f.stream.resource]);
    let forget = f.store.transact(move |tx| {
        tx.delete(key);
        Ok(())
    });
    forget.await.unwrap();
    f.settle(second, Gone).await;
    assert_eq!(f.parked_ids(), [""; 0]);
}

#[tokio::test]
async fn what_one_shop_may_read_proves_nothing_of_another() {
    let f = fixture().await;
    let other = f.store.create_shop(new_shop("client-2")).await.unwrap().id;
    let stream = StreamId { shop: other, ..f.stream.clone() };
    let other = Fixture { store: f.store.clone(), clock: f.clock.clone(), kv: Arc::clone(&f.kv), stream };
    for one in [&f, &other] {
        one.start(Mode::Full).await;
        one.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    }
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    let id = document_id(&lease);
    f.settle(lease, detail(&id, None)).await;
    assert_eq!((f.not_found().await, f.parked_ids().len()), (1, 0));
    assert_eq!((other.not_found().await, other.parked_ids().len()), (2, 2));
}
