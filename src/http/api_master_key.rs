//! `/api/v1/master-key`: which master key is in use, and its rotation.

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
use super::reply::{ApiResult, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::service::{MasterKeyView, RotationView};

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let show = warp::path!("api" / "v1" / "master-key").map(|| ()).and(get_or_head()).boxed();
    let rotate = warp::path!("api" / "v1" / "master-key" / "rotation").map(|| ()).and(warp::post()).boxed();
    let at = |name| Endpoint { name, scope: RequiredScope::AdminAll, media_type: JSON };
    endpoint(api, at("show master key"), show, show_master_key)
        .or(endpoint(api, at("rotate master key"), rotate, rotate_master_key))
        .unify()
        .boxed()
}

/// The master key in use, and how far its rotation is.
#[derive(Serialize, ToSchema)]
#[schema(as = MasterKey)]
pub(super) struct MasterKeyForm {
    /// Names the key that wraps the data keys, without revealing it.
    id: String,
    /// Null: none is under way.
    #[schema(required)]
    rotation: Option<RotationForm>,
    /// What is left to do for the operator after a rotation.
    #[schema(required)]
    to_do: Option<String>,
}

/// A rotation that is not finished. The old key opens the data directory no more; the rows of MySQL follow.
#[derive(Serialize, ToSchema)]
#[schema(as = Rotation)]
pub(super) struct RotationForm {
    /// Rows of shops in MySQL.
    #[schema(required)]
    rows: Option<u64>,
    /// Those that the old key still seals.
    #[schema(required)]
    rows_left: Option<u64>,
    /// Why it does not go on now.
    #[schema(required)]
    error: Option<String>,
}

/// The JSON form of the master key's state; also printed by commands.
pub(crate) fn master_key_form(view: MasterKeyView) -> impl Serialize {
    let MasterKeyView { id, rotation, to_do } = view;
    let rotation = rotation.map(|RotationView { rows, error }| {
        let (rows, rows_left) = rows.unzip();
        RotationForm { rows, rows_left, error }
    });
    MasterKeyForm { id, rotation, to_do }
}

async fn show_master_key(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    request.params(&[])?;
    Reply::json(&master_key_form(api.service.master_key()))
}

async fn rotate_master_key(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let (grant, fields) = request.fields(&api.limits).await?;
    fields.finish()?;
    let view = api.service.rotate_master_key().await?;
    tracing::warn!(id = view.id, key.id = %grant.key_id, "the master key is being rotated on request");
    Reply::json_with(StatusCode::ACCEPTED, &master_key_form(view))
}
