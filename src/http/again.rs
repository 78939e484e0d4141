//! `Idempotency-Key`: a request with a body that changes something may be sent again, as after a broken connection,
//! and is done once.
//!
//! The name that the client gave, together with its API key, finds the answer of the first time. Only good answers
//! are kept: what was refused or failed was not done, and may be tried again under the same name. The work goes on
//! when the client leaves, since it comes back for the answer.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use warp::http::{HeaderMap, Method};

use super::backend::AnswerName;
use super::body::{Body, capped};
use super::reply::{Kind, Outcome, Problem, Reply};
use super::{Api, Call, carried_through};

pub(super) const HEADER: &str = "idempotency-key";
/// Longest name that a client may give a request.
const NAME_CHARS_MAX: usize = 255;

/// The name that a request was given; none for one that changes nothing, or that has none.
///
/// # Errors
/// 400 for a name that cannot be one.
pub(super) fn name<'a>(method: &Method, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), true) = (values.next(), method == Method::POST) else { return Ok(None) };
    let plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_graphic());
    let name = value.to_str().ok().filter(|name| (1..=NAME_CHARS_MAX).contains(&name.len())).filter(plain);
    match (name, values.next()) {
        (Some(name), None) => Ok(Some(name)),
        _ => Err(Problem::new(
            Kind::BadRequest,
            format!("`Idempotency-Key` must stand there once, with 1 to {NAME_CHARS_MAX} visible ASCII characters"),
        )),
    }
}

/// The requests with a name that are under way.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashSet<AnswerName>>>);

/// One of them; over when dropped.
struct Flight(Flights, AnswerName);

impl Flights {
    /// None: it is under way already.
    fn begin(&self, name: AnswerName) -> Option<Flight> {
        self.names().insert(name).then(|| Flight(self.clone(), name))
    }

    fn names(&self) -> MutexGuard<'_, HashSet<AnswerName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.names().remove(&self.1);
    }
}

/// Answers as the first time, or does it now.
///
/// # Errors
/// 422 for another request under the same name, 409 while the first is under way; what reading a body may end with,
/// and what the endpoint may.
pub(super) async fn once<F, Fut>(api: Arc<Api>, call: Call, name: String, answer: F) -> Outcome
where
    F: FnOnce(Arc<Api>, Call) -> Fut + Send + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let Call { head, grant, body } = call;
    let body = capped(&head.headers, body, &api.limits).await?;
    let request = digest(&[head.method.as_str(), &head.path, &head.query], &body);
    let name = digest(&[&grant.key_id, &name], &[]);
    let Some(flight) = api.flights.begin(name) else {
        let what = "a request with this `Idempotency-Key` is under way; ask again when it has ended";
        return Err(Problem::new(Kind::Conflict, what));
    };
    if let Some(kept) = api.backend.kept_answer(&name)? {
        if kept.request != request {
            let what = "this `Idempotency-Key` was used for another request in the last 24 h; use a new one";
            return Err(Problem::new(Kind::Invalid, what));
        }
        return Reply::again(kept);
    }
    // Not a copy: what may be a secret is wiped when it is done with.
    let chunk = Bytes::from_owner(body);
    let again: Body = futures_util::stream::once(async move { Ok(chunk) }).boxed();
    let doing = async move {
        let outcome = answer(Arc::clone(&api), Call { head, grant, body: again }).await;
        if let Ok(reply) = &outcome
            && let Err(error) = api.backend.keep_answer(name, reply.to_keep(request)).await
        {
            // It is done all the same; only a second sending would do it again.
            tracing::warn!(%error, "an answer could not be kept for who sends its request again");
        }
        drop(flight);
        outcome
    };
    carried_through(doing).await
}

/// Of the parts, each with its length, so that none runs into the next.
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

    use super::{Flights, HEADER, digest, name};

    #[test]
    fn a_name_is_one_plain_text_of_a_post() {
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
    fn a_name_is_under_way_once() {
        let flights = Flights::default();
        let first = flights.begin([1; 32]);
        assert!(first.is_some() && flights.begin([1; 32]).is_none() && flights.begin([2; 32]).is_some());
        drop(first);
        assert!(flights.begin([1; 32]).is_some());
        assert_ne!(digest(&["ab", "c"], b""), digest(&["a", "bc"], b""));
    }
}
