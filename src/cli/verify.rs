//! `waybill verify`: is everything that was listed in the sink? And if not, what is missing.

use std::collections::BTreeMap;
use std::path::Path;

use super::out::Out;
use super::progress::Bars;
use super::watch::{Ended, Watched, sink_away, until_idle};
use super::{Failure, Outcome, Voice, at_rest, configure, nothing_yet, start, stop, table};
use crate::app::{App, NoSuchShop};
use crate::domain::{Completeness, Shop};

/// Gaps printed of one resource; all are counted.
const GAPS_SHOWN: usize = 20;

/// Compare what was listed with what the sink holds, id by id.
///
/// Every id that the marketplace has listed is in the sink, on its way, parked with a reason, or unknown to the
/// marketplace itself; anything else is missing, and named. --mend reads what is missing again.
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
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> Outcome {
    let config = configure(path, Voice::Command)?;
    config.check_resources()?;
    if let Some(told) = nothing_yet(&config, args.shop.as_deref())? {
        return Ok(out.line(told)?);
    }
    let drain = config.limits.drain;
    let app = match args.mend {
        true => start(config, "POST /api/v1/shops/<id>/completeness").await?,
        false => at_rest(config, "GET /api/v1/shops/<id>/completeness").await?,
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
    if args.mend {
        let mut asked = 0;
        for shop in &shops {
            asked += backend.close_gaps(&shop.id).await?.unwrap_or(0);
        }
        out.line(format_args!("{asked} documents are read or told again"))?;
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
    show(&found, out)?;
    let lacking = found.iter().filter(|(_, resource)| !resource.is_complete()).count();
    if lacking > 0 {
        let of = found.len();
        let what = format!(
            "{lacking} of {of} not complete, as the last column says; `waybill verify --mend` mends what is missing"
        );
        return Err(Failure::Failed(anyhow::anyhow!(what)));
    }
    Ok(())
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
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(shop, of)| {
            let counts = [of.listed, of.stored, of.in_sink, of.pending, of.parked, of.gone, of.missing];
            let names = [shop.id.clone(), shop.name.clone(), of.resource.clone()];
            let complete = of.lacks().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
            names.into_iter().chain(counts.map(|count| count.to_string())).chain([complete]).collect()
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
