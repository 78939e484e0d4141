//! Pages, documents and the refresh rule.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::{prop_assert, proptest};

use super::SourceError;
use super::pages::{ListResponse, Parsed, detail, detail_call, document, list_call, no_list, page};
use super::position::{Position, Walk};
use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::catalog::reader;
use crate::domain::{ListParams, Mode, Next, Page, Timestamp};

const HOUR: Duration = Duration::from_secs(3_600);

/// A definition; `more` is inserted before its tables.
pub(super) fn definition(more: &str) -> Definition {
    let text = format!(
        "media_type = \"application/vnd.any.v1+json\"\nid = \"/id\"\n{more}\n[table.columns]\nname = {{ from = \"/name\", type = \"text\" }}"
    );
    reader::read("things", &text.parse::<toml::Table>().unwrap()).unwrap()
}

pub(super) fn listed() -> Definition {
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

pub(super) fn row_is_document() -> Definition {
    definition(
        r#"[list]
        path = "/things"
        items = "/data/things"
        pages = { style = "none" }
        [table]"#,
    )
}

pub(super) fn read(definition: &Definition, body: &str) -> Result<Page, SourceError> {
    parse(definition, body).map(|parsed| parsed.value)
}

fn parse(definition: &Definition, body: &str) -> Result<Parsed<Page>, SourceError> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    page(definition, &Position::default(), ListResponse { body: &body, next_link: None, previous: None }, |_| None)
}

pub(super) fn ids(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn an_empty_page_is_an_end_and_an_unexpected_shape_an_error() {
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
    for broken in ["", "<html>", "{", r#"{"things":[{"id":"1"}"#] {
        assert!(matches!(read(&definition, broken), Err(SourceError::Malformed { .. })), "{broken}");
    }
}

#[test]
fn a_page_has_rows_times_and_a_digest_independent_of_key_order() {
    let body = r#"{"things":[{"id":"a","at":"2026-01-01T01:00:00+01:00"},{"id":12,"at":5}],"x":{"y":[1]}}"#;
    let page = read(&listed(), body).unwrap();
    assert_eq!(ids(&page), ["a", "12"]);
    assert_eq!(
        (page.rows[0].time, page.rows[1].time),
        (Some(Timestamp::from_millis(1_767_225_600_000)), Some(Timestamp::from_millis(5_000)))
    );
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
fn a_row_that_is_the_document_is_stored_byte_for_byte() {
    let page = read(&row_is_document(), r#"{"data":{"things":[ {"id":"a", "price": 1.50} ]}}"#).unwrap();
    assert_eq!(page.rows[0].body.as_deref(), Some(&br#"{"id":"a", "price": 1.50}"#[..]));
    assert_eq!(page.next, Next::End, "one answer holds all");
    assert_eq!(read(&row_is_document(), r#"{"data":{}}"#).unwrap().next, Next::End);
    assert!(matches!(read(&row_is_document(), r#"{"data":[]}"#), Err(SourceError::Shape { .. })));
}

#[test]
fn an_unparseable_row_is_rejected_and_the_others_are_read() {
    for broken in [r#"{"id":"2","n":1e999}"#, r#"{"id":"2","n":-1e400}"#] {
        let page = read(&listed(), &format!(r#"{{"things":[{{"id":"1"}},{broken},{{"id":"4"}}]}}"#)).unwrap();
        assert_eq!((ids(&page), page.rejected.len()), (vec!["1", "4"], 1), "{broken}");
        assert!(page.rejected[0].reason.starts_with("the row cannot be read: "), "{:?}", page.rejected);
        let other = read(&listed(), r#"{"things":[{"id":"1"},{"id":"2"},{"id":"4"}]}"#).unwrap();
        assert_ne!(page.digest, other.digest);
    }
}

#[test]
fn ambiguous_json_is_normalised_and_counted() {
    let kinds = |left: &[FieldDrift]| -> Vec<String> {
        let tolerated = |left: &FieldDrift| match left {
            FieldDrift::Tolerated { path, kind } => Some(format!("{path} {kind}")),
            _ => None,
        };
        left.iter().filter_map(tolerated).collect()
    };
    let body = "\u{feff}{\"data\":0,\"data\":{\"things\":[{\"id\":\"a\",\"n\":1,\"n\":2},{\"id\":\"b\",\"t\":[\"\\ud83d\"]}]}}";
    let page = parse(&row_is_document(), body).unwrap();
    let bodies: Vec<&[u8]> = page.value.rows.iter().map(|row| &row.body.as_ref().unwrap()[..]).collect();
    assert_eq!(bodies, [&br#"{"id":"a","n":2}"#[..], br#"{"id":"b","t":["\ufffd"]}"#]);
    assert_eq!(kinds(&page.drift), [" byte_order_mark", "/n duplicate_key", "/t/* half_surrogate"]);
    let sent = Bytes::from("\u{feff}{\"id\":\"12\",\"street\":\"Kade 1 \\ud83d\"}");
    let found = detail(&listed(), "12", &sent, || None, Timestamp::EPOCH).unwrap();
    assert_eq!(&found.value.body[..], br#"{"id":"12","street":"Kade 1 \ufffd"}"#);
    assert_eq!(kinds(&found.drift), [" byte_order_mark", "/street half_surrogate"]);
    let sound = Bytes::from(r#"{"id":"12","street":"Kade 1 \ufffd"}"#);
    assert_eq!(detail(&listed(), "12", &sound, || None, Timestamp::EPOCH).unwrap().value.hash, found.value.hash);
}

#[test]
fn digits_beyond_the_precision_of_a_float_count_as_a_change() {
    let row = |number: &str| read(&listed(), &format!(r#"{{"things":[{{"id":"a","rev":{number}}}]}}"#)).unwrap();
    let document = |number: &str| {
        let body = Bytes::from(format!(r#"{{"id":"a","n":{number}}}"#));
        detail(&listed(), "a", &body, || None, Timestamp::EPOCH).unwrap().value
    };
    for (one, other) in [
        ("9400110200881234567890", "9400110200881234567891"),
        ("0.1234567890123456789", "0.1234567890123456788"),
        ("1e-400", "1e-401"),
    ] {
        assert_ne!(row(one).rows[0].hash, row(other).rows[0].hash, "{one}");
        assert_ne!(row(one).digest, row(other).digest, "{one}");
        assert_ne!(document(one).hash, document(other).hash, "{one}");
    }
}

#[test]
fn an_unparseable_time_is_counted_by_its_kind() {
    let body = r#"{"things":[{"id":"a","at":"2026-01-01T00:00:00"},{"id":"b","at":"gisteren"},{"id":"c"},{"id":"d","at":null}]}"#;
    let page = parse(&listed(), body).unwrap();
    assert!(page.value.rows.iter().all(|row| row.time.is_none()));
    let untimed = |kind| FieldDrift::Untimed { path: "/at".to_owned(), kind };
    assert_eq!(page.drift, [untimed("text"), untimed("time_without_offset")]);
    let mut zoned = listed();
    zoned.zone = Some(jiff::tz::TimeZone::UTC);
    let page = parse(&zoned, body).unwrap();
    assert_eq!(page.value.rows[0].time, Some(Timestamp::from_millis(1_767_225_600_000)));
    assert_eq!(page.drift, [untimed("text")]);
}

#[test]
fn rows_without_a_usable_id_are_rejected_and_the_others_are_read() {
    let long = "x".repeat(129);
    let body = format!(
        r#"{{"things":[{{"id":"ok"}},{{"id":""}},{{"id":" a"}},{{"id":"a\t"}},{{"id":"{long}"}},{{"id":null}},{{}},7,{{"id":1.5}},
        {{"id":"a\u0000b"}},{{"id":".."}},{{"id":"\ud83d"}},{{"id":"😀 é/?"}},{{"id":18446744073709551616}}]}}"#
    );
    let page = read(&listed(), &body).unwrap();
    assert_eq!(ids(&page), ["ok", "😀 é/?", "18446744073709551616"]);
    assert_eq!(page.rejected.len(), 11);
    assert!(page.rejected.iter().all(|rejected| !rejected.reason.is_empty()));
    assert!(page.rejected.iter().flat_map(|rejected| &rejected.id).all(|id| !id.chars().any(char::is_control)));
    let none = read(&listed(), r#"{"things":[{}]}"#).unwrap();
    assert_eq!(none.next, Next::More { cursor: None }, "a page of bad rows is not the end");
}

#[test]
fn a_document_is_an_object_with_the_requested_id() {
    let read =
        |body: &str| detail(&listed(), "12", &Bytes::copy_from_slice(body.as_bytes()), || None, Timestamp::EPOCH);
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
    assert_eq!(read(r#"{"id":12,"b":1}"#).unwrap().value.hash, read(r#"{ "b":1, "id":12 }"#).unwrap().value.hash);
}

#[test]
fn the_refresh_rule_decides_when_a_document_is_read_again() {
    let now = Timestamp::from_millis(1_767_225_600_000) + 100 * HOUR;
    let after = |body: &str, first_seen: Option<Timestamp>| {
        let mut document: serde_json::Value = serde_json::from_str(body).unwrap();
        document["id"] = "a".into();
        detail(&listed(), "a", &Bytes::from(document.to_string()), || first_seen, now).unwrap().value.refresh_after
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
    assert_eq!(detail(&row_is_document(), "a", &bare, || None, Timestamp::EPOCH).unwrap().value.refresh_after, None);
}

#[test]
fn a_refresh_rule_may_wait_until_all_values_are_final() {
    let definition = definition(
        r#"list = { path = "/things", items = "", pages = { style = "none" } }
        [detail]
        path = "/things/{id}"
        refresh = { until = { at = "/parts/*/done", in = ["true"], all = true }, every = "1h", max_age = "30d" }
        [table]"#,
    );
    let is_final = |parts: &str| {
        let body = Bytes::from(format!(r#"{{"id":"a","parts":{parts}}}"#));
        detail(&definition, "a", &body, || None, Timestamp::EPOCH).unwrap().value.refresh_after.is_none()
    };
    for done in [r#"[{"done":true}]"#, r#"[{"done":true},{"done":"true"}]"#] {
        assert!(is_final(done), "{done}");
    }
    for open in [r#"[{"done":true},{"done":false}]"#, r#"[{"done":true},{}]"#, r#"[{"done":true},7]"#, "[]", "null"] {
        assert!(!is_final(open), "{open}");
    }
}

#[test]
fn calls_are_built_from_the_definition() {
    let definition = listed();
    let combination = ListParams(vec![("kind".to_owned(), "B".to_owned())]);
    let call = list_call(&definition, &combination, &Position::read(3, None).unwrap(), Timestamp::EPOCH);
    let query: Vec<(&str, &str)> = call.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!((call.path.as_str(), query), ("/things", vec![("kind", "B"), ("page", "3")]));
    assert!(
        list_call(&row_is_document(), &ListParams::default(), &Position::default(), Timestamp::EPOCH).query.is_empty()
    );
    let path = |id: &str| detail_call(&definition, id).unwrap().path;
    assert_eq!(path("A2K8290LP8"), "/things/A2K8290LP8");
    assert_eq!(path("../a/b?c#d%é{id}"), "/things/..%2Fa%2Fb%3Fc%23d%25%C3%A9%7Bid%7D");
    assert_eq!(detail_call(&row_is_document(), "a"), None);
}

proptest! {
    #[test]
    fn parsing_a_page_never_panics_and_accounts_for_each_row(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60), count in 0usize..20) {
        prop_assert!(read(&listed(), &String::from_utf8_lossy(&bytes)).is_err() || bytes.len() >= 2);
        let rows: Vec<String> = (0..count).map(|n| if n % 3 == 0 { "{}".to_owned() } else { format!(r#"{{"id":{n}}}"#) }).collect();
        let page = read(&listed(), &format!(r#"{{"things":[{}]}}"#, rows.join(","))).unwrap();
        prop_assert!(page.rows.len() + page.rejected.len() == count);
    }
}

#[test]
fn rows_may_be_the_whole_answer_and_a_document_a_part_of_it() {
    let bare = definition(
        "[list]\npath = \"/things\"\nitems = \"\"\npages = { style = \"none\" }\n\
         [detail]\npath = \"/things/{id}\"\ndocument = \"/data/thing\"\n[table]",
    );
    assert_eq!(ids(&read(&bare, r#" [{"id":"a"},{"id":2}] "#).unwrap()), ["a", "2"]);
    assert!(read(&bare, "[]").unwrap().rows.is_empty());
    assert!(read(&bare, "{}").unwrap_err().to_string().contains("not an array"));
    assert!(read(&bare, "oops").is_err());
    let body = Bytes::from_static(br#"{"data":{"thing":{"id":"a","x":1}},"meta":7}"#);
    let found = detail(&bare, "a", &body, || None, Timestamp::EPOCH).unwrap();
    assert_eq!(&found.value.body[..], br#"{"id":"a","x":1}"#);
    assert!(
        detail(&bare, "a", &Bytes::from_static(b"{}"), || None, Timestamp::EPOCH)
            .unwrap_err()
            .to_string()
            .contains("/data/thing")
    );
}

#[test]
fn only_the_values_in_changed_by_mark_a_change() {
    let marked = definition(
        "[list]\npath = \"/things\"\nitems = \"/things\"\npages = { style = \"none\" }\n\
         changed_by = [\"/items/*/at\", \"/state\"]\n[detail]\npath = \"/things/{id}\"\n[table]",
    );
    let hash = |row: &str| read(&marked, &format!("{{\"things\":[{row}]}}")).unwrap().rows[0].hash;
    let first = hash(r#"{"id":"1","state":"a","items":[{"at":1},{"at":2}],"seen":1}"#);
    assert_eq!(first, hash(r#"{"id":"1","state":"a","items":[{"at":1},{"at":2}],"seen":2}"#));
    assert_ne!(first, hash(r#"{"id":"1","state":"b","items":[{"at":1},{"at":2}],"seen":1}"#));
    assert_ne!(first, hash(r#"{"id":"1","state":"a","items":[{"at":1},{"at":3}],"seen":1}"#));
    assert_ne!(first, hash(r#"{"id":"1","state":"a","items":[{"at":12}],"seen":1}"#));
    // Pages are not alike because all their rows have the same state.
    let digest = |id: &str| read(&marked, &format!(r#"{{"things":[{{"id":"{id}","state":"a"}}]}}"#)).unwrap().digest;
    assert_ne!(digest("1"), digest("2"));
}

#[test]
fn each_parent_has_its_own_list_and_prefixes_the_ids() {
    let child = definition(
        "parent = \"owners\"\n[list]\npath = \"/owners/{parent}/things\"\nitems = \"/things\"\n\
         pages = { style = \"number\", parameter = \"page\" }\n\
         [detail]\npath = \"/owners/{parent}/things/{id}\"\n[table]",
    );
    let walk = Walk { mode: Mode::Full, started_at: Timestamp::EPOCH, since: None, parent: Some("a:1/%".to_owned()) };
    let first = Position::begin(&child, walk);
    let call = list_call(&child, &ListParams::default(), &first, Timestamp::EPOCH);
    assert_eq!((call.path.as_str(), call.query[0].1.as_str()), ("/owners/a%3A1%2F%25/things", "1"));
    let answer = |position: &Position, body: &'static str| {
        let body = Bytes::from_static(body.as_bytes());
        let after = |parent: &str| (parent < "b").then(|| "b".to_owned());
        page(&child, position, ListResponse { body: &body, next_link: None, previous: None }, after).unwrap().value
    };
    let some = answer(&first, r#"{"things":[{"id":"x:y"}]}"#);
    assert_eq!(ids(&some), ["a%3A1/%25:x:y"]);
    assert_eq!(detail_call(&child, "a%3A1/%25:x:y").unwrap().path, "/owners/a%3A1%2F%25/things/x%3Ay");
    let document = Bytes::from_static(br#"{"id":"x:y"}"#);
    assert!(detail(&child, "a%3A1/%25:x:y", &document, || None, Timestamp::EPOCH).is_ok());
    let position = |next: &Next| match next {
        Next::More { cursor } => Position::read(1, cursor.as_deref()).unwrap(),
        Next::End => panic!("the list ended too early"),
    };
    let second = position(&some.next);
    assert_eq!(list_call(&child, &ListParams::default(), &second, Timestamp::EPOCH).query[0].1, "2");
    let next = position(&answer(&second, "{}").next);
    let call = list_call(&child, &ListParams::default(), &next, Timestamp::EPOCH);
    assert_eq!((call.path.as_str(), call.query[0].1.as_str()), ("/owners/b/things", "1"), "from its first page on");
    // Equal lists of two parents are not a list that repeats itself.
    let row = r#"{"things":[{"id":"1"}]}"#;
    assert_ne!(answer(&first, row).digest, answer(&next, row).digest);
    assert_eq!(answer(&next, "{}").next, Next::End);
    assert_eq!(position(&no_list(&child, &first, |_| Some("b".to_owned())).value.next).answered(), next);
    // The last parent has no list: one before it had, or none at all.
    assert_eq!(no_list(&child, &next, |_| None).value.doubt, None);
    let doubt = no_list(&child, &first, |_| None).value.doubt.unwrap();
    assert!(doubt.contains("/owners/{parent}/things") && doubt.contains("resource.things.list.path"), "{doubt}");
}

#[test]
fn a_stored_document_is_read_without_its_envelope() {
    let own = definition(
        r#"[list]
        path = "/things"
        items = "/things"
        pages = { style = "none" }
        [detail]
        path = "/things/{id}"
        document = "/data"
        [detail.refresh]
        until = { at = "/code", in = ["DONE"] }
        time = "/at"
        every = "1h"
        max_age = "30d"
        [table]"#,
    );
    let answer = Bytes::from_static(br#"{"data":{"id":"1","at":"1970-01-01T00:00:00Z"}}"#);
    let read = detail(&own, "1", &answer, || None, Timestamp::EPOCH + HOUR).unwrap().value;
    assert!(read.refresh_after.is_some());
    let again = document(&own, "1", &read.body, || None, Timestamp::EPOCH + HOUR).unwrap().value;
    assert_eq!((again.hash, again.refresh_after), (read.hash, read.refresh_after));
    assert!(detail(&own, "1", &read.body, || None, Timestamp::EPOCH + HOUR).is_err(), "the envelope is not stored");
}
