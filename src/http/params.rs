//! Query parameters of document lists: names, limits and schema.
//!
//! Shared by the handler, the filters and the OpenAPI description, and below all of them.

use serde_json::{Value, json};

use crate::catalog::Definition;

/// Parameters of every list; a definition adds its filters.
const PARAMETERS: [&str; 6] = ["shop", "from", "to", "q", "limit", "cursor"];

/// Longest `q`, in characters: enough for a name or a number.
pub(super) const SEARCH_CHARS_MAX: usize = 200;

/// The parameters of a resource: not every one has a time column or a search.
pub(super) fn of_documents(definition: &Definition) -> Vec<&str> {
    let table = &definition.table;
    let applies = |name: &&str| match *name {
        "from" | "to" => table.time.is_some(),
        "q" => !table.search.is_empty(),
        _ => true,
    };
    PARAMETERS.into_iter().filter(applies).chain(table.filters.iter().map(|(name, _)| name.as_str())).collect()
}

/// Schema of a text parameter without control characters.
pub(super) fn text(length_max: usize) -> Value {
    let no_controls = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$";
    json!({"type": "string", "minLength": 1, "maxLength": length_max, "pattern": no_controls})
}
