//! `waybill sync`: one pass with progress and an exit code, for people and for cron.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, configure, start};
use super::output::{Out, print_stderr};
use super::problems;
use super::progress::Bars;
use super::remaining::Remaining;
use super::shutdown;
use super::table::{self, Mark, TableCell};
use super::watch::{Chosen, Ended, Watched, name, runs, sink_away, until_idle};
use crate::app::{App, NoSuchShop, Selection};
use crate::domain::document::RunView;
use crate::domain::health::{Code, Level, Problem};
use crate::domain::{Clock, Mode, Run, RunId, RunState, Shop, ShopId, ShopState, counted, parse_duration};
use crate::http;
use crate::service::Service;

/// Sync once, show the progress, and end.
///
/// It ends when nothing is left to do now. No schedule runs meanwhile, and with --shop or --resource only those streams
/// are worked on; work of others that was left open waits for the next start. An incremental pass reads what is new or
/// changed; --full walks all pages. A stopped pass resumes at the next `sync` or `serve`.
///
/// The exit code follows from the health that `waybill status` shows, of what the pass was asked for: 0 if all of it is
/// well, read and in the sink, and 1 if anything is not, with a line for each problem, also when an earlier pass left it:
/// failed runs, parked pages and documents, an unavailable sink, missing documents, refused shops, shops that Waybill
/// paused. Shops that you paused are left out; to name one with --shop is an error.
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
    /// Print nothing but problems, a line each, to standard error
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
    let shops = asked_for(known, args)?;
    let began = Clock::system().now();
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
    let mut ours: BTreeSet<RunId> = earlier.iter().filter(is_ours).map(|view| view.run.id).collect();
    let mut synced = 0;
    for shop in &shops {
        if let Some(runs) = begin(service, shop, args).await? {
            ours.extend(runs);
            synced += 1;
        }
    }
    watched.runs = Some(Chosen { ids: ours, only: args.only() });
    let mut bars = Bars::new(args.quiet);
    let ended = until_idle(app, &watched, &mut bars, args.at_most).await;
    bars.finish();
    let ended = ended?;
    let mut runs = runs(service, &watched).await?;
    runs.sort_by_key(|view| std::cmp::Reverse(urgency(&view.run)));
    match (args.json, args.quiet) {
        (true, _) => {
            let items: Vec<_> = runs.iter().map(|view| http::run_form(view.clone())).collect();
            out.json(&serde_json::json!({ "items": items }))?;
        }
        (false, false) if synced > 0 || !runs.is_empty() => {
            summary(&runs, &watched, out)?;
            also_read(service, &runs, out)?;
        }
        (false, _) => {}
    }
    let moved = service.archive_moved();
    if moved > 0 && !args.quiet {
        let moved = counted(moved, "document of the embedded archive was", "documents of the embedded archive were");
        print_stderr(format_args!("{moved} moved to MySQL"));
    }
    let problems = service.pass_problems(began, |shop, resource| watched.takes(shop, resource))?;
    let outcome = Outcome { ended, runs, problems, is_any_synced: synced > 0 };
    let lines = outcome.lines(service, &watched)?;
    // Each line begins with the name of the program, as the last one does.
    if lines.is_empty() { Ok(()) } else { Err(CommandError::Failed(anyhow::anyhow!(lines.join("\nwaybill: ")))) }
}

/// Starts the runs of one shop. None: it is not active, which is in the health.
async fn begin(service: &Service, shop: &Shop, args: &Args) -> Result<Option<Vec<RunId>>, CommandError> {
    let mode = if args.full { Mode::Full } else { Mode::Incremental };
    let is_active = |shop: &Shop| shop.state == ShopState::Active;
    if !is_active(shop) {
        return Ok(None);
    }
    match service.start_sync(&shop.id, args.resource.as_deref(), mode).await {
        Ok(runs) => Ok(Some(runs)),
        // Work of an earlier pass goes on meanwhile, so the shop may have been refused just now.
        Err(_) if !service.shop(&shop.id)?.as_ref().is_some_and(is_active) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The shops that the pass is asked for, active or not: the named one, or all that sync the resource.
fn asked_for(mut shops: Vec<Shop>, args: &Args) -> Result<Vec<Shop>, CommandError> {
    let Some(id) = &args.shop else {
        shops.retain(|shop| args.resource.as_ref().is_none_or(|resource| shop.syncs(resource)));
        return Ok(shops);
    };
    shops.retain(|shop| shop.id == *id);
    match shops.first() {
        None => Err(NoSuchShop(id.to_string()).into()),
        Some(shop) if shop.is_paused_on_request() => {
            let what = format!("shop {id} is paused; resume it first: waybill shops resume {id}");
            Err(CommandError::Failed(anyhow::anyhow!(what)))
        }
        Some(_) => Ok(shops),
    }
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
            row.extend(counts.map(|count| TableCell::count(count, Mark::Plain)));
            let parked = if run.parked_in_all() > 0 { Mark::Bad } else { Mark::Plain };
            row.push(TableCell::count(run.parked_in_all(), parked));
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

/// Prints how many documents were read that no row of the table counts.
fn also_read(service: &Service, runs: &[RunView], out: &mut Out) -> CommandResult {
    let shown: BTreeSet<RunId> = runs.iter().map(|view| view.run.id).collect();
    let read = service.documents_read();
    let again = read.get(&None).copied().unwrap_or_default();
    let others = read.iter().filter(|(run, _)| run.is_some_and(|run| !shown.contains(&run)));
    let earlier: u64 = others.map(|(_, count)| count).sum();
    let parts = [
        (earlier, "that earlier runs had listed, such as parked ones"),
        (again, "again, to repair the sink or as their definition plans"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> =
        parts.map(|(count, what)| format!("{} {what}", counted(*count, "document", "documents"))).collect();
    match parts.is_empty() {
        true => Ok(()),
        false => {
            out.line("")?;
            Ok(out.sentence(&format!("also read: {}", parts.join("; ")), 2)?)
        }
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

/// How a pass ended, and what it leaves.
struct Outcome {
    ended: Ended,
    runs: Vec<RunView>,
    problems: Vec<Problem>,
    /// Whether some shop was active.
    is_any_synced: bool,
}

impl Outcome {
    /// What is not well, one line each. None: all that was asked for is read and written, and the pass is a success.
    fn lines(&self, service: &Service, watched: &Watched) -> Result<Vec<String>, CommandError> {
        let is_failing = |problem: &&Problem| problem.code.level() == Level::Failing;
        let worst = self.problems.first().filter(is_failing);
        let remaining = Remaining::of(service, watched, &self.runs, worst, Clock::system().now())?;
        let open = self.runs.iter().filter(|view| view.run.is_open()).count();
        let end = match &self.ended {
            Ended::Stopped => Some(format!("stopped{remaining}")),
            Ended::TimedOut => Some(format!("the time ran out{remaining}")),
            Ended::SinkAway { waiting, error } => Some(sink_away(*waiting, error)),
            Ended::Idle if open > 0 => {
                let runs = counted(self.runs.len(), "run", "runs");
                Some(format!("{open} of {runs} wait for a retry{remaining}"))
            }
            Ended::Idle => None,
        };
        let is_idle = end.is_none();
        let is_new = |problem: &&Problem| match (&self.ended, is_idle) {
            (_, true) => true,
            // The end says it.
            (Ended::SinkAway { .. }, _) if problem.code == Code::SinkUnavailable => false,
            (Ended::SinkAway { .. }, _) => !problem.code.is_progress(),
            (..) => !problem.code.is_progress() && Some(*problem) != worst,
        };
        let problems = self.problems.iter().filter(is_new).map(|problem| problems::line(problem, &watched.names));
        let mut lines: Vec<String> = problems.chain(self.other_runs(watched)).chain(end).collect();
        if lines.is_empty() && !self.is_any_synced {
            lines.push("no active shop to sync; `waybill shops list` shows why".to_owned());
        }
        Ok(lines)
    }

    /// Runs that did not end well, of resources that are well nevertheless.
    fn other_runs(&self, watched: &Watched) -> impl Iterator<Item = String> {
        let is_known = |run: &Run| {
            let takes = |problem: &Problem| {
                problem.shop_id.as_ref() == Some(&run.stream.shop) && problem.resources.contains(&run.stream.resource)
            };
            self.problems.iter().any(|problem| problem.is_state() && takes(problem))
        };
        let is_well = |state| matches!(state, RunState::Walking | RunState::Fetching | RunState::Done);
        let others = self.runs.iter().filter(|view| !is_well(view.run.state) && !is_known(&view.run));
        let line = |view: &RunView| {
            let run = &view.run;
            let error = run.error.as_deref().unwrap_or("no reason given");
            let stream = format!("{} {}", run.stream.resource, run.stream.combination);
            let shop = problems::shop(&run.stream.shop, &watched.names);
            table::clean(&format!("run {}, {shop}, {}: {}: {error}", run.id, stream.trim(), run.state.name()))
        };
        others.map(line).collect::<Vec<_>>().into_iter()
    }
}
