//! Tests: the calls of a walk, by days, by the last minutes and by offset; and how a position is stored.

use super::{Position, Walk, news_since};
use crate::catalog::Definition;
use crate::domain::{Checkpoint, ListParams, Mode, Timestamp};

fn definition(list: &str) -> Definition {
    let text = format!("id = \"/id\"\nlist = {{ path = \"/things\", items = \"/things\", {list} }}\ntable = {{}}");
    crate::catalog::reader::read("things", &toml::from_str(&text).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

fn walk(mode: Mode, now: &str, before: Option<&str>) -> Walk {
    Walk { mode, started_at: at(now), since: before.map(at), parent: None }
}

fn asked(definition: &Definition, position: &Position, now: Timestamp) -> String {
    let query = position.query(definition, &ListParams::default(), now);
    query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The calls of a walk in which each list has one page.
fn calls(definition: &Definition, walk: Walk) -> Vec<String> {
    let now = walk.started_at;
    let mut position = Some(Position::begin(definition, walk));
    let mut calls = Vec::new();
    while let Some(here) = position {
        calls.push(asked(definition, &here, now));
        // As a job stores it.
        let here = Position::read(1, here.text().as_deref()).unwrap();
        position = here.next_list(definition, |_| None);
    }
    calls
}

const DAY: &str = "pages = { style = \"number\", parameter = \"page\" }, overlap = \"10min\", \
    windows = { day = \"changed\", reach = \"3d\", timezone = \"Europe/Amsterdam\" }";

#[test]
fn a_full_walk_lists_all_days_oldest_first_and_an_incremental_one_those_since_the_last() {
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
    assert_eq!(news("2026-11-27T00:00:00Z"), ["changed=2026-11-25&page=1"], "the clock was set back");
}

#[test]
fn the_list_without_days_comes_after_the_days_once_per_parent() {
    let undated = definition(&DAY.replace("reach = \"3d\"", "reach = \"1d\", undated = true"));
    let whole = calls(&undated, walk(Mode::Full, "2026-11-25T12:00:00Z", None));
    assert_eq!(whole, ["changed=2026-11-24&page=1", "changed=2026-11-25&page=1", "page=1"]);
    let mut here =
        Position::begin(&undated, Walk { parent: Some("a".into()), ..walk(Mode::Full, "2026-11-25T12:00:00Z", None) });
    let mut seen = Vec::new();
    loop {
        seen.push((here.parent.clone().unwrap(), here.list(), asked(&undated, &here, Timestamp::EPOCH)));
        let Some(next) = here.next_list(&undated, |parent| (parent == "a").then(|| "b".to_owned())) else { break };
        here = next;
    }
    let calls: Vec<String> = seen.iter().map(|(parent, _, asked)| format!("{parent} {asked}")).collect();
    let days = ["changed=2026-11-24&page=1", "changed=2026-11-25&page=1", "page=1"];
    assert_eq!(calls, ["a", "b"].map(|parent| days.map(|day| format!("{parent} {day}"))).concat());
    let lists: std::collections::BTreeSet<&String> = seen.iter().map(|(_, list, _)| list).collect();
    assert_eq!(lists.len(), 6, "each list has its own name");
}

#[test]
fn windows_of_several_days_have_no_gaps_and_end_today() {
    let text = "pages = { style = \"none\" }, windows = { from = \"a\", to = \"b\", days = 31, reach = \"65d\" }";
    let whole = calls(&definition(text), walk(Mode::Full, "2026-11-25T12:00:00Z", None));
    assert_eq!(whole, ["a=2026-09-21&b=2026-10-21", "a=2026-10-22&b=2026-11-21", "a=2026-11-22&b=2026-11-25"]);
}

#[test]
fn changes_of_the_last_minutes_are_listed_where_they_reach_back_far_enough() {
    let recent = definition(&format!("{DAY}, recent = {{ parameter = \"minutes\", max = \"60min\" }}"));
    let news = |before| calls(&recent, walk(Mode::Incremental, "2026-11-25T12:00:00Z", Some(before)));
    assert_eq!(news("2026-11-25T11:45:00Z"), ["minutes=17&page=1"]);
    assert_eq!(news("2026-11-25T11:44:59Z"), ["minutes=18&page=1"]);
    assert_eq!(news("2026-11-25T11:02:00Z"), ["minutes=60&page=1"]);
    assert_eq!(news("2026-11-25T11:01:59Z"), ["changed=2026-11-25&page=1"]);
    assert_eq!(calls(&recent, walk(Mode::Full, "2026-11-25T12:00:00Z", Some("2026-11-25T11:45:00Z"))).len(), 4);
}

#[test]
fn changes_are_listed_since_the_walk_before_the_last() {
    let since = |list: &str, last: &str, before: Option<&str>| {
        let walked_before = before.map(at);
        let walked = Checkpoint { walked_at: Some(at(last)), walked_before, ..Checkpoint::default() };
        news_since(&definition(list), &walked, at("2026-11-25T12:00:00Z")).unwrap()
    };
    let recent = format!("{DAY}, recent = {{ parameter = \"minutes\", max = \"60min\" }}");
    let [half, quarter] = ["2026-11-25T11:30:00Z", "2026-11-25T11:45:00Z"];
    assert_eq!(since(&recent, quarter, None), at(quarter), "stored by an earlier version");
    assert_eq!(since(&recent, quarter, Some(half)), at(half));
    assert_eq!(since(DAY, quarter, Some(half)), at(half));
    // As far as the last minutes reach, less the margin and the delay of a call, where the last walk listed minutes.
    assert_eq!(since(&recent, half, Some("2026-11-25T11:00:00Z")), at("2026-11-25T11:07:00Z"));
    assert_eq!(since(&recent, "2026-11-25T11:01:00Z", Some("2026-11-25T10:30:00Z")), at("2026-11-25T11:01:00Z"));
    let outage = "2026-11-22T09:00:00Z";
    assert_eq!(since(&recent, quarter, Some(outage)), at(outage), "the last walk listed days");
    assert_eq!(news_since(&definition(DAY), &Checkpoint::default(), Timestamp::EPOCH), None);
}

#[test]
fn a_late_call_lists_all_changes_since_the_last_walk() {
    let recent = definition(&format!("{DAY}, recent = {{ parameter = \"minutes\", max = \"60min\" }}"));
    let before = Some("2026-11-25T11:45:00Z");
    let first = Position::begin(&recent, walk(Mode::Incremental, "2026-11-25T12:00:00Z", before));
    let second = first.after_page(&recent, None, 50, None);
    let stored = || Position::read(2, second.text().as_deref()).unwrap();
    let late = at("2026-11-25T12:20:00Z");
    assert_eq!(asked(&recent, &first, late), "minutes=37&page=1");
    assert_eq!(asked(&recent, &stored().reached(&recent, late), late), "minutes=37&page=2");
    // The minutes no longer reach back that far: by days, from the first page.
    let later = at("2026-11-25T12:44:00Z");
    assert_eq!(asked(&recent, &stored().reached(&recent, later), later), "changed=2026-11-25&page=1");
}

#[test]
fn an_offset_counts_the_rows_received() {
    let text = "pages = { style = \"offset\", parameter = \"offset\", limit = \"limit\", size = 100 }";
    let list = definition(text);
    let first = Position::begin(&list, walk(Mode::Full, "2026-11-25T12:00:00Z", None));
    let second = Position::read(2, first.after_page(&list, None, 50, None).text().as_deref()).unwrap();
    assert_eq!(asked(&list, &second, Timestamp::EPOCH), "offset=50&limit=100");
    assert_eq!(asked(&list, &second.after_page(&list, None, 7, None), Timestamp::EPOCH), "offset=57&limit=100");
}

#[test]
fn plain_pages_are_stored_as_numbers_only() {
    let pages = definition("pages = { style = \"number\", parameter = \"page\", first = 0 }");
    let first = Position::begin(&pages, walk(Mode::Full, "2026-11-25T12:00:00Z", None));
    assert_eq!((first.text(), asked(&pages, &first, Timestamp::EPOCH)), (None, "page=0".to_owned()));
    let third = first.after_page(&pages, None, 50, None).after_page(&pages, None, 50, None);
    assert_eq!((third.text(), asked(&pages, &third, Timestamp::EPOCH)), (None, "page=2".to_owned()));
    assert_eq!(Position::read(3, None).unwrap(), third);
    assert!(Position::read(3, Some("x")).is_err());
}
