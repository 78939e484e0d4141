//! Joins a filter and a handler to an endpoint, which authorizes the caller, bounds the time and builds the response.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument as _;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::accept::accepts;
use super::api::Api;
use super::auth::RequiredScope;
use super::body::{RequestBody, body};
use super::detached::run_detached;
use super::idempotency;
use super::reply::{ApiResult, Problem, ProblemKind, finish};
use super::request::{ApiRequest, RequestHead, head};

/// Name in the log, required scope and media type of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    pub(super) name: &'static str,
    pub(super) scope: RequiredScope,
    /// Media type of a successful response; none if it has no body.
    pub(super) media_type: Option<&'static str>,
}

/// The media type of most responses.
pub(super) const JSON: Option<&str> = Some("application/json");

/// Joins a filter and a handler: authorizes the caller, bounds the time, builds the response.
pub(super) fn endpoint<T, F, Fut>(
    api: &Arc<Api>,
    at: Endpoint,
    matching: BoxedFilter<(T,)>,
    answer: F,
) -> BoxedFilter<(Response,)>
where
    T: Send + 'static,
    F: Fn(Arc<Api>, ApiRequest, T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ApiResult> + Send + 'static,
{
    let api = Arc::clone(api);
    matching
        .and(head())
        .and(body())
        .then(move |target: T, head: RequestHead, body: RequestBody| {
            let (api, answer, started) = (Arc::clone(&api), answer.clone(), Instant::now());
            let request_id = head.request_id.clone();
            // Every log line of the request carries its id.
            let span = tracing::info_span!("request", request.id = %request_id, method = %head.method, route = at.name);
            let answering = async move {
                let outcome = match api.admit(&head, at.scope).and_then(|grant| acceptable(&head, at).map(|()| grant)) {
                    Ok(grant) => {
                        let time_max = api.limits.answer_time_max;
                        let doing = move |api, request| answer(api, request, target);
                        bounded(time_max, Box::pin(run_handler(api, ApiRequest { head, grant, body }, doing))).await
                    }
                    Err(problem) => Err(problem),
                };
                let response = finish(&request_id, outcome);
                let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::debug!(status = response.status().as_u16(), elapsed_ms, "handled a request");
                response
            };
            answering.instrument(span)
        })
        .boxed()
}

/// 406 if the client does not accept the media type. Problems are sent regardless of `Accept`.
fn acceptable(head: &RequestHead, at: Endpoint) -> Result<(), Problem> {
    match at.media_type {
        Some(media) if !accepts(&head.headers, media) => Err(Problem::new(
            ProblemKind::NotAcceptable,
            format!("this endpoint responds with `{media}`; accept that, or leave out `Accept`"),
        )),
        _ => Ok(()),
    }
}

/// Runs the handler, at most once per `Idempotency-Key`. Unsafe methods run to completion even if the client
/// disconnects, so that no change is left half made.
async fn run_handler<F, Fut>(api: Arc<Api>, request: ApiRequest, doing: F) -> ApiResult
where
    F: FnOnce(Arc<Api>, ApiRequest) -> Fut + Send + 'static,
    Fut: Future<Output = ApiResult> + Send + 'static,
{
    if let Some(name) = idempotency::name(&request.head.method, &request.head.headers)?.map(str::to_owned) {
        return idempotency::once(api, request, name, doing).await;
    }
    if request.head.method.is_safe() {
        return doing(api, request).await;
    }
    run_detached(doing(api, request)).await
}

async fn bounded(time_max: Duration, answering: impl Future<Output = ApiResult>) -> ApiResult {
    tokio::time::timeout(time_max, answering).await.unwrap_or_else(|_| {
        let detail = format!("the request was not handled within {} s; try again", time_max.as_secs());
        Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(5)))
    })
}

/// Adapts a synchronous handler.
pub(super) fn sync_handler(
    answer: fn(&Api, &ApiRequest) -> ApiResult,
) -> impl Fn(Arc<Api>, ApiRequest, ()) -> std::future::Ready<ApiResult> + Clone + Send + Sync + 'static {
    move |api, request, ()| std::future::ready(answer(&api, &request))
}
