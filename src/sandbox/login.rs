//! The login host: `POST /token`, and the tokens it issued ("Authentication" in bol.com's Retailer API documentation).
//!
//! Answers are OAuth JSON, not Problems, and have no rate headers. Tokens look like JWTs, but only the sandbox's
//! memory decides whether one is valid.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::content::json as text;
use super::problem;
use super::wire::{Answer, Request};
use super::{Sandbox, Settings, Shop, lock};
use crate::domain::clock::{Millis, rfc3339};

const TYPE: &str = "application/json;charset=UTF-8";
const MINUTE_MS: Millis = 60_000;
const BLOCK_MS: Millis = 10 * MINUTE_MS;
/// How long ended tokens are remembered, to distinguish "expired" from "never issued".
const REMEMBER_MS: Millis = 60 * MINUTE_MS;

#[derive(Debug)]
struct Token {
    shop: Arc<Shop>,
    ends_at: Millis,
}

/// All tokens, and the login rate of each client.
#[derive(Debug)]
pub(super) struct Tokens {
    given: HashMap<String, Token>,
    rng: fastrand::Rng,
    logins_max: Option<u32>,
    minute: Millis,
    logins: HashMap<String, u32>,
    blocked_until: Option<Millis>,
    prune_at: Millis,
}

impl Tokens {
    pub(super) fn new(seed: u64, logins_max: Option<u32>) -> Tokens {
        Tokens {
            given: HashMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            logins_max,
            minute: 0,
            logins: HashMap::new(),
            blocked_until: None,
            prune_at: 0,
        }
    }

    /// Ends every valid token; returns how many.
    pub(super) fn kill(&mut self, now: Millis) -> usize {
        let working = self.given.values_mut().filter(|token| token.ends_at > now);
        working.map(|token| token.ends_at = now).count()
    }

    pub(super) fn set_blocked(&mut self, blocked: bool) {
        self.blocked_until = blocked.then_some(Millis::MAX);
        self.logins.clear();
    }

    /// Counts a login; returns whether the host is blocked now.
    fn is_blocked(&mut self, client_id: &str, now: Millis) -> bool {
        let minute = now.div_euclid(MINUTE_MS);
        if minute != self.minute {
            self.minute = minute;
            self.logins.clear();
        }
        let logins = self.logins.entry(client_id.to_owned()).or_default();
        *logins += 1;
        if self.logins_max.is_some_and(|max| *logins > max) {
            self.blocked_until = self.blocked_until.max(Some(now + BLOCK_MS));
        }
        self.blocked_until.is_some_and(|until| now < until)
    }

    fn give(&mut self, shop: &Arc<Shop>, now: Millis, ends_at: Millis) -> String {
        if now >= self.prune_at {
            self.given.retain(|_, token| token.ends_at > now - REMEMBER_MS);
            self.prune_at = now + MINUTE_MS;
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(text(value));
        let header = part(&json!({ "alg": "RS256", "kid": "sandbox" }));
        let payload = part(&json!({
            "iss": "login.bol.com", "scopes": ["RETAILER"], "azp": &*shop.client_id,
            "iat": now / 1000, "exp": ends_at / 1000, "jti": format!("{:032x}", self.rng.u128(..)),
        }));
        let signature: Vec<u8> = (0..48).map(|_| self.rng.u8(..)).collect();
        let token = format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode(signature));
        self.given.insert(token.clone(), Token { shop: Arc::clone(shop), ends_at });
        token
    }
}

impl Sandbox {
    /// Finds the shop of a call's token, or the answer that refuses the call (with the shop, if the token is known).
    pub(super) fn authenticate(&self, request: &Request) -> Result<Arc<Shop>, (Option<Arc<Shop>>, Answer)> {
        let refused = |detail| (None, problem::gateway(401, "Unauthorized", detail));
        let header = request.header("authorization").ok_or_else(|| refused("Full authentication is required."))?;
        let bearer = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = bearer.ok_or_else(|| refused("The Authorization header is not a bearer token."))?;
        let now = self.0.clock.now();
        let tokens = lock(&self.0.tokens);
        let known = tokens.given.get(token.trim()).ok_or_else(|| refused("Invalid JWT."))?;
        if now < known.ends_at {
            return Ok(Arc::clone(&known.shop));
        }
        let detail = format!(
            "JWT expired at {}. Current time: {}, a difference of {} milliseconds.  Allowed clock skew: 1000 milliseconds.",
            rfc3339(known.ends_at),
            rfc3339(now),
            now - known.ends_at
        );
        Err((Some(Arc::clone(&known.shop)), problem::gateway(401, "Expired JWT", &detail)))
    }

    /// Answers a token request.
    pub(super) fn login(&self, request: &Request, settings: &Settings) -> Answer {
        let now = self.0.clock.now();
        let credentials = basic(request);
        let client_id = credentials.as_ref().map_or("", |(client_id, _)| client_id);
        if lock(&self.0.tokens).is_blocked(client_id, now) {
            return Answer::new(404, "text/html; charset=UTF-8", "<html><body><h1>Not Found</h1></body></html>\n");
        }
        if let Some(refusal) = refuse_form(request) {
            return refusal;
        }
        let invalid_client = || oauth(401, "invalid_client");
        let Some((client_id, secret)) = credentials else { return invalid_client() };
        let Some(shop) = self.shop(&client_id).filter(|shop| *lock(&shop.secret) == secret) else {
            return invalid_client();
        };
        if !shop.active.load(Ordering::SeqCst) {
            return problem::not_active();
        }
        let life_ms = Millis::try_from(settings.token_life.as_millis()).unwrap_or(Millis::MAX);
        let token = lock(&self.0.tokens).give(&shop, now, now.saturating_add(life_ms));
        let mut body = json!({ "access_token": token, "token_type": "Bearer", "scope": "RETAILER" });
        match &settings.expires_in {
            None => body["expires_in"] = json!(settings.token_life.as_secs()),
            Some(Value::Null) => {}
            Some(announced) => body["expires_in"] = announced.clone(),
        }
        Answer::new(200, TYPE, text(&body))
    }
}

/// Client id and secret of a Basic header.
pub(super) fn basic(request: &Request) -> Option<(String, String)> {
    let (scheme, encoded) = request.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = decoded.split_once(':')?;
    Some((client_id.to_owned(), secret.to_owned()))
}

/// Checks the form of a request, whoever sends it; returns the refusal.
fn refuse_form(request: &Request) -> Option<Answer> {
    if request.method != "POST" {
        return Some(oauth(405, "invalid_request").with("allow", "POST"));
    }
    // The API refuses secrets and grants in the address since 2025.
    if !request.query.is_empty() {
        return Some(oauth(400, "invalid_request"));
    }
    let form_type = "application/x-www-form-urlencoded";
    let given = request.header("content-type").and_then(|value| value.split(';').next()).unwrap_or_default();
    if !given.trim().eq_ignore_ascii_case(form_type) {
        return Some(oauth(415, "invalid_request"));
    }
    let fields: HashMap<_, _> = url::form_urlencoded::parse(&request.body).collect();
    match fields.get("grant_type").map(AsRef::as_ref) {
        Some("client_credentials") if fields.len() == 1 => None,
        Some("client_credentials") | None => Some(oauth(400, "invalid_request")),
        Some(_) => Some(oauth(400, "unsupported_grant_type")),
    }
}

fn oauth(status: u16, error: &str) -> Answer {
    Answer::new(status, TYPE, text(&json!({ "error": error })))
}
