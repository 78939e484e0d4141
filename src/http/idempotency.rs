//! `Idempotency-Key`: deduplicates POST requests that a client repeats, for example after a broken connection.
//!
//! The client's key, together with its API key, identifies the stored response. Only successful responses are stored: a
//! request that failed changed nothing and may be repeated with the same key. The handler runs to completion even if
//! the client disconnects, since the client will ask for the response again.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use warp::http::{HeaderMap, Method};

use super::api::Api;
use super::body::{RequestBody, capped};
use super::detached::run_detached;
use super::reply::{ApiResult, Problem, ProblemKind, Reply};
use super::request::ApiRequest;

pub(super) const HEADER: &str = "idempotency-key";
/// Longest `Idempotency-Key`.
const KEY_CHARS_MAX: usize = 255;

/// The idempotency key of a POST request, if it has one.
///
/// # Errors
/// 400 for a malformed or repeated key.
pub(super) fn name<'a>(method: &Method, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), true) = (values.next(), method == Method::POST) else { return Ok(None) };
    let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_graphic());
    let name = value.to_str().ok().filter(|name| (1..=KEY_CHARS_MAX).contains(&name.len())).filter(plain);
    match (name, values.next()) {
        (Some(name), None) => Ok(Some(name)),
        _ => Err(Problem::new(
            ProblemKind::BadRequest,
            format!("`Idempotency-Key` must be given once, with 1 to {KEY_CHARS_MAX} visible ASCII characters"),
        )),
    }
}

/// Replays the stored response, or runs the handler and stores its response.
///
/// # Errors
/// 422 for a different request with the same key, 409 while the first is in flight; errors of reading the body, and of
/// the handler.
pub(super) async fn once<F, Fut>(api: Arc<Api>, request: ApiRequest, name: String, answer: F) -> ApiResult
where
    F: FnOnce(Arc<Api>, ApiRequest) -> Fut + Send + 'static,
    Fut: Future<Output = ApiResult> + Send + 'static,
{
    let ApiRequest { head, grant, body } = request;
    let body = capped(&head.headers, body, &api.limits).await?;
    let fingerprint = digest(&[head.method.as_str(), &head.path, &head.query], &body);
    let name = digest(&[&grant.key_id, &name], &[]);
    let Some(guard) = api.in_flight.begin(name) else {
        let what = "a request with this `Idempotency-Key` is in progress; repeat it when that one has ended";
        return Err(Problem::new(ProblemKind::Conflict, what));
    };
    if let Some(stored) = api.service.load_response(&name)? {
        if stored.request != fingerprint {
            let what = "this `Idempotency-Key` was used for a different request in the last 24 h; use a new one";
            return Err(Problem::new(ProblemKind::Invalid, what));
        }
        return Reply::replayed(stored);
    }
    // Not copied: the body may hold a secret and is wiped on drop.
    let chunk = Bytes::from_owner(body);
    let again: RequestBody = futures_util::stream::once(async move { Ok(chunk) }).boxed();
    let doing = async move {
        let outcome = answer(Arc::clone(&api), ApiRequest { head, grant, body: again }).await;
        if let Ok(reply) = &outcome
            && let Err(error) = api.service.store_response(name, reply.to_stored(fingerprint)).await
        {
            // The request succeeded; only its repetition would run again.
            tracing::warn!(%error, "failed to store the response of a request with an Idempotency-Key");
        }
        drop(guard);
        outcome
    };
    run_detached(doing).await
}

/// SHA-256 of the parts, each prefixed with its length so that the boundaries count.
fn digest(parts: &[&str], body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.update(body);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use warp::http::{HeaderMap, Method};

    use super::{HEADER, digest, name};

    #[test]
    fn only_a_post_has_a_key_and_a_malformed_key_is_rejected() {
        let read = |method: Method, values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, value.parse().unwrap());
            }
            name(&method, &headers).map(|name| name.map(str::to_owned)).ok()
        };
        assert_eq!(read(Method::POST, &["a"]), Some(Some("a".to_owned())));
        assert_eq!(read(Method::POST, &[]), Some(None));
        assert_eq!(read(Method::PATCH, &["a"]), Some(None));
        for wrong in [&["a", "b"][..], &[""], &[&"n".repeat(256)], &["a b"], &["\u{e9}"]] {
            assert_eq!(read(Method::POST, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_boundaries_of_the_parts_count() {
        assert_ne!(digest(&["ab", "c"], b""), digest(&["a", "bc"], b""));
    }
}
