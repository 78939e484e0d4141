//! The login host: `POST /token`, and whose token a call carries (`docs/bol-api.md`, "Login").
//!
//! Answers are OAuth JSON, not Problems, and have no rate headers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::body::json as text;
use crate::clock::{Millis, rfc3339};
use crate::problem;
use crate::shop::Shop;
use crate::state::{Sandbox, Settings, lock};
use crate::tokens::Known;
use crate::wire::{Answer, Request};

const TYPE: &str = "application/json;charset=UTF-8";

impl Sandbox {
    /// Finds the shop of a call's token, or the answer that refuses the call (with the shop, if the token is known).
    pub(crate) fn authenticate(&self, request: &Request) -> Result<Arc<Shop>, (Option<Arc<Shop>>, Answer)> {
        let refused = |detail| (None, problem::gateway(401, "Unauthorized", detail));
        let header = request.header("authorization").ok_or_else(|| refused("Full authentication is required."))?;
        let bearer = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = bearer.ok_or_else(|| refused("The Authorization header is not a bearer token."))?;
        let now = self.0.clock.now();
        let (shop, ended_at) = match lock(&self.0.tokens).find(token.trim(), now) {
            Known::Valid(shop) => return Ok(shop),
            Known::Ended(shop, at) => (shop, at),
            Known::Never => return Err(refused("Invalid JWT.")),
        };
        let detail = format!(
            "JWT expired at {}. Current time: {}, a difference of {} milliseconds.  Allowed clock skew: 1000 milliseconds.",
            rfc3339(ended_at),
            rfc3339(now),
            now - ended_at
        );
        Err((Some(shop), problem::gateway(401, "Expired JWT", &detail)))
    }

    /// Answers a token request.
    pub(crate) fn login(&self, request: &Request, settings: &Settings) -> Answer {
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
pub(crate) fn basic(request: &Request) -> Option<(String, String)> {
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
