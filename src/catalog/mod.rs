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

/// A definition as far as it could be read.
#[derive(Clone, Debug)]
pub struct Draft {
    pub definition: Arc<Definition>,
    /// Nothing was wrong with it by itself.
    pub is_whole: bool,
}

/// The definitions of the wanted resources: from the catalog, overlaid with or added by `own`
/// (the configuration's `[resource.*]` tables).
///
/// # Errors
/// Every problem of every definition at once.
pub fn resources(wanted: &[String], own: &toml::Table, rules: &RuleTable) -> Result<Vec<Arc<Definition>>, Vec<String>> {
    let (drafts, problems) = drafts(wanted, own, rules);
    if problems.is_empty() { Ok(drafts.into_iter().map(|draft| draft.definition).collect()) } else { Err(problems) }
}

/// The same as far as they can be read, and every problem. Those in `own` that are not wanted are checked too, so that
/// a misspelt name shows itself.
pub fn drafts(wanted: &[String], own: &toml::Table, rules: &RuleTable) -> (Vec<Draft>, Vec<String>) {
    let written = own.keys().filter(|name| !wanted.contains(name));
    let names: Vec<String> = wanted.iter().chain(written).cloned().collect();
    let (mut drafts, mut problems) = (Vec::new(), Vec::new());
    for name in &names {
        match written_or_built_in(name, own) {
            Ok(table) => {
                let (definition, found) = reader::draft(name, &table);
                let is_whole = found.is_empty();
                problems.extend(found);
                problems.extend(unruled(&definition, rules));
                drafts.push(Draft { definition: Arc::new(definition), is_whole });
            }
            Err(problem) => problems.push(problem),
        }
    }
    for Draft { definition, .. } in &drafts {
        let around = if wanted.contains(&definition.name) { wanted } else { &names };
        problems.extend(orphaned(definition, around));
    }
    problems.extend(unfit(&drafts));
    drafts.retain(|draft| wanted.contains(&draft.definition.name));
    (drafts, problems)
}

/// Its paths that have no rate rule.
fn unruled(definition: &Definition, rules: &RuleTable) -> Vec<String> {
    let detail = definition.detail.iter().map(|detail| ("detail", &detail.path));
    let paths = std::iter::once(("list", &definition.list.path)).chain(detail);
    // An empty one could not be read.
    let lacks = |(_, path): &(&str, &String)| !path.is_empty() && rules.find("GET", path).is_none();
    let told = |(part, path): (&str, &String)| {
        let (name, rule) = (&definition.name, Rule::name_for("GET", path));
        format!(
            "resource.{name}.{part}.path: no rate rule for GET {path}; add it under [source.limits], like \"{rule}\" = \"20/min\""
        )
    };
    paths.filter(lacks).map(told).collect()
}

/// What is wrong with a definition whose parent is not there: its list is asked for by the parent's ids.
fn orphaned(Definition { name, parent, .. }: &Definition, around: &[String]) -> Option<String> {
    let parent = parent.as_ref().filter(|parent| !around.contains(parent))?;
    Some(format!("resource.{name}.parent: `{parent}` is not among `resources`; add it there, its list is needed"))
}

/// What is wrong with definitions side by side.
fn unfit(drafts: &[Draft]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut tables: BTreeMap<&str, String> = BTreeMap::new();
    let definitions = || drafts.iter().map(|draft| draft.definition.as_ref());
    for definition in definitions() {
        let name = &definition.name;
        if let Some(parent) = &definition.parent
            && parent != name
            && definitions().any(|other| other.name == *parent && other.parent.is_some())
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

/// A definition's text, to be read.
///
/// # Errors
/// There is none of that name.
fn written_or_built_in(name: &str, own: &toml::Table) -> Result<toml::Table, String> {
    let built_in = RESOURCES.iter().find(|(known, _)| *known == name);
    let mut table = toml::Table::new();
    if let Some((_, text)) = built_in {
        let file: toml::Table = toml::from_str(text).map_err(|error| format!("catalog/{name}.toml: {error}"))?;
        table = subtable(&file, name).unwrap_or_default();
    }
    if let Some(own) = own.get(name) {
        let own = own.as_table().ok_or_else(|| format!("resource.{name}: must be a table, like [resource.{name}]"))?;
        reader::merge(&mut table, own);
    } else if built_in.is_none() {
        let known: Vec<&str> = RESOURCES.iter().map(|(known, _)| *known).collect();
        let near = nearest(name, known.iter().copied()).unwrap_or_default();
        return Err(format!(
            "resources: `{name}` is not in the catalog and there is no [resource.{name}]; did you mean `{near}`? The catalog has {}",
            known.join(", ")
        ));
    }
    Ok(table)
}

fn subtable(file: &toml::Table, name: &str) -> Option<toml::Table> {
    file.get("resource")?.get(name)?.as_table().cloned()
}
