//! From a definition to calls, and from bodies to rows and documents. Pure.
//!
//! Called by the sync step. An end of a list is not an error, and an error is never the end of a
//! list: only an answer without anything, or with nothing but keys that the definition names as
//! harmless, or an empty array ends a walk. A row without a usable id is reported and does not hold
//! up its page.

use std::collections::BTreeSet;
use std::fmt::Write;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::client::Call;
use super::json::{self, elements, hash, members, parse};
use super::position::Position;
use super::problem::{SourceError, clean};
use crate::catalog::Definition;
use crate::catalog::coverage::{Left, kind_for_time, shown, tolerated};
use crate::catalog::definition::{Pages, Refresh, Until};
use crate::catalog::extract::millis_of;
use crate::domain::Combination;
use crate::domain::Json;
use crate::domain::clock::Millis;
use crate::domain::job::{Next, Rejected, Row};
use crate::domain::json::{Reading, Tolerance, Tolerated, without_mark};

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
    /// What no column takes of the rows, where they are the documents.
    pub left: Vec<Left>,
}

/// What is to be known of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedDetail {
    /// The document itself, as received; without a byte order mark, halves of surrogate pairs and all but the last
    /// of equal keys, which databases refuse or read differently.
    pub body: Bytes,
    /// Independent of white space and key order.
    pub hash: u64,
    /// What no column takes.
    pub left: Vec<Left>,
    /// When the refresh rule wants it read again; none: final, too old, or no rule.
    pub refresh_after_ms: Option<i64>,
}

/// A list's answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub body: &'a Bytes,
    /// The address in the header `Link` with `rel="next"`.
    pub next_link: Option<&'a str>,
}

/// The call for one list page, made now.
pub fn list_call(definition: &Definition, combination: &Combination, position: &Position, now: Millis) -> Call {
    let path = fill(&definition.list.path, position.parent.as_deref(), "");
    Call { path, query: position.query(definition, combination, now), media_type: definition.media_type.clone() }
}

/// The call for one document; `None` when the list row is the document.
pub fn detail_call(definition: &Definition, id: &str) -> Option<Call> {
    let detail = definition.detail.as_ref()?;
    let (parent, own) = definition.split_id(id);
    let path = fill(&detail.path, parent.as_deref(), own);
    Some(Call { path, query: Vec::new(), media_type: definition.media_type.clone() })
}

/// A path with the ids in their places.
pub fn fill(path: &str, parent: Option<&str>, id: &str) -> String {
    let parent = parent.map(segment).unwrap_or_default();
    path.replace("{parent}", &parent).replace("{id}", &segment(id))
}

/// Reads a list page. `next_parent` names the parent after one.
///
/// # Errors
/// [`SourceError::Malformed`] when it is not JSON; [`SourceError::Shape`] when it is, but is neither
/// a page nor an end.
pub fn page(
    definition: &Definition,
    position: &Position,
    answer: Answer<'_>,
    next_parent: impl FnOnce(&str) -> Option<String>,
) -> Result<ParsedPage, SourceError> {
    let found = find_rows(definition, answer.body)?;
    let next_page = next_page(definition, position, answer, found.as_ref().map_or(0, Vec::len))?;
    let keep_body = definition.detail.is_none();
    let rows_raw = found.unwrap_or_default();
    let mut rows = Vec::with_capacity(rows_raw.len());
    let mut rejected = Vec::new();
    let mut hashes = Vec::with_capacity(rows_raw.len());
    // Rows are alike: each place once.
    let mut left: BTreeSet<Left> = marked(answer.body).collect();
    for raw in rows_raw {
        // One row that nobody can read must not hold up the others.
        let Reading { value, tolerated: noted, normalised } = match json::read(raw.get().as_bytes()) {
            Ok(reading) => reading,
            Err(error) => {
                let digest = hash(&Json::Text(raw.get().into()));
                hashes.push(digest);
                let reason = format!("the row cannot be read: {error}");
                rejected.push(Rejected { id: None, reason, unreadable: Some(digest) });
                continue;
            }
        };
        let is_broken = noted.iter().any(|noted| noted.what == Tolerance::HalfSurrogate);
        left.extend(tolerated(noted));
        let marks = row_hash(definition, &value);
        // The page's own digest is of all that it shows: rows whose marks are alike are not alike.
        hashes.push(if definition.list.changed_by.is_empty() { marks } else { hash(&value) });
        match row_id(definition, position, &value) {
            // Other broken ids may read the same, and none can be asked for.
            Ok(id) if is_broken && id.contains('\u{fffd}') => {
                rejected.push(Rejected::new(Some(id), "the id holds half a surrogate pair".to_owned()));
            }
            Ok(id) => {
                let time = definition.list.time.as_deref().and_then(|at| time_at(definition, at, &value, &mut left));
                if keep_body {
                    left.extend(definition.coverage.look(&value));
                }
                let sent = || answer.body.slice_ref(raw.get().as_bytes());
                let body = keep_body.then(|| normalised.map_or_else(sent, Bytes::from));
                rows.push(Row { id, hash: marks, time, body });
            }
            Err(reject) => rejected.push(reject),
        }
    }
    let next = next_page.or_else(|| position.next_list(definition, next_parent));
    let digest = digest(&position.list(), &hashes);
    Ok(ParsedPage { rows, rejected, digest, next: next_step(next), left: left.into_iter().collect() })
}

/// What a list comes to that the API does not know: its parent is gone. The walk goes on with the next one.
pub fn no_list(
    definition: &Definition,
    position: &Position,
    next_parent: impl FnOnce(&str) -> Option<String>,
) -> ParsedPage {
    let next = position.next_list(definition, next_parent);
    let next = next_step(next);
    ParsedPage { rows: Vec::new(), rejected: Vec::new(), digest: String::new(), next, left: Vec::new() }
}

fn next_step(next: Option<Position>) -> Next {
    next.map_or(Next::End, |next| Next::More { cursor: next.text() })
}

/// The next page of the same list, if the answer says or lets hope that there is one.
fn next_page(
    definition: &Definition,
    position: &Position,
    answer: Answer<'_>,
    rows: usize,
) -> Result<Option<Position>, SourceError> {
    let mark = match &definition.list.pages {
        Pages::None => return Ok(None),
        Pages::Number { .. } => return Ok((rows > 0).then(|| position.next_page(None))),
        Pages::Offset { .. } => return Ok((rows > 0).then(|| position.after_rows(rows))),
        Pages::HasMoreFlag { flag, .. } => {
            let found = value_at(answer.body, flag)?;
            return match found.as_ref().map(|raw| parse(raw.get().as_bytes())).transpose()? {
                Some(Json::Bool(false) | Json::Null) => Ok(None),
                None if rows == 0 => Ok(None),
                None => Err(shape(format!("{flag} is missing from a page with rows"))),
                Some(Json::Bool(true)) => Ok(Some(position.next_page(None))),
                Some(other) => Err(shape(format!("{flag} is {}, not true or false", kind(&other)))),
            };
        }
        Pages::Cursor { next, .. } => {
            let mut found = None;
            for pointer in next {
                found = found.or(text_at(answer.body, pointer)?);
            }
            found
        }
        Pages::NextLink { at: Some(pointer) } => {
            text_at(answer.body, pointer)?.map(|link| link_query(definition, position, &link)).transpose()?
        }
        Pages::NextLink { at: None } => {
            answer.next_link.map(|link| link_query(definition, position, link)).transpose()?
        }
    };
    match mark {
        Some(mark) if position.is_at(&mark) => Err(shape("the next page is this page again".to_owned())),
        mark => Ok(mark.map(|mark| position.next_page(Some(mark)))),
    }
}

/// The parameters of the next page's address. Only the same list may follow: a call elsewhere would count
/// against another rule, and bring the token to another place.
fn link_query(definition: &Definition, position: &Position, link: &str) -> Result<String, SourceError> {
    // Its parameters are not shown: a signature or a key may stand in them.
    let shown = link.split_once('?').map_or(link, |(path, _)| path);
    let wrong = || shape(format!("the address of the next page leads elsewhere: {}", clean(shown)));
    let path = fill(&definition.list.path, position.parent.as_deref(), "");
    // The host is the source's own, whatever the link says: the call is made from path and parameters alone.
    let base = url::Url::parse("https://same.invalid").map_err(|_| wrong())?.join(&path).map_err(|_| wrong())?;
    let next = base.join(link).map_err(|_| wrong())?;
    // Not every server escapes as we do.
    let plain = |path: &str| percent_encoding::percent_decode_str(path).collect::<Vec<u8>>();
    if !plain(next.path()).ends_with(&plain(base.path())) {
        return Err(wrong());
    }
    Ok(next.query().unwrap_or_default().to_owned())
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
    let at = definition.detail.as_ref().map_or("", |detail| detail.document.as_str());
    if at.is_empty() {
        return document(definition, id, body, first_seen, now);
    }
    let found = value_at(body, at)?.ok_or_else(|| shape(format!("the answer has no {at}")))?;
    let mut read = document(definition, id, &body.slice_ref(found.get().as_bytes()), first_seen, now)?;
    read.left.extend(marked(body));
    Ok(read)
}

/// The byte order mark before an answer, where there is one.
fn marked(body: &[u8]) -> impl Iterator<Item = Left> {
    let noted = Tolerated { what: Tolerance::ByteOrderMark, path: Vec::new() };
    tolerated(without_mark(body).1.then_some(noted).into_iter().collect())
}

/// Reads a document that stands by itself, as it is stored.
///
/// # Errors
/// As [`detail`].
pub fn document(
    definition: &Definition,
    id: &str,
    body: &Bytes,
    first_seen: impl FnOnce() -> Option<Millis>,
    now: Millis,
) -> Result<ParsedDetail, SourceError> {
    let Reading { value: document, tolerated: noted, normalised } = json::read(body)?;
    if !matches!(document, Json::Object(_)) {
        return Err(shape(format!("the document is {}, not an object", kind(&document))));
    }
    // A gateway's own words in JSON must not take the place of a document that is there already.
    let Some(found) = document.pointer(&definition.id) else {
        return Err(shape(format!("the document has no {}", definition.id)));
    };
    if id_text(found).as_deref() != Some(definition.split_id(id).1) {
        return Err(shape(format!("the document's {} is not the id that was asked for", definition.id)));
    }
    let rule = definition.detail.as_ref().and_then(|detail| detail.refresh.as_ref());
    let (hash, mut left) = (hash(&document), definition.coverage.look(&document));
    left.extend(tolerated(noted));
    let time = rule.and_then(|rule| time_at(definition, rule.time.as_deref()?, &document, &mut left));
    let refresh_after_ms = rule.and_then(|rule| refresh_after(rule, &document, time.or_else(first_seen), now));
    drop(document);
    let body = normalised.map_or_else(|| body.clone(), Bytes::from);
    Ok(ParsedDetail { body, hash, left, refresh_after_ms })
}

/// The value at a pointer through objects, as received.
fn value_at<'a>(body: &'a Bytes, pointer: &str) -> Result<Option<&'a RawValue>, SourceError> {
    let (mut text, mut found): (&'a [u8], _) = (body, None);
    for token in tokens(pointer) {
        let members = members(text)?.unwrap_or_default();
        let Some((_, value)) = members.into_iter().find(|(key, _)| *key == token) else { return Ok(None) };
        text = value.get().as_bytes();
        found = Some(value);
    }
    Ok(found)
}

/// The text or number at a pointer; none: absent, null or empty.
fn text_at(body: &Bytes, pointer: &str) -> Result<Option<String>, SourceError> {
    let Some(raw) = value_at(body, pointer)? else { return Ok(None) };
    match parse(raw.get().as_bytes())? {
        Json::Null => Ok(None),
        value => match id_text(&value) {
            Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            None => Err(shape(format!("{pointer} is {}, not a text", kind(&value)))),
        },
    }
}

/// The raw rows; `None` is a sound end of the list without the key of the rows.
fn find_rows<'a>(definition: &Definition, body: &'a Bytes) -> Result<Option<Vec<&'a RawValue>>, SourceError> {
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
            let keys: Vec<&str> = members.iter().map(|(key, _)| shown(key)).take(5).collect();
            return Err(shape(format!("no {at} among the keys {}", clean(&keys.join(", ")))));
        };
        text = value.get().as_bytes();
        found = Some(*value);
    }
    let items = match found {
        Some(items) => items,
        // The answer itself is the array.
        None => serde_json::from_slice(without_mark(body).0).map_err(|_| malformed_list())?,
    };
    match elements(items)? {
        Some(rows) => Ok(Some(rows)),
        None => Err(shape(format!("{at} is {}, not an array", kind(&parse(text)?)))),
    }
}

/// What tells a changed row from a known one.
fn row_hash(definition: &Definition, row: &Json<'_>) -> u64 {
    let marks = &definition.list.changed_by;
    if marks.is_empty() {
        return hash(row);
    }
    let mut values = Vec::new();
    for pointer in marks {
        let path: Vec<String> = tokens(pointer).collect();
        let mut found = Vec::new();
        each_value(row, &path, &mut |value| found.push(value.clone()));
        values.push(Json::Array(found));
    }
    hash(&Json::Array(values))
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
        "the id holds control characters"
    } else if id.trim() != id {
        // Databases compare texts without trailing space; two ids could become one row.
        "the id begins or ends with white space"
    } else if id == "." || id == ".." {
        "the id cannot stand in a path"
    } else {
        let kept = definition.kept_id(position.parent.as_deref(), &id);
        if kept.chars().count() <= ID_MAX {
            return Ok(kept);
        }
        "the id and its parent's are longer than 128 characters together"
    };
    Err(Rejected::new(Some(clean(&id)), reason.to_owned()))
}

/// The id that a value is, if it can be one.
pub fn id_text(value: &Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.clone().into_owned()),
        Json::Number(number) => number.whole_digits().map(str::to_owned),
        _ => None,
    }
}

/// The time at a pointer. One that is there and cannot be read is counted.
fn time_at(definition: &Definition, at: &str, value: &Json<'_>, left: &mut impl Extend<Left>) -> Option<Millis> {
    let found = value.pointer(at).filter(|found| **found != Json::Null)?;
    let time = millis_of(definition.zone.as_ref(), found);
    if time.is_none() {
        left.extend([Left::Untimed { path: at.to_owned(), kind: kind_for_time(found) }]);
    }
    time
}

/// Pauses grow with the age, so that the reads of one document stay few: about two for each
/// doubling of its age.
fn refresh_after(rule: &Refresh, document: &Json<'_>, since: Option<Millis>, now: Millis) -> Option<i64> {
    if rule.until.as_ref().is_some_and(|until| is_final(until, document)) {
        return None;
    }
    let age = now.saturating_sub(since.unwrap_or(now)).max(0);
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    (age <= ms(rule.max_age)).then(|| ms(rule.every).max(age / 2))
}

fn is_final(until: &Until, document: &Json<'_>) -> bool {
    let path: Vec<String> = tokens(&until.at).collect();
    let (mut some, mut all) = (false, true);
    each_value(document, &path, &mut |value| {
        let fits = is_one_of(value, &until.values);
        some |= fits;
        all &= fits;
    });
    some && (all || !until.all)
}

/// Each value at the path; `*` is any element of an array. What is missing counts as null.
fn each_value<'a, 'b>(value: &'b Json<'a>, path: &[String], visit: &mut dyn FnMut(&'b Json<'a>)) {
    match (path.split_first(), value) {
        (None, value) => visit(value),
        (Some((token, rest)), Json::Array(elements)) if token == "*" => {
            elements.iter().for_each(|element| each_value(element, rest, visit));
        }
        (Some((token, rest)), Json::Array(elements)) => {
            let found = token.parse().ok().and_then(|index: usize| elements.get(index));
            each_value(found.unwrap_or(&Json::Null), rest, visit);
        }
        (Some((token, rest)), Json::Object(_)) => {
            each_value(value.get(token).unwrap_or(&Json::Null), rest, visit);
        }
        _ => visit(&Json::Null),
    }
}

fn is_one_of(value: &Json<'_>, finals: &[String]) -> bool {
    match value {
        Json::Text(text) => finals.iter().any(|one| one == text),
        Json::Bool(flag) => finals.contains(&flag.to_string()),
        Json::Number(number) => finals.iter().any(|one| one == number.digits()),
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    }
}

/// The parts of a JSON pointer.
fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// An id as one path part: everything but letters, digits and `-_.~` is percent-encoded.
fn segment(id: &str) -> String {
    super::client::encoded(id).to_string()
}

fn digest(list: &str, hashes: &[u64]) -> String {
    let mut sha = Sha256::new();
    // Two parents may have equal lists, and two stretches of days the same single row.
    sha.update(list);
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

fn malformed_list() -> SourceError {
    SourceError::Malformed { detail: "it is not JSON".to_owned() }
}

fn shape(detail: String) -> SourceError {
    SourceError::Shape { detail }
}
