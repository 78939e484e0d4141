//! Fault injection: which calls fail, how, and how often.
//!
//! Rules are checked in order; the first that matches, is not used up and wins its random draw takes the call. Faults
//! come after authentication and limiter: a broken answer still uses budget, and a call that deserves 401 or 429 gets
//! that. Token calls have neither, so their faults come first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Prefix of the path without base, like `/retailer/shipments/` or `/token`; with a `?` it is compared with path
    /// and query.
    #[serde(rename = "match")]
    pub prefix: String,
    /// Only calls of this client; None: all clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub kind: FaultKind,
    /// Matching calls that succeed before the first fault.
    #[serde(default)]
    pub skip: u64,
    /// Number of calls to fail; None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Probability of taking a matching call, 0.0 to 1.0, drawn from the sandbox's seed; None: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

impl Fault {
    /// A rule that takes every call whose path has this prefix.
    pub fn always(prefix: &str, kind: FaultKind) -> Fault {
        Fault { prefix: prefix.to_owned(), client_id: None, kind, skip: 0, times: None, probability: None }
    }

    /// The same, for the first `times` calls.
    pub fn times(prefix: &str, kind: FaultKind, times: u64) -> Fault {
        Fault { times: Some(times), ..Fault::always(prefix, kind) }
    }
}

/// The kind of fault. JSON: `"reset"` or `{"status": {"code": 500, "body": "html"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// Another status; with 200 and a text body, any wrong content.
    Status {
        code: u16,
        #[serde(default)]
        body: FaultBody,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// 200 with the right media type, but bytes that are neither JSON nor UTF-8.
    Garbage,
    /// 200 with deeply nested JSON.
    Nested { depth: usize },
    /// 200 with a JSON text of this many bytes.
    Huge { bytes: usize },
    /// 200 with a few kilobytes of gzip that unpack to this many bytes.
    GzipBomb { bytes: u64 },
    /// The right head, but the connection ends after this many bytes of the body.
    Cut { after: usize },
    /// The right answer, delayed.
    Slow { ms: u64 },
    /// The right answer, this many bytes at a time with a pause after each.
    Drip { bytes: usize, ms: u64 },
    /// The connection is reset before any answer.
    Reset,
    /// The connection is reset after this many bytes of the body.
    ResetAfter { bytes: usize },
    /// The right body with a `Content-Length` that is off by this much.
    WrongContentLength { by: i64 },
    /// The right body in chunks, the second with an invalid size.
    BadChunk,
    /// The right body with this text inserted after its first brace, for example a duplicate key or an invalid number.
    /// Letters up to U+00FF are sent as one byte, so beyond ASCII the body is not UTF-8.
    Insert { text: String },
    /// 302 to another address.
    Redirect { to: String },
    /// Lists answer as if page 1 had been requested.
    SamePage,
    /// The list of shipments is reversed, as if every row had moved.
    Reversed,
    /// The answer quotes the credentials of its request.
    Echo { form: EchoForm },
}

impl FaultKind {
    /// Whether the client misses the right answer; a delay only delays it.
    pub(crate) fn spoils(&self) -> bool {
        match self {
            FaultKind::Slow { .. } | FaultKind::Drip { .. } => false,
            FaultKind::Status { .. }
            | FaultKind::Garbage
            | FaultKind::Nested { .. }
            | FaultKind::Huge { .. }
            | FaultKind::GzipBomb { .. }
            | FaultKind::Cut { .. }
            | FaultKind::Reset
            | FaultKind::ResetAfter { .. }
            | FaultKind::WrongContentLength { .. }
            | FaultKind::BadChunk
            | FaultKind::Insert { .. }
            | FaultKind::Redirect { .. }
            | FaultKind::SamePage
            | FaultKind::Reversed
            | FaultKind::Echo { .. } => true,
        }
    }
}

/// Body of a [`FaultKind::Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultBody {
    /// A Problem with that status.
    #[default]
    Json,
    /// An error page of a proxy in front of the API.
    Html,
    Empty,
    Text(String),
}

/// How an answer quotes the credentials of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EchoForm {
    /// 400 (a login: 401) with the header, the secret and all headers in title, detail and violations.
    Plain,
    /// The same in base64: standard, URL-safe, and at each alignment.
    Base64,
    /// The same in hex, in both cases.
    Hex,
    /// The same with each byte percent-encoded, in both cases.
    Percent,
    /// The same as JSON in a JSON text, each letter escaped.
    Json,
    /// The same, shortened to its first bytes.
    Prefix,
    /// The same as `plain`, in chunks of a few bytes.
    Chunks,
    /// The same as `plain`, compressed.
    Gzip,
    /// The same status without a body: in header names and values, in `Link`, `Retry-After` and the reason phrase.
    Headers,
    /// 200 with the credential as the content type, and a page that shows it.
    Type,
    /// 200 with JSON that ends within the credential.
    Broken,
    /// 302 to an address with the credential.
    Redirect,
    /// The right answer with the credential as its first member.
    Document,
}

impl EchoForm {
    /// All forms.
    pub const ALL: [EchoForm; 13] = [
        EchoForm::Plain,
        EchoForm::Base64,
        EchoForm::Hex,
        EchoForm::Percent,
        EchoForm::Json,
        EchoForm::Prefix,
        EchoForm::Chunks,
        EchoForm::Gzip,
        EchoForm::Headers,
        EchoForm::Type,
        EchoForm::Broken,
        EchoForm::Redirect,
        EchoForm::Document,
    ];
}

/// The rules with their counts and the seeded random generator.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: Vec<(Fault, u64)>,
    rng: fastrand::Rng,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Faults {
        Faults { rules: Vec::new(), rng: fastrand::Rng::with_seed(seed) }
    }

    /// Replaces all rules and resets their counts.
    pub(crate) fn set(&mut self, faults: Vec<Fault>) {
        self.rules = faults.into_iter().map(|fault| (fault, 0)).collect();
    }

    /// The fault for one call, if any. `path` is without base and query, `full` includes the query.
    pub(crate) fn take(&mut self, path: &str, full: &str, client_id: &str) -> Option<FaultKind> {
        for (fault, matched) in &mut self.rules {
            let subject = if fault.prefix.contains('?') { full } else { path };
            let other = fault.client_id.as_deref().is_some_and(|only| only != client_id);
            let used_up = fault.times.is_some_and(|times| *matched >= fault.skip.saturating_add(times));
            if other || used_up || !subject.starts_with(fault.prefix.as_str()) {
                continue;
            }
            if fault.probability.is_some_and(|chance| self.rng.f64() >= chance) {
                continue;
            }
            *matched += 1;
            if *matched > fault.skip {
                return Some(fault.kind.clone());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{EchoForm, Fault, FaultKind, Faults};

    #[test]
    fn rules_skip_count_and_end() {
        let mut faults = Faults::new(1);
        let first = Fault { skip: 1, ..Fault::times("/retailer/shipments/", FaultKind::Reset, 2) };
        let other = Fault { client_id: Some("b".into()), ..Fault::always("/retailer/", FaultKind::Garbage) };
        faults.set(vec![first, other]);
        let mut take = |path: &str, client: &str| faults.take(path, path, client);
        assert_eq!(take("/retailer/shipments", "a"), None);
        assert_eq!(take("/retailer/shipments/1", "a"), None, "one is skipped");
        assert_eq!(take("/retailer/shipments/1", "a"), Some(FaultKind::Reset));
        assert_eq!(take("/retailer/shipments/1", "a"), Some(FaultKind::Reset));
        assert_eq!(take("/retailer/shipments/1", "a"), None, "two were taken");
        assert_eq!(take("/retailer/shipments/1", "b"), Some(FaultKind::Garbage));
    }

    #[test]
    fn the_json_form_is_strict() {
        let fault: Fault = serde_json::from_str(r#"{"match":"/token","kind":"reset","times":2}"#).unwrap();
        assert_eq!(fault, Fault::times("/token", FaultKind::Reset, 2));
        let text = r#"{"match":"/","kind":{"status":{"code":503,"body":"html","headers":{"Retry-After":"4"}}}}"#;
        assert!(serde_json::from_str::<Fault>(text).is_ok());
        let echo: Fault = serde_json::from_str(r#"{"match":"/","kind":{"echo":{"form":"base64"}}}"#).unwrap();
        assert_eq!(echo.kind, FaultKind::Echo { form: EchoForm::Base64 });
        assert!(serde_json::from_str::<Fault>(r#"{"match":"/","kind":"reset","time":2}"#).is_err());
        assert!(serde_json::from_str::<Fault>(r#"{"match":"/","kind":{"slow":{"s":2}}}"#).is_err());
    }
}
