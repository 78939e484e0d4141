//! What a running sandbox knows: its settings, its shops, and the books of calls, limits, tokens and faults.
//!
//! The files that answer calls and controls add their own `impl Sandbox`; this one has what all of them use. No lock
//! is held while another is waited for, but for a shop's other resources, which are generated from its shipments.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::audit::Ledger;
use crate::clock::{Clock, Millis};
use crate::error::SandboxError;
use crate::fault::Faults;
use crate::limiter::Limiter;
use crate::limits::Rules;
use crate::options::{Options, ShopOptions};
use crate::other_resources::documents::OtherResources;
use crate::shop::Shop;
use crate::stock::{Pace, Stock};
use crate::tokens::Tokens;
use crate::values::mix;

/// Settings that can change while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    pub(crate) token_life: Duration,
    pub(crate) expires_in: Option<Value>,
    pub(crate) latency: Duration,
    pub(crate) retry_after: bool,
    pub(crate) empty_array: bool,
    /// How far the dates on answers are ahead.
    pub(crate) dates_off_ms: i64,
    pub(crate) pace: Pace,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) seed: u64,
    pub(crate) odd: bool,
    pub(crate) admin: bool,
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    pub(crate) accounts: BTreeMap<String, String>,
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) shops: RwLock<HashMap<String, Arc<Shop>>>,
    pub(crate) tokens: Mutex<Tokens>,
    pub(crate) limiter: Mutex<Limiter>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) faults: Mutex<Faults>,
}

/// A running sandbox. Cheap to clone; clones share everything.
///
/// All controls may be called at any time, also while it serves; each takes effect with the next call.
#[derive(Clone, Debug)]
pub struct Sandbox(pub(crate) Arc<Inner>);

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
                rules: Rules::with(&options.limits).map_err(SandboxError::Limits)?,
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

    /// Adds a shop with its content.
    ///
    /// # Errors
    /// The client id is taken or unusable.
    pub fn add_shop(&self, options: ShopOptions) -> Result<(), SandboxError> {
        if options.client_id.is_empty() || options.client_id.contains(':') {
            return Err(SandboxError::ClientId);
        }
        let account = self.0.accounts.get(&options.client_id).unwrap_or(&options.client_id).as_str().into();
        let seed = options.client_id.bytes().fold(self.0.seed, |seed, byte| mix(seed, u64::from(byte)));
        let stock = Stock::new(seed, self.0.odd, [options.fbr, options.fbb], self.0.clock.now());
        let shop = Shop {
            client_id: options.client_id.as_str().into(),
            account,
            secret: Mutex::new(options.client_secret),
            active: AtomicBool::new(true),
            stock: Mutex::new(stock),
            other_resources: Mutex::new(None),
        };
        let mut shops = self.0.shops.write().unwrap_or_else(PoisonError::into_inner);
        if shops.contains_key(&options.client_id) {
            return Err(SandboxError::ShopExists(options.client_id));
        }
        shops.insert(options.client_id, Arc::new(shop));
        Ok(())
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.0.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn shop(&self, client_id: &str) -> Option<Arc<Shop>> {
        self.0.shops.read().unwrap_or_else(PoisonError::into_inner).get(client_id).map(Arc::clone)
    }

    /// The shop's shipments, updated to the present.
    pub(crate) fn stock<'a>(&self, shop: &'a Shop) -> MutexGuard<'a, Stock> {
        let pace = self.settings().pace;
        let mut stock = lock(&shop.stock);
        stock.settle(pace, self.0.clock.now());
        stock
    }

    /// Accesses a shop's documents, generating them first.
    pub(crate) fn other_resources<R>(&self, shop: &Shop, look: impl FnOnce(&mut OtherResources, Millis) -> R) -> R {
        let now = self.0.clock.now();
        let mut others = lock(&shop.other_resources);
        let others = others.get_or_insert_with(|| {
            let stock = self.stock(shop);
            OtherResources::new(stock.seed(), &stock.first(), stock.born())
        });
        look(others, now)
    }

    /// The shop of that client id, or the error that names it.
    pub(crate) fn known(&self, client_id: &str) -> Result<Arc<Shop>, SandboxError> {
        self.shop(client_id).ok_or_else(|| SandboxError::UnknownShop(client_id.to_owned()))
    }

    /// Changes the settings; calls that have begun keep the old ones.
    pub(crate) fn change(&self, edit: impl FnOnce(&mut Settings)) {
        let mut settings = self.0.settings.write().unwrap_or_else(PoisonError::into_inner);
        edit(Arc::make_mut(&mut settings));
    }
}

/// Ignores poisoning: a panic elsewhere must not hide the recorded calls from the test that looks for its cause.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
