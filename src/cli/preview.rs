//! `waybill preview`: tries out a definition.

use std::path::Path;

use serde_json::{Value, json};

use super::command_error::{CommandError, CommandResult};
use super::in_use::{self, AT_REST_ONLY};
use super::log::Voice;
use super::open::{configure, nothing_yet};
use super::output::Out;
use super::schema::known;
use super::table;
use crate::app::preview::{self, Preview};
use crate::domain::counted;

/// Show the first rows of a resource, and the value of each column.
///
/// Reads one list page and a few documents from the marketplace, within its rate limits, and maps them as the definition
/// says. Writes nothing, neither to MySQL nor to the archive.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill preview orders\n  waybill preview orders --shop k3v9x0q2m1ab --rows 20\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// The resource, as the configuration names it
    resource: String,
    /// The shop, by id [default: the first that syncs the resource]
    #[arg(long, value_name = "ID")]
    shop: Option<String>,
    /// How many documents to read
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rows: u16,
    /// Print one JSON document instead of the tables
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::Command)?;
    known(&config, Some(&args.resource))?;
    if let Some(message) = nothing_yet(&config, args.shop.as_deref())? {
        return Err(CommandError::Failed(anyhow::anyhow!(message)));
    }
    let definition = config.definitions.iter().find(|definition| definition.name == args.resource);
    let Some(definition) = definition else { return Ok(()) };
    let found = preview::preview(&config, definition, args.shop.as_deref(), usize::from(args.rows)).await;
    let found = found.map_err(|error| in_use::explain(error, &config.data_dir, config.listen, AT_REST_ONLY))?;
    if args.json { show_json(&args.resource, &found, &mut out) } else { show(&args.resource, &found, &mut out) }
}

fn show_json(resource: &str, found: &Preview, out: &mut Out) -> CommandResult {
    let Preview { shop, names, rows, columns, children, unmapped } = found;
    let row = |row: &Vec<String>| -> serde_json::Map<String, Value> {
        names.iter().cloned().zip(row.iter().cloned().map(Value::String)).collect()
    };
    let columns: Vec<Value> = columns
        .iter()
        .map(|got| json!({ "column": got.column, "type": got.kind, "from": got.from, "value": got.value }))
        .collect();
    let children: Vec<Value> = children.iter().map(|(table, rows)| json!({ "table": table, "rows": rows })).collect();
    Ok(out.json(&json!({
        "resource": resource, "shop": shop, "rows": rows.iter().map(row).collect::<Vec<_>>(), "columns": columns,
        "children": children, "unmapped": unmapped,
    }))?)
}

fn show(resource: &str, found: &Preview, out: &mut Out) -> CommandResult {
    let Preview { shop, names, rows, columns, children, unmapped } = found;
    let documents = counted(rows.len(), "document", "documents");
    out.line(format_args!("{resource} of {}: {documents}\n", table::clean(shop)))?;
    let heads: Vec<&str> = names.iter().map(String::as_str).collect();
    out.table(&heads, rows)?;
    out.line("\nColumns of the first document:\n")?;
    let got: Vec<Vec<String>> = columns
        .iter()
        .map(|got| vec![got.column.clone(), got.kind.clone(), got.from.clone(), got.value.clone()])
        .collect();
    out.table(&["column", "type", "from", "value"], &got)?;
    for (child, rows) in children {
        out.line(format_args!("\n{child}: {}", counted(*rows, "row", "rows")))?;
    }
    if unmapped.is_empty() {
        return Ok(out.line("\nEvery field has a column.")?);
    }
    out.line(format_args!("\nFields without a column (they are kept in `document`):\n  {}", unmapped.join("\n  ")))?;
    Ok(())
}
