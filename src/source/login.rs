//! One login: asks the login host for a token and classifies its answer.
//!
//! Called by `token` only, single flight per credential. What concerns the host and not one
//! credential lives here: the pace of the logins of all shops together, and the [`Gate`] that closes for
//! all of them when the host answers as to a blocked address (404, or a 403 that names no
//! reason) or asks to wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;
use zeroize::Zeroizing;

use super::credentials::{Credentials, Purpose, TokenStore};
use super::dates::Dates;
use super::headers::{PAUSE_UNREADABLE, retry_after};
use super::http::sensitive;
use super::pace::Pace;
use super::problem::{SourceError, host_of, problem_text, root_cause};
use crate::domain::calls::CallStatus;
use crate::domain::sentence::clause;
use crate::domain::{Backoff, SourceOrigin};
use crate::gate;

/// Backoff of all logins after answers that look like a blocked address.
const BLOCK_BACKOFF: Backoff = Backoff::new(Duration::from_secs(600), Duration::from_secs(3600));

/// After a block one login probes the host; the others check again after this.
const PROBE_PAUSE: Duration = Duration::from_secs(10);

/// Longest life assumed for a token.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Life of a token whose answer has no `expires_in`: less than the shortest seen in the wild (299 s).
/// A token that expires earlier causes a 401 and is renewed.
const LIFE_DEFAULT: Duration = Duration::from_secs(240);

/// Bytes read of a login answer; they are small.
const BODY_MAX: usize = 64 * 1024;

/// A fresh token.
pub(super) struct Granted {
    pub(super) token: SecretString,
    /// Counted from `asked_at`, the moment before the login left; so never longer than the host means.
    pub(super) life: Duration,
    pub(super) asked_at: Instant,
}

/// Why there is no token.
pub(super) enum LoginFailure {
    /// Refused, blocked, or asked to wait: the error has everything.
    Definite(SourceError),
    /// The host is down or its answer is invalid; the caller counts failures and chooses the pause.
    Unavailable(String),
}

/// The login host.
pub(super) struct Login {
    http: reqwest::Client,
    url: Url,
    origin: Arc<SourceOrigin>,
    pace: Pace,
    closed: CancellationToken,
    owner: gate::Gate,
    gate: Mutex<Gate>,
    dates: Arc<Dates>,
    store: Arc<dyn TokenStore>,
}

/// What a login shares with the rest of the source.
pub(super) struct LoginDeps {
    pub(super) origin: Arc<SourceOrigin>,
    pub(super) pace: Pace,
    pub(super) closed: CancellationToken,
    /// Of the whole source; the breaker of the logins is another one.
    pub(super) gate: gate::Gate,
    pub(super) dates: Arc<Dates>,
    pub(super) store: Arc<dyn TokenStore>,
}

impl Login {
    pub(super) fn new(http: reqwest::Client, url: Url, deps: LoginDeps) -> Login {
        let LoginDeps { origin, pace, closed, gate: owner, dates, store } = deps;
        Login { http, url, origin, pace, closed, owner, gate: Mutex::new(Gate::default()), dates, store }
    }

    /// The source whose login host this is.
    pub(super) fn origin(&self) -> &SourceOrigin {
        &self.origin
    }

    /// Asks for a token. At most one request leaves, and none with credentials of another source. No text of a failure
    /// has anything of the credentials.
    pub(super) async fn ask(&self, credentials: &Credentials, purpose: Purpose) -> Result<Granted, LoginFailure> {
        let sent = credentials.sent(None);
        self.try_to_ask(credentials, purpose).await.map_err(|failure| match failure {
            LoginFailure::Definite(error) => LoginFailure::Definite(error.redacted(&sent)),
            LoginFailure::Unavailable(text) => LoginFailure::Unavailable(sent.redact(&text).into_owned()),
        })
    }

    async fn try_to_ask(&self, credentials: &Credentials, purpose: Purpose) -> Result<Granted, LoginFailure> {
        let authorization = basic(credentials).map_err(LoginFailure::Definite)?;
        self.gate().check(Instant::now()).map_err(LoginFailure::Definite)?;
        tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(LoginFailure::Definite(SourceError::Stopping)),
            () = self.pace.wait() => {}
        }
        let asked_at = Instant::now();
        credentials.check_source(&self.origin, purpose).map_err(LoginFailure::Definite)?;
        self.gate().enter(asked_at).map_err(LoginFailure::Definite)?;
        let request = self
            .http
            .post(self.url.clone())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body("grant_type=client_credentials");
        let asked = self.dates.now();
        let Some(mut pass) = self.owner.enter() else {
            self.gate().no_answer();
            return Err(LoginFailure::Definite(SourceError::NotOwner));
        };
        let sent = tokio::select! {
            biased;
            sent = request.send() => sent,
            () = pass.revoked() => {
                self.gate().no_answer();
                self.store.count_login(CallStatus::NoAnswer);
                return Err(LoginFailure::Definite(SourceError::NotOwner));
            }
        };
        drop(pass);
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                self.gate().no_answer();
                if !error.is_connect() {
                    self.store.count_login(CallStatus::NoAnswer);
                }
                let what = if error.is_timeout() { "timed out" } else { "cannot be reached" };
                let host = host_of(&self.url);
                let text = format!("the login host {host} (source.token_url) {what}: {}", root_cause(&error));
                return Err(LoginFailure::Unavailable(text));
            }
        };
        let status = response.status().as_u16();
        self.store.count_login(CallStatus::of(Some(status)));
        let headers = response.headers().clone();
        self.dates.note(asked, &headers);
        let body = super::body::read_some(response, BODY_MAX).await;
        self.judge(LoginAnswer { status, headers, body, asked_at }, credentials)
    }

    fn judge(&self, answer: LoginAnswer, credentials: &Credentials) -> Result<Granted, LoginFailure> {
        let LoginAnswer { status, headers, body, asked_at } = answer;
        let now = Instant::now();
        // A host that echoes what it was sent must not put it into our logs.
        let text = || problem_text(&body, &credentials.sent(None));
        let reason = || match text() {
            text if text.is_empty() => format!("the login host answered {status}"),
            text => format!("{} ({status})", clause(&text)),
        };
        let refused = || LoginFailure::Definite(SourceError::Refused { reason: reason() });
        match status {
            404 => Err(LoginFailure::Definite(self.gate().blocked(now, asked_at))),
            403 if text().is_empty() => Err(LoginFailure::Definite(self.gate().blocked(now, asked_at))),
            429 => {
                let pause = retry_after(&headers, self.dates.now()).unwrap_or(PAUSE_UNREADABLE);
                Err(LoginFailure::Definite(self.gate().throttled(now, pause)))
            }
            _ => {
                self.gate().answered();
                match status {
                    200 => granted(&body, asked_at).map_err(LoginFailure::Unavailable),
                    400 | 401 | 403 => Err(refused()),
                    _ => Err(LoginFailure::Unavailable(reason())),
                }
            }
        }
    }

    /// Restores a pause that an earlier process was asked for.
    pub(super) fn restore_pause(&self, left: Duration) {
        self.gate().restore_pause(left, Instant::now());
    }

    /// What is left of a pause that the host asked for and that is not stored yet.
    pub(super) fn take_unstored_pause(&self) -> Option<Duration> {
        self.gate().take_unstored_pause(Instant::now())
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LoginAnswer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    asked_at: Instant,
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, SourceError> {
    if credentials.client_id.is_empty() || credentials.client_id.contains(':') {
        return Err(SourceError::Refused { reason: "a client id must not be empty or contain `:`".to_owned() });
    }
    let pair = Zeroizing::new(format!("{}:{}", credentials.client_id, credentials.client_secret.expose_secret()));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    sensitive(&text).ok_or_else(|| SourceError::Refused { reason: "the credentials cannot be sent".to_owned() })
}

/// Reads a successful answer. Error texts never quote it.
fn granted(body: &[u8], asked_at: Instant) -> Result<Granted, String> {
    let wrong = |what: &str| Err(format!("the login host's token answer {what}"));
    let Ok(Value::Object(mut answer)) = serde_json::from_slice::<Value>(body) else {
        return wrong("is not a JSON object");
    };
    let is_bearer = |kind: &Value| kind.as_str().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("bearer"));
    if answer.get("token_type").is_some_and(|kind| !is_bearer(kind)) {
        return wrong("has a token_type other than bearer");
    }
    let life = match answer.get("expires_in") {
        None | Some(Value::Null) => Some(LIFE_DEFAULT),
        Some(value) => lifetime(value),
    };
    let Some(life) = life else { return wrong("has an expires_in that is not a positive number of seconds") };
    match answer.remove("access_token") {
        Some(Value::String(token)) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Granted { token: SecretString::from(token), life, asked_at })
        }
        _ => wrong("has no usable access_token"),
    }
}

/// Seconds as a number, or as a number in a string; above zero, at most [`LIFE_MAX`].
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (seconds.is_finite() && seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(LIFE_MAX.as_secs_f64())))
}

/// Circuit breaker for all logins.
#[derive(Default)]
struct Gate {
    closed_until: Option<Instant>,
    /// Consecutive answers that looked like a block; 0: closed only because we were asked to wait.
    blocks: u32,
    blocked_at: Option<Instant>,
    /// After a block one login probes the host first.
    probing: bool,
    /// `closed_until` moved since it was stored for the next process.
    unstored: bool,
}

impl Gate {
    fn check(&self, now: Instant) -> Result<(), SourceError> {
        match self.closed_until {
            Some(until) if now < until && self.blocks > 0 => Err(SourceError::LoginBlocked { after: until - now }),
            Some(until) if now < until => Err(asked_to_wait(until - now)),
            _ if self.blocks > 0 && self.probing => Err(SourceError::LoginBlocked { after: PROBE_PAUSE }),
            _ => Ok(()),
        }
    }

    fn enter(&mut self, now: Instant) -> Result<(), SourceError> {
        self.check(now)?;
        self.probing = self.blocks > 0;
        Ok(())
    }

    fn blocked(&mut self, now: Instant, asked_at: Instant) -> SourceError {
        self.probing = false;
        // Logins that were under way at the first such answer belong to the same block.
        if self.blocked_at.is_none_or(|blocked| asked_at > blocked) {
            let pause = BLOCK_BACKOFF.pause(self.blocks);
            self.blocks += 1;
            self.blocked_at = Some(now);
            self.closed_until = Some(now + pause);
            self.unstored = true;
            tracing::warn!(
                pause_s = pause.as_secs(),
                "the login host seems to block this machine's address; all logins pause"
            );
        }
        let after = self.closed_until.map_or(BLOCK_BACKOFF.pause(0), |until| until.saturating_duration_since(now));
        SourceError::LoginBlocked { after }
    }

    fn throttled(&mut self, now: Instant, pause: Duration) -> SourceError {
        self.answered();
        self.closed_until = self.closed_until.max(Some(now + pause));
        self.unstored = true;
        asked_to_wait(pause)
    }

    /// Restores a pause of an earlier process. The reason is not stored, so a block is assumed.
    fn restore_pause(&mut self, left: Duration, now: Instant) {
        if !left.is_zero() {
            (self.closed_until, self.blocks) = (Some(now + left), 1);
        }
    }

    fn take_unstored_pause(&mut self, now: Instant) -> Option<Duration> {
        let unstored = std::mem::take(&mut self.unstored);
        let left = self.closed_until?.saturating_duration_since(now);
        (unstored && !left.is_zero()).then_some(left)
    }

    /// Notes an answer that does not look like a block.
    fn answered(&mut self) {
        // A late good answer to a login from before a block does not lift it.
        if self.probing || self.blocks == 0 {
            (self.probing, self.blocks, self.blocked_at) = (false, 0, None);
        }
    }

    fn no_answer(&mut self) {
        self.probing = false;
    }
}

fn asked_to_wait(after: Duration) -> SourceError {
    SourceError::LoginUnavailable { after, reason: "the login host asked to wait".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;
    use tokio::time::Instant;

    use super::{Gate, granted};
    use crate::source::SourceError;

    fn life(answer: &str) -> Option<u64> {
        granted(answer.as_bytes(), Instant::now()).ok().map(|granted| granted.life.as_secs())
    }

    #[test]
    fn the_life_of_a_token_is_its_expires_in() {
        let with = |value: &str| life(&format!(r#"{{"access_token":"t","token_type":"BEARER","expires_in":{value}}}"#));
        assert_eq!(with("599"), Some(599));
        assert_eq!(with("\"599\""), Some(599));
        assert_eq!(with("1"), Some(1));
        assert_eq!(with("1000000000"), Some(86_400));
        assert_eq!(with("1e300"), Some(86_400));
        assert_eq!(with("null"), Some(240));
        assert_eq!(life(r#"{"access_token":"t"}"#), Some(240));
        for invalid in ["0", "-1", "\"soon\"", "\"\"", "\"NaN\"", "true", "[1]", "\"inf\""] {
            assert_eq!(with(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn an_answer_without_a_usable_token_is_an_error() {
        for answer in [
            "",
            "[]",
            r#"{"expires_in":599}"#,
            r#"{"access_token":"","expires_in":599}"#,
            r#"{"access_token":"a\nb","expires_in":599}"#,
            r#"{"access_token":7,"expires_in":599}"#,
            r#"{"access_token":"t","token_type":"mac","expires_in":599}"#,
        ] {
            assert!(granted(answer.as_bytes(), Instant::now()).is_err(), "{answer}");
        }
        for kind in ["Bearer ", " bearer", "BEARER\\t"] {
            assert_eq!(life(&format!(r#"{{"access_token":"t","token_type":"{kind}","expires_in":9}}"#)), Some(9));
        }
        let granted = granted(br#"{"access_token":"t","expires_in":9}"#, Instant::now()).ok().unwrap();
        assert_eq!(granted.token.expose_secret(), "t");
    }

    #[test]
    fn each_block_closes_the_gate_for_longer_and_one_login_probes_first() {
        let mut gate = Gate::default();
        let mut now = Instant::now();
        for minutes in [10, 20, 40, 60, 60] {
            let asked_at = now;
            gate.enter(asked_at).unwrap();
            now += Duration::from_secs(1);
            let after = Duration::from_secs(minutes * 60);
            assert_eq!(gate.blocked(now, asked_at), SourceError::LoginBlocked { after });
            // A second answer of the same moment does not count again.
            assert_eq!(gate.blocked(now, asked_at), SourceError::LoginBlocked { after });
            assert!(gate.check(now + after - Duration::from_millis(1)).is_err());
            gate.answered();
            assert!(gate.check(now).is_err(), "a late good answer does not lift it");
            now += after;
        }
        gate.enter(now).unwrap();
        assert!(matches!(gate.enter(now), Err(SourceError::LoginBlocked { .. })), "one probes first");
        gate.no_answer();
        gate.enter(now).unwrap();
        gate.answered();
        gate.enter(now).unwrap();
        gate.enter(now).unwrap();
    }
}
