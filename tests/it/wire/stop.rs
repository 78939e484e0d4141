//! The end of the server: who may finish, who may not, and that no one holds it up.

use tokio::net::TcpStream;
use waybill::http::ServerLimits;

use super::{Client, GET, SHOP, SHORT, Server, header, post, status, within};

/// Bytes of the body that come at first.
const HALF: usize = 10;

/// A request that hangs in the middle of its body; it is in flight when this returns.
async fn half_sent(server: &Server) -> Client {
    let mut client = server.client().await;
    // The server asks for the body once it is at work on the request.
    let head = post(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", SHOP.len()));
    assert_eq!(client.ask(&head).await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(SHOP.split_at(HALF).0).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_stop_the_idle_go_at_once_and_requests_in_flight_may_end() {
    let mut server = Server::with(ServerLimits::default()).await;
    let silent = server.client().await;
    let mut idle = server.client().await;
    assert_eq!(status(&idle.ask(GET).await), 200);
    let mut half_body = half_sent(&server).await;
    drop(server.stop.take());
    for client in [silent, idle] {
        assert_eq!(client.rest().await, "");
    }
    let turned_away = within("a refusal", TcpStream::connect(server.address)).await;
    assert!(turned_away.is_err(), "it still listens");
    half_body.send(SHOP.split_at(HALF).1).await;
    let answer = half_body.rest().await;
    assert_eq!((status(&answer), header(&answer, "connection")), (201, "close"), "{answer}");
    within("the server to end", server.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_stop_requests_that_do_not_end_are_cut_off() {
    let mut server = Server::with(ServerLimits { drain_time_max: SHORT, ..ServerLimits::default() }).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(half_sent(&server).await);
        stuck.push(server.client_that_sent("GET /healthz HT").await);
    }
    drop(server.stop.take());
    within("the server to end", server.task).await.unwrap();
    for client in stuck {
        assert_eq!(client.rest().await, "");
    }
}
