//! A strict local stand-in for the bol.com Retailer API and its login host.
//!
//! The demo and the tests stand on it, so it follows the facts (`API.md`), and where the facts leave
//! room it takes the harder reading. It keeps a ledger of every call, and it can break its answers on
//! demand. Everything comes from a seed and a [`Clock`]: the same two give the same documents.
//!
//! | behaviour | fact |
//! | --- | --- |
//! | `POST /token`: Basic, grant type in the form body only; secrets in the query are refused | 1 |
//! | tokens end; `expires_in` tells when (no second of grace, harder than the fact); an ended one gets the `Expired JWT` body | 1 |
//! | wrong credentials: 401 `invalid_client`, OAuth JSON; a shop switched off: 403 | 1 |
//! | too many logins of a client in a minute: the login host answers 404 to everybody | 1 |
//! | the login host sends no rate headers | 1 |
//! | fixed windows on the wall clock, per account and most specific rule; headers with seconds left | 2 |
//! | 429 with or without `Retry-After` | 2 |
//! | `GET /retailer/public/ratelimits` without login | 2 |
//! | shipments per method, 50 a page, newest first, three months; `{}` past the end (or an empty array) | 3 |
//! | `order-id` only without `fulfilment-method`; bad values 400 with violations; misspelt names ignored | 3 |
//! | new shipments push older ones to later pages; details grow events without a change of their row | 3 |
//! | Dutch offsets, ids with letters, leading zeros, missing "required" fields, unknown fields | 3, 9 |
//! | orders: handled ones for 48 hours, all with `latest-change-date` | 4 |
//! | `Accept` must be the v10 media type, else 406; Problems with and without `violations` | 6 |
//!
//! Base addresses may hold any prefix: `/anything/retailer/shipments` works like `/retailer/shipments`.
//!
//! Reading order: `api` answers the marketplace's calls, `login` gives tokens, `shop` and
//! `content` hold what is served, `limiter`, [`audit`] and [`fault`] count and break, `admin` opens
//! the controls under `/_sandbox/`, `server` and `wire` speak HTTP.

mod admin;
mod api;
pub mod audit;
mod bomb;
mod content;
mod control;
mod document;
pub mod fault;
mod harm;
mod limiter;
mod login;
mod odd;
mod orders;
mod problem;
mod server;
mod shelf;
mod shelf_api;
mod shelf_content;
mod shop;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use audit::{Audit, Budget, Call};
pub use fault::{Fault, FaultBody, FaultKind};

use crate::catalog::{self, RuleTable};
use crate::domain::Clock;
use audit::Ledger;
use fault::Faults;
use limiter::Limiter;
use login::Tokens;
use shelf::Shelf;
use shop::{Pace, Stock};

/// The only media type it answers.
pub const MEDIA_TYPE: &str = "application/vnd.retailer.v10+json";

/// Who fulfils: the retailer or bol.com.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    #[serde(rename = "FBR")]
    Fbr = 0,
    #[serde(rename = "FBB")]
    Fbb = 1,
}

impl Method {
    /// `FBR` or `FBB`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Fbr => "FBR",
            Method::Fbb => "FBB",
        }
    }
}

/// What the sandbox starts with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Content, tokens and rolls of faults follow from it.
    pub seed: u64,
    pub shops: Vec<ShopOptions>,
    /// As `[source.limits]`; laid over the catalog's limits, `none` lifts a rule.
    pub limits: BTreeMap<String, String>,
    /// Clients that share the budget of an account: client id -> account. Others are their own.
    pub accounts: BTreeMap<String, String>,
    /// How long a token really works.
    pub token_life: Duration,
    /// What the login host says instead of `token_life` in seconds: any JSON; `null` leaves it out.
    pub expires_in: Option<Value>,
    /// Pause before every answer, the controls' excepted.
    pub latency: Duration,
    /// 429 with `Retry-After`.
    pub retry_after: bool,
    /// Past the end of a list: `{"shipments":[]}` instead of `{}`.
    pub empty_array: bool,
    /// Odd but legal values.
    pub odd: bool,
    /// In each shop a new shipment this often; every fourth is FBB.
    pub arrivals: Option<Duration>,
    /// In each shop a new transport event this often.
    pub growth: Option<Duration>,
    /// Token requests of one client in a minute, beyond which the login host blocks everybody for ten
    /// minutes; None: never.
    pub logins_max: Option<u32>,
    /// Open the controls under `/_sandbox/`. They ask for no key: bind to loopback.
    pub admin: bool,
}

impl Default for Options {
    /// One tidy way of everything: no shops, the catalog's limits, tokens of 599 s, odd values on.
    fn default() -> Options {
        Options {
            seed: 1,
            shops: Vec::new(),
            limits: BTreeMap::new(),
            accounts: BTreeMap::new(),
            token_life: Duration::from_secs(599),
            expires_in: None,
            latency: Duration::ZERO,
            retry_after: true,
            empty_array: false,
            odd: true,
            arrivals: None,
            growth: None,
            logins_max: Some(60),
            admin: true,
        }
    }
}

/// One shop to begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShopOptions {
    pub client_id: String,
    pub client_secret: String,
    /// Shipments fulfilled by the retailer.
    #[serde(default)]
    pub fbr: usize,
    /// Shipments fulfilled by bol.com.
    #[serde(default)]
    pub fbb: usize,
}

/// Options or a control that cannot be followed; the text says what and how to mend it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("limits: {}", .0.join("; "))]
    Limits(Vec<String>),
    #[error("no shop has the client id `{0}`; add it with POST /_sandbox/shops")]
    UnknownShop(String),
    #[error("there is already a shop with the client id `{0}`; give each shop its own")]
    ShopExists(String),
    #[error("client_id must not be empty and must not hold a colon (Basic authentication splits there)")]
    ClientId,
    #[error("catalog: {0}")]
    Catalog(String),
    #[error("there is no resource `{0}`; use a name of the catalog, like returns or invoice_requests")]
    UnknownResource(String),
    #[error("the shop has no shipment that one more of {0} could be of; add one with POST /_sandbox/shipments")]
    NothingFor(String),
}

/// What may be changed while it runs.
#[derive(Clone, Debug)]
struct Settings {
    rules: RuleTable,
    token_life: Duration,
    expires_in: Option<Value>,
    latency: Duration,
    retry_after: bool,
    empty_array: bool,
    /// How far the dates on answers are off.
    dates_off_ms: i64,
    pace: Pace,
}

/// One seller.
#[derive(Debug)]
struct Shop {
    client_id: Arc<str>,
    account: Arc<str>,
    secret: Mutex<String>,
    active: AtomicBool,
    stock: Mutex<Stock>,
    /// All else; made at the first look.
    shelf: Mutex<Option<Shelf>>,
}

#[derive(Debug)]
struct Inner {
    seed: u64,
    odd: bool,
    admin: bool,
    clock: Clock,
    started: Instant,
    accounts: BTreeMap<String, String>,
    settings: RwLock<Arc<Settings>>,
    shops: RwLock<HashMap<String, Arc<Shop>>>,
    tokens: Mutex<Tokens>,
    limiter: Mutex<Limiter>,
    ledger: Mutex<Ledger>,
    faults: Mutex<Faults>,
}

/// A running stand-in. Cheap to clone; clones share everything.
///
/// All controls may be called at any time, also while it serves; each takes effect with the next
/// call.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Inner>);

impl Sandbox {
    /// Makes the shops and their content. Windows, token lives, dates and arrivals follow `clock`.
    ///
    /// # Errors
    /// A limit that cannot be read, two shops with one client id, an unusable client id.
    pub fn new(options: Options, clock: Clock) -> Result<Sandbox, SandboxError> {
        let sandbox = Sandbox(Arc::new(Inner {
            seed: options.seed,
            odd: options.odd,
            admin: options.admin,
            started: Instant::now(),
            clock,
            accounts: options.accounts,
            settings: RwLock::new(Arc::new(Settings {
                rules: rules(&options.limits)?,
                token_life: options.token_life,
                expires_in: options.expires_in,
                latency: options.latency,
                retry_after: options.retry_after,
                empty_array: options.empty_array,
                dates_off_ms: 0,
                pace: Pace { arrivals: options.arrivals, growth: options.growth },
            })),
            shops: RwLock::new(HashMap::new()),
            tokens: Mutex::new(Tokens::new(options.seed, options.logins_max)),
            limiter: Mutex::new(Limiter::default()),
            ledger: Mutex::new(Ledger::default()),
            faults: Mutex::new(Faults::new(options.seed)),
        }));
        for shop in options.shops {
            sandbox.add_shop(shop)?;
        }
        Ok(sandbox)
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn shop(&self, client_id: &str) -> Option<Arc<Shop>> {
        self.0.shops.read().unwrap_or_else(PoisonError::into_inner).get(client_id).map(Arc::clone)
    }

    /// The shop's stock, brought up to now.
    fn stock<'a>(&self, shop: &'a Shop) -> MutexGuard<'a, Stock> {
        let pace = self.settings().pace;
        let mut stock = lock(&shop.stock);
        stock.settle(pace, self.0.clock.now());
        stock
    }
}

/// The catalog's limits under `over`.
fn rules(over: &BTreeMap<String, String>) -> Result<RuleTable, SandboxError> {
    let defaults = catalog::source_defaults().map_err(SandboxError::Catalog)?;
    RuleTable::build([&defaults.limits, over]).map_err(SandboxError::Limits)
}

/// A panic elsewhere must not hide the ledger from the test that looks for its cause.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
