//! Access tokens: one per credential, shared by all its calls.
//!
//! What always holds: logins of a credential are single flight; a login that was started runs to its end,
//! even when all its waiters were dropped; a token is renewed before it expires and not used
//! after that; refused credentials are not sent again until they change. Tokens survive a restart
//! through the [`TokenStore`], which seals them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::credentials::{Credentials, Fingerprint, Purpose, StoredToken, TokenStore};
use super::http::sensitive;
use super::login::{Granted, Login, LoginFailure};
use super::problem::SourceError;
use super::redact::{Anchors, SentToken};
use crate::domain::{Backoff, Clock};

/// A token is renewed this long before it expires, or at three quarters of a shorter life.
const LEAD_MAX: Duration = Duration::from_secs(30);

/// A token is not used this shortly before it expires: the call must arrive while it is valid.
const LAST_MOMENTS_MAX: Duration = Duration::from_secs(2);

/// Backoff after failed logins. The longest pause lets work resume within a minute of the host's return.
const LOGIN_BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Backoff between renewals when the API rejects tokens that the login host has just issued.
const REJECTED_BACKOFF: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(600));

/// Longest life assumed for a stored token; the wall clock may have jumped in between.
const STORED_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What precedes a token in its header.
const SCHEME: &str = "Bearer ";

/// A token that calls may carry.
pub(super) struct Bearer {
    pub(super) header: HeaderValue,
    /// Of the token.
    anchors: Anchors,
    /// Of the secret that got it; none: stored by an earlier process.
    secret: Option<Fingerprint>,
    renew_at: Instant,
    expires_at: Instant,
    /// The API accepted it at least once.
    accepted: AtomicBool,
}

impl Bearer {
    /// Whether a call sent now may carry it.
    pub(super) fn is_alive(&self) -> bool {
        Instant::now() < self.expires_at
    }

    /// The token alone.
    pub(super) fn token(&self) -> SentToken<'_> {
        let text = self.header.to_str().unwrap_or_default();
        SentToken { text: text.strip_prefix(SCHEME).unwrap_or(text), anchors: Some(&self.anchors) }
    }

    fn new(token: &SecretString, from: Instant, life: Duration, secret: Option<Fingerprint>) -> Option<Arc<Bearer>> {
        let text = Zeroizing::new(format!("{SCHEME}{}", token.expose_secret()));
        Some(Arc::new(Bearer {
            header: sensitive(&text)?,
            anchors: Anchors::of_secret(token.expose_secret()),
            secret,
            renew_at: from + (life - LEAD_MAX.min(life / 4)),
            expires_at: from + (life - LAST_MOMENTS_MAX.min(life / 10)),
            accepted: AtomicBool::new(false),
        }))
    }
}

type BearerResult = Result<Arc<Bearer>, SourceError>;
type LoginReceiver = watch::Receiver<Option<BearerResult>>;

/// A login under way, which all calls of its credentials wait for.
struct InFlightLogin {
    number: u64,
    secret: Fingerprint,
    result: LoginReceiver,
}

struct LoginRefusal {
    secret: Fingerprint,
    reason: String,
}

/// Token, login and failures of one client.
#[derive(Default)]
struct ClientState {
    loaded: bool,
    bearer: Option<Arc<Bearer>>,
    login: Option<InFlightLogin>,
    refusal: Option<LoginRefusal>,
    /// No login before this instant, and why.
    backoff: Option<(Instant, String)>,
    /// Consecutive logins that brought no token.
    failures: u32,
    /// Consecutive tokens that the API never accepted.
    rejected_tokens: u32,
}

/// The tokens of all clients. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    login: Login,
    store: Arc<dyn TokenStore>,
    clock: Clock,
    clients: Mutex<HashMap<String, ClientState>>,
    /// Logins started so far. Numbers them, so that a late result is distinguished from the current one.
    logins: AtomicU64,
}

enum FoundToken {
    Bearer(Arc<Bearer>),
    Login(LoginReceiver),
}

impl Tokens {
    pub(super) fn new(login: Login, store: Arc<dyn TokenStore>, clock: Clock) -> Tokens {
        login.restore_pause(store.load_pause());
        Tokens(Arc::new(Inner { login, store, clock, clients: Mutex::default(), logins: AtomicU64::new(0) }))
    }

    /// A token for a call. Cancel safe: the login continues for its other waiters.
    ///
    /// # Errors
    /// `Refused`, `LoginBlocked`, `LoginUnavailable`.
    pub(super) async fn bearer(&self, credentials: &Credentials) -> BearerResult {
        self.load(&credentials.client_id);
        match self.find(credentials)? {
            FoundToken::Bearer(bearer) => Ok(bearer),
            FoundToken::Login(result) => wait_for_login(result).await,
        }
    }

    /// The login that [`Tokens::bearer`] would wait for. None: it would answer at once.
    pub(super) fn login(&self, credentials: &Credentials) -> Option<BoxFuture<'static, ()>> {
        self.load(&credentials.client_id);
        match self.find(credentials) {
            Ok(FoundToken::Login(result)) => Some(Box::pin(async { drop(wait_for_login(result).await) })),
            Ok(FoundToken::Bearer(_)) | Err(_) => None,
        }
    }

    /// Logs in, whatever token or refusal is known: the cause of a refusal may have been corrected at the host.
    ///
    /// # Errors
    /// As [`Tokens::bearer`].
    pub(super) async fn prove(&self, credentials: &Credentials) -> Result<(), SourceError> {
        credentials.check_source(self.0.login.origin(), Purpose::Proof)?;
        let result = {
            let mut clients = self.clients();
            let client = clients.entry(credentials.client_id.clone()).or_default();
            self.start_login(client, credentials, Purpose::Proof)
        };
        wait_for_login(result).await.map(|_| ())
    }

    /// Drops a token that the API rejected. Only the first of many calls that carried it has an effect.
    pub(super) fn invalidate(&self, client_id: &str, bearer: &Arc<Bearer>) {
        let mut clients = self.clients();
        let Some(client) = clients.get_mut(client_id) else { return };
        if !client.bearer.as_ref().is_some_and(|current| Arc::ptr_eq(current, bearer)) {
            return;
        }
        client.bearer = None;
        if bearer.accepted.load(Ordering::Relaxed) {
            client.rejected_tokens = 0;
            return;
        }
        // One token may be stale (stored by an earlier process); several in a row must not become a storm of logins.
        client.rejected_tokens += 1;
        if client.rejected_tokens > 1 {
            let pause = REJECTED_BACKOFF.pause(client.rejected_tokens - 2);
            client.backoff = Some((Instant::now() + pause, "the API rejects fresh tokens".to_owned()));
        }
    }

    /// Notes that the API accepted this token.
    pub(super) fn accepted(&self, client_id: &str, bearer: &Bearer) {
        if !bearer.accepted.swap(true, Ordering::Relaxed)
            && let Some(client) = self.clients().get_mut(client_id)
        {
            client.rejected_tokens = 0;
        }
    }

    /// The token that calls of a client carry.
    pub(super) fn known(&self, client_id: &str) -> Option<Arc<Bearer>> {
        self.clients().get(client_id)?.bearer.as_ref().map(Arc::clone)
    }

    /// Drops the state of a client, its refusal included.
    pub(super) fn forget(&self, client_id: &str) {
        self.clients().remove(client_id);
    }

    /// Loads the stored token, once per client.
    fn load(&self, client_id: &str) {
        if self.clients().get(client_id).is_some_and(|client| client.loaded) {
            return;
        }
        let issued = self.0.store.load(client_id).filter(|stored| stored.origin == *self.0.login.origin());
        let stored = issued.and_then(|stored| {
            let left = Some(stored.expires_at.since(self.0.clock.now())).filter(|left| !left.is_zero())?;
            Bearer::new(&stored.token, Instant::now(), left.min(STORED_LIFE_MAX), None)
        });
        let mut clients = self.clients();
        let client = clients.entry(client_id.to_owned()).or_default();
        if !client.loaded {
            client.loaded = true;
            client.bearer = client.bearer.take().or(stored);
        }
    }

    fn find(&self, credentials: &Credentials) -> Result<FoundToken, SourceError> {
        credentials.check_source(self.0.login.origin(), Purpose::Calls)?;
        let now = Instant::now();
        let secret = credentials.fingerprint();
        let mut clients = self.clients();
        let client = clients.entry(credentials.client_id.clone()).or_default();
        let alive = client
            .bearer
            .as_ref()
            .filter(|bearer| now < bearer.expires_at && bearer.secret.is_none_or(|from| from == secret))
            .map(Arc::clone);
        if let Some(bearer) = &alive
            && now < bearer.renew_at
        {
            return Ok(FoundToken::Bearer(Arc::clone(bearer)));
        }
        let next = if let Some(refusal) = client.refusal.as_ref().filter(|refusal| refusal.secret == secret) {
            Err(SourceError::Refused { reason: refusal.reason.clone() })
        } else if let Some((until, reason)) = client.backoff.as_ref().filter(|(until, _)| now < *until) {
            Err(SourceError::LoginUnavailable { after: *until - now, reason: reason.clone() })
        } else {
            Ok(FoundToken::Login(self.start_login(client, credentials, Purpose::Calls)))
        };
        // Shortly before it expires a token is renewed in the background; it still serves this call.
        alive.map_or(next, |bearer| Ok(FoundToken::Bearer(bearer)))
    }

    /// Joins the login under way for this secret, or starts one. It runs as a task of its own, so that
    /// dropping a waiter does not cancel it.
    fn start_login(&self, client: &mut ClientState, credentials: &Credentials, purpose: Purpose) -> LoginReceiver {
        let secret = credentials.fingerprint();
        if let Some(login) = client.login.as_ref().filter(|login| login.secret == secret)
            // A channel that closed without a result is a login that was cancelled.
            && login.result.has_changed().is_ok()
        {
            return login.result.clone();
        }
        let (tx, rx) = watch::channel(None);
        let number = self.0.logins.fetch_add(1, Ordering::Relaxed);
        client.login = Some(InFlightLogin { number, secret, result: rx.clone() });
        let tokens = self.clone();
        let credentials = credentials.clone();
        tokio::spawn(async move {
            let answer = tokens.0.login.ask(&credentials, purpose).await;
            if let Some(pause) = tokens.0.login.take_unstored_pause() {
                tokens.0.store.store_pause(pause).await;
            }
            let (result, fresh) = tokens.finish_login(&credentials.client_id, number, secret, answer);
            tx.send_replace(Some(result));
            if let Some(token) = fresh {
                tokens.0.store.store(&credentials.client_id, token).await;
            }
        });
        rx
    }

    /// Records the result of a login; the token is returned where it is to be stored.
    fn finish_login(
        &self,
        client_id: &str,
        number: u64,
        secret: Fingerprint,
        answer: Result<Granted, LoginFailure>,
    ) -> (BearerResult, Option<StoredToken>) {
        let now = Instant::now();
        let mut clients = self.clients();
        // A client that was forgotten meanwhile does not come back.
        let mut gone = ClientState::default();
        let client = clients.get_mut(client_id).unwrap_or(&mut gone);
        let current = client.login.as_ref().is_some_and(|login| login.number == number);
        if current {
            client.login = None;
        }
        let answer = answer.and_then(|granted| {
            let bearer = Bearer::new(&granted.token, granted.asked_at, granted.life, Some(secret));
            bearer
                .map(|bearer| (bearer, granted))
                .ok_or_else(|| LoginFailure::Unavailable("the token cannot be sent in a header".to_owned()))
        });
        match answer {
            Ok((bearer, granted)) => {
                if !current {
                    return (Ok(bearer), None);
                }
                client.bearer = Some(Arc::clone(&bearer));
                (client.failures, client.refusal, client.backoff) = (0, None, None);
                // The life left, as a wall-clock time.
                let left = granted.life.saturating_sub(granted.asked_at.elapsed());
                let expires_at = self.0.clock.now() + left;
                let origin = self.0.login.origin().clone();
                (Ok(bearer), Some(StoredToken { token: granted.token, expires_at, origin }))
            }
            Err(LoginFailure::Definite(error)) => {
                if let SourceError::Refused { reason } = &error {
                    client.refusal = Some(LoginRefusal { secret, reason: reason.clone() });
                }
                (Err(error), None)
            }
            Err(LoginFailure::Unavailable(reason)) => {
                let after = LOGIN_BACKOFF.pause(client.failures);
                client.failures += 1;
                client.backoff = Some((now + after, reason.clone()));
                (Err(SourceError::LoginUnavailable { after, reason }), None)
            }
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, ClientState>> {
        // Each change is complete before anything can panic, so a poisoned lock holds sound data.
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait_for_login(mut result: LoginReceiver) -> BearerResult {
    let result = match result.wait_for(Option::is_some).await {
        Ok(result) => result.clone(),
        Err(_) => None,
    };
    result.unwrap_or_else(|| {
        let reason = "the login was cancelled".to_owned();
        Err(SourceError::LoginUnavailable { after: LOGIN_BACKOFF.pause(0), reason })
    })
}
