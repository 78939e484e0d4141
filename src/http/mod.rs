//! The REST API, its OpenAPI description, and two HTML pages.
//!
//! `app` calls [`serve`]; tests call [`routes`]. All data comes from a [`Service`]. Each endpoint is a triple: a
//! filter (which requests match), a plain async fn (the handler), and `endpoint`, which authorizes the caller, bounds
//! the time and builds the response.
//!
//! What always holds:
//! - The key is checked before anything else of the request, so a caller without one cannot probe what exists.
//! - An error is a value (`Problem`), not a warp rejection. A rejection means "no match"; a request that matches no
//!   route ends in `unmatched`, which looks up in the OpenAPI description whether it is a 404 or a 405.
//! - Everything is bounded: connections, heads, URIs, bodies, waits for the client, response time, shutdown. See
//!   [`ServerLimits`].
//! - The client of a request is its peer, or what trusted proxies say (`forwarded`): limits and logs name no other.
//! - No secret, query or path of a request is logged; routes are logged by name.

mod accept;
mod api;
mod api_adoptions;
mod api_calls;
mod api_completeness;
mod api_documents;
mod api_keys;
mod api_master_key;
mod api_resources;
mod api_runs;
mod api_shops;
mod auth;
mod body;
mod connection_limits;
mod cursor;
mod description;
mod detached;
mod endpoint;
mod filters;
mod forwarded;
mod health;
mod idempotency;
mod in_flight_keys;
mod limits;
mod openapi;
mod params;
mod parse_errors;
mod query;
mod reply;
mod request;
mod resource_health;
mod server;
mod standby;
mod static_files;
mod unmatched;

use std::future::Future;
use std::sync::Arc;

use tokio::net::TcpListener;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

pub(crate) use api_completeness::completeness_form;
pub(crate) use api_keys::{key_form, minted_key_form};
pub(crate) use api_master_key::master_key_form;
pub(crate) use api_runs::run_form;
pub(crate) use api_shops::shop_forms;
pub use forwarded::TrustedProxies;
pub use limits::{RateLimit, ServerLimits};

use crate::service::Service;
use api::Api;

/// Serves the API until `shutdown` completes, then drains open requests for at most `limits.drain_time_max`.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    limits: ServerLimits,
    proxies: TrustedProxies,
    shutdown: impl Future<Output = ()>,
) {
    server::run(listener, routes(service, limits), limits, proxies, shutdown).await;
}

/// Serves `/metrics`, `/livez` and `/readyz` without a key; bounds and shutdown as in [`serve`].
pub async fn serve_metrics(
    listener: TcpListener,
    service: Service,
    limits: ServerLimits,
    proxies: TrustedProxies,
    shutdown: impl Future<Output = ()>,
) {
    server::run(listener, health::keyless_routes(api(service, limits)), limits, proxies, shutdown).await;
}

/// Answers for a standby until `shutdown` completes: alive, and not ready; bounds as in [`serve`].
pub async fn serve_standby(listener: TcpListener, limits: ServerLimits, shutdown: impl Future<Output = ()>) {
    let proxies = TrustedProxies::new(Vec::new());
    server::run(listener, standby::routes(), limits, proxies, shutdown).await;
}

/// All routes; never rejects.
pub fn routes(service: Service, limits: ServerLimits) -> BoxedFilter<(Response,)> {
    let api = api(service, limits);
    health::routes(&api)
        .or(static_files::routes())
        .unify()
        .or(api_completeness::routes(&api))
        .unify()
        .or(api_shops::routes(&api))
        .unify()
        .or(api_adoptions::routes(&api))
        .unify()
        .or(api_keys::routes(&api))
        .unify()
        .or(api_master_key::routes(&api))
        .unify()
        .or(api_runs::routes(&api))
        .unify()
        .or(api_calls::routes(&api))
        .unify()
        .or(api_resources::routes(&api))
        .unify()
        .or(api_documents::routes(&api))
        .unify()
        .or(unmatched::route(&api))
        .unify()
        .boxed()
}

fn api(service: Service, limits: ServerLimits) -> Arc<Api> {
    let description = openapi::description(service.definitions());
    Arc::new(Api::new(service, limits, description))
}
