//! Probes, metrics and status: `/livez`, `/readyz`, `/metrics`, `/openapi.json`, `/api/v1/status`.
//!
//! `/livez` is liveness only (`/healthz` is its older name). `/livez` and `/readyz` work without a key; `/readyz` then
//! gives no reasons. `/metrics` requires a key, except on the listener of `http.metrics_listen`, which serves these
//! three only.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{AUTHORIZATION, HeaderValue};
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint, sync_handler};
use super::reply::{ApiResult, Problem, ProblemKind, Reply, finish};
use super::request::{ApiRequest, RequestHead, get_or_head, head};
use crate::domain::ShopState;
use crate::service::{KeyGrant, Readiness, ShopCounts, Status, StatusScope};

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPENAPI: HeaderValue = HeaderValue::from_static("application/json");
/// `Retry-After` while the service is not ready.
const READY_RETRY: Duration = Duration::from_secs(5);

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let live = warp::path!("livez").or(warp::path!("healthz")).unify();
    let health = live.and(get_or_head()).and(head()).map(|head: RequestHead| finish(&head.request_id, alive()));
    let keyless = Arc::clone(api);
    let without_key = |head: RequestHead| {
        let result = if head.headers.contains_key(AUTHORIZATION) { Err(warp::reject::not_found()) } else { Ok(head) };
        std::future::ready(result)
    };
    let keyless_ready = warp::path!("readyz")
        .and(get_or_head())
        .and(head())
        .and_then(without_key)
        .map(move |head: RequestHead| finish(&head.request_id, show_state(&keyless, &head)));
    let ready = warp::path!("readyz").and(get_or_head()).map(|| ()).boxed();
    let metrics = warp::path!("metrics").and(get_or_head()).map(|| ()).boxed();
    let openapi = warp::path!("openapi.json").and(get_or_head()).map(|| ()).boxed();
    let status = warp::path!("api" / "v1" / "status").and(get_or_head()).map(|| ()).boxed();
    let at = |name, scope| Endpoint { name, scope, media_type: JSON };
    health
        .or(keyless_ready)
        .unify()
        .or(endpoint(api, at("readiness", RequiredScope::Read), ready, sync_handler(show_ready)))
        .unify()
        .or(endpoint(
            api,
            Endpoint { media_type: Some("text/plain"), ..at("metrics", RequiredScope::ReadAll) },
            metrics,
            sync_handler(show_metrics),
        ))
        .unify()
        .or(endpoint(api, at("description", RequiredScope::Read), openapi, sync_handler(show_description)))
        .unify()
        .or(endpoint(api, at("status", RequiredScope::Read), status, show_status))
        .unify()
        .boxed()
}

/// The process responds.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(super) struct LivenessForm {
    status: &'static str,
}

/// Whether the service can work.
#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
pub(super) struct ReadinessForm {
    status: ReadyState,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// `degraded`: it works, but something is wrong.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReadyState {
    Ready,
    Degraded,
}

impl ReadyState {
    fn of(degraded: &[String]) -> ReadyState {
        if degraded.is_empty() { ReadyState::Ready } else { ReadyState::Degraded }
    }
}

pub(super) fn alive() -> ApiResult {
    Reply::json(&LivenessForm { status: "ok" })
}

/// `/readyz` without a key: the state, no reasons.
fn show_state(api: &Api, head: &RequestHead) -> ApiResult {
    api.access.limit_unauthenticated(head)?;
    let Readiness { unready, degraded } = api.service.readiness(None);
    if !unready.is_empty() {
        return Err(Problem::new(
            ProblemKind::Unavailable,
            "the service is not ready; send an API key to see the reasons",
        )
        .retry_after(READY_RETRY));
    }
    Reply::json(&ReadinessForm { status: ReadyState::of(&degraded), reasons: Vec::new() })
}

/// The routes of the listener that requires no key. The rate limit for unauthenticated requests applies.
pub(super) fn keyless_routes(api: Arc<Api>) -> BoxedFilter<(Response,)> {
    let show = move |head: RequestHead| {
        let outcome = match (head.path.as_str(), head.is_read()) {
            ("/metrics" | "/livez" | "/readyz", false) => Err(Problem::method_not_allowed("GET, HEAD".to_owned())),
            ("/metrics", true) => {
                api.access.limit_unauthenticated(&head).map(|()| Reply::text(PROMETHEUS, api.service.render_metrics()))
            }
            ("/livez", true) => alive(),
            ("/readyz", true) => show_state(&api, &head),
            _ => Err(Problem::not_found()),
        };
        finish(&head.request_id, outcome)
    };
    head().map(show).boxed()
}

fn show_ready(api: &Api, request: &ApiRequest) -> ApiResult {
    request.params(&[])?;
    let Readiness { unready, degraded } = api.service.readiness(request.grant.shops.as_deref());
    if !unready.is_empty() {
        let reasons = [unready, degraded].concat();
        return Err(Problem::new(ProblemKind::Unavailable, reasons.join("; ")).retry_after(READY_RETRY));
    }
    Reply::json(&ReadinessForm { status: ReadyState::of(&degraded), reasons: degraded })
}

fn show_metrics(api: &Api, request: &ApiRequest) -> ApiResult {
    request.params(&[])?;
    Ok(Reply::text(PROMETHEUS, api.service.render_metrics()))
}

fn show_description(api: &Api, request: &ApiRequest) -> ApiResult {
    request.params(&[])?;
    Ok(Reply::text(OPENAPI, api.description.text()))
}

async fn show_status(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    request.params(&[])?;
    if request.grant.shops.is_none() {
        return Reply::json(&api.service.status(None)?);
    }
    Reply::json(&narrowed(&api, &request.grant)?)
}

/// The status for a key that is limited to shops: without other shops, their accounts and their number.
fn narrowed(api: &Api, grant: &KeyGrant) -> Result<Status, Problem> {
    let mut shops = api.service.shops()?;
    shops.retain(|shop| grant.sees(&shop.id));
    let part = StatusScope {
        shops: shops.iter().map(|shop| shop.id.clone()).collect(),
        accounts: shops.iter().map(|shop| shop.account.clone()).collect(),
    };
    let mut status = api.service.status(Some(&part))?;
    let count = |state: &ShopState| shops.iter().filter(|shop| shop.state == *state).count() as u64;
    status.shops = ShopCounts {
        active: count(&ShopState::Active),
        paused: count(&ShopState::Paused),
        refused: count(&ShopState::Refused),
    };
    Ok(status)
}
