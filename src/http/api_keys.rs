//! `/api/v1/keys`: creates, lists and revokes API keys. Only for admin keys, which see all shops.

use std::sync::Arc;

use secrecy::ExposeSecret;
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
use super::reply::{ApiResult, PageForm, Problem, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::domain::clock;
use crate::domain::{ShopId, Timestamp};
use crate::service::validation::{self, KEY_DAYS_MAX, SHOPS_MAX};
use crate::service::{KeyView, MintedKey, NewKey, Scope};

/// Values of `scope`.
pub(super) const SCOPES: [(&str, Scope); 2] = [("read", Scope::Read), ("admin", Scope::Admin)];

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let all = warp::path!("api" / "v1" / "keys").map(|| ()).boxed();
    let one = warp::path!("api" / "v1" / "keys" / Segment).map(|Segment(id)| id);
    let at = |name| Endpoint { name, scope: RequiredScope::AdminAll, media_type: JSON };
    let list = all.clone().and(get_or_head()).boxed();
    let create = all.and(warp::post()).boxed();
    let revoke = one.and(warp::delete()).boxed();
    endpoint(api, at("list keys"), list, list_keys)
        .or(endpoint(api, at("create key"), create, create_key))
        .unify()
        .or(endpoint(api, Endpoint { media_type: None, ..at("revoke key") }, revoke, revoke_key))
        .unify()
        .boxed()
}

/// An API key, without its text.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(super) struct KeyForm {
    id: String,
    name: String,
    scope: Scope,
    /// Null: all shops.
    #[schema(required, value_type = Option<Vec<String>>)]
    shops: Option<Vec<ShopId>>,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    created_at: Timestamp,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    expires_at: Option<Timestamp>,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    last_used_at: Option<Timestamp>,
}

/// An API key that was just created.
#[derive(Serialize, ToSchema)]
#[schema(as = MintedKey)]
pub(super) struct MintedKeyForm<'a> {
    #[serde(flatten)]
    view: KeyForm,
    /// The text of the key; shown only once.
    key: &'a str,
}

impl From<KeyView> for KeyForm {
    fn from(view: KeyView) -> KeyForm {
        let KeyView { key: record, last_used_at } = view;
        KeyForm {
            id: record.id,
            name: record.name,
            scope: record.scope,
            shops: record.shops,
            created_at: record.created_at,
            expires_at: record.expires_at,
            last_used_at,
        }
    }
}

/// The JSON form of a key; also printed by commands.
pub(crate) fn key_form(view: KeyView) -> impl Serialize {
    KeyForm::from(view)
}

/// The JSON form of a key that was just created, with its text; also printed by commands.
pub(crate) fn minted_key_form(minted: &MintedKey) -> impl Serialize {
    let view = KeyForm::from(KeyView { key: minted.key.clone(), last_used_at: None });
    MintedKeyForm { view, key: minted.text.expose_secret() }
}

async fn list_keys(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    request.params(&[])?;
    let keys = api.service.list_keys()?;
    let items = keys.into_iter().map(key_form).collect();
    Reply::json(&PageForm { items, next_cursor: None })
}

async fn create_key(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let (grant, mut fields) = request.fields(&api.limits).await?;
    let name = fields.take_text("name", validation::name);
    let name = fields.require("name", name);
    let scope = fields.take_choice("scope", &SCOPES).unwrap_or(Scope::Read);
    let shops = fields.take_list("shops", SHOPS_MAX, validation::id);
    let expires_days = fields.take_number("expires_days", 1..=KEY_DAYS_MAX);
    fields.finish()?;
    let minted = api.service.create_key(NewKey { name, scope, shops, expires_days }).await?;
    tracing::info!(key.id = %minted.key.id, by = %grant.key_id, scope = scope.as_str(), "created an api key");
    Reply::json_with(StatusCode::CREATED, &minted_key_form(&minted))
}

async fn revoke_key(api: Arc<Api>, request: ApiRequest, key_id: String) -> ApiResult {
    request.params(&[])?;
    if !api.service.revoke_key(&key_id).await? {
        return Err(Problem::not_found());
    }
    tracing::info!(key.id = %key_id, by = %request.grant.key_id, "revoked an api key");
    Reply::empty()
}
