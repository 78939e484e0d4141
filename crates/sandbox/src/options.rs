//! What a sandbox is started with.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Start options of the sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the content, the tokens and the random faults.
    pub seed: u64,
    pub shops: Vec<ShopOptions>,
    /// Rate limits, rule to limit (`GET /retailer/orders` to `25/min`), overriding the API's own; `none` lifts a rule.
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
    /// The defaults: no shops, the API's own limits, tokens of 599 s, unusual values on.
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
