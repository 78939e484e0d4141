//! A strict local stand-in for the bol.com Retailer API and its login host.
//!
//! The demo and the tests rely on it, so it follows the documented API, and where the documentation leaves room it
//! takes the stricter reading. It records every call, and can break its answers on demand. Everything follows from a
//! seed and a [`Clock`]: the same two give the same documents.
//!
//! The right column names the part of bol.com's documentation (<https://api.bol.com/retailer/public/Retailer-API/>) or
//! the observation that a behaviour follows.
//!
//! | behaviour | source |
//! | --- | --- |
//! | `POST /token`: Basic, grant type in the form body only; secrets in the query are refused | Authentication |
//! | tokens expire after `expires_in` (no grace, stricter than the API); an expired one gets the `Expired JWT` body | Authentication; observed |
//! | wrong credentials: 401 `invalid_client`, OAuth JSON; a deactivated shop: 403 | observed |
//! | too many logins of a client in a minute: the login host answers 404 to everyone | Authentication; observed |
//! | the login host sends no rate headers | observed |
//! | fixed windows on the wall clock, per account and most specific rule; headers with seconds left | Rate limits; observed |
//! | 429 with or without `Retry-After` | observed |
//! | `GET /retailer/public/ratelimits` without login | Rate limits |
//! | shipments per method, 50 a page, newest first, three months; `{}` past the end (or an empty array) | Shipments; observed |
//! | `order-id` only without `fulfilment-method`; bad values 400 with violations; unknown names ignored | Shipments; observed |
//! | new shipments push older ones to later pages; details gain events without a change of their row | observed |
//! | Dutch offsets, ids with letters, leading zeros, missing "required" fields, unknown fields | observed |
//! | orders: handled ones for 48 hours, all with `latest-change-date` | Orders |
//! | `Accept` must be the v10 media type, else 406; Problems with and without `violations` | Conventions; observed |
//!
//! Base addresses may have any prefix: `/anything/retailer/shipments` works like `/retailer/shipments`.
//!
//! Reading order: `api` answers the marketplace's calls, `login` issues tokens, `shop` and `content` hold the
//! shipments, `limiter`, [`audit`] and [`fault`] count and break, `admin` exposes the controls under `/_sandbox/`,
//! `server` and `wire` speak HTTP.

mod admin;
mod api;
mod apply_fault;
pub mod audit;
mod content;
mod control;
mod document;
mod edge_cases;
pub mod fault;
mod gzip_bomb;
mod limiter;
mod login;
mod orders;
mod other_resources;
mod problem;
mod query;
mod server;
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
use other_resources::OtherResources;
use shop::{Pace, Stock};

/// The only media type it accepts.
pub const MEDIA_TYPE: &str = "application/vnd.retailer.v10+json";

/// Who fulfils an order: the retailer or bol.com.
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

/// Start options of the sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the content, the tokens and the random faults.
    pub seed: u64,
    pub shops: Vec<ShopOptions>,
    /// Rate limits as in `[source.limits]`, overriding the catalog's; `none` lifts a rule.
    pub limits: BTreeMap<String, String>,
    /// Clients that share the budget of an account: client id -> account. Others have their own.
    pub accounts: BTreeMap<String, String>,
    /// How long a token is valid.
    pub token_life: Duration,
    /// What the login host announces as `expires_in`: any JSON; `null` omits it. Default: `token_life` in seconds.
    pub expires_in: Option<Value>,
    /// Delay before every answer, except the controls.
    pub latency: Duration,
    /// Send 429 with `Retry-After`.
    pub retry_after: bool,
    /// End lists with `{"shipments":[]}` instead of `{}`.
    pub empty_array: bool,
    /// Include unusual but legal values.
    pub odd: bool,
    /// Interval at which each shop gets a new shipment; every fourth is FBB.
    pub arrivals: Option<Duration>,
    /// Interval at which each shop gets a new transport event.
    pub growth: Option<Duration>,
    /// Token requests of one client per minute, beyond which the login host blocks everyone for ten minutes; None:
    /// unlimited.
    pub logins_max: Option<u32>,
    /// Expose the controls under `/_sandbox/`. They need no key: bind to loopback.
    pub admin: bool,
}

impl Default for Options {
    /// The defaults: no shops, the catalog's limits, tokens of 599 s, unusual values on.
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

/// Start options of one shop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShopOptions {
    pub client_id: String,
    pub client_secret: String,
    /// Number of shipments fulfilled by the retailer.
    #[serde(default)]
    pub fbr: usize,
    /// Number of shipments fulfilled by bol.com.
    #[serde(default)]
    pub fbb: usize,
}

/// Options or a control that cannot be applied; the text names the cause and the remedy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("limits: {0}")]
    Limits(catalog::Problems),
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
    #[error("the shop has no shipment left for another document of {0}; add one with POST /_sandbox/shipments")]
    NothingFor(String),
}

/// Settings that can change while it runs.
#[derive(Clone, Debug)]
struct Settings {
    rules: RuleTable,
    token_life: Duration,
    expires_in: Option<Value>,
    latency: Duration,
    retry_after: bool,
    empty_array: bool,
    /// How far the dates on answers are ahead.
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
    /// All other resources; generated at the first access.
    other_resources: Mutex<Option<OtherResources>>,
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

/// A running sandbox. Cheap to clone; clones share everything.
///
/// All controls may be called at any time, also while it serves; each takes effect with the next call.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Inner>);

impl Sandbox {
    /// Creates the shops and their content. Windows, token lifetimes, dates and arrivals follow `clock`.
    ///
    /// # Errors
    /// A limit that cannot be parsed, two shops with one client id, an unusable client id.
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

    /// The shop's shipments, updated to the present.
    fn stock<'a>(&self, shop: &'a Shop) -> MutexGuard<'a, Stock> {
        let pace = self.settings().pace;
        let mut stock = lock(&shop.stock);
        stock.settle(pace, self.0.clock.now());
        stock
    }
}

/// The catalog's limits, overridden by `over`.
fn rules(over: &BTreeMap<String, String>) -> Result<RuleTable, SandboxError> {
    let defaults = catalog::source_defaults().map_err(SandboxError::Catalog)?;
    RuleTable::build([&defaults.limits, over]).map_err(SandboxError::Limits)
}

/// Ignores poisoning: a panic elsewhere must not hide the recorded calls from the test that looks for its cause.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
