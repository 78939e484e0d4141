//! The position of a walk: which parent's list, which window of days, which page. Pure.
//!
//! A walk visits the lists of all parents, in each the windows of days, oldest first (a document that changes
//! meanwhile moves to a later one) and maybe one list without days, and in each all pages. A position is stored as text
//! with the job of its page and has all that the call needs: a walk that resumes tomorrow has the same days.

use std::time::Duration;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::problem::SourceError;
use crate::catalog::Definition;
use crate::catalog::definition::{Pages, Recent, Span, Windows};
use crate::domain::{Checkpoint, ListParams, Mode, Timestamp};

/// How long the call of a walk over the last minutes may be delayed without missing changes.
const CALL_WAIT: Duration = Duration::from_secs(300);

/// What the first position of a walk depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub mode: Mode,
    pub started_at: Timestamp,
    /// Lists changes since then; none: everything that the list reaches.
    pub since: Option<Timestamp>,
    /// The first parent's id, where each parent has a list.
    pub parent: Option<String>,
}

/// One call of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The parent whose list it is.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// First and last day of the window; none: the list without days, which comes last.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    window: Option<(Date, Date)>,
    /// First and last day of all windows.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    days: Option<(Date, Date)>,
    /// Lists what changed since then, instead of windows.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Pages before this one, of the same parent and window.
    #[serde(rename = "n", default)]
    pages_before: u64,
    /// Rows before this page, of the same parent and window; counted where pages have row offsets, or where the total of
    /// rows proves the end.
    #[serde(rename = "o", default, skip_serializing_if = "crate::domain::is_default")]
    offset: u64,
    /// The cursor of this page, or the parameters of its address.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    /// Total of rows in the list, by its latest page that has one.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// The list of some parent was answered. A path that is wrong is "not found" for every parent.
    #[serde(rename = "a", default, skip_serializing_if = "crate::domain::is_default")]
    answered: bool,
}

impl Position {
    /// Reads the position of a job: its stored text, or the page of this number (from 1) in a list of plain pages.
    ///
    /// # Errors
    /// [`SourceError::Shape`] for a text that [`Position::text`] did not write.
    pub fn read(page: u64, cursor: Option<&str>) -> Result<Position, SourceError> {
        match cursor {
            None => Ok(Position { pages_before: page.saturating_sub(1), ..Position::default() }),
            Some(text) => serde_json::from_str(text)
                .map_err(|_| SourceError::Shape { detail: "the walk's stored position cannot be read".into() }),
        }
    }

    /// As a job stores it; none where the page number is enough.
    pub fn text(&self) -> Option<String> {
        let plain = Position { pages_before: self.pages_before, ..Position::default() };
        // Strings, numbers and dates can always be serialised.
        (*self != plain).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// The first call of a walk.
    pub fn begin(definition: &Definition, walk: Walk) -> Position {
        let news_since = walk.since.filter(|_| walk.mode == Mode::Incremental);
        match (&definition.list.recent, news_since) {
            (Some(_), Some(since)) => {
                let since = Position { parent: walk.parent, since: Some(since), ..Position::default() };
                since.reached(definition, walk.started_at)
            }
            _ => Position::by_days(definition, walk.parent, news_since, walk.started_at),
        }
    }

    fn by_days(definition: &Definition, parent: Option<String>, since: Option<Timestamp>, now: Timestamp) -> Position {
        let list = &definition.list;
        let days = list.windows.as_ref().and_then(|windows| days(windows, list.overlap, since, now));
        let window =
            list.windows.as_ref().zip(days).map(|(windows, (from, until))| (from, windows.end(from).min(until)));
        Position { parent, days, window, ..Position::default() }
    }

    /// The same position; or, once the last minutes no longer reach back far enough, the first window of days since.
    pub fn reached(self, definition: &Definition, now: Timestamp) -> Position {
        match (&definition.list.recent, self.since) {
            (Some(recent), Some(since)) if minutes(recent, since, now).is_none() => {
                Position::by_days(definition, self.parent, Some(since), now)
            }
            _ => self,
        }
    }

    /// Identifies the list within its walk: parent and days.
    pub(super) fn list(&self) -> String {
        Position { pages_before: 0, offset: 0, mark: None, total: None, answered: false, ..self.clone() }
            .text()
            .unwrap_or_default()
    }

    /// The parameters of a call made now: the last minutes are counted back from the call.
    pub(super) fn query(
        &self,
        definition: &Definition,
        combination: &ListParams,
        now: Timestamp,
    ) -> Vec<(String, String)> {
        let list = &definition.list;
        let mut query = combination.0.clone();
        let of_page = match &list.pages {
            Pages::Number { parameter, first } | Pages::HasMoreFlag { parameter, first, .. } => {
                vec![(parameter, (first + self.pages_before).to_string())]
            }
            Pages::Offset { parameter, limit, size } => {
                let limit = limit.iter().map(|limit| (limit, size.to_string()));
                [(parameter, self.offset.to_string())].into_iter().chain(limit).collect()
            }
            Pages::Cursor { parameter, .. } => self.mark.iter().map(|mark| (parameter, mark.clone())).collect(),
            Pages::NextLink { .. } => match &self.mark {
                // The address of the next page has all parameters.
                Some(mark) => return url::form_urlencoded::parse(mark.as_bytes()).into_owned().collect(),
                None => Vec::new(),
            },
            Pages::None => Vec::new(),
        };
        let mut add = |name: &String, value: String| query.push((name.clone(), value));
        if let (Some(recent), Some(since)) = (&list.recent, self.since) {
            let most = || u64::try_from(recent.max.as_millis() / 60_000).unwrap_or(u64::MAX);
            add(&recent.parameter, minutes(recent, since, now).unwrap_or_else(most).to_string());
        }
        if let (Some(windows), Some((first, last))) = (&list.windows, self.window) {
            match &windows.span {
                Span::Day { parameter } => add(parameter, first.to_string()),
                Span::Days { from, to, .. } => {
                    add(from, first.to_string());
                    add(to, last.to_string());
                }
            }
        }
        of_page.into_iter().for_each(|(name, value)| add(name, value));
        query
    }

    /// The page after this one, which has this many rows. They count, not the number requested: a server may send
    /// fewer.
    pub(super) fn after_page(
        &self,
        definition: &Definition,
        mark: Option<String>,
        rows: usize,
        total: Option<u64>,
    ) -> Position {
        let list = &definition.list;
        let counts = list.pages.style().counts_rows() || list.proof.total.is_some();
        let rows = if counts { u64::try_from(rows).unwrap_or(u64::MAX) } else { 0 };
        Position {
            pages_before: self.pages_before + 1,
            mark,
            offset: self.offset.saturating_add(rows),
            total,
            ..self.clone()
        }
    }

    /// The first page of its list.
    pub fn is_first(&self) -> bool {
        self.pages_before == 0
    }

    /// The same position, once a list of a parent was answered.
    pub(super) fn answered(self) -> Position {
        Position { answered: self.parent.is_some(), ..self }
    }

    /// Whether the list of some parent was answered on this walk.
    pub(super) fn was_answered(&self) -> bool {
        self.answered
    }

    /// Number of rows on the pages before this one, where they are counted.
    pub(super) fn rows_before(&self) -> u64 {
        self.offset
    }

    /// Total of rows in the list, by the pages before this one.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether the mark of the next page leads to this page again.
    pub(super) fn is_at(&self, mark: &str) -> bool {
        self.mark.as_deref() == Some(mark)
    }

    /// Where the walk continues after the last page of a list: the next window of days, else the next parent's list.
    pub(super) fn next_list(
        &self,
        definition: &Definition,
        next_parent: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Position> {
        let fresh = Position { pages_before: 0, offset: 0, mark: None, total: None, ..self.clone() };
        if let (Some(windows), Some((_, until)), Some((_, last))) = (&definition.list.windows, self.days, self.window) {
            if last < until
                && let Ok(from) = last.tomorrow()
            {
                return Some(Position { window: Some((from, windows.end(from).min(until))), ..fresh });
            }
            if windows.undated {
                return Some(Position { window: None, ..fresh });
            }
        }
        let parent = next_parent(self.parent.as_deref()?)?;
        let windows = definition.list.windows.as_ref();
        let window = windows.zip(self.days).map(|(windows, (from, until))| (from, windows.end(from).min(until)));
        Some(Position { parent: Some(parent), window, ..fresh })
    }
}

/// Fills the ids into a path.
pub fn fill(path: &str, parent: Option<&str>, id: &str) -> String {
    let parent = parent.map(segment).unwrap_or_default();
    path.replace("{parent}", &parent).replace("{id}", &segment(id))
}

/// An id as one path segment: everything but letters, digits and `-_.~` is percent-encoded.
fn segment(id: &str) -> String {
    super::http::encoded(id).to_string()
}

impl Windows {
    /// The last day of a window.
    fn end(&self, from: Date) -> Date {
        match self.span {
            Span::Day { .. } => from,
            Span::Days { days, .. } => from.saturating_add(i64::from(days.saturating_sub(1)).days()),
        }
    }
}

/// How many lists a walk visits, per parent: its windows of days, or one.
pub fn stretches(definition: &Definition, walk: Walk) -> u64 {
    let mut position = Position::begin(definition, walk);
    let mut lists = 1;
    while let Some(next) = position.next_list(definition, |_| None) {
        position = next;
        lists += 1;
    }
    lists
}

/// Since when a walk that starts now lists changes: since the walk before the last one. So each stretch of time is listed
/// twice, and rows that a list left out of one answer are found by the next walk.
pub fn news_since(definition: &Definition, walked: &Checkpoint, now: Timestamp) -> Option<Timestamp> {
    let last = walked.walked_at?;
    let before = walked.walked_before.map_or(last, |before| before.min(last));
    match &definition.list.recent {
        // As far back as the last minutes reach, because windows of days cost many more calls. Unless the last walk
        // needed those.
        Some(recent) if minutes(recent, before, last).is_some() => {
            let reach = recent.max.saturating_sub(recent.margin + CALL_WAIT);
            Some(before.max(now - reach).min(last))
        }
        _ => Some(before),
    }
}

/// The minutes to request, when the last walk is recent enough.
fn minutes(recent: &Recent, since: Timestamp, now: Timestamp) -> Option<u64> {
    let age = now.checked_since(since)?;
    let minutes = (age + recent.margin).as_millis().div_ceil(60_000).max(1);
    (minutes * 60_000 <= recent.max.as_millis()).then(|| u64::try_from(minutes).unwrap_or(u64::MAX))
}

/// The days of a walk: all within the reach of the list, or those since the last walk.
fn days(windows: &Windows, overlap: Duration, since: Option<Timestamp>, now: Timestamp) -> Option<(Date, Date)> {
    let day = |at: Timestamp| {
        Some(windows.timezone.to_datetime(jiff::Timestamp::from_millisecond(at.as_millis()).ok()?).date())
    };
    let today = day(now)?;
    let reach = today.saturating_sub(i64::from(windows.reach_days).days());
    let from = since.and_then(|since| day(since - overlap));
    Some((from.map_or(reach, |from| from.clamp(reach, today)), today))
}

#[cfg(test)]
#[path = "position_tests.rs"]
mod tests;
