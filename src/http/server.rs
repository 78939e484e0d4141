//! The accept loop: places, one task per connection, and a stop that nobody can hold up.
//!
//! HTTP/1.1 and 1.0 only: what speaks HTTP/2 to browsers is the TLS proxy before us, and without
//! streams there is no flood of them. Requests are answered by warp's routes; `wire` bounds the waits.
//!
//! At the stop no connection is taken any more, those without a request close at once, those with one
//! have [`Limits::drain_time_max`], and then the rest is cut.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::header::{CONNECTION, HeaderValue};
use warp::reply::Response;

use super::Limits;
use super::peers::{Peer, Places};
use super::reply::{Kind, Problem, finish};
use super::wire::{Exchange, Verdict, Wire};
use crate::store::count_panic;

/// Connections that are told at once that there is no place for them; more are closed without a word.
const TURNED_AWAY_MAX: usize = 64;
/// A connection without a place shall ask quickly or go.
const TURNED_AWAY_TIME_MAX: Duration = Duration::from_secs(1);
/// When somebody without a place may come again.
const PLACE_RETRY: Duration = Duration::from_secs(5);
/// After a failure to accept that is ours, mostly for want of file descriptors: they come free with
/// connections that end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often such failures are told.
const ACCEPT_TOLD_EVERY: Duration = Duration::from_secs(60);
/// All methods that some path has.
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
/// hyper asks for at least as much.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// Serves until `shutdown` ends and every connection has ended or was cut.
pub(super) async fn run(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut door = Door::new(listener, routes, limits);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, address) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = door.accept() => accepted,
        };
        door.admit(stream, address, &mut connections);
    }
    let stopping = door.close();
    stopping.cancel();
    let drained = timeout(limits.drain_time_max, async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "http requests were cut off at the deadline for stopping");
        connections.shutdown().await;
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The payload may hold what a client sent.
        count_panic("a connection");
        tracing::error!("the task of an http connection panicked; the connection is closed");
    }
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    places: Places,
    turned_away: Arc<Semaphore>,
    stopping: CancellationToken,
    told_at: Option<Instant>,
}

impl Door {
    fn new(listener: TcpListener, routes: BoxedFilter<(Response,)>, limits: Limits) -> Door {
        Door {
            listener,
            routes,
            limits,
            places: Places::new(limits.connections_max, limits.connections_per_peer_max),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            stopping: CancellationToken::new(),
            told_at: None,
        }
    }

    /// The next connection. Cancel safe. No failure ends it, and none makes it spin.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => error,
            };
            if is_the_clients(&error) {
                continue;
            }
            if self.told_at.is_none_or(|at| at.elapsed() >= ACCEPT_TOLD_EVERY) {
                self.told_at = Some(Instant::now());
                tracing::warn!(%error, "a connection could not be accepted; trying again");
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, connections: &mut JoinSet<()>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it was served");
            return;
        }
        let peer = Peer::of(address.ip());
        let place = self.places.take(peer);
        let is_too_many = place.is_none();
        // Held for as long as the connection.
        let turned_away = is_too_many.then(|| Arc::clone(&self.turned_away).try_acquire_owned());
        if matches!(turned_away, Some(Err(_))) {
            return;
        }
        let head_time_max = if is_too_many { TURNED_AWAY_TIME_MAX } else { self.limits.head_time_max };
        let limits = Limits { head_time_max, ..self.limits };
        let conversation = Conversation { routes: self.routes.clone(), peer, limits, is_too_many };
        let stopping = self.stopping.clone();
        connections.spawn(async move {
            Box::pin(conversation.hold(stream, stopping)).await;
            drop((place, turned_away));
        });
    }

    /// Closes the socket that listens.
    fn close(self) -> CancellationToken {
        self.stopping
    }
}

/// Failures of one connection that was in the queue; the next may be good.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind as Cause;
    matches!(error.kind(), Cause::ConnectionAborted | Cause::ConnectionReset | Cause::ConnectionRefused)
}

/// All requests of one connection, one after the other.
#[derive(Clone)]
struct Conversation {
    routes: BoxedFilter<(Response,)>,
    peer: Peer,
    limits: Limits,
    /// It found no place: whatever it asks, the answer is 503 and the end.
    is_too_many: bool,
}

impl Conversation {
    async fn hold(self, stream: TcpStream, stopping: CancellationToken) {
        let wire = Wire::new(stream, self.limits);
        let exchange = wire.exchange();
        let bytes_max = self.limits.head_bytes_max.max(BUFFER_BYTES_MIN);
        let service = service_fn(move |request| self.clone().answer(Arc::clone(&exchange), request));
        let mut connection = pin!(http1::Builder::new().max_buf_size(bytes_max).serve_connection(wire, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an http connection broke off");
        }
    }

    async fn answer(self, exchange: Arc<Exchange>, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        let response = match exchange.verdict() {
            _ if self.is_too_many => {
                let problem = Problem::new(Kind::Unavailable, "there are too many open connections");
                last(refusal(problem.retry_after(PLACE_RETRY)))
            }
            Verdict::Refuse(problem) => last(refusal(problem)),
            // CONNECT names a host and no path, on which warp's paths panic.
            Verdict::Serve { .. } if request.uri().path_and_query().is_none() => {
                last(refusal(Problem::method_not_allowed(METHODS.to_owned())))
            }
            Verdict::Serve { last: is_last } => {
                request.extensions_mut().insert(self.peer);
                let response = TowerToHyperService::new(warp::service(self.routes)).call(request).await?;
                if is_last { last(response) } else { response }
            }
        };
        exchange.answered(Instant::now() + self.limits.send_time_max);
        Ok(response)
    }
}

/// The answer to a request that no route sees.
fn refusal(problem: Problem) -> Response {
    let response = finish(&uuid::Uuid::new_v4().to_string(), Err(problem));
    tracing::debug!(status = response.status().as_u16(), "refused a request by its head or for want of a place");
    response
}

/// No request is read behind this one.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
