//! What ships with the binary: the marketplace's address, its rate rules and its resources.
//!
//! This folder, the sandbox and the tests are the only places that know a marketplace's words.
//! [`resources`] merges the built-in definitions with what the configuration adds.

pub mod coverage;
pub mod definition;
pub mod description;
pub mod extract;
mod fields;
pub mod infer;
mod layout;
pub mod limits;
pub mod reader;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

pub use definition::Definition;
pub use fields::nearest;
pub use layout::is_identifier;
pub use limits::{Limit, Rule, RuleTable};
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

/// How the names of tables begin that no resource owns.
const RESERVED_TABLES: &str = "waybill_";

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

/// The definitions of the named resources: from the catalog, overlaid with or added by `own`
/// (the configuration's `[resource.*]` tables).
///
/// # Errors
/// Every problem of every definition at once.
pub fn resources(names: &[String], own: &toml::Table, rules: &RuleTable) -> Result<Vec<Arc<Definition>>, Vec<String>> {
    let mut definitions = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        match resource(name, own) {
            Ok(definition) => {
                for path in definition.paths().filter(|path| rules.find("GET", path).is_none()) {
                    let rule = Rule::name_for("GET", path);
                    problems.push(format!(
                        "resource.{name}: no rate rule for GET {path}; add it under [source.limits], like \"{rule}\" = \"20/min\""
                    ));
                }
                definitions.push(Arc::new(definition));
            }
            Err(mut found) => problems.append(&mut found),
        }
    }
    if problems.is_empty() {
        problems = unfit(&definitions);
    }
    if problems.is_empty() { Ok(definitions) } else { Err(problems) }
}

/// What is wrong with definitions whose parents are not there: their lists are asked for by the parents' ids.
pub fn orphans(definitions: &[Arc<Definition>]) -> Vec<String> {
    let names: Vec<&str> = definitions.iter().map(|definition| definition.name.as_str()).collect();
    let orphaned = |definition: &&Arc<Definition>| {
        definition.parent.as_ref().is_some_and(|parent| !names.contains(&parent.as_str()))
    };
    let told = |Definition { name, parent, .. }: &Definition| {
        let parent = parent.as_deref().unwrap_or_default();
        format!("resource.{name}.parent: `{parent}` is not among `resources`; add it there, its list is needed")
    };
    definitions.iter().filter(orphaned).map(|definition| told(definition)).collect()
}

/// What is wrong with sound definitions side by side.
fn unfit(definitions: &[Arc<Definition>]) -> Vec<String> {
    let mut problems = orphans(definitions);
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    for definition in definitions {
        let name = &definition.name;
        if let Some(parent) = &definition.parent
            && definitions.iter().any(|other| other.name == *parent && other.parent.is_some())
        {
            problems.push(format!("resource.{name}.parent: `{parent}` has a parent itself; only one step is possible"));
        }
        let children =
            definition.table.children.iter().map(|child| (format!("table.children.{}", child.name), &child.name));
        for (key, table) in std::iter::once(("table.name".to_owned(), &definition.table.name)).chain(children) {
            if table.starts_with(RESERVED_TABLES) {
                problems.push(format!(
                    "resource.{name}.{key}: tables that begin with `{RESERVED_TABLES}` are Waybill's own; choose another name"
                ));
            }
            if let Some(other) = tables.insert(table, format!("resource.{name}.{key}")) {
                problems
                    .push(format!("resource.{name}.{key}: `{table}` is the table of {other} too; choose another name"));
            }
        }
    }
    problems
}

fn resource(name: &str, own: &toml::Table) -> Result<Definition, Vec<String>> {
    let built_in = RESOURCES.iter().find(|(known, _)| *known == name);
    let mut table = toml::Table::new();
    if let Some((_, text)) = built_in {
        let file: toml::Table = toml::from_str(text).map_err(|error| vec![format!("catalog/{name}.toml: {error}")])?;
        table = subtable(&file, name).unwrap_or_default();
    }
    let own = own.get(name).and_then(toml::Value::as_table);
    if let Some(own) = own {
        reader::merge(&mut table, own);
    } else if built_in.is_none() {
        let known: Vec<&str> = RESOURCES.iter().map(|(known, _)| *known).collect();
        let near = nearest(name, known.iter().copied()).unwrap_or_default();
        return Err(vec![format!(
            "resources: `{name}` is not in the catalog and there is no [resource.{name}]; did you mean `{near}`? The catalog has {}",
            known.join(", ")
        )]);
    }
    reader::read(name, &table)
}

fn subtable(file: &toml::Table, name: &str) -> Option<toml::Table> {
    file.get("resource")?.get(name)?.as_table().cloned()
}
