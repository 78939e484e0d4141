//! OpenAPI schemas: of responses from their forms, of request bodies by hand, of documents from their definition.
//!
//! The form of a response derives its schema, so that a field is written once; the documentation of a form and of its
//! fields is what users of the API read. Request bodies have no form: their fields are read one by one, so that one
//! answer names every error.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::catalog::Definition;
use crate::catalog::definition::ColumnKind;
use crate::http::{
    api_adoptions, api_calls, api_completeness, api_keys, api_master_key, api_resources, api_runs, api_shops, health,
    reply,
};
use crate::service::Status;
use crate::service::validation::{KEY_DAYS, KEY_DAYS_MAX, RESOURCES_MAX, SHOPS_MAX};

/// The forms of responses; those within them are added by themselves.
#[derive(OpenApi)]
#[openapi(components(schemas(
    api_adoptions::AdoptionForm,
    api_calls::CallsForm,
    api_completeness::CompletenessForm,
    api_completeness::QueuedForm,
    api_keys::KeyForm,
    api_keys::MintedKeyForm,
    api_master_key::MasterKeyForm,
    api_resources::DriftForm,
    api_resources::ResourcesForm,
    api_runs::ParkedForm,
    api_runs::RetriedForm,
    api_runs::RunForm,
    api_shops::ShopForm,
    api_shops::StartedForm,
    health::LivenessForm,
    health::ReadinessForm,
    reply::ProblemForm,
    Status,
)))]
struct Forms;

/// All named schemas.
pub(super) fn schemas(definitions: &[Arc<Definition>]) -> Map<String, Value> {
    let forms = serde_json::to_value(Forms::openapi()).unwrap_or_default();
    let mut all = forms.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut add = |name: &str, schema: Value| all.insert(name.to_owned(), schema);
    add("Any", json!({"type": "object"}));
    add("NewShop", new_shop(definitions));
    add("ShopChange", shop_change(definitions));
    add("Sync", sync(definitions));
    add("NewKey", new_key());
    add("NewAdoption", new_adoption());
    for item in ["Shop", "Run", "Parked", "Key", "Adoption"] {
        add(&format!("{item}_page"), page(item));
    }
    for definition in definitions {
        let item = item_name(definition);
        add(&format!("{item}_page"), page(&item));
        add(&item, item_schema(definition));
    }
    all
}

/// Name of the schema of a resource's documents.
pub(super) fn item_name(definition: &Definition) -> String {
    format!("{}_item", definition.name)
}

/// `$ref` to a named schema.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// Schema of a page of a list.
fn page(item: &str) -> Value {
    json!({
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": reference(item)},
            "next_cursor": {"type": ["string", "null"], "description": "Null on the last page."},
        },
        "required": ["items", "next_cursor"],
    })
}

/// Schema of a request body: `required` fields are required, others than `properties` are rejected.
fn body(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// Schema of a text that is one of these.
fn choice<T>(choices: &[(&str, T)], default: &str) -> Value {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    json!({"type": "string", "enum": names, "default": default})
}

/// Control, bidi and zero-width characters, as a class of a pattern; those beyond U+FFFF have no common syntax there.
const NOT_IN_NAMES: &str = "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\
                            \\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb";

fn name() -> Value {
    let (any, visible) = (format!("[^{NOT_IN_NAMES}]*"), format!("[^\\s{NOT_IN_NAMES}]"));
    json!({"type": "string", "minLength": 1, "maxLength": 100, "pattern": format!("^{any}{visible}{any}$")})
}

fn id() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"})
}

fn secret() -> Value {
    json!({"type": "string", "pattern": "^[!-~]{0,256}$", "writeOnly": true, "format": "password"})
}

fn new_adoption() -> Value {
    body(&json!({"shop_id": id(), "client_id": id(), "client_secret": secret()}), &["shop_id", "client_secret"])
}

fn resource_names(definitions: &[Arc<Definition>]) -> Value {
    let names: Vec<&str> = definitions.iter().map(|definition| definition.name.as_str()).collect();
    json!({"type": "string", "enum": names})
}

fn resource_list(definitions: &[Arc<Definition>]) -> Value {
    json!({"type": "array", "items": resource_names(definitions), "minItems": 1, "maxItems": RESOURCES_MAX, "uniqueItems": true})
}

fn new_shop(definitions: &[Arc<Definition>]) -> Value {
    body(
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
        "paused": {
            "type": "boolean",
            "description": "False resumes the shop; a refused one once the login host accepts the secret that is stored.",
        },
    });
    let mut schema = body(&properties, &[]);
    schema["minProperties"] = json!(1);
    schema
}

fn sync(definitions: &[Arc<Definition>]) -> Value {
    let mode = choice(&api_shops::MODES, "incremental");
    body(&json!({"resource": resource_names(definitions), "mode": mode}), &[])
}

fn new_key() -> Value {
    let mut schema = body(
        &json!({
            "name": name(),
            "scope": choice(&api_keys::SCOPES, "read"),
            "shops": {"type": "array", "items": id(), "minItems": 1, "maxItems": SHOPS_MAX, "uniqueItems": true},
            "expires_days": {"type": "integer", "minimum": 1, "maximum": KEY_DAYS_MAX, "default": KEY_DAYS},
        }),
        &["name"],
    );
    // An admin key is for all shops.
    schema["not"] = json!({"properties": {"scope": {"const": "admin"}}, "required": ["scope", "shops"]});
    schema
}

/// Schema of one document of a resource, with its typed columns.
fn item_schema(definition: &Definition) -> Value {
    let time = json!({"type": "string", "format": "date-time"});
    let mut properties = json!({
        "shop_id": {"type": "string"},
        "id": {"type": "string"},
        "fetched_at": time,
        "version": {"type": "integer", "minimum": 0},
        "first_listed_at": time,
        "no_longer_listed_at": {"type": ["string", "null"], "format": "date-time"},
        "document": {
            "type": "object",
            "description": "As received from the marketplace. The archive keeps it byte for byte; MySQL reorders its keys and \
                            rounds numbers of more than 17 digits.",
        },
    });
    let fixed = properties.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    for column in &definition.table.columns {
        properties[&column.name] = column_schema(column.kind);
    }
    json!({"type": "object", "properties": properties, "required": fixed})
}

fn column_schema(kind: ColumnKind) -> Value {
    match kind {
        ColumnKind::Text(_) => json!({"type": ["string", "null"]}),
        ColumnKind::Datetime => json!({"type": ["string", "null"], "format": "date-time"}),
        ColumnKind::Date => json!({"type": ["string", "null"], "format": "date"}),
        ColumnKind::Integer => json!({"type": ["integer", "null"]}),
        ColumnKind::Decimal { .. } => {
            json!({"type": ["string", "null"], "description": "A decimal number without exponent."})
        }
        ColumnKind::Boolean => json!({"type": ["boolean", "null"]}),
        ColumnKind::Json => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::schemas;
    use crate::domain::health::REASONS_MAX;
    use crate::service::BUDGETS_SHOWN_MAX;

    #[test]
    fn limits_in_the_schemas_are_those_of_the_code() {
        let all = Value::Object(schemas(&[]));
        for (of, limit) in
            [("/Status/properties/budgets", BUDGETS_SHOWN_MAX), ("/HealthView/properties/reasons", REASONS_MAX)]
        {
            assert_eq!(all.pointer(&format!("{of}/maxItems")), Some(&Value::from(limit)), "{of}");
        }
    }
}
