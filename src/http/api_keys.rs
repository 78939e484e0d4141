//! `/api/v1/keys`: creates, lists and revokes API keys. Only for admin keys, which see all shops.

use std::sync::Arc;

use secrecy::ExposeSecret;
use serde::Serialize;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::auth::RequiredScope;
use super::backend::{KeyView, NewKey, Scope};
use super::query::Segment;
use super::reply::{ApiResult, Page, Problem, Reply};
use super::validation::{self, KEY_DAYS_MAX, SHOPS_MAX};
use super::{Api, Call, Endpoint, JSON, endpoint, get_or_head};
use crate::domain::clock::{self, Millis};

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

/// JSON form of a key; `key` is set only in the response that created it.
#[derive(Serialize)]
struct KeyForm<'a> {
    id: String,
    name: String,
    scope: Scope,
    shops: Option<Vec<String>>,
    #[serde(serialize_with = "clock::serialize")]
    created_at: Millis,
    #[serde(serialize_with = "clock::serialize_opt")]
    expires_at: Option<Millis>,
    #[serde(serialize_with = "clock::serialize_opt")]
    last_used_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl KeyForm<'_> {
    fn new(view: KeyView, key: Option<&str>) -> KeyForm<'_> {
        KeyForm {
            id: view.id,
            name: view.name,
            scope: view.scope,
            shops: view.shops,
            created_at: view.created_at,
            expires_at: view.expires_at,
            last_used_at: view.last_used_at,
            key,
        }
    }
}

/// The JSON form of a key; also printed by commands. `key` is its text, if it was just created.
pub(crate) fn key_form(view: KeyView, key: Option<&str>) -> impl Serialize {
    KeyForm::new(view, key)
}

async fn list_keys(api: Arc<Api>, call: Call, (): ()) -> ApiResult {
    call.params(&[])?;
    let keys = api.backend.list_keys().await?;
    let items = keys.into_iter().map(|view| KeyForm::new(view, None)).collect();
    Reply::json(&Page { items, next_cursor: None })
}

async fn create_key(api: Arc<Api>, call: Call, (): ()) -> ApiResult {
    let (grant, mut fields) = call.fields(&api.limits).await?;
    let name = fields.take_text("name", validation::name);
    let name = fields.require("name", name);
    let scope = fields.take_choice("scope", &SCOPES).unwrap_or(Scope::Read);
    let shops = fields.take_list("shops", SHOPS_MAX, validation::id);
    let expires_days = fields.take_number("expires_days", 1..=KEY_DAYS_MAX);
    fields.finish()?;
    let minted = api.backend.create_key(NewKey { name, scope, shops, expires_days }).await?;
    tracing::info!(key.id = %minted.view.id, by = %grant.key_id, ?scope, "created an api key");
    Reply::json_with(StatusCode::CREATED, &KeyForm::new(minted.view, Some(minted.key.expose_secret())))
}

async fn revoke_key(api: Arc<Api>, call: Call, key_id: String) -> ApiResult {
    call.params(&[])?;
    if !api.backend.revoke_key(&key_id).await? {
        return Err(Problem::not_found());
    }
    tracing::info!(key.id = %key_id, by = %call.grant.key_id, "revoked an api key");
    Reply::empty()
}
