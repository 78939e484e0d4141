//! Where a walk stands within a list: which parent's, which stretch of days, which page. Pure.
//!
//! A walk goes through the lists of all parents, in each through the stretches of days, oldest first (what changes
//! meanwhile moves to a later one) and maybe once without days, and in each through the pages. A position is kept with
//! the job of its page as text, and says all that the call needs: a walk that goes on tomorrow has the same days.

use std::time::Duration;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

use super::problem::SourceError;
use crate::catalog::Definition;
use crate::catalog::definition::{Pages, Recent, Span, Windows};
use crate::domain::clock::Millis;
use crate::domain::{Checkpoint, Combination, Mode};

/// How long the call of a walk for the last minutes may wait for its turn, and still ask for what was meant.
const CALL_WAIT: Duration = Duration::from_secs(300);

/// What the beginning of a walk depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    pub mode: Mode,
    pub started_at: Millis,
    /// News are asked for since then; none: it goes over everything that the list reaches.
    pub since: Option<Millis>,
    /// The first parent's id, for a list that has one for each parent.
    pub parent: Option<String>,
}

/// One call of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Whose list.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// First and last day of the stretch; none: the list without days, which comes after them.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    window: Option<(Date, Date)>,
    /// First and last day of all stretches.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    days: Option<(Date, Date)>,
    /// Asks for what changed since then, instead of stretches.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    since: Option<Millis>,
    /// Pages before this one, of the same parent and stretch.
    #[serde(rename = "n", default)]
    turn: u64,
    /// Rows before this page, of the same parent and stretch; counted where pages hang together by them, or where their
    /// total proves the end.
    #[serde(rename = "o", default, skip_serializing_if = "crate::domain::is_default")]
    offset: u64,
    /// The cursor of this page, or the parameters of its address.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    /// How many rows the list has, as its last page that said it has it.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

impl Position {
    /// The position of a job: its own, or that of the page of so much, from 1, in a list that is nothing but pages.
    ///
    /// # Errors
    /// [`SourceError::Shape`] for a text that no position wrote.
    pub fn read(page: u64, cursor: Option<&str>) -> Result<Position, SourceError> {
        match cursor {
            None => Ok(Position { turn: page.saturating_sub(1), ..Position::default() }),
            Some(text) => serde_json::from_str(text)
                .map_err(|_| SourceError::Shape { detail: "the walk's own note of its place cannot be read".into() }),
        }
    }

    /// How a job keeps it; none where the page's number says it all.
    pub fn text(&self) -> Option<String> {
        let plain = Position { turn: self.turn, ..Position::default() };
        // It holds texts, numbers and dates, which always can be written.
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

    fn by_days(definition: &Definition, parent: Option<String>, since: Option<Millis>, now: Millis) -> Position {
        let list = &definition.list;
        let days = list.windows.as_ref().and_then(|windows| days(windows, list.overlap, since, now));
        let window =
            list.windows.as_ref().zip(days).map(|(windows, (from, until))| (from, windows.end(from).min(until)));
        Position { parent, days, window, ..Position::default() }
    }

    /// The same place; or, where the last minutes do not reach back far enough any more, the first of the days since.
    pub fn reached(self, definition: &Definition, now: Millis) -> Position {
        match (&definition.list.recent, self.since) {
            (Some(recent), Some(since)) if minutes(recent, since, now).is_none() => {
                Position::by_days(definition, self.parent, Some(since), now)
            }
            _ => self,
        }
    }

    /// Tells the lists of a walk apart: whose it is, and of which days.
    pub(super) fn list(&self) -> String {
        Position { turn: 0, offset: 0, mark: None, total: None, ..self.clone() }.text().unwrap_or_default()
    }

    /// The parameters of the call, if it is made now: what changed in the last minutes is counted from the call on.
    pub(super) fn query(
        &self,
        definition: &Definition,
        combination: &Combination,
        now: Millis,
    ) -> Vec<(String, String)> {
        let list = &definition.list;
        let mut query = combination.0.clone();
        if let (Pages::NextLink { .. }, Some(mark)) = (&list.pages, &self.mark) {
            // The address of the next page says all parameters.
            return url::form_urlencoded::parse(mark.as_bytes()).into_owned().collect();
        }
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
        match &list.pages {
            Pages::Number { parameter, first } | Pages::HasMoreFlag { parameter, first, .. } => {
                add(parameter, (first + self.turn).to_string());
            }
            Pages::Offset { parameter, limit, size } => {
                add(parameter, self.offset.to_string());
                limit.iter().for_each(|limit| add(limit, size.to_string()));
            }
            Pages::Cursor { parameter, .. } => self.mark.iter().for_each(|mark| add(parameter, mark.clone())),
            Pages::NextLink { .. } | Pages::None => {}
        }
        query
    }

    /// The page after this one of the same list, which shows this many rows. Those count, and not what was asked for: a
    /// server may give fewer.
    pub(super) fn after_page(
        &self,
        definition: &Definition,
        mark: Option<String>,
        rows: usize,
        total: Option<u64>,
    ) -> Position {
        let list = &definition.list;
        let counts = matches!(list.pages, Pages::Offset { .. }) || list.proof.total.is_some();
        let rows = if counts { u64::try_from(rows).unwrap_or(u64::MAX) } else { 0 };
        Position { turn: self.turn + 1, mark, offset: self.offset.saturating_add(rows), total, ..self.clone() }
    }

    /// The first page of its list.
    pub fn is_first(&self) -> bool {
        self.turn == 0
    }

    /// Rows on the pages before this one, where they are counted.
    pub(super) fn rows_before(&self) -> u64 {
        self.offset
    }

    /// How many rows the pages before this one said that the list has.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Whether a page of this position leads to the same one again.
    pub(super) fn is_at(&self, mark: &str) -> bool {
        self.mark.as_deref() == Some(mark)
    }

    /// Where the walk goes on after the last page of a list: the next stretch of days, else the next parent's list.
    pub(super) fn next_list(
        &self,
        definition: &Definition,
        next_parent: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Position> {
        let fresh = Position { turn: 0, offset: 0, mark: None, total: None, ..self.clone() };
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

/// A path with the ids in their places.
pub fn fill(path: &str, parent: Option<&str>, id: &str) -> String {
    let parent = parent.map(segment).unwrap_or_default();
    path.replace("{parent}", &parent).replace("{id}", &segment(id))
}

/// An id as one path part: everything but letters, digits and `-_.~` is percent-encoded.
fn segment(id: &str) -> String {
    super::client::encoded(id).to_string()
}

impl Windows {
    /// The last day of a stretch.
    fn end(&self, from: Date) -> Date {
        match self.span {
            Span::Day { .. } => from,
            Span::Days { days, .. } => from.saturating_add(i64::from(days.saturating_sub(1)).days()),
        }
    }
}

/// How many lists a walk goes through, of one parent: its stretches of days, or one.
pub fn stretches(definition: &Definition, walk: Walk) -> u64 {
    let mut position = Position::begin(definition, walk);
    let mut lists = 1;
    while let Some(next) = position.next_list(definition, |_| None) {
        position = next;
        lists += 1;
    }
    lists
}

/// Since when a walk that starts now asks for news: since the walk before the last one. A list that for one call shows
/// nothing, or not all, is so asked once more for the same, and what it kept to itself is found by the next walk.
pub fn news_since(definition: &Definition, walked: &Checkpoint, now: Millis) -> Option<Millis> {
    let last = walked.walked_at?;
    let before = walked.walked_before.map_or(last, |before| before.min(last));
    match &definition.list.recent {
        // As far back as the last minutes reach: days would be many calls more. Unless the last walk had to ask for
        // days.
        Some(recent) if minutes(recent, before, last).is_some() => {
            let reach = recent.max.saturating_sub(recent.margin + CALL_WAIT);
            let reach = i64::try_from(reach.as_millis()).unwrap_or(i64::MAX);
            Some(before.max(now.saturating_sub(reach)).min(last))
        }
        _ => Some(before),
    }
}

/// The minutes to ask for, when the last walk is recent enough.
fn minutes(recent: &Recent, since: Millis, now: Millis) -> Option<u64> {
    let age = Duration::from_millis(u64::try_from(now - since).ok()?);
    let minutes = (age + recent.margin).as_millis().div_ceil(60_000).max(1);
    (minutes * 60_000 <= recent.max.as_millis()).then(|| u64::try_from(minutes).unwrap_or(u64::MAX))
}

/// The days of a walk: all that the list reaches, or those since the last walk.
fn days(windows: &Windows, overlap: Duration, since: Option<Millis>, now: Millis) -> Option<(Date, Date)> {
    let day = |at: Millis| Some(windows.timezone.to_datetime(Timestamp::from_millisecond(at).ok()?).date());
    let today = day(now)?;
    let reach = today.saturating_sub(i64::from(windows.reach_days).days());
    let overlap = i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX);
    let from = since.and_then(|since| day(since.saturating_sub(overlap)));
    Some((from.map_or(reach, |from| from.clamp(reach, today)), today))
}

#[cfg(test)]
mod tests {
    use super::{Position, Walk, news_since};
    use crate::catalog::Definition;
    use crate::domain::{Checkpoint, Combination, Mode};

    fn definition(list: &str) -> Definition {
        let text = format!("id = \"/id\"\nlist = {{ path = \"/things\", items = \"/things\", {list} }}\ntable = {{}}");
        crate::catalog::reader::read("things", &toml::from_str(&text).unwrap()).unwrap()
    }

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    fn walk(mode: Mode, now: &str, before: Option<&str>) -> Walk {
        Walk { mode, started_at: at(now), since: before.map(at), parent: None }
    }

    fn asked(definition: &Definition, position: &Position, now: i64) -> String {
        let query = position.query(definition, &Combination::default(), now);
        query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    /// The calls of a walk in which each list has one page.
    fn calls(definition: &Definition, walk: Walk) -> Vec<String> {
        let now = walk.started_at;
        let mut position = Some(Position::begin(definition, walk));
        let mut calls = Vec::new();
        while let Some(here) = position {
            calls.push(asked(definition, &here, now));
            // As a job keeps it.
            let here = Position::read(1, here.text().as_deref()).unwrap();
            position = here.next_list(definition, |_| None);
        }
        calls
    }

    const DAY: &str = "pages = { style = \"number\", parameter = \"page\" }, overlap = \"10min\", \
        windows = { day = \"changed\", reach = \"3d\", timezone = \"Europe/Amsterdam\" }";

    #[test]
    fn a_whole_walk_goes_through_the_days_oldest_first_and_one_for_news_begins_at_the_last() {
        let days = definition(DAY);
        // 23:30 in Amsterdam is still the same day, 00:30 the next.
        let whole = calls(&days, walk(Mode::Full, "2026-11-25T23:30:00Z", None));
        assert_eq!(
            whole,
            [
                "changed=2026-11-23&page=1",
                "changed=2026-11-24&page=1",
                "changed=2026-11-25&page=1",
                "changed=2026-11-26&page=1"
            ]
        );
        let news = |before| calls(&days, walk(Mode::Incremental, "2026-11-25T12:00:00Z", Some(before)));
        assert_eq!(news("2026-11-25T10:00:00Z"), ["changed=2026-11-25&page=1"]);
        assert_eq!(news("2026-11-24T23:05:00Z"), ["changed=2026-11-24&page=1", "changed=2026-11-25&page=1"], "overlap");
        assert_eq!(news("2025-01-01T00:00:00Z").len(), 4, "no further back than the list reaches");
        assert_eq!(news("2026-11-27T00:00:00Z"), ["changed=2026-11-25&page=1"], "a clock that was set back");
    }

    #[test]
    fn what_no_day_shows_is_asked_for_after_the_days_once_for_each_parent() {
        let undated = definition(&DAY.replace("reach = \"3d\"", "reach = \"1d\", undated = true"));
        let whole = calls(&undated, walk(Mode::Full, "2026-11-25T12:00:00Z", None));
        assert_eq!(whole, ["changed=2026-11-24&page=1", "changed=2026-11-25&page=1", "page=1"]);
        let mut here = Position::begin(
            &undated,
            Walk { parent: Some("a".into()), ..walk(Mode::Full, "2026-11-25T12:00:00Z", None) },
        );
        let mut seen = Vec::new();
        loop {
            seen.push((here.parent.clone().unwrap(), here.list(), asked(&undated, &here, 0)));
            let Some(next) = here.next_list(&undated, |parent| (parent == "a").then(|| "b".to_owned())) else { break };
            here = next;
        }
        let told: Vec<String> = seen.iter().map(|(parent, _, asked)| format!("{parent} {asked}")).collect();
        let days = ["changed=2026-11-24&page=1", "changed=2026-11-25&page=1", "page=1"];
        assert_eq!(told, ["a", "b"].map(|parent| days.map(|day| format!("{parent} {day}"))).concat());
        let lists: std::collections::BTreeSet<&String> = seen.iter().map(|(_, list, _)| list).collect();
        assert_eq!(lists.len(), 6, "each list is told apart");
    }

    #[test]
    fn stretches_of_several_days_meet_without_a_gap_and_end_today() {
        let text = "pages = { style = \"none\" }, windows = { from = \"a\", to = \"b\", days = 31, reach = \"65d\" }";
        let whole = calls(&definition(text), walk(Mode::Full, "2026-11-25T12:00:00Z", None));
        assert_eq!(whole, ["a=2026-09-21&b=2026-10-21", "a=2026-10-22&b=2026-11-21", "a=2026-11-22&b=2026-11-25"]);
    }

    #[test]
    fn what_changed_in_the_last_minutes_is_asked_for_when_that_is_enough() {
        let recent = definition(&format!("{DAY}, recent = {{ parameter = \"minutes\", max = \"60min\" }}"));
        let news = |before| calls(&recent, walk(Mode::Incremental, "2026-11-25T12:00:00Z", Some(before)));
        assert_eq!(news("2026-11-25T11:45:00Z"), ["minutes=17&page=1"]);
        assert_eq!(news("2026-11-25T11:44:59Z"), ["minutes=18&page=1"]);
        assert_eq!(news("2026-11-25T11:02:00Z"), ["minutes=60&page=1"]);
        assert_eq!(news("2026-11-25T11:01:59Z"), ["changed=2026-11-25&page=1"]);
        assert_eq!(calls(&recent, walk(Mode::Full, "2026-11-25T12:00:00Z", Some("2026-11-25T11:45:00Z"))).len(), 4);
    }

    #[test]
    fn news_are_asked_for_once_more() {
        let since = |list: &str, last: &str, before: Option<&str>| {
            let walked_before = before.map(at);
            let walked = Checkpoint { walked_at: Some(at(last)), walked_before, ..Checkpoint::default() };
            news_since(&definition(list), &walked, at("2026-11-25T12:00:00Z")).unwrap()
        };
        let recent = format!("{DAY}, recent = {{ parameter = \"minutes\", max = \"60min\" }}");
        let [half, quarter] = ["2026-11-25T11:30:00Z", "2026-11-25T11:45:00Z"];
        assert_eq!(since(&recent, quarter, None), at(quarter), "of a store of before");
        assert_eq!(since(&recent, quarter, Some(half)), at(half));
        assert_eq!(since(DAY, quarter, Some(half)), at(half));
        // As far as the last minutes reach, less the margin and a wait, where the last walk asked for minutes itself.
        assert_eq!(since(&recent, half, Some("2026-11-25T11:00:00Z")), at("2026-11-25T11:07:00Z"));
        assert_eq!(since(&recent, "2026-11-25T11:01:00Z", Some("2026-11-25T10:30:00Z")), at("2026-11-25T11:01:00Z"));
        let outage = "2026-11-22T09:00:00Z";
        assert_eq!(since(&recent, quarter, Some(outage)), at(outage), "the last walk asked for days");
        assert_eq!(news_since(&definition(DAY), &Checkpoint::default(), 0), None);
    }

    #[test]
    fn a_call_that_is_late_asks_for_all_since_the_last_walk() {
        let recent = definition(&format!("{DAY}, recent = {{ parameter = \"minutes\", max = \"60min\" }}"));
        let before = Some("2026-11-25T11:45:00Z");
        let first = Position::begin(&recent, walk(Mode::Incremental, "2026-11-25T12:00:00Z", before));
        let second = first.after_page(&recent, None, 50, None);
        let kept = || Position::read(2, second.text().as_deref()).unwrap();
        let late = at("2026-11-25T12:20:00Z");
        assert_eq!(asked(&recent, &first, late), "minutes=37&page=1");
        assert_eq!(asked(&recent, &kept().reached(&recent, late), late), "minutes=37&page=2");
        // The parameter does not reach back that far any more: by days, from the first page on.
        let later = at("2026-11-25T12:44:00Z");
        assert_eq!(asked(&recent, &kept().reached(&recent, later), later), "changed=2026-11-25&page=1");
    }

    #[test]
    fn an_offset_counts_the_rows_that_came() {
        let text = "pages = { style = \"offset\", parameter = \"offset\", limit = \"limit\", size = 100 }";
        let list = definition(text);
        let first = Position::begin(&list, walk(Mode::Full, "2026-11-25T12:00:00Z", None));
        let second = Position::read(2, first.after_page(&list, None, 50, None).text().as_deref()).unwrap();
        assert_eq!(asked(&list, &second, 0), "offset=50&limit=100");
        assert_eq!(asked(&list, &second.after_page(&list, None, 7, None), 0), "offset=57&limit=100");
    }

    #[test]
    fn plain_pages_are_kept_as_numbers_alone() {
        let pages = definition("pages = { style = \"number\", parameter = \"page\", first = 0 }");
        let first = Position::begin(&pages, walk(Mode::Full, "2026-11-25T12:00:00Z", None));
        assert_eq!((first.text(), asked(&pages, &first, 0)), (None, "page=0".to_owned()));
        let third = first.after_page(&pages, None, 50, None).after_page(&pages, None, 50, None);
        assert_eq!((third.text(), asked(&pages, &third, 0)), (None, "page=2".to_owned()));
        assert_eq!(Position::read(3, None).unwrap(), third);
        assert!(Position::read(3, Some("x")).is_err());
    }
}
