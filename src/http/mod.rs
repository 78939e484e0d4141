//! The REST API, its description, and two small pages for people.
//!
//! `app` calls [`serve`]; tests call [`routes`]. Everything behind the API comes through
//! [`Backend`]. Each endpoint is a triple: a filter (what matches), a plain async fn (what it does),
//! and the shared ending in this file that admits the caller and makes the response.
//!
//! What always holds:
//! - Path and method first, then the key, then the request: nobody without a key learns what exists.
//! - A failure is a value, not a warp rejection. A rejection only means "not this route"; what no
//!   route took ends in `unmatched`, which knows 404 from 405 by the API's own description.
//! - Everything is bounded: connections, heads, addresses, bodies, each wait for a client, the time of an
//!   answer, the time to stop. [`Limits`] has all of it.
//! - No secret, no query and no path of a request is logged; routes are logged by their template.

mod accept;
mod again;
mod api_calls;
mod api_completeness;
mod api_documents;
mod api_keys;
mod api_resources;
mod api_runs;
mod api_shops;
mod auth;
pub mod backend;
mod body;
mod cursor;
mod filters;
mod framing;
mod openapi;
mod pages;
mod peers;
mod query;
mod reply;
mod resource_health;
pub mod rules;
mod server;
mod system;
mod wire;

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
pub(crate) use api_keys::key_form;
pub(crate) use api_runs::run_form;
pub(crate) use api_shops::shop_forms;
pub use auth::Pace;
pub use backend::{ApiError, Backend};

use crate::catalog::Definition;
use crate::store::{count_panic, how_it_ended};
use auth::{Gate, Need};
use backend::KeyGrant;
use body::{Body, Fields, body};
use cursor::Cursors;
use openapi::Description;
use peers::Peer;
use reply::{Kind, Outcome, Problem, REQUEST_ID, finish};

/// The bounds of the API.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; one more is told 503, or closed.
    pub connections_max: usize,
    /// The same for one peer: an IPv4 address, or an IPv6 network of 64 bits.
    pub connections_per_peer_max: usize,
    /// Largest head of a request: its first line and its headers, in bytes.
    pub head_bytes_max: usize,
    /// Header lines of a request. hyper stops at 100 by itself.
    pub headers_max: usize,
    /// Time for a head to arrive: for the first from the connection on, then from its first byte on.
    pub head_time_max: Duration,
    /// A connection that asks nothing more for so long is closed.
    pub idle_time_max: Duration,
    /// Time for a client to take an answer.
    pub send_time_max: Duration,
    /// Time for a client that was cut off in its sending to hear why.
    pub linger_time_max: Duration,
    /// Longest path with query, in bytes.
    pub uri_bytes_max: usize,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Time for a request body to arrive.
    pub body_time_max: Duration,
    /// Time for an answer: longer than the login host may take to prove credentials.
    pub answer_time_max: Duration,
    /// Time for open requests to end after the signal to stop.
    pub drain_time_max: Duration,
    /// Pace of one key for GET and HEAD.
    pub reads: Pace,
    /// Pace of one key for everything else.
    pub writes: Pace,
    /// Pace of one peer for requests without a valid key.
    pub strangers: Pace,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // A kilobyte or two each when idle, and far from the files that a process may open.
            connections_max: 1_000,
            // A browser opens 6, a client's pool some tens.
            connections_per_peer_max: 50,
            // Eight times what other servers take: cookies of neighbours on one host name add up.
            head_bytes_max: 64 * 1024,
            headers_max: 100,
            head_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_secs(60),
            // The largest page over a slow mobile line.
            send_time_max: Duration::from_secs(120),
            linger_time_max: Duration::from_secs(1),
            uri_bytes_max: 8 * 1024,
            body_bytes_max: 64 * 1024,
            body_time_max: Duration::from_secs(20),
            answer_time_max: Duration::from_secs(45),
            drain_time_max: Duration::from_secs(10),
            reads: Pace { per_second: 100, burst: 200 },
            writes: Pace { per_second: 20, burst: 40 },
            strangers: Pace { per_second: 50, burst: 50 },
        }
    }
}

/// Serves until `shutdown` ends, then lets open requests end for `limits.drain_time_max` and cuts the rest.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    server::run(listener, routes(backend, limits), limits, shutdown).await;
}

/// Serves `/metrics`, `/livez` and `/readyz` without a key until `shutdown` ends; bounded as [`serve`].
pub async fn serve_metrics(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    server::run(listener, system::keyless_routes(backend, limits), limits, shutdown).await;
}

/// All routes; never rejects.
pub fn routes(backend: Arc<dyn Backend>, limits: Limits) -> BoxedFilter<(Response,)> {
    let api = Arc::new(Api::new(backend, limits));
    system::routes(&api)
        .or(pages::routes())
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

/// What all endpoints share.
pub(crate) struct Api {
    backend: Arc<dyn Backend>,
    limits: Limits,
    definitions: Vec<Arc<Definition>>,
    description: Description,
    cursors: Cursors,
    gate: Gate,
    flights: again::Flights,
}

impl Api {
    fn new(backend: Arc<dyn Backend>, limits: Limits) -> Api {
        let definitions = backend.resources();
        Api {
            description: Description::new(&definitions),
            cursors: Cursors::new(backend.cursor_key()),
            gate: Gate::new(Arc::clone(&backend), &limits),
            flights: again::Flights::default(),
            definitions,
            limits,
            backend,
        }
    }

    fn definition(&self, resource: &str) -> Option<&Arc<Definition>> {
        self.definitions.iter().find(|definition| definition.name == resource)
    }

    fn admit(&self, head: &Head, need: Need) -> Result<KeyGrant, Problem> {
        if head.path.len() + head.query.len() > self.limits.uri_bytes_max {
            let detail = format!("an address may have at most {} bytes", self.limits.uri_bytes_max);
            return Err(Problem::new(Kind::UriTooLong, detail));
        }
        self.gate.admit(head, need)
    }

    /// A shop that is not there, or not this key's to see, is absent whatever the body holds.
    async fn has_shop(&self, grant: &KeyGrant, shop_id: &str) -> Result<(), Problem> {
        let is_there = grant.sees(shop_id) && self.backend.shop(shop_id).await?.is_some();
        if is_there { Ok(()) } else { Err(Problem::not_found()) }
    }

    /// Checks `cursor` against the other parameters.
    fn open_cursor(&self, of: &str, params: &query::Params) -> Result<Option<Vec<String>>, Problem> {
        let Some(text) = params.get("cursor") else { return Ok(None) };
        let last = self.cursors.open(of, &params.filters(), text);
        last.map(Some).map_err(|cursor::Foreign| {
            Problem::parameter("cursor", "is not valid here; use `next_cursor` with the filters it came with")
        })
    }
}

/// The request without its body.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    method: Method,
    path: String,
    /// Without the question mark; empty when there is none.
    query: String,
    headers: HeaderMap,
    request_id: String,
    /// Only a socket has one.
    peer: Option<Peer>,
}

fn head() -> impl Filter<Extract = (Head,), Error = std::convert::Infallible> + Clone {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    let line = warp::method().and(warp::path::full()).and(query);
    line.and(warp::header::headers_cloned()).and(warp::ext::optional()).map(
        |method, path: warp::path::FullPath, query, headers: HeaderMap, peer| {
            let request_id = request_id(&headers);
            Head { method, path: path.as_str().to_owned(), query, headers, request_id, peer }
        },
    )
}

/// The client's own id when it is harmless in a log and in a header, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless =
        |id: &&str| (8..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// An admitted request.
pub(crate) struct Call {
    head: Head,
    grant: KeyGrant,
    body: Body,
}

impl Call {
    fn params(&self, known: &[&str]) -> Result<query::Params, Problem> {
        query::Params::read(&self.head.query, known)
    }

    /// Reads the body. Refuses query parameters: an endpoint that takes a body takes none, and a
    /// secret must never come in an address.
    async fn fields(self, limits: &Limits) -> Result<(KeyGrant, Fields), Problem> {
        self.params(&[])?;
        self.only_body(limits).await
    }

    /// The same where the query was read before.
    async fn only_body(self, limits: &Limits) -> Result<(KeyGrant, Fields), Problem> {
        let fields = body::capped_json(&self.head.headers, self.body, limits.body_bytes_max, limits.body_time_max);
        Ok((self.grant, fields.await?))
    }
}

/// What an endpoint is called in the log, and what it asks of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint {
    name: &'static str,
    need: Need,
    /// The media type of a good answer; none where there is never one.
    gives: Option<&'static str>,
}

/// The media type of most answers.
const JSON: Option<&str> = Some("application/json");

/// Joins a filter and a plain async fn: admits the caller, bounds the time, makes the response.
fn guarded<T, F, Fut>(api: &Arc<Api>, at: Endpoint, matching: BoxedFilter<(T,)>, answer: F) -> BoxedFilter<(Response,)>
where
    T: Send + 'static,
    F: Fn(Arc<Api>, Call, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let api = Arc::clone(api);
    matching
        .and(head())
        .and(body())
        .then(move |target: T, head: Head, body: Body| {
            let (api, answer, started) = (Arc::clone(&api), answer.clone(), Instant::now());
            let request_id = head.request_id.clone();
            // Every line that is logged on behalf of the request carries its id.
            let span = tracing::info_span!("request", request.id = %request_id, method = %head.method, route = at.name);
            let answering = async move {
                let outcome = match api.admit(&head, at.need).and_then(|grant| acceptable(&head, at).map(|()| grant)) {
                    Ok(grant) => {
                        let time_max = api.limits.answer_time_max;
                        let doing = move |api, call| answer(api, call, target);
                        bounded(time_max, Box::pin(done(api, Call { head, grant, body }, doing))).await
                    }
                    Err(problem) => Err(problem),
                };
                let response = finish(&request_id, outcome);
                let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(status = response.status().as_u16(), elapsed_ms, "answered a request");
                response
            };
            answering.instrument(span)
        })
        .boxed()
}

/// 406 for a client that would not take the answer. A problem is sent whatever the client accepts.
fn acceptable(head: &Head, at: Endpoint) -> Result<(), Problem> {
    match at.gives {
        Some(media) if !accept::accepts(&head.headers, media) => Err(Problem::new(
            Kind::NotAcceptable,
            format!("the answer here is `{media}`; accept that, or leave out `Accept`"),
        )),
        _ => Ok(()),
    }
}

/// Does what is asked for; once, where it has a name. What changes something is done to its end, whether or not the client
/// waits for the answer: half of it may be a state that nobody looks after.
async fn done<F, Fut>(api: Arc<Api>, call: Call, doing: F) -> Outcome
where
    F: FnOnce(Arc<Api>, Call) -> Fut + Send + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    if let Some(name) = again::name(&call.head.method, &call.head.headers)?.map(str::to_owned) {
        return again::once(api, call, name, doing).await;
    }
    if call.head.method.is_safe() {
        return doing(api, call).await;
    }
    carried_through(doing(api, call)).await
}

/// Goes on when whoever waits for it is dropped.
async fn carried_through(doing: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
    let done = tokio::spawn(doing.in_current_span()).await;
    done.unwrap_or_else(|error| {
        if error.is_panic() {
            count_panic("a request");
        }
        Err(ApiError::Internal(format!("a request ended badly: {}", how_it_ended(&error))).into())
    })
}

async fn bounded(time_max: Duration, answering: impl Future<Output = Outcome>) -> Outcome {
    tokio::time::timeout(time_max, answering).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {} s", time_max.as_secs());
        Err(Problem::new(Kind::Unavailable, detail).retry_after(Duration::from_secs(5)))
    })
}

/// What no route took: 404, or 405 with the methods that the path does have.
fn unmatched_route(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let matching = warp::any().map(|| ()).boxed();
    guarded(api, Endpoint { name: "unmatched", need: Need::Read, gives: None }, matching, at_once(unmatched))
}

fn unmatched(api: &Api, call: &Call) -> Outcome {
    match api.description.allowed(&call.head.path) {
        // A path that has the method did not match for its content: an id that is not UTF-8.
        Some(allow) if !allow.split(", ").any(|method| method == call.head.method.as_str()) => {
            Err(Problem::method_not_allowed(allow))
        }
        _ => Err(Problem::not_found()),
    }
}

/// An endpoint that has nothing to wait for.
fn at_once(
    answer: fn(&Api, &Call) -> Outcome,
) -> impl Fn(Arc<Api>, Call, ()) -> std::future::Ready<Outcome> + Clone + Send + Sync + 'static {
    move |api, call, ()| std::future::ready(answer(&api, &call))
}

/// GET or HEAD.
fn reads() -> impl Filter<Extract = (), Error = warp::Rejection> + Copy {
    warp::get().or(warp::head()).unify()
}
