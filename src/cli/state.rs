//! `waybill state`: shows the content of the data directory.

use std::path::Path;

use serde_json::Value;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, at_rest, configure};
use super::output::Out;
use super::shutdown;
use super::table::{Mark, TableCell};
use crate::app;

/// Show the content of the data directory: shops, checkpoints, open runs, jobs, outbox, budgets.
///
/// For a data directory that no server uses; a running server shows the same under /api/v1/status. Shows no secret,
/// token or document.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill state\n  waybill state --shop k3v9x0q2m1ab\n  waybill state --json\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Only this shop, by id
    #[arg(long, value_name = "ID")]
    shop: Option<String>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::Command)?;
    let drain = config.limits.drain;
    let installation = Installation::of(&config);
    let mut print = |state: anyhow::Result<Value>, none: Result<String, CommandError>| match state? {
        state if args.json => Ok(out.json(&state)?),
        state => show(&state, none, &mut out),
    };
    if !app::is_initialized(&config.data_dir) {
        return print(app::state::empty(&config.data_dir, args.shop.as_deref()), Ok(installation.no_shops()));
    }
    let app = at_rest(config, Alternative::Call("GET /api/v1/status")).await?;
    let shown = print(app.state(args.shop.as_deref()), installation.none_known(app.service()));
    let stopped = shutdown::stop(app, drain).await;
    shown.and(stopped)
}

/// `none`: what to say if there is no shop.
fn show(state: &Value, none: Result<String, CommandError>, out: &mut Out) -> CommandResult {
    let jobs = &state["jobs"];
    let counts = format!(
        "{}: {} bytes; jobs: {} ready, {} waiting ({} to be retried); outbox: {} entries; parked: {}",
        text(&state["data_dir"]),
        state["bytes"],
        jobs["ready"],
        jobs["waiting"],
        jobs["retrying"],
        state["outbox"]["entries"],
        state["parked"]
    );
    out.sentence(&counts, 2)?;
    out.line("")?;
    if state["master_key"]["is_rotating"] == true {
        let what = "The rotation of the master key is not finished: `waybill serve` or `waybill keys rotate-master` finishes it.";
        out.sentence(what, 2)?;
        out.line("")?;
    }
    if state["shops"].as_array().is_none_or(Vec::is_empty) {
        out.line(none?)?;
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut streams = Vec::new();
    let mut budgets = Vec::new();
    for shop in list(&state["shops"]) {
        for stream in list(&shop["streams"]) {
            let name = format!("{} {}", text(&stream["resource"]), text(&stream["parameters"]));
            let times = ["walked_at", "full_walk_at", "newest"].map(|key| cell(&stream[key]));
            let of_shop = ["id", "name", "state"].map(|key| cell(&shop[key]));
            streams.push([&of_shop[..], &[name.trim().into()], &times[..]].concat());
        }
        for budget in list(&shop["budgets"]) {
            budgets.push(["account", "rule", "limit", "occupied", "pause_s"].map(|key| cell(&budget[key])).to_vec());
        }
    }
    budgets.dedup();
    let runs: Vec<Vec<TableCell>> = list(&state["open_runs"])
        .iter()
        .map(|run| {
            let keys = [
                "id",
                "shop_id",
                "resource",
                "parameters",
                "mode",
                "state",
                "started_at",
                "pages",
                "listed",
                "pending",
            ];
            keys.map(|key| cell(&run[key])).to_vec()
        })
        .collect();
    section(&["shop", "name", "state", "stream", "walked", "walked whole", "newest"], &streams, out)?;
    section(&["account", "rule", "limit", "occupied", "pause s"], &budgets, out)?;
    section(
        &["run", "shop", "resource", "parameters", "walk", "state", "started", "pages", "listed", "pending"],
        &runs,
        out,
    )
}

fn section(heads: &[&str], rows: &[Vec<TableCell>], out: &mut Out) -> CommandResult {
    if rows.is_empty() {
        return Ok(());
    }
    out.table(heads, rows)?;
    out.line("")?;
    Ok(())
}

fn cell(value: &Value) -> TableCell {
    match value.as_u64() {
        Some(count) => TableCell::count(count, Mark::Plain),
        None => TableCell::known((!value.is_null()).then(|| text(value))),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            pairs.join("&")
        }
        other => other.to_string(),
    }
}
