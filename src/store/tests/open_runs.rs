//! Open runs are found without a look at all.

use super::fixture;
use crate::domain::{ListParams, Mode, Next, RunId, StreamId, Trigger};

#[tokio::test]
async fn open_runs_are_those_of_the_books_however_they_come_and_go() {
    let f = fixture().await;
    let open = || {
        let counters = f.store.counters().unwrap();
        let open: Vec<RunId> = f.store.open_runs().unwrap().iter().map(|run| run.id).collect();
        assert_eq!(open.len() as u64, counters.open_runs);
        open
    };
    assert_eq!(open(), []);
    let first = f.start(Mode::Full).await;
    assert_eq!(open(), [first]);
    let other = StreamId { combination: ListParams(vec![("kind".into(), "b".into())]), ..f.stream.clone() };
    let second = f.store.start_runs([other], Mode::Full, Trigger::Schedule).await.unwrap()[0].run();
    assert_eq!(open(), [second, first]);
    f.page(&[("1", 1, 0)], Next::End).await;
    f.read_details().await;
    assert_eq!(open(), [second], "the first is done");
    assert_eq!(open(), [second]);
    // One that is opened again is not among those that are known.
    let now = f.clock.now();
    let reopen = move |tx: &mut crate::store::Tx<'_>| {
        crate::store::ops::run_progress::update(tx, Some(first), now, |run| {
            run.to_fetch += 1;
            run.state = crate::domain::RunState::Fetching;
        })
    };
    f.store.transact(reopen).await.unwrap();
    assert_eq!(open(), [second, first]);
}
