//! Schema drift: fields of documents that no column takes. Counted by path, logged once a day, never a failure.
//!
//! The lanes report it for each document, and the HTTP API reads it. Values are never recorded, only paths and kinds.
//! Saved to the store periodically and when the process stops; a kill loses the counts since.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::domain::Timestamp;
use crate::store::{Store, StoreError};

/// Paths recorded per resource; further ones are only counted.
const PLACES_MAX: usize = 200;
const DAY: Duration = Duration::from_secs(86_400);

/// How often and when a path was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub documents: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Drift of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// When drift was first seen.
    pub since: Option<Timestamp>,
    #[serde(with = "pairs")]
    pub places: BTreeMap<FieldDrift, Seen>,
    /// Occurrences of paths beyond those recorded.
    pub more: u64,
    /// When it was last logged.
    #[serde(rename = "told_at")]
    logged_at: Option<Timestamp>,
    /// Paths that were not logged yet.
    #[serde(rename = "untold")]
    unlogged: Vec<String>,
    /// Has counts that are not in the store.
    #[serde(skip)]
    is_unsaved: bool,
}

/// Serialises a map whose keys are not strings as a list.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{FieldDrift, Seen};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<FieldDrift, Seen>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<FieldDrift, Seen>, D::Error> {
        Ok(Vec::<(FieldDrift, Seen)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Drift of all resources.
#[derive(Debug, Default)]
pub(super) struct Drifts(Mutex<BTreeMap<String, Drift>>);

impl Drifts {
    /// Loads the saved counts, without paths that the definitions map by now. Unreadable counts start from zero.
    pub(super) fn load(store: &Store, definitions: &[Arc<Definition>]) -> Drifts {
        let mut all = BTreeMap::new();
        for definition in definitions {
            match store.drift::<Drift>(&definition.name) {
                Ok(Some(mut drift)) => {
                    drift.places.retain(|left, _| definition.coverage.still_drifts(left));
                    drift.unlogged.retain(|path| drift.places.keys().any(|left| name(left) == *path));
                    all.insert(definition.name.clone(), drift);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "the saved schema drift could not be read; counting restarts from zero");
                }
            }
        }
        Drifts(Mutex::new(all))
    }

    /// Saves the counts since the last save.
    pub(super) async fn save(&self, store: &Store) -> Result<(), StoreError> {
        let unsaved = |(resource, drift): (&String, &mut Drift)| {
            std::mem::take(&mut drift.is_unsaved).then(|| (resource.clone(), drift.clone()))
        };
        let unsaved: Vec<(String, Drift)> = self.all().iter_mut().filter_map(unsaved).collect();
        let mut saved = Ok(());
        for (resource, drift) in unsaved {
            // After a failure the rest is left for the next save.
            if saved.is_ok() {
                saved = store.save_drift(&resource, &drift).await;
            }
            if saved.is_err() {
                self.all().entry(resource).or_default().is_unsaved = true;
            }
        }
        saved
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Drift>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the drift of one document, or of a page of them. Some: it was logged, which is to be saved at once, so
    /// that it is logged once a day and not once per process.
    pub(super) fn note(&self, resource: &str, mut left: Vec<FieldDrift>, now: Timestamp) -> Option<Drift> {
        if left.is_empty() {
            return None;
        }
        // One document may have a path many times, in its arrays.
        left.sort_unstable();
        left.dedup();
        let mut all = self.all();
        if !all.contains_key(resource) {
            all.insert(resource.to_owned(), Drift::default());
        }
        let drift = all.get_mut(resource)?;
        drift.since.get_or_insert(now);
        drift.is_unsaved = true;
        for one in left {
            if let FieldDrift::TypeMismatch { table, column, .. } = &one {
                let column = format!("{table}.{column}");
                metrics::counter!("waybill_misfits_total", "resource" => resource.to_owned(), "column" => column)
                    .increment(1);
            }
            if let FieldDrift::Tolerated { kind, .. } = &one {
                metrics::counter!("waybill_tolerated_total", "resource" => resource.to_owned(), "kind" => *kind)
                    .increment(1);
            }
            if let FieldDrift::Untimed { .. } = &one {
                metrics::counter!("waybill_unreadable_times_total", "resource" => resource.to_owned()).increment(1);
            }
            if let Some(seen) = drift.places.get_mut(&one) {
                seen.documents += 1;
                seen.last = now;
            } else if drift.places.len() >= PLACES_MAX {
                drift.more += 1;
            } else {
                drift.unlogged.push(name(&one));
                drift.places.insert(one, Seen { documents: 1, first: now, last: now });
            }
        }
        // A time in the future is from a wrong clock.
        let is_due = drift.logged_at.is_none_or(|logged| logged > now || now.since(logged) >= DAY);
        let logs = !drift.unlogged.is_empty() && is_due;
        if logs {
            drift.logged_at = Some(now);
            let places = std::mem::take(&mut drift.unlogged).join(", ");
            tracing::warn!(
                resource,
                places,
                "documents have fields that no column takes, or JSON that strict parsers reject; while `waybill serve` \
                 runs, GET /api/v1/resources/{resource}/drift has the counts"
            );
        }
        logs.then(|| drift.clone())
    }

    pub(super) fn of(&self, resource: &str) -> Drift {
        self.all().get(resource).cloned().unwrap_or_default()
    }
}

fn name(left: &FieldDrift) -> String {
    match left {
        FieldDrift::Unmapped { path, kind } => format!("{path} ({kind})"),
        FieldDrift::TypeMismatch { table, column, kind } => format!("{table}.{column} ({kind} does not fit)"),
        FieldDrift::Tolerated { path, kind } => format!("{path} ({kind} tolerated)"),
        FieldDrift::Untimed { path, kind } => {
            format!("{path} ({kind}, not the time that the definition expects, so incremental walks cannot stop early)")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DAY, Drifts, PLACES_MAX};
    use crate::catalog::coverage::FieldDrift;
    use crate::domain::Timestamp;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn unmapped(path: &str) -> FieldDrift {
        FieldDrift::Unmapped { path: path.to_owned(), kind: "text" }
    }

    #[test]
    fn paths_are_counted_once_per_document_and_bounded() {
        let drifts = Drifts::default();
        assert!(drifts.note("things", vec![unmapped("/a"), unmapped("/a"), unmapped("/b")], at(5)).is_some());
        assert!(drifts.note("things", vec![unmapped("/a")], at(7)).is_none());
        let found = drifts.of("things");
        let seen = found.places[&unmapped("/a")];
        assert_eq!((seen.documents, seen.first, seen.last), (2, at(5), at(7)));
        assert_eq!(found.logged_at, Some(at(5)));
        drifts.note("things", vec![unmapped("/c")], at(9));
        assert_eq!(drifts.of("things").unlogged, ["/c (text)"], "logged on the next day");
        drifts.note("things", vec![unmapped("/a")], at(5) + DAY);
        assert!(drifts.of("things").unlogged.is_empty());
        drifts.note("things", (0..2 * PLACES_MAX).map(|n| unmapped(&format!("/n{n}"))).collect(), at(10));
        let found = drifts.of("things");
        assert_eq!((found.places.len(), found.more), (PLACES_MAX, 3 + PLACES_MAX as u64));
        assert!(drifts.of("others").places.is_empty());
        drifts.all().entry("others".to_owned()).or_default().logged_at = Some(at(100));
        assert!(
            drifts.note("others", vec![unmapped("/a")], at(100) + DAY - Duration::from_millis(1)).is_none(),
            "an earlier process logged it"
        );
        assert!(drifts.note("others", vec![unmapped("/a")], at(100) + DAY).is_some());
    }
}
