//! Authentication, authorization and rate limits of API requests.
//!
//! Every request, except for static files and probes, passes [`AccessControl::admit`] before anything else of it is
//! read, so a caller without a key cannot probe what exists. Shops that a key may not see look absent.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ratelimit::{Ratelimiter, TryWaitError};
use warp::http::HeaderMap;
use warp::http::header::AUTHORIZATION;

use super::connection_limits::Peer;
use super::limits::{RateLimit, ServerLimits};
use super::reply::{Problem, ProblemKind};
use super::request::RequestHead;
use crate::service::{KeyGrant, Scope, Service};

/// Longest key that is looked up; ours are much shorter.
const KEY_BYTES_MAX: usize = 256;
/// Most keys or clients with a limiter in memory. Above it all are dropped, which only gives each a new burst.
const LIMITERS_MAX: usize = 4096;

/// The scope that an endpoint requires of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredScope {
    /// Any key: the endpoint itself shows only what the key may see.
    Read,
    /// Any key that may see all shops.
    ReadAll,
    /// An admin key.
    Admin,
    /// An admin key that may see all shops.
    AdminAll,
}

impl RequiredScope {
    fn is_admin(self) -> bool {
        match self {
            RequiredScope::Admin | RequiredScope::AdminAll => true,
            RequiredScope::Read | RequiredScope::ReadAll => false,
        }
    }

    /// Whether the key must see all shops.
    fn is_for_all(self) -> bool {
        match self {
            RequiredScope::ReadAll | RequiredScope::AdminAll => true,
            RequiredScope::Read | RequiredScope::Admin => false,
        }
    }
}

/// Authenticates requests and applies rate limits.
pub(super) struct AccessControl {
    service: Service,
    reads: KeyedLimiter<String>,
    writes: KeyedLimiter<String>,
    unauthenticated: KeyedLimiter<Peer>,
}

impl AccessControl {
    pub(super) fn new(service: Service, limits: &ServerLimits) -> AccessControl {
        AccessControl {
            service,
            reads: KeyedLimiter::new(limits.reads),
            writes: KeyedLimiter::new(limits.writes),
            unauthenticated: KeyedLimiter::new(limits.unauthenticated),
        }
    }

    /// Applies the rate limit for requests without a key.
    ///
    /// # Errors
    /// 429.
    pub(super) fn limit_unauthenticated(&self, head: &RequestHead) -> Result<(), Problem> {
        head.peer.map_or(Ok(()), |peer| self.unauthenticated.take(&peer))
    }

    /// The grant of the request's key, if it has the scope and is within its rate limit.
    ///
    /// # Errors
    /// 401 no valid key, 429 rate limit exceeded, 403 insufficient scope; in this order.
    pub(super) fn admit(&self, head: &RequestHead, required: RequiredScope) -> Result<KeyGrant, Problem> {
        let key = bearer(&head.headers);
        let known = key.map_or(Ok(None), |key| self.service.verify_key(key))?;
        let Some(grant) = known else { return Err(self.unauthorized(head, key.is_some())) };
        let limiter = if head.is_read() { &self.reads } else { &self.writes };
        limiter.take(grant.key_id.as_str())?;
        let lacks_admin = required.is_admin() && grant.scope != Scope::Admin;
        if lacks_admin || (required.is_for_all() && grant.shops.is_some()) {
            tracing::warn!(key.id = %grant.key_id, ?required, "request exceeds the scope of its api key");
            let needed = if lacks_admin {
                "this requires an API key with the scope `admin`"
            } else {
                "this requires an API key that is not limited to certain shops"
            };
            return Err(Problem::new(ProblemKind::Forbidden, needed));
        }
        Ok(grant)
    }

    /// 401; or 429, which is not logged, for a client with too many failures. Valid keys are checked before, so that a
    /// client behind the same address cannot lock others out; a key of 256 random bits cannot be guessed anyway.
    fn unauthorized(&self, head: &RequestHead, has_key: bool) -> Problem {
        if let Some(peer) = &head.peer
            && let Err(rate_limited) = self.unauthenticated.take(peer)
        {
            return rate_limited;
        }
        if !has_key {
            return Problem::new(ProblemKind::Unauthorized, "send `Authorization: Bearer <api key>`");
        }
        let peer = head.peer.as_ref().map(tracing::field::display);
        tracing::warn!(peer, "request with an unknown, expired or revoked api key");
        let what = "this API key is unknown, expired or revoked; create one (POST /api/v1/keys, or `waybill keys create`) \
                    and send it as `Authorization: Bearer <api key>`";
        Problem::new(ProblemKind::Unauthorized, what)
    }
}

/// A separate rate limiter for each key.
struct KeyedLimiter<K> {
    rate: RateLimit,
    limiters: Mutex<HashMap<K, Ratelimiter>>,
}

impl<K: Eq + Hash> KeyedLimiter<K> {
    fn new(rate: RateLimit) -> KeyedLimiter<K> {
        KeyedLimiter { rate, limiters: Mutex::new(HashMap::new()) }
    }

    /// # Errors
    /// 429 when the rate limit is exceeded.
    fn take<Q>(&self, who: &Q) -> Result<(), Problem>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        // A panic cannot leave the map half changed.
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        if !limiters.contains_key(who) {
            if limiters.len() >= LIMITERS_MAX {
                limiters.clear();
            }
            limiters.insert(who.to_owned(), limiter(self.rate));
        }
        match limiters.get(who).map(Ratelimiter::try_wait) {
            Some(Ok(())) | None => Ok(()),
            Some(Err(TryWaitError::Insufficient(wait))) => Err(rate_limited(wait)),
            // Does not happen with a burst of at least one; the enum is non-exhaustive.
            Some(Err(_)) => Err(rate_limited(Duration::from_secs(1))),
        }
    }
}

fn rate_limited(wait: Duration) -> Problem {
    Problem::new(ProblemKind::TooManyRequests, "the rate limit is exceeded; wait as long as `Retry-After` says")
        .retry_after(wait)
}

fn limiter(limit: RateLimit) -> Ratelimiter {
    // To the crate a rate of zero means unlimited.
    let (rate, burst) = (limit.per_second.max(1), limit.burst.max(1));
    let full = Ratelimiter::builder(rate).max_tokens(burst).initial_available(burst).build();
    full.unwrap_or_else(|_| Ratelimiter::new(rate))
}

/// The key of an `Authorization: Bearer` header, which must be given exactly once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    let plausible = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(key)
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderMap;
    use warp::http::header::{AUTHORIZATION, HeaderValue};

    use super::{RateLimit, bearer, limiter};

    #[test]
    fn a_key_is_read_from_exactly_one_well_formed_bearer_header() {
        let key = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(key(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(key(&["bearer  abc"]).as_deref(), Some("abc"));
        for bad in [&[][..], &["abc"], &["Basic abc"], &["Bearer "], &["Bearer a b"], &["Bearer a", "Bearer a"]] {
            assert_eq!(key(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_limiter_starts_with_its_burst_and_zero_is_not_unlimited() {
        let limiter = limiter(RateLimit { per_second: 0, burst: 2 });
        assert!(limiter.try_wait().is_ok() && limiter.try_wait().is_ok());
        assert!(limiter.try_wait().is_err());
    }
}
