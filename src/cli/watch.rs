//! Watches runs until nothing is left to do, for `sync`, `verify` and `demo`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::command_error::CommandError;
use super::progress::{Bars, Line, line, sums, waits};
use super::shutdown;
use crate::app::{App, Selection};
use crate::domain::document::RunView;
use crate::domain::sentence::clause;
use crate::domain::{Clock, RunId, ShopId, counted};
use crate::service::{RunFilter, Service, Status};

/// Refresh interval of the progress.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// How long a command waits for an unavailable sink once all else is done. The entries are kept for the next start.
const SINK_PATIENCE: Duration = Duration::from_secs(120);
/// Runs per query.
const RUNS_PAGE: usize = 500;

/// The runs to watch, and the names of their shops.
pub(super) struct Watched {
    pub(super) names: BTreeMap<ShopId, String>,
    /// None: all.
    pub(super) runs: Option<Chosen>,
}

impl Watched {
    /// Whether it is about this resource of this shop.
    pub(super) fn takes(&self, shop: &str, resource: &str) -> bool {
        let is_chosen = |chosen: &Chosen| chosen.only.takes(shop, resource);
        self.names.contains_key(shop) && self.runs.as_ref().is_none_or(is_chosen)
    }
}

/// A selection of runs.
pub(super) struct Chosen {
    /// Later runs are included too: they follow others.
    pub(super) ids: BTreeSet<RunId>,
    /// Of the later ones, only the runs of these streams.
    pub(super) only: Selection,
}

/// Why watching ended.
pub(super) enum Ended {
    /// Nothing is left to do now.
    Idle,
    /// A stop signal came.
    Stopped,
    /// The given time ran out.
    TimedOut,
    /// Everything is read, but the sink is unavailable: the number of waiting entries, and why.
    SinkAway { waiting: u64, error: String },
}

/// Since when only an unavailable sink delays the end.
#[derive(Default)]
struct SinkWait(Option<Instant>);

impl SinkWait {
    /// Whether the patience is used up.
    fn is_over(&mut self, status: &Status, now: Instant) -> bool {
        let is_read = status.pending_jobs + status.leased_jobs == 0;
        if status.sink.healthy || !is_read || status.idle {
            self.0 = None;
            return false;
        }
        now.duration_since(*self.0.get_or_insert(now)) >= SINK_PATIENCE
    }
}

/// Shows the runs until the engine is idle, a stop is requested, `at_most` has passed, or only an unavailable sink is
/// left to wait for.
///
/// # Errors
/// The runs or the status cannot be read, or an essential part failed.
pub(super) async fn until_idle(
    app: &App,
    watched: &Watched,
    bars: &mut Bars,
    at_most: Option<Duration>,
) -> Result<Ended, CommandError> {
    let service = app.service();
    let mut signals = shutdown::StopSignals::listen()?;
    let stop_requested = signals.requested();
    let idle = app.idle();
    let time_out = async {
        match at_most {
            Some(at_most) => tokio::time::sleep(at_most).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stop_requested, idle, time_out);
    let mut tick = tokio::time::interval(SHOW_EVERY);
    let mut sink_wait = SinkWait::default();
    loop {
        tokio::select! {
            biased;
            () = &mut stop_requested => return Ok(Ended::Stopped),
            () = &mut idle => {
                app.failure()?;
                drop(show(service, watched, bars).await?);
                return Ok(Ended::Idle);
            }
            () = &mut time_out => return Ok(Ended::TimedOut),
            _ = tick.tick() => {
                let status = show(service, watched, bars).await?;
                if sink_wait.is_over(&status, Instant::now()) {
                    let error = status.sink.error.unwrap_or_default();
                    return Ok(Ended::SinkAway { waiting: status.outbox.unwrap_or_default(), error });
                }
            }
        }
    }
}

/// The message of a command that ends before the sink has accepted everything.
pub(super) fn sink_away(waiting: u64, error: &str) -> String {
    let waiting = match waiting {
        // The outbox is empty: what is left to write moves from the archive.
        0 => "the documents of the embedded archive wait for the sink".to_owned(),
        waiting => counted(waiting, "entry waits for the sink", "entries wait for the sink"),
    };
    let error = clause(error);
    format!(
        "{waiting}, which is unavailable: {error}; what waits is kept, and written at the next start. Remedy: `waybill \
         check` shows which step fails"
    )
}

async fn show(service: &Service, watched: &Watched, bars: &mut Bars) -> Result<Status, CommandError> {
    let mut runs = wanted(service.runs(RunFilter::default(), None, RUNS_PAGE).await?, watched);
    runs.sort_by_key(|view| (!view.run.is_open(), view.run.id));
    let now = Clock::system().now();
    let lines: Vec<Line> = runs.iter().map(|view| line(name(view, watched), view, now)).collect();
    let status = service.status(None)?;
    let sums = if runs.is_empty() { String::new() } else { format!("{}{}", sums(&runs), waits(&runs)) };
    let trouble =
        if status.sink.healthy { String::new() } else { format!("{} does not accept rows", sink_name(&status)) };
    let parts = [sums, left(&runs, &status), trouble];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    bars.show(&lines, &parts.join("; "), status.sink.error.as_deref().filter(|_| !status.sink.healthy));
    Ok(status)
}

fn sink_name(status: &Status) -> &str {
    if status.sink.kind == "mysql" { "MySQL" } else { "the archive" }
}

/// What is waited for once no run is open; empty: nothing, or the runs say it.
fn left(runs: &[RunView], status: &Status) -> String {
    if status.idle || runs.iter().any(|view| view.run.is_open()) {
        return String::new();
    }
    match (status.outbox.unwrap_or_default(), status.leased_jobs + status.pending_jobs) {
        (0, 0) => String::new(),
        (0, jobs) if runs.is_empty() => format!("{} to make", counted(jobs, "call", "calls")),
        (0, jobs) => format!("{} to make", counted(jobs, "other call", "other calls")),
        (outbox, _) => format!("{} to write to {}", counted(outbox, "entry", "entries"), sink_name(status)),
    }
}

/// All watched runs, oldest first.
///
/// # Errors
/// The runs cannot be read.
pub(super) async fn runs(service: &Service, watched: &Watched) -> Result<Vec<RunView>, CommandError> {
    let oldest = watched.runs.as_ref().and_then(|chosen| chosen.ids.first().copied());
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let page = service.runs(RunFilter::default(), before, RUNS_PAGE).await?;
        let last = page.last().map(|view| view.run.id);
        let is_full = page.len() == RUNS_PAGE;
        all.extend(wanted(page, watched));
        match last {
            Some(last) if is_full && oldest.is_none_or(|oldest| last > oldest) => before = Some(last),
            _ => break,
        }
    }
    all.reverse();
    Ok(all)
}

/// The shop's name, or its id if it has none.
pub(super) fn name<'a>(view: &'a RunView, watched: &'a Watched) -> &'a str {
    let shop = &view.run.stream.shop;
    watched.names.get(shop).map_or(shop.as_str(), String::as_str)
}

fn wanted(mut runs: Vec<RunView>, watched: &Watched) -> Vec<RunView> {
    if let Some(chosen) = &watched.runs {
        runs.retain(|RunView { run, .. }| {
            let is_later = chosen.ids.last().is_some_and(|last| run.id > *last);
            let follows = is_later && chosen.only.takes(&run.stream.shop, &run.stream.resource);
            follows || chosen.ids.contains(&run.id)
        });
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{SINK_PATIENCE, SinkWait};
    use crate::service::Status;

    #[test]
    fn an_unavailable_sink_is_waited_for_while_there_is_something_to_read_and_a_limited_time_after() {
        let status = |leased_jobs, outbox, healthy| {
            let mut status = Status { leased_jobs, outbox: Some(outbox), ..Status::default() };
            status.sink.healthy = healthy;
            status
        };
        let (mut wait, begun) = (SinkWait::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let patience = SINK_PATIENCE.as_secs();
        assert!(!wait.is_over(&status(1, 5, false), at(0)));
        assert!(!wait.is_over(&status(1, 5, false), at(10 * patience)), "there is something to read");
        assert!(!wait.is_over(&status(0, 5, false), at(11 * patience)));
        assert!(!wait.is_over(&status(0, 5, true), at(12 * patience)), "it accepts rows again");
        assert!(!wait.is_over(&status(0, 5, false), at(12 * patience)));
        assert!(!wait.is_over(&status(0, 5, false), at(13 * patience - 1)));
        assert!(wait.is_over(&status(0, 5, false), at(13 * patience)));
        assert!(wait.is_over(&status(0, 0, false), at(14 * patience)), "the archive moves");
    }
}
