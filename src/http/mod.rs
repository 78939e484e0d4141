//! The REST API, its OpenAPI description, and two HTML pages.
//!
//! `app` calls [`serve`]; tests call [`routes`]. All data comes from a [`Service`]. Each endpoint is a triple: a
//! filter (which requests match), a plain async fn (the handler), and `endpoint`, which authorizes the caller, bounds
//! the time and builds the response.
//!
//! What always holds:
//! - The key is checked before anything else of the request, so a caller without one cannot probe what exists.
//! - An error is a value (`Problem`), not a warp rejection. A rejection means "no match"; a request that matches no
//!   route ends in `unmatched`, which looks up in the OpenAPI description whether it is a 404 or a 405.
//! - Everything is bounded: connections, heads, URIs, bodies, waits for the client, response time, shutdown. See
//!   [`Limits`].
//! - No secret, query or path of a request is logged; routes are logged by name.

mod accept;
mod api_calls;
mod api_completeness;
mod api_documents;
mod api_keys;
mod api_resources;
mod api_runs;
mod api_shops;
mod auth;
mod body;
mod connection_limits;
mod cursor;
mod filters;
mod health;
mod idempotency;
mod openapi;
mod params;
mod query;
mod reply;
mod resource_health;
mod server;
mod static_files;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tracing::Instrument;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::{HeaderMap, Method};
use warp::reply::Response;

pub(crate) use api_completeness::completeness_form;
pub(crate) use api_keys::{key_form, minted_key_form};
pub(crate) use api_runs::run_form;
pub(crate) use api_shops::shop_forms;
pub use auth::Pace;

use crate::catalog::{self, Definition};
use crate::service::{KeyGrant, Service, ServiceError};
use crate::supervisor::{count_panic, describe_join_error};
use auth::{AccessControl, RequiredScope};
use body::{Body, Fields, body};
use connection_limits::Peer;
use cursor::Cursors;
use openapi::Description;
use reply::{ApiResult, Problem, ProblemKind, REQUEST_ID, finish};

/// Limits of the HTTP server and API.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Concurrent connections. One more is answered 503, or closed.
    pub connections_max: usize,
    /// Concurrent connections of one client: an IPv4 address, or an IPv6 /64.
    pub connections_per_peer_max: usize,
    /// Largest request head (request line and at most 100 headers), in bytes; at least 8 KiB.
    pub head_bytes_max: usize,
    /// Time for a head to arrive whole, from the start of the connection or the end of the response before it. One
    /// limit for idle connections and slow heads: a client that may idle gains nothing by sending half a head.
    pub head_time_max: Duration,
    /// Time in which a client receives nothing of its response.
    pub send_time_max: Duration,
    /// Time to discard what a client still sends when the connection ends, so that it can read its response.
    pub linger_time_max: Duration,
    /// Longest URI (path and query), in bytes.
    pub uri_bytes_max: usize,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Time for a request body to arrive.
    pub body_time_max: Duration,
    /// Time to handle a request: longer than a credential check at the login host may take.
    pub answer_time_max: Duration,
    /// Time for open requests to finish during shutdown.
    pub drain_time_max: Duration,
    /// Rate limit of one key for GET and HEAD.
    pub reads: Pace,
    /// Rate limit of one key for all other methods.
    pub writes: Pace,
    /// Rate limit of one client for requests without a valid key.
    pub unauthenticated: Pace,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // An idle connection holds 1 to 2 KiB, and 1000 stay well below the limit of open files.
            connections_max: 1_000,
            // A browser opens 6, a connection pool some tens.
            connections_per_peer_max: 50,
            // Eight times the usual 8 KiB: cookies of other services on the same host name add up.
            head_bytes_max: 64 * 1024,
            // As long as proxies keep idle connections to us: one closed just as they use it would be an error.
            head_time_max: Duration::from_secs(60),
            send_time_max: Duration::from_secs(60),
            linger_time_max: Duration::from_secs(1),
            uri_bytes_max: 8 * 1024,
            body_bytes_max: 64 * 1024,
            body_time_max: Duration::from_secs(20),
            answer_time_max: Duration::from_secs(45),
            drain_time_max: Duration::from_secs(10),
            reads: Pace { per_second: 100, burst: 200 },
            writes: Pace { per_second: 20, burst: 40 },
            unauthenticated: Pace { per_second: 50, burst: 50 },
        }
    }
}

/// Serves the API until `shutdown` completes, then drains open requests for at most `limits.drain_time_max`.
pub async fn serve(listener: TcpListener, service: Service, limits: Limits, shutdown: impl Future<Output = ()>) {
    server::run(listener, routes(service, limits), limits, shutdown).await;
}

/// Serves `/metrics`, `/livez` and `/readyz` without a key; bounds and shutdown as in [`serve`].
pub async fn serve_metrics(
    listener: TcpListener,
    service: Service,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    server::run(listener, health::keyless_routes(service, limits), limits, shutdown).await;
}

/// All routes; never rejects.
pub fn routes(service: Service, limits: Limits) -> BoxedFilter<(Response,)> {
    let api = Arc::new(Api::new(service, limits));
    health::routes(&api)
        .or(static_files::routes())
        .unify()
        .or(api_completeness::routes(&api))
        .unify()
        .or(api_shops::routes(&api))
        .unify()
        .or(api_keys::routes(&api))
        .unify()
        .or(api_runs::routes(&api))
        .unify()
        .or(api_calls::routes(&api))
        .unify()
        .or(api_resources::routes(&api))
        .unify()
        .or(api_documents::routes(&api))
        .unify()
        .or(unmatched_route(&api))
        .unify()
        .boxed()
}

/// State shared by all endpoints.
pub(crate) struct Api {
    service: Service,
    limits: Limits,
    definitions: Vec<Arc<Definition>>,
    description: Description,
    cursors: Cursors,
    access: AccessControl,
    in_flight: idempotency::InFlightKeys,
}

impl Api {
    fn new(service: Service, limits: Limits) -> Api {
        let definitions = service.definitions().to_vec();
        Api {
            description: Description::new(&definitions),
            cursors: Cursors::new(service.cursor_key()),
            access: AccessControl::new(service.clone(), &limits),
            in_flight: idempotency::InFlightKeys::default(),
            definitions,
            limits,
            service,
        }
    }

    fn definition(&self, resource: &str) -> Option<&Arc<Definition>> {
        self.definitions.iter().find(|definition| definition.name == resource)
    }

    fn admit(&self, head: &RequestHead, required: RequiredScope) -> Result<KeyGrant, Problem> {
        if head.path.len() + head.query.len() > self.limits.uri_bytes_max {
            let detail = format!("the URI must not be longer than {} bytes", self.limits.uri_bytes_max);
            return Err(Problem::new(ProblemKind::UriTooLong, detail));
        }
        self.access.admit(head, required)
    }

    /// 404 unless the shop exists and the key may see it; checked before the body is read.
    fn has_shop(&self, grant: &KeyGrant, shop_id: &str) -> Result<(), Problem> {
        let is_there = grant.sees(shop_id) && self.service.shop(shop_id)?.is_some();
        if is_there { Ok(()) } else { Err(Problem::not_found()) }
    }

    /// Decodes the `cursor` parameter and checks that it belongs to this list and these filters.
    fn decode_cursor(&self, of: &str, params: &query::Params) -> Result<Option<Vec<String>>, Problem> {
        let Some(text) = params.get("cursor") else { return Ok(None) };
        let last = self.cursors.decode(of, &params.filters(), text);
        last.map(Some).map_err(|cursor::InvalidCursor| {
            Problem::parameter("cursor", "is invalid for this list; use `next_cursor` with the same filters")
        })
    }
}

/// A request without its body.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    method: Method,
    path: String,
    /// Without the question mark; empty when there is none.
    query: String,
    headers: HeaderMap,
    request_id: String,
    /// None in tests without a socket.
    peer: Option<Peer>,
}

fn head() -> impl Filter<Extract = (RequestHead,), Error = std::convert::Infallible> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let line = warp::method().and(warp::path::full()).and(query);
    line.and(warp::header::headers_cloned()).and(warp::ext::optional()).map(
        |method, path: warp::path::FullPath, query, headers: HeaderMap, peer| {
            let request_id = request_id(&headers);
            RequestHead { method, path: path.as_str().to_owned(), query, headers, request_id, peer }
        },
    )
}

/// The client's `X-Request-Id` if it is safe to log and echo, else a new UUID.
fn request_id(headers: &HeaderMap) -> String {
    let is_safe =
        |id: &&str| (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_safe);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// An authorized request.
pub(crate) struct Call {
    head: RequestHead,
    grant: KeyGrant,
    body: Body,
}

impl Call {
    fn params(&self, known: &[&str]) -> Result<query::Params, Problem> {
        query::Params::read(&self.head.query, known)
    }

    /// Reads the JSON body and rejects query parameters: a secret must never be sent in a URI.
    async fn fields(self, limits: &Limits) -> Result<(KeyGrant, Fields), Problem> {
        self.params(&[])?;
        self.only_body(limits).await
    }

    /// Reads the JSON body; for endpoints that have read the query themselves.
    async fn only_body(self, limits: &Limits) -> Result<(KeyGrant, Fields), Problem> {
        let fields = body::capped_json(&self.head.headers, self.body, limits.body_bytes_max, limits.body_time_max);
        Ok((self.grant, fields.await?))
    }
}

/// Name in the log, required scope and media type of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    name: &'static str,
    scope: RequiredScope,
    /// Media type of a successful response; none if it has no body.
    media_type: Option<&'static str>,
}

/// The media type of most responses.
const JSON: Option<&str> = Some("application/json");

/// Joins a filter and a handler: authorizes the caller, bounds the time, builds the response.
fn endpoint<T, F, Fut>(api: &Arc<Api>, at: Endpoint, matching: BoxedFilter<(T,)>, answer: F) -> BoxedFilter<(Response,)>
where
    T: Send + 'static,
    F: Fn(Arc<Api>, Call, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ApiResult> + Send + 'static,
{
    let api = Arc::clone(api);
    matching
        .and(head())
        .and(body())
        .then(move |target: T, head: RequestHead, body: Body| {
            let (api, answer, started) = (Arc::clone(&api), answer.clone(), Instant::now());
            let request_id = head.request_id.clone();
            // Every log line of the request carries its id.
            let span = tracing::info_span!("request", request.id = %request_id, method = %head.method, route = at.name);
            let answering = async move {
                let outcome = match api.admit(&head, at.scope).and_then(|grant| acceptable(&head, at).map(|()| grant)) {
                    Ok(grant) => {
                        let time_max = api.limits.answer_time_max;
                        let doing = move |api, call| answer(api, call, target);
                        bounded(time_max, Box::pin(run_handler(api, Call { head, grant, body }, doing))).await
                    }
                    Err(problem) => Err(problem),
                };
                let response = finish(&request_id, outcome);
                let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(status = response.status().as_u16(), elapsed_ms, "handled a request");
                response
            };
            answering.instrument(span)
        })
        .boxed()
}

/// 406 if the client does not accept the media type. Problems are sent regardless of `Accept`.
fn acceptable(head: &RequestHead, at: Endpoint) -> Result<(), Problem> {
    match at.media_type {
        Some(media) if !accept::accepts(&head.headers, media) => Err(Problem::new(
            ProblemKind::NotAcceptable,
            format!("this endpoint responds with `{media}`; accept that, or leave out `Accept`"),
        )),
        _ => Ok(()),
    }
}

/// Runs the handler, at most once per `Idempotency-Key`. Unsafe methods run to completion even if the client
/// disconnects, so that no change is left half made.
async fn run_handler<F, Fut>(api: Arc<Api>, call: Call, doing: F) -> ApiResult
where
    F: FnOnce(Arc<Api>, Call) -> Fut + Send + 'static,
    Fut: Future<Output = ApiResult> + Send + 'static,
{
    if let Some(name) = idempotency::name(&call.head.method, &call.head.headers)?.map(str::to_owned) {
        return idempotency::once(api, call, name, doing).await;
    }
    if call.head.method.is_safe() {
        return doing(api, call).await;
    }
    run_detached(doing(api, call)).await
}

/// Runs a future to completion, even if the returned one is dropped.
async fn run_detached(doing: impl Future<Output = ApiResult> + Send + 'static) -> ApiResult {
    let done = tokio::spawn(doing.in_current_span()).await;
    done.unwrap_or_else(|error| {
        if error.is_panic() {
            count_panic("a request");
        }
        Err(ServiceError::Internal(format!("a request handler failed: {}", describe_join_error(&error))).into())
    })
}

async fn bounded(time_max: Duration, answering: impl Future<Output = ApiResult>) -> ApiResult {
    tokio::time::timeout(time_max, answering).await.unwrap_or_else(|_| {
        let detail = format!("the request was not handled within {} s; try again", time_max.as_secs());
        Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(5)))
    })
}

/// The last route: 404, or 405 with the methods that the path supports.
fn unmatched_route(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let matching = warp::any().map(|| ()).boxed();
    endpoint(
        api,
        Endpoint { name: "unmatched", scope: RequiredScope::Read, media_type: None },
        matching,
        sync_handler(unmatched),
    )
}

fn unmatched(api: &Api, call: &Call) -> ApiResult {
    match api.description.allowed(&call.head.path) {
        // The path supports the method but did not match: it holds an id that is not UTF-8.
        Some(allow) if !allow.split(", ").any(|method| method == call.head.method.as_str()) => {
            Err(Problem::method_not_allowed(allow))
        }
        _ => Err(in_catalog_only(api, &call.head.path).unwrap_or_else(Problem::not_found)),
    }
}

/// 404 for a resource that ships with Waybill and is not configured.
fn in_catalog_only(api: &Api, path: &str) -> Option<Problem> {
    let name = path.strip_prefix("/api/v1/")?;
    let name = name.split('/').next()?;
    let is_missing = catalog::ships(name) && api.definition(name).is_none();
    let detail =
        || format!("`{name}` is in the catalog, but not among `resources` of the configuration, so it is not synced");
    is_missing.then(|| Problem::new(ProblemKind::NotFound, detail()))
}

/// Adapts a synchronous handler.
fn sync_handler(
    answer: fn(&Api, &Call) -> ApiResult,
) -> impl Fn(Arc<Api>, Call, ()) -> std::future::Ready<ApiResult> + Clone + Send + Sync + 'static {
    move |api, call, ()| std::future::ready(answer(&api, &call))
}

/// Matches GET and HEAD.
fn get_or_head() -> impl Filter<Extract = (), Error = warp::Rejection> + Copy {
    warp::get().or(warp::head()).unify()
}
