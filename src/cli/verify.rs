//! `waybill verify`: checks that everything listed is in the sink, and repairs what is missing.

use std::collections::BTreeMap;
use std::path::Path;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, at_rest, configure, nothing_yet, start};
use super::output::{Out, print_stderr};
use super::progress::Bars;
use super::shutdown;
use super::table::{self, Mark, TableCell};
use super::watch::{Ended, Watched, sink_away, until_idle};
use crate::app::{App, NoSuchShop, Selection};
use crate::domain::{Completeness, Shop};
use crate::http;

/// Gaps printed per resource; all are counted.
const GAPS_SHOWN: usize = 20;

/// Compare what was listed with what the sink holds, id by id.
///
/// Every id that the marketplace has listed is in the sink, pending, parked with a reason, or unknown to the marketplace
/// itself; anything else is missing, and named. So is a document whose rows in child tables differ from the stored
/// document. --mend re-reads missing documents, and rewrites child rows without a call.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill verify\n  waybill verify --shop k3v9x0q2m1ab\n  waybill verify --mend\n\n\
    Exit codes: 0 done and complete, 1 failed or not complete, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Only this shop, by id [default: all shops]
    #[arg(long, value_name = "ID")]
    shop: Option<String>,
    /// Repair: re-read missing documents, and compare again
    #[arg(long = "mend")]
    repair: bool,
    /// Print nothing unless something is incomplete, and that to standard error
    #[arg(long, short)]
    quiet: bool,
    /// Print one JSON document instead of the table, even with --quiet
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::of_command(args.quiet))?;
    config.check_resources()?;
    if let Some(what) = nothing_yet(&config, args.shop.as_deref())? {
        return match (args.json, args.quiet) {
            (true, _) => show_json(Vec::new(), &mut out),
            (false, false) => Ok(out.line(what)?),
            (false, true) => Ok(()),
        };
    }
    let (drain, installation) = (config.limits.drain, Installation::of(&config));
    let only = Selection { shop: args.shop.clone(), resource: None };
    let app = match args.repair {
        true => start(config, only, Alternative::Call("POST /api/v1/shops/<id>/completeness")).await?,
        false => at_rest(config, Alternative::Call("GET /api/v1/shops/<id>/completeness")).await?,
    };
    let verified = Box::pin(verify(&app, &args, &installation, &mut out)).await;
    let stopped = shutdown::stop(app, drain).await;
    verified.and(stopped)
}

async fn verify(app: &App, args: &Args, installation: &Installation, out: &mut Out) -> CommandResult {
    let service = app.service();
    let mut shops = service.shops()?;
    if let Some(id) = &args.shop {
        shops.retain(|shop| shop.id == *id);
        if shops.is_empty() {
            return Err(NoSuchShop(id.clone()).into());
        }
    }
    if shops.is_empty() && !args.json && !args.quiet {
        return Ok(out.line(installation.none_known(service)?)?);
    }
    if args.repair {
        let mut queued = 0;
        for shop in &shops {
            queued += service.repair(&shop.id).await?.unwrap_or(0);
        }
        if !args.quiet {
            print_stderr(format_args!("{queued} documents are re-read or rewritten"));
        }
        let names: BTreeMap<String, String> = shops.iter().map(|shop| (shop.id.clone(), shop.name.clone())).collect();
        let mut bars = Bars::new(args.quiet);
        let ended = until_idle(app, &Watched { names, runs: None }, &mut bars, None).await;
        bars.finish();
        match ended? {
            Ended::Idle => {}
            Ended::SinkAway { waiting, error } => return Err(sink_away(waiting, &error)),
            Ended::Stopped | Ended::TimedOut => {
                let what = "stopped before the second comparison; the queued documents are read at the next start";
                return Err(CommandError::Failed(anyhow::anyhow!(what)));
            }
        }
    }
    let mut found = Vec::new();
    for shop in shops {
        let of_shop = service.completeness(&shop.id).await?.unwrap_or_default();
        found.extend(of_shop.into_iter().map(|resource| (shop.clone(), resource)));
    }
    // Resources that need attention come first.
    found.sort_by_key(|(_, resource)| std::cmp::Reverse(urgency(resource)));
    match (args.json, args.quiet) {
        (true, _) => show_json(found.clone(), out)?,
        (false, false) => show(&found, out)?,
        (false, true) => complain(&found),
    }
    verdict(&found, args.repair)
}

fn verdict(found: &[(Shop, Completeness)], is_repaired: bool) -> CommandResult {
    let incomplete: Vec<&Completeness> =
        found.iter().map(|(_, resource)| resource).filter(|resource| !resource.is_complete()).collect();
    if incomplete.is_empty() {
        return Ok(());
    }
    let mut what =
        format!("{} of {} resources are incomplete (see the column `complete`)", incomplete.len(), found.len());
    let any = |count: fn(&Completeness) -> u64| incomplete.iter().any(|resource| count(resource) > 0);
    if any(|resource| resource.missing) && !is_repaired {
        what.push_str("; `waybill verify --mend` reads what is missing");
    }
    if any(|resource| resource.pending) || incomplete.iter().any(|resource| resource.full_walk_at.is_none()) {
        what.push_str("; `waybill sync` reads the rest");
    }
    if any(|resource| resource.parked) {
        what.push_str(
            "; while `waybill serve` runs, GET /api/v1/parked shows why items are parked, and POST retries them",
        );
    }
    Err(CommandError::Failed(anyhow::anyhow!(what)))
}

/// How much a resource needs attention.
fn urgency(resource: &Completeness) -> Mark {
    match resource {
        complete if complete.is_complete() => Mark::Good,
        resource if resource.missing + resource.parked > 0 => Mark::Bad,
        _ => Mark::Unsure,
    }
}

fn show_json(found: Vec<(Shop, Completeness)>, out: &mut Out) -> CommandResult {
    let complete = found.iter().all(|(_, resource)| resource.is_complete());
    let mut shops: BTreeMap<String, Vec<Completeness>> = BTreeMap::new();
    for (shop, resource) in found {
        shops.entry(shop.id).or_default().push(resource);
    }
    let shops: Vec<_> = shops.into_iter().map(|(id, resources)| http::completeness_form(id, resources)).collect();
    Ok(out.json(&serde_json::json!({ "complete": complete, "shops": shops }))?)
}

/// Prints the incomplete resources, if there is no table.
fn complain(found: &[(Shop, Completeness)]) {
    for (shop, resource) in found {
        if let Some(why) = resource.incomplete_reason() {
            print_stderr(table::clean(&format!("{} ({}), {}: {why}", shop.name, shop.id, resource.resource)));
        }
    }
}

fn show(found: &[(Shop, Completeness)], out: &mut Out) -> CommandResult {
    let heads =
        ["shop", "name", "resource", "listed", "read", "in sink", "pending", "parked", "gone", "missing", "complete"];
    let rows: Vec<Vec<TableCell>> = found
        .iter()
        .map(|(shop, of)| {
            let counts = [of.listed, of.stored, of.in_sink, of.pending, of.parked, of.gone, of.missing];
            let names = [shop.id.clone(), shop.name.clone(), of.resource.clone()];
            let complete = of.incomplete_reason().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            let plain = names.into_iter().chain(counts.map(|count| count.to_string())).map(TableCell::from);
            plain.chain([TableCell::new(complete, urgency(of))]).collect()
        })
        .collect();
    out.table(&heads, &rows)?;
    for (shop, resource) in found {
        for gap in resource.gaps.iter().take(GAPS_SHOWN) {
            let id = table::clean(&gap.id);
            out.line(format_args!("missing: {} of shop {}: {id}: {}", resource.resource, shop.id, gap.reason))?;
        }
        if resource.gaps.len() > GAPS_SHOWN {
            out.line(format_args!("missing: and {} more", resource.missing - GAPS_SHOWN as u64))?;
        }
    }
    Ok(())
}
