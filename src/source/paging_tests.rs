//! The page styles: requests, proofs of a list's end and what leaves it in doubt; rows that are bad or duplicate.

use bytes::Bytes;

use super::SourceError;
use super::json::hash;
use super::pages::{ListResponse, end_by_status, list_call, page};
use super::pages_tests::{definition, ids, listed, read, row_is_document};
use super::position::Position;
use crate::catalog::Definition;
use crate::domain::step::Next;
use crate::domain::{Json, ListParams, Timestamp};

/// A list of things with pages of a style.
fn styled(pages: &str) -> Definition {
    definition(&format!("[list]\npath = \"/things\"\nitems = \"/things\"\npages = {pages}\n[table]"))
}

/// Walks over these answers (body, header); returns the queries, and the doubt about the end if there is one.
fn walked(definition: &Definition, answers: &[(&str, Option<&str>)]) -> (Vec<String>, Option<String>) {
    let (mut position, mut queries) = (Position::default(), Vec::new());
    for (body, next_link) in answers {
        let query = list_call(definition, &ListParams::default(), &position, Timestamp::EPOCH).query;
        queries.push(query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"));
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = ListResponse { body: &body, next_link: *next_link, previous: None };
        let page = page(definition, &position, answer, |_| None).unwrap().value;
        let Next::More { cursor } = &page.next else { return (queries, page.doubt) };
        position = Position::read(queries.len() as u64 + 1, cursor.as_deref()).unwrap();
    }
    panic!("the list did not end: {queries:?}")
}

const FLAG: &str = r#"{ style = "has-more-flag", parameter = "p", first = 0, flag = "/more" }"#;
const CURSOR: &str = r#"{ style = "cursor", parameter = "c", next = ["/page/next", "/next"], size = 2 }"#;
const LINK: &str = r#"{ style = "next-link", at = "/links/next", size = 2 }"#;

#[test]
fn each_page_style_requests_the_next_page_and_finds_the_end() {
    const ROW: &str = r#"{"things":[{"id":"1"}]}"#;
    const NONE: &str = r#"{"things":[]}"#;
    let offset = r#"{ style = "offset", parameter = "from", limit = "n", size = 20 }"#;
    let header = r#"{ style = "next-link", size = 2 }"#;
    for (style, answers, asked) in [
        (
            FLAG,
            &[(r#"{"things":[{"id":"1"}],"more":true}"#, None), (r#"{"things":[],"more":true}"#, None), (NONE, None)][..],
            &["p=0", "p=1", "p=2"][..],
        ),
        (
            CURSOR,
            &[
                (r#"{"things":[],"page":{"next":"a b"}}"#, None),
                (r#"{"things":[],"next":7,"page":{}}"#, None),
                (r#"{"things":[],"next":""}"#, None),
            ],
            &["", "c=a b", "c=7"],
        ),
        (offset, &[(ROW, None), (ROW, None), (NONE, None)], &["from=0&n=20", "from=1&n=20", "from=2&n=20"]),
        (
            LINK,
            &[
                (r#"{"things":[],"links":{"next":"https://elsewhere.example/v1/things?after=a%20b&x=1"}}"#, None),
                (r#"{"things":[],"links":{"next":"?after=2"}}"#, None),
                (r#"{"things":[],"links":{"next":null}}"#, None),
            ],
            &["", "after=a b&x=1", "after=2"],
        ),
        (header, &[(ROW, Some("/things?page=2")), (ROW, None)], &["", "page=2"]),
    ] {
        let (queries, doubt) = walked(&styled(style), answers);
        assert_eq!(queries.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), asked, "{style}");
        assert_eq!(doubt, None, "{style}");
    }
    // An unusable continuation keeps the rows and leaves the end in doubt.
    for (style, body, reason) in [
        (FLAG, r#"{"things":[{"id":"1"}],"more":"yes"}"#, "/more is a text, not true or false"),
        (FLAG, ROW, "/more is missing from a page with rows"),
        (CURSOR, r#"{"things":[{"id":"1"}],"next":{}}"#, "/next is an object, not a text"),
        (LINK, r#"{"things":[{"id":"1"}],"links":{"next":"/others?x=1"}}"#, "leads elsewhere"),
    ] {
        let page = read(&styled(style), body).unwrap();
        assert_eq!((ids(&page), &page.next), (vec!["1"], &Next::End), "{style}");
        assert!(page.doubt.unwrap().contains(reason), "{style}");
    }
    // A page without rows may leave their key out, and yet not be the last.
    let bare = styled(&format!("{CURSOR}\nharmless = [\"page\"]"));
    let (queries, doubt) = walked(&bare, &[(r#"{"page":{"next":"b"}}"#, None), (NONE, None)]);
    assert_eq!((queries.len(), doubt), (2, None));
    let again = r#"{"things":[],"next":"a"}"#;
    let (queries, doubt) = walked(&styled(CURSOR), &[(again, None), (again, None)]);
    assert_eq!(queries.len(), 2);
    assert!(doubt.unwrap().contains("this page again"));
}

#[test]
fn an_end_without_a_proof_is_in_doubt() {
    let total = r#"{ style = "cursor", parameter = "c", next = "/next", total = "/total" }"#;
    let more = r#"{ style = "next-link", at = "/next", more = "/more" }"#;
    let single = r#"{ style = "none", total = "/total" }"#;
    let two = r#""things":[{"id":"1"},{"id":"2"}]"#;
    for (style, rest, doubt) in [
        (
            CURSOR,
            r#","next":null"#,
            Some("a full page (2 rows, and `size` is 2) has no next one at /page/next or /next"),
        ),
        (total, r#","total":2"#, None),
        (total, r#","total":"2""#, None),
        (total, r#","total":1"#, None),
        (total, r#","total":3"#, Some("the list ended after 2 of the 3 rows that /total counts")),
        (total, "", Some("no page has /total")),
        (total, r#","total":"many""#, Some("/total is a text, not a count")),
        (more, r#","more":false"#, None),
        (more, r#","more":true"#, Some("/more says that more rows follow")),
        (more, "", Some("the last page has no /more")),
        (more, r#","more":0"#, Some("/more is a number, not true or false")),
        (single, r#","total":3"#, Some("the list ended after 2 of the 3 rows")),
        (single, r#","total":2"#, None),
    ] {
        let (_, found) = walked(&styled(style), &[(&format!("{{{two}{rest}}}"), None)]);
        match (&found, doubt) {
            (Some(found), Some(doubt)) => assert!(found.contains(doubt), "{style} {rest}: {found}"),
            (found, doubt) => assert_eq!(found.as_deref(), doubt, "{style} {rest}"),
        }
    }
    // The latest total is compared with the rows of all pages, which may be more.
    let counted = styled(r#"{ style = "number", parameter = "page", total = "/total" }"#);
    let (first, second) = (format!("{{{two},\"total\":3}}"), format!("{{{two},\"total\":4}}"));
    assert_eq!(walked(&counted, &[(&first, None), (&second, None), ("{}", None)]).1, None);
    let (_, doubt) = walked(&counted, &[(&second, None), ("{}", None)]);
    assert!(doubt.unwrap().contains("after 2 of the 4 rows"));
    // A shorter page is the last one; an empty one too.
    assert_eq!(walked(&styled(CURSOR), &[(r#"{"things":[{"id":"1"}]}"#, None)]).1, None);
    assert_eq!(walked(&styled(total), &[("{}", None)]).1, None);
}

#[test]
fn pointers_of_a_list_may_index_arrays() {
    let last = styled(r#"{ style = "cursor", parameter = "c", next = "/things/-1/id", size = 2 }"#);
    let two = r#"{"things":[{"id":"1"},{"id":"2"}]}"#;
    assert_eq!(walked(&last, &[(two, None), (r#"{"things":[]}"#, None)]).0, ["", "c=2"]);
    let inner = definition("[list]\npath = \"/things\"\nitems = \"/0/rows\"\npages = { style = \"none\" }\n[table]");
    assert_eq!(ids(&read(&inner, r#"[{"rows":[{"id":"a"}]},7]"#).unwrap()), ["a"]);
}

#[test]
fn usual_ends_of_lists_are_in_doubt_unless_the_definition_names_them() {
    let pages = r#"{ style = "number", parameter = "page" }"#;
    let plain = styled(pages);
    let named = styled(&format!("{pages}\nend = {{ status = [404], null = true, empty_array = true, repeat = true }}"));
    let second = |definition: &Definition| Position::default().after_page(definition, None, 1, None);
    let at_second = |definition: &Definition, body: &'static str, previous: Option<&str>| {
        let answer = ListResponse { body: &Bytes::from_static(body.as_bytes()), next_link: None, previous };
        page(definition, &second(definition), answer, |_| None).map(|parsed| parsed.value)
    };
    for (body, line) in [(r#"{"things":null}"#, "null = true"), ("[]", "empty_array = true")] {
        let in_doubt = at_second(&plain, body, None).unwrap();
        let line = format!("add end = {{ {line} }} to [resource.things.list]");
        assert!(in_doubt.next == Next::End && in_doubt.doubt.as_ref().unwrap().contains(&line), "{in_doubt:?}");
        assert!(read(&plain, body).unwrap_err().to_string().contains(&line), "not on the first page");
        let end = at_second(&named, body, None).unwrap();
        assert_eq!((end.next, end.doubt), (Next::End, None));
        assert_eq!(read(&named, body).unwrap().next, Next::End, "a list that is empty");
    }
    let unknown = SourceError::NotFound { status: 404, detail: String::new() };
    let end = |definition: &Definition, position: &Position, error| {
        end_by_status(definition, position, error, |_| None).map(|parsed| parsed.value)
    };
    assert_eq!(end(&named, &second(&named), &unknown).unwrap().doubt, None);
    assert_eq!(end(&named, &Position::default(), &unknown), None, "a missing list is not an empty one");
    let doubt = end(&plain, &second(&plain), &unknown).unwrap().doubt.unwrap();
    assert!(doubt.contains("add end = { status = [404] } to [resource.things.list]"), "{doubt}");
    assert_eq!(end(&styled(CURSOR), &second(&styled(CURSOR)), &unknown), None, "a cursor may have expired");
    assert_eq!(end(&plain, &second(&plain), &SourceError::NoContent).unwrap().doubt, None);
    assert_eq!(end(&plain, &Position::default(), &SourceError::NoContent), None);
    assert_eq!(end(&plain, &second(&plain), &SourceError::TimedOut), None);
    // The last page repeated.
    let rows = r#"{"things":[{"id":"1"}]}"#;
    let digest = at_second(&named, rows, None).unwrap().digest;
    let again = at_second(&named, rows, Some(&digest)).unwrap();
    assert_eq!((again.next, again.rows.len(), again.doubt), (Next::End, 0, None));
    assert_ne!(at_second(&plain, rows, Some(&digest)).unwrap().next, Next::End);
}

#[test]
fn a_bad_row_does_not_affect_the_others() {
    for odd in [&b"NaN"[..], b"\"Andr\xff\"", b"\"a\tb\"", b"[[1 2]]"] {
        let body = [b"{\"things\":[{\"id\":\"1\"},{\"id\":\"2\",\"n\":", odd, b"},{\"id\":\"3\"}]}"].concat();
        let answer = ListResponse { body: &Bytes::from(body), next_link: None, previous: None };
        let page = page(&listed(), &Position::default(), answer, |_| None).unwrap().value;
        // A more tolerant parser may accept the second row too.
        assert!(ids(&page).starts_with(&["1"]) && ids(&page).ends_with(&["3"]));
        assert_eq!(page.rows.len() + page.rejected.len(), 3);
    }
}

#[test]
fn rows_with_one_id_are_merged_and_the_order_within_arrays_is_ignored() {
    let hash_of = |rows: &str| {
        let page = read(&listed(), &format!("{{\"things\":[{rows}]}}")).unwrap();
        assert_eq!(page.rows.len(), 1);
        page.rows[0].hash
    };
    let (one, two) = (r#"{"id":"a","line":1}"#, r#"{"id":"a","line":2}"#);
    assert_eq!(hash_of(&format!("{one},{two}")), hash_of(&format!("{two},{one}")));
    assert_eq!(hash_of(&format!("{one},{one}")), hash_of(one));
    assert_ne!(hash_of(&format!("{one},{two}")), hash_of(two));
    let row = |items: &str| format!(r#"{{"id":"a","items":[{items}]}}"#);
    assert_eq!(hash_of(&row(r#"{"x":1,"y":[1,2]},{"x":2}"#)), hash_of(&row(r#"{"x":2},{"y":[2,1],"x":1}"#)));
    assert_ne!(hash_of(&row("1,2")), hash_of(&row("1,2,2")));
}

#[test]
fn the_digest_of_earlier_versions_still_matches() {
    let row = r#"{"id":"a","items":[2,1]}"#;
    let earlier = hash(&Json::parse(row.as_bytes()).unwrap());
    let known = read(&listed(), &format!("{{\"things\":[{row}]}}")).unwrap().rows.remove(0);
    assert_eq!(known.legacy, Some(earlier));
    // A row that is the document is stored again when its order differs.
    let document = read(&row_is_document(), &format!("{{\"data\":{{\"things\":[{row}]}}}}")).unwrap().rows.remove(0);
    assert_eq!((document.hash, document.legacy), (earlier, None));
}
