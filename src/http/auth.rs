//! Who calls, and whether they may: keys, scopes, shops, and our own rate limits.
//!
//! Every request that is not for a page without data passes [`Gate::admit`] before anything else of
//! it is looked at, so without a key nobody learns what exists. What a key may not see looks absent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ratelimit::{Ratelimiter, TryWaitError};
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Method};

use super::backend::{Backend, KeyGrant, Scope};
use super::reply::{Kind, Problem};

/// Longest key that is worth a look; ours are much shorter.
const KEY_BYTES_MAX: usize = 256;
/// Keys whose pace is kept in memory. Above it all are forgotten, which only gives each a new burst.
const PACED_KEYS_MAX: usize = 4096;

/// A steady rate with room for bursts. Zero counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub per_second: u64,
    pub burst: u64,
}

/// What an endpoint asks of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Any key: the endpoint itself shows only what the key may see.
    Read,
    /// Any key that may see all shops.
    ReadAll,
    /// An admin key.
    Admin,
    /// An admin key that may see all shops.
    AdminAll,
}

/// Turns a request into a grant, or into the reason why not.
pub(super) struct Gate {
    backend: Arc<dyn Backend>,
    reads: Pace,
    writes: Pace,
    paces: Mutex<HashMap<String, Arc<KeyPace>>>,
}

struct KeyPace {
    reads: Ratelimiter,
    writes: Ratelimiter,
}

impl Gate {
    pub(super) fn new(backend: Arc<dyn Backend>, reads: Pace, writes: Pace) -> Gate {
        Gate { backend, reads, writes, paces: Mutex::new(HashMap::new()) }
    }

    /// The grant of the key in `headers`, if it satisfies `need` and its pace.
    ///
    /// # Errors
    /// 401 no valid key, 429 too fast, 403 not enough; in this order.
    pub(super) fn admit(&self, method: &Method, headers: &HeaderMap, need: Need) -> Result<KeyGrant, Problem> {
        let unauthorized = || Problem::new(Kind::Unauthorized, "send `Authorization: Bearer <api key>`");
        let key = bearer(headers).ok_or_else(unauthorized)?;
        let Some(grant) = self.backend.verify_key(key)? else {
            tracing::warn!("request with an unknown, expired or revoked api key");
            return Err(unauthorized());
        };
        self.pace(method, &grant.key_id)?;
        let admin = matches!(need, Need::Admin | Need::AdminAll);
        let all = matches!(need, Need::ReadAll | Need::AdminAll);
        if (admin && grant.scope != Scope::Admin) || (all && grant.shops.is_some()) {
            tracing::warn!(key.id = %grant.key_id, ?need, "request beyond the scope of its api key");
            let needed = match need {
                Need::ReadAll => "this needs an API key that is not bound to shops",
                _ => "this needs an API key with the scope `admin`",
            };
            return Err(Problem::new(Kind::Forbidden, needed));
        }
        Ok(grant)
    }

    fn pace(&self, method: &Method, key_id: &str) -> Result<(), Problem> {
        let pace = self.pace_of(key_id);
        let limiter = if is_read(method) { &pace.reads } else { &pace.writes };
        match limiter.try_wait() {
            Ok(()) => Ok(()),
            Err(TryWaitError::Insufficient(wait)) => Err(too_fast(wait)),
            // Never with a burst of at least one; the crate may add reasons.
            Err(_) => Err(too_fast(Duration::from_secs(1))),
        }
    }

    fn pace_of(&self, key_id: &str) -> Arc<KeyPace> {
        // A panic cannot leave the map half-changed, so a poisoned lock is still good.
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = paces.get(key_id) {
            return Arc::clone(pace);
        }
        if paces.len() >= PACED_KEYS_MAX {
            paces.clear();
        }
        let pace = Arc::new(KeyPace { reads: limiter(self.reads), writes: limiter(self.writes) });
        paces.insert(key_id.to_owned(), Arc::clone(&pace));
        pace
    }
}

fn too_fast(wait: Duration) -> Problem {
    Problem::new(Kind::TooManyRequests, "slow down").retry_after(wait)
}

/// GET and HEAD change nothing.
pub(super) fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn limiter(pace: Pace) -> Ratelimiter {
    // A rate of zero would mean "without limit" to the crate.
    let (rate, burst) = (pace.per_second.max(1), pace.burst.max(1));
    let full = Ratelimiter::builder(rate).max_tokens(burst).initial_available(burst).build();
    full.unwrap_or_else(|_| Ratelimiter::new(rate))
}

/// The key of exactly one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    let key = key.trim();
    let plausible = !key.is_empty() && key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(key)
}

impl KeyGrant {
    /// Whether this key may know of the shop.
    pub fn sees(&self, shop_id: &str) -> bool {
        self.shops.as_ref().is_none_or(|shops| shops.iter().any(|shop| shop == shop_id))
    }

    /// The shops that a listing may show: all (`None`), or these; narrowed to `asked` when given.
    /// An empty list means that there is nothing to show.
    pub(super) fn visible(&self, asked: Option<&str>) -> Option<Vec<String>> {
        match asked {
            Some(shop) if self.sees(shop) => Some(vec![shop.to_owned()]),
            Some(_) => Some(Vec::new()),
            None => self.shops.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderMap;
    use warp::http::header::{AUTHORIZATION, HeaderValue};

    use super::{Pace, bearer, limiter};

    #[test]
    fn one_bearer_header_with_a_plausible_key() {
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
    fn a_pace_starts_with_its_burst_and_zero_is_not_unlimited() {
        let limiter = limiter(Pace { per_second: 0, burst: 2 });
        assert!(limiter.try_wait().is_ok() && limiter.try_wait().is_ok());
        assert!(limiter.try_wait().is_err());
    }
}
