//! Every transition of health, by value.

use std::time::Duration;

use proptest::prelude::*;

use super::ticks::MILLISECOND;
use super::{
    Code, Facts, Fault, HealthChange, Known, Level, Means, OpenRun, Reason, ResourceFacts, ResourceHealth, ShopFacts,
    ShopFound, ShopHealth, State, StreamFacts, Ticks, assess_shop, whole,
};
use crate::domain::cause::{Cause, ErrorClass};
use crate::domain::job::CallKind;
use crate::domain::run::{Mode, Run, RunState};
use crate::domain::shop::{Shop, ShopState};
use crate::domain::stream_status::{StreamStatus, Trouble, Unproved};
use crate::domain::timestamp::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);
/// Ticks at each quarter of an hour; it is 1000 minutes past 1970, ten minutes after a tick.
const NOW: Timestamp = at(1000);

/// Minutes past 1970.
const fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(minutes * 60_000)
}

fn quarter_hours(after: Timestamp) -> Option<Timestamp> {
    Some(after.round_down(15 * MINUTE) + 15 * MINUTE)
}

fn shop(state: ShopState) -> Shop {
    let reason = (state == ShopState::Refused).then(|| "the credentials are refused: off".to_owned());
    Shop {
        id: "s1".into(),
        name: "Shop".into(),
        client_id: "c".into(),
        account: "c".into(),
        resources: Vec::new(),
        state,
        reason,
        created_at: NOW - 5000 * MINUTE,
        updated_at: NOW - 3 * MINUTE,
    }
}

fn run(state: RunState, mode: Mode) -> Run {
    let class = match state {
        RunState::Failed => Some(ErrorClass::Unavailable),
        _ => None,
    };
    serde_json::from_value(serde_json::json!({
        "id": 1, "stream": {"shop": "s1", "resource": "orders", "combination": []}, "mode": mode,
        "trigger": "schedule", "state": state, "started_at": 0, "error": "the API is not available (500)",
        "error_class": class,
    }))
    .unwrap()
}

fn succeeded(ago: Duration) -> StreamStatus {
    succeeded_at(NOW - ago)
}

fn succeeded_at(at: Timestamp) -> StreamStatus {
    StreamStatus { last_success_at: Some(at), ..StreamStatus::default() }
}

#[derive(Debug)]
struct World {
    shop: ShopState,
    status: StreamStatus,
    unproved: Option<Unproved>,
    open: Vec<OpenRun>,
    every: Option<Duration>,
    stale_after: Option<Duration>,
    faults: Vec<Fault>,
    parked: u64,
    means: Means,
}

fn world(status: StreamStatus) -> World {
    let (unproved, open, faults) = (None, Vec::new(), Vec::new());
    World {
        shop: ShopState::Active,
        status,
        unproved,
        open,
        every: None,
        stale_after: None,
        faults,
        parked: 0,
        means: Means::Api,
    }
}

impl World {
    fn health(&self) -> super::Health {
        whole(self.means, &self.faults, [self.found(NOW)].iter())
    }

    fn found(&self, now: Timestamp) -> ShopFound {
        let ticks = Ticks::at(now, quarter_hours);
        let (status, unproved, open) = (self.status.clone(), self.unproved.clone(), self.open.clone());
        let stream = StreamFacts { status, unproved, open };
        // The second stream of the resource is well.
        let well = StreamFacts { status: succeeded(MINUTE), ..StreamFacts::default() };
        let resource = ResourceFacts {
            name: "orders".into(),
            every: self.every,
            streams: vec![stream, well],
            parked: self.parked,
            loss: None,
        };
        let shop = ShopFacts { shop: shop(self.shop.clone()), resources: vec![resource] };
        assess_shop(
            &Facts { now, means: self.means, stale_after: self.stale_after, ticks: &ticks, faults: &self.faults },
            &shop,
        )
    }

    #[track_caller]
    fn is(&self, state: State, code: Option<Code>, level: Level) -> super::ResourceHealth {
        let health = self.health();
        let resource = health.shops[0].resources[0].clone();
        assert_eq!((resource.state, health.shops[0].state), (state, state), "{health:?}");
        assert_eq!(resource.reason.as_ref().map(|reason| reason.code), code);
        assert_eq!(health.level, level);
        for reason in &health.reasons {
            assert!(!reason.text.is_empty() && !reason.remedy.is_empty());
        }
        resource
    }
}

#[test]
fn a_stream_is_fresh_until_three_schedules_are_missed() {
    // Ticks were at 960, 975 and 990 minutes.
    let fresh = world(succeeded(40 * MINUTE)).is(State::Fresh, None, Level::Ok);
    assert_eq!((fresh.age_seconds, fresh.next_due_at), (Some(2400), Some(at(1005))));
    assert_eq!((fresh.last_success_at, fresh.last_error), (Some(at(960)), None));
    let behind = world(succeeded(41 * MINUTE)).is(State::Behind, Some(Code::Behind), Level::Attention);
    assert_eq!((behind.since, behind.age_seconds), (Some(at(959)), Some(2460)));
}

#[test]
fn stale_after_applies_before_three_schedules_are_missed() {
    let status = succeeded(20 * MINUTE);
    World { stale_after: Some(20 * MINUTE), ..world(status.clone()) }.is(State::Fresh, None, Level::Ok);
    World { stale_after: Some(20 * MINUTE - MILLISECOND), ..world(status) }.is(
        State::Behind,
        Some(Code::Stale),
        Level::Attention,
    );
}

#[test]
fn a_resource_that_is_walked_less_often_is_behind_later() {
    let hourly = |ago| World { every: Some(60 * MINUTE), ..world(succeeded(ago)) };
    let fresh = hourly(180 * MINUTE).is(State::Fresh, None, Level::Ok);
    assert_eq!(fresh.next_due_at, Some(at(1005)));
    hourly(181 * MINUTE).is(State::Behind, Some(Code::Behind), Level::Attention);
    assert_eq!(hourly(10 * MINUTE).health().shops[0].resources[0].next_due_at, Some(at(1050)));
}

#[test]
fn a_first_walk_is_not_fresh_before_its_end() {
    let open = vec![OpenRun { started_at: NOW - MINUTE, pending: 7 }];
    let first =
        World { open, ..world(StreamStatus::default()) }.is(State::Behind, Some(Code::FirstWalk), Level::Attention);
    assert_eq!((first.age_seconds, first.last_success_at), (None, None));
    assert!(first.reason.unwrap().text.contains("7 documents"));
}

#[test]
fn documents_that_wait_for_three_schedules_are_a_backlog() {
    let late = |started_at| World { open: vec![OpenRun { started_at, pending: 9 }], ..world(succeeded(MINUTE)) };
    late(NOW - 39 * MINUTE).is(State::Fresh, None, Level::Ok);
    late(NOW - 41 * MINUTE).is(State::Behind, Some(Code::Backlog), Level::Attention);
}

#[test]
fn failed_runs_are_failing_until_one_ends_well() {
    let mut status = succeeded(20 * MINUTE);
    status.run_ended(&run(RunState::Failed, Mode::Incremental), NOW - 9 * MINUTE);
    status.run_ended(&run(RunState::Failed, Mode::Incremental), NOW - 2 * MINUTE);
    let failing = world(status.clone()).is(State::Failing, Some(Code::RunFailed), Level::Failing);
    assert_eq!(failing.since, Some(NOW - 9 * MINUTE));
    let error = failing.last_error.unwrap();
    assert_eq!((error.class, error.at), (ErrorClass::Unavailable, NOW - 2 * MINUTE));
    assert_eq!(failing.reason.unwrap().text, "its last 2 runs failed: the API is not available (500)");
    status.run_ended(&run(RunState::Done, Mode::Incremental), NOW);
    let well = world(status).is(State::Fresh, None, Level::Ok);
    assert_eq!((well.last_success_at, well.last_attempt_at), (Some(NOW - MINUTE), Some(NOW)));
    assert!(well.last_error.is_some(), "what it was stays known");
}

#[test]
fn calls_that_fail_are_failing_after_a_minute_and_one_answer_ends_it() {
    for kind in [CallKind::List, CallKind::Detail] {
        let mut status = succeeded(MINUTE);
        let cause = |text: &str| Cause::new(ErrorClass::Throttled, text);
        assert!(status.call_failed(kind, &cause("429"), NOW - MINUTE + MILLISECOND));
        assert!(!status.call_failed(kind, &cause("429 again"), NOW), "nothing new to write");
        world(status.clone()).is(State::Fresh, None, Level::Ok);
        status
            .list_trouble
            .iter_mut()
            .chain(&mut status.detail_trouble)
            .for_each(|trouble| trouble.since = trouble.since - MILLISECOND);
        world(status.clone()).is(State::Failing, Some(Code::CallsFail), Level::Failing);
        assert!(status.call_failed(kind, &Cause::new(ErrorClass::Unreachable, "no DNS"), NOW));
        let other = world(status.clone()).is(State::Failing, Some(Code::CallsFail), Level::Failing);
        assert_eq!(other.since, Some(NOW - MINUTE), "the same outage");
        assert!(status.call_answered(kind) && !status.call_answered(kind));
        world(status).is(State::Fresh, None, Level::Ok);
    }
}

#[test]
fn one_unreadable_document_is_no_outage() {
    let mut status = succeeded(MINUTE);
    assert!(!status.call_failed(CallKind::Detail, &Cause::new(ErrorClass::Shape, "no id"), NOW - 5 * MINUTE));
    assert!(!status.call_failed(CallKind::List, &Cause::new(ErrorClass::Stopping, "stops"), NOW - 5 * MINUTE));
    world(status.clone()).is(State::Fresh, None, Level::Ok);
    assert!(status.call_failed(CallKind::List, &Cause::new(ErrorClass::Shape, "no items"), NOW - 5 * MINUTE));
    world(status).is(State::Failing, Some(Code::CallsFail), Level::Failing);
}

#[test]
fn a_stream_in_doubt_is_unproved_whatever_its_runs_did_since_unless_they_fail() {
    let unproved =
        Some(Unproved { reason: "page 2: no total".into(), class: None, since: NOW - MINUTE, vanished_at: None });
    let mut status = succeeded(MINUTE);
    let doubted = |status: &StreamStatus| World { unproved: unproved.clone(), ..world(status.clone()) };
    doubted(&status).is(State::Unproved, Some(Code::Unproved), Level::Attention);
    let reason = doubted(&status).health().reasons.remove(0);
    assert_eq!((reason.text.as_str(), reason.since), ("page 2: no total", Some(NOW - MINUTE)));
    status.run_ended(&run(RunState::Failed, Mode::Full), NOW);
    doubted(&status).is(State::Failing, Some(Code::RunFailed), Level::Failing);
    status.run_ended(&run(RunState::Unproved, Mode::Full), NOW);
    doubted(&status).is(State::Unproved, Some(Code::Unproved), Level::Attention);
    world(status).is(State::Fresh, None, Level::Ok);
}

#[test]
fn the_remedy_of_a_stream_in_doubt_is_for_what_kept_it_from_being_read() {
    let remedy = |class| {
        let unproved = Unproved { reason: "page 2: why".into(), class, since: NOW, vanished_at: None };
        let doubted = World { unproved: Some(unproved), ..world(succeeded(MINUTE)) };
        doubted.health().reasons.remove(0).remedy
    };
    let parts = [
        (None, "how the end of the list is known"),
        (Some(ErrorClass::Shape), "compare what the API sends with the definition"),
        (Some(ErrorClass::Unavailable), "it is tried again by itself"),
    ];
    for (class, part) in parts {
        assert!(remedy(class).contains(part), "{class:?}: {}", remedy(class));
    }
}

#[test]
fn a_shop_that_is_not_active_says_so_before_all_else() {
    let mut status = succeeded(MINUTE);
    status.run_ended(&run(RunState::Failed, Mode::Full), NOW);
    let refused = World { shop: ShopState::Refused, ..world(status.clone()) }.is(
        State::Refused,
        Some(Code::Refused),
        Level::Failing,
    );
    let reason = refused.reason.unwrap();
    assert_eq!((reason.shop_id.as_deref(), reason.resource.as_deref()), (Some("s1"), Some("orders")));
    assert_eq!((reason.text.as_str(), reason.since), ("the credentials are refused: off", Some(NOW - 3 * MINUTE)));
    assert!(reason.remedy.contains("waybill shops rotate s1"));
    assert_eq!(refused.next_due_at, None, "nothing is scheduled for it");
    World { shop: ShopState::Paused, ..world(status) }.is(State::Paused, Some(Code::Paused), Level::Attention);
}

#[test]
fn a_run_that_ends_well_while_the_sink_takes_nothing_makes_no_stream_younger() {
    let fault = Fault { code: Code::SinkUnavailable, since: Some(NOW - 10 * MINUTE), text: "refused".into() };
    let health = World { faults: vec![fault], ..world(succeeded(MINUTE)) }.health();
    let resources = health.shops.iter().flat_map(|shop| &shop.resources);
    assert_eq!(resources.map(|resource| resource.age_seconds).collect::<Vec<_>>(), [Some(600)]);
}

#[test]
fn while_no_document_reaches_the_sink_nothing_is_fresh_and_one_reason_says_it() {
    let fault = Fault { code: Code::SinkUnavailable, since: Some(NOW), text: "refused".into() };
    let away = World { faults: vec![fault], ..world(succeeded(MINUTE)) };
    away.is(State::Failing, Some(Code::SinkUnavailable), Level::Failing);
    assert_eq!(away.health().reasons.len(), 1);
    let fault = Fault { code: Code::LoginsPaused, since: Some(NOW), text: "until".into() };
    World { faults: vec![fault], ..world(succeeded(MINUTE)) }.is(State::Fresh, None, Level::Failing);
}

#[test]
fn documents_that_fail_in_a_row_are_failing_and_no_run_makes_the_stream_younger() {
    let cause = |class| Cause::new(class, "not JSON");
    type Fails = fn(&mut StreamStatus, &Cause, Timestamp) -> bool;
    let unreadable: Fails = StreamStatus::document_unreadable;
    for (fails, class, code) in [
        (unreadable, ErrorClass::Malformed, Code::CallsFail),
        (unreadable, ErrorClass::Rejected, Code::CallsFail),
        (StreamStatus::document_refused, ErrorClass::Other, Code::WritesFail),
    ] {
        let mut status = succeeded(20 * MINUTE);
        for _ in 1..5 {
            assert!(fails(&mut status, &cause(class), NOW - 9 * MINUTE));
            world(status.clone()).is(State::Fresh, None, Level::Ok);
        }
        assert!(fails(&mut status, &cause(class), NOW - 9 * MINUTE));
        status.run_ended(&run(RunState::Done, Mode::Incremental), NOW);
        assert!(!fails(&mut status, &cause(class), NOW), "nothing new to write");
        let failing = world(status.clone()).is(State::Failing, Some(code), Level::Failing);
        assert_eq!((failing.since, failing.age_seconds), (Some(NOW - 9 * MINUTE), Some(9 * 60)));
        assert!(failing.reason.unwrap().text.contains("not JSON"));
        assert!(status.call_answered(CallKind::Detail) == (code == Code::CallsFail));
        assert!(status.document_written() == (code == Code::WritesFail));
        world(status).is(State::Fresh, None, Level::Ok);
    }
}

#[test]
fn a_run_that_ends_while_its_detail_calls_fail_is_no_success() {
    for class in [ErrorClass::AllNotFound, ErrorClass::Forbidden, ErrorClass::Unavailable] {
        let mut status = succeeded(20 * MINUTE);
        assert!(status.call_failed(CallKind::Detail, &Cause::new(class, "no"), NOW - 9 * MINUTE));
        status.run_ended(&run(RunState::Done, Mode::Incremental), NOW);
        let failing = world(status.clone()).is(State::Failing, Some(Code::CallsFail), Level::Failing);
        assert_eq!((failing.age_seconds, failing.last_success_at), (Some(9 * 60), Some(NOW - 9 * MINUTE)));
        assert!(status.call_answered(CallKind::Detail));
        assert_eq!(world(status).is(State::Fresh, None, Level::Ok).last_success_at, Some(NOW - MINUTE));
    }
}

#[test]
fn parked_work_degrades_the_level_but_no_stream() {
    let parked = World { parked: 3, ..world(succeeded(MINUTE)) };
    parked.is(State::Fresh, None, Level::Attention);
    let health = parked.health();
    let why = &health.reasons[0];
    assert_eq!(why.code, Code::Parked);
    assert_eq!((why.shop_id.as_deref(), why.resource.as_deref()), (Some("s1"), Some("orders")));
}

#[test]
fn a_pass_answers_for_what_it_was_asked_for_and_is_not_late_with_what_it_read() {
    let of = |world: &World, began| {
        world.health().problems(began, |shop, resource| (shop.as_str(), resource) == ("s1", "orders"))
    };
    let codes = |problems: Vec<super::Problem>| problems.iter().map(|one| one.code).collect::<Vec<_>>();
    let parked = World { parked: 3, ..world(succeeded(41 * MINUTE)) };
    assert_eq!(codes(of(&parked, NOW)), [Code::Behind, Code::Parked]);
    assert_eq!(codes(of(&parked, NOW - 41 * MINUTE)), [Code::Parked], "it was read since the pass began");
    assert!(parked.health().problems(NOW, |shop, _| shop.as_str() == "s2").is_empty());
    // One line, though it is the state of each stream.
    let fault = Fault { code: Code::SinkUnavailable, since: Some(NOW), text: "refused".into() };
    let away = World { faults: vec![fault], ..world(succeeded(MINUTE)) };
    assert_eq!(codes(of(&away, NOW)), [Code::SinkUnavailable]);
    assert_eq!(codes(away.health().problems(NOW, |_, _| false)), [Code::SinkUnavailable]);
    let refused = World { shop: ShopState::Refused, ..world(succeeded(MINUTE)) };
    assert_eq!(codes(of(&refused, NOW)), [Code::Refused]);
}

#[test]
fn a_remedy_names_only_means_that_are_available() {
    let refused = || World { shop: ShopState::Refused, ..world(succeeded(MINUTE)) };
    let paused = || World { shop: ShopState::Paused, ..world(succeeded(MINUTE)) };
    let unproved = Some(Unproved { reason: "no total".into(), class: None, since: NOW, vanished_at: None });
    let mut failing = succeeded(MINUTE);
    failing.run_ended(&run(RunState::Failed, Mode::Full), NOW);
    let open = |started_at| vec![OpenRun { started_at, pending: 9 }];
    let fault = |code| Fault { code, since: Some(NOW), text: "t".into() };
    let faults = [Code::LoginsPaused, Code::RestorePending, Code::SinkUnavailable, Code::OutboxFull, Code::NoRoom];
    let worlds = || {
        [
            refused(),
            paused(),
            world(StreamStatus::default()),
            World { unproved: unproved.clone(), ..world(succeeded(MINUTE)) },
            world(failing.clone()),
            world(succeeded(90 * MINUTE)),
            World { open: open(NOW - 50 * MINUTE), ..world(succeeded(MINUTE)) },
            World { faults: faults.map(fault).to_vec(), ..world(succeeded(MINUTE)) },
        ]
    };
    for world in worlds() {
        let health = World { means: Means::Commands, ..world }.health();
        assert!(!health.reasons.is_empty());
        for Reason { remedy, .. } in health.reasons {
            let names_the_api = ["GET /", "PATCH /", "POST /"].iter().any(|word| remedy.contains(word));
            assert!(!names_the_api && !remedy.contains("by itself"), "no server runs: {remedy}");
        }
    }
    for world in worlds() {
        for Reason { remedy, .. } in world.health().reasons {
            assert!(!remedy.contains("start `waybill"), "it runs: {remedy}");
            let rests = remedy.contains("stopped") || remedy.contains("MySQL");
            assert!(!remedy.contains("`waybill") || rests, "the server has the data directory: {remedy}");
        }
    }
    let parked = World { parked: 2, means: Means::Commands, ..world(succeeded(MINUTE)) }.health();
    assert!(parked.reasons[0].remedy.starts_with("start `waybill serve`, see why in GET /api/v1/parked"));
}

#[test]
fn a_success_in_the_future_does_not_count() {
    let ahead = world(succeeded_at(NOW + 2 * MINUTE)).is(State::Behind, Some(Code::ClockAhead), Level::Attention);
    assert_eq!((ahead.last_success_at, ahead.age_seconds), (None, None));
    world(succeeded_at(NOW + MINUTE / 2)).is(State::Fresh, None, Level::Ok);
}

#[test]
fn without_ticks_only_stale_after_makes_a_stream_behind() {
    let ticks = Ticks::at(NOW, |_| None);
    assert_eq!(ticks.three_missed_at(Timestamp::EPOCH, None), None);
    assert_eq!((ticks.due_after(Some(Timestamp::EPOCH), None), ticks.gap()), (None, None));
}

#[test]
fn each_change_is_reported_once() {
    let mut known = Known::default();
    let well = world(succeeded(MINUTE));
    assert_eq!(known.changes(&well.health()), []);
    let refused = World { shop: ShopState::Refused, ..world(succeeded(MINUTE)) };
    let changes = known.changes(&refused.health());
    assert!(matches!(&changes[..], [HealthChange::Unwell { state: State::Refused, .. }]), "{changes:?}");
    assert_eq!(known.changes(&refused.health()), []);
    // While the sink is down the shop is reported neither as well nor as refused again.
    let fault = Fault { code: Code::SinkUnavailable, since: None, text: "refused".into() };
    let away = World { faults: vec![fault], ..world(succeeded(MINUTE)) };
    let changes = known.changes(&away.health());
    assert!(matches!(&changes[..], [HealthChange::Unwell { reason, .. }] if reason.code == Code::SinkUnavailable));
    let changes = known.changes(&refused.health());
    assert_eq!(changes, [HealthChange::Well { shop_id: None, resource: None, was: "sink_unavailable" }]);
    let changes = known.changes(&well.health());
    let (shop_id, resource) = (Some("s1".into()), Some("orders".to_owned()));
    assert_eq!(changes, [HealthChange::Well { shop_id, resource, was: "refused" }]);
    let first = world(StreamStatus::default());
    assert_eq!(known.changes(&first.health()), [], "a first walk under way is no news");
}

/// Instants around now, including the future.
fn around() -> impl Strategy<Value = Timestamp> {
    let any = (0..73 * 60_000u64).prop_map(|ms| NOW - 70 * MINUTE + Duration::from_millis(ms));
    prop_oneof![any, Just(NOW), Just(NOW - 40 * MINUTE), Just(at(960))]
}

fn recorded() -> impl Strategy<Value = World> {
    let maybe = || proptest::option::of(around());
    let open = proptest::collection::vec((around(), 0..2u64), 0..3);
    let every = proptest::option::of(Just(20 * MINUTE));
    let stale_after = proptest::option::of(Just(25 * MINUTE + MILLISECOND));
    ((maybe(), maybe(), maybe(), maybe()), open, every, stale_after).prop_map(|(times, open, every, stale_after)| {
        let (last_success_at, last_attempt_at, list, detail) = times;
        let trouble = |since: Option<Timestamp>| {
            since.map(|since| Trouble { since, cause: Cause::new(ErrorClass::Throttled, "429") })
        };
        let (list_trouble, detail_trouble) = (trouble(list), trouble(detail));
        let status =
            StreamStatus { last_success_at, last_attempt_at, list_trouble, detail_trouble, ..StreamStatus::default() };
        let open = open.into_iter().map(|(started_at, pending)| OpenRun { started_at, pending }).collect();
        World { open, every, stale_after, ..world(status) }
    })
}

proptest! {
    /// Health is recomputed only at `changes_at`, so it must not change before.
    #[test]
    fn nothing_changes_by_time_before_changes_at(of in recorded(), later in 0..80 * 60_000u64) {
        let said = |health: &ShopHealth| {
            let said = |one: &ResourceHealth| (one.state, one.since, one.reason.clone(), one.last_success_at);
            health.resources.iter().map(said).collect::<Vec<_>>()
        };
        let first = of.found(NOW);
        let until = first.changes_at.unwrap_or(Timestamp::MAX);
        prop_assert!(until > NOW);
        let now = (NOW + Duration::from_millis(later)).min(until - MILLISECOND);
        prop_assert_eq!(said(&first.health), said(&of.found(now).health), "until {:?}, at {:?}", until, now);
    }
}

#[test]
fn changes_at_is_the_instant_at_which_a_stream_becomes_late() {
    let of = world(succeeded(35 * MINUTE));
    let late = of.found(NOW).changes_at.unwrap();
    assert_eq!(late, at(1005), "the third tick since");
    assert_eq!(of.found(late - MILLISECOND).health.state, State::Fresh);
    assert_eq!(of.found(late).health.state, State::Behind);
    assert_eq!(of.found(late).changes_at, Some(at(1035)), "the other stream");
}
