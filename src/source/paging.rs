//! Decides whether a list continues after a page, and what proves its end. Pure.
//!
//! A list that just stops may be truncated: by a misspelt pointer, by a server that lost its cursor. So each end needs a
//! proof: an empty page, the flag, the count of all rows, a page shorter than a full one. Without one the end is in
//! doubt, and the walk reports why.

use bytes::Bytes;

use super::envelope::value_at;
use super::json::parse;
use super::pointer::{id_text, kind, shape};
use super::position::{Position, fill};
use super::problem::{SourceError, clean};
use crate::catalog::Definition;
use crate::catalog::definition::{Pages, Proof};
use crate::domain::Json;

/// Statuses with which many APIs answer a page after the last.
const USUAL_ENDS: [u16; 5] = [400, 404, 410, 416, 422];

/// The answer to a list call.
#[derive(Clone, Copy, Debug)]
pub struct ListResponse<'a> {
    pub body: &'a Bytes,
    /// The address in the header `Link` with `rel="next"`.
    pub next_link: Option<&'a str>,
    /// The digest of the page before.
    pub previous: Option<&'a str>,
}

/// Where the walk goes after a page of a list.
pub(super) struct AfterPage {
    /// The next page of the same list.
    pub(super) next: Option<Position>,
    /// Why there may be more rows although no page follows.
    pub(super) doubt: Option<String>,
}

impl AfterPage {
    /// After a page with this many rows.
    pub(super) fn after(
        definition: &Definition,
        position: &Position,
        answer: ListResponse<'_>,
        rows: usize,
    ) -> AfterPage {
        let (total, mut doubt) = match total(definition, answer.body) {
            Ok(total) => (total.or(position.total()), None),
            Err(error) => (position.total(), Some(doubt_of(error))),
        };
        match next_page(definition, position, answer, rows) {
            Ok(Some(mark)) => {
                return AfterPage { next: Some(position.after_page(definition, mark, rows, total)), doubt: None };
            }
            Ok(None) => {}
            Err(error) => doubt = doubt.or(Some(doubt_of(error))),
        }
        let end = End { definition, position, rows, total };
        AfterPage { next: None, doubt: doubt.or_else(|| end.doubt(Some(answer.body))) }
    }

    /// After an answer without rows that ends the list.
    pub(super) fn ended(definition: &Definition, position: &Position) -> AfterPage {
        let end = End { definition, position, rows: 0, total: position.total() };
        AfterPage { next: None, doubt: end.doubt(None) }
    }

    /// After an error status that ends the list; none: it is an error.
    pub(super) fn of_status(definition: &Definition, position: &Position, status: u16) -> Option<AfterPage> {
        let named = definition.list.ends.statuses.contains(&status);
        match status {
            // No server answers 204 to report a failure.
            204 if named || !position.is_first() => Some(AfterPage::ended(definition, position)),
            _ if position.is_first() => None,
            _ if named => Some(AfterPage::ended(definition, position)),
            _ if USUAL_ENDS.contains(&status) && definition.list.pages.style().can_pass_over_a_page() => {
                let what = format!("the page after {} rows was answered {status}", position.rows_before());
                let line = format!("status = [{status}]");
                Some(AfterPage { next: None, doubt: Some(unnamed(definition, &what, &line)) })
            }
            _ => None,
        }
    }
}

/// The doubt about an end that the definition does not name, with the line that would name it.
pub(super) fn unnamed(definition: &Definition, what: &str, line: &str) -> String {
    format!(
        "{what}; if that is how this API ends its lists, add end = {{ {line} }} to [resource.{}.list]",
        definition.name
    )
}

/// The end of a list, whose proof is looked for.
struct End<'a> {
    definition: &'a Definition,
    position: &'a Position,
    /// Rows of the last page.
    rows: usize,
    total: Option<u64>,
}

impl End<'_> {
    /// Why rows may be missing; none: the end is proved.
    fn doubt(&self, body: Option<&Bytes>) -> Option<String> {
        let Proof { total, more, size } = &self.definition.list.proof;
        let shown = self.position.rows_before().saturating_add(u64::try_from(self.rows).unwrap_or(u64::MAX));
        let mut is_proved = self.rows == 0;
        if let Some(at) = total {
            match self.total {
                Some(total) if shown < total => {
                    return Some(format!("the list ended after {shown} of the {total} rows that {at} counts"));
                }
                Some(_) => is_proved = true,
                None if self.rows == 0 => {}
                None => {
                    return Some(format!(
                        "no page has {at}, which the definition names to know the end of the list; is the pointer right?"
                    ));
                }
            }
        }
        if let (Some(at), Some(body)) = (more, body) {
            let found = value_at(body, at).and_then(|found| found.map(parse).transpose());
            match found {
                Ok(Some(Json::Bool(true))) => {
                    return Some(format!(
                        "{at} says that more rows follow, but the page has no next one{}",
                        self.place()
                    ));
                }
                Ok(Some(Json::Bool(false))) => is_proved = true,
                Ok(None | Some(Json::Null)) if self.rows == 0 => {}
                Ok(None) => {
                    return Some(format!(
                        "the last page has no {at}, which the definition names to know the end of the list; is the pointer right?"
                    ));
                }
                Ok(Some(other)) => return Some(format!("{at} is {}, not true or false", kind(&other))),
                Err(error) => return Some(doubt_of(error)),
            }
        }
        let size = (*size).filter(|size| !is_proved && u64::try_from(self.rows).is_ok_and(|rows| rows >= *size))?;
        let hint = if self.position.is_first() {
            "; is the pointer right?"
        } else {
            "; where the last page may be full, `total` or `more` in `pages` proves the end"
        };
        Some(format!("a full page ({} rows, and `size` is {size}) has no next one{}{hint}", self.rows, self.place()))
    }

    /// Where the next page would be given.
    fn place(&self) -> String {
        match &self.definition.list.pages {
            Pages::Cursor { next, .. } => format!(" at {}", next.join(" or ")),
            Pages::NextLink { at: Some(at) } => format!(" at {at}"),
            Pages::NextLink { at: None } => " in the header Link".to_owned(),
            Pages::Number { .. } | Pages::HasMoreFlag { .. } | Pages::Offset { .. } | Pages::None => String::new(),
        }
    }
}

/// The reason in an error about a page's continuation.
fn doubt_of(error: SourceError) -> String {
    match error {
        SourceError::Shape { detail } | SourceError::Malformed { detail } => detail,
        other => other.to_string(),
    }
}

/// The count of all rows, if the page has it.
fn total(definition: &Definition, body: &Bytes) -> Result<Option<u64>, SourceError> {
    let Some(at) = &definition.list.proof.total else { return Ok(None) };
    match value_at(body, at)?.map(parse).transpose()? {
        None | Some(Json::Null) => Ok(None),
        Some(value) => match id_text(&value).and_then(|text| text.parse().ok()) {
            Some(total) => Ok(Some(total)),
            None => Err(shape(format!("{at} is {}, not a count", kind(&value)))),
        },
    }
}

/// The mark of the next page of the same list, if there is or may be one.
fn next_page(
    definition: &Definition,
    position: &Position,
    answer: ListResponse<'_>,
    rows: usize,
) -> Result<Option<Option<String>>, SourceError> {
    let mark = match &definition.list.pages {
        Pages::None => return Ok(None),
        Pages::Number { .. } | Pages::Offset { .. } => return Ok((rows > 0).then_some(None)),
        Pages::HasMoreFlag { flag, .. } => {
            return match value_at(answer.body, flag)?.map(parse).transpose()? {
                Some(Json::Bool(false) | Json::Null) => Ok(None),
                None if rows == 0 => Ok(None),
                None => Err(shape(format!("{flag} is missing from a page with rows"))),
                Some(Json::Bool(true)) => Ok(Some(None)),
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
        mark => Ok(mark.map(Some)),
    }
}

/// The parameters of the next page's address. Only the same list may follow: a call elsewhere would count
/// against another rule, and send the token to another path.
fn link_query(definition: &Definition, position: &Position, link: &str) -> Result<String, SourceError> {
    // Its parameters are not shown: they may contain a signature or a key.
    let shown = link.split_once('?').map_or(link, |(path, _)| path);
    let wrong = || shape(format!("the address of the next page leads elsewhere: {}", clean(shown)));
    let path = fill(&definition.list.path, position.parent.as_deref(), "");
    // The host is always the configured one: only path and parameters of the link are used.
    let base = url::Url::parse("https://same.invalid").map_err(|_| wrong())?.join(&path).map_err(|_| wrong())?;
    let next = base.join(link).map_err(|_| wrong())?;
    // Servers differ in what they escape.
    let plain = |path: &str| percent_encoding::percent_decode_str(path).collect::<Vec<u8>>();
    if !plain(next.path()).ends_with(&plain(base.path())) {
        return Err(wrong());
    }
    Ok(next.query().unwrap_or_default().to_owned())
}

/// The text or number at a pointer; none: absent, null or empty.
fn text_at(body: &Bytes, pointer: &str) -> Result<Option<String>, SourceError> {
    let Some(raw) = value_at(body, pointer)? else { return Ok(None) };
    match parse(raw)? {
        Json::Null => Ok(None),
        value => match id_text(&value) {
            Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            None => Err(shape(format!("{pointer} is {}, not a text", kind(&value)))),
        },
    }
}
