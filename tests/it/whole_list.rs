//! A walk proves that it read its list whole, or says why it does not: each page style, cut in each way.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use warp::Filter as _;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::support::app::TestApp;

/// An answer of the API: status, body, address of the next page in the header.
type Answer = (u16, Vec<u8>, Option<String>);
type Query = BTreeMap<String, String>;
type Answers = Box<dyn Fn(&Query) -> Answer + Send>;
/// A list's definition, what spoils its first page, and the reason that its walk gives.
type Cut = (String, Option<fn(&mut Value)>, &'static str);

/// An API of one list, and of a document for each of its rows.
struct Api {
    answer: Mutex<Answers>,
    calls: Mutex<Vec<String>>,
}

impl Api {
    fn set(&self, answer: impl Fn(&Query) -> Answer + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    /// Calls so far that asked for this.
    fn calls(&self, part: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|call| call.contains(part)).count()
    }

    fn answer(&self, path: &str, query: &Query) -> Answer {
        let asked = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        self.calls.lock().unwrap().push(format!("{path}?{asked}"));
        match path.strip_prefix("/things/") {
            Some(id) => {
                let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
                ok(&json!({"id": id, "name": format!("thing {id}")}))
            }
            None => (self.answer.lock().unwrap())(query),
        }
    }
}

fn ok(body: &Value) -> Answer {
    (200, body.to_string().into_bytes(), None)
}

async fn api(answer: impl Fn(&Query) -> Answer + Send + 'static) -> (Arc<Api>, String) {
    let api = Arc::new(Api { answer: Mutex::new(Box::new(answer)), calls: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&api);
    let answer = move |path: warp::path::FullPath, query: Query| {
        let (status, body, next) = shared.answer(path.as_str(), &query);
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        if let Some(next) = next {
            response.headers_mut().insert("link", format!("<{next}>; rel=\"next\"").parse().unwrap());
        }
        response
    };
    let routes = warp::get().and(warp::path::full()).and(warp::query::<Query>()).map(answer);
    tokio::spawn(warp::serve(routes).incoming(listener).run());
    (api, address)
}

const DETAIL: &str = "detail = { path = \"/things/{id}\" }";

/// An app that syncs the list, with these lines in `[resource.things.list]`; the shop is `shop`.
async fn synced(address: &str, list: &str, detail: &str) -> TestApp {
    let more = format!(
        "[limits]\nattempts_max = 3\n[source.limits]\n\"GET /things\" = \"none\"\n\"GET /things/*\" = \"none\"\n\
         [resource.things]\nid = \"/id\"\n{detail}\n[resource.things.list]\npath = \"/things\"\n{list}\n\
         [resource.things.table]\ncolumns = {{ name = {{ from = \"/name\", type = \"text\" }} }}\n"
    );
    TestApp::synced_from(address, &["things"], &more).await
}

/// State and error of the last run.
async fn last_run(app: &TestApp) -> (String, String) {
    let run = app.runs("shop").await.remove(0);
    let text = |name: &str| run[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("error"))
}

async fn completeness(app: &TestApp) -> Value {
    app.get(&format!("/api/v1/shops/{}/completeness", app.shops["shop"])).await
}

async fn stored(app: &TestApp) -> usize {
    app.pages("/api/v1/things?limit=500").await.len()
}

/// The rows of a page, from 0, of a list of that many, ten a page.
fn rows(page: usize, all: usize) -> Vec<Value> {
    (page * 10..all.min(page * 10 + 10)).map(|n| json!({"id": format!("r{n:03}"), "n": n})).collect()
}

fn page_of(query: &Query) -> usize {
    query.get("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1) - 1
}

/// What a list says beside its rows.
fn envelope(page: usize, all: usize) -> Value {
    let next = (page * 10 + 10 < all).then(|| format!("{}", page + 2));
    let link = next.as_ref().map(|next| format!("/things?page={next}"));
    json!({
        "items": rows(page, all), "meta": {"total": all, "more": next.is_some(), "next": next, "link": link},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_style_that_is_cut_ends_unproved_and_keeps_what_it_read() {
    let cursor = "items = \"/items\"\npages = { style = \"cursor\", parameter = \"page\", next = \"/meta/next\"";
    let link = "items = \"/items\"\npages = { style = \"next-link\", at = \"/meta/link\"";
    let number = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\"";
    let offset = "items = \"/items\"\npages = { style = \"offset\", parameter = \"skip\", size = 10";
    let flag = "items = \"/items\"\npages = { style = \"has-more-flag\", parameter = \"page\", flag = \"/meta/more\"";
    let header = "items = \"/items\"\npages = { style = \"next-link\"";
    let misspelt = |list: &str| list.replace("/meta/next", "/meta/next_curser").replace("/meta/link", "/meta/lnik");
    let cases: Vec<Cut> = vec![
        (misspelt(cursor) + ", size = 10 }", None, "a full page (10 rows"),
        (misspelt(cursor) + ", total = \"/meta/total\" }", None, "after 10 of the 25 rows"),
        (misspelt(cursor) + ", more = \"/meta/more\" }", None, "/meta/more says that more rows follow"),
        (misspelt(link) + ", size = 10 }", None, "a full page (10 rows"),
        (misspelt(link) + ", total = \"/meta/total\" }", None, "after 10 of the 25 rows"),
        (misspelt(link) + ", more = \"/meta/more\" }", None, "/meta/more says that more rows follow"),
        (cursor.replace("/meta/next", "/items/99/id") + ", size = 10 }", None, "has no next one at /items/99/id"),
        (cursor.to_owned() + ", total = \"/meta/totl\" }", None, "no page has /meta/totl"),
        (cursor.to_owned() + ", more = \"/meta/mroe\" }", None, "the last page has no /meta/mroe"),
        (cursor.to_owned() + ", size = 10 }", Some(|page| page["meta"]["next"] = json!({})), "/meta/next is an object"),
        (link.to_owned() + ", size = 10 }", Some(|page| page["meta"]["link"] = json!("/others?page=2")), "elsewhere"),
        (header.to_owned() + ", size = 10 }", None, "in the header Link"),
        (
            number.to_owned() + ", total = \"/meta/total\" }",
            Some(|page| page["meta"]["total"] = json!(99)),
            "of the 99 rows",
        ),
        (
            offset.to_owned() + ", total = \"/meta/total\" }",
            Some(|page| page["meta"]["total"] = json!(99)),
            "of the 99 rows",
        ),
        (flag.to_owned() + " }", Some(|page| page["meta"] = json!({})), "/meta/more is missing"),
        (
            flag.to_owned() + ", total = \"/meta/total\" }",
            Some(|page| page["meta"]["more"] = json!(false)),
            "of the 25 rows",
        ),
        ("items = \"/items\"\npages = { style = \"none\", size = 10 }".to_owned(), None, "a full page (10 rows"),
        (
            "items = \"/items\"\npages = { style = \"none\", total = \"/meta/total\" }".to_owned(),
            None,
            "of the 25 rows",
        ),
    ];
    for (list, spoil, reason) in cases {
        let (calls, address) = api(move |query| {
            let skip = query.get("skip").and_then(|skip| skip.parse::<usize>().ok());
            let mut page = envelope(skip.map_or_else(|| page_of(query), |skip| skip.div_ceil(10)), 25);
            if let Some(spoil) = spoil {
                spoil(&mut page);
            }
            ok(&page)
        })
        .await;
        let app = synced(&address, &list, DETAIL).await;
        let (state, error) = last_run(&app).await;
        assert!(state == "unproved" && error.contains(reason), "{list}: {state} {error}");
        // What it read is kept, and the walk moved nothing.
        assert_eq!(stored(&app).await, calls.calls("/things/r"), "{list}");
        assert!(stored(&app).await >= 10, "{list}");
        let found = completeness(&app).await;
        assert_eq!(
            (&found["complete"], &found["resources"][0]["full_walk_at"]),
            (&json!(false), &Value::Null),
            "{list}"
        );
        assert!(found["resources"][0]["unproved"].as_str().unwrap().contains(reason), "{found}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_style_with_a_proof_reads_its_list_whole_and_the_next_walk_after_a_cut_is_full() {
    let last =
        "items = \"/items\"\npages = { style = \"cursor\", parameter = \"after\", next = \"/items/-1/id\", size = 10 }";
    let after = |query: &Query| {
        let from = query.get("after").map_or(0, |id| id.trim_start_matches('r').parse::<usize>().unwrap() + 1);
        ok(&json!({"items": (from..25.min(from + 10)).map(|n| json!({"id": format!("r{n:03}")})).collect::<Vec<_>>()}))
    };
    let (_, address) = api(after).await;
    let app = synced(&address, last, DETAIL).await;
    assert_eq!((last_run(&app).await.0.as_str(), stored(&app).await), ("done", 25));
    app.finish().await;

    let list =
        "items = \"/items\"\npages = { style = \"cursor\", parameter = \"page\", next = \"/meta/next\", size = 10 }";
    let (calls, address) = api(|query| ok(&envelope(page_of(query), 25))).await;
    let app = synced(&address, list, DETAIL).await;
    assert_eq!((last_run(&app).await.0.as_str(), stored(&app).await), ("done", 25));
    assert_eq!(completeness(&app).await["complete"], true);
    // The server loses its cursor after the second page, for one walk.
    calls.set(|query| {
        let mut page = envelope(page_of(query), 25);
        if page_of(query) == 1 {
            page["meta"]["next"] = Value::Null;
        }
        ok(&page)
    });
    app.sync("shop", "full").await;
    app.run_until_idle().await;
    let (state, error) = last_run(&app).await;
    assert!(state == "unproved" && error.contains("page 2: a full page"), "{error}");
    assert!(app.pages("/api/v1/things?limit=500").await.iter().all(|thing| thing["no_longer_listed_at"].is_null()));
    calls.set(|query| ok(&envelope(page_of(query), 25)));
    app.sync("shop", "incremental").await;
    app.run_until_idle().await;
    let run = app.runs("shop").await.remove(0);
    assert_eq!((&run["mode"], &run["state"]), (&json!("full"), &json!("done")), "{run}");
    assert_eq!(completeness(&app).await["complete"], true);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_shows_nothing_of_what_it_showed_is_in_doubt() {
    let list = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\" }";
    let (calls, address) = api(|query| ok(&envelope(page_of(query), 25))).await;
    let app = synced(&address, list, DETAIL).await;
    for (what, mode) in [("full", "full"), ("news", "incremental")] {
        calls.set(|_| ok(&json!({"items": []})));
        app.sync("shop", mode).await;
        app.run_until_idle().await;
        let (state, error) = last_run(&app).await;
        assert!(
            state == "unproved" && error.contains("shows none of the rows that it showed before"),
            "{what}: {error}"
        );
        let reasons = app.status().await["health"]["reasons"].clone();
        let reason = reasons.as_array().unwrap().iter().find(|reason| reason["code"] == "unproved").unwrap();
        let remedy = reason["remedy"].as_str().unwrap();
        assert!(remedy.contains("really empty") && remedy.contains("an hour later"), "{remedy}");
        assert!(app.pages("/api/v1/things?limit=500").await.iter().all(|thing| thing["no_longer_listed_at"].is_null()));
        assert_eq!(completeness(&app).await["complete"], false);
        calls.set(|query| ok(&envelope(page_of(query), 25)));
        app.sync("shop", "incremental").await;
        app.run_until_idle().await;
        assert_eq!(last_run(&app).await.0, "done", "{what}");
    }
    assert_eq!(completeness(&app).await["complete"], true);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_kept_are_listed_and_parked_in_every_count() {
    let ids = ["ok1".to_owned(), "x".repeat(129), "trail ".to_owned(), "..".to_owned(), "ok2".to_owned()];
    let (calls, address) = api(move |query| match page_of(query) {
        0 => ok(&json!({"items": ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>()})),
        _ => ok(&json!({})),
    })
    .await;
    let list = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\" }";
    let mut app = synced(&address, list, DETAIL).await;
    for mode in ["full", "incremental"] {
        let run = app.runs("shop").await.remove(0);
        assert_eq!((&run["listed"], &run["rejected"], &run["parked"]), (&json!(5), &json!(3), &json!(3)), "{run}");
        let found = completeness(&app).await["resources"][0].clone();
        let count = |name: &str| found[name].as_u64().unwrap();
        assert_eq!([count("listed"), count("in_sink"), count("parked"), count("missing")], [5, 2, 3, 0], "{found}");
        assert_eq!(completeness(&app).await["complete"], false);
        app.sync("shop", mode).await;
        app.run_until_idle().await;
    }
    // Once the list does not show them any more, there is nothing left to look at.
    calls.set(
        |query| {
            if page_of(query) == 0 { ok(&json!({"items": [{"id": "ok1"}, {"id": "ok2"}]})) } else { ok(&json!({})) }
        },
    );
    app.sync("shop", "full").await;
    app.run_until_idle().await;
    assert_eq!(completeness(&app).await["complete"], true);
    app.expect_parked(0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_page_closes_none_behind_it_and_one_bad_row_no_page() {
    type Bad = fn(Vec<u8>) -> Answer;
    let cases: [(&str, Bad, usize, &str); 5] = [
        ("500", |_| (500, b"{}".to_vec(), None), 15, "unproved"),
        ("cut", |page| (200, page[..page.len() / 2].to_vec(), None), 15, "unproved"),
        ("html", |_| (200, b"<html>".to_vec(), None), 15, "unproved"),
        (
            "NaN",
            |page| (200, String::from_utf8(page).unwrap().replace("\"n\":12", "\"n\":NaN").into(), None),
            24,
            "done",
        ),
        (
            "[1 2]",
            |page| (200, String::from_utf8(page).unwrap().replace("\"n\":12", "\"n\":[1 2]").into(), None),
            24,
            "done",
        ),
    ];
    let list = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\" }";
    for (what, bad, kept, state) in cases {
        let (calls, address) = api(move |query| {
            let (status, body, next) = ok(&json!({"items": rows(page_of(query), 25)}));
            if page_of(query) == 1 { bad(body) } else { (status, body, next) }
        })
        .await;
        let mut app = synced(&address, list, "").await;
        assert_eq!((stored(&app).await, last_run(&app).await.0.as_str()), (kept, state), "{what}");
        // Walked again, it is parked once all the same.
        app.sync("shop", "full").await;
        app.run_until_idle().await;
        assert_eq!(app.status().await["parked"], 1, "{what}");
        if state == "unproved" {
            let (_, error) = last_run(&app).await;
            assert!(error.starts_with("page 2 could not be read, so its rows may be missing: "), "{what}: {error}");
        }
        calls.set(|query| ok(&json!({"items": rows(page_of(query), 25)})));
        app.sync("shop", "full").await;
        app.run_until_idle().await;
        assert_eq!((stored(&app).await, last_run(&app).await.0.as_str()), (25, "done"), "{what}");
        app.expect_parked(0);
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usual_ends_of_lists_are_named_in_the_definition() {
    let ends: [(&str, &str, u16); 6] = [
        ("status = [404]", r#"{"detail":"Invalid page."}"#, 404),
        ("status = [400]", r#"{"code":"rest_post_invalid_page_number"}"#, 400),
        ("null = true", r#"{"items":null}"#, 200),
        ("empty_array = true", "[]", 200),
        ("repeat = true", "again", 200),
        ("", "", 204),
    ];
    let plain = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\" }";
    for (end, body, status) in ends {
        let (_, address) = api(move |query| match (page_of(query), body) {
            (page @ 0..3, _) => ok(&json!({"items": rows(page, 25)})),
            (_, "again") => ok(&json!({"items": rows(2, 25)})),
            (_, body) => (status, body.as_bytes().to_vec(), None),
        })
        .await;
        let named = synced(&address, &format!("{plain}\nend = {{ {end} }}"), "").await;
        assert_eq!((last_run(&named).await.0.as_str(), stored(&named).await), ("done", 25), "{end}");
        assert_eq!(completeness(&named).await["complete"], true, "{end}");
        named.finish().await;
        if end.is_empty() {
            continue;
        }
        // Without it the rows are kept, and the line to add is in the reason.
        let mut unnamed = synced(&address, plain, "").await;
        let (state, error) = last_run(&unnamed).await;
        assert_eq!(stored(&unnamed).await, 25, "{end}");
        assert!(error.contains(&format!("add end = {{ {end} }} to [resource.things.list]")), "{end}: {error}");
        let repeats = body == "again";
        assert_eq!(state, if repeats { "failed" } else { "unproved" });
        unnamed.expect_failed_runs(usize::from(repeats));
        unnamed.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_shape_is_asked_for_twice() {
    let list = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\" }";
    let (calls, address) = api(|_| ok(&json!({"message": "no such list"}))).await;
    let mut app = synced(&address, list, DETAIL).await;
    assert_eq!((last_run(&app).await.0.as_str(), calls.calls("page=1")), ("failed", 2));
    app.expect_failed_runs(1);
    app.expect_parked(app.status().await["parked"].as_u64().unwrap());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_listed_twice_is_not_read_again_in_every_walk() {
    let list = "items = \"/items\"\npages = { style = \"number\", parameter = \"page\" }";
    // Twice on one page, and on two pages; arrays in another order each time.
    let turn = std::sync::atomic::AtomicU64::new(0);
    let (calls, address) = api(move |query| {
        let tags =
            if turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(2) { [1, 2] } else { [2, 1] };
        ok(&match page_of(query) {
            0 => {
                json!({"items": [{"id": "a", "line": 1, "tags": tags}, {"id": "a", "line": 2}, {"id": "b", "line": 1}]})
            }
            1 => json!({"items": [{"id": "b", "line": 2}, {"id": "c", "tags": tags}]}),
            _ => json!({"items": []}),
        })
    })
    .await;
    let app = synced(&address, list, DETAIL).await;
    let first = calls.calls("/things/");
    for mode in ["full", "incremental", "full"] {
        app.sync("shop", mode).await;
        app.run_until_idle().await;
        assert_eq!(calls.calls("/things/"), first, "{mode}");
    }
    app.finish().await;
}
