//! The client against a server that misbehaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::test_server::{Reply, Server, answer, json};
use super::token_tests::{MemoryStore, call, credentials, url};
use super::{Budget, Call, Ending, Outcome, Source, SourceConfig, SourceError};
use crate::catalog::Limit;
use crate::domain::{Clock, Timestamp};

const TYPE: (&str, &str) = ("Content-Type", "application/vnd.any.v1+json;charset=UTF-8");

fn config(server: &Server) -> SourceConfig {
    SourceConfig { body_max: 10_000, ..SourceConfig::new(url(server.url("/api/")), url(server.url("/token"))) }
}

fn build(config: SourceConfig) -> Source {
    Source::new(config, Arc::new(MemoryStore::default()), Clock::manual(Timestamp::EPOCH)).unwrap()
}

async fn serving<F: Fn() -> Reply + Send + Sync + 'static>(reply: F) -> Server {
    let reply = Arc::new(reply);
    Server::start(move |_, seen| {
        let reply = Arc::clone(&reply);
        async move {
            match seen.line.as_str() {
                "POST /token" => json(r#"{"access_token":"t","expires_in":599}"#),
                _ => reply(),
            }
        }
    })
    .await
}

/// Makes one call against a server that answers like this; returns how often it was called, too.
async fn one(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Outcome, usize) {
    let server = serving(reply).await;
    let source = build(config(&server));
    let outcome = source.get(&credentials(&source, "me", "s"), &call()).await;
    (outcome, server.count("GET"))
}

const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A gzip of one stored block.
fn gzip(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let crc = !body.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let mut out = [&GZIP_HEAD[..], &[1], &length.to_le_bytes(), &(!length).to_le_bytes(), body].concat();
    out.extend(crc.to_le_bytes());
    out.extend(u32::from(length).to_le_bytes());
    out
}

/// A gzip bomb: one letter, then "repeat it 258 times" in 13 bits, over and over.
fn gzip_bomb(repeats: usize) -> Vec<u8> {
    // Last block, fixed codes (1, then 01 from its low bit); the letter `0`; each repeat is code 285, distance 1.
    let repeat = "1100010100000".repeat(repeats);
    let bits: Vec<u8> = ["1", "10", "01100000", &repeat].concat().bytes().map(|bit| bit - b'0').collect();
    let deflated = bits.chunks(8).map(|bits| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << at));
    GZIP_HEAD.into_iter().chain(deflated).collect()
}

#[tokio::test]
async fn a_call_is_one_request_with_token_and_media_type() {
    let server =
        serving(|| answer(200, &[TYPE, ("X-RateLimit-Limit", "25"), ("x-ratelimit-remaining", "24")], r#"{"a":1.50}"#))
            .await;
    let source = build(config(&server));
    let call = Call {
        path: "/things/a%2Fb".to_owned(),
        query: vec![("kind".to_owned(), "A&B é".to_owned()), ("page".to_owned(), "2".to_owned())],
        media_type: "application/vnd.any.v1+json".to_owned(),
    };
    let outcome = source.get(&credentials(&source, "me", "s"), &call).await;
    assert_eq!(outcome.result.as_deref(), Ok(&br#"{"a":1.50}"#[..]), "bytes as received");
    assert_eq!((outcome.quota.limit, outcome.quota.remaining, outcome.ending), (Some(25), Some(24), Ending::Answered));
    let seen = server.seen().pop().unwrap();
    assert_eq!(seen.line, "GET /api/things/a%2Fb?kind=A%26B%20%C3%A9&page=2");
    assert_eq!(seen.header("authorization"), Some("Bearer t"));
    assert_eq!(seen.header("accept"), Some("application/vnd.any.v1+json"));
    assert!(seen.header("accept-encoding").unwrap().contains("gzip"));
    assert!(seen.header("user-agent").unwrap().starts_with("waybill/"));
}

#[tokio::test]
async fn each_bad_answer_has_its_own_error_and_is_not_retried() {
    let huge = "x".repeat(10_001);
    let chunked = format!(
        "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2711\r\n{huge}\r\n0\r\n\r\n"
    );
    let raw = |text: &'static str| {
        Box::new(move || Reply::Bytes(text.as_bytes().to_vec())) as Box<dyn Fn() -> Reply + Send + Sync>
    };
    type Script = Box<dyn Fn() -> Reply + Send + Sync>;
    let whole = |status: u16, headers: &'static [(&'static str, &'static str)], body: String| -> Script {
        Box::new(move || answer(status, headers, &body))
    };
    let cases: Vec<(&str, Script, &str)> = vec![
        (
            "cut",
            raw("HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"a\""),
            "Malformed",
        ),
        (
            "chunk garbage",
            raw("HTTP/1.1 200 X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
            "Malformed",
        ),
        (
            "bad gzip",
            raw(
                "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            ),
            "Malformed",
        ),
        ("huge, announced", whole(200, &[TYPE], huge.clone()), "TooLarge"),
        ("huge in chunks", Box::new(move || Reply::Bytes(chunked.clone().into_bytes())), "TooLarge"),
        ("html", whole(200, &[("content-type", "text/html")], "<html>".into()), "Malformed"),
        ("no type", whole(200, &[], "{}".into()), "Malformed"),
        ("another version", whole(200, &[("content-type", "application/vnd.any.v11+json")], "{}".into()), "Shape"),
        ("no content", raw("HTTP/1.1 204 X\r\n\r\n"), "NoContent"),
        ("redirect", whole(302, &[("location", "http://127.0.0.1:1/elsewhere")], String::new()), "Redirected"),
        ("server error", whole(500, &[("content-type", "text/html")], "<html>".into()), "Unavailable"),
        (
            "gone",
            whole(404, &[("content-type", "application/problem+json")], r#"{"title":"Not Found"}"#.into()),
            "NotFound",
        ),
        ("bad request", whole(400, &[TYPE], r#"{"violations":[{"name":"page","reason":"low"}]}"#.into()), "page low"),
        ("throttled", whole(429, &[TYPE, ("retry-after", "4")], "{}".into()), "Throttled { retry_after: Some(4s) }"),
        (
            "throttled, reset only",
            whole(429, &[("x-ratelimit-reset", "7")], "{}".into()),
            "Throttled { retry_after: Some(7s) }",
        ),
    ];
    for (name, script, expected) in cases {
        let (outcome, calls) = one(script).await;
        let error = format!("{:?}", outcome.result.unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!((calls, outcome.ending), (1, Ending::Answered), "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_answer_is_a_lost_call() {
    for bytes in ["", "HTTP/1.1 20", "nonsense\r\n\r\n"] {
        let (outcome, calls) = one(move || Reply::Bytes(bytes.as_bytes().to_vec())).await;
        assert!(matches!(outcome.result, Err(SourceError::Interrupted(_))), "{bytes}: {:?}", outcome.result);
        assert_eq!((calls, outcome.ending), (1, Ending::Lost));
    }
}

#[tokio::test]
async fn a_stalled_server_times_out_before_and_within_the_body() {
    let cases = [("", Ending::Lost), ("HTTP/1.1 200 X\r\ncontent-type: application/json\r\n\r\n{", Ending::Answered)];
    for (bytes, ending) in cases {
        let server = serving(move || Reply::Stall(bytes.as_bytes().to_vec())).await;
        let source = build(SourceConfig { total_timeout: Duration::from_millis(300), ..config(&server) });
        source.prove(&credentials(&source, "me", "s")).await.unwrap();
        let outcome = source.get(&credentials(&source, "me", "s"), &call()).await;
        assert_eq!((outcome.result, outcome.ending), (Err(SourceError::TimedOut), ending));
    }
}

#[tokio::test]
async fn a_refused_connection_uses_no_slot() {
    let server = serving(|| json("{}")).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let source = build(SourceConfig { base_url: url(format!("http://{free}")), ..config(&server) });
    let outcome = source.get(&credentials(&source, "me", "s"), &call()).await;
    assert!(matches!(outcome.result, Err(SourceError::Unreachable(_))), "{:?}", outcome.result);
    assert!(!outcome.sent());
}

#[tokio::test]
async fn gzip_is_decompressed_up_to_the_limit() {
    let (small, bomb) = (gzip(b"{\"a\":1}"), gzip_bomb(5_000));
    assert!(bomb.len() < 10_000, "small on the wire, 1.3 MB unpacked");
    let packed = |body: Vec<u8>| move || answer(200, &[TYPE, ("content-encoding", "gzip")], &body);
    assert_eq!(one(packed(small)).await.0.result.as_deref(), Ok(&br#"{"a":1}"#[..]));
    assert_eq!(one(packed(bomb)).await.0.result, Err(SourceError::TooLarge { limit: 10_000 }));
}

#[tokio::test]
async fn each_outcome_settles_its_slot_in_the_budget() {
    let rule = Some(Limit { calls: 5, window: Duration::from_secs(60) });
    let now = Instant::now();
    let settle = |outcome: &Outcome| {
        let mut budget = Budget::new(rule, 0, now);
        budget.take(1, now).unwrap();
        outcome.settle(&mut budget, now);
        let view = budget.view(now);
        (view.in_flight, view.cooling, view.blocked_for_ms, view.refused_429)
    };
    let of = |result: Result<bytes::Bytes, SourceError>, ending| settle(&Outcome::plain(result, ending));
    let pause = Some(Duration::from_secs(4));
    let unavailable = |retry_after| Err(SourceError::Unavailable { status: 503, retry_after });
    assert_eq!(of(Ok(bytes::Bytes::new()), Ending::Answered), (0, 1, 0, 0));
    assert_eq!(of(Err(SourceError::TimedOut), Ending::Lost), (0, 1, 0, 0));
    assert_eq!(of(Err(SourceError::Unreachable(String::new())), Ending::NotSent), (0, 0, 0, 0));
    assert_eq!(of(Err(SourceError::Throttled { retry_after: pause }), Ending::Answered), (0, 1, 4_014, 1));
    assert_eq!(of(Err(SourceError::Throttled { retry_after: None }), Ending::Answered), (0, 1, 60_070, 1));
    assert_eq!(of(unavailable(pause), Ending::Answered), (0, 1, 4_014, 0));
    assert_eq!(of(unavailable(None), Ending::Answered), (0, 1, 0, 0));
}

#[tokio::test]
async fn calls_that_wait_for_their_turn_are_not_sent_after_close() {
    let reply = || json("{}");
    for (calls, logins) in [(Some(1), 50), (None, 1)] {
        let server = serving(reply).await;
        let slow =
            SourceConfig { calls_per_second: calls, logins_per_second: logins, login_burst: logins, ..config(&server) };
        let source = Arc::new(build(slow));
        let start = |client: usize| {
            let source = Arc::clone(&source);
            tokio::spawn(
                async move { source.get(&credentials(&source, &format!("client-{client}"), "s"), &call()).await },
            )
        };
        let waiting: Vec<_> = (0..8).map(start).collect();
        while server.count("POST /token") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        source.close();
        let mut unsent = 0;
        for call in waiting {
            let outcome = call.await.unwrap();
            if outcome.result == Err(SourceError::Stopping) {
                assert_eq!(outcome.ending, Ending::NotSent);
                unsent += 1;
            }
        }
        assert!(unsent >= 6, "{unsent}");
        let seen = server.seen().len();
        // Longer than a turn takes.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(server.seen().len(), seen, "calls a second: {calls:?}, logins a second: {logins}");
    }
}
