//! `/api/v1/shops/{shop_id}/completeness`: compares listed documents with the sink, and repairs what is missing.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint};
use super::query::Segment;
use super::reply::{ApiResult, Problem, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::domain::{Completeness, ShopId};

/// Most gaps named in one response; all are counted.
const GAPS_SHOWN: usize = 100;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let path = warp::path!("api" / "v1" / "shops" / Segment / "completeness").map(|Segment(id)| id).boxed();
    let at = |name, scope| Endpoint { name, scope, media_type: JSON };
    let show = path.clone().and(get_or_head()).boxed();
    let by_post = path.and(warp::post()).boxed();
    endpoint(api, at("show completeness", RequiredScope::Read), show, show_completeness)
        .or(endpoint(api, at("close gaps", RequiredScope::Admin), by_post, repair))
        .unify()
        .boxed()
}

/// Compares what was listed with what the sink holds.
#[derive(Serialize, ToSchema)]
#[schema(as = Completeness)]
pub(super) struct CompletenessForm {
    #[schema(value_type = String)]
    shop_id: ShopId,
    complete: bool,
    /// For each: listed = in_sink + pending + parked + gone + missing. Without a full walk a resource is not complete.
    resources: Vec<Completeness>,
}

async fn show_completeness(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    request.params(&[])?;
    if !request.grant.sees(&shop_id) {
        return Err(Problem::not_found());
    }
    let found = api.service.completeness(&shop_id).await?.ok_or_else(Problem::not_found)?;
    Reply::json(&completeness_form(shop_id.into(), found))
}

/// The JSON form of a shop's completeness; also printed by commands.
pub(crate) fn completeness_form(shop_id: ShopId, mut resources: Vec<Completeness>) -> impl Serialize {
    let complete = resources.iter().all(Completeness::is_complete);
    for resource in &mut resources {
        resource.gaps.truncate(GAPS_SHOWN);
        resource.lost_documents.truncate(GAPS_SHOWN);
    }
    CompletenessForm { shop_id, complete, resources }
}

/// Number of documents queued to be sent again or re-read.
#[derive(Serialize, ToSchema)]
#[schema(as = Asked)]
pub(super) struct QueuedForm {
    asked: u64,
}

async fn repair(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    api.has_shop(&request.grant, &shop_id)?;
    let (grant, fields) = request.fields(&api.limits).await?;
    fields.finish()?;
    let asked = api.service.repair(&shop_id).await?.ok_or_else(Problem::not_found)?;
    tracing::info!(shop.id = %shop_id, key.id = %grant.key_id, asked, "queued missing documents to be sent again or re-read");
    Reply::json_with(StatusCode::ACCEPTED, &QueuedForm { asked })
}
