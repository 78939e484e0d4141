//! From a definition to calls, and from bodies to rows and documents. Pure.
//!
//! Called by the sync step. An end of a list is not an error, and an error is never the end of a
//! list: only an answer without anything, or with nothing but keys that the definition names as
//! harmless, or an empty array ends a walk. A row without a usable id is reported and does not hold
//! up its page.

use std::fmt::Write;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::client::Call;
use super::json::{elements, hash, members, strict};
use super::problem::{SourceError, clean};
use crate::catalog::Definition;
use crate::catalog::definition::{Pages, Refresh};
use crate::catalog::extract::parse_millis;
use crate::domain::Combination;
use crate::domain::Json;
use crate::domain::clock::Millis;
use crate::domain::job::{Next, Rejected, Row};

/// Longest id, in characters; what the sinks' key columns hold.
pub const ID_MAX: usize = 128;

/// One list page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedPage {
    /// In the order of the page.
    pub rows: Vec<Row>,
    /// Rows that cannot be kept, with the reason.
    pub rejected: Vec<Rejected>,
    /// Of all rows in their order, independent of white space and key order.
    pub digest: String,
    pub next: Next,
}

/// What is to be known of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedDetail {
    /// Independent of white space and key order.
    pub hash: u64,
    /// When the refresh rule wants it read again; none: final, too old, or no rule.
    pub refresh_after_ms: Option<i64>,
}

/// The call for one list page; `page` counts from 1. `cursor` is for page styles that have one.
pub fn list_call(definition: &Definition, combination: &Combination, page: u64, cursor: Option<&str>) -> Call {
    let mut query = combination.0.clone();
    match &definition.list.pages {
        Pages::Number { parameter } => query.push((parameter.clone(), page.to_string())),
        Pages::None => debug_assert!(cursor.is_none(), "this page style has no cursor"),
    }
    Call { path: definition.list.path.clone(), query, media_type: definition.media_type.clone() }
}

/// The call for one document; `None` when the list row is the document.
pub fn detail_call(definition: &Definition, id: &str) -> Option<Call> {
    let detail = definition.detail.as_ref()?;
    let path = detail.path.replace("{id}", &segment(id));
    Some(Call { path, query: Vec::new(), media_type: definition.media_type.clone() })
}

/// Reads a list page.
///
/// # Errors
/// [`SourceError::Malformed`] when it is not JSON; [`SourceError::Shape`] when it is, but is neither
/// a page nor an end.
pub fn page(definition: &Definition, body: &Bytes) -> Result<ParsedPage, SourceError> {
    let Some(rows_raw) = find_rows(definition, body)? else {
        return Ok(ParsedPage { rows: Vec::new(), rejected: Vec::new(), digest: digest(&[]), next: Next::End });
    };
    let next = match definition.list.pages {
        Pages::Number { .. } if !rows_raw.is_empty() => Next::More { cursor: None },
        Pages::Number { .. } | Pages::None => Next::End,
    };
    let keep_body = definition.detail.is_none();
    let mut rows = Vec::with_capacity(rows_raw.len());
    let mut rejected = Vec::new();
    let mut hashes = Vec::with_capacity(rows_raw.len());
    for raw in rows_raw {
        let value = strict(raw.get().as_bytes())?;
        let hash = hash(&value);
        hashes.push(hash);
        match row_id(definition, &value) {
            Ok(id) => {
                let time = definition.list.time.as_deref().and_then(|at| value.pointer(at)?.as_str());
                let body = keep_body.then(|| body.slice_ref(raw.get().as_bytes()));
                rows.push(Row { id, hash, time: time.and_then(parse_millis), body });
            }
            Err(reject) => rejected.push(reject),
        }
    }
    Ok(ParsedPage { rows, rejected, digest: digest(&hashes), next })
}

/// Reads a document that was asked for by `id`. `first_seen` tells when its id was first
/// seen, if it was; asked only for documents that do not tell their own time.
///
/// # Errors
/// [`SourceError::Malformed`] when it is not JSON; [`SourceError::Shape`] when it is no object, has
/// no id, or is the document of another id.
pub fn detail(
    definition: &Definition,
    id: &str,
    body: &Bytes,
    first_seen: impl FnOnce() -> Option<Millis>,
    now: Millis,
) -> Result<ParsedDetail, SourceError> {
    let document = strict(body)?;
    if !matches!(document, Json::Object(_)) {
        return Err(shape(format!("the document is {}, not an object", kind(&document))));
    }
    // A gateway's own words in JSON must not take the place of a document that is there already.
    let Some(found) = document.pointer(&definition.id) else {
        return Err(shape(format!("the document has no {}", definition.id)));
    };
    if id_text(found).as_deref() != Some(id) {
        return Err(shape(format!("the document's {} is not the id that was asked for", definition.id)));
    }
    let rule = definition.detail.as_ref().and_then(|detail| detail.refresh.as_ref());
    let refresh_after_ms = rule.and_then(|rule| refresh_after(rule, &document, first_seen, now));
    Ok(ParsedDetail { hash: hash(&document), refresh_after_ms })
}

/// The raw rows; `None` is a sound end of the list without the key of the rows.
fn find_rows<'a>(
    definition: &Definition,
    body: &'a Bytes,
) -> Result<Option<Vec<&'a serde_json::value::RawValue>>, SourceError> {
    let at = &definition.list.items;
    let mut text: &'a [u8] = body;
    let mut found = None;
    for (depth, token) in tokens(at).enumerate() {
        let Some(members) = members(text)? else {
            return Err(shape(format!("an object was expected on the way to {at}")));
        };
        let Some((_, value)) = members.iter().find(|(key, _)| *key == token) else {
            let harmless = |key: &String| depth == 0 && definition.list.harmless.contains(key);
            if members.iter().all(|(key, _)| harmless(key)) {
                return Ok(None);
            }
            let keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).take(5).collect();
            return Err(shape(format!("no {at} among the keys {}", clean(&keys.join(", ")))));
        };
        text = value.get().as_bytes();
        found = Some(*value);
    }
    let Some(items) = found else { return Err(shape(format!("`{at}` names no key"))) };
    match elements(items)? {
        Some(rows) => Ok(Some(rows)),
        None => Err(shape(format!("{at} is {}, not an array", kind(&strict(text)?)))),
    }
}

fn row_id(definition: &Definition, row: &Json<'_>) -> Result<String, Rejected> {
    if !matches!(row, Json::Object(_)) {
        return Err(Rejected { id: None, reason: format!("the row is {}, not an object", kind(row)) });
    }
    let Some(id) = row.pointer(&definition.id).and_then(id_text) else {
        return Err(Rejected { id: None, reason: format!("no text or whole number at {}", definition.id) });
    };
    let reason = if id.is_empty() {
        "the id is empty"
    } else if id.chars().count() > ID_MAX {
        "the id is longer than 128 characters"
    } else if id.chars().any(char::is_control) {
        "the id holds control characters"
    } else if id.trim() != id {
        // Databases compare texts without trailing space; two ids could become one row.
        "the id begins or ends with white space"
    } else if id == "." || id == ".." {
        "the id cannot stand in a path"
    } else {
        return Ok(id);
    };
    Err(Rejected { id: Some(clean(&id)), reason: reason.to_owned() })
}

fn id_text(value: &Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.clone().into_owned()),
        Json::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// Pauses grow with the age, so that the reads of one document stay few: about two for each
/// doubling of its age.
fn refresh_after(
    rule: &Refresh,
    document: &Json<'_>,
    first_seen: impl FnOnce() -> Option<Millis>,
    now: Millis,
) -> Option<i64> {
    if let Some((at, finals)) = &rule.until {
        let path: Vec<String> = tokens(at).collect();
        if any_value(document, &path, &|value| is_one_of(value, finals)) {
            return None;
        }
    }
    let time = rule.time.as_deref().and_then(|at| document.pointer(at)?.as_str()).and_then(parse_millis);
    let age = now.saturating_sub(time.or_else(first_seen).unwrap_or(now)).max(0);
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    (age <= ms(rule.max_age)).then(|| ms(rule.every).max(age / 2))
}

/// Whether the test holds for any value at the path; `*` is any element of an array.
fn any_value(value: &Json<'_>, path: &[String], test: &dyn Fn(&Json<'_>) -> bool) -> bool {
    match (path.split_first(), value) {
        (None, value) => test(value),
        (Some((token, rest)), Json::Array(elements)) if token == "*" => {
            elements.iter().any(|element| any_value(element, rest, test))
        }
        (Some((token, rest)), Json::Array(elements)) => {
            token.parse().ok().and_then(|index: usize| elements.get(index)).is_some_and(|v| any_value(v, rest, test))
        }
        (Some((token, rest)), Json::Object(_)) => value.get(token).is_some_and(|v| any_value(v, rest, test)),
        _ => false,
    }
}

fn is_one_of(value: &Json<'_>, finals: &[String]) -> bool {
    match value {
        Json::Text(text) => finals.iter().any(|one| one == text),
        Json::Bool(flag) => finals.contains(&flag.to_string()),
        Json::Number(number) => finals.contains(&number.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    }
}

/// The parts of a JSON pointer.
fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// An id as one path part: everything but letters, digits and `-_.~` is percent-encoded.
fn segment(id: &str) -> String {
    let mut out = String::with_capacity(id.len());
    super::client::encode_into(id, &mut out);
    out
}

fn digest(hashes: &[u64]) -> String {
    let mut sha = Sha256::new();
    for hash in hashes {
        sha.update(hash.to_be_bytes());
    }
    sha.finalize().iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        // Writing into a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn kind(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::Text(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

fn shape(detail: String) -> SourceError {
    SourceError::Shape { detail }
}
