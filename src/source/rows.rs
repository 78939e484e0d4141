//! Parses the rows of a page: ids, change digests, and rows that are rejected. Pure.
//!
//! A row without a usable id, or one that cannot be parsed, is rejected and does not affect the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::json::{self, hash};
use super::pointer::{each_value, id_text, kind, tokens};
use super::position::Position;
use super::problem::clean;
use crate::catalog::Definition;
use crate::catalog::coverage::{FieldDrift, kind_for_time, tolerated};
use crate::catalog::extract::timestamp_of;
use crate::domain::json::{Reading, Tolerance};
use crate::domain::step::{Rejected, Row};
use crate::domain::{Facets, Json, Timestamp};

/// Longest id, in characters; what the sinks' key columns hold.
pub const ID_MAX: usize = 128;

/// The parsed rows of a page.
#[derive(Default)]
pub(super) struct ParsedRows {
    /// In page order, each id once.
    pub(super) rows: Vec<Row>,
    pub(super) rejected: Vec<Rejected>,
    /// Digest of every row as received.
    pub(super) hashes: Vec<u64>,
    /// What no column takes, where rows are documents, and what was tolerated; each place once.
    pub(super) left: BTreeSet<FieldDrift>,
    /// Index into `rows` of each id, and the digests of all its rows on this page.
    ids: BTreeMap<String, (usize, BTreeSet<u64>)>,
}

impl ParsedRows {
    pub(super) fn read(definition: &Definition, position: &Position, body: &Bytes, raw: &[&[u8]]) -> ParsedRows {
        let mut read = ParsedRows::default();
        raw.iter().for_each(|raw| read.add(definition, position, body, raw));
        read
    }

    fn add(&mut self, definition: &Definition, position: &Position, body: &Bytes, raw: &[u8]) {
        let Reading { value, tolerated: noted, normalised } = match json::read(raw) {
            Ok(reading) => reading,
            Err(error) => {
                let digest = hash(&Json::Text(String::from_utf8_lossy(raw)));
                self.hashes.push(digest);
                let reason = format!("the row cannot be read: {error}");
                return self.rejected.push(Rejected { id: None, reason, unreadable: Some(digest) });
            }
        };
        let is_broken = noted.iter().any(|noted| noted.what == Tolerance::HalfSurrogate);
        self.left.extend(tolerated(noted));
        let ordered = hash(&value);
        // The page's digest covers whole rows: different rows may have equal change marks.
        self.hashes.push(ordered);
        let id = match row_id(definition, position, &value) {
            // Other broken ids may read the same, and none can be requested.
            Ok(id) if is_broken && id.contains('\u{fffd}') => {
                let reason = "the id contains an unpaired surrogate".to_owned();
                return self.rejected.push(Rejected { id: Some(id), reason, unreadable: Some(ordered) });
            }
            Ok(id) => id,
            Err(mut reject) => {
                // Without an id its content distinguishes it from others.
                reject.unreadable = reject.id.is_none().then_some(ordered);
                return self.rejected.push(reject);
            }
        };
        let (hash, legacy) = marks(definition, &value, ordered);
        let time = definition.list.time.as_deref().and_then(|at| time_at(definition, at, &value, &mut self.left));
        let is_document = definition.detail.is_none();
        let mut facets = Facets::Unknown;
        if is_document {
            self.left.extend(definition.coverage.drift(&value));
            facets = definition.facets_for_store(&id, &value);
        }
        let sent = || body.slice_ref(raw);
        let body = is_document.then(|| normalised.map_or_else(sent, Bytes::from));
        self.put(Row { id, hash, legacy, time, body, facets });
    }

    /// Adds a row. Rows with the same id are merged: the last one, with a digest of all of them.
    fn put(&mut self, row: Row) {
        let next = self.rows.len();
        let (at, hashes) = self.ids.entry(row.id.clone()).or_insert((next, BTreeSet::new()));
        hashes.insert(row.hash);
        match self.rows.get_mut(*at) {
            Some(known) if hashes.len() > 1 => {
                let time = known.time.max(row.time);
                *known = Row { hash: of_all(hashes), legacy: None, time, ..row };
            }
            Some(_) => {}
            None => self.rows.push(row),
        }
    }
}

/// The time at a pointer. A value that cannot be parsed is counted.
pub(super) fn time_at(
    definition: &Definition,
    at: &str,
    value: &Json<'_>,
    left: &mut impl Extend<FieldDrift>,
) -> Option<Timestamp> {
    let found = value.pointer(at).filter(|found| **found != Json::Null)?;
    let time = timestamp_of(definition.zone.as_ref(), found);
    if time.is_none() {
        left.extend([FieldDrift::Untimed { path: at.to_owned(), kind: kind_for_time(found) }]);
    }
    time
}

/// One digest of several, independent of their order.
fn of_all(hashes: &BTreeSet<u64>) -> u64 {
    let texts = hashes.iter().map(|hash| Json::Text(format!("{hash:016x}").into()));
    hash(&Json::Array(texts.collect()))
}

/// The change digest of a row, and that of earlier versions where it differs.
fn marks(definition: &Definition, row: &Json<'_>, ordered: u64) -> (u64, Option<u64>) {
    // A row that is the document is stored again when anything in it differs.
    if definition.detail.is_none() && definition.list.changed_by.is_empty() {
        return (ordered, None);
    }
    let marks = &definition.list.changed_by;
    let (now, earlier) = if marks.is_empty() {
        (hash(&sorted(row)), ordered)
    } else {
        let values: Vec<Json<'_>> = marks.iter().map(|pointer| found_at(row, pointer)).collect();
        (hash(&Json::Array(values.iter().map(sorted).collect())), hash(&Json::Array(values)))
    };
    (now, Some(earlier).filter(|earlier| *earlier != now))
}

fn found_at<'a>(row: &Json<'a>, pointer: &str) -> Json<'a> {
    let path: Vec<String> = tokens(pointer).collect();
    let mut found = Vec::new();
    each_value(row, &path, &mut |value| found.push(value.clone()));
    Json::Array(found)
}

/// Sorts the elements of each array: servers build them from sets and send them in any order.
fn sorted<'a>(value: &Json<'a>) -> Json<'a> {
    match value {
        Json::Array(elements) => {
            let mut elements: Vec<Json<'a>> = elements.iter().map(sorted).collect();
            elements.sort_by_cached_key(|element| {
                let mut canonical = Vec::new();
                element.write_canonical(&mut canonical);
                canonical
            });
            Json::Array(elements)
        }
        Json::Object(members) => {
            Json::Object(members.iter().map(|(key, member)| (key.clone(), sorted(member))).collect())
        }
        other => other.clone(),
    }
}

fn row_id(definition: &Definition, position: &Position, row: &Json<'_>) -> Result<String, Rejected> {
    if !matches!(row, Json::Object(_)) {
        return Err(Rejected::new(None, format!("the row is {}, not an object", kind(row))));
    }
    let Some(id) = row.pointer(&definition.id).and_then(id_text) else {
        return Err(Rejected::new(None, format!("no text or whole number at {}", definition.id)));
    };
    let reason = if id.is_empty() {
        "the id is empty"
    } else if id.chars().count() > ID_MAX {
        "the id is longer than 128 characters"
    } else if id.chars().any(char::is_control) {
        "the id contains control characters"
    } else if id.trim() != id {
        // Databases ignore trailing spaces when comparing; two ids could become one row.
        "the id begins or ends with white space"
    } else if id == "." || id == ".." {
        "the id cannot be used in a path"
    } else {
        let kept = definition.kept_id(position.parent.as_deref(), &id);
        if kept.chars().count() <= ID_MAX {
            return Ok(kept);
        }
        "the id together with its parent's is longer than 128 characters"
    };
    Err(Rejected::new(Some(clean(&id)), reason.to_owned()))
}
