//! `/api/v1/runs` and `/api/v1/parked`: progress of runs, and jobs that failed for good.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Type};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint};
use super::query::{LIMIT_DEFAULT, Params, Segment};
use super::reply::{ApiResult, PageForm, Problem, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::domain::clock;
use crate::domain::document::{Parked, RunView};
use crate::domain::{Mode, RunId, RunState, ShopId, Timestamp, Wait};
use crate::service::RunFilter;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let runs = warp::path!("api" / "v1" / "runs").and(get_or_head()).map(|| ()).boxed();
    let run = warp::path!("api" / "v1" / "runs" / Segment).and(get_or_head()).map(|Segment(id)| id).boxed();
    let parked = warp::path!("api" / "v1" / "parked").and(get_or_head()).map(|| ()).boxed();
    let retry =
        warp::path!("api" / "v1" / "parked" / Segment / "retry").and(warp::post()).map(|Segment(id)| id).boxed();
    let retry_all = warp::path!("api" / "v1" / "shops" / Segment / "parked" / "retry")
        .and(warp::post())
        .map(|Segment(id)| id)
        .boxed();
    let at = |name, scope| Endpoint { name, scope, media_type: JSON };
    endpoint(api, at("list runs", RequiredScope::Read), runs, list_runs)
        .or(endpoint(api, at("show run", RequiredScope::Read), run, show_run))
        .unify()
        .or(endpoint(api, at("list parked", RequiredScope::Read), parked, list_parked))
        .unify()
        .or(endpoint(
            api,
            Endpoint { media_type: None, ..at("retry parked", RequiredScope::AdminAll) },
            retry,
            retry_parked,
        ))
        .unify()
        .or(endpoint(api, at("retry all parked", RequiredScope::AdminAll), retry_all, retry_all_parked))
        .unify()
        .boxed()
}

/// One walk over a stream, and its progress.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
pub(super) struct RunForm {
    id: u64,
    #[schema(value_type = String)]
    shop_id: ShopId,
    resource: String,
    /// List parameters of its stream.
    #[schema(value_type = BTreeMap<String, String>)]
    parameters: Map<String, Value>,
    mode: Mode,
    state: RunState,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    started_at: Timestamp,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    ended_at: Option<Timestamp>,
    pages: u64,
    listed: u64,
    rejected: u64,
    new: u64,
    changed: u64,
    to_fetch: u64,
    fetched: u64,
    gone: u64,
    /// Its parked jobs and documents.
    parked: u64,
    pending: u64,
    written: u64,
    /// Of `parked`: documents that were fetched and that the sink refused. to_fetch = fetched + gone + pending +
    /// parked - refused.
    refused: u64,
    #[schema(required)]
    error: Option<String>,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    newest: Option<Timestamp>,
    passes: u32,
    /// The list changed while it was walked: the last pass still found rows that earlier ones had missed. The next run
    /// walks it completely again.
    drift: bool,
    /// Estimated end. Null: unknown, or it has ended.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    forecast_at: Option<Timestamp>,
    /// Estimated total number of pages, while it walks. Null: unknown.
    #[schema(required)]
    pages_expected: Option<u64>,
    /// Why an open run makes no calls now. Null: it makes calls, or has ended.
    #[schema(required)]
    waits_for: Option<Wait>,
}

impl From<RunView> for RunForm {
    fn from(view: RunView) -> RunForm {
        let (pending, parked, run) = (view.run.pending(), view.run.parked_in_all(), view.run);
        let parameters = run.stream.combination.0.into_iter().map(|(name, value)| (name, Value::String(value)));
        RunForm {
            id: run.id.number(),
            shop_id: run.stream.shop,
            resource: run.stream.resource,
            parameters: parameters.collect(),
            mode: run.mode,
            state: run.state,
            started_at: run.started_at,
            ended_at: run.ended_at,
            pages: run.pages,
            listed: run.listed,
            rejected: run.rejected,
            new: run.new,
            changed: run.changed,
            to_fetch: run.to_fetch,
            fetched: run.fetched,
            gone: run.gone,
            parked,
            pending,
            written: run.written,
            refused: run.refused,
            error: run.error,
            newest: run.newest,
            passes: run.pass.number,
            drift: run.list_moved,
            forecast_at: view.forecast_at,
            pages_expected: view.pages_expected,
            waits_for: view.waits_for,
        }
    }
}

async fn list_runs(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let params = request.params(&["shop", "resource", "state", "limit", "cursor"])?;
    let limit = params.limit(LIMIT_DEFAULT)?;
    let before = id_cursor(&api, "runs", &params)?.map(RunId::from_number);
    let filter = RunFilter {
        shops: request.grant.visible(params.get("shop")).map(BTreeSet::from_iter),
        resource: params.get("resource").map(str::to_owned),
        state: params.get("state").map(state).transpose()?,
    };
    let mut runs = match &filter.shops {
        Some(shops) if shops.is_empty() => Vec::new(),
        _ => api.service.runs(filter, before, limit + 1).await?,
    };
    let more = runs.len() > limit;
    runs.truncate(limit);
    let last = runs.last().filter(|_| more).map(|view| view.run.id.to_string());
    let next_cursor = last.map(|last| api.cursors.encode("runs", &params.filters(), &[&last]));
    Reply::json(&PageForm { items: runs.into_iter().map(RunForm::from).collect(), next_cursor })
}

fn state(text: &str) -> Result<RunState, Problem> {
    RunState::ALL.iter().find(|state| state.name() == text).copied().ok_or_else(|| {
        let names: Vec<&str> = RunState::ALL.iter().map(|state| state.name()).collect();
        Problem::parameter("state", format!("must be one of: {}", names.join(", ")))
    })
}

async fn show_run(api: Arc<Api>, request: ApiRequest, run_id: String) -> ApiResult {
    request.params(&[])?;
    let view = api.service.run(RunId::from_number(number(&run_id)?))?;
    let view = view.filter(|view| request.grant.sees(&view.run.stream.shop)).ok_or_else(Problem::not_found)?;
    Reply::json(&RunForm::from(view))
}

/// The JSON form of a run; also printed by commands.
pub(crate) fn run_form(view: RunView) -> impl Serialize {
    RunForm::from(view)
}

/// A job that failed after all attempts.
#[derive(Serialize, ToSchema)]
#[schema(as = Parked)]
pub(super) struct ParkedForm {
    id: u64,
    #[schema(value_type = String)]
    shop_id: ShopId,
    resource: String,
    #[schema(required)]
    document_id: Option<String>,
    #[schema(schema_with = jobs)]
    job: String,
    reason: String,
    attempts: u32,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    parked_at: Timestamp,
}

fn jobs() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["list_page", "fetch_detail", "sweep", "write"]))
        .build()
}

impl From<Parked> for ParkedForm {
    fn from(parked: Parked) -> ParkedForm {
        ParkedForm {
            id: parked.id,
            shop_id: parked.shop_id,
            resource: parked.resource,
            document_id: parked.document_id,
            job: parked.job,
            reason: parked.reason,
            attempts: parked.attempts,
            parked_at: parked.parked_at,
        }
    }
}

async fn list_parked(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let params = request.params(&["shop", "limit", "cursor"])?;
    let limit = params.limit(LIMIT_DEFAULT)?;
    let after = id_cursor(&api, "parked", &params)?;
    let mut parked = match request.grant.visible(params.get("shop")) {
        Some(shops) if shops.is_empty() => Vec::new(),
        shops => api.service.parked(shops, after, limit + 1).await?,
    };
    let more = parked.len() > limit;
    parked.truncate(limit);
    let last = parked.last().filter(|_| more).map(|parked| parked.id.to_string());
    let next_cursor = last.map(|last| api.cursors.encode("parked", &params.filters(), &[&last]));
    Reply::json(&PageForm { items: parked.into_iter().map(ParkedForm::from).collect(), next_cursor })
}

async fn retry_parked(api: Arc<Api>, request: ApiRequest, parked_id: String) -> ApiResult {
    let (grant, fields) = request.fields(&api.limits).await?;
    fields.finish()?;
    let parked_id = number(&parked_id)?;
    if !api.service.retry_parked(parked_id).await? {
        return Err(Problem::not_found());
    }
    tracing::info!(parked.id = parked_id, key.id = %grant.key_id, "requeued a parked job");
    Reply::empty()
}

/// Number of requeued jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = Retried)]
pub(super) struct RetriedForm {
    retried: u64,
}

async fn retry_all_parked(api: Arc<Api>, request: ApiRequest, shop_id: String) -> ApiResult {
    api.has_shop(&request.grant, &shop_id)?;
    let resource = request.params(&["resource"])?.get("resource").map(str::to_owned);
    let (grant, fields) = request.only_body(&api.limits).await?;
    fields.finish()?;
    let retried = api.service.retry_all_parked(&shop_id, resource.as_deref()).await?;
    tracing::info!(shop.id = %shop_id, key.id = %grant.key_id, resource, retried, "requeued parked jobs");
    Reply::json(&RetriedForm { retried })
}

/// The number of a run or parked job; 404 for anything else.
fn number(text: &str) -> Result<u64, Problem> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(Problem::not_found)
}

fn id_cursor(api: &Api, of: &str, params: &Params) -> Result<Option<u64>, Problem> {
    Ok(api.decode_cursor(of, params)?.and_then(|last| last.first()?.parse().ok()))
}
