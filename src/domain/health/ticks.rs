//! Schedule ticks around now, looked up once for all streams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use crate::domain::timestamp::Timestamp;

/// The first tick after an instant, if there is one.
type NextTick = dyn Fn(Timestamp) -> Option<Timestamp> + Send;

/// The step of timestamps: from a bound to the first instant beyond it.
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
/// How far back to search for ticks.
const LOOK_BACK_MAX: Duration = Duration::from_secs(400 * 24 * 3600);
/// Most ticks examined in one search.
const TICKS_MAX: usize = 10_000;

/// The schedule of incremental walks, relative to now. Valid until the next tick.
pub struct Ticks {
    now: Timestamp,
    next: Box<NextTick>,
    /// Up to three ticks before now, and the next three.
    around: Vec<Timestamp>,
    /// How many of them have passed.
    passed: usize,
    /// `around` holds every tick from here on.
    from: Timestamp,
    known: RefCell<HashMap<Timestamp, Option<Timestamp>>>,
}

impl Ticks {
    /// Looks up the ticks around `now`; `next` gives the first tick after an instant.
    pub fn at(now: Timestamp, next: impl Fn(Timestamp) -> Option<Timestamp> + Send + 'static) -> Ticks {
        let coming: Vec<Timestamp> = std::iter::successors(next(now), |tick| next(*tick)).take(3).collect();
        let gap = coming.first().zip(coming.get(1)).map(|(first, second)| second.since(*first));
        let (mut around, from) = gap.map_or_else(|| (Vec::new(), now), |gap| last_three(now, gap, &next));
        let passed = around.len();
        around.extend(coming);
        Ticks { now, next: Box::new(next), around, passed, from, known: RefCell::default() }
    }

    /// Whether a new lookup would find the same ticks.
    pub fn is_current(&self, now: Timestamp) -> bool {
        self.now <= now && self.first().is_none_or(|first| now < first)
    }

    fn first(&self) -> Option<Timestamp> {
        self.around.get(self.passed).copied()
    }

    /// The time between the next two ticks.
    pub(super) fn gap(&self) -> Option<Duration> {
        Some(self.around.get(self.passed + 1)?.since(self.first()?))
    }

    /// When three ticks will have passed since an instant, and three times `every`; None: never.
    pub(super) fn three_missed_at(&self, since: Timestamp, every: Option<Duration>) -> Option<Timestamp> {
        let third = if since < self.from {
            // Three known ticks: all lie after `since`. Fewer: ticks are rare, so search.
            match self.passed {
                3.. => self.around.get(2).copied(),
                _ => std::iter::successors((self.next)(since), |tick| (self.next)(*tick)).nth(2),
            }
        } else {
            self.around.iter().copied().filter(|tick| *tick > since).nth(2)
        };
        let waited = every.map_or(Timestamp::MIN, |every| since + every.saturating_mul(3) + MILLISECOND);
        third.map(|third| third.max(waited))
    }

    /// When the next walk of a stream is due.
    pub fn due_after(&self, success: Option<Timestamp>, every: Option<Duration>) -> Option<Timestamp> {
        let from = success.zip(every).map(|(success, every)| success + every - MILLISECOND);
        let Some(from) = from.filter(|from| *from > self.now) else { return self.first() };
        // Rounded, so that thousands of shops share a few lookups.
        let from = from.round_down(self.gap().unwrap_or_default() / 4);
        *self.known.borrow_mut().entry(from).or_insert_with(|| (self.next)(from))
    }
}

/// Up to three ticks until now (inclusive), and the instant from which on they are complete.
fn last_three(now: Timestamp, gap: Duration, next: &NextTick) -> (Vec<Timestamp>, Timestamp) {
    let mut stretch = gap.saturating_mul(4).max(MILLISECOND);
    loop {
        let from = now - stretch;
        let ticks = std::iter::successors(next(from), |tick| next(*tick));
        let mut passed: Vec<Timestamp> = ticks.take_while(|tick| *tick <= now).take(TICKS_MAX).collect();
        if passed.len() >= 3 {
            passed.drain(..passed.len() - 3);
            let from = passed.first().copied().unwrap_or(from);
            return (passed, from);
        }
        if stretch >= LOOK_BACK_MAX {
            return (passed, from);
        }
        stretch = stretch.saturating_mul(2);
    }
}
