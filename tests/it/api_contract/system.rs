//! The description, the pages, the bounds, and the server itself.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use waybill::http::{RateLimit, ServerLimits, TrustedProxies, serve};

use super::Door;
use super::world::{ADMIN, BOUND, READ, SLOW_SECRET, World, market};
use crate::support::app::eventually;

#[tokio::test]
async fn every_described_operation_answers() {
    let description = Door::synced().await.get("/openapi.json", READ).await.json();
    let Some(paths) = description["paths"].as_object() else { panic!("{description}") };
    assert!(paths.contains_key("/api/v1/shipments/{shop_id}/{id}"));
    for (template, item) in paths {
        let path = template
            .replace("{shop_id}", "{one}")
            .replace("{id}", "id-1")
            .replace("{run_id}", "{run_one}")
            .replace("{resource}", "shipments")
            .replace("{parked_id}", "{parked_one}")
            .replace("{key_id}", "k");
        let Some(operations) = item.as_object() else { panic!("{item}") };
        for (method, operation) in operations {
            let got = Door::synced().await.send(&method.to_uppercase(), &path, "{}").await;
            let absent_key = template.ends_with("{key_id}");
            assert!(
                got.status < 400 || got.status == 422 || absent_key,
                "{method} {path}: {} {}",
                got.status,
                got.text
            );
            assert!(!operation["responses"][got.status.to_string()].is_null(), "{method} {path}: {}", got.status);
            assert!(operation["summary"].is_string() && operation["operationId"].is_string());
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_description_is_there() {
    let description = Door::synced().await.get("/openapi.json", READ).await;
    let json = description.json();
    for reference in description.text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap_or_default();
        assert!(json["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let item = &json["components"]["schemas"]["shipments_item"]["properties"];
    assert_eq!(item["shipment_date_time"]["format"], "date-time");
}

#[tokio::test]
async fn a_405_names_the_methods_of_the_path() {
    let door = Door::synced().await;
    for (path, allow) in [
        ("/api/v1/shops", "GET, HEAD, POST"),
        ("/api/v1/shops/{one}", "GET, HEAD, PATCH, DELETE"),
        ("/api/v1/shops/{one}/sync", "POST"),
        ("/api/v1/shipments", "GET, HEAD"),
        ("/api/v1/keys/k", "DELETE"),
        ("/", "GET, HEAD"),
    ] {
        let got = door.send("PUT", path, "{}").await;
        assert_eq!((got.status, got.header("allow")), (405, allow), "{path}");
        assert!(!got.headers.keys().any(|name| name.as_str().starts_with("access-control")));
    }
}

#[tokio::test]
async fn the_pages_hold_no_data_and_load_nothing_from_elsewhere() {
    let door = Door::synced().await;
    for path in ["/", "/docs"] {
        let page = door.call("GET", path, None, None).await;
        assert!(page.header("content-security-policy").contains("default-src 'none'"));
        assert!(page.header("permissions-policy").contains("camera=()"));
        for (name, value) in [
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(page.header(name), value, "{path}");
        }
        assert!(page.header("content-type").starts_with("text/html"));
        for inline in ["<style", " style=", " onclick=", "http://", "https://"] {
            assert!(!page.text.contains(inline), "{path} holds {inline}");
        }
        let links = page.text.split("src=\"").chain(page.text.split("href=\"")).filter(|part| part.starts_with('/'));
        for link in links {
            let link = link.split('"').next().unwrap_or_default();
            assert_eq!(door.call("GET", link, None, None).await.status, 200, "{link}");
        }
    }
}

#[tokio::test]
async fn readiness_says_why_not() {
    let mut door = Door::synced().await;
    let fresh = Door::of(World::empty().await, ServerLimits::default());
    assert_eq!(fresh.get("/readyz", READ).await.json(), json!({"status": "ready"}));
    // What is parked deserves attention, and keeps nothing from working.
    let got = door.get("/readyz", READ).await;
    let reasons: Vec<String> = serde_json::from_value(got.json()["reasons"].clone()).unwrap();
    assert_eq!((got.status, &got.json()["status"], reasons.len()), (200, &json!("degraded"), 2), "{}", got.text);
    let of_one = door.get("/readyz", BOUND).await.json();
    assert_eq!(of_one["reasons"].as_array().map(Vec::len), Some(1), "{of_one}");
    let got = door.call("GET", "/readyz", None, None).await;
    assert_eq!((got.status, got.json()), (200, json!({"status": "degraded"})));
    door.world.stop().await;
    let got = door.get("/readyz", READ).await;
    assert_eq!(got.status, 503);
    let detail = got.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(detail, format!("the process is stopping; {}", reasons.join("; ")));
    // Without a key it is one word.
    let got = door.call("GET", "/readyz", None, None).await;
    assert_eq!(got.status, 503);
    assert!(reasons.iter().all(|reason| !got.text.contains(reason)) && !got.text.contains("stopping"), "{}", got.text);
    for path in ["/livez", "/healthz"] {
        assert_eq!(door.call("GET", path, None, None).await.text, r#"{"status":"ok"}"#);
    }
}

#[tokio::test]
async fn a_key_that_is_too_fast_is_slowed_and_others_are_not() {
    let limits = ServerLimits { reads: RateLimit { per_second: 1, burst: 3 }, ..ServerLimits::default() };
    let door = Door::of(World::synced().await, limits);
    for _ in 0..3 {
        assert_eq!(door.get("/api/v1/shops", READ).await.status, 200);
    }
    assert_eq!(door.get("/api/v1/shops", READ).await.status, 429);
    assert_eq!(door.get("/api/v1/shops", ADMIN).await.status, 200);
    assert_eq!(door.send("POST", "/api/v1/shops/{one}/sync", "{}").await.status, 202, "writes have their own pace");
}

#[tokio::test]
async fn who_does_not_accept_the_answer_goes_without() {
    let door = Door::synced().await;
    for (path, accept, status) in [
        ("/api/v1/shops", "application/json", 200),
        ("/api/v1/shops", "text/html, */*;q=0.1", 200),
        ("/api/v1/shops", "text/html", 406),
        ("/api/v1/nothing", "text/html", 404),
        ("/metrics", "text/plain;version=0.0.4;q=0.5", 200),
        ("/metrics", "application/json", 406),
        ("/", "application/json", 200),
    ] {
        let request = warp::test::request().path(path).header("authorization", door.bearer(ADMIN));
        let response = request.header("accept", accept).reply(&door.routes).await;
        assert_eq!(response.status(), status, "{path} {accept}");
        if status >= 400 {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_no_form_to_refuse() {
    let door = Door::synced().await;
    let key = door.send("POST", "/api/v1/keys", r#"{"name":"n"}"#).await.json();
    let key = format!("/api/v1/keys/{}", key["id"].as_str().unwrap());
    for (method, path) in
        [("DELETE", "/api/v1/shops/{one}"), ("POST", "/api/v1/parked/{parked_two}/retry"), ("DELETE", key.as_str())]
    {
        let request = warp::test::request()
            .method(method)
            .path(&door.world.fill(path))
            .header("authorization", door.bearer(ADMIN));
        let response = request.header("accept", "text/html").reply(&door.routes).await;
        assert_eq!(response.status(), 204, "{method} {path}");
    }
}

#[tokio::test]
async fn every_operation_that_writes_may_find_no_room() {
    let description = Door::synced().await.get("/openapi.json", READ).await.json();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let said = operation["responses"].get("507").is_some();
            assert_eq!(said, method != "get", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_long_address_is_refused() {
    let path = format!("/api/v1/shipments?q={}", "x".repeat(9000));
    assert_eq!(Door::synced().await.get(&path, READ).await.status, 414);
}

#[tokio::test]
async fn a_request_id_is_taken_over_only_when_harmless() {
    let door = Door::synced().await;
    for (given, kept) in [("abc-12345", true), ("short", false), ("evil\"<script>", false)] {
        let request = warp::test::request().path("/healthz").header("x-request-id", given.as_bytes());
        let response = request.reply(&door.routes).await;
        assert_eq!(response.headers()["x-request-id"] == given, kept, "{given}");
    }
}

/// Sends raw bytes and reads to the end, or to the first pause when the server waits.
async fn raw(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{error}"));
    stream.write_all(request.as_bytes()).await.unwrap_or_else(|error| panic!("{error}"));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn over_a_socket_bodies_are_capped_and_timed_and_stopping_has_a_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let limits = ServerLimits {
        body_time_max: Duration::from_millis(50),
        drain_time_max: Duration::from_millis(50),
        ..ServerLimits::default()
    };
    let world = World::empty().await;
    let server = tokio::spawn(serve(listener, world.service.clone(), limits, TrustedProxies::default(), async {
        stopped.await.unwrap_or_default();
    }));
    let head = format!(
        "POST /api/v1/shops HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {ADMIN}\r\n\
         Content-Type: application/json\r\n"
    );
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    let chunked = raw(address, &format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")).await;
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    let slow = raw(address, &format!("{head}Content-Length: 100\r\n\r\n{{")).await;
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");

    // A connection that never finishes its request does not keep the server from stopping.
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    drop(stop);
    server.await.unwrap();
}

#[tokio::test]
async fn a_change_is_made_to_its_end_though_the_client_has_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let world = World::synced().await;
    let (limits, proxies) = (ServerLimits::default(), TrustedProxies::default());
    let server = tokio::spawn(serve(listener, world.service.clone(), limits, proxies, std::future::pending()));
    let head = format!("Host: h\r\nAuthorization: Bearer {ADMIN}\r\n");
    let body = format!(r#"{{"name":"slow","client_secret":"{SLOW_SECRET}"}}"#);
    let change = format!(
        "PATCH /api/v1/shops/{} HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        world.fill("{one}"),
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(change.as_bytes()).await.unwrap();
    market().begun.notified().await;
    drop(stream);
    let look = format!("GET /api/v1/shops/{} HTTP/1.1\r\nConnection: close\r\n{head}\r\n", world.fill("{one}"));
    // By then the server has seen that no client waits.
    for _ in 0..10 {
        assert!(raw(address, &look).await.contains("Shop one"));
    }
    market().go_on.notify_one();
    let changed = async || raw(address, &look).await.contains("\"slow\"").then_some(());
    eventually("the change", changed).await;
    server.abort();
}
