//! Calls that failed and are tried again, logged at most once a minute each, with their count.
//!
//! The first of a kind is logged at once; those after it are counted, and every minute says how many there were.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Between two lines about the same.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// Lines of one minute; of more kinds than these only the number is logged. Thousands of shops fail together.
const LINES_MAX: usize = 100;

/// Whose calls fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) shop: String,
    pub(super) resource: String,
    pub(super) rule: String,
}

/// What failed since the last line.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: String,
}

/// The places where calls fail.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<Place, Failures>>);

impl Troubles {
    /// A call failed and will be made again.
    pub(super) fn note(&self, place: Place, error: &str) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = places.len();
        match places.get_mut(&place) {
            Some(failures) => {
                failures.count += 1;
                error.clone_into(&mut failures.last);
            }
            None if logged < LINES_MAX => {
                tell(&place, 1, error);
                places.insert(place, Failures::default());
            }
            None => drop(places.insert(place, Failures { count: 1, last: error.to_owned() })),
        }
    }

    /// Logs what was counted since the last time. Called each minute, and at the end.
    pub(super) fn report(&self) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, failures| failures.count > 0);
        let (mut more, mut calls) = (0_u64, 0);
        for (number, (place, failures)) in places.iter_mut().enumerate() {
            let count = std::mem::take(&mut failures.count);
            if number < LINES_MAX {
                tell(place, count, &failures.last);
            } else {
                more += 1;
                calls += count;
            }
        }
        if more > 0 {
            tracing::warn!(places = more, calls, "calls failed in more places and are made again");
        }
    }
}

fn tell(Place { shop, resource, rule }: &Place, calls: u64, error: &str) {
    tracing::warn!(shop.id = shop, resource, rule, calls, error, "calls failed and are made again");
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, Place, Troubles};
    use crate::domain::log_events;

    /// The counts of calls in the lines that some work logs.
    fn logged(work: impl FnOnce()) -> Vec<u64> {
        let (events, ()) = log_events::logged(work);
        events.iter().map(|event| event["calls"].as_u64().unwrap()).collect()
    }

    fn place(number: usize) -> Place {
        Place { shop: format!("shop-{number}"), resource: "orders".into(), rule: "GET /orders".into() }
    }

    #[test]
    fn every_failure_is_in_one_line_and_lines_are_a_minute_apart() {
        let troubles = Troubles::default();
        assert_eq!(logged(|| (0..5).for_each(|_| troubles.note(place(1), "500"))), [1]);
        assert_eq!(logged(|| troubles.report()), [4]);
        assert!(logged(|| troubles.note(place(1), "500")).is_empty(), "less than a minute after the last line");
        assert_eq!(logged(|| troubles.report()), [1]);
        assert!(logged(|| troubles.report()).is_empty(), "nothing failed");
        assert_eq!(logged(|| troubles.note(place(1), "500")), [1], "the next failure is logged at once again");
    }

    #[test]
    fn thousands_of_failing_shops_do_not_flood_the_log() {
        let troubles = Troubles::default();
        assert_eq!(logged(|| (0..1000).for_each(|number| troubles.note(place(number), "500"))).len(), LINES_MAX);
        let lines = logged(|| (0..1000).for_each(|number| troubles.note(place(number), "500")));
        assert!(lines.is_empty(), "{lines:?}");
        let lines = logged(|| troubles.report());
        assert_eq!((lines.len(), lines.iter().sum::<u64>()), (LINES_MAX + 1, 1900));
    }
}
