//! `waybill verify`: checks that everything listed is in the sink, and repairs what is missing.

use std::collections::BTreeMap;
use std::path::Path;

use super::command_error::{CommandError, CommandResult};
use super::in_use::{AT_REST_ONLY, Alternative};
use super::log::Voice;
use super::open::{Installation, at_rest, configure, nothing_yet, start};
use super::output::{Out, print_stderr};
use super::progress::Bars;
use super::remaining::Remaining;
use super::shutdown;
use super::table::{self, Mark, TableCell};
use super::watch::{Chosen, Ended, Watched, runs, sink_away, until_idle};
use crate::app::{App, NoSuchShop, Selection};
use crate::domain::clock::rfc3339;
use crate::domain::{Clock, Completeness, Gap, GapReason, Shop, ShopId, counted};
use crate::http;

/// Gaps printed per resource; all are counted.
const GAPS_SHOWN: usize = 20;
/// Of the second line of a text that is wrapped.
const INDENT: usize = 2;

/// Compare what was listed with what the sink holds, id by id.
///
/// Every id that the marketplace has listed is in the sink, pending, parked with a reason, or unknown to the marketplace
/// itself; anything else is missing, and named. So is a document whose rows in child tables differ from the stored
/// document. --mend re-reads missing documents, and rewrites child rows without a call. --accept-missing accepts the loss
/// of documents that were written once, are no longer in the sink, and cannot be read again, since the marketplace no longer
/// has them: they count as gone from then on, and verify goes on naming them.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill verify\n  waybill verify --shop k3v9x0q2m1ab\n  waybill verify --mend\n  \
    waybill verify --accept-missing\n\n\
    Exit codes: 0 done and complete, 1 failed or not complete, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Only this shop, by id [default: all shops]
    #[arg(long, value_name = "ID")]
    shop: Option<ShopId>,
    /// Repair: re-read missing documents, and compare again
    #[arg(long = "mend")]
    repair: bool,
    /// Accept the loss of missing documents that cannot be read again
    #[arg(long, conflicts_with = "repair")]
    accept_missing: bool,
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
        false if args.accept_missing => at_rest(config, AT_REST_ONLY).await?,
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
            return Err(NoSuchShop(id.to_string()).into());
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
            print_stderr(match queued {
                // The check of the sink at the start may have begun to repair.
                0 => "nothing more is to be re-read or rewritten".to_owned(),
                queued => format!("trying to re-read or rewrite {}", counted(queued, "document", "documents")),
            });
        }
        let names: BTreeMap<ShopId, String> = shops.iter().map(|shop| (shop.id.clone(), shop.name.clone())).collect();
        let mut bars = Bars::new(args.quiet);
        let mut watched = Watched { names, runs: None };
        // The progress is that of the repair: walks that it began, and re-reads.
        let open = runs(service, &watched).await?.into_iter().filter(|view| view.run.is_open());
        let ids = open.map(|view| view.run.id).collect();
        let only = Selection { shop: args.shop.clone(), resource: None };
        watched.runs = Some(Chosen { ids, only });
        let ended = until_idle(app, &watched, &mut bars, None).await;
        bars.finish();
        match ended? {
            Ended::Idle => {}
            Ended::SinkAway { waiting, error } => {
                return Err(CommandError::Failed(anyhow::anyhow!(sink_away(waiting, &error))));
            }
            Ended::Stopped | Ended::TimedOut => {
                let remaining = Remaining::of(service, &watched, &[], None, Clock::system().now())?;
                return Err(CommandError::Failed(anyhow::anyhow!("stopped before the second comparison{remaining}")));
            }
        }
    }
    if args.accept_missing {
        let mut accepted = 0;
        for shop in &shops {
            accepted += service.accept_missing(&shop.id).await?.unwrap_or(0);
        }
        if !args.quiet {
            print_stderr(format_args!("the loss of {} is accepted", counted(accepted, "document", "documents")));
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
    let mut what = format!("{} of {} resources are incomplete (see `complete`)", incomplete.len(), found.len());
    let any = |count: fn(&Completeness) -> u64| incomplete.iter().any(|resource| count(resource) > 0);
    if any(|resource| resource.missing) && !is_repaired {
        what.push_str("; `waybill verify --mend` reads what is missing");
    }
    let is_hopeless = |gap: &Gap| gap.reason == GapReason::Unrecoverable;
    if incomplete.iter().any(|resource| resource.gaps.iter().any(is_hopeless)) {
        what.push_str("; `waybill verify --accept-missing` accepts the loss of what the API no longer has");
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
    let mut shops: BTreeMap<ShopId, Vec<Completeness>> = BTreeMap::new();
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
            let names = [shop.id.to_string(), shop.name.clone(), of.resource.clone()];
            let complete = match (of.incomplete_reason(), of.lost) {
                (Some(why), _) => format!("no: {why}"),
                (None, 0) => "yes".to_owned(),
                (None, lost) => format!("yes, but {lost} lost"),
            };
            let names = names.map(TableCell::from);
            let counts = counts.map(|count| TableCell::count(count, Mark::Plain));
            [&names[..], &counts[..], &[TableCell::new(complete, urgency(of))]].concat()
        })
        .collect();
    out.table(&heads, &rows)?;
    if found.iter().any(|(_, resource)| !resource.gaps.is_empty() || !resource.lost_documents.is_empty()) {
        out.line("")?;
    }
    for (shop, resource) in found {
        for gap in resource.gaps.iter().take(GAPS_SHOWN) {
            let id = table::clean(&gap.id);
            let what = format!("missing: {} of shop {}: {id}: {}", resource.resource, shop.id, gap.reason);
            out.sentence(&what, INDENT)?;
        }
        if resource.gaps.len() > GAPS_SHOWN {
            out.line(format_args!("missing: and {} more", resource.missing - GAPS_SHOWN as u64))?;
        }
        for lost in resource.lost_documents.iter().take(GAPS_SHOWN) {
            let (id, at) = (table::clean(&lost.id), rfc3339(lost.accepted_at));
            let what = format!("lost: {} of shop {}: {id}: accepted at {at}", resource.resource, shop.id);
            out.sentence(&what, INDENT)?;
        }
        if resource.lost_documents.len() > GAPS_SHOWN {
            out.line(format_args!("lost: and {} more", resource.lost - GAPS_SHOWN as u64))?;
        }
    }
    Ok(())
}
