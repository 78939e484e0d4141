//! The schedule around now, looked up once for all streams.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::domain::clock::Millis;

/// The first tick after an instant; none: there is none.
type Next<'a> = dyn Fn(Millis) -> Option<Millis> + 'a;

/// How far back ticks are looked for.
const LOOK_BACK_MAX_MS: Millis = 400 * 24 * 3600 * 1000;
/// Ticks looked at in one stretch.
const TICKS_MAX: usize = 10_000;

/// The schedule of walks for news, seen from now.
pub struct Ticks<'a> {
    now: Millis,
    next: Box<Next<'a>>,
    first: Option<Millis>,
    gap: Option<Millis>,
    third_last: Option<Millis>,
    known: RefCell<HashMap<Millis, Option<Millis>>>,
}

impl<'a> Ticks<'a> {
    /// Looks around `now`; `next` gives the first tick after an instant.
    pub fn at(now: Millis, next: impl Fn(Millis) -> Option<Millis> + 'a) -> Ticks<'a> {
        let first = next(now);
        let gap = first.and_then(&next).zip(first).map(|(second, first)| second - first);
        let third_last = gap.and_then(|gap| third_last(now, gap, &next));
        Ticks { now, next: Box::new(next), first, gap, third_last, known: RefCell::default() }
    }

    /// The time between the next two ticks.
    pub(super) fn gap(&self) -> Option<Millis> {
        self.gap
    }

    /// Whether at least three ticks have passed since, each of them due.
    pub(super) fn missed_three(&self, since: Millis, every: Option<Millis>) -> bool {
        let waited = every.is_none_or(|every| self.now.saturating_sub(since) > every.saturating_mul(3));
        waited && self.third_last.is_some_and(|third| since < third)
    }

    /// When the next walk of a stream is due.
    pub(super) fn due_after(&self, success: Option<Millis>, every: Option<Millis>) -> Option<Millis> {
        let from = success.zip(every).map(|(success, every)| success.saturating_add(every) - 1);
        let Some(from) = from.filter(|from| *from > self.now) else { return self.first };
        // With thousands of shops most ask for the same stretch.
        let step = (self.gap.unwrap_or(1) / 4).max(1);
        let from = from - from.rem_euclid(step);
        *self.known.borrow_mut().entry(from).or_insert_with(|| (self.next)(from))
    }
}

/// The third tick before now, now included.
fn third_last(now: Millis, gap: Millis, next: &Next<'_>) -> Option<Millis> {
    let mut stretch = gap.saturating_mul(4).max(1);
    loop {
        let mut passed = Vec::new();
        let mut at = now.saturating_sub(stretch);
        while let Some(tick) = next(at).filter(|tick| *tick <= now) {
            passed.push(tick);
            if passed.len() > TICKS_MAX {
                break;
            }
            at = tick;
        }
        if let Some(third) = passed.len().checked_sub(3).and_then(|at| passed.get(at)) {
            return Some(*third);
        }
        if stretch >= LOOK_BACK_MAX_MS {
            return None;
        }
        stretch = stretch.saturating_mul(2);
    }
}
