//! `waybill sync`: one pass with progress and an exit code, for people and for cron.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, configure, start};
use super::output::{Out, print_stderr};
use super::progress::Bars;
use super::remaining::Remaining;
use super::shutdown;
use super::table::{self, Mark, TableCell};
use super::watch::{Chosen, Ended, Watched, name, runs, sink_away, until_idle};
use crate::app::{App, NoSuchShop, Selection};
use crate::domain::document::{Parked, RunView};
use crate::domain::{Clock, Mode, Run, RunId, RunState, Shop, ShopId, ShopState, Timestamp, counted, parse_duration};
use crate::http;
use crate::service::Service;

/// Sync once, show the progress, and end.
///
/// It ends when nothing is left to do now. No schedule runs meanwhile, and with --shop or --resource only those streams
/// are worked on; work of others that was left open waits for the next start. An incremental pass reads what is new or
/// changed; --full walks all pages. A stopped pass resumes at the next `sync` or `serve`. The exit code is 0 if everything
/// that the pass read is in the sink, and 1 if a run failed, something was parked, the sink is unavailable or lost
/// documents that cannot be read again, or a shop's credentials were refused.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill sync\n  waybill sync --shop k3v9x0q2m1ab --full\n  \
    waybill sync --quiet --at-most 30min   # for cron\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// Only this shop, by id [default: all active shops]
    #[arg(long, value_name = "ID")]
    shop: Option<ShopId>,
    /// Only this resource [default: all resources of the shop]
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
    /// Walk all pages
    #[arg(long)]
    full: bool,
    /// Print nothing but errors, to standard error
    #[arg(long, short)]
    quiet: bool,
    /// Print one JSON document instead of the table, even with --quiet
    #[arg(long)]
    json: bool,
    /// Stop after this time, like 90s, 30min or 2h; the next pass resumes
    #[arg(long, value_name = "TIME", value_parser = duration)]
    at_most: Option<Duration>,
}

impl Args {
    /// The streams to work on.
    fn only(&self) -> Selection {
        Selection { shop: self.shop.clone(), resource: self.resource.clone() }
    }
}

/// Parked records per query.
const PARKED_PAGE: usize = 500;

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration; write it like 90s, 30min or 2h"))
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::of_command(args.quiet))?;
    if let Some(resource) = &args.resource
        && !config.definitions.iter().any(|definition| definition.name == *resource)
    {
        let known: Vec<&str> = config.definitions.iter().map(|definition| definition.name.as_str()).collect();
        let what = format!("--resource {resource}: not configured; configured: {}", known.join(", "));
        return Err(CommandError::Usage(what));
    }
    let (drain, installation) = (config.limits.drain, Installation::of(&config));
    let alternative = Alternative::Call(match args.full {
        true => r#"POST /api/v1/shops/<id>/sync {"mode": "full"}"#,
        false => r#"POST /api/v1/shops/<id>/sync {"mode": "incremental"}"#,
    });
    let app = start(config, args.only(), alternative).await?;
    let passed = Box::pin(pass(&app, &args, &installation, &mut out)).await;
    let stopped = shutdown::stop(app, drain).await;
    passed.and(stopped)
}

async fn pass(app: &App, args: &Args, installation: &Installation, out: &mut Out) -> CommandResult {
    let service = app.service();
    let known = service.shops()?;
    if known.is_empty() {
        installation.none_known(service)?;
        let how = "add one: waybill shops add --name NAME --client-id ID --secret-file FILE";
        return Err(CommandError::Failed(anyhow::anyhow!("no shop is registered {installation}; {how}")));
    }
    let shops = chosen(known, args.shop.as_deref(), args.resource.as_deref())?;
    let mode = if args.full { Mode::Full } else { Mode::Incremental };
    let names: BTreeMap<ShopId, String> = shops.iter().map(|shop| (shop.id.clone(), shop.name.clone())).collect();
    let configured: BTreeSet<String> = service.definitions().iter().map(|definition| definition.name.clone()).collect();
    // Runs that an earlier pass left open belong to this pass and its verdict, unless their resource is no longer
    // configured.
    let mut watched = Watched { names, runs: None };
    let earlier: Vec<RunView> = runs(service, &watched).await?;
    let is_ours = |view: &&RunView| {
        let stream = &view.run.stream;
        let takes = args.resource.as_ref().is_none_or(|resource| *resource == stream.resource);
        view.run.is_open() && takes && configured.contains(&stream.resource) && watched.names.contains_key(&stream.shop)
    };
    let begun = Clock::system().now();
    let mut ours: BTreeSet<RunId> = earlier.iter().filter(is_ours).map(|view| view.run.id).collect();
    for shop in &shops {
        ours.extend(service.start_sync(&shop.id, args.resource.as_deref(), mode).await?);
    }
    watched.runs = Some(Chosen { ids: ours, only: args.only() });
    let mut bars = Bars::new(args.quiet);
    let ended = until_idle(app, &watched, &mut bars, args.at_most).await;
    bars.finish();
    let ended = ended?;
    let mut runs = runs(service, &watched).await?;
    runs.sort_by_key(|view| std::cmp::Reverse(urgency(&view.run)));
    let refused = refusals(service.shops()?.iter().filter(|shop| watched.names.contains_key(&shop.id)));
    match (args.json, args.quiet) {
        (true, _) => {
            let items: Vec<_> = runs.iter().map(|view| http::run_form(view.clone())).collect();
            out.json(&serde_json::json!({ "items": items }))?;
        }
        (false, false) => summary(&runs, &watched, out)?,
        (false, true) => complain(&runs, &watched),
    }
    refused.iter().for_each(print_stderr);
    let moved = service.archive_moved();
    if moved > 0 && !args.quiet {
        let moved = counted(moved, "document of the embedded archive was", "documents of the embedded archive were");
        print_stderr(format_args!("{moved} moved to MySQL"));
    }
    let missing = service.missing_documents(|shop| watched.names.contains_key(shop))?;
    let parked = parked(service, &watched, args.resource.as_deref(), begun).await?;
    let remaining = Remaining::of(service, &watched, &runs, Clock::system().now())?;
    let leftover = Leftover { refused: refused.len(), parked, missing };
    verdict(&ended, &runs, &leftover, &remaining)
}

/// The number of items parked since a time, including those of no run: re-reads, and documents that the sink refused.
async fn parked(
    service: &Service,
    watched: &Watched,
    resource: Option<&str>,
    since: Timestamp,
) -> Result<u64, CommandError> {
    let (mut count, mut after) = (0, None);
    loop {
        let shops = Some(watched.names.keys().cloned().collect());
        let page = service.parked(shops, after, PARKED_PAGE).await?;
        let is_ours =
            |parked: &&Parked| parked.parked_at >= since && resource.is_none_or(|name| parked.resource == name);
        count += page.iter().filter(is_ours).count() as u64;
        match page.last() {
            Some(last) if page.len() == PARKED_PAGE => after = Some(last.id),
            _ => return Ok(count),
        }
    }
}

/// The shops to sync: the named one, or all active ones that sync the resource.
fn chosen(shops: Vec<Shop>, id: Option<&str>, resource: Option<&str>) -> Result<Vec<Shop>, CommandError> {
    if let Some(id) = id {
        let found: Vec<Shop> = shops.into_iter().filter(|shop| shop.id == id).collect();
        return if found.is_empty() { Err(NoSuchShop(id.to_owned()).into()) } else { Ok(found) };
    }
    let takes = |shop: &Shop| resource.is_none_or(|resource| shop.syncs(resource));
    let (active, others): (Vec<Shop>, Vec<Shop>) =
        shops.into_iter().filter(takes).partition(|shop| shop.state == ShopState::Active);
    if active.is_empty() {
        // Work of an earlier pass resumes as soon as the engine runs, so a refusal may come before this check.
        let refused = refusals(&others);
        refused.iter().for_each(print_stderr);
        let shops = match refused.len() {
            0 => String::new(),
            count => format!(": {} refused", counted(count, "shop was", "shops were")),
        };
        let what = format!("no active shop to sync{shops}; `waybill shops list` shows why");
        return Err(CommandError::Failed(anyhow::anyhow!(what)));
    }
    Ok(active)
}

/// A message for each shop whose credentials the login host refused.
fn refusals<'a>(shops: impl IntoIterator<Item = &'a Shop>) -> Vec<String> {
    shops
        .into_iter()
        .filter(|shop| shop.state == ShopState::Refused)
        .map(|shop| {
            let reason = shop.reason.as_deref().unwrap_or("the credentials were refused");
            table::clean(&format!("{} ({}): {reason}; fix: waybill shops rotate {}", shop.name, shop.id, shop.id))
        })
        .collect()
}

fn summary(runs: &[RunView], watched: &Watched, out: &mut Out) -> CommandResult {
    let rows: Vec<Vec<TableCell>> = runs
        .iter()
        .map(|view| {
            let run = &view.run;
            let stream = format!("{} {}", run.stream.resource, run.stream.combination);
            let counts = [run.pages, run.listed, run.new, run.changed, run.fetched, run.gone, run.written];
            let mut row = [run.id.to_string(), name(view, watched).to_owned(), stream.trim().to_owned()]
                .map(TableCell::from)
                .to_vec();
            row.push(TableCell::new(run.state.name(), urgency(run)));
            row.extend(counts.map(|count| TableCell::from(count.to_string())));
            let parked = if run.parked_in_all() > 0 { Mark::Bad } else { Mark::Plain };
            row.push(TableCell::new(run.parked_in_all().to_string(), parked));
            row.push(run.error.clone().unwrap_or_default().into());
            row
        })
        .collect();
    let heads = [
        "run", "shop", "stream", "state", "pages", "listed", "new", "changed", "fetched", "gone", "written", "parked",
        "error",
    ];
    out.table(&heads, &rows)?;
    Ok(())
}

/// Prints the runs that need attention, if there is no table.
fn complain(runs: &[RunView], watched: &Watched) {
    for view in runs {
        let run = &view.run;
        let error = run.error.as_deref().unwrap_or("no reason given");
        let what = match urgency(run) {
            Mark::Bad => format!("{}: {error}", run.state.name()),
            Mark::Unsure if !run.is_open() => format!("{}: {error}", run.state.name()),
            _ => continue,
        };
        let stream = format!("{} {}", run.stream.resource, run.stream.combination);
        print_stderr(table::clean(&format!("run {}, {}, {}: {what}", run.id, name(view, watched), stream.trim())));
    }
}

/// How much a run needs attention.
fn urgency(run: &Run) -> Mark {
    match run.state {
        RunState::Failed | RunState::Stopped => Mark::Bad,
        RunState::Unproved | RunState::Canceled | RunState::Walking | RunState::Fetching => Mark::Unsure,
        RunState::Done => Mark::Good,
    }
}

/// What a pass could not do.
struct Leftover {
    /// Shops whose credentials were refused.
    refused: usize,
    /// Pages and documents that were parked.
    parked: u64,
    /// Documents that the sink lost and that cannot be read again.
    missing: u64,
}

fn verdict(ended: &Ended, runs: &[RunView], leftover: &Leftover, remaining: &Remaining) -> CommandResult {
    let Leftover { refused, parked, missing } = *leftover;
    let is_well = |state| matches!(state, RunState::Walking | RunState::Fetching | RunState::Done);
    let failed = runs.iter().filter(|view| !is_well(view.run.state)).count();
    let open = runs.iter().filter(|view| view.run.is_open()).count();
    // Items of runs left open by an earlier pass may have been parked before this one.
    let parked = runs.iter().map(|view| view.run.parked_in_all()).sum::<u64>().max(parked);
    let what = match ended {
        Ended::Stopped => "stopped; the rest resumes at the next start".to_owned(),
        Ended::TimedOut => format!("the time ran out{remaining}"),
        Ended::SinkAway { waiting, error } => return Err(sink_away(*waiting, error)),
        Ended::Idle if refused > 0 => format!("{} refused", counted(refused, "shop was", "shops were")),
        Ended::Idle if failed > 0 => format!("{failed} of {} failed", counted(runs.len(), "run", "runs")),
        Ended::Idle if parked > 0 => {
            let parked = counted(parked, "page or document was", "pages or documents were");
            format!("{parked} parked; GET /api/v1/parked shows why, while `waybill serve` runs")
        }
        Ended::Idle if missing > 0 => {
            let missing = counted(missing, "document is", "documents are");
            format!("{missing} missing in the sink and cannot be read again; `waybill verify` names what is missing")
        }
        Ended::Idle if open > 0 => {
            let runs = counted(runs.len(), "run", "runs");
            format!("{open} of {runs} wait for a retry{remaining}")
        }
        Ended::Idle => return Ok(()),
    };
    Err(CommandError::Failed(anyhow::anyhow!(what)))
}
