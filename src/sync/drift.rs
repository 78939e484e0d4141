//! What documents hold and their tables do not: counted by place, told once a day, never a failure.
//!
//! Called by the steps for each document, and read by the HTTP API. Values are never kept, only places and kinds. It is
//! kept in the store now and then, and when the program stops; a kill costs the counts since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::catalog::Definition;
use crate::catalog::coverage::Left;
use crate::domain::clock::Millis;
use crate::store::{Store, StoreError};

/// Places kept of one resource; further ones are only counted.
const PLACES_MAX: usize = 200;
const DAY_MS: Millis = 86_400_000;

/// How often something was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub documents: u64,
    pub first: Millis,
    pub last: Millis,
}

/// What is known of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// When the first was met.
    pub since: Option<Millis>,
    #[serde(with = "pairs")]
    pub places: BTreeMap<Left, Seen>,
    /// Meetings with places beyond those that are kept.
    pub more: u64,
    told_at: Option<Millis>,
    /// Places that were not told yet.
    untold: Vec<String>,
    /// Something was counted that is not in the store.
    #[serde(skip)]
    is_fresh: bool,
}

/// A map whose keys are no texts, as a list.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Left, Seen};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<Left, Seen>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Left, Seen>, D::Error> {
        Ok(Vec::<(Left, Seen)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Of all resources.
#[derive(Debug, Default)]
pub(super) struct Drifts(Mutex<BTreeMap<String, Drift>>);

impl Drifts {
    /// What the store has, without what the definitions take by now. What cannot be read is counted anew.
    pub(super) fn load(store: &Store, definitions: &[Arc<Definition>]) -> Drifts {
        let mut all = BTreeMap::new();
        for definition in definitions {
            match store.drift::<Drift>(&definition.name) {
                Ok(Some(mut drift)) => {
                    drift.places.retain(|left, _| definition.coverage.still_leaves(left));
                    drift.untold.retain(|told| drift.places.keys().any(|left| name(left) == *told));
                    all.insert(definition.name.clone(), drift);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "what documents hold beside their columns is counted anew"),
            }
        }
        Drifts(Mutex::new(all))
    }

    /// Puts what was counted since the last time into the store.
    pub(super) async fn keep(&self, store: &Store) -> Result<(), StoreError> {
        let fresh = |(resource, drift): (&String, &mut Drift)| {
            std::mem::take(&mut drift.is_fresh).then(|| (resource.clone(), drift.clone()))
        };
        let fresh: Vec<(String, Drift)> = self.all().iter_mut().filter_map(fresh).collect();
        let mut kept = Ok(());
        for (resource, drift) in fresh {
            // What follows a failure is tried the next time, too.
            if kept.is_ok() {
                kept = store.keep_drift(&resource, &drift).await;
            }
            if kept.is_err() {
                self.all().entry(resource).or_default().is_fresh = true;
            }
        }
        kept
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Drift>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is left of one document, or of a page of them. Some: it was told, which is to be kept at once, so
    /// that people are told once a day and not once a process.
    pub(super) fn note(&self, resource: &str, mut left: Vec<Left>, now: Millis) -> Option<Drift> {
        if left.is_empty() {
            return None;
        }
        // One document may have a place many times, in its arrays.
        left.sort_unstable();
        left.dedup();
        let mut all = self.all();
        if !all.contains_key(resource) {
            all.insert(resource.to_owned(), Drift::default());
        }
        let drift = all.get_mut(resource)?;
        drift.since.get_or_insert(now);
        drift.is_fresh = true;
        for one in left {
            if let Left::Misfit { table, column, .. } = &one {
                let column = format!("{table}.{column}");
                metrics::counter!("waybill_misfits_total", "resource" => resource.to_owned(), "column" => column)
                    .increment(1);
            }
            if let Left::Tolerated { kind, .. } = &one {
                metrics::counter!("waybill_tolerated_total", "resource" => resource.to_owned(), "kind" => *kind)
                    .increment(1);
            }
            if let Left::Untimed { .. } = &one {
                metrics::counter!("waybill_unreadable_times_total", "resource" => resource.to_owned()).increment(1);
            }
            if let Some(seen) = drift.places.get_mut(&one) {
                seen.documents += 1;
                seen.last = now;
            } else if drift.places.len() >= PLACES_MAX {
                drift.more += 1;
            } else {
                drift.untold.push(name(&one));
                drift.places.insert(one, Seen { documents: 1, first: now, last: now });
                let unmapped = drift.places.keys().filter(|left| matches!(left, Left::Unmapped { .. })).count();
                metrics::gauge!("waybill_unmapped_fields", "resource" => resource.to_owned()).set(unmapped as f64);
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
                "documents hold what no column takes or what strict readers refuse; while `waybill serve` runs, GET \
                 /api/v1/resources/{resource}/drift has the counts"
            );
        }
        tells.then(|| drift.clone())
    }

    pub(super) fn of(&self, resource: &str) -> Drift {
        self.all().get(resource).cloned().unwrap_or_default()
    }
}

fn name(left: &Left) -> String {
    match left {
        Left::Unmapped { path, kind } => format!("{path} ({kind})"),
        Left::Misfit { table, column, kind } => format!("{table}.{column} ({kind} does not fit)"),
        Left::Tolerated { path, kind } => format!("{path} ({kind} tolerated)"),
        Left::Untimed { path, kind } => {
            format!(
                "{path} ({kind}, and not the time that the definition takes it for: no walk for news stops early by it)"
            )
        }
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
        assert!(drifts.note("things", vec![unmapped("/a"), unmapped("/a"), unmapped("/b")], 5).is_some());
        assert!(drifts.note("things", vec![unmapped("/a")], 7).is_none());
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
        drifts.all().entry("others".to_owned()).or_default().told_at = Some(100);
        assert!(drifts.note("others", vec![unmapped("/a")], 100 + DAY_MS - 1).is_none(), "an earlier process told");
        assert!(drifts.note("others", vec![unmapped("/a")], 100 + DAY_MS).is_some());
    }
}
