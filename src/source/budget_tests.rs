//! The budget against a brute-force model, and its rules one by one.

use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use tokio::time::Instant;

use super::budget::{Budget, LOST_GRACE, RESET_MARGIN};
use super::headers::Quota;
use crate::catalog::Limit;
use crate::domain::with_clock_margin;

const NONE: Quota = Quota { limit: None, remaining: None, reset: None, clock_ahead: None };

fn limit(calls: u32, seconds: u64) -> Option<Limit> {
    Some(Limit { calls, window: Duration::from_secs(seconds) })
}

fn quota(limit: u32, remaining: u32, reset: u64) -> Quota {
    Quota { limit: Some(limit), remaining: Some(remaining), reset: Some(Duration::from_secs(reset)), clock_ahead: None }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long a slot of such a window rests.
fn rest(window: u64) -> Duration {
    with_clock_margin(seconds(window))
}

#[derive(Clone, Debug)]
enum Step {
    /// Time passes.
    Wait { ms: u64 },
    /// Takes this part of what is free.
    Take { part: f64 },
    /// Takes what is free at an instant this far back, after a later view: the process was suspended in between.
    TakeLate { ms: u64 },
    /// The oldest call in flight arrived at this part of its life and ends.
    End { arrived: f64 },
    /// The oldest call in flight is given up; it arrives in its life or in the grace after it.
    Lose { arrived: f64 },
    /// One call whose slot was taken does not leave.
    GiveBack,
    /// kill -9 and start: only the number in use is known; calls in flight arrive up to the grace later.
    Restart { arrived: f64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..4_000).prop_map(|ms| Step::Wait { ms }),
        3 => (0.0..=1.0).prop_map(|part| Step::Take { part }),
        2 => Just(Step::Take { part: 1.0 }),
        1 => (0u64..4_000).prop_map(|ms| Step::TakeLate { ms }),
        6 => (0.0..=1.0).prop_map(|arrived| Step::End { arrived }),
        1 => (0.0..=1.0).prop_map(|arrived| Step::Lose { arrived }),
        1 => Just(Step::GiveBack),
        1 => (0.0..=1.0).prop_map(|arrived| Step::Restart { arrived }),
    ]
}

/// What the API sees: instants of arrival.
struct World {
    now: Instant,
    in_flight: Vec<Instant>,
    arrivals: Vec<Instant>,
}

impl World {
    fn arrive(&mut self, taken: Instant, latest: Instant, part: f64) {
        self.arrivals.push(taken + (latest - taken).mul_f64(part));
    }

    fn apply(&mut self, budget: &mut Budget, rule: Option<Limit>, step: &Step) {
        match *step {
            Step::Wait { ms } => self.now += Duration::from_millis(ms),
            Step::Take { part } => {
                let count = (f64::from(budget.free(self.now)) * part).ceil() as u32;
                budget.take(count, self.now).unwrap();
                self.in_flight.extend((0..count).map(|_| self.now));
            }
            Step::TakeLate { ms } => {
                budget.view(self.now);
                let stale = self.now.checked_sub(Duration::from_millis(ms)).unwrap();
                let count = budget.free(stale);
                budget.take(count, stale).unwrap();
                self.in_flight.extend((0..count).map(|_| self.now));
            }
            Step::GiveBack => {
                if self.in_flight.pop().is_some() {
                    budget.give_back(1);
                }
            }
            Step::End { arrived } if !self.in_flight.is_empty() => {
                let taken = self.in_flight.remove(0);
                self.arrive(taken, self.now, arrived);
                budget.ended(self.now, &NONE);
            }
            Step::Lose { arrived } if !self.in_flight.is_empty() => {
                let taken = self.in_flight.remove(0);
                self.arrive(taken, self.now + LOST_GRACE, arrived);
                budget.lost(self.now);
            }
            Step::Restart { arrived } => {
                for taken in std::mem::take(&mut self.in_flight) {
                    self.arrive(taken, self.now + LOST_GRACE, arrived);
                }
                *budget = Budget::new(rule, budget.occupied(self.now), self.now);
            }
            Step::End { .. } | Step::Lose { .. } => {}
        }
    }

    /// The most arrivals in any half-open stretch of `window`.
    fn most(&mut self, window: Duration) -> usize {
        self.arrivals.sort();
        let count = |from: Instant| self.arrivals.iter().filter(|at| **at >= from && **at < from + window).count();
        self.arrivals.iter().map(|from| count(*from)).max().unwrap_or(0)
    }
}

proptest! {
    #[test]
    fn no_sliding_window_holds_more_than_the_rule(
        calls in 1u32..8, window in 1u64..6, steps in proptest::collection::vec(step(), 1..120),
    ) {
        let rule = limit(calls, window);
        let start = Instant::now();
        let mut budget = Budget::new(rule, 0, start);
        let mut world = World { now: start, in_flight: Vec::new(), arrivals: Vec::new() };
        for step in &steps {
            world.apply(&mut budget, rule, step);
            prop_assert!(budget.occupied(world.now) >= u32::try_from(world.in_flight.len()).unwrap());
            // next_free is exact: no slot a moment before it, a slot at it.
            match budget.next_free(world.now) {
                Some(at) if at > world.now => {
                    prop_assert_eq!(budget.free(world.now), 0);
                    // On a clone, because instants only move forward.
                    let before = at - Duration::from_nanos(1);
                    prop_assert_eq!(budget.clone().next_free(before), Some(at));
                    prop_assert!(at <= world.now + rest(window) + LOST_GRACE);
                }
                Some(_) => prop_assert!(budget.free(world.now) > 0),
                None => prop_assert!(u32::try_from(world.in_flight.len()).unwrap() == calls),
            }
        }
        while !world.in_flight.is_empty() {
            world.apply(&mut budget, rule, &Step::End { arrived: 1.0 });
        }
        // So long is the API's window on a clock that runs fast.
        prop_assert!(world.most(rest(window)) <= calls as usize);
        // Liveness: a window (and the grace) without calls frees everything.
        prop_assert_eq!(budget.free(world.now + rest(window) + LOST_GRACE), calls);
    }

    #[test]
    fn no_quota_header_allows_more_than_the_rule_or_blocks_for_ever(
        answers in proptest::collection::vec((any::<Option<u32>>(), any::<Option<u32>>(), proptest::option::of(0u64..4_000)), 1..30),
    ) {
        let mut now = Instant::now();
        let mut budget = Budget::new(limit(5, 60), 0, now);
        for (limit, remaining, reset) in answers {
            let quota = Quota { limit: limit.filter(|l| *l > 0), remaining, reset: reset.map(seconds), clock_ahead: None };
            let free = budget.free(now);
            prop_assert!(free <= 5);
            budget.take(free.min(1), now).unwrap();
            if free > 0 {
                budget.ended(now, &quota);
            }
            now += seconds(10);
        }
        prop_assert!(budget.free(now + seconds(4_000)) >= 1);
    }
}

#[test]
fn all_slots_may_be_used_at_once_and_return_one_window_after_the_responses() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(3, 60), 0, t);
    assert_eq!(budget.free(t), 3);
    budget.take(3, t).unwrap();
    assert_eq!((budget.free(t), budget.next_free(t)), (0, None), "only an end can free a slot");
    budget.ended(t + seconds(2), &NONE);
    budget.ended(t + seconds(5), &NONE);
    let first = t + seconds(2) + rest(60);
    assert_eq!(budget.next_free(t + seconds(5)), Some(first));
    assert_eq!(budget.free(first - Duration::from_nanos(1)), 0);
    assert_eq!(budget.free(first), 1);
    assert_eq!(budget.free(t + seconds(5) + rest(60)), 2);
    budget.give_back(1);
    assert_eq!(budget.free(t + seconds(5) + rest(60)), 3);
}

#[test]
fn slots_of_lost_calls_and_of_an_earlier_process_return_after_the_grace() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(1, 60), 0, t);
    budget.take(1, t).unwrap();
    budget.lost(t + seconds(30));
    assert_eq!(budget.next_free(t + seconds(30)), Some(t + seconds(30) + rest(60) + LOST_GRACE));
    let mut after = Budget::new(limit(3, 60), 2, t);
    assert_eq!((after.free(t), after.occupied(t)), (1, 2));
    assert_eq!(after.free(t + rest(60) + LOST_GRACE - Duration::from_nanos(1)), 1);
    assert_eq!(after.free(t + rest(60) + LOST_GRACE), 3);
    assert_eq!(Budget::new(limit(3, 60), 9, t).free(t), 0, "the rule may have been tightened in between");
}

#[test]
fn a_429_blocks_for_as_long_as_it_asks() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(5, 60), 0, t);
    budget.take(1, t).unwrap();
    budget.refused(t, seconds(90), &NONE);
    let over = t + rest(90);
    assert_eq!((budget.free(t + seconds(90)), budget.next_free(t)), (0, Some(over)), "our clock may run fast");
    assert_eq!(budget.view(t).refused_429, 1);
    assert_eq!(budget.view(t).blocked_for_ms, 90_100);
    budget.take(0, t + seconds(10)).unwrap();
    budget.paused(t + seconds(10), seconds(4), &NONE);
    assert_eq!(budget.next_free(t + seconds(20)), Some(over), "a shorter pause does not shorten a longer one");
    assert_eq!(budget.view(t + seconds(10)).refused_429, 1, "503 is not our doing");
    assert_eq!(budget.free(over), 5);
}

#[test]
fn a_stricter_header_tightens_and_a_later_one_raises_again_but_never_above_the_rule() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(10, 60), 0, t);
    let mut answered_with = |limit: u32| {
        budget.take(1, t).unwrap();
        budget.ended(t, &Quota { limit: Some(limit), ..NONE });
        (budget.free(t), budget.view(t).tightened)
    };
    assert_eq!(answered_with(4), (3, Some(4)));
    assert_eq!(answered_with(10).1, None, "as strict as the rule is no stricter");
    assert_eq!(answered_with(6), (3, Some(6)));
    assert_eq!(answered_with(100), (6, None));
}

#[test]
fn calls_by_other_clients_take_slots_until_the_reset() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(10, 60), 0, t);
    budget.take(2, t).unwrap();
    budget.ended(t, &quota(10, 5, 30));
    // 5 used, 2 of them ours (one still in flight).
    assert_eq!(budget.view(t).foreign, 3);
    assert_eq!(budget.free(t), 5);
    budget.ended(t, &quota(10, 6, 30));
    assert_eq!(budget.free(t), 5, "an older answer does not give slots back");
    assert_eq!(budget.free(t + rest(30) + RESET_MARGIN), 8);
    // Our rule is stricter than the server's limit: others may use the difference.
    let mut part = Budget::new(limit(2, 60), 0, t);
    part.take(1, t).unwrap();
    part.ended(t, &quota(10, 5, 30));
    assert_eq!(part.free(t), 1);
}

#[test]
fn no_remaining_calls_block_until_the_reset() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(10, 60), 0, t);
    budget.take(1, t).unwrap();
    budget.ended(t, &quota(10, 0, 600));
    assert_eq!(budget.next_free(t), Some(t + rest(600) + RESET_MARGIN), "a longer window than the rule's");
    let mut short = Budget::new(limit(10, 60), 0, t);
    short.take(10, t).unwrap();
    for _ in 0..10 {
        short.ended(t, &quota(10, 0, 20));
    }
    assert_eq!(short.view(t).foreign, 0, "all of it was ours");
    assert_eq!(short.free(t + rest(60)), 10);
}

#[test]
fn a_lifted_rule_counts_no_calls_but_obeys_a_429() {
    let t = Instant::now();
    let mut budget = Budget::new(None, 7, t);
    assert_eq!(budget.free(t), u32::MAX);
    budget.take(1000, t).unwrap();
    budget.ended(t, &quota(1, 0, 3000));
    assert_eq!((budget.free(t), budget.occupied(t)), (u32::MAX, 999));
    budget.refused(t, seconds(5), &NONE);
    assert_eq!((budget.free(t), budget.next_free(t)), (0, Some(t + rest(5))));
}

#[test]
fn taking_more_than_the_rule_allows_fails_and_takes_nothing() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(3, 10), 0, t);
    let refused = budget.take(4, t).unwrap_err();
    assert_eq!(refused.to_string(), "4 calls were about to leave with 3 slots free and 0 taken in the last window");
    assert_eq!(budget.free(t), 3);
    budget.take(3, t).unwrap();
    // The counters lose a call; the log still has it.
    budget.forget_in_flight();
    assert_eq!(budget.free(t + seconds(9)), 3);
    assert!(budget.take(1, t + seconds(9)).is_err());
    budget.take(1, t + rest(10)).unwrap();
    budget.give_back(1);
    budget.take(3, t + rest(10)).unwrap();
    assert!(budget.take(1, t + rest(10)).is_err());
    let mut lifted = Budget::new(None, 0, t);
    lifted.take(1_000_000, t).unwrap();
    lifted.take(1_000_000, t).unwrap();
    // A returned slot is free in the counters and in the log, and no other.
    let mut back = Budget::new(limit(3, 10), 0, t);
    back.take(1, t).unwrap();
    back.take(2, t).unwrap();
    back.give_back(1);
    back.forget_in_flight();
    assert!(back.take(2, t).is_err());
    back.take(1, t).unwrap();
}

/// A process may be suspended between reading its clock and taking slots, while another thread asks for the state.
#[test]
fn an_instant_before_the_latest_counts_as_the_latest() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(5, 10), 0, t);
    budget.take(3, t).unwrap();
    for _ in 0..3 {
        budget.ended(t + seconds(1), &NONE);
    }
    let free = t + seconds(1) + rest(10);
    assert_eq!(budget.view(free).cooling, 0);
    assert_eq!(budget.free(t + seconds(9)), 5);
    budget.take(5, t + seconds(9)).unwrap();
    // Their window begins at the latest instant, when they were really taken.
    assert_eq!(budget.free(t + seconds(9) + rest(10)), 0);
    assert!(budget.take(1, t + seconds(9) + rest(10)).is_err());
    assert_eq!(budget.occupied(free), 5);
}

#[test]
fn a_pause_asked_of_an_earlier_process_holds() {
    let t = Instant::now();
    let mut budget = Budget::new(limit(3, 10), 0, t);
    budget.block_for(Duration::ZERO, t);
    assert_eq!(budget.free(t), 3);
    budget.block_for(seconds(30), t);
    assert_eq!((budget.free(t), budget.next_free(t), budget.blocked_for(t)), (0, Some(t + seconds(30)), seconds(30)));
    assert_eq!(budget.free(t + seconds(30)), 3);
}

#[test]
fn only_an_exhausted_quota_of_a_longer_window_than_ours_blocks() {
    let t = Instant::now();
    for (remaining, reset, blocked) in [(0, 61, true), (0, 60, false), (1, 61, false), (1, 60, false)] {
        let mut budget = Budget::new(limit(10, 60), 0, t);
        budget.take(1, t).unwrap();
        budget.ended(t, &quota(10, remaining, reset));
        assert_eq!(!budget.blocked_for(t).is_zero(), blocked, "{remaining} left, reset in {reset} s");
    }
}

#[tokio::test(start_paused = true)]
async fn slots_of_a_merged_budget_count_until_their_window_is_over() {
    let now = Instant::now();
    let mut other = Budget::new(limit(10, 60), 0, now);
    other.take(6, now).unwrap();
    other.ended(now, &NONE);
    other.ended(now, &NONE);
    other.lost(now);
    other.block_for(seconds(5), now);
    let mut budget = Budget::new(limit(10, 60), 0, now);
    budget.take(2, now).unwrap();
    budget.merge_from(&other, now);
    assert_eq!(budget.occupied(now), 8);
    assert_eq!((budget.free(now), budget.free(now + seconds(5))), (0, 2), "the pause, and then what is left");
    let lost_is_over = now + rest(60) + LOST_GRACE;
    let others_may_end = seconds(120);
    assert_eq!(budget.free(now + rest(60)), 4, "two had ended");
    assert_eq!(budget.free(lost_is_over - Duration::from_nanos(1)), 4);
    assert_eq!(
        (budget.free(lost_is_over), budget.free(now + seconds(180))),
        (5, 5),
        "the lost one may have arrived late"
    );
    assert_eq!(budget.free(lost_is_over + others_may_end), 8, "and three were on their way");
}

#[test]
fn a_budget_that_is_handed_over_frees_each_slot_when_the_former_one_would_and_never_before() {
    let start = Instant::now();
    let mut former = Budget::new(limit(4, 10), 0, start);
    former.take(3, start).unwrap();
    former.ended(start + seconds(1), &NONE);
    former.ended(start + seconds(3), &NONE);
    former.block_for(seconds(2), start + seconds(3));
    // One call is still in flight. The other process has another clock, and gets it later.
    let left = former.left(start + seconds(4));
    let received = start + seconds(100);
    let mut next = Budget::handed(limit(4, 10), &left, received);
    assert_eq!((next.free(received), next.occupied(received)), (0, 3), "the pause goes on");
    assert_eq!(next.free(received + seconds(2)), 1, "one slot was never used");
    let free = |budget: &mut Budget, at: u64| budget.free(received + Duration::from_millis(at));
    assert_eq!([free(&mut next.clone(), 6_900), free(&mut next, 7_100)], [1, 2], "the call that ended first");
    assert_eq!([free(&mut next.clone(), 8_900), free(&mut next, 9_100)], [2, 3]);
    let grace = u64::try_from(LOST_GRACE.as_millis()).unwrap();
    assert_eq!([free(&mut next.clone(), 9_900 + grace), free(&mut next, 10_100 + grace)], [3, 4], "the one in flight");
}
