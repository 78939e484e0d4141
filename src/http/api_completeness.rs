//! `/api/v1/shops/{shop_id}/completeness`: whether all that was listed is there, and closing what is not.

use std::sync::Arc;

use serde::Serialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::auth::Need;
use super::query::Segment;
use super::reply::{Outcome, Problem, Reply, time_opt};
use super::{Api, Call, Endpoint, JSON, guarded, reads};
use crate::domain::Completeness;
use crate::domain::clock::Millis;

/// Gaps named in one answer; all are counted.
const GAPS_SHOWN: usize = 100;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let path = warp::path!("api" / "v1" / "shops" / Segment / "completeness").map(|Segment(id)| id).boxed();
    let at = |name, need| Endpoint { name, need, gives: JSON };
    let show = path.clone().and(reads()).boxed();
    let close = path.and(warp::post()).boxed();
    guarded(api, at("show completeness", Need::Read), show, show_completeness)
        .or(guarded(api, at("close gaps", Need::Admin), close, close_gaps))
        .unify()
        .boxed()
}

#[derive(Serialize)]
struct Form {
    shop_id: String,
    /// Of every resource.
    complete: bool,
    resources: Vec<ResourceForm>,
}

#[derive(Serialize)]
struct ResourceForm {
    #[serde(serialize_with = "time_opt")]
    full_walk_at: Option<Millis>,
    #[serde(flatten)]
    counts: Completeness,
}

async fn show_completeness(api: Arc<Api>, call: Call, shop_id: String) -> Outcome {
    call.params(&[])?;
    if !call.grant.sees(&shop_id) {
        return Err(Problem::not_found());
    }
    let found = api.backend.completeness(&shop_id).await?.ok_or_else(Problem::not_found)?;
    Reply::json(&completeness_form(shop_id, found))
}

/// What the API shows of a shop's completeness, for commands that print the same.
pub(crate) fn completeness_form(shop_id: String, found: Vec<Completeness>) -> impl Serialize {
    let complete = found.iter().all(Completeness::is_complete);
    let form = |mut counts: Completeness| {
        counts.gaps.truncate(GAPS_SHOWN);
        ResourceForm { full_walk_at: counts.full_walk_at, counts }
    };
    Form { shop_id, complete, resources: found.into_iter().map(form).collect() }
}

/// How much was asked for again.
#[derive(Serialize)]
struct Asked {
    asked: u64,
}

async fn close_gaps(api: Arc<Api>, call: Call, shop_id: String) -> Outcome {
    api.has_shop(&call.grant, &shop_id).await?;
    let (grant, fields) = call.fields(&api.limits).await?;
    fields.done()?;
    let asked = api.backend.close_gaps(&shop_id).await?.ok_or_else(Problem::not_found)?;
    tracing::info!(shop.id = %shop_id, key.id = %grant.key_id, asked, "closes gaps");
    Reply::json_with(StatusCode::ACCEPTED, &Asked { asked })
}
