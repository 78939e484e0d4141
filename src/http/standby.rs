//! What a standby answers: it is alive, and not ready. It has no data of its own, and knows no API keys.

use std::time::Duration;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::health::alive;
use super::reply::{ApiResult, Problem, ProblemKind, finish};
use super::request::{RequestHead, head};

/// `Retry-After` while it waits.
const RETRY: Duration = Duration::from_secs(5);
/// Says no more, since no key is checked; the log names the owner.
const WAITS: &str = "standby: another process works on the MySQL schema, and this one takes over when that one ends";

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    head().map(|head: RequestHead| finish(&head.request_id, answer(&head))).boxed()
}

fn answer(head: &RequestHead) -> ApiResult {
    match head.path.as_str() {
        "/livez" | "/healthz" if head.is_read() => alive(),
        _ => Err(Problem::new(ProblemKind::Unavailable, WAITS).retry_after(RETRY)),
    }
}
