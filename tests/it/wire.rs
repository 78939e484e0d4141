//! The server at its socket: what slow, greedy and malformed clients get, and that others do not notice.
//!
//! Limits are shortened; that a wait ends well before its default shows that the limit ended it. Each
//! wait of a test is bounded by `PATIENCE`, which is shorter than any default.

mod framing;
mod proxies;
mod stop;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use waybill::http::{RateLimit, ServerLimits, TrustedProxies, serve};

use crate::api_contract::world::{ADMIN, World};
use crate::support::app::eventually;

/// Shorter than every default that a test shortens.
const PATIENCE: Duration = Duration::from_secs(8);
/// A limit that is not to be waited for, on a machine that is busy.
const SHORT: Duration = Duration::from_millis(400);
/// Clients of each kind.
const CLIENTS: usize = 45;
const GET: &str = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    _world: World,
}

impl Server {
    async fn with(limits: ServerLimits) -> Server {
        Server::behind(TrustedProxies::default(), limits).await
    }

    async fn behind(proxies: TrustedProxies, limits: ServerLimits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let world = World::empty().await;
        let task = tokio::spawn(serve(listener, world.service.clone(), limits, proxies, async {
            stopped.await.unwrap_or_default();
        }));
        Server { address, stop: Some(stop), task, _world: world }
    }

    async fn client(&self) -> Client {
        self.client_from("127.0.0.1").await
    }

    /// A client of another address; all of 127.0.0.0/8 is this machine.
    async fn client_from(&self, own: &str) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{own}:0").parse().unwrap()).unwrap();
        let stream = within("a connection", socket.connect(self.address)).await.unwrap();
        Client { stream, left: Vec::new() }
    }

    async fn client_that_sent(&self, text: &str) -> Client {
        let mut client = self.client().await;
        client.send(text).await;
        client
    }

    /// Everything that comes back until the server closes.
    async fn exchange(&self, request: &str) -> String {
        self.client_that_sent(request).await.rest().await
    }
}

struct Client {
    stream: TcpStream,
    /// Read, and not yet an answer.
    left: Vec<u8>,
}

impl Client {
    async fn send(&mut self, text: &str) {
        // The server may have refused it by now; what it said is what counts.
        drop(within("the client to send", self.stream.write_all(text.as_bytes())).await);
    }

    /// One answer: head and body.
    async fn answer(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.left).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = header(head, "content-length").parse().unwrap_or(0);
                if body.len() >= length {
                    let whole = head.len() + 4 + length;
                    let answer: Vec<u8> = self.left.drain(..whole).collect();
                    return String::from_utf8_lossy(&answer).into_owned();
                }
            }
            let mut bytes = [0; 4096];
            let read = within("an answer", self.stream.read(&mut bytes)).await.unwrap();
            assert_ne!(read, 0, "closed after: {text}");
            self.left.extend_from_slice(&bytes[..read]);
        }
    }

    async fn ask(&mut self, request: &str) -> String {
        self.send(request).await;
        self.answer().await
    }

    /// What comes until the server closes.
    async fn rest(mut self) -> String {
        let mut bytes = std::mem::take(&mut self.left);
        // A reset is an end too; what came before it counts.
        drop(within("the server to close", self.stream.read_to_end(&mut bytes)).await);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited {} s in vain for {what}", PATIENCE.as_secs()))
}

/// A header of an answer's head.
fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found =
        head.lines().filter_map(|line| line.split_once(':')).find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value.trim())
}

fn status(answer: &str) -> u16 {
    let rest = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    rest.and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

/// The answer is a problem of this status, with the headers that all have; nothing follows it.
#[track_caller]
fn assert_problem(answer: &str, expected: u16) {
    assert_eq!(status(answer), expected, "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(header(head, "content-type"), "application/problem+json", "{answer}");
    assert_eq!(header(head, "cache-control"), "no-store");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["status"], &problem["request_id"]), (&expected.into(), &header(head, "x-request-id").into()));
}

/// The head was refused: a problem of this status that ends the connection.
#[track_caller]
fn assert_refused_head(answer: &str, expected: u16) {
    assert_problem(answer, expected);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = header(head, "content-length");
    assert_eq!((header(head, "connection"), length), ("close", body.len().to_string().as_str()), "{answer}");
    assert!(header(head, "date").ends_with("GMT") && header(head, "x-content-type-options") == "nosniff", "{answer}");
}

/// A request with a body for the admin's `POST /api/v1/shops`, and its headers after the usual ones.
fn post(more: &str) -> String {
    format!(
        "POST /api/v1/shops HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\n\
         Content-Type: application/json\r\n{more}"
    )
}

const SHOP: &str = r#"{"name":"New","client_id":"c-9","client_secret":"s3cret"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_too_little_are_closed_in_time_and_no_other_waits() {
    let limits = ServerLimits { head_time_max: SHORT, body_time_max: SHORT, ..ServerLimits::default() };
    let writes = RateLimit { per_second: 1, burst: CLIENTS as u64 };
    let server = Server::with(ServerLimits { connections_per_peer_max: 4 * CLIENTS, writes, ..limits }).await;
    let half_body = post("Content-Length: 100\r\n\r\n{\"na");
    let mut kinds = Vec::new();
    let half_head = "GET /healthz HTTP/1.1\r\nHo";
    for text in ["", half_head, half_body.as_str(), GET] {
        for _ in 0..CLIENTS {
            kinds.push((text, server.client_that_sent(text).await));
        }
    }
    // Meanwhile.
    let mut other = server.client_from("127.0.0.2").await;
    assert_eq!(status(&other.ask(GET).await), 200);
    for (text, client) in kinds {
        let answer = client.rest().await;
        match text {
            // Nothing can be said about a request that is not known.
            _ if text.is_empty() || text == half_head => assert_eq!(answer, ""),
            GET => assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), (200, 1), "{answer}"),
            _ => assert_problem(&answer, 408),
        }
    }
    let mut late = server.client().await;
    assert_eq!(status(&late.ask(GET).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_stops_growing_is_cut_at_its_time() {
    let server = Server::with(ServerLimits { head_time_max: SHORT, ..ServerLimits::default() }).await;
    let client = server.client_that_sent("GET /healthz HTTP/1.1\r\nx: ").await;
    let (mut read, mut write) = client.stream.into_split();
    let dripping = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        loop {
            pace.tick().await;
            if write.write_all(b"x").await.is_err() {
                return;
            }
        }
    });
    let mut answer = String::new();
    // It may be reset for what it still sends.
    drop(within("the server to close", read.read_to_string(&mut answer)).await);
    assert_eq!(answer, "");
    drop(read);
    within("the writing to fail", dripping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_used_again_and_again_until_it_is_idle() {
    let server = Server::with(ServerLimits { head_time_max: SHORT, ..ServerLimits::default() }).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        assert_eq!(status(&client.ask(GET).await), 200);
    }
    assert_eq!(client.rest().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_its_answers_is_cut_off() {
    let server =
        Server::with(ServerLimits { send_time_max: SHORT, connections_max: 1, ..ServerLimits::default() }).await;
    let mut greedy = server.client().await;
    let page = "GET /assets/docs.js HTTP/1.1\r\nHost: h\r\n\r\n".repeat(500);
    // Until the buffers of both sides are full and the server gives up.
    let flood = async { while greedy.stream.write_all(page.as_bytes()).await.is_ok() {} };
    within("the flood to break off", flood).await;
    let answered = async || {
        let mut other = server.client_from("127.0.0.2").await;
        (status(&other.ask(GET).await) == 200).then_some(())
    };
    eventually("the place to be free", answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited_per_peer_and_in_all() {
    let limits = ServerLimits { connections_max: 5, connections_per_peer_max: 3, ..ServerLimits::default() };
    let server = Server::with(limits).await;
    let mut held = Vec::new();
    for own in ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"] {
        let mut client = server.client_from(own).await;
        assert_eq!(status(&client.ask(GET).await), 200, "{own}");
        held.push(client);
    }
    // The peer has no place more; another has one, and then all are taken.
    let refused = server.exchange(GET).await;
    assert_problem(&refused, 503);
    assert_eq!(header(&refused, "retry-after"), "5");
    assert_eq!(header(&refused, "connection"), "close");
    let mut last = server.client_from("127.0.0.2").await;
    assert_eq!(status(&last.ask(GET).await), 200);
    let mut none = server.client_from("127.0.0.3").await;
    assert_eq!(status(&none.ask(GET).await), 503);
    // Without a word it is closed all the same.
    assert_eq!(server.client().await.rest().await, "");
    held.truncate(2);
    drop(last);
    let free = async || (status(&server.client().await.ask(GET).await) == 200).then_some(());
    eventually("a place to be free", free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_slowed_and_those_with_a_key_are_not() {
    let limits = ServerLimits { unauthenticated: RateLimit { per_second: 1, burst: 3 }, ..ServerLimits::default() };
    let server = Server::with(limits).await;
    let with = |key: &str| format!("GET /api/v1/shops HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n");
    let mut client = server.client().await;
    for _ in 0..3 {
        let answer = client.ask(&with("guess")).await;
        assert_problem(&answer, 401);
        assert_eq!(header(&answer, "www-authenticate"), "Bearer");
    }
    let answer = client.ask(&with("guess")).await;
    assert_problem(&answer, 429);
    assert_eq!(header(&answer, "retry-after"), "1");
    assert_problem(&server.client().await.ask("GET /api/v1/runs HTTP/1.1\r\nHost: h\r\n\r\n").await, 429);
    assert_eq!(status(&client.ask(&with(ADMIN)).await), 200);
    assert_problem(&server.client_from("127.0.0.2").await.ask(&with("guess")).await, 401);
}
