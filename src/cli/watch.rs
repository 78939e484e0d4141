//! Watches runs until nothing is left to do. `sync` and `demo` share it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::progress::{Bars, Line, line, sums};
use super::{Failure, stop};
use crate::app::App;
use crate::domain::document::RunView;
use crate::domain::{Clock, ShopId};
use crate::http::backend::{Backend, RunQuery};

/// As often as the eye can follow.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// Runs asked for at a time.
const RUNS_PAGE: usize = 500;

/// Which runs, and how their shops are called.
pub(super) struct Watched {
    pub(super) names: BTreeMap<ShopId, String>,
    /// None: all.
    pub(super) runs: Option<Chosen>,
}

/// Some runs.
pub(super) struct Chosen {
    pub(super) ids: BTreeSet<u64>,
    /// And all that start later: those that follow others.
    pub(super) after: u64,
}

/// How the watching ended.
pub(super) enum Ended {
    /// Nothing is left to do now.
    Idle,
    /// A stop signal came.
    Stopped,
    /// The given time ran out.
    TimedOut,
}

/// Shows the runs until the engine is idle, a stop is asked for, or `at_most` has passed.
///
/// # Errors
/// When the runs or the status cannot be read, or a part failed that nothing can go on without.
pub(super) async fn until_idle(
    app: &App,
    watched: &Watched,
    bars: &mut Bars,
    at_most: Option<Duration>,
) -> Result<Ended, Failure> {
    let backend = app.backend();
    let mut signals = stop::Signals::listen()?;
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
    loop {
        tokio::select! {
            biased;
            () = &mut stop_requested => return Ok(Ended::Stopped),
            () = &mut idle => {
                app.failure()?;
                show(&*backend, watched, bars).await?;
                return Ok(Ended::Idle);
            }
            () = &mut time_out => return Ok(Ended::TimedOut),
            _ = tick.tick() => show(&*backend, watched, bars).await?,
        }
    }
}

async fn show(backend: &dyn Backend, watched: &Watched, bars: &mut Bars) -> Result<(), Failure> {
    let query = RunQuery { limit: RUNS_PAGE, ..RunQuery::default() };
    let mut runs = wanted(backend.runs(query).await?, watched);
    runs.sort_by_key(|view| (!view.run.is_open(), view.run.id));
    let now = Clock::system().now();
    let lines: Vec<Line> = runs.iter().map(|view| line(name(view, watched), view, now)).collect();
    let sink = backend.status(None).await?.sink;
    let trouble = match (sink.healthy, sink.error) {
        (true, _) => String::new(),
        (false, error) => format!("; the {} does not take rows: {}", sink.kind, error.unwrap_or_default()),
    };
    bars.show(&lines, &format!("{}{trouble}", sums(&runs)));
    Ok(())
}

/// All watched runs, oldest first.
///
/// # Errors
/// When the runs cannot be read.
pub(super) async fn runs(backend: &dyn Backend, watched: &Watched) -> Result<Vec<RunView>, Failure> {
    let oldest = watched.runs.as_ref().and_then(|chosen| chosen.ids.first().copied()).unwrap_or(0);
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let page = backend.runs(RunQuery { limit: RUNS_PAGE, before, ..RunQuery::default() }).await?;
        let last = page.last().map(|view| view.run.id);
        let is_full = page.len() == RUNS_PAGE;
        all.extend(wanted(page, watched));
        match last {
            Some(last) if is_full && last > oldest => before = Some(last),
            _ => break,
        }
    }
    all.reverse();
    Ok(all)
}

/// The shop's name, or its id when it has none.
pub(super) fn name<'a>(view: &'a RunView, watched: &'a Watched) -> &'a str {
    let shop = &view.run.stream.shop;
    watched.names.get(shop).unwrap_or(shop)
}

fn wanted(mut runs: Vec<RunView>, watched: &Watched) -> Vec<RunView> {
    if let Some(chosen) = &watched.runs {
        runs.retain(|view| view.run.id > chosen.after || chosen.ids.contains(&view.run.id));
    }
    runs
}
