//! The built-in marketplace (address, rate rules, resource definitions) and the reader of definitions.
//!
//! This folder, the sandbox and the tests are the only places that know a marketplace's words. [`resources`] merges
//! the built-in definitions with those of the configuration.

mod cell;
pub mod column_fill;
#[cfg(test)]
mod column_fill_tests;
pub mod columns;
pub mod coverage;
pub mod definition;
pub mod extract;
pub mod facets;
mod field_drift;
pub(crate) mod filter;
pub mod infer;
pub mod limits;
pub mod openapi_check;
mod page_fields;
mod page_style;
mod problem;
pub mod reader;
mod resolve;
mod table_reader;
mod toml_fields;
mod values;
mod views;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use definition::Definition;
pub use limits::{Limit, Rule, RuleTable};
pub use problem::{DefinitionProblem, Problems};
pub use resolve::{DefinitionDraft, drafts, idle_rules, resources, wanted_of};
pub use table_reader::is_identifier;
pub use toml_fields::{did_you_mean, nearest, unknown_key};
pub use views::views;

const SOURCE: &str = include_str!("bol.toml");
const RESOURCES: [(&str, &str); 10] = [
    ("inventory", include_str!("inventory.toml")),
    ("invoice_requests", include_str!("invoice_requests.toml")),
    ("invoices", include_str!("invoices.toml")),
    ("offers", include_str!("offers.toml")),
    ("orders", include_str!("orders.toml")),
    ("promotion_products", include_str!("promotion_products.toml")),
    ("promotions", include_str!("promotions.toml")),
    ("replenishments", include_str!("replenishments.toml")),
    ("returns", include_str!("returns.toml")),
    ("shipments", include_str!("shipments.toml")),
];

/// The resources that are synced when the configuration names none.
pub const RESOURCES_DEFAULT: [&str; 1] = ["shipments"];

/// The built-in marketplace.
#[derive(Clone, Debug, Deserialize)]
pub struct SourceDefaults {
    pub base_url: String,
    pub token_url: String,
    pub limits: BTreeMap<String, String>,
}

/// The built-in marketplace's address and limits.
///
/// # Errors
/// Only when the file compiled into the binary is broken; a test reads it.
pub fn source_defaults() -> Result<SourceDefaults, String> {
    #[derive(Deserialize)]
    struct File {
        source: SourceDefaults,
    }
    toml::from_str::<File>(SOURCE).map(|file| file.source).map_err(|error| format!("catalog/bol.toml: {error}"))
}

/// Whether a resource of this name ships with the binary.
pub fn ships(name: &str) -> bool {
    RESOURCES.iter().any(|(known, _)| *known == name)
}
