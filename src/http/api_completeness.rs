//! `/api/v1/shops/{shop_id}/completeness`: compares listed documents with the sink, and re-fetches missing ones.

use std::sync::Arc;

use serde::Serialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::auth::RequiredScope;
use super::query::Segment;
use super::reply::{ApiResult, Problem, Reply};
use super::{Api, Call, Endpoint, JSON, endpoint, get_or_head};
use crate::domain::Completeness;
use crate::domain::clock::{self, Millis};

/// Most gaps named in one response; all are counted.
const GAPS_SHOWN: usize = 100;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let path = warp::path!("api" / "v1" / "shops" / Segment / "completeness").map(|Segment(id)| id).boxed();
    let at = |name, scope| Endpoint { name, scope, media_type: JSON };
    let show = path.clone().and(get_or_head()).boxed();
    let close = path.and(warp::post()).boxed();
    endpoint(api, at("show completeness", RequiredScope::Read), show, show_completeness)
        .or(endpoint(api, at("close gaps", RequiredScope::Admin), close, close_gaps))
        .unify()
        .boxed()
}

#[derive(Serialize)]
struct CompletenessForm {
    shop_id: String,
    /// Whether every resource is complete.
    complete: bool,
    resources: Vec<ResourceCompletenessForm>,
}

#[derive(Serialize)]
struct ResourceCompletenessForm {
    #[serde(serialize_with = "clock::serialize_opt")]
    full_walk_at: Option<Millis>,
    #[serde(flatten)]
    counts: Completeness,
}

async fn show_completeness(api: Arc<Api>, call: Call, shop_id: String) -> ApiResult {
    call.params(&[])?;
    if !call.grant.sees(&shop_id) {
        return Err(Problem::not_found());
    }
    let found = api.service.completeness(&shop_id).await?.ok_or_else(Problem::not_found)?;
    Reply::json(&completeness_form(shop_id, found))
}

/// The JSON form of a shop's completeness; also printed by commands.
pub(crate) fn completeness_form(shop_id: String, found: Vec<Completeness>) -> impl Serialize {
    let complete = found.iter().all(Completeness::is_complete);
    let form = |mut counts: Completeness| {
        counts.gaps.truncate(GAPS_SHOWN);
        ResourceCompletenessForm { full_walk_at: counts.full_walk_at, counts }
    };
    CompletenessForm { shop_id, complete, resources: found.into_iter().map(form).collect() }
}

/// Number of documents queued for re-fetch.
#[derive(Serialize)]
struct QueuedForm {
    asked: u64,
}

async fn close_gaps(api: Arc<Api>, call: Call, shop_id: String) -> ApiResult {
    api.has_shop(&call.grant, &shop_id)?;
    let (grant, fields) = call.fields(&api.limits).await?;
    fields.finish()?;
    let asked = api.service.close_gaps(&shop_id).await?.ok_or_else(Problem::not_found)?;
    tracing::info!(shop.id = %shop_id, key.id = %grant.key_id, asked, "queued missing documents for re-fetch");
    Reply::json_with(StatusCode::ACCEPTED, &QueuedForm { asked })
}
