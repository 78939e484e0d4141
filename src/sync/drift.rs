//! What documents hold and their tables do not: counted by place since the start, told once a day, never a failure.
//!
//! Called by the steps for each document, and read by the HTTP API. Values are never kept, only places and kinds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::catalog::coverage::Left;
use crate::domain::clock::Millis;

/// Places kept of one resource; further ones are only counted.
const PLACES_MAX: usize = 200;
const DAY_MS: Millis = 86_400_000;

/// How often something was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub documents: u64,
    pub first: Millis,
    pub last: Millis,
}

/// What is known of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    pub places: BTreeMap<Left, Seen>,
    /// Meetings with places beyond those that are kept.
    pub more: u64,
    told_at: Option<Millis>,
    /// Places that were not told yet.
    untold: Vec<String>,
}

/// Of all resources.
#[derive(Debug, Default)]
pub(super) struct Drifts(Mutex<BTreeMap<String, Drift>>);

impl Drifts {
    /// When an earlier process told of a resource, so that it is not told again within the day.
    pub(super) fn told_before(&self, resource: &str, told_at: Option<Millis>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(resource.to_owned()).or_default().told_at = told_at;
    }

    /// Counts what is left of one document, or of a page of them. True: it was told, which is to be kept.
    pub(super) fn note(&self, resource: &str, mut left: Vec<Left>, now: Millis) -> bool {
        if left.is_empty() {
            return false;
        }
        // One document may have a place many times, in its arrays.
        left.sort_unstable();
        left.dedup();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let drift = all.entry(resource.to_owned()).or_default();
        for one in left {
            if let Some(seen) = drift.places.get_mut(&one) {
                seen.documents += 1;
                seen.last = now;
            } else if drift.places.len() >= PLACES_MAX {
                drift.more += 1;
            } else {
                drift.untold.push(name(&one));
                drift.places.insert(one, Seen { documents: 1, first: now, last: now });
            }
        }
        // A time to come is of a clock that was wrong.
        let is_due = drift.told_at.is_none_or(|told| told > now || now - told >= DAY_MS);
        let tells = !drift.untold.is_empty() && is_due;
        if tells {
            drift.told_at = Some(now);
            let places = std::mem::take(&mut drift.untold).join(", ");
            tracing::warn!(
                resource,
                places,
                "documents hold what no column takes; it is kept in `document`, and counted under /api/v1/resources/{resource}/drift"
            );
        }
        tells
    }

    pub(super) fn of(&self, resource: &str) -> Drift {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(resource).cloned().unwrap_or_default()
    }
}

fn name(left: &Left) -> String {
    match left {
        Left::Unmapped { path, kind } => format!("{path} ({kind})"),
        Left::Misfit { table, column, kind } => format!("{table}.{column} ({kind} does not fit)"),
    }
}

#[cfg(test)]
mod tests {
    use super::{DAY_MS, Drifts, PLACES_MAX};
    use crate::catalog::coverage::Left;

    fn unmapped(path: &str) -> Left {
        Left::Unmapped { path: path.to_owned(), kind: "text" }
    }

    #[test]
    fn places_are_counted_once_a_document_and_bounded() {
        let drifts = Drifts::default();
        assert!(drifts.note("things", vec![unmapped("/a"), unmapped("/a"), unmapped("/b")], 5));
        assert!(!drifts.note("things", vec![unmapped("/a")], 7));
        let found = drifts.of("things");
        let seen = found.places[&unmapped("/a")];
        assert_eq!((seen.documents, seen.first, seen.last), (2, 5, 7));
        assert_eq!(found.told_at, Some(5));
        drifts.note("things", vec![unmapped("/c")], 9);
        assert_eq!(drifts.of("things").untold, ["/c (text)"], "told on the next day");
        drifts.note("things", vec![unmapped("/a")], 5 + DAY_MS);
        assert!(drifts.of("things").untold.is_empty());
        drifts.note("things", (0..2 * PLACES_MAX).map(|n| unmapped(&format!("/n{n}"))).collect(), 10);
        let found = drifts.of("things");
        assert_eq!((found.places.len(), found.more), (PLACES_MAX, 3 + PLACES_MAX as u64));
        assert!(drifts.of("others").places.is_empty());
        drifts.told_before("others", Some(100));
        assert!(!drifts.note("others", vec![unmapped("/a")], 100 + DAY_MS - 1), "an earlier process told");
        assert!(drifts.note("others", vec![unmapped("/a")], 100 + DAY_MS));
    }
}
