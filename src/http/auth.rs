//! Who calls, and whether they may: keys, scopes, shops, and our own rate limits.
//!
//! Every request that is not for a page without data passes [`Gate::admit`] before anything else of
//! it is looked at, so without a key nobody learns what exists. What a key may not see looks absent.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ratelimit::{Ratelimiter, TryWaitError};
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Method};

use super::backend::{Backend, KeyGrant, Scope};
use super::peers::Peer;
use super::reply::{Kind, Problem};
use super::{Head, Limits};

/// Longest key that is worth a look; ours are much shorter.
const KEY_BYTES_MAX: usize = 256;
/// Keys or peers whose pace is kept in memory. Above it all are forgotten, which only gives each a new burst.
const PACED_MAX: usize = 4096;

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
    reads: Paces<String>,
    writes: Paces<String>,
    strangers: Paces<Peer>,
}

impl Gate {
    pub(super) fn new(backend: Arc<dyn Backend>, limits: &Limits) -> Gate {
        Gate {
            backend,
            reads: Paces::new(limits.reads),
            writes: Paces::new(limits.writes),
            strangers: Paces::new(limits.strangers),
        }
    }

    /// Lets a request without a key pass, if its peer does not come too fast.
    ///
    /// # Errors
    /// 429.
    pub(super) fn pace(&self, head: &Head) -> Result<(), Problem> {
        head.peer.map_or(Ok(()), |peer| self.strangers.take(&peer))
    }

    /// The grant of the request's key, if it satisfies `need` and its pace.
    ///
    /// # Errors
    /// 401 no valid key, 429 too fast, 403 not enough; in this order.
    pub(super) fn admit(&self, head: &Head, need: Need) -> Result<KeyGrant, Problem> {
        let key = bearer(&head.headers);
        let known = key.map_or(Ok(None), |key| self.backend.verify_key(key))?;
        let Some(grant) = known else { return Err(self.unauthorized(head, key.is_some())) };
        let paces = if is_read(&head.method) { &self.reads } else { &self.writes };
        paces.take(grant.key_id.as_str())?;
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

    /// 401; or 429, without a line in the log, for a peer that has failed too often. A valid key is looked
    /// at before, so that a neighbour behind the same address cannot shut others out. Nothing is lost by
    /// that: a key of 256 random bits is not found by trying.
    fn unauthorized(&self, head: &Head, has_key: bool) -> Problem {
        if let Some(peer) = &head.peer
            && let Err(too_fast) = self.strangers.take(peer)
        {
            return too_fast;
        }
        if !has_key {
            return Problem::new(Kind::Unauthorized, "send `Authorization: Bearer <api key>`");
        }
        let peer = head.peer.as_ref().map(tracing::field::display);
        tracing::warn!(peer, "request with an unknown, expired or revoked api key");
        let what = "this API key is unknown, expired or revoked; make one (POST /api/v1/keys, or `waybill keys create`) \
                    and send it as `Authorization: Bearer <api key>`";
        Problem::new(Kind::Unauthorized, what)
    }
}

/// One pace, for each of many apart.
struct Paces<K> {
    pace: Pace,
    limiters: Mutex<HashMap<K, Ratelimiter>>,
}

impl<K: Eq + Hash> Paces<K> {
    fn new(pace: Pace) -> Paces<K> {
        Paces { pace, limiters: Mutex::new(HashMap::new()) }
    }

    /// # Errors
    /// 429 when this one is too fast.
    fn take<Q>(&self, who: &Q) -> Result<(), Problem>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        // A panic cannot leave the map half-changed, so a poisoned lock is still good.
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        if !limiters.contains_key(who) {
            if limiters.len() >= PACED_MAX {
                limiters.clear();
            }
            limiters.insert(who.to_owned(), limiter(self.pace));
        }
        match limiters.get(who).map(Ratelimiter::try_wait) {
            Some(Ok(())) | None => Ok(()),
            Some(Err(TryWaitError::Insufficient(wait))) => Err(too_fast(wait)),
            // Never with a burst of at least one; the crate may add reasons.
            Some(Err(_)) => Err(too_fast(Duration::from_secs(1))),
        }
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
