//! The accept loop: connection limits, one task per connection, bounded shutdown.
//!
//! hyper reads requests and writes responses, warp's routes handle them. HTTP/1.1 and 1.0 only: the TLS proxy in front
//! speaks HTTP/2 to browsers, and without streams there is no stream flood.
//!
//! A request whose length is ambiguous is rejected, by hyper or here, or is the last of its connection: nothing behind
//! it is read as a request. hyper answers a malformed head (400) and a too large one (431) itself; `parse_errors` adds the
//! problem.
//!
//! On shutdown no connection is accepted any more, idle ones close at once, busy ones have [`ServerLimits::drain_time_max`],
//! and the rest are aborted.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use warp::http::uri::Authority;
use warp::http::{HeaderMap, Version};
use warp::reply::Response;

use super::connection_limits::{ConnectionLimits, ConnectionSlot, Peer};
use super::forwarded::TrustedProxies;
use super::limits::ServerLimits;
use super::parse_errors::{DueResponse, Gate, with_problem};
use super::reply::{Problem, ProblemKind, finish};
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
/// Most bytes discarded before closing. Must exceed a head and a body within their limits.
const LINGER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Serves until `shutdown` completes and every connection has ended or was aborted.
pub(super) async fn run(
    listener: TcpListener,
    routes: BoxedFilter<(Response,)>,
    limits: ServerLimits,
    proxies: TrustedProxies,
    shutdown: impl Future<Output = ()>,
) {
    let mut acceptor = Acceptor::new(listener, routes, limits, proxies);
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
    limits: ServerLimits,
    slots: ConnectionLimits,
    /// Requests under way of clients that come through a proxy.
    forwarded: Arc<Mutex<ConnectionLimits>>,
    proxies: TrustedProxies,
    rejected: Arc<Semaphore>,
    stopping: CancellationToken,
    logged_at: Option<Instant>,
}

impl Acceptor {
    fn new(
        listener: TcpListener,
        routes: BoxedFilter<(Response,)>,
        limits: ServerLimits,
        proxies: TrustedProxies,
    ) -> Acceptor {
        let slots = || ConnectionLimits::new(limits.connections_max, limits.connections_per_peer_max);
        Acceptor {
            listener,
            routes,
            limits,
            proxies,
            slots: slots(),
            forwarded: Arc::new(Mutex::new(slots())),
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

    fn admit(&mut self, stream: TcpStream, address: SocketAddr, connections: &mut JoinSet<()>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection closed before it was served");
            return;
        }
        let address = address.ip();
        let is_proxy = self.proxies.trusts(address);
        let slot = if is_proxy { self.slots.take_shared() } else { self.slots.take(Peer::of(address)) };
        let is_over_limit = slot.is_none();
        // The permit is held as long as the connection.
        let rejected = is_over_limit.then(|| Arc::clone(&self.rejected).try_acquire_owned());
        if matches!(rejected, Some(Err(_))) {
            return;
        }
        let connection = Connection {
            routes: self.routes.clone(),
            address,
            proxies: self.proxies.clone(),
            forwarded: is_proxy.then(|| Arc::clone(&self.forwarded)),
            limits: self.limits,
            is_over_limit,
        };
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
    /// Of the peer, which may be a proxy.
    address: IpAddr,
    proxies: TrustedProxies,
    /// Of a proxy's connection: limits the requests of each client.
    forwarded: Option<Arc<Mutex<ConnectionLimits>>>,
    limits: ServerLimits,
    /// Over the limit: its first request is answered 503 and the connection closed.
    is_over_limit: bool,
}

impl Connection {
    async fn hold(self, stream: TcpStream, stopping: CancellationToken) {
        let ServerLimits { head_time_max, head_bytes_max, send_time_max, linger_time_max, .. } = self.limits;
        let head_time_max = if self.is_over_limit { REJECTED_TIME_MAX } else { head_time_max };
        let mut socket = TimeoutStream::new(stream);
        socket.set_write_timeout(Some(send_time_max));
        let due = DueResponse::default();
        let gate = Gate::new(Box::pin(socket), due.clone());
        let service = service_fn(move |request| {
            due.begin();
            let (connection, due) = (self.clone(), due.clone());
            async move { connection.answer(request).await.map(|response| due.track(response)) }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_time_max)
            .max_buf_size(head_bytes_max.max(BUFFER_BYTES_MIN))
            .serve_connection(TokioIo::new(gate), service);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopping.cancelled() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        let (mut socket, held) = connection.into_parts().io.into_inner().into_parts();
        if let Err(error) = ended {
            tracing::debug!(%error, "an http connection ended with an error");
            if !held.is_empty() {
                let refusal = with_problem(&held, &error);
                timeout(linger_time_max, socket.write_all(&refusal)).await.ok();
            }
        }
        timeout(linger_time_max, linger(socket)).await.ok();
    }

    /// Counts a request of a proxy's client; None for direct ones, whose connections are counted.
    ///
    /// # Errors
    /// The client has too many under way.
    fn request_slot(&self, client: Peer) -> Result<Option<ConnectionSlot>, ()> {
        let Some(forwarded) = &self.forwarded else { return Ok(None) };
        // A panic cannot leave the counts half changed.
        let slot = forwarded.lock().unwrap_or_else(PoisonError::into_inner).take(client);
        slot.map(Some).ok_or(())
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        if self.is_over_limit {
            let detail = "there are too many open connections; close some, or try again later";
            return Ok(refusal(Problem::new(ProblemKind::Unavailable, detail).retry_after(FULL_RETRY)));
        }
        if let Some(detail) = wrong_host(request.version(), request.headers()) {
            return Ok(refusal(Problem::new(ProblemKind::BadRequest, detail)));
        }
        // CONNECT has no path, and warp's path filters panic without one.
        if request.uri().path_and_query().is_none() {
            return Ok(refusal(Problem::method_not_allowed(METHODS.to_owned())));
        }
        let has_coding = request.headers().contains_key(TRANSFER_ENCODING);
        if has_coding && !is_chunked_only(request.headers()) {
            let detail = "the only supported transfer coding is `chunked`, given once";
            return Ok(refusal(Problem::new(ProblemKind::BadRequest, detail)));
        }
        let client = Peer::of(self.proxies.client(self.address, request.headers()));
        // Held until the response is made; what is sent is the proxy's to take.
        let Ok(_slot) = self.request_slot(client) else {
            let detail = "this client has too many open requests; wait for some of them, or try again later";
            let problem = Problem::new(ProblemKind::Unavailable, detail).retry_after(FULL_RETRY);
            // The proxy's connection stays open for other clients.
            return Ok(finish(&uuid::Uuid::new_v4().to_string(), Err(problem)));
        };
        request.extensions_mut().insert(client);
        let response = TowerToHyperService::new(warp::service(self.routes)).call(request).await?;
        // hyper lets a coding override a `Content-Length` and removes that, so it cannot be rejected here. A proxy may
        // have gone by the length instead: what follows the body may be a request that it did not check.
        Ok(if has_coding { last(response) } else { response })
    }
}

/// Why the `Host` headers are wrong. HTTP/1.1 needs exactly one (RFC 9112, 3.2): a proxy may have gone by another one.
fn wrong_host(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_10 => None,
        (None, _) => Some("the header `Host` is missing; send it once, with the name or address of this server"),
        (Some(_), Some(_)) => Some("the header `Host` is given more than once; send it once"),
        (Some(host), None) => {
            let is_sound = Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'));
            (!is_sound).then_some("the header `Host` is not the name or address of a server, with or without a port")
        }
    }
}

/// hyper also accepts other codings before `chunked`, and would pass on an encoded body.
fn is_chunked_only(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked")) && codings.next().is_none()
}

/// Ends the sending side and discards what the client still sends: closing with unread bytes would reset the
/// connection, and the client could lose its response.
async fn linger(mut socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    socket.shutdown().await?;
    tokio::io::copy(&mut socket.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

/// The response to a request that is rejected before routing; closes the connection.
fn refusal(problem: Problem) -> Response {
    let response = finish(&uuid::Uuid::new_v4().to_string(), Err(problem));
    tracing::debug!(status = response.status().as_u16(), "rejected a request before routing");
    last(response)
}

/// Closes the connection after this response.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
