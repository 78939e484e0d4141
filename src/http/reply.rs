//! The one answer form and the one error form.
//!
//! An endpoint returns an [`Outcome`]: a [`Reply`] or a [`Problem`]. [`finish`] makes the response of
//! either, with the headers that every response carries. A problem is `application/problem+json`
//! (RFC 9457) and never holds internals; the request id ties it to the log.

use std::time::Duration;

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use warp::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::backend::{ApiError, FieldError, KeptAnswer};
use crate::domain::clock::{Millis, rfc3339};

/// Ties a response to the log; taken over from the client when it sent a harmless one.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// On an answer that was kept from an earlier request with the same `Idempotency-Key`.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// How an endpoint ends.
pub(super) type Outcome = Result<Reply, Problem>;

/// A good answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// 200 with JSON.
    pub(super) fn json(value: &impl Serialize) -> Outcome {
        Reply::json_with(StatusCode::OK, value)
    }

    pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> Outcome {
        let body = serde_json::to_vec(value).map_err(|error| ApiError::Internal(format!("answer: {error}")))?;
        Ok(Reply { status, ..Reply::text(JSON, body) })
    }

    /// 204.
    pub(super) fn empty() -> Outcome {
        Ok(Reply { status: StatusCode::NO_CONTENT, headers: HeaderMap::new(), body: Bytes::new() })
    }

    /// 200 with any content type.
    pub(super) fn text(content_type: HeaderValue, body: impl Into<Bytes>) -> Reply {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        Reply { status: StatusCode::OK, headers, body: body.into() }
    }

    /// What was answered before, and that it was.
    pub(super) fn again(kept: KeptAnswer) -> Outcome {
        let broken = |what: &str| ApiError::Internal(format!("a kept answer has no {what}"));
        let mut headers = HeaderMap::from_iter([(REPLAYED, HeaderValue::from_static("true"))]);
        if !kept.body.is_empty() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        if let Some(location) = &kept.location {
            headers.insert(LOCATION, HeaderValue::from_str(location).map_err(|_| broken("plain location"))?);
        }
        let status = StatusCode::from_u16(kept.status).map_err(|_| broken("status"))?;
        Ok(Reply { status, headers, body: Bytes::from(kept.body) })
    }

    /// All of it that is not the same for every answer.
    pub(super) fn to_keep(&self, request: [u8; 32]) -> KeptAnswer {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = String::from_utf8_lossy(&self.body).into_owned();
        KeptAnswer { request, status: self.status.as_u16(), location, body }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.insert(name, value);
        self
    }
}

/// The kinds of errors that the API knows. Stable: clients branch on `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
    HeadersTooLarge,
    Internal,
    LoginUnreachable,
    Unavailable,
    NoRoom,
}

impl Kind {
    /// Status, the last part of `type`, `title`.
    pub(super) fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Kind::BadRequest => (400, "bad-request", "The request cannot be understood"),
            Kind::Unauthorized => (401, "unauthorized", "A valid API key is needed"),
            Kind::Forbidden => (403, "forbidden", "This API key may not do that"),
            Kind::NotFound => (404, "not-found", "Not found"),
            Kind::MethodNotAllowed => (405, "method-not-allowed", "The method does not fit this path"),
            Kind::NotAcceptable => (406, "not-acceptable", "The answer has no form that the client accepts"),
            Kind::RequestTimeout => (408, "request-timeout", "The request came too slowly"),
            Kind::Conflict => (409, "conflict", "The present state does not allow it"),
            Kind::TooLarge => (413, "too-large", "The request body is too large"),
            Kind::UriTooLong => (414, "uri-too-long", "The request address is too long"),
            Kind::UnsupportedMediaType => (415, "unsupported-media-type", "The request body must be JSON"),
            Kind::Invalid => (422, "invalid", "Some fields are not acceptable"),
            Kind::CredentialsRefused => (422, "credentials-refused", "The login host refused the credentials"),
            Kind::TooManyRequests => (429, "too-many-requests", "Too many requests"),
            Kind::HeadersTooLarge => (431, "headers-too-large", "The head of the request is too large"),
            Kind::Internal => (500, "internal", "Internal server error"),
            Kind::LoginUnreachable => (502, "login-unreachable", "The login host cannot be reached"),
            Kind::Unavailable => (503, "unavailable", "Not available right now"),
            Kind::NoRoom => (507, "no-room", "Insufficient storage"),
        }
    }
}

/// A bad answer.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    /// The methods of a 405.
    allow: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        Problem { kind, detail: detail.into(), errors: Vec::new(), retry_after: None, allow: None }
    }

    /// Absent, or not this key's to see: both read the same.
    pub(super) fn not_found() -> Problem {
        Problem::new(Kind::NotFound, "no such thing, or this API key may not see it")
    }

    /// 400 for one query parameter.
    pub(super) fn parameter(name: &str, message: impl Into<String>) -> Problem {
        let message = message.into();
        let mut problem = Problem::new(Kind::BadRequest, format!("parameter `{name}` {message}"));
        problem.errors.push(FieldError { field: name.to_owned(), message });
        problem
    }

    /// 422 with every offence.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Problem {
        let all: Vec<String> = errors.iter().map(|error| format!("`{}` {}", error.field, error.message)).collect();
        Problem { errors, ..Problem::new(Kind::Invalid, all.join("; ")) }
    }

    pub(super) fn method_not_allowed(allow: String) -> Problem {
        let detail = format!("allowed here: {allow}");
        Problem { allow: Some(allow), ..Problem::new(Kind::MethodNotAllowed, detail) }
    }

    pub(super) fn retry_after(self, after: Duration) -> Problem {
        Problem { retry_after: Some(after), ..self }
    }

    fn response(&self, request_id: &str) -> Response {
        let (status, _, _) = self.kind.parts();
        let body = serde_json::to_vec(&ProblemForm { problem: self, request_id }).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body).into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if self.kind == Kind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            // Rounded up: a client that waits exactly this long must not come too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(Ok(allow)) = self.allow.as_deref().map(HeaderValue::from_str) {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

/// The error form on the wire.
struct ProblemForm<'a> {
    problem: &'a Problem,
    request_id: &'a str,
}

impl Serialize for ProblemForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (status, name, title) = self.problem.kind.parts();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("urn:waybill:{name}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status)?;
        map.serialize_entry("detail", &self.problem.detail)?;
        map.serialize_entry("request_id", self.request_id)?;
        if !self.problem.errors.is_empty() {
            map.serialize_entry("errors", &self.problem.errors)?;
        }
        map.end()
    }
}

/// The one table from the backend's errors to the API's.
impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Problem {
        match error {
            ApiError::NotFound => Problem::not_found(),
            ApiError::Conflict(detail) => Problem::new(Kind::Conflict, detail),
            ApiError::Invalid(errors) => Problem::invalid(errors),
            ApiError::Refused(reason) => {
                let detail = format!("the login host says: {reason}; give the right client id and client secret");
                Problem::new(Kind::CredentialsRefused, detail)
            }
            ApiError::LoginUnreachable { detail, retry_after } => {
                Problem { retry_after, ..Problem::new(Kind::LoginUnreachable, detail) }
            }
            ApiError::Unavailable { detail, retry_after } => {
                Problem::new(Kind::Unavailable, detail).retry_after(retry_after)
            }
            ApiError::NoRoom { detail, retry_after } => Problem::new(Kind::NoRoom, detail).retry_after(retry_after),
            ApiError::Internal(cause) => {
                // The one place where the cause is seen; the client gets the request id only.
                tracing::error!(error = %cause, "request failed on our side");
                Problem::new(Kind::Internal, "the log has the cause under this request id")
            }
        }
    }
}

/// Makes the response, with the headers that every response carries.
pub(super) fn finish(request_id: &str, outcome: Outcome) -> Response {
    let mut response = match outcome {
        Ok(reply) => {
            let mut response = Response::new(reply.body.into());
            *response.status_mut() = reply.status;
            *response.headers_mut() = reply.headers;
            response
        }
        Err(problem) => problem.response(request_id),
    };
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A page of a listing.
#[derive(Serialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) next_cursor: Option<String>,
}

/// RFC 3339 of a point in time.
pub(super) fn time<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// RFC 3339, or null.
pub(super) fn time_opt<S: Serializer>(at: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}
