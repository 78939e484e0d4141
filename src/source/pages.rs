//! Builds calls from a definition, and parses bodies into rows and documents. Pure.
//!
//! Called by the sync step. An end of a list is not an error, and an error is never the end of a
//! list; `paging` says what proves an end.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::envelope::{FoundRows, find_rows, value_at};
use super::json::{self, hash};
use super::outcome::Call;
pub use super::paging::ListResponse;
use super::paging::{AfterPage, unnamed};
pub use super::pointer::id_text;
use super::pointer::{each_value, kind, shape, tokens};
use super::position::Position;
pub use super::position::fill;
use super::problem::SourceError;
pub use super::rows::ID_MAX;
use super::rows::{ParsedRows, time_at};
use crate::catalog::Definition;
use crate::catalog::coverage::{FieldDrift, tolerated};
use crate::catalog::definition::{Refresh, Until};
use crate::domain::json::{Reading, Tolerance, Tolerated, without_mark};
use crate::domain::{FetchedDocument, Json, ListParams, Next, Page, Timestamp};

/// A list page or a document as parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    pub value: T,
    /// What no column takes of the documents in it.
    pub drift: Vec<FieldDrift>,
}

/// The call for one list page, made now.
pub fn list_call(definition: &Definition, combination: &ListParams, position: &Position, now: Timestamp) -> Call {
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

/// Parses a list page. `next_parent` returns the parent after one.
///
/// # Errors
/// [`SourceError::Malformed`] when it is not JSON; [`SourceError::Shape`] when it is, but is neither
/// a page nor an end.
pub fn page(
    definition: &Definition,
    position: &Position,
    answer: ListResponse<'_>,
    next_parent: impl FnOnce(&str) -> Option<String>,
) -> Result<Parsed<Page>, SourceError> {
    let ends = &definition.list.ends;
    let (raw, doubt) = match find_rows(definition, answer.body)? {
        FoundRows::Rows(rows) => (rows, None),
        FoundRows::Nothing => (Vec::new(), None),
        FoundRows::Null if ends.null => (Vec::new(), None),
        FoundRows::EmptyArray if ends.empty_array => (Vec::new(), None),
        FoundRows::Null => (Vec::new(), Some(other_end(definition, position, "null, not an array", "null = true")?)),
        FoundRows::EmptyArray => {
            (Vec::new(), Some(other_end(definition, position, "missing from a bare []", "empty_array = true")?))
        }
    };
    let after = AfterPage::after(definition, position, answer, raw.len());
    let ParsedRows { rows, rejected, hashes, mut left, .. } = ParsedRows::read(definition, position, answer.body, &raw);
    left.extend(marked(answer.body));
    let digest = digest(&position.list(), &hashes);
    if ends.repeat && !position.is_first() && !raw.is_empty() && answer.previous == Some(digest.as_str()) {
        return Ok(ended(definition, position, AfterPage::ended(definition, position), next_parent));
    }
    let next = after.next.or_else(|| position.next_list(definition, next_parent)).map(Position::answered);
    let (next, doubt) = (next_step(next), doubt.or(after.doubt));
    let page = Page { rows, rejected, digest, next, doubt };
    Ok(Parsed { value: page, drift: left.into_iter().collect() })
}

/// Handles an end of list that some APIs use and the definition does not name: an error on the first page, a doubtful
/// end on a later one.
fn other_end(definition: &Definition, position: &Position, what: &str, line: &str) -> Result<String, SourceError> {
    let reason = unnamed(definition, &format!("{} is {what}", definition.list.items), line);
    if position.is_first() { Err(shape(reason)) } else { Ok(reason) }
}

/// The empty last page that an error status means, where a list ends with it; none: it is an error.
pub fn end_by_status(
    definition: &Definition,
    position: &Position,
    error: &SourceError,
    next_parent: impl FnOnce(&str) -> Option<String>,
) -> Option<Parsed<Page>> {
    let after = AfterPage::of_status(definition, position, error.status()?)?;
    Some(ended(definition, position, after, next_parent))
}

/// The page after one that cannot be read, where pages are numbered or counted. `is_alone`: whether the API answers
/// other calls.
pub fn page_behind(
    definition: &Definition,
    position: &Position,
    error: &SourceError,
    is_alone: impl FnOnce() -> bool,
) -> Option<Next> {
    let is_about_the_page = matches!(
        error,
        SourceError::Malformed { .. }
            | SourceError::Shape { .. }
            | SourceError::TooLarge { .. }
            | SourceError::Echo { .. }
    );
    let is_away =
        matches!(error, SourceError::Unavailable { .. } | SourceError::TimedOut | SourceError::Interrupted(_));
    // An API that is down answers no page; on the first page other calls show whether it is.
    let may_be_passed = is_about_the_page || is_away && (!position.is_first() || is_alone());
    if !definition.list.pages.style().can_pass_over_a_page() || !may_be_passed {
        return None;
    }
    let rows = definition.list.pages.size().map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
    let next = position.after_page(definition, None, rows, position.total());
    Some(next_step(Some(next)))
}

/// A page without rows that ends its list; the walk continues with the next list.
fn ended(
    definition: &Definition,
    position: &Position,
    after: AfterPage,
    next_parent: impl FnOnce(&str) -> Option<String>,
) -> Parsed<Page> {
    let next = position.next_list(definition, next_parent).map(Position::answered);
    let page = Page { doubt: after.doubt, ..Page::empty(next_step(next)) };
    Parsed { value: page, drift: Vec::new() }
}

/// Result for a child list whose parent returned 404: an empty page. The walk continues with the next list. It is in
/// doubt if no list of all parents was answered: their path may be wrong.
pub fn no_list(
    definition: &Definition,
    position: &Position,
    next_parent: impl FnOnce(&str) -> Option<String>,
) -> Parsed<Page> {
    let next = position.next_list(definition, next_parent);
    let doubt = (next.is_none() && !position.was_answered()).then(|| {
        format!(
            "the API knows no list at {} for any of the documents that it belongs to (404): is resource.{}.list.path right?",
            definition.list.path, definition.name
        )
    });
    Parsed { value: Page { doubt, ..Page::empty(next_step(next)) }, drift: Vec::new() }
}

fn next_step(next: Option<Position>) -> Next {
    next.map_or(Next::End, |next| Next::More { cursor: next.text() })
}

/// Parses a document that was requested by `id`. `first_seen` returns when its id was first
/// seen, if it was; called only for documents without a time of their own.
///
/// # Errors
/// [`SourceError::Malformed`] when it is not JSON; [`SourceError::Shape`] when it is no object, has
/// no id, or is the document of another id.
pub fn detail(
    definition: &Definition,
    id: &str,
    body: &Bytes,
    first_seen: impl FnOnce() -> Option<Timestamp>,
    now: Timestamp,
) -> Result<Parsed<FetchedDocument>, SourceError> {
    let at = definition.detail.as_ref().map_or("", |detail| detail.document.as_str());
    if at.is_empty() {
        return document(definition, id, body, first_seen, now);
    }
    let found = value_at(body, at)?
        .ok_or_else(|| shape(format!("the answer has no {at}; is `document` in the definition right?")))?;
    let mut read = document(definition, id, &body.slice_ref(found), first_seen, now)?;
    read.drift.extend(marked(body));
    Ok(read)
}

/// The byte order mark of an answer, if it has one.
fn marked(body: &[u8]) -> impl Iterator<Item = FieldDrift> {
    let noted = Tolerated { what: Tolerance::ByteOrderMark, path: Vec::new() };
    tolerated(without_mark(body).1.then_some(noted).into_iter().collect())
}

/// Parses a document without an envelope, as it is stored.
///
/// # Errors
/// As [`detail`].
pub fn document(
    definition: &Definition,
    id: &str,
    body: &Bytes,
    first_seen: impl FnOnce() -> Option<Timestamp>,
    now: Timestamp,
) -> Result<Parsed<FetchedDocument>, SourceError> {
    let Reading { value: document, tolerated: noted, normalised } = json::read(body)?;
    if !matches!(document, Json::Object(_)) {
        return Err(shape(format!("the document is {}, not an object", kind(&document))));
    }
    // A gateway's own JSON must not replace a document that is stored already.
    let Some(found) = document.pointer(&definition.id) else {
        return Err(shape(format!("the document has no {}", definition.id)));
    };
    if id_text(found).as_deref() != Some(definition.split_id(id).1) {
        return Err(shape(format!("the document's {} is not the id that was requested", definition.id)));
    }
    let rule = definition.detail.as_ref().and_then(|detail| detail.refresh.as_ref());
    let (hash, mut left) = (hash(&document), definition.coverage.drift(&document));
    left.extend(tolerated(noted));
    let time = rule.and_then(|rule| time_at(definition, rule.time.as_deref()?, &document, &mut left));
    let refresh_after = rule.and_then(|rule| refresh_after(rule, &document, time.or_else(first_seen), now));
    let facets = definition.facets_for_store(id, &document);
    drop(document);
    let body = normalised.map_or_else(|| body.clone(), Bytes::from);
    Ok(Parsed { value: FetchedDocument { body, hash, refresh_after, facets }, drift: left })
}

/// Time until the next read. Grows with the age, so that one document is read about twice for each
/// doubling of its age.
fn refresh_after(rule: &Refresh, document: &Json<'_>, since: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    if rule.until.as_ref().is_some_and(|until| is_final(until, document)) {
        return None;
    }
    let age = now.since(since.unwrap_or(now));
    (age <= rule.max_age).then(|| rule.every.max(age / 2))
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

fn is_one_of(value: &Json<'_>, finals: &[String]) -> bool {
    match value {
        Json::Text(text) => finals.iter().any(|one| one == text),
        Json::Bool(flag) => finals.contains(&flag.to_string()),
        Json::Number(number) => finals.iter().any(|one| one == number.digits()),
        Json::Null | Json::Array(_) | Json::Object(_) => false,
    }
}

fn digest(list: &str, hashes: &[u64]) -> String {
    let mut sha = Sha256::new();
    // Two parents may have equal lists, and two windows of days the same single row.
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
