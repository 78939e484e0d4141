//! An API that has nothing to do with the built-in marketplace: another host, an API key, offset pages, envelopes,
//! a list for each parent. All of it by configuration.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use warp::Filter as _;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use crate::support::app::{Builder, TestApp};
use crate::support::mariadb::Database;

const KEY: &str = "canary-key-of-the-library";
const BOOKS: u64 = 57;

/// A library's API.
#[derive(Default)]
struct Library {
    calls: AtomicU64,
    refused: AtomicU64,
    /// Loans that are back.
    returned: Mutex<Vec<u64>>,
}

impl Library {
    fn book(number: u64) -> Value {
        json!({
            "isbn": format!("978-{number:04}"), "title": format!("Book {number}"), "pages": 100 + number,
            "price": format!("{number}.50"), "added": 1_700_000_000 + number * 3600,
            "authors": [{"name": format!("Author {}", number % 7)}, {"name": "Another"}],
        })
    }

    fn loans(&self, isbn: &str) -> Vec<Value> {
        let number: u64 = isbn.trim_start_matches("978-").parse().unwrap_or_default();
        let returned = self.returned.lock().unwrap();
        (1..=number % 4)
            .map(|loan| {
                let back = returned.contains(&loan);
                json!({"loan": loan, "reader": format!("R{loan}"), "back": back})
            })
            .collect()
    }

    fn answer(&self, path: &str, query: &BTreeMap<String, String>, headers: &HeaderMap) -> (StatusCode, Value) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if headers.get("x-library-key").and_then(|key| key.to_str().ok()) != Some(KEY) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return (StatusCode::UNAUTHORIZED, json!({"error": "no such key"}));
        }
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
        let ok = |value: Value| (StatusCode::OK, value);
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["", "v2", "books"] => {
                let (skip, take) = (number("skip").unwrap_or(0), number("take").unwrap_or(10).min(20));
                let shown = (skip + 1..=BOOKS).take(usize::try_from(take).unwrap());
                ok(shown.map(|number| json!({"isbn": format!("978-{number:04}"), "rev": 1})).collect())
            }
            ["", "v2", "books", isbn] => match isbn.trim_start_matches("978-").parse::<u64>() {
                Ok(number) if (1..=BOOKS).contains(&number) => ok(json!({"data": Library::book(number)})),
                _ => (StatusCode::NOT_FOUND, json!({"error": "no such book"})),
            },
            ["", "v2", "books", "978-0008", "loans"] => (StatusCode::NOT_FOUND, json!({"error": "never lent"})),
            ["", "v2", "books", isbn, "loans"] => {
                let loans = self.loans(isbn);
                let page = usize::try_from(number("page").unwrap_or(0)).unwrap();
                let last = loans.len().div_ceil(2).max(1) - 1;
                let shown: Vec<&Value> = loans.iter().skip(page * 2).take(2).collect();
                ok(json!({"result": {"loans": shown, "more": page < last}}))
            }
            _ => (StatusCode::NOT_FOUND, json!({"error": "no such path"})),
        }
    }
}

async fn library() -> (Arc<Library>, String) {
    let library = Arc::new(Library::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&library);
    let answer = move |path: warp::path::FullPath, query: BTreeMap<String, String>, headers: HeaderMap| {
        let (status, body) = shared.answer(path.as_str(), &query, &headers);
        let mut response = Response::new(body.to_string().into());
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    };
    let routes = warp::get()
        .and(warp::path::full())
        .and(warp::query::<BTreeMap<String, String>>())
        .and(warp::header::headers_cloned())
        .map(answer);
    tokio::spawn(warp::serve(routes).incoming(listener).run());
    (library, address)
}

/// Everything that Waybill is configured with about the library.
const RESOURCES: &str = r#"
[source.limits]
"GET /v2/books"         = "none"
"GET /v2/books/*"       = "none"
"GET /v2/books/*/loans" = "1000/s"

[resource.books]
id = "/isbn"
list = { path = "/v2/books", items = "", pages = { style = "offset", parameter = "skip", limit = "take", size = 20 } }
detail = { path = "/v2/books/{id}", document = "/data" }

[resource.books.table]
id      = "isbn"
time    = "added"
search  = ["title", "isbn", "book_authors.name"]
filters = { author = "book_authors.name", number = "isbn" }

[resource.books.table.columns]
title = { from = "/title", type = "text(200)" }
pages = { from = "/pages", type = "integer" }
price = { from = "/price", type = "decimal(10,2)" }
added = { from = "/added", type = "datetime" }

[resource.books.table.children.book_authors]
from    = "/authors"
columns = { name = { from = "/name", type = "text(100)" } }

[resource.loans]
id     = "/loan"
parent = "books"
list   = { path = "/v2/books/{parent}/loans", items = "/result/loans", pages = { style = "has-more-flag", parameter = "page", first = 0, flag = "/result/more" } }

[resource.loans.table]
id      = "loan_id"
filters = { isbn = "isbn" }

[resource.loans.table.columns]
isbn   = { parent = true, type = "text(32)" }
reader = { from = "/reader", type = "text(32)" }
back   = { from = "/back", type = "boolean" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_api_of_another_kind_is_synced_by_configuration_alone() {
    synced(TestApp::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_of_another_kind_is_synced_into_mysql() {
    let database = Database::fresh().await;
    synced(TestApp::builder().mysql(database.url())).await;
    let counted: Vec<(String, u64, u64)> = database
        .rows("SELECT isbn, COUNT(*), SUM(`back`) FROM loans GROUP BY isbn HAVING COUNT(*) = 3 ORDER BY isbn LIMIT 2")
        .await;
    assert_eq!(counted, [("978-0003".to_owned(), 3, 1), ("978-0007".to_owned(), 3, 1)]);
    let authors: Vec<(String, u64)> =
        database.rows("SELECT name, COUNT(*) FROM book_authors GROUP BY name ORDER BY 2 DESC, name LIMIT 1").await;
    assert_eq!(authors, [("Another".to_owned(), BOOKS)]);
}

async fn synced(builder: Builder) {
    let (library, address) = library().await;
    let mut app = builder
        .source(&format!("base_url = \"{address}\"\nauth = \"api-key\"\napi_key_header = \"X-Library-Key\""))
        .resources(&["books", "loans"])
        .toml(RESOURCES)
        .unregistered()
        .start()
        .await;
    let shop = json!({"name": "Library", "client_id": "reading-room", "client_secret": KEY});
    let (status, shop) = app.call(reqwest::Method::POST, "/api/v1/shops", Some(shop)).await;
    assert_eq!(status, 201, "{shop}");
    let id = shop["id"].as_str().unwrap().to_owned();
    app.shops.insert("reading-room".to_owned(), id.clone());
    app.run_until_idle().await;
    let books = app.pages("/api/v1/books?limit=50").await;
    assert_eq!(books.len() as u64, BOOKS);
    for book in &books {
        let number: u64 = book["id"].as_str().unwrap().trim_start_matches("978-").parse().unwrap();
        assert_eq!(book["document"], Library::book(number));
    }
    let first = app.get(&format!("/api/v1/books/{id}/978-0001")).await;
    assert_eq!(
        (&first["title"], &first["pages"], &first["price"], &first["added"]),
        (&json!("Book 1"), &json!(101), &json!("1.50"), &json!("2023-11-14T23:13:20.000000Z"))
    );
    for (query, count) in [
        ("author=Author%203", 8),
        ("author=author%203", 0),
        ("number=978-0007", 1),
        ("number=978-0007&author=Author%203", 0),
        ("q=oK%2012", 1),
        ("q=thor%203", 8),
        ("q=978-000", 9),
        ("q=another&number=978-0007", 1),
    ] {
        assert_eq!(app.pages(&format!("/api/v1/books?{query}")).await.len(), count, "{query}");
    }
    let lent = |isbn: &u64| if *isbn == 8 { 0 } else { isbn % 4 };
    let all: u64 = (1..=BOOKS).map(|isbn| lent(&isbn)).sum();
    let loans = app.pages("/api/v1/loans?limit=500").await;
    assert_eq!(loans.len() as u64, all, "each list of each parent, and the unknown one does not end the walk");
    let of_seven = app.pages("/api/v1/loans?isbn=978-0007").await;
    let ids: Vec<&str> = of_seven.iter().map(|loan| loan["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["978-0007:1", "978-0007:2", "978-0007:3"]);
    let one = app.get(&format!("/api/v1/loans/{id}/978-0007:2")).await;
    assert_eq!((&one["reader"], &one["isbn"]), (&json!("R2"), &json!("978-0007")));
    assert_eq!((&of_seven[0]["isbn"], &of_seven[0]["back"]), (&json!("978-0007"), &json!(false)));
    // What changes comes with the next walk, and nothing else is re-read.
    library.returned.lock().unwrap().push(3);
    let before = library.calls.load(Ordering::Relaxed);
    app.sync("reading-room", "incremental").await;
    app.run_until_idle().await;
    let back = app.pages("/api/v1/loans?limit=500").await.into_iter().filter(|loan| loan["back"] == true).count();
    assert_eq!(back as u64, (1..=BOOKS).filter(|isbn| lent(isbn) == 3).count() as u64);
    let lists = 4 + (1..=BOOKS).map(|isbn| lent(&isbn).div_ceil(2).max(1)).sum::<u64>();
    assert_eq!(library.calls.load(Ordering::Relaxed) - before, lists, "pages alone: no book changed");
    assert_eq!(library.refused.load(Ordering::Relaxed), 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_api_refuses_stops_its_shop_with_the_reason() {
    let (library, address) = library().await;
    let mut app = TestApp::builder()
        .source(&format!("base_url = \"{address}\"\nauth = \"api-key\"\napi_key_header = \"X-Library-Key\""))
        .resources(&["books", "loans"])
        .toml(RESOURCES)
        .unregistered()
        .start()
        .await;
    let shop = json!({"name": "Library", "client_id": "x", "client_secret": "wrong"});
    let (_, shop) = app.call(reqwest::Method::POST, "/api/v1/shops", Some(shop)).await;
    let id = shop["id"].as_str().unwrap().to_owned();
    app.shops.insert("x".to_owned(), id.clone());
    app.run_until_idle().await;
    let shown = app.get(&format!("/api/v1/shops/{id}")).await;
    assert_eq!(shown["state"], "refused", "{shown}");
    assert!(shown.to_string().contains("refused the credentials (401)"), "{shown}");
    assert_eq!(library.calls.load(Ordering::Relaxed), 1, "it is asked once");
    // Where no login host is, the first call tries the secret again.
    assert_eq!(app.patch("x", json!({"paused": false})).await.1["state"], "active");
    app.run_until_idle().await;
    assert_eq!(app.get(&format!("/api/v1/shops/{id}")).await["state"], "refused");
    assert_eq!(library.calls.load(Ordering::Relaxed), 2);
    let (status, _) = app.patch("x", json!({"client_secret": KEY})).await;
    assert_eq!(status, 200);
    app.run_until_idle().await;
    assert_eq!(app.pages("/api/v1/books?limit=50").await.len() as u64, BOOKS);
    app.finish().await;
}
