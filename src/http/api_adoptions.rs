//! `/api/v1/adoptions`: lists the shops of MySQL that could not be restored, and gives one its old id.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;

use super::api::Api;
use super::api_shops::shop_form;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint};
use super::reply::{ApiResult, PageForm, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::domain::ShopId;
use crate::service::validation;
use crate::service::{Adoption, UnrestoredShop};

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let all = warp::path!("api" / "v1" / "adoptions").map(|| ()).boxed();
    let at = |name| Endpoint { name, scope: RequiredScope::AdminAll, media_type: JSON };
    let list = all.clone().and(get_or_head()).boxed();
    let adopt = all.and(warp::post()).boxed();
    endpoint(api, at("list adoptions"), list, list_adoptions)
        .or(endpoint(api, at("adopt shop"), adopt, adopt_shop))
        .unify()
        .boxed()
}

/// A shop of MySQL that could not be restored.
#[derive(Serialize, ToSchema)]
#[schema(as = Adoption)]
pub(super) struct AdoptionForm {
    #[schema(value_type = String)]
    shop_id: ShopId,
    name: String,
    /// As its row says.
    client_id: String,
    /// What is wrong with its row.
    fault: String,
}

impl From<UnrestoredShop> for AdoptionForm {
    fn from(shop: UnrestoredShop) -> AdoptionForm {
        let UnrestoredShop { id, name, client_id, fault } = shop;
        AdoptionForm { shop_id: id, name, client_id, fault }
    }
}

async fn list_adoptions(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    request.params(&[])?;
    let items: Vec<AdoptionForm> = api.service.unrestored_shops()?.into_iter().map(AdoptionForm::from).collect();
    Reply::json(&PageForm { items, next_cursor: None })
}

async fn adopt_shop(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let (grant, mut fields) = request.fields(&api.limits).await?;
    let shop_id = fields.take_text("shop_id", validation::id);
    let client_id = fields.take_text("client_id", validation::id);
    let client_secret = fields.take_secret("client_secret", validation::secret);
    let shop_id = fields.require("shop_id", shop_id);
    let client_secret = fields.require("client_secret", client_secret);
    fields.finish()?;
    let shop = api.service.adopt_shop(Adoption { shop_id, client_id, client_secret }).await?;
    tracing::info!(shop.id = %shop.id, key.id = %grant.key_id, "adopted a shop on request");
    Reply::json_with(StatusCode::CREATED, &shop_form(&api, shop)?)
}
