//! The interface between the HTTP API and the rest of the program.
//!
//! `app` implements [`Backend`] over the store, the sink and the sync engine; tests implement it in memory.
//!
//! For every method: the future may be dropped at any await (client disconnect, timeout), and a change is then made
//! completely or not at all. What a result reports as done is durable. Shops that a key may not see are excluded in the
//! query, not afterwards.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::Serialize;

use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::domain::calls::CallDay;
use crate::domain::clock::{self, Millis};
use crate::domain::document::{Parked, RunView};
use crate::domain::health::{Level, Reason, ShopHealth};
use crate::domain::{Completeness, Mode, RunState, Shop};

/// Stored responses, in the form of the store.
pub use crate::store::{AnswerName, StoredResponse};

/// Documents, in the form of the sink.
pub use crate::sink::{Item as DocumentItem, ItemPage as DocumentPage};

/// The future of a backend method.
pub type BackendFuture<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// All operations that the HTTP API needs.
pub trait Backend: Send + Sync + 'static {
    /// The key of this installation that signs cursors: 32 random bytes.
    fn cursor_key(&self) -> [u8; 32];

    /// The configured resources. Read once, when the routes are built.
    fn resources(&self) -> Vec<Arc<Definition>>;

    /// The grant of an API key; none if it is unknown, expired or revoked. Compares digests in constant time. Called
    /// for every request, so it must not block.
    ///
    /// # Errors
    /// `Unavailable` when the keys cannot be read.
    fn verify_key(&self, key: &str) -> Result<Option<KeyGrant>, ApiError>;

    /// The response that was stored under a name in the last 24 h.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be read.
    fn load_response(&self, name: &AnswerName) -> Result<Option<StoredResponse>, ApiError>;

    /// Stores a response durably for 24 h, or less when there are very many.
    fn store_response(&self, name: AnswerName, answer: StoredResponse) -> BackendFuture<'_, ()>;

    /// Creates a key. Its text is returned only here; a stored response holds it sealed.
    ///
    /// # Errors
    /// `Invalid` for what [`NewKey::check`] rejects, and for an unknown shop.
    fn create_key(&self, key: NewKey) -> BackendFuture<'_, MintedKey>;

    /// All keys that are not revoked, oldest first.
    fn list_keys(&self) -> BackendFuture<'_, Vec<KeyView>>;

    /// Revokes a key from the next request on. False: no such key.
    fn revoke_key<'a>(&'a self, key_id: &'a str) -> BackendFuture<'a, bool>;

    /// Verifies the credentials, registers the shop and starts its first sync.
    ///
    /// # Errors `Invalid` for what [`NewShop::check`] rejects, `Conflict` for a client id that is registered already,
    /// `Refused` when the login host refuses the credentials, `LoginUnreachable` when it cannot be reached,
    /// `Unavailable` until the shops in MySQL are known.
    fn create_shop(&self, shop: NewShop) -> BackendFuture<'_, Shop>;

    /// All shops, in any order.
    fn shops(&self) -> BackendFuture<'_, Vec<Shop>>;

    /// The health of these shops; deleted ones are left out.
    fn shops_health(&self, of: HashSet<String>) -> BackendFuture<'_, Vec<ShopHealth>>;

    /// None: no such shop.
    fn shop<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<Shop>>;

    /// Changes a shop; a new secret is verified before it replaces the old one. None: no such shop.
    ///
    /// # Errors
    /// As [`Backend::create_shop`].
    fn update_shop<'a>(&'a self, shop_id: &'a str, change: ShopChange) -> BackendFuture<'a, Option<Shop>>;

    /// Deletes a shop; with `purge` its rows too, in the background. False: no such shop.
    fn delete_shop<'a>(&'a self, shop_id: &'a str, purge: bool) -> BackendFuture<'a, bool>;

    /// Starts a run per stream of one resource, or of all; returns their ids. A stream with an open run keeps it.
    ///
    /// # Errors
    /// `NotFound`: no such shop. `Conflict`: it is paused or refused, or does not sync the resource.
    fn start_sync<'a>(&'a self, shop_id: &'a str, resource: Option<String>, mode: Mode) -> BackendFuture<'a, Vec<u64>>;

    /// The completeness of each resource of a shop. None: no such shop.
    ///
    /// # Errors
    /// `Unavailable` when the sink cannot be read.
    fn completeness<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<Vec<Completeness>>>;

    /// Queues all missing documents of a shop for re-fetch; returns their number. None: no such shop.
    ///
    /// # Errors
    /// As [`Backend::completeness`].
    fn close_gaps<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<u64>>;

    /// Fields of a resource's documents that its columns do not cover. Must not block.
    fn drift(&self, resource: &str) -> Drift;

    /// A page of documents, ordered by the bytes of `(shop_id, id)`.
    fn documents<'a>(&'a self, resource: &'a str, query: DocumentQuery) -> BackendFuture<'a, DocumentPage>;

    /// None: no such document.
    fn document<'a>(
        &'a self,
        resource: &'a str,
        shop_id: &'a str,
        id: &'a str,
    ) -> BackendFuture<'a, Option<DocumentItem>>;

    /// Runs, newest (greatest id) first.
    fn runs(&self, query: RunQuery) -> BackendFuture<'_, Vec<RunView>>;

    /// None: no such run.
    fn run(&self, run_id: u64) -> BackendFuture<'_, Option<RunView>>;

    /// Parked jobs, by ascending id.
    fn parked(&self, query: ParkedQuery) -> BackendFuture<'_, Vec<Parked>>;

    /// Requeues a parked job. False: no such job.
    fn retry_parked(&self, parked_id: u64) -> BackendFuture<'_, bool>;

    /// Requeues all parked jobs of a shop, or of one of its resources; returns their number.
    fn retry_all_parked<'a>(&'a self, shop_id: &'a str, resource: Option<&'a str>) -> BackendFuture<'a, u64>;

    /// The status of the installation; with `of`, budgets and overdue streams of these shops only.
    fn status(&self, of: Option<StatusScope>) -> BackendFuture<'_, Status>;

    /// The calls of the last `days` days by rule, newest first; and when counting began, if any was made.
    fn calls(&self, days: u64) -> BackendFuture<'_, (Option<Millis>, Vec<CallDay>)>;

    /// Whether the service can work. With `of`: without the problems of other shops.
    fn ready(&self, of: Option<Vec<String>>) -> Readiness;

    /// Prometheus text, format 0.0.4.
    fn metrics(&self) -> String;
}

/// Error of a backend method. Texts are shown to the client: no secrets, no internals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Does not exist, or the key may not see it.
    #[error("not found")]
    NotFound,
    /// Not possible in the present state.
    #[error("{0}")]
    Conflict(String),
    /// Well-formed, but invalid; all errors with their fields.
    #[error("{} invalid field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The login host refused the credentials, for this reason.
    #[error(
        "the login host refused the credentials: {0}. Check the client id and the secret in the settings of the \
         marketplace, and that the account is enabled there; if in doubt, create a new secret"
    )]
    Refused(String),
    /// The login host could not be reached.
    #[error("{detail}")]
    LoginUnreachable { detail: String, retry_after: Option<Duration> },
    /// Temporary: starting, stopping, or a component is down.
    #[error("{detail}")]
    Unavailable { detail: String, retry_after: Duration },
    /// The disk or a storage limit is full.
    #[error("{detail}")]
    NoRoom { detail: String, retry_after: Duration },
    /// A bug. The text is logged and never shown.
    #[error("internal: {0}")]
    Internal(String),
}

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// `name`, or `resources[1]`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// Permissions of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Reading and writing.
    Admin,
    /// Reading only.
    Read,
}

/// The permissions of an authenticated key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    pub key_id: String,
    pub name: String,
    pub scope: Scope,
    /// None: all shops.
    pub shops: Option<Vec<String>>,
}

/// A key to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub name: String,
    pub scope: Scope,
    pub shops: Option<Vec<String>>,
    /// Days from now; none: `KEY_DAYS` of `validation`.
    pub expires_days: Option<u32>,
}

/// A key that was just created.
#[derive(Debug)]
pub struct MintedKey {
    pub view: KeyView,
    pub key: SecretString,
}

/// A key without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    pub id: String,
    pub name: String,
    pub scope: Scope,
    pub shops: Option<Vec<String>>,
    pub created_at: Millis,
    pub expires_at: Option<Millis>,
    pub last_used_at: Option<Millis>,
}

impl KeyView {
    /// Whether it is an admin key that is valid at this time.
    pub fn administers_at(&self, now: Millis) -> bool {
        self.scope == Scope::Admin && self.shops.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A shop to register.
#[derive(Debug)]
pub struct NewShop {
    pub name: String,
    pub client_id: String,
    pub client_secret: SecretString,
    pub account: Option<String>,
    /// None: all configured resources.
    pub resources: Option<Vec<String>>,
}

/// What to change on a shop; at least one field is set.
#[derive(Debug, Default)]
pub struct ShopChange {
    pub name: Option<String>,
    pub client_secret: Option<SecretString>,
    pub account: Option<String>,
    pub resources: Option<ResourceSelection>,
    pub paused: Option<bool>,
}

/// Which resources a shop syncs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceSelection {
    /// All configured resources, including ones added later.
    All,
    Only(Vec<String>),
}

/// Fields of one resource's documents that its columns do not cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Start of counting.
    pub since: Millis,
    pub places: Vec<DriftEntry>,
    /// Occurrences beyond those entries.
    pub more: u64,
}

/// One field, and where it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftEntry {
    pub left: FieldDrift,
    pub documents: u64,
    pub first_seen: Millis,
    pub last_seen: Millis,
}

/// Selects documents; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentQuery {
    /// Only these shops; none: all. Never an empty list.
    pub shops: Option<Vec<String>>,
    /// Names from the definition's `table.filters`, each at most once, with values.
    pub filters: Vec<(String, String)>,
    /// On the definition's time column, inclusive.
    pub from: Option<Millis>,
    /// On the definition's time column, exclusive.
    pub to: Option<Millis>,
    /// Text to find in the definition's search columns.
    pub q: Option<String>,
    /// `1..=500`.
    pub limit: usize,
    /// Start after this `(shop_id, id)`.
    pub after: Option<(String, String)>,
}

/// Selects runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only these shops; none: all. Never an empty list.
    pub shops: Option<Vec<String>>,
    pub resource: Option<String>,
    pub state: Option<RunState>,
    pub limit: usize,
    /// Only ids below this one.
    pub before: Option<u64>,
}

/// Selects parked jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedQuery {
    /// Only these shops; none: all. Never an empty list.
    pub shops: Option<Vec<String>>,
    pub limit: usize,
    /// Only ids above this one.
    pub after: Option<u64>,
}

/// The shops and accounts that a restricted key may see in the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusScope {
    pub shops: HashSet<String>,
    pub accounts: HashSet<String>,
}

/// Whether the service can work, with reasons for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why it is not ready; empty if it is.
    pub unready: Vec<String>,
    /// What is degraded: no data is lost, but an operator should look.
    pub degraded: Vec<String>,
}

/// Status of the installation. Field names are those of the JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Nothing to do now: no open run, no due job, an empty outbox.
    pub idle: bool,
    pub open_runs: u64,
    /// Jobs that are due, or failed and will be retried.
    pub pending_jobs: u64,
    /// Delayed jobs: retries, and later reads of documents that may still change.
    pub waiting_jobs: u64,
    pub leased_jobs: u64,
    /// Entries waiting for the sink.
    pub outbox: u64,
    pub outbox_bytes: u64,
    pub parked: u64,
    /// Calls to the marketplace since `calls_since`, over all restarts; without logins.
    pub calls: u64,
    /// Of them, those answered 429.
    pub refused_429: u64,
    /// Logins since `calls_since`.
    pub logins: u64,
    /// When counting began; none: no call was made yet.
    #[serde(serialize_with = "clock::serialize_opt")]
    pub calls_since: Option<Millis>,
    /// The [`BUDGETS_SHOWN_MAX`] busiest budgets, by account and rule.
    pub budgets: Vec<BudgetStatus>,
    /// Number of budgets that are not shown.
    pub budgets_left_out: u64,
    pub sink: SinkStatus,
    /// Until when logins are paused, as the login host asked; none: they are not.
    #[serde(serialize_with = "clock::serialize_opt")]
    pub logins_paused_until: Option<Millis>,
    /// The first hundred streams whose last run is so long ago that rows may soon leave the API's history.
    pub overdue: Vec<Overdue>,
    pub shops: ShopCounts,
    pub health: HealthView,
    pub version: String,
    #[serde(serialize_with = "clock::serialize")]
    pub started_at: Millis,
}

/// Health of the installation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HealthView {
    pub level: Level,
    /// Worst first.
    pub reasons: Vec<Reason>,
}

/// Most budgets in one status; with thousands of shops all of them would be megabytes.
pub const BUDGETS_SHOWN_MAX: usize = 200;

/// The slots of one rate rule for one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BudgetStatus {
    pub account: String,
    pub rule: String,
    /// None: no limit.
    pub limit: Option<u32>,
    pub window_s: Option<f64>,
    pub in_flight: u32,
    /// Used slots that are not free again yet.
    pub cooling: u32,
    /// None: unlimited.
    pub available: Option<u32>,
    /// Jobs that wait for a slot.
    pub waiting: u64,
    pub blocked_for_ms: u64,
    /// When the next slot is free, if all are in use.
    #[serde(serialize_with = "clock::serialize_opt")]
    pub next_free_at: Option<Millis>,
}

/// A stream whose last run is too long ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overdue {
    pub shop_id: String,
    /// Shop, resource and list parameters.
    pub stream: String,
    /// None: never.
    #[serde(serialize_with = "clock::serialize_opt")]
    pub walked_at: Option<Millis>,
}

/// Status of the sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// `mysql` or `archive`.
    pub kind: String,
    pub healthy: bool,
    pub error: Option<String>,
}

/// Shops by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShopCounts {
    pub active: u64,
    pub paused: u64,
    pub refused: u64,
}
