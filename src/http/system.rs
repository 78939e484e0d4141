//! How the installation is: `/livez`, `/readyz`, `/metrics`, `/openapi.json`, `/api/v1/status`.
//!
//! `/livez` (and `/healthz`, its older name) and `/readyz` answer without a key; without one they give a word and no
//! reasons. `/metrics` needs a key, but not on the listener of `http.metrics_listen`, which has these three paths only.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::header::{AUTHORIZATION, HeaderValue};
use warp::reply::Response;

use super::auth::Need;
use super::backend::{Backend, KeyGrant, Part, Readiness, ShopCounts, Status};
use super::reply::{Kind, Outcome, Problem, Reply, finish};
use super::{Api, Call, Endpoint, Limits, at_once, guarded, head, reads};
use crate::domain::ShopState;

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// When a caller may ask again whether the installation is ready.
const READY_RETRY: Duration = Duration::from_secs(5);

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let live = warp::path!("livez").or(warp::path!("healthz")).unify();
    let health = live.and(reads()).and(head()).map(|head: super::Head| finish(&head.request_id, Ok(alive())));
    let keyless = Arc::clone(api);
    let without_key = |head: super::Head| {
        let result = if head.headers.contains_key(AUTHORIZATION) { Err(warp::reject::not_found()) } else { Ok(head) };
        std::future::ready(result)
    };
    let word = warp::path!("readyz")
        .and(reads())
        .and(head())
        .and_then(without_key)
        .map(move |head: super::Head| finish(&head.request_id, show_word(&keyless, &head)));
    let ready = warp::path!("readyz").and(reads()).map(|| ()).boxed();
    let metrics = warp::path!("metrics").and(reads()).map(|| ()).boxed();
    let openapi = warp::path!("openapi.json").and(reads()).map(|| ()).boxed();
    let status = warp::path!("api" / "v1" / "status").and(reads()).map(|| ()).boxed();
    let at = |name, need| Endpoint { name, need, gives: super::JSON };
    health
        .or(word)
        .unify()
        .or(guarded(api, at("readiness", Need::Read), ready, at_once(show_ready)))
        .unify()
        .or(guarded(
            api,
            Endpoint { gives: Some("text/plain"), ..at("metrics", Need::ReadAll) },
            metrics,
            at_once(show_metrics),
        ))
        .unify()
        .or(guarded(api, at("description", Need::Read), openapi, at_once(show_description)))
        .unify()
        .or(guarded(api, at("status", Need::Read), status, show_status))
        .unify()
        .boxed()
}

fn alive() -> Reply {
    Reply::text(JSON, &br#"{"status":"ok"}"#[..])
}

/// The word alone, for probes.
fn show_word(api: &Api, head: &super::Head) -> Outcome {
    api.gate.pace(head)?;
    let Readiness { unready, degraded } = api.backend.ready(None);
    if !unready.is_empty() {
        return Err(Problem::new(Kind::Unavailable, "not ready; with an API key it says why").retry_after(READY_RETRY));
    }
    Reply::json(&json!({"status": if degraded.is_empty() { "ready" } else { "degraded" }}))
}

/// What the listener without keys answers; anything else is absent. A peer has the pace of one without a key.
pub(super) fn keyless_routes(backend: Arc<dyn Backend>, limits: Limits) -> BoxedFilter<(Response,)> {
    let api = Arc::new(Api::new(backend, limits));
    let show = move |head: super::Head| {
        let outcome = match (head.path.as_str(), super::auth::is_read(&head.method)) {
            ("/metrics" | "/livez" | "/readyz", false) => Err(Problem::method_not_allowed("GET, HEAD".to_owned())),
            ("/metrics", true) => api.gate.pace(&head).map(|()| Reply::text(PROMETHEUS, api.backend.metrics())),
            ("/livez", true) => Ok(alive()),
            ("/readyz", true) => show_word(&api, &head),
            _ => Err(Problem::not_found()),
        };
        finish(&head.request_id, outcome)
    };
    head().map(show).boxed()
}

fn show_ready(api: &Api, call: &Call) -> Outcome {
    call.params(&[])?;
    let Readiness { unready, degraded } = api.backend.ready(call.grant.shops.clone());
    if !unready.is_empty() {
        let reasons = [unready, degraded].concat();
        return Err(Problem::new(Kind::Unavailable, reasons.join("; ")).retry_after(READY_RETRY));
    }
    match degraded.as_slice() {
        [] => Reply::json(&json!({"status": "ready"})),
        reasons => Reply::json(&json!({"status": "degraded", "reasons": reasons})),
    }
}

fn show_metrics(api: &Api, call: &Call) -> Outcome {
    call.params(&[])?;
    Ok(Reply::text(PROMETHEUS, api.backend.metrics()))
}

fn show_description(api: &Api, call: &Call) -> Outcome {
    call.params(&[])?;
    Ok(Reply::text(JSON, api.description.text()))
}

async fn show_status(api: Arc<Api>, call: Call, (): ()) -> Outcome {
    call.params(&[])?;
    if call.grant.shops.is_none() {
        return Reply::json(&api.backend.status(None).await?);
    }
    Reply::json(&narrowed(&api, &call.grant).await?)
}

/// Without what a key that is bound to shops may not know: other shops, their accounts and how many there are.
async fn narrowed(api: &Api, grant: &KeyGrant) -> Result<Status, Problem> {
    let mut shops = api.backend.shops().await?;
    shops.retain(|shop| grant.sees(&shop.id));
    let part = Part {
        shops: shops.iter().map(|shop| shop.id.clone()).collect(),
        accounts: shops.iter().map(|shop| shop.account.clone()).collect(),
    };
    let mut status = api.backend.status(Some(part)).await?;
    let count = |state: &ShopState| shops.iter().filter(|shop| shop.state == *state).count() as u64;
    status.shops = ShopCounts {
        active: count(&ShopState::Active),
        paused: count(&ShopState::Paused),
        refused: count(&ShopState::Refused),
    };
    Ok(status)
}
