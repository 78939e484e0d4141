//! Guesses from a list's answer where its rows are, how it is paged, and what the id is.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::names::{quoted, singular, snake, token};
use crate::catalog::cell::timestamp_of;
use crate::catalog::coverage::is_name;
use crate::domain::{Json, Timestamp};

/// How deep objects are searched.
const DEPTH_MAX: usize = 3;

/// Common names of a count of all rows.
const TOTALS: [&str; 5] = ["total", "total_count", "total_items", "total_elements", "total_results"];
/// Page size assumed when the sample is not a full page.
const SIZE_DEFAULT: usize = 100;

/// The guessed pagination of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuessedPages {
    /// The TOML value after `pages = `.
    pub toml: String,
    /// What it was guessed from.
    pub why: String,
}

/// The pointer to the array with the most objects, if there is one.
pub fn items(answer: &Json<'_>) -> Option<String> {
    if matches!(answer, Json::Array(_)) {
        return Some(String::new());
    }
    let mut best: Option<(usize, String)> = None;
    each(answer, "", 0, &mut |pointer, value| {
        if let Json::Array(elements) = value {
            let objects = elements.iter().filter(|element| matches!(element, Json::Object(_))).count();
            if objects > 0 && best.as_ref().is_none_or(|(most, _)| objects > *most) {
                best = Some((objects, pointer.to_owned()));
            }
        }
    });
    best.map(|(_, pointer)| pointer)
}

/// Guesses the pagination from the values beside the rows and from the header `Link`.
pub fn pages(answer: &Json<'_>, items: &str, has_next_link: bool) -> GuessedPages {
    let mut cursor = None;
    let mut flag = None;
    let mut link = None;
    let mut total = None;
    each(answer, "", 0, &mut |pointer, value| {
        if pointer == items {
            return;
        }
        let name = snake(pointer.rsplit('/').next().unwrap_or_default());
        let path = snake(pointer);
        let is_text = matches!(value, Json::Text(_) | Json::Null);
        if is_text && (name == "next_cursor" || name.ends_with("page_token") || path.ends_with("cursor_next")) {
            cursor.get_or_insert_with(|| pointer.to_owned());
        } else if matches!(value, Json::Bool(_)) && ["has_next_page", "has_next", "has_more"].contains(&name.as_str()) {
            flag.get_or_insert_with(|| pointer.to_owned());
        } else if is_address(value) && (name == "next" || name == "next_page_url" || path.ends_with("next_href")) {
            link.get_or_insert_with(|| pointer.to_owned());
        } else if matches!(value, Json::Number(_)) && TOTALS.contains(&name.as_str()) {
            total.get_or_insert_with(|| pointer.to_owned());
        }
    });
    let proof = |at: Option<&str>| match (&total, &flag) {
        (Some(total), _) => format!("total = {}", quoted(total)),
        (None, Some(flag)) => format!("more = {}", quoted(flag)),
        (None, None) => format!("size = {}", size(answer, items, at)),
    };
    if let Some(at) = cursor {
        let parameter = if snake(&at).ends_with("token") { "pageToken" } else { "cursor" };
        let (next, proof) = (quoted(&at), proof(Some(&at)));
        let toml = format!("{{ style = \"cursor\", parameter = \"{parameter}\", next = [{next}], {proof} }}");
        return GuessedPages { toml, why: format!("{at} in the answer; the name of the parameter is a guess") };
    }
    if let Some(at) = flag {
        let toml = format!("{{ style = \"has-more-flag\", parameter = \"page\", flag = {} }}", quoted(&at));
        return GuessedPages { toml, why: format!("{at} in the answer; the name of the parameter is a guess") };
    }
    if let Some(at) = link {
        let toml = format!("{{ style = \"next-link\", at = {}, {} }}", quoted(&at), proof(Some(&at)));
        return GuessedPages { toml, why: format!("the address at {at}") };
    }
    if has_next_link {
        let toml = format!("{{ style = \"next-link\", {} }}", proof(None));
        return GuessedPages { toml, why: "the header Link".to_owned() };
    }
    let toml = "{ style = \"number\", parameter = \"page\" }".to_owned();
    GuessedPages { toml, why: "nothing: the answer does not show it; see the API's documentation".to_owned() }
}

/// Rows of a full page: those of the sample, when another page follows it.
fn size(answer: &Json<'_>, items: &str, next: Option<&str>) -> usize {
    let rows = if let Some(Json::Array(rows)) = answer.pointer(items) { rows.len() } else { 0 };
    let follows = next.is_none_or(|at| !matches!(answer.pointer(at), None | Some(Json::Null)));
    if follows && rows > 0 { rows } else { SIZE_DEFAULT.max(rows + 1) }
}

fn is_address(value: &Json<'_>) -> bool {
    match value {
        Json::Null => true,
        Json::Text(text) => text.starts_with("http") || text.starts_with('/') || text.contains('?'),
        _ => false,
    }
}

/// The pointer to a value that every row has, that is unique, and that is named like an id.
pub fn id(rows: &[Json<'_>], resource: &str) -> Option<String> {
    let own = format!("{}_id", singular(resource));
    let mut best: Option<(usize, String)> = None;
    each(rows.first()?, "", 0, &mut |pointer, _| {
        let name = snake(pointer.rsplit('/').next().unwrap_or_default());
        let rank = match name.as_str() {
            "id" => 0,
            name if name == own => 1,
            name if name.ends_with("_id") => 2,
            "uuid" | "guid" => 3,
            _ => return,
        };
        // Ids further in belong to other things.
        let rank = rank + 10 * pointer.matches('/').count();
        if best.as_ref().is_none_or(|(least, _)| rank < *least) && is_unique(rows, pointer) {
            best = Some((rank, pointer.to_owned()));
        }
    });
    best.map(|(_, pointer)| pointer)
}

/// Whether each row has a text or whole number there, all different.
pub fn is_unique(rows: &[Json<'_>], pointer: &str) -> bool {
    let mut seen = BTreeSet::new();
    rows.iter().all(|row| scalar(row.pointer(pointer)).is_some_and(|id| seen.insert(id)))
}

/// The text of an id.
fn scalar(value: Option<&Json<'_>>) -> Option<String> {
    match value? {
        Json::Text(text) if !text.is_empty() => Some(text.clone().into_owned()),
        Json::Number(number) => number.whole_digits().map(str::to_owned),
        _ => None,
    }
}

/// The pointer to a time that every row has and that descends from row to row.
pub fn newest_first(rows: &[Json<'_>]) -> Option<String> {
    let mut found = None;
    each(rows.first()?, "", 0, &mut |pointer, value| {
        if found.is_some() || !matches!(value, Json::Text(_)) {
            return;
        }
        let times: Option<Vec<Timestamp>> =
            rows.iter().map(|row| timestamp_of(Some(&TimeZone::UTC), row.pointer(pointer)?)).collect();
        let Some(times) = times else { return };
        let pairs = || times.iter().zip(times.iter().skip(1));
        if pairs().all(|(one, next)| one >= next) && pairs().any(|(one, next)| one > next) {
            found = Some(pointer.to_owned());
        }
    });
    found
}

/// The pointer to the document with that id in a detail's answer.
pub fn document(answer: &Json<'_>, id: &str, wanted: &str) -> Option<String> {
    let has = |value: &Json<'_>| scalar(value.pointer(id)).as_deref() == Some(wanted);
    if has(answer) {
        return Some(String::new());
    }
    let Json::Object(members) = answer else { return None };
    members.iter().find(|(name, value)| is_name(name) && has(value)).map(|(name, _)| format!("/{}", token(name)))
}

/// Visits each value within objects, with its pointer, parents first. Keys that may be data are skipped, as pointers go
/// into texts that people store and share.
fn each(value: &Json<'_>, pointer: &str, depth: usize, visit: &mut dyn FnMut(&str, &Json<'_>)) {
    let Json::Object(members) = value else { return };
    for (name, member) in members.iter().filter(|(name, _)| is_name(name)) {
        let at = format!("{pointer}/{}", token(name));
        visit(&at, member);
        if depth < DEPTH_MAX {
            each(member, &at, depth + 1, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{document, id, items, newest_first, pages};
    use crate::domain::Json;

    fn read(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn rows_and_pagination_are_guessed_from_an_answer() {
        for (answer, at, style) in [
            (r#"{"things":[{"id":1}]}"#, "/things", "style = \"number\""),
            (r#"[{"id":1}]"#, "", "style = \"number\""),
            (r#"{"a":[1,2,3],"data":{"rows":[{"id":1}]},"page":{"nextCursor":"x"}}"#, "/data/rows", "/page/nextCursor"),
            (r#"{"rows":[{"id":1}],"nextPageToken":null}"#, "/rows", "parameter = \"pageToken\""),
            (r#"{"rows":[{"id":1}],"hasNextPage":true}"#, "/rows", "flag = \"/hasNextPage\""),
            (r#"{"rows":[{"id":1}],"links":{"next":"/v1/rows?page=2"}}"#, "/rows", "at = \"/links/next\""),
            (r#"{"rows":[{"id":1}],"_links":{"next":{"href":"/v1/rows?p=2"}}}"#, "/rows", "at = \"/_links/next/href\""),
            (r#"{"rows":[{"id":1}],"next":7}"#, "/rows", "style = \"number\""),
        ] {
            let answer = read(answer);
            let found = items(&answer).unwrap();
            assert_eq!(found, at);
            let pages = pages(&answer, &found, false).toml;
            assert!(pages.contains(style), "{pages} is not {style}");
        }
        let answer = read(r#"{"rows":[]}"#);
        assert_eq!(
            (items(&answer), pages(&answer, "/rows", true).toml.as_str()),
            (None, "{ style = \"next-link\", size = 100 }")
        );
    }

    #[test]
    fn ids_are_in_each_row_and_differ() {
        let of = |rows: &[&str]| id(&rows.iter().map(|row| read(row)).collect::<Vec<_>>(), "orders");
        assert_eq!(of(&[r#"{"customerId":1,"orderId":"a"}"#]).as_deref(), Some("/orderId"));
        assert_eq!(of(&[r#"{"id":1,"orderId":1}"#, r#"{"id":1,"orderId":2}"#]).as_deref(), Some("/orderId"));
        assert_eq!(of(&[r#"{"order":{"orderId":1},"x":2}"#]).as_deref(), Some("/order/orderId"));
        assert_eq!(of(&[r#"{"id":1.5}"#]), None);
        assert_eq!(of(&[r#"{"id":1}"#, "{}"]), None);
        let rows = [
            r#"{"a":"2026-01-01T00:00:00Z","b":"2026-01-02T00:00:00Z"}"#,
            r#"{"a":"2026-01-02T00:00:00Z","b":"2026-01-01T00:00:00Z"}"#,
        ];
        assert_eq!(newest_first(&rows.map(read)).as_deref(), Some("/b"));
        assert_eq!(document(&read(r#"{"data":{"id":7}}"#), "/id", "7").as_deref(), Some("/data"));
        assert_eq!(document(&read(r#"{"id":8}"#), "/id", "7"), None);
    }
}
