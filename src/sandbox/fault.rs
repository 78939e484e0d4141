//! Faults on demand: which calls go wrong, how, and how often.
//!
//! Rules are looked at in order; the first that matches, is not used up and wins its roll takes the
//! call. Faults come after authentication and limiter: a broken answer still used the budget, and a
//! call that deserves 401 or 429 gets that. Token calls have neither, so theirs come first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Beginning of the path without base, as `/retailer/shipments/` or `/token`; with `?` it is compared
    /// with path and query.
    #[serde(rename = "match")]
    pub prefix: String,
    /// Only calls of this client; None: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    pub kind: FaultKind,
    /// Matching calls that go well before the first bad one.
    #[serde(default)]
    pub skip: u64,
    /// Calls it takes; None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Chance to take a matching call, 0.0 to 1.0, from the sandbox's seed; None: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
}

impl Fault {
    /// A rule that takes every call whose path begins with `prefix`.
    pub fn always(prefix: &str, kind: FaultKind) -> Fault {
        Fault { prefix: prefix.to_owned(), client_id: None, kind, skip: 0, times: None, probability: None }
    }

    /// The same for the first `times` calls only.
    pub fn times(prefix: &str, kind: FaultKind, times: u64) -> Fault {
        Fault { times: Some(times), ..Fault::always(prefix, kind) }
    }
}

/// What goes wrong. JSON: `"reset"` or `{"status": {"code": 500, "body": "html"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// Another answer; with 200 and a text body any wrong content.
    Status {
        code: u16,
        #[serde(default)]
        body: FaultBody,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// 200 and the right media type over bytes that are neither JSON nor UTF-8.
    Garbage,
    /// 200 and JSON, nested so deep.
    Nested { depth: usize },
    /// 200 and one JSON text of so many bytes.
    Huge { bytes: usize },
    /// 200 and a few kilobytes of gzip that unpack to so many bytes.
    GzipBomb { bytes: u64 },
    /// The right head, then the connection ends after so many bytes of the body.
    Cut { after: usize },
    /// The right answer, later.
    Slow { ms: u64 },
    /// The right answer, so many bytes of the body at a time with a pause after each.
    Drip { bytes: usize, ms: u64 },
    /// The connection is reset before any answer.
    Reset,
    /// The connection is reset after so many bytes of the body.
    ResetAfter { bytes: usize },
    /// The right body under a `Content-Length` that is off by so much.
    WrongContentLength { by: i64 },
    /// The right body in chunks whose second size is no number.
    BadChunk,
    /// The right body, with this text behind its first brace: one key twice, a number that is none. Letters up
    /// to U+00FF leave as one byte, so that beyond ASCII the body is no UTF-8.
    Insert { text: String },
    /// 302 to another address.
    Redirect { to: String },
    /// Lists answer as if page 1 had been asked for.
    SamePage,
    /// The list of shipments is in the opposite order, as if all of it had moved.
    Reversed,
}

impl FaultKind {
    /// Whether the client misses the right answer; delays only delay it.
    pub(super) fn spoils(&self) -> bool {
        !matches!(self, FaultKind::Slow { .. } | FaultKind::Drip { .. })
    }
}

/// Body of a [`FaultKind::Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultBody {
    /// A Problem with that status.
    #[default]
    Json,
    /// An error page of a server in front.
    Html,
    Empty,
    Text(String),
}

/// The rules with their counts and the seeded roll.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<(Fault, u64)>,
    rng: fastrand::Rng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Faults {
        Faults { rules: Vec::new(), rng: fastrand::Rng::with_seed(seed) }
    }

    /// Replaces all rules; their counts begin anew.
    pub(super) fn set(&mut self, faults: Vec<Fault>) {
        self.rules = faults.into_iter().map(|fault| (fault, 0)).collect();
    }

    /// The fault for one call, if any. `path` is without base and query, `full` with its query.
    pub(super) fn take(&mut self, path: &str, full: &str, client_id: &str) -> Option<FaultKind> {
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
    use super::{Fault, FaultKind, Faults};

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
        assert!(serde_json::from_str::<Fault>(r#"{"match":"/","kind":"reset","time":2}"#).is_err());
        assert!(serde_json::from_str::<Fault>(r#"{"match":"/","kind":{"slow":{"s":2}}}"#).is_err());
    }
}
