//! `waybill plan`: estimates what the next walk would cost.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, at_rest, configure, nothing_yet};
use super::output::Out;
use super::schema::known;
use super::shutdown;
use super::table::{Mark, TableCell};
use crate::app::{App, NoSuchShop};
use crate::domain::{Mode, ShopId};
use crate::service::ServiceError;
use crate::service::plan::{Ask, AssumedRows, BASIS_GIVEN, Plan, stream_name};

/// Advice while a server is running.
const BESIDE_SERVER: &str = "It has no call for a plan; GET /api/v1/runs has a forecast of each walk in progress. To plan, \
    stop the server, run `waybill plan` and start it again";

/// Show which calls the next walk would make, and how long the rate limits make them take.
///
/// Makes no call. Each pass of a walk counts: a first walk reads its list twice. Page counts are those of the last walk;
/// for streams that were never walked give --rows. Documents that are new or changed since the last walk are unknown, and
/// come on top. Shops run in parallel, so the longest budget determines the total time.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill plan\n  waybill plan --full\n  waybill plan --resource orders --rows 10000\n  \
    waybill plan --rows orders=10000 --rows returns=2000\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Only this shop, by id [default: all active shops]
    #[arg(long, value_name = "ID")]
    shop: Option<ShopId>,
    /// Only this resource [default: all resources of the shop]
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
    /// Plan a walk over all pages
    #[arg(long)]
    full: bool,
    /// Rows of each stream that was never walked, or of each stream of one resource; repeatable. A resource may have
    /// several streams: the number counts for each
    #[arg(long, value_name = "N|NAME=N")]
    rows: Vec<String>,
    /// Print one JSON document instead of the tables
    #[arg(long)]
    json: bool,
}

/// Reads `--rows`: a number for all streams, or for those of one resource.
fn rows(arguments: &[String]) -> Result<AssumedRows, CommandError> {
    let mut rows = AssumedRows::default();
    for argument in arguments {
        let (name, count) = argument.rsplit_once('=').map_or((None, argument.as_str()), |(name, n)| (Some(name), n));
        let count: u64 = count.parse().map_err(|_| {
            CommandError::Usage(format!("--rows {argument}: write it like 10000, or like orders=10000"))
        })?;
        match name {
            Some(name) => drop(rows.of.insert(name.to_owned(), count)),
            None => rows.each = Some(count),
        }
    }
    Ok(rows)
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::Command)?;
    let rows = rows(&args.rows)?;
    config.check_resources()?;
    known(&config, args.resource.as_deref())?;
    if let Some(message) = nothing_yet(&config, args.shop.as_deref())? {
        return if args.json { show_json(&Plan::default(), &mut out) } else { Ok(out.line(message)?) };
    }
    let (drain, installation) = (config.limits.drain, Installation::of(&config));
    let app = at_rest(config, Alternative::Advice(BESIDE_SERVER)).await?;
    let ask = Ask { shop: args.shop, resource: args.resource, full: args.full, rows };
    let shown = match app.service().plan(&ask) {
        Ok(plan) if args.json => show_json(&plan, &mut out),
        Ok(plan) if plan.streams.is_empty() => nothing_planned(&app, &installation, &mut out),
        Ok(plan) => show(&plan, &mut out),
        Err(ServiceError::NotFound) => Err(NoSuchShop(ask.shop.as_deref().unwrap_or_default().to_owned()).into()),
        Err(error) => Err(error.into()),
    };
    let stopped = shutdown::stop(app, drain).await;
    shown.and(stopped)
}

/// Explains why no walk would start.
fn nothing_planned(app: &App, installation: &Installation, out: &mut Out) -> CommandResult {
    let why = match app.service().shops()?.is_empty() {
        true => installation.none_known(app.service())?,
        false => "no active shop syncs any of this; `waybill shops list` shows the state and the resources of each"
            .to_owned(),
    };
    Ok(out.line(why)?)
}

fn show_json(plan: &Plan, out: &mut Out) -> CommandResult {
    let streams: Vec<_> = plan
        .streams
        .iter()
        .map(|planned| {
            json!({
                "shop_id": planned.stream.shop, "resource": planned.stream.resource,
                "parameters": planned.stream.combination.parameters(), "mode": planned.mode,
                "lists": planned.lists, "details": planned.details, "basis": planned.basis,
            })
        })
        .collect();
    let budgets: Vec<_> = plan
        .budgets
        .iter()
        .map(|budget| {
            json!({
                "account": budget.account, "rule": budget.rule, "limit": budget.limit, "calls": budget.calls,
                "takes_seconds": budget.takes.as_secs_f64(),
            })
        })
        .collect();
    Ok(out.json(&json!({ "streams": streams, "budgets": budgets }))?)
}

fn show(plan: &Plan, out: &mut Out) -> CommandResult {
    let number = |count: Option<u64>| match count {
        Some(count) => TableCell::count(count, Mark::Plain),
        None => "?".into(),
    };
    let rows: Vec<Vec<TableCell>> = plan
        .streams
        .iter()
        .map(|planned| {
            let stream = stream_name(&planned.stream);
            let mode = if planned.mode == Mode::Full { "full" } else { "incremental" };
            let (lists, details) = (number(planned.lists), number(planned.details));
            let names = [planned.stream.shop.to_string(), planned.shop.clone(), stream, mode.to_owned()];
            [&names.map(TableCell::from)[..], &[lists, details, planned.basis.into()]].concat()
        })
        .collect();
    out.table(&["shop", "name", "stream", "walk", "lists", "details", "by"], &rows)?;
    out.line("")?;
    let rows: Vec<Vec<TableCell>> = plan
        .budgets
        .iter()
        .map(|budget| {
            vec![
                budget.account.as_str().into(),
                budget.rule.as_str().into(),
                budget.limit.as_str().into(),
                TableCell::count(budget.calls, Mark::Plain),
                duration_text(budget.takes).into(),
            ]
        })
        .collect();
    out.table(&["account", "rule", "limit", "calls", "takes"], &rows)?;
    let longest = plan.budgets.iter().map(|budget| budget.takes).max().unwrap_or_default();
    let unknown = plan.streams.iter().any(|planned| planned.lists.is_none() || planned.details.is_none());
    let rest = if unknown { ", plus what is not known yet" } else { "" };
    out.line(format_args!("\nIn total: {}{rest}.", duration_text(longest)))?;
    let several = several_streams(plan);
    if !several.is_empty() {
        out.sentence(&format!("The given rows count for each stream: {several}."), 0)?;
    }
    Ok(())
}

/// The resources of which several streams were planned by the given rows, like "orders has 2".
fn several_streams(plan: &Plan) -> String {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for planned in plan.streams.iter().filter(|planned| planned.basis == BASIS_GIVEN) {
        *counts.entry((&planned.stream.resource, &planned.stream.shop)).or_default() += 1;
    }
    let most: BTreeMap<&str, usize> = counts.into_iter().map(|((resource, _), streams)| (resource, streams)).collect();
    let several = most.into_iter().filter(|(_, streams)| *streams > 1);
    several.map(|(resource, streams)| format!("{resource} has {streams}")).collect::<Vec<_>>().join(", ")
}

fn duration_text(time: Duration) -> String {
    match time.as_secs() {
        0 => "at once".to_owned(),
        s if s < 120 => format!("{s} s"),
        // To the nearest: a window that is full each time adds a second of margin, not a minute.
        s if s < 7200 => format!("{} min", (s + 30) / 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}
