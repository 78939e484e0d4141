//! `/api/v1/shops`: registers, shows, changes, deletes and syncs shops.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::http::header::{HeaderValue, LOCATION};
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::body::BodyFields;
use super::endpoint::{Endpoint, JSON, endpoint};
use super::query::{LIMIT_MAX, Segment};
use super::reply::{ApiResult, PageForm, Problem, ProblemKind, Reply};
use super::request::{ApiRequest, get_or_head};
use super::resource_health::ResourceHealthForm;
use crate::catalog::Definition;
use crate::domain::clock;
use crate::domain::health::ResourceHealth;
use crate::domain::{Mode, RunId, Shop, ShopId, ShopState, Timestamp};
use crate::service::validation::{self, RESOURCES_MAX};
use crate::service::{NewShop, Service, ServiceError, ShopPatch};

/// Values of `mode`.
pub(super) const MODES: [(&str, Mode); 2] = [("incremental", Mode::Incremental), ("full", Mode::Full)];

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let all = warp::path!("api" / "v1" / "shops").map(|| ()).boxed();
    let one = warp::path!("api" / "v1" / "shops" / Segment).map(|Segment(id)| id).boxed();
    let sync = warp::path!("api" / "v1" / "shops" / Segment / "sync").map(|Segment(id)| id);
    let at = |name, scope| Endpoint { name, scope, media_type: JSON };

    let list = all.clone().and(get_or_head()).boxed();
    let create = all.and(warp::post()).boxed();
    let show = one.clone().and(get_or_head()).boxed();
    let update = one.clone().and(warp::patch()).boxed();
    let delete = one.and(warp::delete()).boxed();
    let sync = sync.and(warp::post()).boxed();

    endpoint(api, at("list shops", RequiredScope::Read), list, list_shops)
        .or(endpoint(api, at("create shop", RequiredScope::AdminAll), create, create_shop))
        .unify()
        .or(endpoint(api, at("show shop", RequiredScope::Read), show, show_shop))
        .unify()
        .or(endpoint(api, at("update shop", RequiredScope::Admin), update, update_shop))
        .unify()
        .or(endpoint(
            api,
            Endpoint { media_type: None, ..at("delete shop", RequiredScope::Admin) },
            delete,
            delete_shop,
        ))
        .unify()
        .or(endpoint(api, at("sync shop", RequiredScope::Admin), sync, sync_shop))
        .unify()
        .boxed()
}

/// One seller registration. Never contains the secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Shop)]
pub(super) struct ShopForm {
    #[schema(value_type = String)]
    id: ShopId,
    name: String,
    client_id: String,
    /// The account whose call budget it uses.
    account: String,
    resources: Vec<String>,
    /// It syncs all configured resources, including ones added later; `resources` lists the present ones.
    all_resources: bool,
    state: ShopState,
    /// Why it is not active.
    #[schema(required)]
    reason: Option<String>,
    client_secret_set: bool,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    created_at: Timestamp,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    updated_at: Timestamp,
    resources_health: Vec<ResourceHealthForm>,
}

impl ShopForm {
    fn new(configured: &[Arc<Definition>], shop: Shop, health: Vec<ResourceHealth>) -> ShopForm {
        let configured = configured.iter().filter(|_| shop.resources.is_empty());
        let all: Vec<String> = configured.map(|definition| definition.name.clone()).collect();
        ShopForm {
            all_resources: shop.resources.is_empty(),
            resources: if shop.resources.is_empty() { all } else { shop.resources },
            id: shop.id,
            name: shop.name,
            client_id: shop.client_id,
            account: shop.account,
            state: shop.state,
            reason: shop.reason,
            client_secret_set: true,
            created_at: shop.created_at,
            updated_at: shop.updated_at,
            resources_health: health.into_iter().map(ResourceHealthForm::from).collect(),
        }
    }
}

/// The JSON forms of shops with their health; also printed by commands.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn shop_forms(service: &Service, shops: Vec<Shop>) -> Result<Vec<impl Serialize>, ServiceError> {
    let configured = service.definitions();
    let health = service.shops_health(&shops.iter().map(|shop| shop.id.clone()).collect())?;
    let mut of: HashMap<ShopId, Vec<ResourceHealth>> =
        health.into_iter().map(|shop| (shop.shop_id, shop.resources)).collect();
    let form = |shop: Shop| {
        let health = of.remove(&shop.id).unwrap_or_default();
        ShopForm::new(configured, shop, health)
    };
    Ok(shops.into_iter().map(form).collect())
}

pub(super) fn shop_form(api: &Api, shop: Shop) -> Result<impl Serialize, Problem> {
    shop_forms(&api.service, vec![shop])?.pop().ok_or_else(Problem::not_found)
}

async fn list_shops(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let params = request.params(&["limit", "cursor"])?;
    let limit = params.limit(LIMIT_MAX)?;
    let after = api.decode_cursor("shops", &params)?.and_then(|last| last.into_iter().next()).map(ShopId::from);
    let mut shops = api.service.shops()?;
    shops.retain(|shop| request.grant.sees(&shop.id) && after.as_ref().is_none_or(|after| shop.id > *after));
    shops.sort_by(|a, b| a.id.cmp(&b.id));
    let more = shops.len() > limit;
    shops.truncate(limit);
    let last = shops.last().filter(|_| more);
    let next_cursor = last.map(|shop| api.cursors.encode("shops", &params.filters(), &[&shop.id]));
    Reply::json(&PageForm { items: shop_forms(&api.service, shops)?, next_cursor })
}

async fn create_shop(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let (grant, mut fields) = request.fields(&api.limits).await?;
    let name = fields.take_text("name", validation::name);
    let client_id = fields.take_text("client_id", validation::id);
    let client_secret = fields.take_secret("client_secret", validation::secret);
    let account = fields.take_text("account", validation::id);
    let resources = take_resources(&api, &mut fields).unwrap_or_default();
    let name = fields.require("name", name);
    let client_id = fields.require("client_id", client_id);
    let client_secret = fields.require("client_secret", client_secret);
    fields.finish()?;
    let shop = api.service.create_shop(NewShop { name, client_id, client_secret, account, resources }).await?;
    tracing::info!(shop.id = %shop.id, key.id = %grant.key_id, "registered a shop");
    let location = HeaderValue::from_str(&format!("/api/v1/shops/{}", shop.id));
    let reply = Reply::json_with(StatusCode::CREATED, &shop_form(&api, shop)?)?;
    Ok(match location {
        Ok(location) => reply.with(LOCATION, location),
        // Ids are letters and digits; if one were not, the shop is registered all the same.
        Err(_) => reply,
    })
}

async fn show_shop(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    request.params(&[])?;
    if !request.grant.sees(&shop_id) {
        return Err(Problem::not_found());
    }
    let shop = api.service.shop(&shop_id)?.ok_or_else(Problem::not_found)?;
    Reply::json(&shop_form(&api, shop)?)
}

async fn update_shop(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    api.has_shop(&request.grant, &shop_id)?;
    let (grant, mut fields) = request.fields(&api.limits).await?;
    if fields.is_empty() {
        let what = "the body has no fields; give at least one of: name, client_secret, account, resources, paused";
        return Err(Problem::new(ProblemKind::Invalid, what));
    }
    let patch = ShopPatch {
        name: fields.take_text("name", validation::name),
        client_secret: fields.take_secret("client_secret", validation::secret),
        account: fields.take_text("account", validation::id),
        resources: match fields.take_null("resources") {
            true => Some(Vec::new()),
            false => take_resources(&api, &mut fields),
        },
        paused: fields.take_bool("paused"),
    };
    fields.finish()?;
    let changes_secret = patch.client_secret.is_some();
    let shop = api.service.update_shop(&shop_id, patch).await?.ok_or_else(Problem::not_found)?;
    tracing::info!(shop.id = %shop.id, key.id = %grant.key_id, changes_secret, "changed a shop");
    Reply::json(&shop_form(&api, shop)?)
}

async fn delete_shop(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    let purge = request.params(&["purge"])?.flag("purge")?;
    if !request.grant.sees(&shop_id) || !api.service.delete_shop(&shop_id, purge).await? {
        return Err(Problem::not_found());
    }
    tracing::info!(shop.id = %shop_id, key.id = %request.grant.key_id, purge, "deleted a shop");
    Reply::empty()
}

/// The runs to watch.
#[derive(Serialize, ToSchema)]
#[schema(as = SyncStarted)]
pub(super) struct StartedForm {
    run_ids: Vec<u64>,
}

async fn sync_shop(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    api.has_shop(&request.grant, &shop_id)?;
    let (grant, mut fields) = request.fields(&api.limits).await?;
    let resource = fields.take_text("resource", |_| Ok(()));
    if let Some(Err(message)) = resource.as_deref().map(|name| validation::resource(name, &api.definitions)) {
        fields.add_error("resource", message);
    }
    let mode = fields.take_choice("mode", &MODES).unwrap_or(Mode::Incremental);
    fields.finish()?;
    let run_ids = api.service.start_sync(&shop_id, resource.as_deref(), mode).await?;
    let run_ids: Vec<u64> = run_ids.into_iter().map(RunId::number).collect();
    tracing::info!(shop.id = %shop_id, key.id = %grant.key_id, ?run_ids, "started runs on request");
    Reply::json_with(StatusCode::ACCEPTED, &StartedForm { run_ids })
}

fn take_resources(api: &Api, fields: &mut BodyFields) -> Option<Vec<String>> {
    fields.take_list("resources", RESOURCES_MAX, |name| validation::resource(name, &api.definitions))
}
