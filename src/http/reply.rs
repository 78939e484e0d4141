//! Responses: one form for success and one for errors.
//!
//! A handler returns an [`ApiResult`]: a [`Reply`] or a [`Problem`]. [`finish`] builds the response of either, with the
//! common headers. A problem is `application/problem+json` (RFC 9457) and never exposes internals; the request id links
//! it to the log.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;
use warp::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use crate::domain::sentence::clause;
use crate::service::{FieldError, ServiceError, StoredResponse};

/// Links a response to the log; the client may choose it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks a stored response of an earlier request with the same `Idempotency-Key`.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The result of a handler.
pub(super) type ApiResult = Result<Reply, Problem>;

/// A successful response.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// 200 with JSON.
    pub(super) fn json(value: &impl Serialize) -> ApiResult {
        Reply::json_with(StatusCode::OK, value)
    }

    pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> ApiResult {
        let body = serde_json::to_vec(value)
            .map_err(|error| ServiceError::Internal(format!("failed to serialize the response: {error}")))?;
        Ok(Reply { status, ..Reply::text(JSON, body) })
    }

    /// 204.
    pub(super) fn empty() -> ApiResult {
        Ok(Reply { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Bytes::new() })
    }

    /// 200 with any content type.
    pub(super) fn text(content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        Reply { status: StatusCode::OK, headers, body: body.into() }
    }

    /// A stored response, marked as replayed.
    pub(super) fn replayed(stored: StoredResponse) -> ApiResult {
        let broken = |what: &str| ServiceError::Internal(format!("a stored response has an invalid {what}"));
        let mut headers = HeaderMap::from_iter([(REPLAYED, HeaderValue::from_static("true"))]);
        if !stored.body.is_empty() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        if let Some(location) = &stored.location {
            headers.insert(LOCATION, HeaderValue::from_str(location).map_err(|_| broken("location"))?);
        }
        let status = StatusCode::from_u16(stored.status).map_err(|_| broken("status"))?;
        Ok(Reply { status, headers, body: Bytes::from(stored.body) })
    }

    /// The form to store: all but the common headers.
    pub(super) fn to_stored(&self, request: [u8; 32]) -> StoredResponse {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = String::from_utf8_lossy(&self.body).into_owned();
        StoredResponse { request, status: self.status.as_u16(), location, body }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.insert(name, value);
        self
    }
}

/// The error types of the API. Stable: clients branch on `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemKind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    Conflict,
    TooLarge,
    UriTooLong,
    UnsupportedMediaType,
    Invalid,
    CredentialsRefused,
    TooManyRequests,
    HeadTooLarge,
    Internal,
    LoginUnreachable,
    Unavailable,
    NoRoom,
}

impl ProblemKind {
    /// Status, last part of `type`, and title.
    pub(super) fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            ProblemKind::BadRequest => (400, "bad-request", "Bad request"),
            ProblemKind::Unauthorized => (401, "unauthorized", "Unauthorized"),
            ProblemKind::Forbidden => (403, "forbidden", "Forbidden"),
            ProblemKind::NotFound => (404, "not-found", "Not found"),
            ProblemKind::MethodNotAllowed => (405, "method-not-allowed", "Method not allowed"),
            ProblemKind::NotAcceptable => (406, "not-acceptable", "Not acceptable"),
            ProblemKind::RequestTimeout => (408, "request-timeout", "Request timeout"),
            ProblemKind::Conflict => (409, "conflict", "Conflict"),
            ProblemKind::TooLarge => (413, "too-large", "Content too large"),
            ProblemKind::UriTooLong => (414, "uri-too-long", "URI too long"),
            ProblemKind::UnsupportedMediaType => (415, "unsupported-media-type", "Unsupported media type"),
            ProblemKind::Invalid => (422, "invalid", "Unprocessable content"),
            ProblemKind::CredentialsRefused => (422, "credentials-refused", "Credentials refused"),
            ProblemKind::TooManyRequests => (429, "too-many-requests", "Too many requests"),
            ProblemKind::HeadTooLarge => (431, "head-too-large", "Request header fields too large"),
            ProblemKind::Internal => (500, "internal", "Internal server error"),
            ProblemKind::LoginUnreachable => (502, "login-unreachable", "Login host unreachable"),
            ProblemKind::Unavailable => (503, "unavailable", "Service unavailable"),
            ProblemKind::NoRoom => (507, "no-room", "Insufficient storage"),
        }
    }
}

/// An error response.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ProblemKind,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    /// `Allow` of a 405.
    allow: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: detail.into(), errors: Vec::new(), retry_after: None, allow: None }
    }

    /// 404; the same for what does not exist and what the key may not see.
    pub(super) fn not_found() -> Problem {
        Problem::new(ProblemKind::NotFound, "it does not exist, or this API key may not see it")
    }

    /// 400 for one query parameter.
    pub(super) fn parameter(name: &str, message: impl Into<String>) -> Problem {
        let message = message.into();
        let mut problem = Problem::new(ProblemKind::BadRequest, format!("parameter `{name}` {message}"));
        problem.errors.push(FieldError { field: name.to_owned(), message });
        problem
    }

    /// 422 with all invalid fields.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Problem {
        let all: Vec<String> = errors.iter().map(|error| format!("`{}` {}", error.field, error.message)).collect();
        Problem { errors, ..Problem::new(ProblemKind::Invalid, all.join("; ")) }
    }

    pub(super) fn method_not_allowed(allow: String) -> Problem {
        let detail = format!("this path supports: {allow}");
        Problem { allow: Some(allow), ..Problem::new(ProblemKind::MethodNotAllowed, detail) }
    }

    pub(super) fn retry_after(self, after: Duration) -> Problem {
        Problem { retry_after: Some(after), ..self }
    }

    fn body(&self, request_id: &str) -> Vec<u8> {
        let (status, name, title) = self.kind.parts();
        let (kind, detail, errors) = (format!("urn:waybill:{name}"), &self.detail, &self.errors);
        let form = ProblemForm { kind, title, status, detail, request_id, errors };
        serde_json::to_vec(&form).unwrap_or_default()
    }

    fn response(&self, body: Vec<u8>) -> Response {
        let (status, ..) = self.kind.parts();
        let mut response = Response::new(Bytes::from(body).into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if self.kind == ProblemKind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            // Rounded up: a client that waits exactly this long must not be too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(Ok(allow)) = self.allow.as_deref().map(HeaderValue::from_str) {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

/// An error.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemForm<'a> {
    /// Stable; `urn:waybill:...`.
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

/// The one table of failures and their problems.
impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Problem {
        match error {
            ServiceError::NotFound => Problem::not_found(),
            ServiceError::Conflict(detail) => Problem::new(ProblemKind::Conflict, detail),
            ServiceError::Invalid(errors) => Problem::invalid(errors),
            ServiceError::Refused(reason) => {
                let detail = format!(
                    "the login host refused the credentials: {}; check the client id and the client secret",
                    clause(&reason)
                );
                Problem::new(ProblemKind::CredentialsRefused, detail)
            }
            ServiceError::StillRefused { reason, shop } => {
                let detail = format!(
                    "the login host still refuses the secret of this shop: {}; the shop stays refused. If its account is off, \
                     try again once it is on; if the secret changed, give the new one: PATCH /api/v1/shops/{shop} with \
                     client_secret",
                    clause(&reason)
                );
                Problem::new(ProblemKind::CredentialsRefused, detail)
            }
            ServiceError::LoginUnreachable { detail, retry_after } => {
                Problem { retry_after, ..Problem::new(ProblemKind::LoginUnreachable, detail) }
            }
            ServiceError::Unavailable { detail, retry_after } => {
                Problem::new(ProblemKind::Unavailable, detail).retry_after(retry_after)
            }
            ServiceError::TooManyReads { detail, retry_after } => {
                Problem::new(ProblemKind::TooManyRequests, detail).retry_after(retry_after)
            }
            ServiceError::NoRoom { detail, retry_after } => {
                Problem::new(ProblemKind::NoRoom, detail).retry_after(retry_after)
            }
            ServiceError::Internal(cause) => {
                // The cause is logged here only; the client gets the request id.
                tracing::error!(error = %cause, "request failed with an internal error");
                Problem::new(ProblemKind::Internal, "see the log of the service for this request id")
            }
        }
    }
}

/// Builds the response, with the common headers.
pub(super) fn finish(request_id: &str, outcome: ApiResult) -> Response {
    let mut response = match outcome {
        Ok(reply) => {
            let mut response = Response::new(reply.body.into());
            *response.status_mut() = reply.status;
            *response.headers_mut() = reply.headers;
            response
        }
        Err(problem) => problem.response(problem.body(request_id)),
    };
    add_common_headers(response.headers_mut(), request_id);
    response
}

/// Headers and body of a problem, for a response that is not routed.
pub(super) fn finish_problem(request_id: &str, problem: &Problem) -> (HeaderMap, Vec<u8>) {
    let mut response = problem.response(Vec::new());
    add_common_headers(response.headers_mut(), request_id);
    (std::mem::take(response.headers_mut()), problem.body(request_id))
}

fn add_common_headers(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// A page of a list.
#[derive(Serialize)]
pub(super) struct PageForm<T> {
    pub(super) items: Vec<T>,
    pub(super) next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use warp::http::StatusCode;

    use super::{Problem, finish};
    use crate::service::{FieldError, ServiceError};

    #[test]
    fn every_failure_of_the_service_has_its_status_and_shows_no_internals() {
        let wait = Duration::from_millis(1500);
        let detail = || "why".to_owned();
        let field = FieldError { field: "name".to_owned(), message: "is too long".to_owned() };
        for (error, status, retry_after) in [
            (ServiceError::NotFound, 404, None),
            (ServiceError::Conflict(detail()), 409, None),
            (ServiceError::Invalid(vec![field]), 422, None),
            (ServiceError::Refused(detail()), 422, None),
            (ServiceError::StillRefused { reason: detail(), shop: "s".into() }, 422, None),
            (ServiceError::LoginUnreachable { detail: detail(), retry_after: None }, 502, None),
            (ServiceError::LoginUnreachable { detail: detail(), retry_after: Some(wait) }, 502, Some("2")),
            (ServiceError::Unavailable { detail: detail(), retry_after: wait }, 503, Some("2")),
            (ServiceError::TooManyReads { detail: detail(), retry_after: wait }, 429, Some("2")),
            (ServiceError::NoRoom { detail: detail(), retry_after: Duration::ZERO }, 507, Some("1")),
            (ServiceError::Internal("row 7 of /var/secret".to_owned()), 500, None),
        ] {
            let problem = Problem::from(error.clone());
            assert!(!problem.detail.contains("/var"), "{problem:?}");
            let response = finish("id", Err(problem));
            assert_eq!(response.status(), StatusCode::from_u16(status).unwrap(), "{error:?}");
            let given = response.headers().get("retry-after").map(|value| value.to_str().unwrap());
            assert_eq!(given, retry_after, "rounded up: {error:?}");
        }
    }
}
