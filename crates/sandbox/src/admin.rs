//! The controls over HTTP, for tests that run outside the process: everything under `/_sandbox/`.
//!
//! No key is needed; the sandbox binds to loopback. Calls here use no budget and are not recorded.
//!
//! | call | does |
//! | --- | --- |
//! | `GET audit`, `GET calls` | the totals; all calls as JSON lines |
//! | `POST audit/reset` | forgets all calls |
//! | `GET truth?client_id=` | JSON lines of `{method, id, document}` |
//! | `GET truth?client_id=&resource=` | JSON lines of `{id, document}` of any resource |
//! | `POST add` `{client_id, resource}` | adds one document to any resource, by its catalog name; its id |
//! | `POST change` `{client_id, resource, id}` | changes one, row and detail; handles a return |
//! | `POST orders` `{client_id, method}` | places an open order; its id |
//! | `POST returns/handle` `{client_id, id}` | handles an open return |
//! | `POST offers` `{client_id, id, stock}` | adds an offer, or changes its stock |
//! | `POST invoices` `{client_id}` | an invoice of today; its id |
//! | `POST shops` `{client_id, client_secret, fbr, fbb}` | adds a shop |
//! | `POST shops/change` `{client_id, client_secret?, active?}` | rotates its secret, deactivates or activates it |
//! | `POST shipments` `{client_id, method, count}` | adds shipments; their ids |
//! | `POST events` `{client_id, id}` or `{client_id, count}` | grows transport events; the ids |
//! | `POST rows` `{client_id, id}`, `POST remove` `{client_id, id}` | changes a list row; removes a shipment |
//! | `POST faults` `[{match, kind, ...}]` | replaces the fault rules (`docs/sandbox.md`); 400 for one that can never take effect |
//! | `POST settings` `{limits?, latency_ms?, retry_after?, empty_array?, token_life_ms?, expires_in?}` | changes what is named |
//! | `POST tokens/kill`, `POST login` `{blocked}` | ends all tokens; blocks the login host |

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::body::json as text;
use crate::document::Method;
use crate::error::SandboxError;
use crate::fault::Fault;
use crate::options::ShopOptions;
use crate::state::Sandbox;
use crate::wire::{Answer, Request};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// A control that could not be applied, with its status.
struct Refusal(u16, String);

impl From<SandboxError> for Refusal {
    fn from(error: SandboxError) -> Refusal {
        let status = match error {
            SandboxError::UnknownShop(_) | SandboxError::UnknownResource(_) => 404,
            SandboxError::ShopExists(_) | SandboxError::NothingFor(_) => 409,
            SandboxError::Limits(_) | SandboxError::Faults(_) | SandboxError::ClientId => 400,
        };
        Refusal(status, error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShopChange {
    client_id: String,
    client_secret: Option<String>,
    active: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arrivals {
    client_id: String,
    method: Method,
    count: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Growth {
    client_id: String,
    id: Option<String>,
    count: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    client_id: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfShop {
    client_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Addition {
    client_id: String,
    resource: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentChange {
    client_id: String,
    resource: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Placing {
    client_id: String,
    method: Method,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutOffer {
    client_id: String,
    id: String,
    stock: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    blocked: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    limits: Option<BTreeMap<String, String>>,
    latency_ms: Option<u64>,
    retry_after: Option<bool>,
    empty_array: Option<bool>,
    token_life_ms: Option<u64>,
    /// Only with `token_life_ms`; absent: the lifetime in seconds.
    expires_in: Option<Value>,
}

/// Handles a control; `path` follows `/_sandbox/`.
pub(crate) fn answer(sandbox: &Sandbox, path: &str, request: &Request) -> Answer {
    control(sandbox, path, request)
        .unwrap_or_else(|Refusal(status, error)| Answer::new(status, JSON, text(&json!({ "error": error }))))
}

fn control(sandbox: &Sandbox, path: &str, request: &Request) -> Result<Answer, Refusal> {
    let done = match (request.method.as_str(), path) {
        ("GET", "audit") => return Ok(Answer::new(200, JSON, text(&sandbox.audit()))),
        ("GET", "calls") => return Ok(lines(sandbox.calls().iter().map(text))),
        ("GET", "truth") => return truth(sandbox, request),
        ("POST", "audit/reset") => {
            sandbox.reset_audit();
            json!({})
        }
        ("POST", "shops") => {
            let shop: ShopOptions = body(request)?;
            let client_id = shop.client_id.clone();
            sandbox.add_shop(shop)?;
            json!({ "client_id": client_id })
        }
        ("POST", "shops/change") => {
            change_shop(sandbox, &body(request)?)?;
            json!({})
        }
        ("POST", "shipments") => {
            let more: Arrivals = body(request)?;
            json!({ "ids": sandbox.add_shipments(&more.client_id, more.method, more.count)? })
        }
        ("POST", "events") => json!({ "ids": grow(sandbox, &body(request)?)? }),
        ("POST", "rows") => {
            let one: One = body(request)?;
            json!({ "changed": found(sandbox.change_row(&one.client_id, &one.id)?, &one.id)? })
        }
        ("POST", "remove") => {
            let one: One = body(request)?;
            json!({ "removed": found(sandbox.remove(&one.client_id, &one.id)?, &one.id)? })
        }
        ("POST", "faults") => {
            let faults: Vec<Fault> = body(request).map_err(|Refusal(status, error)| {
                Refusal(status, format!("faults: {error}; `waybill sandbox --help` lists the fields and kinds"))
            })?;
            let count = faults.len();
            sandbox.set_checked_faults(faults)?;
            json!({ "rules": count })
        }
        ("POST", "settings") => {
            change_settings(sandbox, body(request)?)?;
            json!({})
        }
        ("POST", "tokens/kill") => json!({ "killed": sandbox.kill_tokens() }),
        ("POST", "login") => {
            let login: Login = body(request)?;
            sandbox.set_login_blocked(login.blocked);
            json!({ "blocked": login.blocked })
        }
        _ => document_control(sandbox, path, request)?,
    };
    Ok(Answer::new(200, JSON, text(&done)))
}

/// The controls of other resources.
fn document_control(sandbox: &Sandbox, path: &str, request: &Request) -> Result<Value, Refusal> {
    Ok(match (request.method.as_str(), path) {
        ("POST", "add") => {
            let one: Addition = body(request)?;
            json!({ "id": sandbox.add_document(&one.client_id, &one.resource)? })
        }
        ("POST", "change") => {
            let one: DocumentChange = body(request)?;
            let changed = sandbox.change_document(&one.client_id, &one.resource, &one.id)?;
            json!({ "changed": changed.then_some(true).ok_or_else(|| nothing_to_change(&one.resource, &one.id))? })
        }
        ("POST", "orders") => {
            let order: Placing = body(request)?;
            json!({ "id": sandbox.add_order(&order.client_id, order.method)? })
        }
        ("POST", "returns/handle") => {
            let one: One = body(request)?;
            let handled = sandbox.handle_return(&one.client_id, &one.id)?;
            json!({ "handled": handled.then_some(true).ok_or_else(|| nothing_to_change("returns", &one.id))? })
        }
        ("POST", "offers") => {
            let offer: PutOffer = body(request)?;
            sandbox.put_offer(&offer.client_id, &offer.id, offer.stock)?;
            json!({})
        }
        ("POST", "invoices") => {
            let shop: OfShop = body(request)?;
            json!({ "id": sandbox.add_invoice(&shop.client_id)? })
        }
        (method, _) => return Err(Refusal(404, format!("no control {method} /_sandbox/{path}"))),
    })
}

fn nothing_to_change(resource: &str, id: &str) -> Refusal {
    Refusal(404, format!("the shop has nothing under {resource} with the id `{id}` that could change"))
}

fn truth(sandbox: &Sandbox, request: &Request) -> Result<Answer, Refusal> {
    let client_id = request.parameter("client_id").ok_or_else(|| Refusal(400, "give ?client_id=".to_owned()))?;
    if sandbox.shop(client_id).is_none() {
        return Err(SandboxError::UnknownShop(client_id.to_owned()).into());
    }
    if let Some(resource) = request.parameter("resource") {
        if !Sandbox::serves(resource) {
            return Err(SandboxError::UnknownResource(resource.to_owned()).into());
        }
        let all = sandbox.truth_of(client_id, resource).into_iter();
        return Ok(lines(all.map(|(id, document)| text(&json!({ "id": id, "document": document })))));
    }
    Ok(lines(
        sandbox
            .truth(client_id)
            .into_iter()
            .map(|(method, id, document)| text(&json!({ "method": method, "id": id, "document": document }))),
    ))
}

fn change_shop(sandbox: &Sandbox, change: &ShopChange) -> Result<(), Refusal> {
    if let Some(secret) = &change.client_secret {
        sandbox.set_secret(&change.client_id, secret)?;
    }
    if let Some(active) = change.active {
        sandbox.set_active(&change.client_id, active)?;
    }
    Ok(())
}

fn grow(sandbox: &Sandbox, growth: &Growth) -> Result<Vec<String>, Refusal> {
    match (&growth.id, growth.count) {
        (Some(id), None) => {
            let grown = sandbox.grow_events(&growth.client_id, id)?;
            Ok(if grown { vec![id.clone()] } else { Vec::new() })
        }
        (None, Some(count)) => Ok(sandbox.grow_newest(&growth.client_id, count)?),
        _ => Err(Refusal(400, "give either id or count".to_owned())),
    }
}

fn change_settings(sandbox: &Sandbox, changes: Changes) -> Result<(), Refusal> {
    if changes.expires_in.is_some() && changes.token_life_ms.is_none() {
        return Err(Refusal(400, "expires_in needs token_life_ms beside it".to_owned()));
    }
    if let Some(limits) = &changes.limits {
        sandbox.set_limits(limits)?;
    }
    if let Some(ms) = changes.latency_ms {
        sandbox.set_latency(Duration::from_millis(ms));
    }
    if let Some(retry_after) = changes.retry_after {
        sandbox.set_retry_after(retry_after);
    }
    if let Some(empty_array) = changes.empty_array {
        sandbox.set_empty_array(empty_array);
    }
    if let Some(ms) = changes.token_life_ms {
        sandbox.set_token_life(Duration::from_millis(ms), changes.expires_in);
    }
    Ok(())
}

fn found(done: bool, id: &str) -> Result<bool, Refusal> {
    if done { Ok(true) } else { Err(Refusal(404, format!("the shop has no shipment `{id}`"))) }
}

fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Refusal> {
    serde_json::from_slice(&request.body).map_err(|error| Refusal(400, format!("body: {error}")))
}

fn lines(rows: impl Iterator<Item = Vec<u8>>) -> Answer {
    let mut out = Vec::new();
    for row in rows {
        out.extend_from_slice(&row);
        out.push(b'\n');
    }
    Answer::new(200, LINES, out)
}
