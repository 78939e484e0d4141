//! Rate-limited log of failed calls that are retried.
//!
//! The first failure of a call site is logged at once; later ones are counted and logged once a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::ShopId;

/// Time between two lines about one call site.
pub(super) const EVERY: Duration = Duration::from_secs(60);
/// Lines per minute; of further call sites only the number is logged. Thousands of shops fail together.
const LINES_MAX: usize = 100;

/// Shop, resource and rule of a failed call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallSite {
    pub(super) shop: ShopId,
    pub(super) resource: String,
    pub(super) rule: String,
}

/// Failures since the last line.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: String,
}

/// Failed calls by call site.
#[derive(Debug, Default)]
pub(super) struct FailureLog(Mutex<BTreeMap<CallSite, Failures>>);

impl FailureLog {
    /// Records a failed call that will be retried.
    pub(super) fn note(&self, site: CallSite, error: &str) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let logged = sites.len();
        match sites.get_mut(&site) {
            Some(failures) => {
                failures.count += 1;
                error.clone_into(&mut failures.last);
            }
            None if logged < LINES_MAX => {
                log(&site, 1, error);
                sites.insert(site, Failures::default());
            }
            None => drop(sites.insert(site, Failures { count: 1, last: error.to_owned() })),
        }
    }

    /// Logs the failures of a shop's resource that were not logged yet. Called when it has recovered, so that no line about
    /// them comes after the one about the recovery.
    pub(super) fn flush(&self, shop: &str, resource: &str) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |site: &CallSite| site.shop == shop && site.resource == resource;
        for (site, failures) in sites.iter_mut().filter(|(site, failures)| of(site) && failures.count > 0) {
            log(site, std::mem::take(&mut failures.count), &failures.last);
        }
    }

    /// Logs the failures since the last report. Called every minute, and at the end.
    pub(super) fn report(&self) {
        let mut sites = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sites.retain(|_, failures| failures.count > 0);
        let (mut more, mut calls) = (0_u64, 0);
        for (number, (site, failures)) in sites.iter_mut().enumerate() {
            let count = std::mem::take(&mut failures.count);
            if number < LINES_MAX {
                log(site, count, &failures.last);
            } else {
                more += 1;
                calls += count;
            }
        }
        if more > 0 {
            tracing::warn!(call_sites = more, calls, "calls of more shops and resources failed and are retried");
        }
    }
}

fn log(CallSite { shop, resource, rule }: &CallSite, calls: u64, error: &str) {
    tracing::warn!(shop.id = shop.as_str(), resource, rule, calls, error, "calls failed and are retried");
}

#[cfg(test)]
mod tests {
    use super::{CallSite, FailureLog, LINES_MAX};
    use crate::domain::log_events;

    /// The counts of calls in the lines that some work logs.
    fn logged(work: impl FnOnce()) -> Vec<u64> {
        let (events, ()) = log_events::logged(work);
        events.iter().map(|event| event["calls"].as_u64().unwrap()).collect()
    }

    fn site(number: usize) -> CallSite {
        CallSite { shop: format!("shop-{number}").into(), resource: "orders".into(), rule: "GET /orders".into() }
    }

    #[test]
    fn every_failure_is_counted_in_one_line_and_lines_are_a_minute_apart() {
        let failures = FailureLog::default();
        assert_eq!(logged(|| (0..5).for_each(|_| failures.note(site(1), "500"))), [1]);
        assert_eq!(logged(|| failures.report()), [4]);
        assert!(logged(|| failures.note(site(1), "500")).is_empty(), "less than a minute after the last line");
        assert_eq!(logged(|| failures.report()), [1]);
        assert!(logged(|| failures.report()).is_empty(), "nothing failed");
        assert_eq!(logged(|| failures.note(site(1), "500")), [1], "the next failure is logged at once again");
    }

    #[test]
    fn failures_are_logged_before_their_recovery_and_not_again_after_it() {
        let failures = FailureLog::default();
        assert_eq!(logged(|| (0..5).for_each(|_| failures.note(site(1), "500"))), [1]);
        assert_eq!(logged(|| (0..3).for_each(|_| failures.note(site(2), "500"))), [1]);
        assert_eq!(logged(|| failures.flush("shop-1", "orders")), [4]);
        assert!(logged(|| failures.flush("shop-1", "returns")).is_empty(), "another resource");
        assert_eq!(logged(|| failures.report()), [2], "those of the other shop alone");
    }

    #[test]
    fn thousands_of_failing_shops_do_not_flood_the_log() {
        let failures = FailureLog::default();
        assert_eq!(logged(|| (0..1000).for_each(|number| failures.note(site(number), "500"))).len(), LINES_MAX);
        let lines = logged(|| (0..1000).for_each(|number| failures.note(site(number), "500")));
        assert!(lines.is_empty(), "{lines:?}");
        let lines = logged(|| failures.report());
        assert_eq!((lines.len(), lines.iter().sum::<u64>()), (LINES_MAX + 1, 1900));
    }
}
