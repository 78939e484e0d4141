//! A request: its head, as the filters read it, and the authorized request of a handler.

use warp::Filter;
use warp::http::{HeaderMap, Method};

use super::body::{BodyFields, RequestBody, capped_json};
use super::connection_limits::Peer;
use super::limits::ServerLimits;
use super::query::Params;
use super::reply::{Problem, REQUEST_ID};
use crate::service::KeyGrant;

/// A request without its body.
#[derive(Clone, Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) path: String,
    /// Without the question mark; empty when there is none.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) request_id: String,
    /// None in tests without a socket.
    pub(super) peer: Option<Peer>,
}

impl RequestHead {
    /// Whether the method is GET or HEAD, which change nothing.
    pub(super) fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// Extracts the head of a request.
pub(super) fn head() -> impl Filter<Extract = (RequestHead,), Error = std::convert::Infallible> + Clone {
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
pub(super) struct ApiRequest {
    pub(super) head: RequestHead,
    pub(super) grant: KeyGrant,
    pub(super) body: RequestBody,
}

impl ApiRequest {
    pub(super) fn params(&self, known: &[&str]) -> Result<Params, Problem> {
        Params::read(&self.head.query, known)
    }

    /// Reads the JSON body and rejects query parameters: a secret must never be sent in a URI.
    pub(super) async fn fields(self, limits: &ServerLimits) -> Result<(KeyGrant, BodyFields), Problem> {
        self.params(&[])?;
        self.only_body(limits).await
    }

    /// Reads the JSON body; for endpoints that have read the query themselves.
    pub(super) async fn only_body(self, limits: &ServerLimits) -> Result<(KeyGrant, BodyFields), Problem> {
        let fields = capped_json(&self.head.headers, self.body, limits.body_bytes_max, limits.body_time_max);
        Ok((self.grant, fields.await?))
    }
}

/// Matches GET and HEAD.
pub(super) fn get_or_head() -> impl Filter<Extract = (), Error = warp::Rejection> + Copy {
    warp::get().or(warp::head()).unify()
}
