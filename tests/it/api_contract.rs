//! The contract of the REST API, called through the front door of a small installation.

mod again;
mod bound;
mod documents;
mod system;
pub(crate) mod world;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;
use waybill::http::{ServerLimits, routes};

use world::{ADMIN, BOUND, READ, World, market};

use crate::support::app::eventually;

/// The API of an installation of its own.
struct Door {
    world: World,
    routes: BoxedFilter<(Response,)>,
}

/// What came back.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Door {
    async fn synced() -> Door {
        Door::of(World::synced().await, ServerLimits::default())
    }

    fn of(world: World, limits: ServerLimits) -> Door {
        let routes = routes(world.service.clone(), limits);
        Door { world, routes }
    }

    async fn call(&self, method: &str, path: &str, key: Option<&str>, body: Option<(&str, &str)>) -> Got {
        let mut request = warp::test::request().method(method).path(&self.world.fill(path));
        if let Some(key) = key {
            request = request.header("authorization", self.bearer(key));
        }
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(self.world.fill(body));
        }
        let response = request.reply(&self.routes).await;
        let (parts, body) = response.into_parts();
        let got = Got {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        };
        check_form(&got);
        got
    }

    /// The header of a key; its names are filled in.
    fn bearer(&self, key: &str) -> String {
        format!("Bearer {}", self.world.fill(key))
    }

    async fn get(&self, path: &str, key: &str) -> Got {
        self.call("GET", path, Some(key), None).await
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> Got {
        self.call(method, path, Some(ADMIN), Some(("application/json", body))).await
    }
}

/// What every response must be like.
fn check_form(got: &Got) {
    assert!(!got.header("x-request-id").is_empty(), "{got:?}");
    assert_eq!(got.header("cache-control"), "no-store");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert!(!got.headers.contains_key("server"));
    let status = StatusCode::from_u16(got.status).unwrap_or_default();
    if status.is_client_error() || status.is_server_error() {
        assert_eq!(got.header("content-type"), "application/problem+json", "{got:?}");
        let problem = got.json();
        assert_eq!(problem["status"], got.status, "{problem}");
        assert_eq!(problem["request_id"], got.header("x-request-id"));
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {problem}");
        }
    }
    if matches!(got.status, 429 | 503 | 507) {
        assert!(got.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{got:?}");
    }
}

/// Path, method, body, then the status for: no key, bad key, bound key, read key, admin key.
type Row = (&'static str, &'static str, Option<&'static str>, [u16; 5]);

const SHOP: &str = r#"{"name":"New","client_id":"c-9","client_secret":"s3cret"}"#;

const TABLE: &[Row] = &[
    ("/healthz", "GET", None, [200, 200, 200, 200, 200]),
    ("/healthz", "POST", None, [405, 405, 405, 405, 405]),
    ("/livez", "GET", None, [200, 200, 200, 200, 200]),
    ("/livez", "POST", None, [405, 405, 405, 405, 405]),
    ("/", "GET", None, [200, 200, 200, 200, 200]),
    ("/docs", "GET", None, [200, 200, 200, 200, 200]),
    ("/docs", "DELETE", None, [405, 405, 405, 405, 405]),
    ("/readyz", "GET", None, [200, 401, 200, 200, 200]),
    ("/readyz", "POST", None, [405, 405, 405, 405, 405]),
    ("/metrics", "GET", None, [401, 401, 403, 200, 200]),
    ("/openapi.json", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/status", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/status", "POST", None, [401, 401, 405, 405, 405]),
    ("/nothing", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/nothing", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/nothing/one/1", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/shops", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/shops", "HEAD", None, [401, 401, 200, 200, 200]),
    ("/api/v1/shops", "POST", Some(SHOP), [401, 401, 403, 403, 201]),
    ("/api/v1/shops", "PUT", Some(SHOP), [401, 401, 405, 405, 405]),
    ("/api/v1/shops", "TRACE", None, [401, 401, 405, 405, 405]),
    ("/api/v1/shops", "OPTIONS", None, [401, 401, 405, 405, 405]),
    ("/api/v1/shops/{one}", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/shops/{two}", "GET", None, [401, 401, 404, 200, 200]),
    ("/api/v1/shops/none", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/shops/{one}", "PATCH", Some(r#"{"paused":true}"#), [401, 401, 403, 403, 200]),
    ("/api/v1/shops/none", "PATCH", Some(r#"{"paused":true}"#), [401, 401, 403, 403, 404]),
    ("/api/v1/shops/{one}", "DELETE", None, [401, 401, 403, 403, 204]),
    ("/api/v1/shops/{one}?purge=true", "DELETE", None, [401, 401, 403, 403, 204]),
    ("/api/v1/shops/none", "DELETE", None, [401, 401, 403, 403, 404]),
    ("/api/v1/shops/{one}/sync", "POST", Some("{}"), [401, 401, 403, 403, 202]),
    ("/api/v1/shops/{one}/sync", "POST", None, [401, 401, 403, 403, 202]),
    ("/api/v1/shops/none/sync", "POST", Some("{}"), [401, 401, 403, 403, 404]),
    ("/api/v1/shops/{one}/sync", "GET", None, [401, 401, 405, 405, 405]),
    ("/api/v1/shipments", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/shipments", "POST", Some("{}"), [401, 401, 405, 405, 405]),
    ("/api/v1/shipments/{one}/id-1", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/shipments/{two}/id-1", "GET", None, [401, 401, 404, 200, 200]),
    ("/api/v1/shipments/{one}/none", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/runs", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/runs/{run_one}", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/runs/{run_two}", "GET", None, [401, 401, 404, 200, 200]),
    ("/api/v1/runs/999", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/runs/x", "GET", None, [401, 401, 404, 404, 404]),
    ("/api/v1/parked", "GET", None, [401, 401, 200, 200, 200]),
    ("/api/v1/parked/{parked_one}/retry", "POST", None, [401, 401, 403, 403, 204]),
    ("/api/v1/parked/99999/retry", "POST", None, [401, 401, 403, 403, 404]),
    ("/api/v1/parked/{parked_one}/retry", "GET", None, [401, 401, 405, 405, 405]),
    ("/api/v1/shops/{one}/parked/retry", "POST", None, [401, 401, 403, 403, 200]),
    ("/api/v1/shops/{one}/parked/retry?resource=shipments", "POST", Some("{}"), [401, 401, 403, 403, 200]),
    ("/api/v1/shops/{one}/parked/retry?shop={two}", "POST", None, [401, 401, 403, 403, 400]),
    ("/api/v1/shops/none/parked/retry", "POST", None, [401, 401, 403, 403, 404]),
    ("/api/v1/shops/{one}/parked/retry", "GET", None, [401, 401, 405, 405, 405]),
    ("/api/v1/keys", "GET", None, [401, 401, 403, 403, 200]),
    ("/api/v1/keys", "POST", Some(r#"{"name":"n"}"#), [401, 401, 403, 403, 201]),
    ("/api/v1/keys/none", "DELETE", None, [401, 401, 403, 403, 404]),
];

#[tokio::test]
async fn every_endpoint_has_one_status_for_each_kind_of_key() {
    let keys = [None, Some("no-such-key"), Some(BOUND), Some(READ), Some(ADMIN)];
    let mut door = Door::synced().await;
    for (path, method, body, statuses) in TABLE {
        for (key, status) in keys.into_iter().zip(statuses) {
            let got = door.call(method, path, key, body.map(|body| ("application/json", body))).await;
            // What a call changed must not change the status of the next ones.
            if got.status < 300 && !matches!(*method, "GET" | "HEAD") {
                door = Door::synced().await;
            }
            assert_eq!(got.status, *status, "{method} {path} with {key:?}: {}", got.text);
            match got.status {
                401 => assert_eq!(got.header("www-authenticate"), "Bearer"),
                405 => assert!(!got.header("allow").is_empty(), "{method} {path}"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_foreign_shop_and_an_absent_one_read_the_same() {
    let door = Door::synced().await;
    for (foreign, absent) in [
        ("/api/v1/shops/{two}", "/api/v1/shops/none"),
        ("/api/v1/shipments/{two}/id-1", "/api/v1/shipments/none/id-1"),
        ("/api/v1/runs/{run_two}", "/api/v1/runs/999"),
    ] {
        let (foreign, absent) = (door.get(foreign, BOUND).await, door.get(absent, BOUND).await);
        assert_eq!(foreign.json()["detail"], absent.json()["detail"]);
        assert_eq!((foreign.status, absent.status), (404, 404));
    }
    let listed = |got: Got| got.json()["items"].as_array().map_or(0, Vec::len);
    assert_eq!(listed(door.get("/api/v1/shops", BOUND).await), 1);
    assert_eq!(listed(door.get("/api/v1/runs", BOUND).await), 2);
    assert_eq!(listed(door.get("/api/v1/parked", BOUND).await), 1);
    assert_eq!(listed(door.get("/api/v1/shipments", BOUND).await), 8);
    assert_eq!(listed(door.get("/api/v1/shipments?shop={two}", BOUND).await), 0);
    assert_eq!(listed(door.get("/api/v1/runs?shop={two}", BOUND).await), 0);
    assert_eq!(door.get("/api/v1/status", BOUND).await.json()["shops"]["active"], 1);
    assert_eq!(door.get("/api/v1/status", READ).await.json()["shops"]["active"], 3);
}

#[tokio::test]
async fn a_key_of_one_shop_sees_the_budgets_of_its_account_only() {
    let door = Door::of(World::running("1/h").await, ServerLimits::default());
    for shop in ["one", "two"] {
        let path = format!("/api/v1/shops/{{{shop}}}/sync");
        assert_eq!(door.send("POST", &path, r#"{"mode":"full"}"#).await.status, 202);
    }
    let accounts = async |key: &str| {
        let status = door.get("/api/v1/status", key).await.json();
        let accounts = status["budgets"].as_array().cloned().unwrap_or_default().into_iter();
        accounts.map(|budget| budget["account"].as_str().unwrap_or_default().to_owned()).collect::<BTreeSet<String>>()
    };
    let both = BTreeSet::from(["client-one".to_owned(), "client-two".to_owned()]);
    eventually("the budgets of both accounts", async || (accounts(READ).await == both).then_some(())).await;
    assert_eq!(accounts(BOUND).await, BTreeSet::from(["client-one".to_owned()]));
}

#[tokio::test]
async fn a_shop_is_registered_and_its_secret_is_never_shown() {
    let door = Door::synced().await;
    let got = door.send("POST", "/api/v1/shops", SHOP).await;
    assert_eq!(got.status, 201);
    assert_eq!(market().secret("c-9").as_deref(), Some("s3cret"), "it was proved at the login host");
    let shop = got.json();
    let made = format!("/api/v1/shops/{}", shop["id"].as_str().unwrap());
    assert_eq!(got.header("location"), made);
    assert_eq!(shop["client_secret_set"], true);
    assert_eq!(shop["account"], "c-9");
    assert_eq!(shop["state"], "active");
    assert_eq!(shop["created_at"], shop["updated_at"]);
    assert!(shop["created_at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{shop}");
    assert!(!got.text.contains("s3cret"));
    assert!(!door.get(&made, ADMIN).await.text.contains("s3cret"));
}

#[tokio::test]
async fn a_shop_that_cannot_be_registered_has_the_status_of_its_reason() {
    let door = Door::synced().await;
    for (client_id, status, kind) in [
        ("client-one", 409, "conflict"),
        ("refused", 422, "credentials-refused"),
        ("unreachable", 502, "login-unreachable"),
    ] {
        let body = SHOP.replace("c-9", client_id);
        let got = door.send("POST", "/api/v1/shops", &body).await;
        assert_eq!((got.status, &got.json()["type"]), (status, &format!("urn:waybill:{kind}").into()));
        assert!(!got.text.contains("s3cret"), "{}", got.text);
    }
    let unreachable = door.send("POST", "/api/v1/shops", &SHOP.replace("c-9", "unreachable")).await;
    assert!(unreachable.header("retry-after").parse::<u64>().unwrap() >= 1, "{unreachable:?}");
}

#[tokio::test]
async fn bad_bodies_are_refused_with_the_place_of_the_offence() {
    let door = Door::synced().await;
    let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(101));
    let big = format!(r#"{{"name":"{}"}}"#, "n".repeat(70_000));
    let rows: &[(&str, u16, &[&str])] = &[
        ("", 422, &["name", "client_id", "client_secret"]),
        ("{}", 422, &["name", "client_id", "client_secret"]),
        ("[]", 400, &[]),
        ("null", 400, &[]),
        ("{", 400, &[]),
        ("{} x", 400, &[]),
        (r#"{"name":"a","name":"b"}"#, 400, &[]),
        (r#"{"name":1,"client_id":null,"client_secret":[]}"#, 422, &["name", "client_id", "client_secret"]),
        (r#"{"name":" ","client_id":"a b","client_secret":"p w"}"#, 422, &["name", "client_id", "client_secret"]),
        (r#"{"name":"a\u0007","client_id":"c","client_secret":"s"}"#, 422, &["name"]),
        (r#"{"name":"a\u202eb","client_id":"c","client_secret":"s"}"#, 422, &["name"]),
        (r#"{"name":"a\u200b","client_id":"c","client_secret":"s"}"#, 422, &["name"]),
        (r#"{"name":"a","client_id":"c","client_secret":"s","nmae":1}"#, 422, &["nmae"]),
        (r#"{"name":"a","client_id":"c","client_secret":"s","resources":[]}"#, 422, &["resources"]),
        (
            r#"{"name":"a","client_id":"c","client_secret":"s","resources":["shipments","x",1]}"#,
            422,
            &["resources[1]", "resources[2]"],
        ),
        (&long, 422, &["name", "client_id", "client_secret"]),
        (&big, 413, &[]),
    ];
    for (body, status, fields) in rows {
        let got = door.send("POST", "/api/v1/shops", body).await;
        assert_eq!(got.status, *status, "{body}: {}", got.text);
        let problem = got.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        let named: Vec<&str> = errors.iter().filter_map(|error| error["field"].as_str()).collect();
        assert_eq!(named, *fields, "{body}: {}", got.text);
    }
    for (method, path, body, status) in [
        ("PATCH", "/api/v1/shops/{one}", "{}", 422),
        ("PATCH", "/api/v1/shops/{one}", r#"{"paused":"yes"}"#, 422),
        ("PATCH", "/api/v1/shops/{one}", r#"{"client_id":"c"}"#, 422),
        ("POST", "/api/v1/shops/{one}/sync", r#"{"mode":"all"}"#, 422),
        ("POST", "/api/v1/shops/{one}/sync", r#"{"resource":"x"}"#, 422),
        ("POST", "/api/v1/shops/{one}/sync", r#"{"mode":"full","resource":"shipments"}"#, 202),
        ("POST", "/api/v1/shops/{one}/sync?mode=full", "{}", 400),
        ("POST", "/api/v1/shops?client_secret=s", SHOP, 400),
        ("DELETE", "/api/v1/shops/{one}?purge=yes", "", 400),
        ("PATCH", "/api/v1/shops/{one}", r#"{"resources":null}"#, 200),
        ("PATCH", "/api/v1/shops/{one}", r#"{"name":null}"#, 422),
        ("PATCH", "/api/v1/shops/{one}", r#"{"name":"Shop\u2066 one"}"#, 422),
        ("POST", "/api/v1/keys", r#"{"name":"n","scope":"root"}"#, 422),
        ("POST", "/api/v1/keys", r#"{"name":"n","scope":"admin","shops":["{one}"]}"#, 422),
        ("POST", "/api/v1/keys", r#"{"name":"n\ufeff"}"#, 422),
        ("POST", "/api/v1/keys", r#"{"name":"n","expires_days":0}"#, 422),
        ("POST", "/api/v1/keys", r#"{"name":"n","expires_days":1.5}"#, 422),
        ("POST", "/api/v1/keys", r#"{"name":"n","expires_days":30.0}"#, 201),
    ] {
        let got = door.send(method, path, body).await;
        assert_eq!(got.status, status, "{method} {path} {body}: {}", got.text);
    }
}

#[tokio::test]
async fn what_is_refused_says_what_would_be_right() {
    let door = Door::synced().await;
    let reported = |got: Got| got.json()["detail"].as_str().unwrap().to_owned();
    let refused = reported(door.send("POST", "/api/v1/shops", &SHOP.replace("c-9", "refused")).await);
    assert!(refused.contains("invalid_client (401); check the client id and the client secret"), "{refused}");
    let empty = door.send("PATCH", "/api/v1/shops/{one}", "{}").await;
    assert!(
        empty.json().get("errors").is_none() && empty.text.contains("give at least one of: name"),
        "{}",
        empty.text
    );
    let unknown = reported(door.get("/api/v1/shops", "wb_expired").await);
    assert!(unknown.contains("unknown, expired or revoked; create one"), "{unknown}");
    let unseen = reported(door.send("PATCH", "/api/v1/shops/{one}", r#"{"name":"Shop\u202e one"}"#).await);
    assert!(unseen.contains("`name` contains U+202E at character 5") && unseen.contains("remove it"), "{unseen}");
    let none = reported(door.call("GET", "/api/v1/shops", None, None).await);
    assert!(none.starts_with("send `Authorization"), "{none}");
}

#[tokio::test]
async fn a_shop_that_is_not_there_is_absent_whatever_the_body_says() {
    let door = Door::synced().await;
    for (method, path) in [("PATCH", ""), ("POST", "/sync"), ("POST", "/completeness"), ("POST", "/parked/retry")] {
        for body in ["{", r#"{"wrong":1}"#] {
            let got = door.send(method, &format!("/api/v1/shops/unknown{path}"), body).await;
            assert_eq!(got.status, 404, "{method} {path} {body}");
        }
    }
    for path in
        ["/api/v1/shops/{one}/completeness", "/api/v1/parked/{parked_one}/retry", "/api/v1/shops/{one}/parked/retry"]
    {
        assert_eq!(door.send("POST", path, r#"{"wrong":1}"#).await.status, 422, "{path}");
        assert_eq!(door.send("POST", path, "junk").await.status, 400, "{path}");
        assert!(door.send("POST", path, "").await.status < 300, "{path}");
    }
}

#[tokio::test]
async fn only_plain_json_bodies_are_read() {
    let door = Door::synced().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let got = door.call("POST", "/api/v1/shops", Some(ADMIN), Some((content_type, SHOP))).await;
        assert_eq!(got.status, 415, "{content_type}");
    }
    let got = door.call("POST", "/api/v1/shops", Some(ADMIN), Some(("Application/JSON; charset=utf-8", SHOP))).await;
    assert_eq!(got.status, 201);
}

#[tokio::test]
async fn all_that_is_parked_of_a_shop_is_put_back_at_once() {
    let door = Door::synced().await;
    let retried = async |query: &str| -> Value {
        door.send("POST", &format!("/api/v1/shops/{{one}}/parked/retry{query}"), "").await.json()
    };
    assert_eq!(retried("?resource=other").await, json!({"retried": 0}));
    assert_eq!(retried("?resource=shipments").await, json!({"retried": 1}));
    assert_eq!(retried("").await, json!({"retried": 0}));
    let left = door.get("/api/v1/parked", ADMIN).await.json();
    assert_eq!(
        (left["items"].as_array().map(Vec::len), &left["items"][0]["shop_id"]),
        (Some(1), &json!(door.world.fill("{two}")))
    );
}

#[tokio::test]
async fn a_paused_shop_cannot_be_synced() {
    let door = Door::synced().await;
    assert_eq!(door.send("PATCH", "/api/v1/shops/{one}", r#"{"paused":true}"#).await.json()["state"], "paused");
    assert_eq!(door.send("POST", "/api/v1/shops/{one}/sync", "{}").await.status, 409);
}

#[tokio::test]
async fn a_key_is_shown_once_and_works_until_it_is_revoked() {
    let door = Door::synced().await;
    let made = door.send("POST", "/api/v1/keys", r#"{"name":"n","shops":["{two}"],"expires_days":30}"#).await.json();
    let (Some(key), Some(id)) = (made["key"].as_str(), made["id"].as_str()) else { panic!("{made}") };
    assert_eq!(made["scope"], "read");
    assert_eq!(door.get("/api/v1/shops/{two}", key).await.status, 200);
    assert_eq!(door.get("/api/v1/shops/{one}", key).await.status, 404);
    assert!(!door.get("/api/v1/keys", ADMIN).await.text.contains(key));
    assert_eq!(door.send("DELETE", &format!("/api/v1/keys/{id}"), "").await.status, 204);
    assert_eq!(door.get("/api/v1/shops/{two}", key).await.status, 401);
}
