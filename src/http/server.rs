//! The accept loop: connection limits, one task per connection, bounded shutdown.
//!
//! HTTP/1.1 and 1.0 only: the TLS proxy in front speaks HTTP/2 to browsers, and without streams there is no stream
//! flood. warp's routes handle the requests; `wire` bounds all waits for the client.
//!
//! On shutdown no connection is accepted any more, idle ones close at once, busy ones have [`Limits::drain_time_max`],
//! and the rest are aborted.

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
use super::connection_limits::{ConnectionLimits, Peer};
use super::reply::{Problem, ProblemKind, finish};
use super::wire::{ConnectionControl, Verdict, Wire};
use crate::supervisor::count_panic;

/// Connections answered with 503 when full; beyond this they are closed without a response.
const REJECTED_MAX: usize = 64;
/// Time for a connection over the limit to send its request.
const REJECTED_TIME_MAX: Duration = Duration::from_secs(1);
/// `Retry-After` when all connections are in use.
const FULL_RETRY: Duration = Duration::from_secs(5);
/// Pause after an accept error on our side, mostly too many open files: closing connections frees some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Least time between two log lines about such errors.
const ACCEPT_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// All methods that some path supports.
const METHODS: &str = "GET, HEAD, POST, PATCH, DELETE";
/// The least that hyper accepts.
const BUFFER_BYTES_MIN: usize = 8 * 1024;

/// Serves until `shutdown` completes and every connection has ended or was aborted.
pub(super) async fn run(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut acceptor = Acceptor::new(listener, routes, limits);
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
            accepted = acceptor.accept() => accepted,
        };
        acceptor.admit(stream, address, &mut connections);
    }
    let stopping = acceptor.close();
    stopping.cancel();
    let drained = timeout(limits.drain_time_max, async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "http requests were aborted at the shutdown deadline");
        connections.shutdown().await;
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The panic payload is not logged: it may hold request data.
        count_panic("a connection");
        tracing::error!("the task of an http connection panicked; the connection is closed");
    }
}

/// Accepts connections and spawns a task for each.
struct Acceptor {
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    slots: ConnectionLimits,
    rejected: Arc<Semaphore>,
    stopping: CancellationToken,
    logged_at: Option<Instant>,
}

impl Acceptor {
    fn new(listener: TcpListener, routes: BoxedFilter<(Response,)>, limits: Limits) -> Acceptor {
        Acceptor {
            listener,
            routes,
            limits,
            slots: ConnectionLimits::new(limits.connections_max, limits.connections_per_peer_max),
            rejected: Arc::new(Semaphore::new(REJECTED_MAX)),
            stopping: CancellationToken::new(),
            logged_at: None,
        }
    }

    /// The next connection. Retries on every error, with a pause if it is ours. Cancel safe.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            let error = match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => error,
            };
            if is_client_error(&error) {
                continue;
            }
            if self.logged_at.is_none_or(|at| at.elapsed() >= ACCEPT_LOG_INTERVAL) {
                self.logged_at = Some(Instant::now());
                tracing::warn!(%error, "failed to accept a connection; trying again");
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr, connections: &mut JoinSet<()>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection closed before it was served");
            return;
        }
        let peer = Peer::of(address.ip());
        let slot = self.slots.take(peer);
        let is_over_limit = slot.is_none();
        // The permit is held as long as the connection.
        let rejected = is_over_limit.then(|| Arc::clone(&self.rejected).try_acquire_owned());
        if matches!(rejected, Some(Err(_))) {
            return;
        }
        let head_time_max = if is_over_limit { REJECTED_TIME_MAX } else { self.limits.head_time_max };
        let limits = Limits { head_time_max, ..self.limits };
        let connection = Connection { routes: self.routes.clone(), peer, limits, is_over_limit };
        let stopping = self.stopping.clone();
        connections.spawn(async move {
            Box::pin(connection.hold(stream, stopping)).await;
            drop((slot, rejected));
        });
    }

    /// Closes the listening socket.
    fn close(self) -> CancellationToken {
        self.stopping
    }
}

/// Whether the error is about one queued connection, so that the next accept may succeed.
fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind as Cause;
    matches!(error.kind(), Cause::ConnectionAborted | Cause::ConnectionReset | Cause::ConnectionRefused)
}

/// Serves the requests of one connection in sequence.
#[derive(Clone)]
struct Connection {
    routes: BoxedFilter<(Response,)>,
    peer: Peer,
    limits: Limits,
    /// Over the limit: its first request is answered 503 and the connection closed.
    is_over_limit: bool,
}

impl Connection {
    async fn hold(self, stream: TcpStream, stopping: CancellationToken) {
        let wire = Wire::new(stream, self.limits);
        let control = wire.control();
        let bytes_max = self.limits.head_bytes_max.max(BUFFER_BYTES_MIN);
        let service = service_fn(move |request| self.clone().answer(Arc::clone(&control), request));
        let mut connection = pin!(http1::Builder::new().max_buf_size(bytes_max).serve_connection(wire, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an http connection ended with an error");
        }
    }

    async fn answer(
        self,
        control: Arc<ConnectionControl>,
        mut request: Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let response = match control.verdict() {
            _ if self.is_over_limit => {
                let problem = Problem::new(
                    ProblemKind::Unavailable,
                    "there are too many open connections; close some, or try again later",
                );
                last(refusal(problem.retry_after(FULL_RETRY)))
            }
            Verdict::Refuse(problem) => last(refusal(problem)),
            // CONNECT has no path, and warp's path filters panic without one.
            Verdict::Serve { .. } if request.uri().path_and_query().is_none() => {
                last(refusal(Problem::method_not_allowed(METHODS.to_owned())))
            }
            Verdict::Serve { last: is_last } => {
                request.extensions_mut().insert(self.peer);
                let response = TowerToHyperService::new(warp::service(self.routes)).call(request).await?;
                if is_last { last(response) } else { response }
            }
        };
        control.answered(Instant::now() + self.limits.send_time_max);
        Ok(response)
    }
}

/// The response to a request that is rejected before routing.
fn refusal(problem: Problem) -> Response {
    let response = finish(&uuid::Uuid::new_v4().to_string(), Err(problem));
    tracing::debug!(status = response.status().as_u16(), "rejected a request before routing");
    response
}

/// Closes the connection after this response.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
