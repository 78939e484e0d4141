//! A strict local stand-in for the bol.com Retailer API and its login host.
//!
//! `waybill demo` and `waybill sandbox` run it, and the tests of Waybill sync from it and then ask it what it saw. It
//! follows the documented API, and takes the stricter reading where the documentation leaves room. It records every
//! call, and breaks its answers on demand.
//!
//! # Use
//!
//! ```
//! use sandbox::{Clock, Options, Sandbox, ShopOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shop = ShopOptions { client_id: "id".into(), client_secret: "secret".into(), fbr: 120, fbb: 40 };
//! let sandbox = Sandbox::new(Options { shops: vec![shop], ..Options::default() }, Clock::system())?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let base = format!("http://{}", listener.local_addr()?); // tokens: POST {base}/token
//! let serving = tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
//! // Here the program under test syncs from `base`.
//! # let _ = base;
//! assert_eq!(sandbox.truth("id").len(), 160);
//! assert!(sandbox.audit().breaches().is_empty(), "a limit was exceeded");
//! serving.abort();
//! # Ok(())
//! # }
//! ```
//!
//! [`Options::limits`] overrides rate rules, [`Sandbox::set_faults`] breaks answers, [`Clock::manual`] stops time. From
//! another process, the same controls are under `/_sandbox/` (see `admin`, and `docs/sandbox.md` for the rules of faults).
//!
//! # What always holds
//!
//! - **Independent.** It depends on no crate of Waybill and shares no code with it: it has its own clock, limiter and
//!   reader of rate rules, so an error there cannot hide itself here.
//! - **Repeatable.** The same seed and clock give the same documents.
//! - **Every call is recorded**, whatever its outcome, also if it was refused or lost to a fault. The controls are not
//!   calls.
//! - **The audit is stricter than the limiter.** The limiter counts in fixed windows, as the API does; the audit finds
//!   the busiest window wherever it begins.
//! - **Loopback only.** The controls need no key, and all people are invented.
//!
//! # What it follows
//!
//! `docs/bol-api.md` has the facts and their sources.
//!
//! | behaviour | section |
//! | --- | --- |
//! | `POST /token`: Basic, grant type in the form body only; secrets in the query are refused | Login |
//! | tokens expire after `expires_in` (no grace, stricter than the API); an expired one gets the `Expired JWT` body | Login |
//! | wrong credentials: 401 `invalid_client`, OAuth JSON; a deactivated shop: 403 | Login |
//! | too many logins of a client in a minute: the login host answers 404 to everyone | Login |
//! | fixed windows on the wall clock, per account and most specific rule; headers with seconds left | Rate limits |
//! | 429 with or without `Retry-After`; `GET /retailer/public/ratelimits` without login | Rate limits |
//! | shipments per method, 50 a page, newest first, three months; `{}` past the end (or an empty array) | Shipments |
//! | `order-id` only without `fulfilment-method`; bad values 400 with violations; unknown names ignored | Shipments |
//! | new shipments push older ones to later pages; details gain events without a change of their row | Shipments |
//! | Dutch offsets, ids with letters, leading zeros, missing "required" fields, unknown fields | Values |
//! | orders: handled ones for 48 hours, all with `latest-change-date` | Orders |
//! | returns, stock, invoices, promotions, offers with their pages and filters | Other resources |
//! | `Accept` must be the media type of the resource, else 406; Problems with and without `violations` | Errors |
//!
//! Base addresses may have any prefix: `/anything/retailer/shipments` works like `/retailer/shipments`.
//!
//! # Reading order
//!
//! `state` is what a running sandbox knows. `api` answers the marketplace's calls and `login` issues tokens. `stock`
//! and `content` hold the shipments; `orders` and `other_resources` follow from them. `limits` reads the rate rules,
//! `limiter` applies them, `audit` judges. `fault` decides which calls break and `apply_fault` how; `fault_check` refuses
//! rules that never would. `control` and `admin` are the controls, `server` and `wire` speak HTTP.

mod admin;
mod api;
mod apply_fault;
mod audit;
mod body;
mod clock;
mod content;
mod control;
mod document;
mod echo;
mod edge_cases;
mod error;
mod fault;
mod fault_check;
mod fault_examples;
mod gzip_bomb;
mod limiter;
mod limits;
mod login;
mod options;
mod orders;
mod other_resources;
mod problem;
mod query;
mod server;
mod shop;
mod state;
mod stock;
mod tokens;
mod values;
mod wire;

pub use audit::{Audit, Budget, Call};
pub use body::MEDIA_TYPE;
pub use clock::{Clock, Millis};
pub use document::Method;
pub use error::SandboxError;
pub use fault::{EchoForm, Fault, FaultBody, FaultKind};
pub use fault_examples::{FAULT_FIELDS, FAULT_KINDS};
pub use limits::Limit;
pub use options::{Options, ShopOptions};
pub use state::Sandbox;
