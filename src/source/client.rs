//! The client of the marketplace's API: one call, one request, one [`Outcome`].
//!
//! Called by the lanes and, to prove credentials, by the service and `waybill check`. What always holds: a call
//! sends at most one request; a redirect is never followed, and credentials that were proved at another source are not
//! sent, so neither they nor a token reach another host; a body is never buffered beyond its limit; the caller learns whether a slot of the budget was used.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Request, Response};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::body::{read_some, read_whole};
use super::client_config::{SourceConfig, SourceConfigError, http_client, wrong};
use super::credentials::{Credentials, Purpose, TokenStore};
use super::dates::Dates;
use super::headers::{Quota, next_link, retry_after};
use super::http::encoded;
use super::login::{Login, LoginDeps};
use super::outcome::{Call, Ending, Outcome};
use super::pace::Pace;
use super::problem::{ErrorAnswer, SourceError, content_type, from_status, host_of, is_json, quote, root_cause};
use super::redact::Sent;
use super::token::{Bearer, Tokens};
use crate::domain::{Auth, Clock, SourceOrigin};
use crate::gate::Gate;

/// Bytes read of an error's body; its text is cut shorter still.
const ERROR_BODY_MAX: usize = 64 * 1024;

/// Why a call in flight was dropped.
const GATE_CLOSED: &str = "MySQL did not confirm in time that this process is the one that calls";

/// What the lanes need of the marketplace: [`Source`], or the market of the simulation.
pub trait Upstream: Send + Sync + 'static {
    /// As [`Source::get`].
    fn get<'a>(&'a self, credentials: &'a Credentials, call: &'a Call) -> BoxFuture<'a, Outcome>;

    /// As [`Source::login`].
    fn login(&self, credentials: &Credentials) -> Option<BoxFuture<'static, ()>>;

    /// As [`Source::forget`].
    fn forget(&self, client_id: &str);

    /// As [`Source::redacted`].
    fn redacted(&self, _: &Credentials, error: SourceError) -> SourceError {
        error
    }

    /// As [`Source::close`].
    fn close(&self);

    /// As [`Source::may_call`].
    fn may_call(&self) -> bool {
        true
    }
}

impl Upstream for Source {
    fn get<'a>(&'a self, credentials: &'a Credentials, call: &'a Call) -> BoxFuture<'a, Outcome> {
        Box::pin(Source::get(self, credentials, call))
    }

    fn login(&self, credentials: &Credentials) -> Option<BoxFuture<'static, ()>> {
        Source::login(self, credentials)
    }

    fn forget(&self, client_id: &str) {
        Source::forget(self, client_id);
    }

    fn redacted(&self, credentials: &Credentials, error: SourceError) -> SourceError {
        Source::redacted(self, credentials, error)
    }

    fn close(&self) {
        Source::close(self);
    }

    fn may_call(&self) -> bool {
        Source::may_call(self)
    }
}

/// Client of the marketplace. One per process; calls of all shops share its connections.
pub struct Source {
    http: reqwest::Client,
    /// Without a trailing slash.
    base: String,
    body_max: usize,
    in_flight: Semaphore,
    pace: Option<Pace>,
    closed: CancellationToken,
    gate: Gate,
    auth: Auth,
    origin: Arc<SourceOrigin>,
    tokens: Tokens,
    clock: Clock,
    dates: Arc<Dates>,
}

impl Source {
    /// Builds the client; makes no call.
    ///
    /// # Errors
    /// An invalid setting, with its key.
    pub fn new(config: SourceConfig, store: Arc<dyn TokenStore>, clock: Clock) -> Result<Source, SourceConfigError> {
        if config.in_flight_max == 0 {
            return Err(wrong("source.in_flight_max", "0 would never make a call; use 1 or more"));
        }
        let pace = match config.calls_per_second {
            Some(calls) => {
                Some(Pace::new(calls, calls, 0).map_err(|problem| wrong("source.calls_per_second", problem))?)
            }
            None => None,
        };
        let login_pace = Pace::new(config.logins_per_second, config.login_burst, config.login_burst)
            .map_err(|problem| wrong("source.logins_per_second", problem))?;
        let secure = config.base_url.is_https() && config.token_url.is_https();
        let http = http_client(&config, secure)?;
        let closed = CancellationToken::new();
        let dates = Arc::new(Dates::new(clock.clone()));
        let origin = Arc::new(SourceOrigin::new(&config.base_url, &config.token_url, &config.auth));
        let deps = LoginDeps {
            origin: Arc::clone(&origin),
            pace: login_pace,
            closed: closed.clone(),
            gate: config.gate.clone(),
            dates: Arc::clone(&dates),
            store: Arc::clone(&store),
        };
        let login = Login::new(http.clone(), config.token_url.into_url(), deps);
        Ok(Source {
            http,
            base: config.base_url.as_str().trim_end_matches('/').to_owned(),
            body_max: config.body_max,
            in_flight: Semaphore::new(config.in_flight_max.min(Semaphore::MAX_PERMITS)),
            pace,
            closed,
            gate: config.gate,
            auth: config.auth,
            origin,
            tokens: Tokens::new(login, store, clock.clone()),
            clock,
            dates,
        })
    }

    /// Makes one call: at most one request to the API, after at most one login. Needs a tokio runtime.
    ///
    /// A 401 drops the token and is returned; the next call logs in again. Not cancel safe as to the
    /// budget: when dropped, a request may have left, so count the slot with [`super::Budget::lost`].
    pub async fn get(&self, credentials: &Credentials, call: &Call) -> Outcome {
        let admission = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(SourceError::Stopping),
            admission = self.admission(credentials) => admission,
        };
        let (bearer, _permit) = match admission {
            Ok(admission) => admission,
            Err(error) => return Outcome::not_sent(error),
        };
        let request = match self.request(credentials, bearer.as_deref(), call) {
            Ok(request) => request,
            Err(error) => return Outcome::not_sent(error),
        };
        // Last of all: whatever was waited for, no request leaves after the deadline.
        let Some(mut pass) = self.gate.enter() else { return Outcome::not_sent(SourceError::NotOwner) };
        tokio::select! {
            biased;
            outcome = self.exchange(request, credentials, bearer.as_ref(), call) => outcome,
            // Dropping the exchange closes its connection.
            () = pass.revoked() => Outcome::plain(Err(SourceError::Interrupted(GATE_CLOSED.to_owned())), Ending::Lost),
        }
    }

    async fn exchange(
        &self,
        request: Request,
        credentials: &Credentials,
        bearer: Option<&Arc<Bearer>>,
        call: &Call,
    ) -> Outcome {
        let asked = self.dates.now();
        let mut outcome = match self.http.execute(request).await {
            Ok(response) => {
                self.dates.note(asked, response.headers());
                self.answer(response, credentials, bearer, call).await
            }
            Err(error) => no_answer(&error),
        };
        if let Err(error) = outcome.result {
            outcome.result = Err(error.redacted(&sent_with(credentials, bearer)));
        }
        outcome
    }

    /// The login that a call would wait for, started if none is under way; its result is known to later calls. None: a
    /// call can be made, or fails, without one. Needs a tokio runtime.
    ///
    /// Cancel safe: a dropped login runs to its end.
    pub fn login(&self, credentials: &Credentials) -> Option<BoxFuture<'static, ()>> {
        if self.has_logins() { self.tokens.login(credentials) } else { None }
    }

    /// Logs in to check the credentials, unless they were proved at another source. Succeeds at once where there is no
    /// login host: the first call shows.
    ///
    /// # Errors
    /// `Refused`, `LoginBlocked`, `LoginUnavailable`. Cancel safe.
    pub async fn prove(&self, credentials: &Credentials) -> Result<(), SourceError> {
        if !self.auth.has_logins() {
            return credentials.check_source(&self.origin, Purpose::Proof);
        }
        self.tokens.prove(credentials).await
    }

    /// Where calls and logins go.
    pub fn origin(&self) -> &SourceOrigin {
        &self.origin
    }

    /// Whether credentials are sent to a login host for tokens, and not with each call.
    pub fn has_logins(&self) -> bool {
        self.auth.has_logins()
    }

    /// Whether a shop may have no secret, as where an API key is the user of basic authentication.
    pub fn takes_empty_secrets(&self) -> bool {
        self.auth.takes_empty_secrets()
    }

    /// How far our clock is ahead of the dates on the last answers; negative: behind. None: it agrees, or
    /// too few answers are known.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        self.dates.clock_ahead()
    }

    /// Drops the token and the refusal of a client: it was deleted, or is to be tried again.
    pub fn forget(&self, client_id: &str) {
        self.tokens.forget(client_id);
    }

    /// An error about the content of an answer, like the names of its members, without what calls carry. Errors of
    /// [`Source::get`] are redacted already.
    pub fn redacted(&self, credentials: &Credentials, error: SourceError) -> SourceError {
        error.redacted(&sent_with(credentials, self.tokens.known(&credentials.client_id).as_ref()))
    }

    /// Lets no further call or login leave: those that wait for a token, a permit or their turn end unsent. Calls in
    /// flight may finish.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Whether calls and logins may leave at present.
    pub fn may_call(&self) -> bool {
        self.gate.is_open()
    }

    /// A valid token and a permit among the calls in flight. The token comes first, so that shops that
    /// wait for the login host do not hold permits that others could use.
    async fn admission(
        &self,
        credentials: &Credentials,
    ) -> Result<(Option<Arc<Bearer>>, SemaphorePermit<'_>), SourceError> {
        loop {
            let bearer = if self.auth.has_logins() { Some(self.tokens.bearer(credentials).await?) } else { None };
            let Ok(permit) = self.in_flight.acquire().await else {
                return Err(SourceError::Interrupted("the client is closed".to_owned()));
            };
            if let Some(pace) = &self.pace {
                pace.wait().await;
            }
            // The wait may have been longer than the token's life.
            if bearer.as_ref().is_none_or(|bearer| bearer.is_alive()) {
                return Ok((bearer, permit));
            }
        }
    }

    fn request(&self, credentials: &Credentials, bearer: Option<&Bearer>, call: &Call) -> Result<Request, SourceError> {
        let unusable =
            |what: &str| SourceError::Shape { detail: format!("the definition's {what} cannot be used in a call") };
        let mut text = String::with_capacity(self.base.len() + call.path.len() + 64);
        text.push_str(&self.base);
        if !call.path.starts_with('/') {
            // Without the slash the path could change the host.
            return Err(unusable("path"));
        }
        text.push_str(&call.path);
        for (index, (name, value)) in call.query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.extend(encoded(name));
            text.push('=');
            text.extend(encoded(value));
        }
        let url = Url::parse(&text).map_err(|_| unusable("path"))?;
        credentials.check_source(&self.origin, Purpose::Calls)?;
        let mut request = Request::new(reqwest::Method::GET, url);
        let accept = HeaderValue::from_str(&call.media_type).map_err(|_| unusable("media_type"))?;
        request.headers_mut().insert(ACCEPT, accept);
        match bearer {
            Some(bearer) => drop(request.headers_mut().insert(AUTHORIZATION, bearer.header.clone())),
            None => self.auth.sign(credentials, request.headers_mut())?,
        }
        Ok(request)
    }

    async fn answer(
        &self,
        response: Response,
        credentials: &Credentials,
        bearer: Option<&Arc<Bearer>>,
        call: &Call,
    ) -> Outcome {
        let status = response.status().as_u16();
        let wall = self.clock.now();
        let quota = Quota::read(response.headers(), wall);
        match bearer {
            Some(bearer) if status == 401 => self.tokens.invalidate(&credentials.client_id, bearer),
            Some(bearer) => self.tokens.accepted(&credentials.client_id, bearer),
            None if status == 401 => {
                let reason = "the API refused the credentials (401)".to_owned();
                let result = Err(SourceError::Refused { reason });
                return Outcome { quota, status: Some(status), ..Outcome::plain(result, Ending::Answered) };
            }
            None => {}
        }
        let sent = sent_with(credentials, bearer);
        let next_link = next_link(response.headers()).map(|link| sent.redact_all(&link).into_owned());
        let result = if status == 200 {
            match expected_type(&response, &call.media_type, &sent) {
                Ok(()) => read_whole(response, self.body_max).await.and_then(|body| match sent.found_in(&body) {
                    None => Ok(body),
                    Some(what) => Err(SourceError::Echo { what }),
                }),
                Err(error) => Err(error),
            }
        } else {
            let headers = response.headers().clone();
            let body = read_some(response, ERROR_BODY_MAX).await;
            let answer = ErrorAnswer { status, headers: &headers, body: &body, sent };
            Err(from_status(&answer, retry_after(&headers, wall), quota.reset))
        };
        Outcome { result, next_link, quota, ending: Ending::Answered, status: Some(status) }
    }
}

/// What a call carried, or its login did.
fn sent_with<'a>(credentials: &'a Credentials, bearer: Option<&'a Arc<Bearer>>) -> Sent<'a> {
    credentials.sent(bearer.map(|bearer| bearer.token()))
}

fn no_answer(error: &reqwest::Error) -> Outcome {
    if error.is_connect() || error.is_builder() {
        let host = error.url().map(|url| format!(" ({}, source.base_url)", host_of(url))).unwrap_or_default();
        return Outcome::not_sent(SourceError::Unreachable(format!("{}{host}", root_cause(error))));
    }
    let error = if error.is_timeout() { SourceError::TimedOut } else { SourceError::Interrupted(root_cause(error)) };
    Outcome::plain(Err(error), Ending::Lost)
}

fn expected_type(response: &Response, asked: &str, sent_with: &Sent<'_>) -> Result<(), SourceError> {
    let sent = content_type(response.headers());
    let asked = asked.split(';').next().unwrap_or_default().trim();
    if sent.eq_ignore_ascii_case(asked) || sent == "application/json" {
        return Ok(());
    }
    let detail = format!("its type is `{}`, not {asked}", quote(&sent, sent_with));
    // A gateway's own page is often temporary; another version of the API is not.
    Err(if is_json(response.headers()) { SourceError::Shape { detail } } else { SourceError::Malformed { detail } })
}
