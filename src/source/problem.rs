//! What can go wrong with a call: [`SourceError`], and what each case means for the job.
//!
//! The texts are shown to people and kept in the store, so they never hold a secret, a token or a
//! document: from an error body only its title, detail and violations are taken, without what we sent (`redact`) and
//! without control characters, cut to 200 bytes.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value;
use url::Url;

use super::redact::Sent;
use crate::domain::sentence::clause;
use crate::domain::terminal::is_unsafe;
use crate::domain::{Cause, Disposition, ErrorClass};

/// Longest text, in bytes, taken from a server.
const TEXT_MAX: usize = 200;

/// How long the lane leases nothing when the host cannot be reached at all. Constant, because the wait does
/// not count as an attempt; short, so that work resumes soon after the network does.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(10);

/// How long the lane leases nothing after a throttled call that named no pause. The budget, which knows the
/// rule's window, usually blocks for longer, and only its pause is stored. The job keeps its place.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);

/// How long the lane leases nothing after the gate was found closed.
const GATE_PAUSE: Duration = Duration::from_secs(1);

/// Why a call brought no document. Cheap to clone: many callers may wait for one login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// 429, or 420 of some APIs. `None`: no header says how long; then a full window of the rule.
    #[error("the API refused the call: too many calls{}", wait(.retry_after))]
    Throttled { retry_after: Option<Duration> },
    /// 401. The token is dropped already; the next call asks for a new one.
    #[error("the API rejected the access token; the next attempt requests a new one")]
    Unauthorized,
    /// The login host refuses the credentials, or the account is switched off.
    #[error(
        "the credentials are refused: {}; correct the client id and secret, or have the account switched on",
        clause(.reason)
    )]
    Refused { reason: String },
    /// The login host answers as it does to a blocked address. Stops the logins of all shops.
    #[error("the login host seems to block this machine's address; no login for {} s", .after.as_secs())]
    LoginBlocked { after: Duration },
    /// The login host is down, throttles, or sends an invalid answer.
    #[error("no access token for now: {reason}")]
    LoginUnavailable { after: Duration, reason: String },
    /// 404 or 410, from the API itself.
    #[error("not found by the API ({status}){}", tail(.detail))]
    NotFound { status: u16, detail: String },
    /// 204.
    #[error("the answer has an unexpected shape: it is empty (204)")]
    NoContent,
    /// Another 4xx: the request itself is wrong.
    #[error("the API rejected the call ({status}){}", tail(.detail))]
    Rejected { status: u16, detail: String },
    /// Temporary: 408, 409, 423, 425, 5xx, a gateway's own 403, 404 or 410, and any status with a `Retry-After`.
    #[error("the API is not available ({status}){}", wait(.retry_after))]
    Unavailable { status: u16, retry_after: Option<Duration> },
    /// No connection; the request was not sent.
    #[error("the API cannot be reached: {0}")]
    Unreachable(String),
    /// The process stops; the request was not sent.
    #[error("not sent: the process is stopping")]
    Stopping,
    /// Another process may be the one that calls; the request was not sent.
    #[error(
        "not sent: MySQL has not confirmed for too long that this process is the one that calls; calls wait for it"
    )]
    NotOwner,
    /// The connection broke after the call left and before an answer began.
    #[error("the connection broke before an answer came: {0}")]
    Interrupted(String),
    #[error("the API took too long to answer")]
    TimedOut,
    /// The body is larger than the configured limit.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// 3xx. Never followed: a token must not reach another host.
    #[error("the API sent a redirect ({status}), which is not followed; check source.base_url")]
    Redirected { status: u16 },
    /// Not JSON, or not all of it.
    #[error("the answer cannot be read: {detail}")]
    Malformed { detail: String },
    /// Valid JSON, or another type of content, that does not match the definition.
    #[error("the answer has an unexpected shape: {detail}")]
    Shape { detail: String },
    /// The answer is good, and quotes a credential: stored, it would be served to all who may read documents.
    #[error(
        "the answer repeats {what} that the call was made with, so it is not stored: ask whoever runs the API to stop \
         that; it is read again by later walks, and at once with POST /api/v1/parked/ID/retry"
    )]
    Echo { what: &'static str },
}

/// The host and port of an address, for messages.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl SourceError {
    /// The status of the API's own answer, where it may mean the end of a list.
    pub fn status(&self) -> Option<u16> {
        match self {
            SourceError::NoContent => Some(204),
            SourceError::NotFound { status, .. } | SourceError::Rejected { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Class and text, as they are stored and shown.
    pub fn cause(&self) -> Cause {
        let class = match self {
            SourceError::Throttled { .. } => ErrorClass::Throttled,
            SourceError::Unauthorized => ErrorClass::Unauthorized,
            SourceError::Refused { .. } => ErrorClass::Refused,
            SourceError::LoginBlocked { .. } | SourceError::LoginUnavailable { .. } => ErrorClass::Login,
            SourceError::NotFound { .. } => ErrorClass::NotFound,
            SourceError::NoContent => ErrorClass::Shape,
            SourceError::Rejected { status: 403, .. } => ErrorClass::Forbidden,
            SourceError::Rejected { .. } => ErrorClass::Rejected,
            SourceError::Unavailable { .. } => ErrorClass::Unavailable,
            SourceError::Unreachable(_) => ErrorClass::Unreachable,
            SourceError::Stopping | SourceError::NotOwner => ErrorClass::Stopping,
            SourceError::Interrupted(_) => ErrorClass::Interrupted,
            SourceError::TimedOut => ErrorClass::TimedOut,
            SourceError::TooLarge { .. } => ErrorClass::TooLarge,
            SourceError::Redirected { .. } => ErrorClass::Redirected,
            SourceError::Malformed { .. } => ErrorClass::Malformed,
            SourceError::Shape { .. } | SourceError::Echo { .. } => ErrorClass::Shape,
        };
        Cause::new(class, self.to_string())
    }

    /// The one table from failure to consequence. For a detail that is not found, `store::ops::not_found` decides instead.
    pub fn disposition(&self) -> Disposition {
        match self {
            SourceError::Throttled { retry_after } => {
                Disposition::Postpone { after: retry_after.unwrap_or(THROTTLED_PAUSE) }
            }
            SourceError::LoginBlocked { after } | SourceError::LoginUnavailable { after, .. } => {
                Disposition::Postpone { after: *after }
            }
            SourceError::Unreachable(_) | SourceError::Stopping => Disposition::Postpone { after: UNREACHABLE_PAUSE },
            SourceError::NotOwner => Disposition::Postpone { after: GATE_PAUSE },
            SourceError::Refused { .. } => Disposition::StopShop,
            SourceError::Unavailable { retry_after, .. } => Disposition::Retry { after: *retry_after },
            // A gateway's page in place of the document is often temporary; the attempts are bounded.
            SourceError::Unauthorized
            | SourceError::Interrupted(_)
            | SourceError::TimedOut
            | SourceError::Redirected { .. }
            | SourceError::Malformed { .. } => Disposition::Retry { after: None },
            // JSON that does not match the definition usually does not at the next call either.
            SourceError::Shape { .. } | SourceError::NoContent | SourceError::Echo { .. } => Disposition::RetryOnce,
            // About rights or the account, not the document: works again once they are restored.
            SourceError::Rejected { status: 402 | 403, .. } => Disposition::Park { transient: true },
            SourceError::NotFound { .. } | SourceError::Rejected { .. } | SourceError::TooLarge { .. } => {
                Disposition::Park { transient: false }
            }
        }
    }

    /// The same without what was sent. Texts are redacted where they enter, before they are cut to their length; this
    /// catches those of libraries too.
    pub(super) fn redacted(self, sent: &Sent<'_>) -> SourceError {
        let redact = |text: String| sent.redact(&text).into_owned();
        match self {
            SourceError::Refused { reason } => SourceError::Refused { reason: redact(reason) },
            SourceError::LoginUnavailable { after, reason } => {
                SourceError::LoginUnavailable { after, reason: redact(reason) }
            }
            SourceError::NotFound { status, detail } => SourceError::NotFound { status, detail: redact(detail) },
            SourceError::Rejected { status, detail } => SourceError::Rejected { status, detail: redact(detail) },
            SourceError::Unreachable(text) => SourceError::Unreachable(redact(text)),
            SourceError::Interrupted(text) => SourceError::Interrupted(redact(text)),
            SourceError::Malformed { detail } => SourceError::Malformed { detail: redact(detail) },
            SourceError::Shape { detail } => SourceError::Shape { detail: redact(detail) },
            SourceError::Throttled { .. }
            | SourceError::Unauthorized
            | SourceError::LoginBlocked { .. }
            | SourceError::NoContent
            | SourceError::Unavailable { .. }
            | SourceError::Stopping
            | SourceError::NotOwner
            | SourceError::TimedOut
            | SourceError::TooLarge { .. }
            | SourceError::Redirected { .. }
            | SourceError::Echo { .. } => self,
        }
    }
}

fn wait(pause: &Option<Duration>) -> String {
    pause.map(|pause| format!("; it asks to wait {} s", pause.as_secs())).unwrap_or_default()
}

fn tail(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// An answer with a status other than 200, and what its request carried.
pub(super) struct ErrorAnswer<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    pub(super) sent: Sent<'a>,
}

/// Maps a status other than 200 to its error; `docs/resources.md` has the table. `retry_after` and `reset` are from the
/// headers; the client has handled a 401 before.
pub(super) fn from_status(
    ErrorAnswer { status, headers, body, sent }: &ErrorAnswer<'_>,
    retry_after: Option<Duration>,
    reset: Option<Duration>,
) -> SourceError {
    let (status, detail) = (*status, || problem_text(body, sent));
    match status {
        401 => SourceError::Unauthorized,
        420 | 429 => SourceError::Throttled { retry_after: retry_after.or(reset) },
        300..=399 => SourceError::Redirected { status },
        // A server that says when to retry expects a retry.
        _ if retry_after.is_some() => SourceError::Unavailable { status, retry_after },
        204 => SourceError::NoContent,
        408 | 409 | 423 | 425 | 500.. => SourceError::Unavailable { status, retry_after },
        // A web server's or gateway's own page is not about the document.
        403 | 404 | 410 if !body.is_empty() && !is_json(headers) => SourceError::Unavailable { status, retry_after },
        404 | 410 => SourceError::NotFound { status, detail: detail() },
        400..=499 => SourceError::Rejected { status, detail: detail() },
        _ => SourceError::Shape { detail: format!("status {status} where 200 was expected") },
    }
}

/// Whether a body is declared as JSON of some kind (`application/json`, `application/problem+json`).
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let essence = content_type(headers);
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// The media type of a response without its parameters, in small letters; empty if there is none.
pub(super) fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Title, detail and violations of a problem body, or `error` and `error_description` of a login
/// host's, without what was sent; empty when the body is neither.
pub(super) fn problem_text(body: &[u8], sent: &Sent<'_>) -> String {
    let Ok(Value::Object(problem)) = serde_json::from_slice::<Value>(body) else {
        return String::new();
    };
    let text = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut parts: Vec<String> =
        ["title", "detail", "error", "error_description"].map(text).iter().map(ToString::to_string).collect();
    for violation in problem.get("violations").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| violation.get(key).and_then(Value::as_str).unwrap_or_default();
        parts.push(format!("{} {}", text("name"), text("reason")).trim().to_owned());
    }
    parts.retain(|part| !part.is_empty());
    quote(&parts.join("; "), sent)
}

/// A server's text as it may be shown: redacted before it is cut, so that no piece of a credential is left at its end.
pub(super) fn quote(text: &str, sent: &Sent<'_>) -> String {
    clean(&sent.redact(text))
}

/// Sanitises a server's text for logs: no control characters, at most [`TEXT_MAX`] bytes.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if is_unsafe(c) { ' ' } else { c };
        if out.len() + c.len_utf8() > TEXT_MAX {
            break;
        }
        out.push(c);
    }
    out.trim().to_owned()
}

/// The innermost cause of a client library's error; the outer texts only repeat the address.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    clean(&inner.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

    use super::{ErrorAnswer, Sent, SourceError, clean, from_status};
    use crate::domain::Disposition;

    fn problem_text(body: &[u8]) -> String {
        super::problem_text(body, &Sent::key("canary-token-of-a-call"))
    }

    fn of(status: u16, kind: &'static str, body: &str, pause: Option<u64>) -> SourceError {
        let headers: HeaderMap = [(CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();
        let answer = ErrorAnswer { status, headers: &headers, body: body.as_bytes(), sent: Sent::key("") };
        from_status(&answer, pause.map(Duration::from_secs), Some(Duration::from_secs(9)))
    }

    #[test]
    fn texts_include_the_pause_and_the_detail_if_there_are_any() {
        let text = |error: SourceError| error.to_string();
        assert_eq!(text(of(503, "", "", Some(7))), "the API is not available (503); it asks to wait 7 s");
        assert_eq!(text(of(503, "", "", None)), "the API is not available (503)");
        let gone = |status, detail: &str| text(SourceError::NotFound { status, detail: detail.into() });
        assert_eq!(gone(404, "Not Found"), "not found by the API (404): Not Found");
        assert_eq!(gone(410, ""), "not found by the API (410)");
    }

    #[test]
    fn each_status_maps_to_its_error() {
        let json = "application/vnd.any.v1+json;charset=UTF-8";
        let unavailable = |status, retry_after| SourceError::Unavailable { status, retry_after };
        for status in [408, 409, 423, 425, 500, 501, 502, 503, 504, 507, 599] {
            assert_eq!(of(status, "text/html", "<html>", None), unavailable(status, None));
        }
        // A firewall's own page is like a gateway's; the API's own refusal may be temporary.
        assert_eq!(of(403, "text/html", "<html>", None), unavailable(403, None));
        assert_eq!(of(403, json, "{}", None).disposition(), Disposition::Park { transient: true });
        assert_eq!(of(400, json, "{}", None).disposition(), Disposition::Park { transient: false });
        assert_eq!(of(503, json, "", Some(7)), unavailable(503, Some(Duration::from_secs(7))));
        assert_eq!(of(429, json, "", Some(4)), SourceError::Throttled { retry_after: Some(Duration::from_secs(4)) });
        assert_eq!(of(429, json, "", None), SourceError::Throttled { retry_after: Some(Duration::from_secs(9)) });
        assert_eq!(of(401, json, "", None), SourceError::Unauthorized);
        assert_eq!(of(302, json, "", None), SourceError::Redirected { status: 302 });
        for status in [404, 410] {
            let detail = "Not Found".to_owned();
            assert_eq!(of(status, json, r#"{"title":"Not Found"}"#, None), SourceError::NotFound { status, detail });
            let gateway = of(status, "text/html", "<html>", None);
            assert_eq!(gateway, unavailable(status, None), "a gateway's page does not prove that the document is gone");
        }
        for status in [400, 402, 403, 406, 415, 451] {
            assert_eq!(of(status, json, "{}", None), SourceError::Rejected { status, detail: String::new() });
        }
        assert_eq!(of(204, json, "", None), SourceError::NoContent);
        assert!(matches!(of(206, json, "", None), SourceError::Shape { .. }));
    }

    /// The rows of the table in the docs: statuses, disposition, disposition with `Retry-After: 7`.
    fn documented() -> Vec<(Vec<u16>, String, String)> {
        let docs = include_str!("../../docs/resources.md");
        let table = docs.split("\n## What answers mean\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
        let read = |row: &str| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let statuses = cells[0].split(", ").flat_map(|range| {
                let (from, to) = range.split_once(" to ").unwrap_or((range, range));
                from.parse::<u16>().unwrap()..=to.parse().unwrap()
            });
            let word = |cell: &str| cell.split([':', ';']).next().unwrap().to_owned();
            (statuses.collect(), word(cells[1]), word(cells[2]))
        };
        rows.map(read).collect()
    }

    #[test]
    fn each_status_has_the_disposition_in_the_docs() {
        let word = |error: &SourceError| match (error, error.disposition()) {
            (SourceError::NotFound { .. }, _) => "gone",
            (_, Disposition::Postpone { after }) if after == Duration::from_secs(7) => "pause",
            (_, Disposition::Retry { after: Some(_) }) => "pause and retry",
            (_, Disposition::Postpone { .. }) => "pause",
            (_, Disposition::Park { transient: true }) => "park for now",
            (_, Disposition::Park { transient: false }) => "park",
            (_, Disposition::StopShop) => "stop the shop",
            (_, _) => "retry",
        };
        let mut seen = std::collections::BTreeSet::new();
        for (statuses, plain, with_pause) in documented() {
            for status in statuses {
                assert!(seen.insert(status), "{status} is there twice");
                for kind in ["application/json", "application/problem+json"] {
                    assert_eq!(word(&of(status, kind, "{}", None)), plain, "{status}");
                    assert_eq!(word(&of(status, kind, "{}", Some(7))), with_pause, "{status} with Retry-After");
                }
            }
        }
        let all = (201..=599).filter(|status| *status != 401);
        assert_eq!(all.filter(|status| !seen.contains(status)).collect::<Vec<_>>(), [0_u16; 0], "not in the docs");
    }

    #[test]
    fn each_error_has_its_disposition() {
        let seconds = Duration::from_secs;
        let retry = |after| Disposition::Retry { after };
        let table = [
            (SourceError::Throttled { retry_after: Some(seconds(4)) }, Disposition::Postpone { after: seconds(4) }),
            (SourceError::Throttled { retry_after: None }, Disposition::Postpone { after: seconds(1) }),
            (SourceError::LoginBlocked { after: seconds(600) }, Disposition::Postpone { after: seconds(600) }),
            (
                SourceError::LoginUnavailable { after: seconds(2), reason: String::new() },
                Disposition::Postpone { after: seconds(2) },
            ),
            (SourceError::Unreachable(String::new()), Disposition::Postpone { after: seconds(10) }),
            (SourceError::Stopping, Disposition::Postpone { after: seconds(10) }),
            (SourceError::Refused { reason: String::new() }, Disposition::StopShop),
            (SourceError::Unauthorized, retry(None)),
            (SourceError::Unavailable { status: 503, retry_after: Some(seconds(7)) }, retry(Some(seconds(7)))),
            (SourceError::Unavailable { status: 500, retry_after: None }, retry(None)),
            (SourceError::Interrupted(String::new()), retry(None)),
            (SourceError::TimedOut, retry(None)),
            (SourceError::Redirected { status: 302 }, retry(None)),
            (SourceError::Malformed { detail: String::new() }, retry(None)),
            (SourceError::Shape { detail: String::new() }, Disposition::RetryOnce),
            (SourceError::Echo { what: "the access token" }, Disposition::RetryOnce),
            (SourceError::NotFound { status: 404, detail: String::new() }, Disposition::Park { transient: false }),
            (SourceError::Rejected { status: 400, detail: String::new() }, Disposition::Park { transient: false }),
            (SourceError::Rejected { status: 403, detail: String::new() }, Disposition::Park { transient: true }),
            (SourceError::TooLarge { limit: 8 }, Disposition::Park { transient: false }),
        ];
        for (error, disposition) in table {
            assert_eq!(error.disposition(), disposition, "{error}");
        }
    }

    #[test]
    fn only_title_detail_and_violations_of_a_problem_are_quoted() {
        let body = br#"{"title":"Bad Request","detail":"Wrong\nvalue","instance":"https://x/?secret","violations":
            [{"name":"page","reason":"too low"},{"reason":"no name"},7],"echo":"Jansen"}"#;
        assert_eq!(problem_text(body), "Bad Request; Wrong value; page too low; no name");
        assert_eq!(problem_text(br#"{"error":"invalid_client"}"#), "invalid_client");
        let long = format!(r#"{{"detail":"{}canary-token-of-a-call"}}"#, "x".repeat(190));
        assert_eq!(problem_text(long.as_bytes()), format!("{}[redacted]", "x".repeat(190)), "redacted, then cut");
        for nothing in ["", "<html>", "[]", r#"{"title":7}"#] {
            assert_eq!(problem_text(nothing.as_bytes()), "");
        }
    }

    #[test]
    fn quoted_texts_are_short_and_without_control_characters() {
        assert_eq!(clean("a\r\nb\u{202e}c\u{0}"), "a  b c");
        let long = clean(&"é".repeat(500));
        assert_eq!(long.len(), 200);
        assert_eq!(clean(&format!("x{}", "😀".repeat(60))).len(), 197, "cut between characters");
    }
}
