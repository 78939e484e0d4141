//! `waybill verify`: is everything that was listed in the sink? And if not, what is missing.

use std::collections::BTreeMap;
use std::path::Path;

use super::held::Instead;
use super::out::{Out, tell};
use super::progress::Bars;
use super::table::{self, Cell, Mark};
use super::watch::{Ended, Watched, sink_away, until_idle};
use super::{Failure, Outcome, Voice, at_rest, configure, nothing_yet, start, stop};
use crate::app::{App, NoSuchShop};
use crate::domain::{Completeness, Shop};
use crate::http;

/// Gaps printed of one resource; all are counted.
const GAPS_SHOWN: usize = 20;

/// Compare what was listed with what the sink holds, id by id.
///
/// Every id that the marketplace has listed is in the sink, on its way, parked with a reason, or unknown to the
/// marketplace itself; anything else is missing, and named. So is a document whose rows in child tables are not those
/// of the stored document. --mend reads what is missing again, and writes child rows again without a call.
#[derive(clap::Args)]
#[command(
    after_long_help = "Examples:\n  waybill verify\n  waybill verify --shop k3v9x0q2m1ab\n  waybill verify --mend\n\n\
    Exit codes: 0 done and complete, 1 failed or not complete, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    /// Only this shop, by id; all shops else
    #[arg(long, value_name = "ID")]
    shop: Option<String>,
    /// Read again what is missing, and compare once more
    #[arg(long)]
    mend: bool,
    /// Print nothing unless something is not complete, and that to standard error
    #[arg(long, short)]
    quiet: bool,
    /// Print one JSON document instead of the table; also with --quiet
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> Outcome {
    let config = configure(path, Voice::of_command(args.quiet))?;
    config.check_resources()?;
    if let Some(what) = nothing_yet(&config, args.shop.as_deref())? {
        return match (args.json, args.quiet) {
            (true, _) => show_json(Vec::new(), &mut out),
            (false, false) => Ok(out.line(what)?),
            (false, true) => Ok(()),
        };
    }
    let drain = config.limits.drain;
    let app = match args.mend {
        true => start(config, Instead::Call("POST /api/v1/shops/<id>/completeness")).await?,
        false => at_rest(config, Instead::Call("GET /api/v1/shops/<id>/completeness")).await?,
    };
    let verified = Box::pin(verify(&app, &args, &mut out)).await;
    let stopped = stop::stop(app, drain).await;
    verified.and(stopped)
}

async fn verify(app: &App, args: &Args, out: &mut Out) -> Outcome {
    let backend = app.backend();
    let mut shops = backend.shops().await?;
    if let Some(id) = &args.shop {
        shops.retain(|shop| shop.id == *id);
        if shops.is_empty() {
            return Err(NoSuchShop(id.clone()).into());
        }
    }
    if shops.is_empty() && !args.json && !args.quiet {
        return Ok(out.line(super::NO_SHOPS)?);
    }
    if args.mend {
        let mut asked = 0;
        for shop in &shops {
            asked += backend.close_gaps(&shop.id).await?.unwrap_or(0);
        }
        if !args.quiet {
            tell(format_args!("{asked} documents are read or written again"));
        }
        let names: BTreeMap<String, String> = shops.iter().map(|shop| (shop.id.clone(), shop.name.clone())).collect();
        let mut bars = Bars::new(args.quiet);
        let ended = until_idle(app, &Watched { names, runs: None }, &mut bars, None).await;
        bars.finish();
        match ended? {
            Ended::Idle => {}
            Ended::SinkAway { waiting, error } => return Err(sink_away(waiting, &error)),
            Ended::Stopped | Ended::TimedOut => {
                let what = "stopped before it was compared again; what is asked for is read at the next start";
                return Err(Failure::Failed(anyhow::anyhow!(what)));
            }
        }
    }
    let mut found = Vec::new();
    for shop in shops {
        let of_shop = backend.completeness(&shop.id).await?.unwrap_or_default();
        found.extend(of_shop.into_iter().map(|resource| (shop.clone(), resource)));
    }
    // What a person must act on comes first.
    found.sort_by_key(|(_, resource)| std::cmp::Reverse(urgency(resource)));
    match (args.json, args.quiet) {
        (true, _) => show_json(found.clone(), out)?,
        (false, false) => show(&found, out)?,
        (false, true) => complain(&found),
    }
    verdict(&found, args.mend)
}

fn verdict(found: &[(Shop, Completeness)], is_mended: bool) -> Outcome {
    let lacking: Vec<&Completeness> =
        found.iter().map(|(_, resource)| resource).filter(|resource| !resource.is_complete()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let mut what = format!("{} of {} not complete, as `complete` says", lacking.len(), found.len());
    let any = |count: fn(&Completeness) -> u64| lacking.iter().any(|resource| count(resource) > 0);
    if any(|resource| resource.missing) && !is_mended {
        what.push_str("; `waybill verify --mend` reads what is missing");
    }
    if any(|resource| resource.pending) || lacking.iter().any(|resource| resource.full_walk_at.is_none()) {
        what.push_str("; `waybill sync` goes on with what is not read yet");
    }
    if any(|resource| resource.parked) {
        what.push_str(
            "; GET /api/v1/parked shows why something is parked, and POST retries it, while `waybill serve` runs",
        );
    }
    Err(Failure::Failed(anyhow::anyhow!(what)))
}

/// How much a resource needs a person.
fn urgency(resource: &Completeness) -> Mark {
    match resource {
        complete if complete.is_complete() => Mark::Good,
        resource if resource.missing + resource.parked > 0 => Mark::Bad,
        _ => Mark::Unsure,
    }
}

fn show_json(found: Vec<(Shop, Completeness)>, out: &mut Out) -> Outcome {
    let complete = found.iter().all(|(_, resource)| resource.is_complete());
    let mut shops: BTreeMap<String, Vec<Completeness>> = BTreeMap::new();
    for (shop, resource) in found {
        shops.entry(shop.id).or_default().push(resource);
    }
    let shops: Vec<_> = shops.into_iter().map(|(id, resources)| http::completeness_form(id, resources)).collect();
    Ok(out.json(&serde_json::json!({ "complete": complete, "shops": shops }))?)
}

/// The resources that are not complete, for those who see no table.
fn complain(found: &[(Shop, Completeness)]) {
    for (shop, resource) in found {
        if let Some(why) = resource.lacks() {
            tell(table::clean(&format!("{} ({}), {}: {why}", shop.name, shop.id, resource.resource)));
        }
    }
}

fn show(found: &[(Shop, Completeness)], out: &mut Out) -> Outcome {
    let heads = [
        "shop",
        "name",
        "resource",
        "listed",
        "read",
        "in sink",
        "on its way",
        "parked",
        "gone",
        "missing",
        "complete",
    ];
    let rows: Vec<Vec<Cell>> = found
        .iter()
        .map(|(shop, of)| {
            let counts = [of.listed, of.stored, of.in_sink, of.pending, of.parked, of.gone, of.missing];
            let names = [shop.id.clone(), shop.name.clone(), of.resource.clone()];
            let complete = of.lacks().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            let plain = names.into_iter().chain(counts.map(|count| count.to_string())).map(Cell::from);
            plain.chain([Cell::new(complete, urgency(of))]).collect()
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
