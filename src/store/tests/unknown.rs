//! Documents that the API does not know when it is asked for them, and lists all the same; and those that are no
//! longer asked for.

use super::{Answer, Gone, detail, document_id, fixture};
use crate::domain::{LeaseByKind, Mode, Next, RunState, StepOutput};
use crate::store::QueueKind;

#[tokio::test]
async fn a_document_that_the_api_once_did_not_know_is_asked_for_again_while_it_is_listed() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0), ("2", 1, 0)], Next::End).await;
    for lease in f.lease(QueueKind::Detail, 10).await {
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
    let lease = f.lease(QueueKind::Detail, 10).await.remove(0);
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
    for lease in f.lease(QueueKind::Detail, 10).await {
        let LeaseByKind::FetchDetail(lease) = lease.by_kind() else { panic!("not a detail") };
        f.store.settle(vec![StepOutput::Obsolete(lease)]).await.unwrap();
    }
    let run = f.store.run(run).unwrap().unwrap();
    assert_eq!((run.state, run.to_fetch, run.fetched, run.gone), (RunState::Done, 0, 0, 0));
}
