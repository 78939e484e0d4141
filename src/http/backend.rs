//! The seam between the HTTP API and everything behind it.
//!
//! `app` implements [`Backend`] over the store, the sink and the sync engine; tests implement it in
//! memory. `http` holds an `Arc<dyn Backend>` and knows, beside the form of a document, nobody else.
//!
//! What holds for every call: it may be dropped at any await (the client left, or the time limit of
//! a request passed), and a change is then either made whole or not at all. What an answer reports
//! as done is durable. Shops that a key may not see are excluded in the query, not afterwards.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::Serialize;

use crate::catalog::Definition;
use crate::catalog::coverage::Left;
use crate::domain::calls::CallDay;
use crate::domain::clock::Millis;
use crate::domain::document::{Parked, RunView};
use crate::domain::health::{Level, Reason, ShopHealth};
use crate::domain::{Completeness, Mode, RunState, Shop};

/// Answers are kept as the store keeps them.
pub use crate::store::{AnswerName, KeptAnswer};

/// Documents are shown as the sink holds them.
pub use crate::sink::{Item as DocumentItem, ItemPage as DocumentPage};

/// What a call of the backend gives, later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// Everything the HTTP API asks of the rest of the program.
pub trait Backend: Send + Sync + 'static {
    /// 32 random bytes of this installation; cursors are signed with them.
    fn cursor_key(&self) -> [u8; 32];

    /// The configured resources. Read once, when the routes are built.
    fn resources(&self) -> Vec<Arc<Definition>>;

    /// The grant of an API key, or none when it is unknown, expired or revoked. Compares digests in
    /// constant time. Called for every request, so it must not block.
    ///
    /// # Errors
    /// `Unavailable` when the keys cannot be read.
    fn verify_key(&self, key: &str) -> Result<Option<KeyGrant>, ApiError>;

    /// The answer that was kept under a name in the last 24 h.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be read.
    fn kept_answer(&self, name: &AnswerName) -> Result<Option<KeptAnswer>, ApiError>;

    /// Keeps an answer for 24 h, over a restart too, or for less when there are very many.
    fn keep_answer(&self, name: AnswerName, answer: KeptAnswer) -> Answer<'_, ()>;

    /// Makes a key. Its text is in this answer and nowhere else; but for an answer that is kept, sealed.
    ///
    /// # Errors
    /// `Invalid` for what [`NewKey::check`] refuses, and for a shop that is not there.
    fn create_key(&self, key: NewKey) -> Answer<'_, MintedKey>;

    /// All keys that are not revoked, oldest first.
    fn list_keys(&self) -> Answer<'_, Vec<KeyView>>;

    /// False when there is no such key. In force from the next request on.
    fn revoke_key<'a>(&'a self, key_id: &'a str) -> Answer<'a, bool>;

    /// Proves the credentials, keeps the shop and starts its first sync.
    ///
    /// # Errors
    /// `Invalid` for what [`NewShop::check`] refuses, `Conflict` for a client id that is registered, `Refused` when the
    /// login host turns the credentials down, `LoginUnreachable` when it cannot be asked, `Unavailable` while it is not
    /// known which shops the sink has.
    fn create_shop(&self, shop: NewShop) -> Answer<'_, Shop>;

    /// All shops, in any order.
    fn shops(&self) -> Answer<'_, Vec<Shop>>;

    /// How these shops are, those that are gone left out.
    fn shops_health(&self, of: HashSet<String>) -> Answer<'_, Vec<ShopHealth>>;

    /// None: no such shop.
    fn shop<'a>(&'a self, shop_id: &'a str) -> Answer<'a, Option<Shop>>;

    /// None: no such shop. A new secret is proved before the old one goes.
    ///
    /// # Errors
    /// As [`Backend::create_shop`].
    fn update_shop<'a>(&'a self, shop_id: &'a str, change: ShopChange) -> Answer<'a, Option<Shop>>;

    /// False when there is no such shop. With `purge` its rows go too, in the background.
    fn delete_shop<'a>(&'a self, shop_id: &'a str, purge: bool) -> Answer<'a, bool>;

    /// The ids of the runs, one a stream; for a stream with an open walk the id of that run.
    /// Without a resource all resources of the shop.
    ///
    /// # Errors
    /// `NotFound`: no such shop. `Conflict`: it is paused or refused, or does not take the resource.
    fn start_sync<'a>(&'a self, shop_id: &'a str, resource: Option<String>, mode: Mode) -> Answer<'a, Vec<u64>>;

    /// How complete each resource of a shop is. None: no such shop.
    ///
    /// # Errors
    /// `Unavailable` when the sink cannot be read.
    fn completeness<'a>(&'a self, shop_id: &'a str) -> Answer<'a, Option<Vec<Completeness>>>;

    /// Asks for everything that is missing of a shop; how many documents that is. None: no such shop.
    ///
    /// # Errors
    /// As [`Backend::completeness`].
    fn close_gaps<'a>(&'a self, shop_id: &'a str) -> Answer<'a, Option<u64>>;

    /// What documents of a resource hold and its tables do not. Must not block.
    fn drift(&self, resource: &str) -> Drift;

    /// A page of documents, ordered by `(shop_id, id)`, both compared by bytes.
    fn documents<'a>(&'a self, resource: &'a str, query: DocumentQuery) -> Answer<'a, DocumentPage>;

    /// None: no such document.
    fn document<'a>(&'a self, resource: &'a str, shop_id: &'a str, id: &'a str) -> Answer<'a, Option<DocumentItem>>;

    /// Newest (greatest id) first.
    fn runs(&self, query: RunQuery) -> Answer<'_, Vec<RunView>>;

    /// None: no such run.
    fn run(&self, run_id: u64) -> Answer<'_, Option<RunView>>;

    /// By ascending id.
    fn parked(&self, query: ParkedQuery) -> Answer<'_, Vec<Parked>>;

    /// Puts a parked job back to work. False when there is none of that id.
    fn retry_parked(&self, parked_id: u64) -> Answer<'_, bool>;

    /// Puts all back to work that is parked of a shop, or of one resource of it. How many.
    fn retry_all_parked<'a>(&'a self, shop_id: &'a str, resource: Option<&'a str>) -> Answer<'a, u64>;

    /// What the whole installation is doing; with a part, only its budgets and its overdue streams are told.
    fn status(&self, of: Option<Part>) -> Answer<'_, Status>;

    /// The calls of the last `days` days by rule, newest first; and when the counting began, if any was made.
    fn calls(&self, days: u64) -> Answer<'_, (Option<Millis>, Vec<CallDay>)>;

    /// Whether it can do its work. Of some shops: without what is wrong with others.
    fn ready(&self, of: Option<Vec<String>>) -> Readiness;

    /// Prometheus text, format 0.0.4.
    fn metrics(&self) -> String;
}

/// Why the backend could not answer. Texts are shown to the client: no secrets, no internals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Absent, or not this key's to see.
    #[error("there is nothing here")]
    NotFound,
    /// The present state does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// Well-formed, but not acceptable; every offence with its field.
    #[error("{} invalid field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The login host refused the credentials, with its word for it.
    #[error(
        "the login host refused the credentials: {0}. Check the client id and the secret in the settings of the \
         marketplace, and that the account is switched on there; a secret that is in doubt is best made new"
    )]
    Refused(String),
    /// The login host could not be asked.
    #[error("{detail}")]
    LoginUnreachable { detail: String, retry_after: Option<Duration> },
    /// Passing: starting, stopping, or a part that is down.
    #[error("{detail}")]
    Unavailable { detail: String, retry_after: Duration },
    /// The disk or a bound of ours is full.
    #[error("{detail}")]
    NoRoom { detail: String, retry_after: Duration },
    /// A fault of ours. The text is logged and never shown.
    #[error("internal: {0}")]
    Internal(String),
}

/// One offence within a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// `name`, or `resources[1]`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Reading.
    Read,
}

/// The meaning of a key that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    pub key_id: String,
    pub name: String,
    pub scope: Scope,
    /// None: all shops.
    pub shops: Option<Vec<String>>,
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub name: String,
    pub scope: Scope,
    pub shops: Option<Vec<String>>,
    /// Days from now; none: [`KEY_DAYS`](super::rules::KEY_DAYS).
    pub expires_days: Option<u32>,
}

/// A key that was just made.
#[derive(Debug)]
pub struct MintedKey {
    pub view: KeyView,
    pub key: SecretString,
}

/// A key as it is listed: without its text.
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
    /// Whether it is an admin key that works at this time.
    pub fn administers_at(&self, now: Millis) -> bool {
        self.scope == Scope::Admin && self.shops.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A shop to be registered.
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
    pub resources: Option<Takes>,
    pub paused: Option<bool>,
}

/// Which resources a shop takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// All that are configured, those of tomorrow too.
    All,
    Only(Vec<String>),
}

/// What documents of one resource hold and its tables do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Counted from then on.
    pub since: Millis,
    pub places: Vec<Place>,
    /// Meetings with places beyond those.
    pub more: u64,
}

/// One place in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub left: Left,
    pub documents: u64,
    pub first_seen: Millis,
    pub last_seen: Millis,
}

/// Which documents. All conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentQuery {
    /// Only these shops; none: all. Never an empty list.
    pub shops: Option<Vec<String>>,
    /// Names from the definition's `table.filters`, each at most once.
    pub filters: Vec<(String, String)>,
    /// On the definition's time column, inclusive.
    pub from: Option<Millis>,
    /// On the definition's time column, exclusive.
    pub to: Option<Millis>,
    /// Text to look for in the definition's search columns.
    pub q: Option<String>,
    /// `1..=500`.
    pub limit: usize,
    /// Begin behind this `(shop_id, id)`.
    pub after: Option<(String, String)>,
}

/// Which runs.
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

/// Which parked jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedQuery {
    /// Only these shops; none: all. Never an empty list.
    pub shops: Option<Vec<String>>,
    pub limit: usize,
    /// Only ids above this one.
    pub after: Option<u64>,
}

/// The part of the installation that a key which is bound to shops may know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub shops: HashSet<String>,
    pub accounts: HashSet<String>,
}

/// Whether the installation can do its work. Reasons are for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why it is not ready; none: it is.
    pub unready: Vec<String>,
    /// What it does without for now: nothing is lost, but somebody should look.
    pub degraded: Vec<String>,
}

/// What the installation is doing. Field names are the JSON's.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Nothing is left to do now: no open run, no job due, nothing in the outbox.
    pub idle: bool,
    pub open_runs: u64,
    /// Jobs that could run now, and those that failed and are tried again at their time.
    pub pending_jobs: u64,
    /// Jobs that wait for their time: those that are tried again, and later reads of what may still change.
    pub waiting_jobs: u64,
    pub leased_jobs: u64,
    /// Entries waiting for the sink.
    pub outbox: u64,
    pub outbox_bytes: u64,
    pub parked: u64,
    /// Calls to the marketplace since `calls_since`, over all starts; without logins.
    pub calls: u64,
    /// Of them, those that it refused for their rate.
    pub refused_429: u64,
    /// Logins since then.
    pub logins: u64,
    /// When the counting began; none: no call was made yet.
    #[serde(serialize_with = "super::reply::time_opt")]
    pub calls_since: Option<Millis>,
    /// The [`BUDGETS_SHOWN_MAX`] with the most to tell, by account and rule.
    pub budgets: Vec<BudgetStatus>,
    /// How many more there are.
    pub budgets_left_out: u64,
    pub sink: SinkStatus,
    /// Until when the login host wants no login at all; none: it takes them.
    #[serde(serialize_with = "super::reply::time_opt")]
    pub logins_paused_until: Option<Millis>,
    /// Streams that were not walked for so long that rows may fall out of the API's reach, the first hundred.
    pub overdue: Vec<Overdue>,
    pub shops: ShopCounts,
    pub health: HealthView,
    pub version: String,
    #[serde(serialize_with = "super::reply::time")]
    pub started_at: Millis,
}

/// How the installation is, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HealthView {
    pub level: Level,
    /// The worst first.
    pub reasons: Vec<Reason>,
}

/// Budgets in one status; with thousands of shops all of them would be megabytes.
pub const BUDGETS_SHOWN_MAX: usize = 200;

/// The slots of one rate rule for one account.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BudgetStatus {
    pub account: String,
    pub rule: String,
    /// None: the rule is lifted.
    pub limit: Option<u32>,
    pub window_s: Option<f64>,
    pub in_flight: u32,
    /// Used slots whose window has not passed.
    pub cooling: u32,
    /// None: without bound.
    pub available: Option<u32>,
    /// Jobs that wait for a slot.
    pub waiting: u64,
    pub blocked_for_ms: u64,
    /// When all slots are in use: when one is free again; none: one is.
    #[serde(serialize_with = "super::reply::time_opt")]
    pub next_free_at: Option<Millis>,
}

/// A stream whose last walk is long ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overdue {
    pub shop_id: String,
    /// Shop, resource and list parameters.
    pub stream: String,
    /// None: never.
    #[serde(serialize_with = "super::reply::time_opt")]
    pub walked_at: Option<Millis>,
}

/// How the sink is.
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
