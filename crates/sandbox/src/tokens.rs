//! The tokens that the login host issued, and how often each client asked for one.
//!
//! Tokens look like JWTs, but only this memory decides whether one is valid.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::body::json as text;
use crate::clock::Millis;
use crate::shop::Shop;

const MINUTE_MS: Millis = 60_000;
const BLOCK_MS: Millis = 10 * MINUTE_MS;
/// How long ended tokens are remembered, to distinguish "expired" from "never issued".
const REMEMBER_MS: Millis = 60 * MINUTE_MS;

#[derive(Debug)]
struct Token {
    shop: Arc<Shop>,
    ends_at: Millis,
}

/// What the login host knows of a token.
#[derive(Debug)]
pub(crate) enum Known {
    Valid(Arc<Shop>),
    /// With the time of its end.
    Ended(Arc<Shop>, Millis),
    /// Never issued, or forgotten.
    Never,
}

/// All tokens, and the login rate of each client.
#[derive(Debug)]
pub(crate) struct Tokens {
    given: HashMap<String, Token>,
    rng: fastrand::Rng,
    logins_max: Option<u32>,
    minute: Millis,
    logins: HashMap<String, u32>,
    blocked_until: Option<Millis>,
    prune_at: Millis,
}

impl Tokens {
    pub(crate) fn new(seed: u64, logins_max: Option<u32>) -> Tokens {
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
    pub(crate) fn kill(&mut self, now: Millis) -> usize {
        let working = self.given.values_mut().filter(|token| token.ends_at > now);
        working.map(|token| token.ends_at = now).count()
    }

    /// All that are remembered.
    pub(crate) fn given(&self) -> Vec<String> {
        self.given.keys().cloned().collect()
    }

    pub(crate) fn set_blocked(&mut self, blocked: bool) {
        self.blocked_until = blocked.then_some(Millis::MAX);
        self.logins.clear();
    }

    /// Counts a login; returns whether the host is blocked now.
    pub(crate) fn is_blocked(&mut self, client_id: &str, now: Millis) -> bool {
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

    /// What is known of a token.
    pub(crate) fn find(&self, token: &str, now: Millis) -> Known {
        match self.given.get(token) {
            None => Known::Never,
            Some(token) if now < token.ends_at => Known::Valid(Arc::clone(&token.shop)),
            Some(token) => Known::Ended(Arc::clone(&token.shop), token.ends_at),
        }
    }

    /// Issues a token to a shop, valid until `ends_at`.
    pub(crate) fn give(&mut self, shop: &Arc<Shop>, now: Millis, ends_at: Millis) -> String {
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
