//! `/api/v1/calls`: calls to the marketplace by day, rate rule and status class.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint};
use super::reply::{ApiResult, Problem, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::domain::Timestamp;
use crate::domain::calls::{CallCounts, CallDay, CallStatus};
use crate::domain::clock;
use crate::service::CALL_DAYS_KEPT;

/// Default number of days.
const DAYS_DEFAULT: u64 = 7;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let calls = warp::path!("api" / "v1" / "calls").and(get_or_head()).map(|| ()).boxed();
    endpoint(api, Endpoint { name: "calls", scope: RequiredScope::ReadAll, media_type: JSON }, calls, list_calls)
}

/// Calls by day and rate rule.
#[derive(Serialize, ToSchema)]
#[schema(as = Calls)]
pub(super) struct CallsForm<'a> {
    /// When counting began. Null: no call was made yet.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    since: Option<Timestamp>,
    items: Vec<CallDayForm<'a>>,
}

/// The calls of one rule on one day.
#[derive(Serialize, ToSchema)]
#[schema(as = CallDay)]
struct CallDayForm<'a> {
    /// Midnight UTC of the day.
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    day: Timestamp,
    rule: &'a str,
    calls: u64,
    /// By status class, 429 separately; `none`: no response began. Zero counts are left out.
    #[schema(value_type = BTreeMap<CallStatus, u64>)]
    statuses: &'a CallCounts,
}

async fn list_calls(api: Arc<Api>, request: ApiRequest, (): ()) -> ApiResult {
    let params = request.params(&["days"])?;
    let days = params.get("days").map_or(Some(DAYS_DEFAULT), |text| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|days| digits && (1..=CALL_DAYS_KEPT).contains(days))
    });
    let days =
        days.ok_or_else(|| Problem::parameter("days", format!("must be a whole number from 1 to {CALL_DAYS_KEPT}")))?;
    let (since, found) = api.service.calls(days)?;
    Reply::json(&CallsForm { since, items: found.iter().map(form).collect() })
}

fn form(day: &CallDay) -> CallDayForm<'_> {
    CallDayForm { day: day.day, rule: &day.rule, calls: day.counts.total(), statuses: &day.counts }
}
