//! OpenAPI schemas of request bodies and responses.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::health;
use crate::catalog::Definition;
use crate::catalog::definition::ColumnKind;
use crate::http::{api_keys, api_runs, api_shops};
use crate::service::BUDGETS_SHOWN_MAX;
use crate::service::validation::{KEY_DAYS, KEY_DAYS_MAX, RESOURCES_MAX, SHOPS_MAX};

/// `$ref` to a named schema.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Schema of a page of a list.
pub(super) fn page(item: &str) -> Value {
    object(
        &json!({
            "items": {"type": "array", "items": reference(item)},
            "next_cursor": {"type": ["string", "null"], "description": "Null on the last page."},
        }),
        &[],
    )
}

/// Schema of an object whose fields are all required, except those in `optional`.
pub(super) fn object(properties: &Value, optional: &[&str]) -> Value {
    let names = properties.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let required: Vec<&str> = names.filter(|name| !optional.contains(name)).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

/// Schema of a request body: `required` fields are required, others than `properties` are rejected.
fn form(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

pub(super) fn time_or_null() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

pub(super) fn text_or_null() -> Value {
    json!({"type": ["string", "null"]})
}

fn words<T>(choices: &[(&str, T)]) -> Value {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    json!({"type": "string", "enum": names})
}

/// All named schemas, except those of documents.
pub(super) fn schemas(definitions: &[Arc<Definition>]) -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("Any", json!({"type": "object"}));
    add("Health", object(&json!({"status": text()}), &[]));
    let reasons = json!({"type": "array", "items": text(), "description": "Why it is degraded."});
    add(
        "Readiness",
        object(&json!({"status": {"type": "string", "enum": ["ready", "degraded"]}, "reasons": reasons}), &["reasons"]),
    );
    add("Problem", problem());
    add("Shop", shop());
    add("NewShop", new_shop(definitions));
    add("ShopChange", shop_change(definitions));
    add("Sync", sync(definitions));
    add("SyncStarted", object(&json!({"run_ids": {"type": "array", "items": count()}}), &[]));
    add("Completeness", completeness());
    add("Resource_list", resource_descriptions());
    add("Drift", drift());
    add("Asked", object(&json!({"asked": count()}), &[]));
    add("Retried", object(&json!({"retried": count()}), &[]));
    add("RunState", words(&api_runs::STATES));
    add("Run", run());
    add("Parked", parked());
    add("Key", key());
    add("NewKey", new_key());
    add("MintedKey", minted_key());
    add("Calls", calls());
    add("Status", status());
    for item in ["Shop", "Run", "Parked", "Key"] {
        add(&format!("{item}_page"), page(item));
    }
    all
}

fn problem() -> Value {
    let error = object(&json!({"field": text(), "message": text()}), &[]);
    object(
        &json!({
            "type": {"type": "string", "description": "Stable; `urn:waybill:...`."},
            "title": text(),
            "status": {"type": "integer"},
            "detail": text(),
            "request_id": text(),
            "errors": {"type": "array", "items": error},
        }),
        &["errors"],
    )
}

const NAME: &str =
    "^[^\\u0000-\\u001f\\u007f-\\u009f]*[^\\s\\u0000-\\u001f\\u007f-\\u009f][^\\u0000-\\u001f\\u007f-\\u009f]*$";

fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 100, "pattern": NAME})
}

fn id() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"})
}

fn secret() -> Value {
    json!({"type": "string", "pattern": "^[!-~]{0,256}$", "writeOnly": true, "format": "password"})
}

fn resource_names(definitions: &[Arc<Definition>]) -> Value {
    let names: Vec<&str> = definitions.iter().map(|definition| definition.name.as_str()).collect();
    json!({"type": "string", "enum": names})
}

fn resource_list(definitions: &[Arc<Definition>]) -> Value {
    json!({"type": "array", "items": resource_names(definitions), "minItems": 1, "maxItems": RESOURCES_MAX, "uniqueItems": true})
}

fn shop() -> Value {
    object(
        &json!({
            "id": text(),
            "name": text(),
            "client_id": text(),
            "account": {"type": "string", "description": "The account whose call budget it uses."},
            "resources": {"type": "array", "items": text()},
            "all_resources": {"type": "boolean", "description": "It syncs all configured resources, including ones added later; `resources` lists the present ones."},
            "state": {"type": "string", "enum": ["active", "paused", "refused"]},
            "reason": {"type": ["string", "null"], "description": "Why it is not active."},
            "client_secret_set": {"type": "boolean"},
            "created_at": time(),
            "updated_at": time(),
            "resources_health": {"type": "array", "items": health::resource_health()},
        }),
        &[],
    )
}

fn new_shop(definitions: &[Arc<Definition>]) -> Value {
    form(
        &json!({
            "name": name(),
            "client_id": id(),
            "client_secret": secret(),
            "account": id(),
            "resources": resource_list(definitions),
        }),
        &["name", "client_id", "client_secret"],
    )
}

fn shop_change(definitions: &[Arc<Definition>]) -> Value {
    let mut resources = resource_list(definitions);
    resources["type"] = json!(["array", "null"]);
    resources["description"] = json!("Null: all configured resources, including ones added later.");
    let properties = json!({
        "name": name(),
        "client_secret": secret(),
        "account": id(),
        "resources": resources,
        "paused": {"type": "boolean"},
    });
    let mut schema = form(&properties, &[]);
    schema["minProperties"] = json!(1);
    schema
}

fn sync(definitions: &[Arc<Definition>]) -> Value {
    let mut mode = words(&api_shops::MODES);
    mode["default"] = json!("incremental");
    form(&json!({"resource": resource_names(definitions), "mode": mode}), &[])
}

fn run() -> Value {
    let mut properties = json!({
        "id": count(),
        "shop_id": text(),
        "resource": text(),
        "parameters": {"type": "object", "additionalProperties": text(), "description": "List parameters of its stream."},
        "mode": words(&api_shops::MODES),
        "state": reference("RunState"),
        "started_at": time(),
        "ended_at": time_or_null(),
        "newest": time_or_null(),
        "forecast_at": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "Estimated end. Null: unknown, or it has ended.",
        },
        "pages_expected": {
            "type": ["integer", "null"],
            "minimum": 0,
            "description": "Estimated total number of pages, while it walks. Null: unknown.",
        },
        "waits_for": {
            "oneOf": [{"type": "null"}, {
                "type": "object",
                "required": ["reason", "until", "text"],
                "properties": {
                    "reason": {"type": "string", "enum": ["rate_limit", "retry_after", "api", "sink"]},
                    "until": time_or_null(),
                    "text": text(),
                },
            }],
            "description": "Why an open run makes no calls now. Null: it makes calls, or has ended.",
        },
        "error": text_or_null(),
        "drift": {
            "type": "boolean",
            "description": "The list changed while it was walked: the last pass still found rows that earlier ones \
                            had missed. The next run walks it completely again.",
        },
    });
    let counters = [
        "pages", "passes", "listed", "rejected", "new", "changed", "to_fetch", "fetched", "gone", "parked", "pending",
        "written", "refused",
    ];
    for counter in counters {
        properties[counter] = count();
    }
    properties["refused"]["description"] = json!(
        "Of `parked`: documents that were fetched and that the sink refused. to_fetch = fetched + gone + \
               pending + parked - refused."
    );
    object(&properties, &[])
}

fn completeness() -> Value {
    let reasons = ["never_read", "not_in_sink", "older_in_sink", "listing_in_sink", "children_in_sink"];
    let gap = object(&json!({"id": text(), "reason": {"type": "string", "enum": reasons}}), &[]);
    let mut resource = json!({
        "resource": text(),
        "full_walk_at": time_or_null(),
        "unproved": {
            "type": ["string", "null"],
            "description": "Why the last walk of a stream could not prove that it read the whole list.",
        },
        "gaps": {"type": "array", "items": gap, "description": "The first hundred missing documents."},
    });
    let counts = ["listed", "stored", "in_sink", "pending", "parked", "gone", "missing", "only_in_sink"];
    for name in counts {
        resource[name] = count();
    }
    let resources = json!({
        "type": "array",
        "items": object(&resource, &[]),
        "description": "For each: listed = in_sink + pending + parked + gone + missing. Without a full walk a resource is not complete.",
    });
    object(&json!({"shop_id": text(), "complete": {"type": "boolean"}, "resources": resources}), &[])
}

fn resource_descriptions() -> Value {
    let list = |items: Value| json!({"type": "array", "items": items});
    let columns = list(object(&json!({"name": text(), "type": text()}), &[]));
    let child = object(&json!({"table": text(), "columns": columns.clone()}), &[]);
    let resource = json!({
        "name": text(),
        "table": text(),
        "id": text(),
        "parent": text_or_null(),
        "columns": columns,
        "children": list(child),
        "filters": list(text()),
    });
    object(&json!({"items": list(object(&resource, &[]))}), &[])
}

fn drift() -> Value {
    let place = |own: &[&str]| {
        let mut fields = json!({"kind": text(), "documents": count(), "first_seen": time(), "last_seen": time()});
        for name in own {
            fields[*name] = text();
        }
        json!({"type": "array", "items": object(&fields, &[])})
    };
    let fields = json!({
        "resource": text(),
        "since": time(),
        "unmapped": place(&["path"]),
        "misfits": place(&["table", "column"]),
        "tolerated": place(&["path"]),
        "untimed": place(&["path"]),
        "more": count(),
    });
    object(&fields, &[])
}

fn parked() -> Value {
    object(
        &json!({
            "id": count(),
            "shop_id": text(),
            "resource": text(),
            "document_id": text_or_null(),
            "job": {"type": "string", "enum": ["list_page", "fetch_detail", "sweep", "write"]},
            "reason": text(),
            "attempts": count(),
            "parked_at": time(),
        }),
        &[],
    )
}

fn key_properties() -> Value {
    json!({
        "id": text(),
        "name": text(),
        "scope": words(&api_keys::SCOPES),
        "shops": {"type": ["array", "null"], "items": text(), "description": "Null: all shops."},
        "created_at": time(),
        "expires_at": time_or_null(),
        "last_used_at": time_or_null(),
    })
}

fn key() -> Value {
    object(&key_properties(), &[])
}

fn minted_key() -> Value {
    let mut properties = key_properties();
    properties["key"] = json!({"type": "string", "description": "The text of the key; shown only once."});
    object(&properties, &[])
}

fn new_key() -> Value {
    let mut scope = words(&api_keys::SCOPES);
    scope["default"] = json!("read");
    let mut schema = form(
        &json!({
            "name": name(),
            "scope": scope,
            "shops": {"type": "array", "items": id(), "minItems": 1, "maxItems": SHOPS_MAX, "uniqueItems": true},
            "expires_days": {"type": "integer", "minimum": 1, "maximum": KEY_DAYS_MAX, "default": KEY_DAYS},
        }),
        &["name"],
    );
    // An admin key is for all shops.
    schema["not"] = json!({"properties": {"scope": {"const": "admin"}}, "required": ["scope", "shops"]});
    schema
}

fn status() -> Value {
    let mut properties = json!({
        "idle": {"type": "boolean", "description": "Nothing to do now."},
        "budgets": {
            "type": "array",
            "items": budget(),
            "maxItems": BUDGETS_SHOWN_MAX,
            "description": "Blocked budgets first, then those with the most calls in flight or in their window.",
        },
        "budgets_left_out": count(),
        "sink": object(&json!({"kind": text(), "healthy": {"type": "boolean"}, "error": text_or_null()}), &[]),
        "logins_paused_until": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "No login before then: the login host blocks this address or asked to wait. Null: logins are not paused.",
        },
        "overdue": {
            "type": "array",
            "items": object(&json!({"shop_id": text(), "stream": text(), "walked_at": time_or_null()}), &[]),
            "description": "Streams whose last run is so long ago that rows may soon leave the API's history.",
        },
        "shops": object(&json!({"active": count(), "paused": count(), "refused": count()}), &[]),
        "health": health::health(),
        "version": text(),
        "started_at": time(),
        "calls_since": time_or_null(),
    });
    let counters = [
        "open_runs",
        "pending_jobs",
        "waiting_jobs",
        "leased_jobs",
        "outbox",
        "outbox_bytes",
        "parked",
        "calls",
        "refused_429",
        "logins",
    ];
    for counter in counters {
        properties[counter] = count();
    }
    properties["calls"]["description"] =
        json!("Calls to the marketplace since `calls_since`, over all restarts; without logins.");
    properties["refused_429"]["description"] = json!("Of the calls, those answered 429.");
    properties["pending_jobs"]["description"] = json!("Due now, or failed and to be retried.");
    properties["waiting_jobs"]["description"] =
        json!("Delayed: retries, and later reads of documents that may still change.");
    object(&properties, &[])
}

fn calls() -> Value {
    let statuses = ["2xx", "3xx", "4xx", "429", "5xx", "none"];
    let counts = statuses.map(|status| (status.to_owned(), count()));
    let item = object(
        &json!({
            "day": time(),
            "rule": text(),
            "calls": count(),
            "statuses": {
                "type": "object",
                "properties": Map::from_iter(counts),
                "additionalProperties": false,
                "description": "By status class, 429 separately; `none`: no response began. Zero counts are left out.",
            },
        }),
        &[],
    );
    object(&json!({"since": time_or_null(), "items": {"type": "array", "items": item}}), &[])
}

fn budget() -> Value {
    object(
        &json!({
            "account": text(),
            "rule": text(),
            "limit": {"type": ["integer", "null"], "description": "Null: unlimited."},
            "window_s": {"type": ["number", "null"]},
            "in_flight": count(),
            "cooling": count(),
            "available": {"type": ["integer", "null"]},
            "waiting": count(),
            "blocked_for_ms": count(),
            "next_free_at": time_or_null(),
        }),
        &[],
    )
}

/// Schema of one document of a resource, with its typed columns.
pub(super) fn item_schema(definition: &Definition) -> Value {
    let mut properties = json!({
        "shop_id": text(),
        "id": text(),
        "fetched_at": time(),
        "version": count(),
        "first_listed_at": time(),
        "no_longer_listed_at": time_or_null(),
        "document": {
            "type": "object",
            "description": "As received from the marketplace. The archive keeps it byte for byte; MySQL reorders its keys and \
                            rounds numbers of more than 17 digits.",
        },
    });
    for column in &definition.table.columns {
        properties[&column.name] = column_schema(column.kind);
    }
    let columns: Vec<&str> = definition.table.columns.iter().map(|column| column.name.as_str()).collect();
    object(&properties, &columns)
}

fn column_schema(kind: ColumnKind) -> Value {
    match kind {
        ColumnKind::Text(_) => text_or_null(),
        ColumnKind::Datetime => time_or_null(),
        ColumnKind::Date => json!({"type": ["string", "null"], "format": "date"}),
        ColumnKind::Integer => json!({"type": ["integer", "null"]}),
        ColumnKind::Decimal { .. } => {
            json!({"type": ["string", "null"], "description": "A decimal number without exponent."})
        }
        ColumnKind::Boolean => json!({"type": ["boolean", "null"]}),
        ColumnKind::Json => json!({}),
    }
}
