//! The OpenAPI 3.1 description, built from the endpoints and the configured resources.
//!
//! A test calls every operation in it. [`Description`] is how the other endpoints see it.

mod schemas;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::description::Description;
use super::params::text;
use super::query::{LIMIT_DEFAULT, LIMIT_MAX, VALUE_CHARS_MAX};
use super::{filters, params};
use crate::catalog::Definition;
use crate::service::CALL_DAYS_KEPT;
use schemas::{item_name, reference, schemas};

/// The description of an API with these resources.
pub(super) fn description(definitions: &[Arc<Definition>]) -> Description {
    Description::of(&document(definitions))
}

fn document(definitions: &[Arc<Definition>]) -> Value {
    let mut groups = vec![("shops".to_owned(), shop_operations())];
    groups.extend(definitions.iter().map(|definition| (definition.name.clone(), document_operations(definition))));
    groups.extend([
        ("resources".to_owned(), resource_operations()),
        ("runs".to_owned(), run_operations()),
        ("parked".to_owned(), parked_operations()),
        ("adoptions".to_owned(), adoption_operations()),
        ("keys".to_owned(), key_operations()),
        ("master key".to_owned(), master_key_operations()),
        ("system".to_owned(), system_operations()),
    ]);
    let tags: Vec<Value> = groups.iter().map(|(tag, _)| json!({"name": tag})).collect();
    let mut paths = Map::new();
    for (tag, operations) in groups {
        operations.into_iter().for_each(|operation| operation.add_to(&mut paths, &tag));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Waybill",
            "version": "1",
            "description": "A complete, queryable copy of what a marketplace knows about a seller's shop. Times are RFC 3339 in UTC. \
                            Errors are `application/problem+json`; branch on `type`. Every response carries `X-Request-Id`.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
            "schemas": schemas(definitions),
        },
    })
}

/// Compact operation descriptor.
struct Operation {
    path: String,
    method: &'static str,
    id: String,
    summary: String,
    key: KeyUse,
    parameters: Vec<Value>,
    /// Name of the schema of the request body.
    body: Option<&'static str>,
    body_required: bool,
    /// Status and schema of a successful response.
    answer: (&'static str, Option<String>),
    /// Error statuses beside those of every operation.
    problems: &'static [(&'static str, &'static str)],
}

/// Whether an operation requires an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyUse {
    Required,
    /// The answer says more with one.
    Optional,
    /// It cannot fail either.
    Ignored,
}

const ABSENT: (&str, &str) = ("404", "Not found, or this key may not see it");
const CONFLICT: (&str, &str) = ("409", "Conflict with the present state");
const INVALID: (&str, &str) = ("422", "Invalid fields");
const NO_ROOM: (&str, &str) = ("507", "Insufficient storage: the disk is full; see `Retry-After`");
const VERIFIED: [(&str, &str); 3] = [CONFLICT, INVALID, ("502", "The login host cannot be reached; see `Retry-After`")];

fn get(path: &str, id: &str, summary: &str, schema: &str) -> Operation {
    Operation {
        path: path.to_owned(),
        method: "get",
        id: id.to_owned(),
        summary: summary.to_owned(),
        key: KeyUse::Required,
        parameters: path_parameters(path),
        body: None,
        body_required: false,
        answer: ("200", Some(schema.to_owned())),
        problems: if path.contains('{') { &[ABSENT] } else { &[] },
    }
}

fn change(method: &'static str, path: &str, id: &str, summary: &str) -> Operation {
    Operation { method, answer: ("204", None), ..get(path, id, summary, "") }
}

fn system_operations() -> Vec<Operation> {
    let days = json!({"type": "integer", "minimum": 1, "maximum": CALL_DAYS_KEPT, "default": 7});
    let days = parameter("days", "Number of days, including today.", &days);
    vec![
        Operation {
            key: KeyUse::Ignored,
            ..get("/livez", "livez", "Liveness: the process responds. Requires no key.", "Health")
        },
        Operation { key: KeyUse::Ignored, ..get("/healthz", "healthz", "The older name of `/livez`.", "Health") },
        Operation {
            key: KeyUse::Optional,
            ..get(
                "/readyz",
                "readyz",
                "Readiness; 503 if the service cannot work. `degraded`: it works, but something is wrong. Without a key \
                 only the state; with one, the reasons.",
                "Readiness",
            )
        },
        get(
            "/metrics",
            "metrics",
            "Metrics in the Prometheus text format. Requires a key that sees all shops; no key on `http.metrics_listen`.",
            "",
        ),
        get("/openapi.json", "openapi", "This description.", "Any"),
        get("/api/v1/status", "status", "Status of the installation: work, budgets, sink, health.", "Status"),
        Operation {
            parameters: vec![days],
            ..get(
                "/api/v1/calls",
                "calls",
                "Calls to the marketplace by day (UTC) and rate rule, newest day first; logins have the rule `login`. \
                 Requires a key that sees all shops.",
                "Calls",
            )
        },
    ]
}

fn shop_operations() -> Vec<Operation> {
    let shops = "/api/v1/shops";
    let shop = "/api/v1/shops/{shop_id}";
    let sync = "/api/v1/shops/{shop_id}/sync";
    let completeness = "/api/v1/shops/{shop_id}/completeness";
    let purge = parameter("purge", "Delete the shop's rows too.", &json!({"type": "boolean", "default": false}));
    vec![
        Operation {
            parameters: paging(LIMIT_MAX),
            ..get(shops, "list_shops", "The shops, ordered by id.", "Shop_page")
        },
        Operation {
            body: Some("NewShop"),
            body_required: true,
            answer: ("201", Some("Shop".to_owned())),
            problems: &VERIFIED,
            ..change(
                "post",
                shops,
                "create_shop",
                "Register a shop. Its credentials are verified, and a first sync starts.",
            )
        },
        get(shop, "show_shop", "One shop.", "Shop"),
        Operation {
            body: Some("ShopChange"),
            body_required: true,
            answer: ("200", Some("Shop".to_owned())),
            problems: &[ABSENT, CONFLICT, INVALID, VERIFIED[2]],
            ..change(
                "patch",
                shop,
                "update_shop",
                "Rename, rotate the secret, pause or resume. Resuming a refused shop tries its secret again.",
            )
        },
        Operation {
            parameters: [path_parameters(shop), vec![purge]].concat(),
            ..change("delete", shop, "delete_shop", "Delete a shop. Its rows stay unless `purge=true`.")
        },
        Operation {
            body: Some("Sync"),
            answer: ("202", Some("SyncStarted".to_owned())),
            problems: &[ABSENT, CONFLICT, INVALID],
            ..change("post", sync, "sync_shop", "Sync now. A stream with an open run keeps it.")
        },
        get(completeness, "show_completeness", "Compare what was listed with what the sink holds.", "Completeness"),
        Operation {
            answer: ("202", Some("Asked".to_owned())),
            problems: &[ABSENT, INVALID],
            ..change("post", completeness, "close_gaps", "Repair: send again or re-read missing documents.")
        },
    ]
}

fn resource_operations() -> Vec<Operation> {
    vec![
        get("/api/v1/resources", "list_resources", "Configured resources and their tables.", "Resource_list"),
        get(
            "/api/v1/resources/{resource}/drift",
            "show_drift",
            "Fields of documents that no column covers, and values that do not fit their column. Names, never values.",
            "Drift",
        ),
    ]
}

fn run_operations() -> Vec<Operation> {
    let state = parameter("state", "Only runs in this state.", &reference("RunState"));
    vec![
        Operation {
            parameters: [vec![of_shop(), of_resource(), state], paging(LIMIT_DEFAULT)].concat(),
            ..get("/api/v1/runs", "list_runs", "Runs, newest first.", "Run_page")
        },
        get("/api/v1/runs/{run_id}", "show_run", "One run and its progress.", "Run"),
    ]
}

fn parked_operations() -> Vec<Operation> {
    let retry = "/api/v1/parked/{parked_id}/retry";
    let retry_all = "/api/v1/shops/{shop_id}/parked/retry";
    vec![
        Operation {
            parameters: [vec![of_shop()], paging(LIMIT_DEFAULT)].concat(),
            ..get("/api/v1/parked", "list_parked", "Jobs that failed after all attempts.", "Parked_page")
        },
        Operation { problems: &[ABSENT, INVALID], ..change("post", retry, "retry_parked", "Requeue a parked job.") },
        Operation {
            parameters: [path_parameters(retry_all), vec![of_resource()]].concat(),
            answer: ("200", Some("Retried".to_owned())),
            problems: &[ABSENT, INVALID],
            ..change("post", retry_all, "retry_all_parked", "Requeue all parked jobs of a shop.")
        },
    ]
}

fn key_operations() -> Vec<Operation> {
    let keys = "/api/v1/keys";
    vec![
        get(keys, "list_keys", "The API keys. Admin keys only.", "Key_page"),
        Operation {
            body: Some("NewKey"),
            body_required: true,
            answer: ("201", Some("MintedKey".to_owned())),
            problems: &[INVALID],
            ..change("post", keys, "create_key", "Create an API key. Its text is shown only once.")
        },
        change("delete", "/api/v1/keys/{key_id}", "revoke_key", "Revoke an API key with immediate effect."),
    ]
}

fn adoption_operations() -> Vec<Operation> {
    let adoptions = "/api/v1/adoptions";
    vec![
        get(
            adoptions,
            "list_adoptions",
            "The shops of MySQL that could not be restored into this data directory. Admin keys only.",
            "Adoption_page",
        ),
        Operation {
            body: Some("NewAdoption"),
            body_required: true,
            answer: ("201", Some("Shop".to_owned())),
            problems: &[ABSENT, CONFLICT, INVALID, VERIFIED[2]],
            ..change(
                "post",
                adoptions,
                "adopt_shop",
                "Give a shop of MySQL its old id back. Its credentials are verified; `client_id` defaults to that of its row.",
            )
        },
    ]
}

fn master_key_operations() -> Vec<Operation> {
    vec![
        get(
            "/api/v1/master-key",
            "show_master_key",
            "Which master key is in use, and how far its rotation is. Admin keys only.",
            "MasterKey",
        ),
        Operation {
            answer: ("202", Some("MasterKey".to_owned())),
            ..change(
                "post",
                "/api/v1/master-key/rotation",
                "rotate_master_key",
                "Rotate the master key, or go on with a rotation. The next key is read from its file, or made.",
            )
        },
    ]
}

fn document_operations(definition: &Definition) -> Vec<Operation> {
    let name = &definition.name;
    let mut parameters = vec![of_shop()];
    for (filter, place) in &definition.table.filters {
        let schema = filters::schema(&definition.table, place);
        parameters.push(parameter(filter, &format!("Only documents with this `{filter}`."), &schema));
    }
    if let Some(column) = &definition.table.time {
        let time = json!({"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]});
        parameters.push(parameter(
            "from",
            &format!("`{column}` at or after: RFC 3339 or a date (its midnight, UTC), in the years 1 to 9999."),
            &time,
        ));
        parameters.push(parameter(
            "to",
            &format!("`{column}` before: RFC 3339 or a date (its midnight, UTC), in the years 1 to 9999."),
            &time,
        ));
    }
    if !definition.table.search.is_empty() {
        let places = definition.table.search.iter().map(|place| definition.table.name_of(place));
        let columns = places.collect::<Vec<_>>().join(", ");
        parameters.push(parameter("q", &format!("Text within any of: {columns}."), &text(params::SEARCH_CHARS_MAX)));
    }
    parameters.extend(paging(LIMIT_DEFAULT));
    debug_assert!(parameters.iter().all(|parameter| {
        let name = parameter["name"].as_str().unwrap_or_default();
        params::of_documents(definition).contains(&name)
    }));
    let item = item_name(definition);
    vec![
        Operation {
            parameters,
            ..get(
                &format!("/api/v1/{name}"),
                &format!("list_{name}"),
                &format!("The {name}, ordered by shop and id."),
                &format!("{item}_page"),
            )
        },
        get(
            &format!("/api/v1/{name}/{{shop_id}}/{{id}}"),
            &format!("show_{name}"),
            "One document. Encode a `/` in its id as `%2F`.",
            &item,
        ),
    ]
}

fn of_shop() -> Value {
    parameter("shop", "Only this shop.", &text(VALUE_CHARS_MAX))
}

fn of_resource() -> Value {
    parameter("resource", "Only this resource.", &text(VALUE_CHARS_MAX))
}

fn paging(limit_default: usize) -> Vec<Value> {
    let limit = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": limit_default});
    vec![
        parameter("limit", "Page size.", &limit),
        parameter(
            "cursor",
            "`next_cursor` of the previous page, with the same filters.",
            &json!({"type": "string", "minLength": 1}),
        ),
    ]
}

fn parameter(name: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({"type": "string", "minLength": 1});
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": text})).collect()
}

impl Operation {
    fn add_to(mut self, paths: &mut Map<String, Value>, tag: &str) {
        if self.method == "post" {
            self.parameters.push(json!({
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A repeated request with the same key within 24 h returns the stored response and is not \
                                run again. 422: the key was used for a different request. 409: the first one is in progress.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            }));
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [tag],
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": self.responses(),
        });
        if let Some(schema) = self.body {
            operation["requestBody"] = json!({
                "required": self.body_required,
                "content": {"application/json": {"schema": reference(schema)}},
            });
        }
        match self.key {
            KeyUse::Required => {}
            KeyUse::Optional => operation["security"] = json!([{}, {"key": []}]),
            KeyUse::Ignored => operation["security"] = json!([]),
        }
        let item = paths.entry(self.path).or_insert_with(|| json!({}));
        item[self.method] = operation;
    }

    fn responses(&self) -> Value {
        let (status, schema) = &self.answer;
        let good = match schema.as_deref() {
            None => json!({"description": "No content"}),
            Some("") => json!({"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}}),
            Some(name) => {
                json!({"description": "Success", "content": {"application/json": {"schema": reference(name)}}})
            }
        };
        let mut responses = Map::from_iter([((*status).to_owned(), good)]);
        if self.key == KeyUse::Ignored {
            return Value::Object(responses);
        }
        // hyper answers it.
        responses.insert("431".to_owned(), json!({"description": "Request header fields too large; without a body"}));
        let mut bad = |status: &str, description: &str| {
            let content = json!({"application/problem+json": {"schema": reference("Problem")}});
            responses.insert(status.to_owned(), json!({"description": description, "content": content}));
        };
        for (status, description) in EVERYWHERE.iter().chain(self.problems) {
            bad(status, description);
        }
        if self.method != "get" {
            bad(NO_ROOM.0, NO_ROOM.1);
        }
        if self.method == "post" {
            bad(CONFLICT.0, CONFLICT.1);
            bad(INVALID.0, INVALID.1);
        }
        if self.body.is_some() || self.method == "post" {
            BODY.iter().for_each(|(status, description)| bad(status, description));
        }
        Value::Object(responses)
    }
}

const EVERYWHERE: [(&str, &str); 9] = [
    ("400", "Bad request"),
    ("401", "No valid API key"),
    ("403", "The API key lacks the required scope"),
    ("406", "`Accept` excludes the media type of the response"),
    ("408", "Request timeout"),
    ("414", "URI too long"),
    ("429", "Too many requests; see `Retry-After`"),
    ("500", "Internal server error; the log has the cause, by request id"),
    ("503", "Service unavailable; see `Retry-After`"),
];
const BODY: [(&str, &str); 2] =
    [("413", "Content too large"), ("415", "Unsupported media type: the body must be JSON")];
