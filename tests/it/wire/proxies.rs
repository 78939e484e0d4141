//! Behind proxies: whose address counts.

use waybill::http::{RateLimit, ServerLimits, TrustedProxies};

use super::{GET, Server, assert_problem, header, post, status};
use crate::api_contract::world::ADMIN;

/// Proxies at 127.0.0.2 and 127.0.0.3; all of 127.0.0.0/8 is this machine.
fn proxies() -> TrustedProxies {
    TrustedProxies::new(vec!["127.0.0.2/31".parse().unwrap()])
}

fn guess(client: &str) -> String {
    format!("GET /api/v1/shops HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer guess\r\n{client}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_of_keys_count_for_the_client_and_not_for_its_proxy() {
    let limits = ServerLimits { unauthenticated: RateLimit { per_second: 1, burst: 2 }, ..ServerLimits::default() };
    let server = Server::behind(proxies(), limits).await;
    let mut proxy = server.client_from("127.0.0.2").await;
    let mut other = server.client_from("127.0.0.3").await;
    let bad = "X-Forwarded-For: 1.2.3.4, 198.51.100.7\r\n";
    for expected in [401, 401, 429] {
        assert_problem(&proxy.ask(&guess(bad)).await, expected);
    }
    // Over another proxy, by another header, from invented addresses before its own: it is the same client.
    for same in [
        "X-Forwarded-For: 198.51.100.7\r\n",
        "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 198.51.100.7, 127.0.0.2\r\n",
        "Forwarded: for=8.8.8.8, for=\"198.51.100.7:99\";proto=https\r\n",
    ] {
        assert_problem(&other.ask(&guess(same)).await, 429);
    }
    // Others behind the proxy are not held up.
    for another in ["X-Forwarded-For: 198.51.100.8\r\n", "Forwarded: for=\"[2001:db8::1]\"\r\n"] {
        assert_problem(&proxy.ask(&guess(another)).await, 401);
    }
    // A stranger is itself, whatever it says.
    let mut stranger = server.client_from("127.0.0.9").await;
    for (address, expected) in [("1.1.1.1", 401), ("1.1.1.2", 401), ("1.1.1.3", 429)] {
        assert_problem(&stranger.ask(&guess(&format!("X-Forwarded-For: {address}\r\n"))).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_open_more_connections_than_a_client_and_its_clients_have_their_own_limit() {
    let limits = ServerLimits { connections_max: 8, connections_per_peer_max: 2, ..ServerLimits::default() };
    let server = Server::behind(proxies(), limits).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut connection = server.client_from("127.0.0.2").await;
        assert_eq!(status(&connection.ask(GET).await), 200);
        held.push(connection);
    }
    // One client has two requests under way: their bodies are still to come.
    let from = |client: &str| format!("X-Forwarded-For: {client}\r\n");
    let waiting = |client: &str| post(&format!("{}Expect: 100-continue\r\nContent-Length: 100\r\n\r\n", from(client)));
    for connection in held.iter_mut().take(2) {
        assert_eq!(connection.ask(&waiting("198.51.100.7")).await, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    let ask = |client: &str| {
        format!("GET /api/v1/shops HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN}\r\n{}\r\n", from(client))
    };
    let busy = held[2].ask(&ask("198.51.100.7")).await;
    assert_problem(&busy, 503);
    assert_eq!(header(&busy, "retry-after"), "5");
    assert_eq!(status(&held[2].ask(&ask("198.51.100.8")).await), 200, "the proxy's connection stays open");
    // A direct client has its own limit, as before.
    let direct = [server.client_from("127.0.0.9").await, server.client_from("127.0.0.9").await];
    assert_problem(&server.client_from("127.0.0.9").await.ask(GET).await, 503);
    drop(direct);
}
