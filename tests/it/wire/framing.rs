//! Where a request ends must be beyond doubt, and nothing of it may be larger than allowed.

use waybill::http::ServerLimits;

use super::{GET, SHOP, Server, assert_problem, assert_refused_head, header, post, status, within};
use crate::api_contract::world::ADMIN;

/// A request behind the one in question: it must not be answered.
const SMUGGLED: &str = "GET /assets/icon.svg HTTP/1.1\r\nHost: h\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_doubtful_length_is_refused_and_nothing_behind_it_is_read() {
    let server = Server::with(ServerLimits::default()).await;
    let length = SHOP.len();
    for (what, request) in [
        ("two lengths", post(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{SHOP}"))),
        ("a list of lengths", post(&format!("Content-Length: {length}, {length}\r\n\r\n{SHOP}"))),
        ("a length that is none", post(&format!("Content-Length: +{length}\r\n\r\n{SHOP}"))),
        ("an empty length", post(&format!("Content-Length: \r\n\r\n{SHOP}"))),
        ("a length beyond all numbers", post(&format!("Content-Length: 99999999999999999999\r\n\r\n{SHOP}"))),
        ("a coding without an end", post("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        ("an unknown coding", post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("a coding in HTTP/1.0", post("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        ("a space before a colon", post(&format!("Content-Length : {length}\r\n\r\n{SHOP}"))),
        ("a folded line", post(&format!("X: y\r\n Content-Length: {length}\r\n\r\n{SHOP}"))),
        ("a line without colon", post("nonsense\r\n\r\n")),
        ("a line without name", post(": no name\r\n\r\n")),
        ("a zero in a name", "GET / HTTP/1.1\r\na\0b: c\r\n\r\n".to_owned()),
        ("a control character in a value", "GET / HTTP/1.1\r\na: b\rc\r\n\r\n".to_owned()),
        ("a method that is none", "GE\u{7f}T / HTTP/1.1\r\n\r\n".to_owned()),
        ("a URI that is none", "GET /\u{1} HTTP/1.1\r\n\r\n".to_owned()),
        ("another protocol", "GET / HTTP/2.0\r\n\r\n".to_owned()),
    ] {
        let answer = server.exchange(&format!("{request}{SMUGGLED}")).await;
        assert_eq!(answer.matches("x-request-id").count(), 1, "{what}: {answer}");
        assert_refused_head(&answer, 400);
    }
    for (what, request) in [
        ("another coding", post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("a coding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a chunk of no size", post("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")),
        ("a chunk without end", post("Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n")),
    ] {
        let answer = server.exchange(&format!("{request}{SMUGGLED}")).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        assert_problem(&answer, 400);
        assert_eq!(header(&answer, "connection"), "close", "{what}: {answer}");
    }
    // hyper closes at the beginning of HTTP/2 without an answer.
    assert_eq!(server.exchange(&format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}")).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_overrides_a_length_and_nothing_behind_it_is_read() {
    let server = Server::with(ServerLimits::default()).await;
    let length = SHOP.len();
    // RFC 9112, 6.3: the chunks count, and the connection ends, whatever a proxy took for the body.
    for more in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        "Transfer-Encoding: chunked\r\nContent-Length: nonsense\r\n".to_owned(),
    ] {
        let answer =
            server.exchange(&format!("{}{SMUGGLED}", post(&format!("{more}\r\n2\r\n{{}}\r\n0\r\n\r\n")))).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert_problem(&answer, 422);
        assert_eq!(header(&answer, "connection"), "close", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_given_twice_counts_once() {
    let server = Server::with(ServerLimits::default()).await;
    let length = SHOP.len();
    let request = post(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n\r\n{SHOP}"));
    let mut client = server.client().await;
    assert_eq!(status(&client.ask(&request).await), 201);
    assert_eq!(status(&client.ask(GET).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_is_refused_before_it_is_read_to_its_end() {
    let server = Server::with(ServerLimits::default()).await;
    let mebibyte = "x".repeat(1024 * 1024);
    let lines = "x: y\r\n".repeat(150);
    for request in [
        format!("GET /healthz HTTP/1.1\r\nx: {mebibyte}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\n{lines}\r\n"),
        "\r\n".repeat(70_000),
        format!("GET /{mebibyte} HTTP/1.1\r\n\r\n"),
    ] {
        assert_refused_head(&server.exchange(&request).await, 431);
    }
    for (request, expected) in [
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "x".repeat(9_000)), 414),
        (post(&format!("Content-Length: 65537\r\n\r\n{}", "x".repeat(65_537))), 413),
        (post(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n{mebibyte}", mebibyte.len())), 413),
        (post(&format!("Transfer-Encoding: chunked\r\n\r\n10001\r\n{}\r\n0\r\n\r\n", "x".repeat(65_537))), 413),
    ] {
        assert_problem(&server.exchange(&request).await, expected);
    }
    // At the bound all is well: 100 lines, 60 KiB.
    let wide = format!("x: {}\r\n", "y".repeat(600)).repeat(99);
    let mut client = server.client().await;
    assert_eq!(status(&client.ask(&format!("GET /healthz HTTP/1.1\r\nHost: h\r\n{wide}\r\n")).await), 200);
    assert_eq!(status(&client.ask(GET).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_come_in_chunks_and_is_then_the_last_of_its_connection() {
    let server = Server::with(ServerLimits::default()).await;
    let chunks = format!("{:x};a=b\r\n{SHOP}\r\n0\r\nX-Trailer: x\r\n\r\n", SHOP.len());
    let answer =
        server.exchange(&format!("{}{SMUGGLED}", post(&format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")))).await;
    assert_eq!((status(&answer), answer.matches("HTTP/1.1 ").count()), (201, 1), "{answer}");
    // A key is asked for before a body is read, however that comes.
    let unknown = "POST /api/v1/shops HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_problem(&server.exchange(unknown).await, 401);
    let waiting =
        post(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", SHOP.len())).replace("New", "Other");
    let mut client = server.client().await;
    assert_eq!(client.ask(&waiting).await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(status(&client.ask(SHOP).await), 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_at_once_are_answered_in_their_order() {
    let server = Server::with(ServerLimits::default()).await;
    let request = |id: usize| match id % 3 {
        // Bodies between heads, read and unread ones.
        0 => format!("{GET_ID}{id:08}\r\n\r\n"),
        1 => format!("{GET_ID}{id:08}\r\nContent-Length: 5\r\n\r\nGET /"),
        _ => format!("POST /api/v1/none HTTP/1.1\r\nHost: h\r\nX-Request-Id: {id:08}\r\nContent-Length: 2\r\n\r\n{{}}"),
    };
    let all: String = (0..1000).map(request).collect();
    let mut client = server.client().await;
    client.send(&all).await;
    for id in 0..1000 {
        let answer = client.answer().await;
        assert_eq!(header(&answer, "x-request-id"), format!("{id:08}"), "{answer}");
    }
    assert_eq!(status(&client.ask(GET).await), 200);
}

const GET_ID: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\nX-Request-Id: ";

#[tokio::test(flavor = "multi_thread")]
async fn odd_methods_and_addresses_have_their_status() {
    let server = Server::with(ServerLimits::default()).await;
    let key = format!("Host: h\r\nAuthorization: Bearer {ADMIN}\r\n\r\n");
    let mut client = server.client().await;
    for (line, expected, allow) in [
        ("TRACE /api/v1/shops HTTP/1.1", 405, "GET, HEAD, POST"),
        ("OPTIONS /api/v1/shops HTTP/1.1", 405, "GET, HEAD, POST"),
        ("TRACE / HTTP/1.1", 405, "GET, HEAD"),
        ("BREW /healthz HTTP/1.1", 405, "GET, HEAD"),
        ("OPTIONS * HTTP/1.1", 404, ""),
        ("GET http://elsewhere/api/v1/nothing HTTP/1.1", 404, ""),
        ("GET //healthz HTTP/1.1", 404, ""),
        ("GET /api/v1/../../healthz HTTP/1.1", 404, ""),
    ] {
        let answer = client.ask(&format!("{line}\r\n{key}")).await;
        assert_problem(&answer, expected);
        assert_eq!(header(&answer, "allow"), allow, "{line}: {answer}");
        assert!(
            !answer.to_lowercase().contains("\r\naccess-control") && header(&answer, "server").is_empty(),
            "{answer}"
        );
    }
    for line in ["CONNECT elsewhere:443 HTTP/1.1", "GET elsewhere:443 HTTP/1.1"] {
        assert_problem(&server.exchange(&format!("{line}\r\n{key}")).await, 405);
    }
    assert_eq!(status(&client.ask(&format!("GET http://elsewhere HTTP/1.1\r\n{key}")).await), 200);
    // HTTP/1.0 closes by itself.
    assert_eq!(status(&server.exchange("GET /healthz HTTP/1.0\r\n\r\n").await), 200);
    within("the server to live", server.client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_names_its_host_exactly_once() {
    let server = Server::with(ServerLimits::default()).await;
    for (what, hosts) in [
        ("none", ""),
        ("two", "Host: h\r\nHost: h\r\n"),
        ("two that differ", "Host: h\r\nhost: other\r\n"),
        ("an empty one", "Host:\r\n"),
        ("one with a path", "Host: h/x\r\n"),
        ("one with a user", "Host: u@h\r\n"),
        ("a list", "Host: h, other\r\n"),
    ] {
        for target in ["/healthz", "http://elsewhere/healthz"] {
            let answer = server.exchange(&format!("GET {target} HTTP/1.1\r\n{hosts}\r\n{SMUGGLED}")).await;
            assert_eq!(answer.matches("x-request-id").count(), 1, "{what}: {answer}");
            assert_problem(&answer, 400);
            assert_eq!(header(&answer, "connection"), "close", "{what}: {answer}");
            assert!(answer.contains("`Host`"), "{what}: {answer}");
        }
    }
    let mut client = server.client().await;
    for host in ["h", "h:8080", "waybill.example.com", "127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(status(&client.ask(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await), 200, "{host}");
    }
    // HTTP/1.0 knows no such header.
    assert_eq!(status(&server.exchange("GET /healthz HTTP/1.0\r\n\r\n").await), 200);
    assert_problem(&server.exchange("GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_cannot_be_read_is_refused_after_the_responses_before_it() {
    let server = Server::with(ServerLimits::default()).await;
    let good = [GET, "GET /assets/docs.js HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n"];
    for before in good {
        let answer = server.exchange(&format!("{before}{before}nonsense\r\n\r\n{SMUGGLED}")).await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{before}: {answer}");
        let refusal = answer.split("HTTP/1.1 400").nth(1).unwrap_or_else(|| panic!("{before}: {answer}"));
        assert_refused_head(&format!("HTTP/1.1 400{refusal}"), 400);
    }
}
