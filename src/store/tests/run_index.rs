//! The index of runs says of each run what its record says, and old runs go.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::faulty::Faulty;
use super::{NOW, fixture};
use crate::domain::{Clock, ListParams, Mode, Next, Run, RunId, RunState, ShopId, StreamId, Timestamp, Trigger};
use crate::store::codec::{decode, encode};
use crate::store::engine::kv::Kv;
use crate::store::engine::memory::MemoryKv;
use crate::store::keyspace;
use crate::store::records::runs;
use crate::store::texts::NoKeys;
use crate::store::tx::committer::run_once;
use crate::store::{Memory, RunFilter, SealKey, Store, StoreError, Tx};

const DAY: Duration = Duration::from_secs(86_400);

/// One of six streams of two shops.
fn stream(number: u8) -> StreamId {
    StreamId {
        shop: format!("shop{}", number % 2).into(),
        resource: if number.is_multiple_of(3) { "orders" } else { "returns" }.to_owned(),
        combination: ListParams(vec![("kind".into(), (number % 3).to_string())]),
    }
}

fn run(id: RunId, of: u8, state: RunState) -> Run {
    let record = serde_json::json!({
        "id": id, "stream": stream(of), "mode": "incremental", "trigger": "schedule", "state": state, "started_at": 0,
    });
    serde_json::from_value(record).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Start(u8),
    Change { run: u8, state: RunState },
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let state = || (0..RunState::ALL.len()).prop_map(|at| RunState::ALL[at]);
    let step = prop_oneof![
        3 => (0u8..6).prop_map(Step::Start),
        3 => (any::<u8>(), state()).prop_map(|(run, state)| Step::Change { run, state }),
        1 => any::<u8>().prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..40)
}

fn filters() -> impl Strategy<Value = (Option<BTreeSet<ShopId>>, Option<String>, Option<RunState>)> {
    let shops = prop_oneof![
        Just(None),
        Just(Some(BTreeSet::from([ShopId::from("shop0")]))),
        Just(Some(BTreeSet::from([ShopId::from("shop0"), ShopId::from("shop1")]))),
        // More than are merged.
        Just(Some((1..100).map(|shop| ShopId::from(format!("shop{shop}"))).collect())),
    ];
    let resource = prop_oneof![Just(None), Just(Some("orders".to_owned())), Just(Some("return".to_owned()))];
    let state = (0..=RunState::ALL.len()).prop_map(|at| RunState::ALL.get(at).copied());
    (shops, resource, state)
}

fn all(kv: &dyn Kv) -> Vec<Run> {
    kv.scan(b"u", b"u").map(|pair| decode("a run", &pair.unwrap().1).unwrap()).collect()
}

fn index(kv: &dyn Kv) -> Vec<(Vec<u8>, Vec<u8>)> {
    kv.scan(b"U", b"U").map(Result::unwrap).collect()
}

/// What a build from nothing makes of the runs.
fn built(kv: &dyn Kv) -> Vec<(Vec<u8>, Vec<u8>)> {
    let other = MemoryKv::default();
    let pairs = kv.scan(b"u", b"u").chain(kv.scan(b"mseq.run", b"mseq.run"));
    let changes: Vec<_> = pairs.map(|pair| pair.map(|(key, value)| (key, Some(value))).unwrap()).collect();
    other.apply(&changes).unwrap();
    runs::build(&other, &NoKeys).unwrap();
    index(&other)
}

fn apply(tx: &mut Tx<'_>, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::Start(of) => {
            let id = runs::next_id(tx)?;
            runs::put(tx, None, &run(id, *of, RunState::Walking))?;
            runs::note_started(tx, id);
        }
        Step::Change { run, state } => {
            if let Some(before) = runs::read(tx, RunId::from_number(u64::from(*run % 20)))? {
                runs::put(tx, Some(&before), &Run { state: *state, pages: before.pages + 1, ..before.clone() })?;
            }
        }
        Step::Delete(run) => drop(runs::delete_if_unneeded(tx, RunId::from_number(u64::from(*run % 20)), |_| false)?),
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_index_never_disagrees_with_the_runs(steps in steps(), filter in filters(), limit in 1usize..5) {
        let memory = Memory::default();
        let kv = &*memory.0;
        let store = Store::simulated(&memory, Clock::system()).unwrap();
        for step in &steps {
            run_once(kv, &NoKeys, |tx| apply(tx, step)).unwrap();
            assert_eq!(index(kv), built(kv), "after {step:?}");
        }
        let (shops, resource, state) = filter;
        let expected: Vec<Run> = all(kv)
            .into_iter()
            .rev()
            .filter(|run| shops.as_ref().is_none_or(|shops| shops.contains(&run.stream.shop)))
            .filter(|run| resource.as_ref().is_none_or(|resource| *resource == run.stream.resource))
            .filter(|run| state.is_none_or(|state| state == run.state))
            .collect();
        let filter = RunFilter { shops, resource, state };
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = store.find_runs(&filter, before, limit).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            found.extend(page);
        }
        assert_eq!(found, expected, "{filter:?}");
        let open: Vec<Run> = all(kv).into_iter().rev().filter(Run::is_open).collect();
        assert_eq!(store.open_runs().unwrap(), open);
    }
}

#[test]
fn a_build_that_was_cut_off_or_is_out_of_date_begins_again() {
    let memory = Memory::default();
    let kv = &*memory.0;
    run_once(kv, &NoKeys, |tx| (0..6).try_for_each(|of| apply(tx, &Step::Start(of)))).unwrap();
    let right = index(kv);
    // An older program started one and ended another; and some entries are left of a build that was cut off.
    run_once(kv, &NoKeys, |tx| {
        let id = runs::next_id(tx)?;
        let second = RunId::from_number(2);
        tx.put(keyspace::run(id), encode("a run", &run(id, 1, RunState::Walking))?);
        tx.put(keyspace::run(second), encode("a run", &run(second, 1, RunState::Done))?);
        tx.delete(right[0].0.clone());
        Ok(())
    })
    .unwrap();
    assert_ne!(index(kv), built(kv));
    runs::build(kv, &NoKeys).unwrap();
    assert_eq!(index(kv), built(kv));
    let commits = crate::store::tx::counters::commits(kv).unwrap();
    runs::build(kv, &NoKeys).unwrap();
    assert_eq!(crate::store::tx::counters::commits(kv).unwrap(), commits, "what is up to date is left alone");
}

/// Ends a stream's runs with a state, at a time; from the next number on.
fn plant(tx: &mut Tx<'_>, count: u64, of: u8, change: impl Fn(&mut Run)) -> Result<(), StoreError> {
    for _ in 0..count {
        let id = runs::next_id(tx)?;
        let mut planted = run(id, of, RunState::Done);
        change(&mut planted);
        runs::put(tx, None, &planted)?;
        runs::note_started(tx, id);
    }
    Ok(())
}

fn counts(store: &Store, of: u8) -> Vec<(RunState, usize)> {
    let of = stream(of);
    let runs = store.runs(None, usize::MAX, |run| run.stream == of).unwrap();
    let count = |state: RunState| runs.iter().filter(|run| run.state == state).count();
    RunState::ALL.iter().map(|state| (*state, count(*state))).filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn a_listing_reads_no_run_that_it_does_not_show() {
    let kv = Arc::new(Faulty::default());
    let engine: Arc<dyn Kv> = Arc::<Faulty>::clone(&kv);
    let store = Store::over(engine, SealKey::new(&[1; 32]), Clock::manual(NOW), Path::new("memory")).unwrap();
    let plant_all = |tx: &mut Tx<'_>| {
        plant(tx, 3, 0, |run| run.state = RunState::Failed)?;
        plant(tx, 2, 1, |run| run.state = RunState::Walking)?;
        (0..6).try_for_each(|of| plant(tx, 500, of, |_| {}))
    };
    store.transact(plant_all).await.unwrap();
    let reads_of = |filter: RunFilter, found: usize| {
        let before = kv.reads.load(Ordering::SeqCst);
        assert_eq!(store.find_runs(&filter, None, 50).unwrap().len(), found, "{filter:?}");
        kv.reads.load(Ordering::SeqCst) - before
    };
    let failed = reads_of(RunFilter { state: Some(RunState::Failed), ..RunFilter::default() }, 3);
    let walking = reads_of(RunFilter { state: Some(RunState::Walking), ..RunFilter::default() }, 2);
    let orders = reads_of(RunFilter { resource: Some("orders".into()), ..RunFilter::default() }, 50);
    let shop = reads_of(RunFilter { shops: Some([ShopId::from("shop1")].into()), ..RunFilter::default() }, 50);
    // A run and its index entry each, and the beginnings of lists.
    for reads in [failed, walking, orders, shop] {
        assert!(reads <= 2 * 50 + 20, "{reads} records read of 3,005");
    }
}

#[tokio::test]
async fn old_runs_go_in_the_background_and_those_that_are_needed_stay() {
    let f = fixture().await;
    let now = f.clock.now();
    f.store
        .transact(move |tx| {
            plant(tx, 1_200, 0, |run| run.ended_at = Some(Timestamp::EPOCH))?;
            // Of another stream: long ago, lately, with something parked, with details to come, and open.
            plant(tx, 10, 1, |run| (run.state, run.ended_at) = (RunState::Failed, Some(now - 31 * DAY)))?;
            plant(tx, 10, 1, |run| (run.state, run.ended_at) = (RunState::Unproved, Some(now - 29 * DAY)))?;
            plant(tx, 10, 1, |run| (run.to_fetch, run.parked, run.ended_at) = (1, 1, Some(now - 29 * DAY)))?;
            plant(tx, 10, 1, |run| (run.state, run.to_fetch) = (RunState::Failed, 1))?;
            plant(tx, 10, 1, |run| run.state = RunState::Walking)?;
            plant(tx, 10, 1, |run| run.ended_at = Some(now))?;
            plant(tx, 200, 1, |run| run.state = RunState::Canceled)
        })
        .await
        .unwrap();
    f.store.clone().trim_runs(tokio_util::sync::CancellationToken::new()).await;
    assert_eq!(counts(&f.store, 0), [(RunState::Done, 200)]);
    let newest = f.store.runs(None, usize::MAX, |run| run.stream == stream(0)).unwrap();
    assert!(newest.iter().all(|run| run.id > RunId::from_number(1_000)), "the last ones are kept");
    assert_eq!(
        counts(&f.store, 1),
        [
            (RunState::Walking, 10),
            (RunState::Done, 10),
            (RunState::Failed, 10),
            (RunState::Canceled, 200),
            (RunState::Unproved, 10)
        ]
    );
}

#[tokio::test]
async fn a_stream_that_is_walked_keeps_its_last_200_runs() {
    let f = fixture().await;
    for number in 0..205 {
        f.start(Mode::Incremental).await;
        f.page(&[("1", 1, 0)], Next::End).await;
        f.read_details().await;
        let kept = f.store.runs(None, usize::MAX, |run| run.stream == f.stream).unwrap();
        assert!(kept.iter().all(|run| run.state == RunState::Done), "{number}");
        assert_eq!(kept.len(), (number + 1).min(200));
    }
    let open = f.store.start_runs([f.stream.clone()], Mode::Full, Trigger::Request).await.unwrap()[0].run();
    assert_eq!(f.store.open_runs().unwrap().iter().map(|run| run.id).collect::<Vec<_>>(), [open]);
}
