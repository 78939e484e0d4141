//! Access tokens: one a credential, shared by all its calls.
//!
//! What always holds: at most one login a credential is under way; a login that was started ends,
//! even when everybody who waited for it has gone; a token is renewed before its end and not used
//! after it; refused credentials are not sent again until they change. Tokens survive a restart
//! through the [`TokenKeeper`], who seals them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::login::{Failure, Granted, Login, sensitive};
use super::problem::SourceError;
use crate::domain::Clock;
use crate::domain::calls::CallStatus;
use crate::domain::clock::Millis;

/// A token is renewed this long before its end, or at three quarters of a shorter life.
const LEAD_MAX: Duration = Duration::from_secs(30);

/// A token is not used in its last moments: the call must arrive while it lives.
const LAST_MOMENTS_MAX: Duration = Duration::from_secs(2);

/// Pauses after failed logins double from the first to the last; the last lets work go on within a
/// minute of the host's return.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Pauses between renewals when the API refuses tokens that the login host just made.
const STALEMATE_MIN: Duration = Duration::from_secs(10);
const STALEMATE_MAX: Duration = Duration::from_secs(600);

/// No kept token is believed to live longer; the wall clock may have jumped in between.
const KEPT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Who a call is made for.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: SecretString,
}

impl Credentials {
    fn fingerprint(&self) -> Fingerprint {
        Sha256::digest(self.client_secret.expose_secret().as_bytes()).into()
    }
}

type Fingerprint = [u8; 32];

/// A token as it is kept over a restart.
#[derive(Clone, Debug)]
pub struct KeptToken {
    pub token: SecretString,
    /// By the wall clock.
    pub expires_at: Millis,
}

/// Keeps tokens, sealed, for the next start. Losing one costs a login, nothing else.
pub trait TokenKeeper: Send + Sync {
    /// The last token kept for the client, if there is one that can be read. Must not block for long.
    fn load(&self, client_id: &str) -> Option<KeptToken>;

    /// Keeps a token in place of the one before; failures are the keeper's to log.
    fn keep<'a>(&'a self, client_id: &'a str, token: KeptToken) -> BoxFuture<'a, ()>;

    /// How long the login host still wants no login at all, as it told an earlier process. Must not block for long.
    fn load_pause(&self) -> Duration;

    /// Keeps such a pause, from now on; failures are the keeper's to log.
    fn keep_pause(&self, length: Duration) -> BoxFuture<'_, ()>;

    /// Counts a login that was answered, or left and was not.
    fn count_login(&self, _: CallStatus) {}
}

/// A token that calls may carry.
pub(super) struct Bearer {
    pub(super) header: HeaderValue,
    /// None: kept by an earlier start.
    secret: Option<Fingerprint>,
    renew_at: Instant,
    ends: Instant,
    /// The API took it at least once.
    accepted: AtomicBool,
}

impl Bearer {
    /// Whether a call that leaves now may carry it.
    pub(super) fn is_alive(&self) -> bool {
        Instant::now() < self.ends
    }

    fn new(token: &SecretString, from: Instant, life: Duration, secret: Option<Fingerprint>) -> Option<Arc<Bearer>> {
        let text = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
        Some(Arc::new(Bearer {
            header: sensitive(&text)?,
            secret,
            renew_at: from + (life - LEAD_MAX.min(life / 4)),
            ends: from + (life - LAST_MOMENTS_MAX.min(life / 10)),
            accepted: AtomicBool::new(false),
        }))
    }
}

type Shared = Result<Arc<Bearer>, SourceError>;
type Landing = watch::Receiver<Option<Shared>>;

struct Flight {
    number: u64,
    secret: Fingerprint,
    landing: Landing,
}

struct Refusal {
    secret: Fingerprint,
    reason: String,
}

/// What is known of one client.
#[derive(Default)]
struct Slot {
    loaded: bool,
    bearer: Option<Arc<Bearer>>,
    flight: Option<Flight>,
    refusal: Option<Refusal>,
    /// No login before this, and why.
    quiet: Option<(Instant, String)>,
    /// Logins in a row that brought nothing.
    failures: u32,
    /// Tokens in a row that the API never took.
    stalemates: u32,
}

/// The tokens of all clients. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    login: Login,
    keeper: Arc<dyn TokenKeeper>,
    clock: Clock,
    slots: Mutex<HashMap<String, Slot>>,
    /// Logins so far; each flight's number is its own, so that a late one is told from the current.
    flights: AtomicU64,
}

enum Found {
    Bearer(Arc<Bearer>),
    Flight(Landing),
}

impl Tokens {
    pub(super) fn new(login: Login, keeper: Arc<dyn TokenKeeper>, clock: Clock) -> Tokens {
        login.pause_for(keeper.load_pause());
        Tokens(Arc::new(Inner { login, keeper, clock, slots: Mutex::default(), flights: AtomicU64::new(0) }))
    }

    /// A token for a call. Cancel safe: a login goes on for the others.
    ///
    /// # Errors
    /// `Refused`, `LoginBlocked`, `LoginUnavailable`.
    pub(super) async fn bearer(&self, credentials: &Credentials) -> Shared {
        self.load(&credentials.client_id);
        match self.find(credentials)? {
            Found::Bearer(bearer) => Ok(bearer),
            Found::Flight(landing) => landed(landing).await,
        }
    }

    /// Asks the login host whether the credentials are good, whatever token or refusal is known: what was wrong may be
    /// corrected there.
    ///
    /// # Errors
    /// As [`Tokens::bearer`].
    pub(super) async fn prove(&self, credentials: &Credentials) -> Result<(), SourceError> {
        let secret = credentials.fingerprint();
        let landing = {
            let mut slots = self.slots();
            let slot = slots.entry(credentials.client_id.clone()).or_default();
            self.fly(slot, credentials, secret)
        };
        landed(landing).await.map(|_| ())
    }

    /// The API did not take this token. Only the first of many calls that carried it does anything.
    pub(super) fn invalidate(&self, client_id: &str, bearer: &Arc<Bearer>) {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(client_id) else { return };
        if !slot.bearer.as_ref().is_some_and(|current| Arc::ptr_eq(current, bearer)) {
            return;
        }
        slot.bearer = None;
        if bearer.accepted.load(Ordering::Relaxed) {
            slot.stalemates = 0;
            return;
        }
        // One token may be stale (kept from before); a row of them must not become a storm of logins.
        slot.stalemates += 1;
        if slot.stalemates > 1 {
            let pause = STALEMATE_MIN.saturating_mul(1 << (slot.stalemates - 2).min(10)).min(STALEMATE_MAX);
            slot.quiet = Some((Instant::now() + pause, "the API does not take fresh tokens".to_owned()));
        }
    }

    /// The API took this token.
    pub(super) fn accepted(&self, client_id: &str, bearer: &Bearer) {
        if !bearer.accepted.swap(true, Ordering::Relaxed)
            && let Some(slot) = self.slots().get_mut(client_id)
        {
            slot.stalemates = 0;
        }
    }

    /// Forgets what is known of a client, its refusal included.
    pub(super) fn forget(&self, client_id: &str) {
        self.slots().remove(client_id);
    }

    /// Takes the kept token into use, once a client.
    fn load(&self, client_id: &str) {
        if self.slots().get(client_id).is_some_and(|slot| slot.loaded) {
            return;
        }
        let kept = self.0.keeper.load(client_id).and_then(|kept| {
            let left = u64::try_from(kept.expires_at.saturating_sub(self.0.clock.now())).ok().filter(|ms| *ms > 0)?;
            Bearer::new(&kept.token, Instant::now(), Duration::from_millis(left).min(KEPT_MAX), None)
        });
        let mut slots = self.slots();
        let slot = slots.entry(client_id.to_owned()).or_default();
        if !slot.loaded {
            slot.loaded = true;
            slot.bearer = slot.bearer.take().or(kept);
        }
    }

    fn find(&self, credentials: &Credentials) -> Result<Found, SourceError> {
        let now = Instant::now();
        let secret = credentials.fingerprint();
        let mut slots = self.slots();
        let slot = slots.entry(credentials.client_id.clone()).or_default();
        let alive = slot
            .bearer
            .as_ref()
            .filter(|bearer| now < bearer.ends && bearer.secret.is_none_or(|from| from == secret))
            .map(Arc::clone);
        if let Some(bearer) = &alive
            && now < bearer.renew_at
        {
            return Ok(Found::Bearer(Arc::clone(bearer)));
        }
        let next = if let Some(refusal) = slot.refusal.as_ref().filter(|refusal| refusal.secret == secret) {
            Err(SourceError::Refused { reason: refusal.reason.clone() })
        } else if let Some((until, reason)) = slot.quiet.as_ref().filter(|(until, _)| now < *until) {
            Err(SourceError::LoginUnavailable { after: *until - now, reason: reason.clone() })
        } else {
            Ok(Found::Flight(self.fly(slot, credentials, secret)))
        };
        // Near its end a token is renewed in the background; it still serves the call at hand.
        alive.map_or(next, |bearer| Ok(Found::Bearer(bearer)))
    }

    /// Joins the login under way for this secret, or starts one. It runs as a task of its own, so that
    /// no waiter can take it down.
    fn fly(&self, slot: &mut Slot, credentials: &Credentials, secret: Fingerprint) -> Landing {
        if let Some(flight) = slot.flight.as_ref().filter(|flight| flight.secret == secret)
            // A channel that closed without a landing is a login that was cut off.
            && flight.landing.has_changed().is_ok()
        {
            return flight.landing.clone();
        }
        let (tower, landing) = watch::channel(None);
        let number = self.0.flights.fetch_add(1, Ordering::Relaxed);
        slot.flight = Some(Flight { number, secret, landing: landing.clone() });
        let tokens = self.clone();
        let credentials = credentials.clone();
        tokio::spawn(async move {
            let answer = tokens.0.login.ask(&credentials).await;
            if let Some(pause) = tokens.0.login.pause_to_keep() {
                tokens.0.keeper.keep_pause(pause).await;
            }
            let (result, keep) = tokens.land(&credentials.client_id, number, secret, answer);
            tower.send_replace(Some(result));
            if let Some(kept) = keep {
                tokens.0.keeper.keep(&credentials.client_id, kept).await;
            }
        });
        landing
    }

    /// Notes a login's end.
    fn land(
        &self,
        client_id: &str,
        number: u64,
        secret: Fingerprint,
        answer: Result<Granted, Failure>,
    ) -> (Shared, Option<KeptToken>) {
        let now = Instant::now();
        let mut slots = self.slots();
        // A client that was forgotten meanwhile does not come back.
        let mut gone = Slot::default();
        let slot = slots.get_mut(client_id).unwrap_or(&mut gone);
        let current = slot.flight.as_ref().is_some_and(|flight| flight.number == number);
        if current {
            slot.flight = None;
        }
        let answer = answer.and_then(|granted| {
            let bearer = Bearer::new(&granted.token, granted.asked_at, granted.life, Some(secret));
            bearer
                .map(|bearer| (bearer, granted))
                .ok_or_else(|| Failure::Unavailable("the token is no text".to_owned()))
        });
        match answer {
            Ok((bearer, granted)) => {
                if !current {
                    return (Ok(bearer), None);
                }
                slot.bearer = Some(Arc::clone(&bearer));
                (slot.failures, slot.refusal, slot.quiet) = (0, None, None);
                // By the wall clock, less the time that passed since the login left.
                let left = granted.life.saturating_sub(granted.asked_at.elapsed());
                let expires_at = self.0.clock.now().saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
                (Ok(bearer), Some(KeptToken { token: granted.token, expires_at }))
            }
            Err(Failure::Told(error)) => {
                if let SourceError::Refused { reason } = &error {
                    slot.refusal = Some(Refusal { secret, reason: reason.clone() });
                }
                (Err(error), None)
            }
            Err(Failure::Unavailable(reason)) => {
                let after = BACKOFF_MIN.saturating_mul(1 << slot.failures.min(10)).min(BACKOFF_MAX);
                slot.failures += 1;
                slot.quiet = Some((now + after, reason.clone()));
                (Err(SourceError::LoginUnavailable { after, reason }), None)
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // Each change is whole before anything can panic, so a poisoned lock holds sound data.
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn landed(mut landing: Landing) -> Shared {
    let result = match landing.wait_for(Option::is_some).await {
        Ok(result) => result.clone(),
        Err(_) => None,
    };
    result.unwrap_or_else(|| {
        let reason = "the login was cut off".to_owned();
        Err(SourceError::LoginUnavailable { after: BACKOFF_MIN, reason })
    })
}
