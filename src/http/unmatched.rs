//! The last route: what no endpoint matches.

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, endpoint, sync_handler};
use super::reply::{ApiResult, Problem, ProblemKind};
use super::request::ApiRequest;
use crate::catalog;

/// The last route: 404, or 405 with the methods that the path supports.
pub(super) fn route(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let matching = warp::any().map(|| ()).boxed();
    endpoint(
        api,
        Endpoint { name: "unmatched", scope: RequiredScope::Read, media_type: None },
        matching,
        sync_handler(unmatched),
    )
}

fn unmatched(api: &Api, request: &ApiRequest) -> ApiResult {
    match api.description.allowed(&request.head.path) {
        // The path supports the method but did not match: it holds an id that is not UTF-8.
        Some(allow) if !allow.split(", ").any(|method| method == request.head.method.as_str()) => {
            Err(Problem::method_not_allowed(allow))
        }
        _ => Err(in_catalog_only(api, &request.head.path).unwrap_or_else(Problem::not_found)),
    }
}

/// 404 for a resource that ships with Waybill and is not configured.
fn in_catalog_only(api: &Api, path: &str) -> Option<Problem> {
    let name = path.strip_prefix("/api/v1/")?;
    let name = name.split('/').next()?;
    let is_missing = catalog::ships(name) && api.definition(name).is_none();
    let detail =
        || format!("`{name}` is in the catalog, but not among `resources` of the configuration, so it is not synced");
    is_missing.then(|| Problem::new(ProblemKind::NotFound, detail()))
}
