//! The status of the installation, as callers see it.

use std::collections::HashSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::clock;
use crate::domain::health::{Level, Reason};
use crate::domain::{ShopId, Timestamp};

/// The shops and accounts that a restricted key may see in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusScope {
    pub shops: HashSet<ShopId>,
    pub accounts: HashSet<String>,
}

/// The status of the installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Status {
    /// Nothing to do now: no open run, no due job, an empty outbox. For a key that is limited to shops: for these shops.
    pub idle: bool,
    pub open_runs: u64,
    /// Due now, or failed and to be retried; for a key that is limited to shops, due now.
    pub pending_jobs: u64,
    /// Delayed: retries, and later reads of documents that may change. Null: counted for all shops, and the key is limited.
    #[schema(required)]
    pub waiting_jobs: Option<u64>,
    pub leased_jobs: u64,
    /// Entries waiting for the sink. Null as `waiting_jobs`.
    #[schema(required)]
    pub outbox: Option<u64>,
    /// Null as `waiting_jobs`.
    #[schema(required)]
    pub outbox_bytes: Option<u64>,
    pub parked: u64,
    /// Calls to the marketplace since `calls_since`, over all restarts; without logins. Null as `waiting_jobs`.
    #[schema(required)]
    pub calls: Option<u64>,
    /// Of the calls, those answered 429. Null as `waiting_jobs`.
    #[schema(required)]
    pub refused_429: Option<u64>,
    /// Logins since `calls_since`. Null as `waiting_jobs`.
    #[schema(required)]
    pub logins: Option<u64>,
    /// When counting began. Null: no call was made yet, or as `waiting_jobs`.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub calls_since: Option<Timestamp>,
    /// Blocked budgets first, then those with the most calls in flight or in their window.
    #[schema(max_items = 200)]
    pub budgets: Vec<BudgetStatus>,
    /// Number of budgets that are not shown.
    pub budgets_left_out: u64,
    pub sink: SinkStatus,
    /// No login before then: the login host blocks this address or asked to wait. Null: logins are not paused.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub logins_paused_until: Option<Timestamp>,
    /// Streams whose last run is so long ago that rows may soon leave the API's history; the first hundred.
    pub overdue: Vec<Overdue>,
    pub shops: ShopCounts,
    pub health: HealthView,
    pub version: String,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    pub started_at: Timestamp,
}

/// Health of the installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct HealthView {
    pub level: Level,
    /// Worst first.
    #[schema(max_items = 200)]
    pub reasons: Vec<Reason>,
}

/// Most budgets in one status; with thousands of shops all of them would be megabytes.
pub const BUDGETS_SHOWN_MAX: usize = 200;

/// The slots of one rate rule for one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct BudgetStatus {
    pub account: String,
    pub rule: String,
    /// Null: unlimited.
    #[schema(required)]
    pub limit: Option<u32>,
    #[schema(required)]
    pub window_s: Option<f64>,
    pub in_flight: u32,
    /// Used slots that are not free again yet.
    pub cooling: u32,
    /// Null: unlimited.
    #[schema(required)]
    pub available: Option<u32>,
    /// Jobs that wait for a slot.
    pub waiting: u64,
    pub blocked_for_ms: u64,
    /// When the next slot is free, if all are in use.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub next_free_at: Option<Timestamp>,
}

/// A stream whose last run is too long ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Overdue {
    #[schema(value_type = String)]
    pub shop_id: ShopId,
    /// Shop, resource and list parameters.
    pub stream: String,
    /// Null: never.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub walked_at: Option<Timestamp>,
}

/// Status of the sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SinkStatus {
    /// `mysql` or `archive`.
    pub kind: String,
    pub healthy: bool,
    #[schema(required)]
    pub error: Option<String>,
    /// Resources of the archive whose index is being built: until it is complete, filters read every document.
    pub indexing: Vec<String>,
}

/// Shops by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShopCounts {
    pub active: u64,
    pub paused: u64,
    pub refused: u64,
}
