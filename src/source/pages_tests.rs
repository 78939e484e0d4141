//! Pages, documents and the refresh rule.

use bytes::Bytes;
use proptest::prelude::{prop_assert, proptest};

use super::SourceError;
use super::pages::{ParsedPage, detail, detail_call, list_call, page};
use crate::catalog::Definition;
use crate::catalog::reader;
use crate::domain::Combination;
use crate::domain::job::Next;

const HOUR: i64 = 3_600_000;

/// A definition; `more` goes before its tables.
fn definition(more: &str) -> Definition {
    let text = format!(
        "media_type = \"application/vnd.any.v1+json\"\nid = \"/id\"\n{more}\n[table.columns]\nname = {{ from = \"/name\", type = \"text\" }}"
    );
    reader::read("things", &text.parse::<toml::Table>().unwrap()).unwrap()
}

fn listed() -> Definition {
    definition(
        r#"[list]
        path = "/things"
        items = "/things"
        order = "newest-first"
        time = "/at"
        harmless = ["sort"]
        pages = { style = "number", parameter = "page" }
        parameters = { kind = ["A", "B"] }
        [detail]
        path = "/things/{id}"
        [detail.refresh]
        until = { at = "/events/*/code", in = ["DONE", "7"] }
        time = "/at"
        every = "1h"
        max_age = "30d"
        [table]"#,
    )
}

fn row_is_document() -> Definition {
    definition(
        r#"[list]
        path = "/things"
        items = "/data/things"
        pages = { style = "none" }
        [table]"#,
    )
}

fn read(definition: &Definition, body: &str) -> Result<ParsedPage, SourceError> {
    page(definition, &Bytes::copy_from_slice(body.as_bytes()))
}

fn ids(page: &ParsedPage) -> Vec<&str> {
    page.rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn an_end_is_told_from_an_error() {
    let definition = listed();
    for end in ["{}", " { } ", r#"{"sort":"x"}"#, r#"{"things":[]}"#, r#"{"things":[],"x":1}"#] {
        let page = read(&definition, end).unwrap();
        assert_eq!((page.next, page.rows.len()), (Next::End, 0), "{end}");
    }
    for shape in
        ["[]", "null", "7", r#"{"other":[]}"#, r#"{"sort":1,"other":2}"#, r#"{"things":null}"#, r#"{"things":{}}"#]
    {
        assert!(matches!(read(&definition, shape), Err(SourceError::Shape { .. })), "{shape}");
    }
    for broken in ["", "<html>", "{", r#"{"things":[{"id":"1"}"#, r#"{"things":[{"id":"1","id":"2"}]}"#] {
        assert!(matches!(read(&definition, broken), Err(SourceError::Malformed { .. })), "{broken}");
    }
}

#[test]
fn rows_of_a_page_and_where_the_next_begins() {
    let body = r#"{"things":[{"id":"a","at":"2026-01-01T01:00:00+01:00"},{"id":12,"at":5}],"x":{"y":[1]}}"#;
    let page = read(&listed(), body).unwrap();
    assert_eq!(ids(&page), ["a", "12"]);
    assert_eq!((page.rows[0].time, page.rows[1].time), (Some(1_767_225_600_000), None));
    assert_eq!(page.rows[0].body, None, "the detail is the document");
    assert_eq!(page.next, Next::More { cursor: None });
    let other_order = r#"{ "things": [ {"at":"2026-01-01T01:00:00+01:00","id":"a"}, {"at":5,"id":12} ] }"#;
    let same = read(&listed(), other_order).unwrap();
    assert_eq!((&same.rows, &same.digest), (&page.rows, &page.digest));
    let changed = read(&listed(), &body.replace("\"at\":5", "\"at\":6")).unwrap();
    assert_ne!(changed.digest, page.digest);
    assert_ne!(changed.rows[1].hash, page.rows[1].hash);
}

#[test]
fn a_row_that_is_the_document_keeps_its_bytes() {
    let page = read(&row_is_document(), r#"{"data":{"things":[ {"id":"a", "price": 1.50} ]}}"#).unwrap();
    assert_eq!(page.rows[0].body.as_deref(), Some(&br#"{"id":"a", "price": 1.50}"#[..]));
    assert_eq!(page.next, Next::End, "one answer holds all");
    assert_eq!(read(&row_is_document(), r#"{"data":{}}"#).unwrap().next, Next::End);
    assert!(matches!(read(&row_is_document(), r#"{"data":[]}"#), Err(SourceError::Shape { .. })));
}

#[test]
fn rows_without_a_usable_id_are_reported_and_hold_nothing_up() {
    let long = "x".repeat(129);
    let body = format!(
        r#"{{"things":[{{"id":"ok"}},{{"id":""}},{{"id":" a"}},{{"id":"a\t"}},{{"id":"{long}"}},{{"id":null}},{{}},7,{{"id":1.5}},
        {{"id":"a\u0000b"}},{{"id":".."}},{{"id":"😀 é/?"}},{{"id":18446744073709551616}}]}}"#
    );
    let page = read(&listed(), &body).unwrap();
    assert_eq!(ids(&page), ["ok", "😀 é/?"]);
    assert_eq!(page.rejected.len(), 11);
    assert!(page.rejected.iter().all(|rejected| !rejected.reason.is_empty()));
    assert!(page.rejected.iter().flat_map(|rejected| &rejected.id).all(|id| !id.chars().any(char::is_control)));
    let none = read(&listed(), r#"{"things":[{}]}"#).unwrap();
    assert_eq!(none.next, Next::More { cursor: None }, "a page of bad rows is not the end");
}

#[test]
fn a_document_is_an_object_with_the_id_that_was_asked_for() {
    let read = |body: &str| detail(&listed(), "12", &Bytes::copy_from_slice(body.as_bytes()), || None, 0);
    assert!(read(r#"{"id":"12"}"#).is_ok());
    assert!(read(r#"{"id":12}"#).is_ok());
    for other in [
        "{}",
        r#"{"message":"maintenance"}"#,
        r#"{"id":"13"}"#,
        r#"{"id":null}"#,
        r#"{"id":12.5}"#,
        "[]",
        "null",
        "\"12\"",
    ] {
        assert!(matches!(read(other), Err(SourceError::Shape { .. })), "{other}");
    }
    assert!(matches!(read("{\"id\":\"12\""), Err(SourceError::Malformed { .. })));
    assert_eq!(read(r#"{"id":12,"b":1}"#).unwrap().hash, read(r#"{ "b":1, "id":12 }"#).unwrap().hash);
}

#[test]
fn the_refresh_rule() {
    let now = 1_767_225_600_000 + 100 * HOUR;
    let after = |body: &str, first_seen: Option<i64>| {
        let mut document: serde_json::Value = serde_json::from_str(body).unwrap();
        document["id"] = "a".into();
        detail(&listed(), "a", &Bytes::from(document.to_string()), || first_seen, now).unwrap().refresh_after_ms
    };
    let dated = r#"{"at":"2026-01-01T01:00:00+01:00"}"#;
    assert_eq!(after(dated, Some(now)), Some(50 * HOUR), "half of the age");
    assert_eq!(after("{}", Some(now - 10 * HOUR)), Some(5 * HOUR), "without a time, the first reading counts");
    assert_eq!(after("{}", None), Some(HOUR), "never sooner than `every`");
    assert_eq!(after(r#"{"at":"2099-01-01T00:00:00Z"}"#, None), Some(HOUR));
    assert_eq!(after(r#"{"at":"2025-11-01T00:00:00Z"}"#, None), None, "too old");
    let events = |codes: &str| format!(r#"{{"at":"2026-01-01T01:00:00+01:00","events":{codes}}}"#);
    assert_eq!(after(&events(r#"[{"code":"NEW"},{"code":"DONE"}]"#), None), None, "final");
    assert_eq!(after(&events(r#"[{"code":7}]"#), None), None);
    for open in [r#"[{"code":"NEW"}]"#, "[]", "null", r#"{"code":"DONE"}"#, r#"[{"code":["DONE"]}]"#] {
        assert_eq!(after(&events(open), None), Some(50 * HOUR), "{open}");
    }
    let bare = Bytes::from_static(br#"{"id":"a"}"#);
    assert_eq!(detail(&row_is_document(), "a", &bare, || None, 0).unwrap().refresh_after_ms, None);
}

#[test]
fn calls_follow_the_definition() {
    let definition = listed();
    let combination = Combination(vec![("kind".to_owned(), "B".to_owned())]);
    let call = list_call(&definition, &combination, 3, None);
    let query: Vec<(&str, &str)> = call.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!((call.path.as_str(), query), ("/things", vec![("kind", "B"), ("page", "3")]));
    assert!(list_call(&row_is_document(), &Combination::default(), 1, None).query.is_empty());
    let path = |id: &str| detail_call(&definition, id).unwrap().path;
    assert_eq!(path("A2K8290LP8"), "/things/A2K8290LP8");
    assert_eq!(path("../a/b?c#d%é{id}"), "/things/..%2Fa%2Fb%3Fc%23d%25%C3%A9%7Bid%7D");
    assert_eq!(detail_call(&row_is_document(), "a"), None);
}

proptest! {
    #[test]
    fn reading_a_page_never_panics_and_accounts_for_each_row(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), count in 0usize..20) {
        prop_assert!(read(&listed(), &String::from_utf8_lossy(&bytes)).is_err() || bytes.len() >= 2);
        let rows: Vec<String> = (0..count).map(|n| if n % 3 == 0 { "{}".to_owned() } else { format!(r#"{{"id":{n}}}"#) }).collect();
        let page = read(&listed(), &format!(r#"{{"things":[{}]}}"#, rows.join(","))).unwrap();
        prop_assert!(page.rows.len() + page.rejected.len() == count);
    }
}
