//! Exact sliding-window limiter for one rate rule of one account. Pure: time is an argument.
//!
//! A lane holds one [`Budget`] per rule and account and asks it before each round of calls. What always
//! holds, if every call is recorded here: in no interval of one window does the API see more calls than
//! the rule allows, wherever the interval begins. A call arrives at some instant between
//! [`Budget::take`] and the end of its response, so its slot comes back one window after that end.
//! Intervals are half open: a call may arrive exactly one window after another.
//!
//! Only monotonic time is used, so that a jump of the wall clock changes nothing. It may still run faster than the
//! API's, so windows and pauses are longer by [`with_clock_margin`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::headers::Quota;
use crate::catalog::Limit;
use crate::domain::with_clock_margin;

/// How long the kernel resends a request that the host of the API does not acknowledge, counted from its first resend
/// (`TCP_USER_TIMEOUT`). It does so also after the process that sent the request was killed.
pub const RESENT_FOR: Duration = Duration::from_secs(3);

/// Added to the window of a call without an answer, or from before a restart: it may still arrive. Two seconds longer
/// than the kernel resends it: they cover the time to the first resend (200 ms to 1 s) and a queue in between.
pub const LOST_GRACE: Duration = Duration::from_secs(RESENT_FOR.as_secs() + 2);

/// Added to the reset that a header announces: it is in whole seconds, and the API's machines do not turn their
/// windows at one instant.
pub const RESET_MARGIN: Duration = Duration::from_secs(1);

/// One rate rule of one account.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Budget {
    /// None: the rule is lifted; no call is counted, but a 429 is still obeyed.
    rule: Option<Limit>,
    /// The limit in the latest header that had one; may be above the rule.
    server_limit: Option<u32>,
    in_flight: u32,
    /// Number of slots that come back at each instant.
    cooling: BTreeMap<Instant, u32>,
    /// Calls by other clients in the server's window, and when that window turns.
    foreign: Option<(u32, Instant)>,
    blocked_until: Option<Instant>,
    refused_429: u64,
    /// Independent log of the calls whose slots still rest, used to cross-check [`Budget::take`].
    taken: VecDeque<(Instant, u32)>,
    /// The latest instant passed in. An earlier one (its thread or the whole process was suspended since) counts as
    /// this one, so that counters and log expire alike.
    latest: Instant,
}

/// Slots of a budget that come back after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    ms: u64,
    count: u32,
}

impl Left {
    /// Rounded up: a slot never comes back early.
    fn new(time: Duration, count: u32) -> Left {
        let ms = if time.is_zero() { 0 } else { u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1) };
        Left { ms, count }
    }

    /// With a margin, since it was taken by another clock.
    fn time(self) -> Duration {
        Duration::from_millis(self.ms.saturating_add(self.ms / 1000))
    }
}

/// What is left of a budget's used slots and of its pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsLeft {
    slots: Vec<Left>,
    pause: Duration,
}

/// More calls were about to leave than the rule allows: a bug of ours, which must not reach the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} calls were about to leave with {free} slots free and {taken} taken in the last window")]
pub struct Overdrawn {
    asked: u32,
    free: u32,
    taken: u32,
}

/// State of a budget, for the API and the dashboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetView {
    /// Calls per window by the rule; none: lifted.
    pub limit: Option<u32>,
    pub window_s: u64,
    pub in_flight: u32,
    /// Calls whose window is not over.
    pub cooling: u32,
    /// Slots used by other clients.
    pub foreign: u32,
    /// How long the API still wants no call.
    pub blocked_for_ms: u64,
    /// Time until a slot is free, when all are in use; none: one is free, or only calls in flight hold them.
    pub next_free_ms: Option<u64>,
    pub refused_429: u64,
    /// A limit from response headers that is stricter than the rule.
    pub tightened: Option<u32>,
}

/// Upper bound from taking a slot to the end of its call: login, queueing and the call itself.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(120);

impl Budget {
    /// `occupied_at_start`: slots that were durably in use before a restart. Their calls may still arrive,
    /// so the slots come back one window and [`LOST_GRACE`] after `now`.
    pub fn new(limit: Option<Limit>, occupied_at_start: u32, now: Instant) -> Budget {
        let mut budget = Budget {
            rule: limit,
            server_limit: None,
            in_flight: 0,
            cooling: BTreeMap::new(),
            foreign: None,
            blocked_until: None,
            refused_429: 0,
            taken: VecDeque::new(),
            latest: now,
        };
        budget.cool(occupied_at_start, now + LOST_GRACE);
        budget
    }

    /// A budget as an earlier process left it: its used slots, and the rest of a pause that the API asked it for.
    pub fn restored(limit: Option<Limit>, occupied: u32, pause: Duration, now: Instant) -> Budget {
        let mut budget = Budget::new(limit, occupied, now);
        budget.block_for(pause, now);
        budget
    }

    /// The slots in use and the pause, as time left: for the process that goes on, whose clock is another one. A call
    /// still in flight counts as lost now.
    pub fn left(&mut self, now: Instant) -> SlotsLeft {
        let now = self.drop_expired(now);
        let mut slots: Vec<Left> = Vec::with_capacity(self.cooling.len() + 1);
        slots.extend(self.cooling.iter().map(|(at, count)| Left::new(*at - now, *count)));
        if self.in_flight > 0 {
            slots.push(Left::new(self.rest() + LOST_GRACE, self.in_flight));
        }
        SlotsLeft { slots, pause: Left::new(self.blocked_for(now), 0).time() }
    }

    /// A budget as another process handed it over, received at an instant.
    pub fn handed(limit: Option<Limit>, left: &SlotsLeft, received: Instant) -> Budget {
        let mut budget = Budget::restored(limit, 0, left.pause, received);
        if limit.is_some() {
            for slot in &left.slots {
                *budget.cooling.entry(received + slot.time()).or_default() += slot.count;
            }
        }
        budget
    }

    /// How many calls may leave now; `u32::MAX` when the rule is lifted.
    pub fn free(&mut self, now: Instant) -> u32 {
        let now = self.drop_expired(now);
        self.room(now, self.cooling.values().sum())
    }

    /// The earliest instant at which a slot may be free; `now` when one is. None: only after a call in flight has ended.
    pub fn next_free(&mut self, now: Instant) -> Option<Instant> {
        if self.free(now) > 0 {
            return Some(now);
        }
        let mut events: BTreeMap<Instant, u32> = self.cooling.clone();
        for instant in self.blocked_until.into_iter().chain(self.foreign.map(|(_, until)| until)) {
            events.entry(instant).or_default();
        }
        let mut cooling: u32 = self.cooling.values().sum();
        events.into_iter().find_map(|(at, back)| {
            cooling -= back;
            (self.room(at, cooling) > 0).then_some(at)
        })
    }

    /// Takes the slots of `count` calls. The use must be durable before they leave.
    ///
    /// # Errors
    /// `count` is more than [`Budget::free`], or more than the rule allows in a window that ends now; then
    /// no slot is taken and no call may leave.
    pub fn take(&mut self, count: u32, now: Instant) -> Result<(), Overdrawn> {
        let free = self.free(now);
        let (now, rest) = (self.latest, self.rest());
        while self.taken.front().is_some_and(|(at, _)| *at + rest <= now) {
            self.taken.pop_front();
        }
        let taken: u32 = self.taken.iter().map(|(_, calls)| calls).sum();
        let over = self.rule.is_some_and(|rule| taken.saturating_add(count) > rule.calls);
        if count > free || over {
            return Err(Overdrawn { asked: count, free, taken });
        }
        if self.rule.is_some() {
            self.taken.push_back((now, count));
        }
        self.in_flight = self.in_flight.saturating_add(count);
        Ok(())
    }

    /// Returns slots whose calls never left (no token, lease lost, no connection).
    pub fn give_back(&mut self, count: u32) {
        self.in_flight = self.in_flight.saturating_sub(count);
        let mut left = count;
        // Latest first, so that the log never counts more calls than left.
        while let Some((_, calls)) = self.taken.back_mut().filter(|_| left > 0) {
            let back = left.min(*calls);
            *calls -= back;
            left -= back;
            if *calls == 0 {
                self.taken.pop_back();
            }
        }
    }

    /// Records that the response to one call ended (or was given up after it had begun).
    pub fn ended(&mut self, now: Instant, quota: &Quota) {
        self.drop_expired(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.cool(1, now);
        self.apply(now, quota);
    }

    /// Records that one call got no response; it may still arrive.
    pub fn lost(&mut self, now: Instant) {
        self.drop_expired(now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.cool(1, now + LOST_GRACE);
    }

    /// Records a 429: no call leaves for `pause`. The call's own slot cools as usual.
    pub fn refused(&mut self, now: Instant, pause: Duration, quota: &Quota) {
        self.refused_429 += 1;
        self.paused(now, pause, quota);
    }

    /// Records another request to wait (any other status with `Retry-After`): as [`Budget::refused`], but not counted
    /// as a 429.
    pub fn paused(&mut self, now: Instant, pause: Duration, quota: &Quota) {
        self.ended(now, quota);
        if !pause.is_zero() {
            self.block(now + with_clock_margin(pause));
        }
    }

    /// Slots in flight and cooling: what must be durable before a call.
    pub fn occupied(&mut self, now: Instant) -> u32 {
        self.drop_expired(now);
        self.in_flight.saturating_add(self.cooling.values().sum())
    }

    /// How long the API still wants no call.
    pub fn blocked_for(&self, now: Instant) -> Duration {
        self.blocked_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Restores a pause that the API asked an earlier process for.
    pub fn block_for(&mut self, pause: Duration, now: Instant) {
        if !pause.is_zero() {
            self.block(now + pause);
        }
    }

    /// Adds another budget's used slots and its pause, because the API counts by caller. The other's calls in flight end
    /// there, maybe without an answer, so here each counts for `IN_FLIGHT_MAX` and [`LOST_GRACE`].
    pub fn merge_from(&mut self, other: &Budget, now: Instant) {
        for (free_at, count) in &other.cooling {
            // Later than now: a lost call that may still arrive.
            let ended = free_at.checked_sub(self.rest()).unwrap_or(now);
            self.cool(*count, ended.max(now));
        }
        self.cool(other.in_flight, now + IN_FLIGHT_MAX + LOST_GRACE);
        self.block_for(other.blocked_for(now), now);
    }

    /// The rule's window; zero when it is lifted.
    pub fn window(&self) -> Duration {
        self.rule.map_or(Duration::ZERO, |rule| rule.window)
    }

    /// How long a slot rests after its call has ended; zero when the rule is lifted.
    fn rest(&self) -> Duration {
        self.rule.map_or(Duration::ZERO, |rule| rule.rest())
    }

    /// A snapshot of the state.
    pub fn view(&mut self, now: Instant) -> BudgetView {
        self.drop_expired(now);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let next_free = if self.free(now) == 0 { self.next_free(now) } else { None };
        BudgetView {
            limit: self.rule.map(|rule| rule.calls),
            window_s: self.window().as_secs(),
            in_flight: self.in_flight,
            cooling: self.cooling.values().sum(),
            foreign: self.foreign.map_or(0, |(count, _)| count),
            blocked_for_ms: milliseconds(self.blocked_for(now)),
            next_free_ms: next_free.map(|at| milliseconds(at.saturating_duration_since(now))),
            refused_429: self.refused_429,
            tightened: self.server_limit.filter(|limit| self.rule.is_some_and(|rule| *limit < rule.calls)),
        }
    }

    /// Free slots at `at` if `cooling` slots are cooling then.
    fn room(&self, at: Instant, cooling: u32) -> u32 {
        if self.blocked_until.is_some_and(|until| at < until) {
            return 0;
        }
        let Some(rule) = self.rule else { return u32::MAX };
        let own = self.in_flight.saturating_add(cooling);
        let foreign = self.foreign.filter(|(_, until)| at < *until).map_or(0, |(count, _)| count);
        // Other clients use what the server allows, which may be more than our rule.
        let server = self.server_limit.unwrap_or(rule.calls).saturating_sub(own).saturating_sub(foreign);
        rule.calls.saturating_sub(own).min(server)
    }

    fn cool(&mut self, count: u32, ended: Instant) {
        if let (Some(rule), 1..) = (self.rule, count) {
            *self.cooling.entry(ended + rule.rest()).or_default() += count;
        }
    }

    fn block(&mut self, until: Instant) {
        self.blocked_until = self.blocked_until.max(Some(until));
    }

    fn apply(&mut self, now: Instant, quota: &Quota) {
        let Some(rule) = self.rule else { return };
        self.server_limit = quota.limit.or(self.server_limit);
        let (Some(remaining), Some(reset)) = (quota.remaining, quota.reset) else { return };
        let turns = now + with_clock_margin(reset) + RESET_MARGIN;
        if remaining == 0 && reset > rule.window {
            self.block(turns);
        }
        // Calls of ours in the server's window are never more than those in flight and cooling here,
        // so what is used beyond them is not ours. Each answer gives a lower bound: keep the greatest.
        let used = self.server_limit.unwrap_or(rule.calls).saturating_sub(remaining);
        let own = self.in_flight.saturating_add(self.cooling.values().sum());
        let foreign = used.saturating_sub(own);
        if foreign > self.foreign.map_or(0, |(count, _)| count) {
            self.foreign = Some((foreign, turns));
        }
    }

    /// Simulates a bug that forgets the calls in flight.
    #[cfg(test)]
    pub(super) fn forget_in_flight(&mut self) {
        self.in_flight = 0;
    }

    /// Drops what has expired, and returns the latest instant passed in.
    fn drop_expired(&mut self, now: Instant) -> Instant {
        let now = self.latest.max(now);
        self.latest = now;
        while let Some(first) = self.cooling.first_entry().filter(|first| *first.key() <= now) {
            first.remove();
        }
        self.foreign = self.foreign.filter(|(_, until)| now < *until);
        self.blocked_until = self.blocked_until.filter(|until| now < *until);
        now
    }
}
