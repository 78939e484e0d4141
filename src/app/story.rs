//! Log lines for the operator: the start, and the end of each run.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use crate::domain::clock::rfc3339;
use crate::domain::schedule::Schedule;
use crate::domain::{Run, RunState};
use crate::store::Store;

/// How long the log line of a run waits for its documents to reach the sink.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(10);
/// Interval of checking whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl App {
    /// Logs the start with the main settings. `file`: the configuration file.
    pub fn log_start(&self, file: Option<&Path>) {
        let resources: Vec<&str> = self.definitions.iter().map(|definition| definition.name.as_str()).collect();
        let now = self.store.clock().now();
        let next = |schedule: &Schedule| schedule.next(now).map(rfc3339).unwrap_or_default();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            configuration = %file.map_or_else(|| "none".into(), |file| file.display().to_string()),
            data_dir = %self.data_dir.display(),
            sink = self.sink.kind(),
            shops = self.store.shops().map_or(0, |shops| shops.len()),
            resources = resources.join(","),
            next_sync = next(&self.timetable.sync),
            next_reconcile = next(&self.timetable.reconcile),
            "waybill started"
        );
        let jobs = self.found.ready_jobs + self.found.waiting_jobs;
        let (open_runs, sink_entries) = (self.found.open_runs, self.found.outbox);
        if open_runs + jobs + sink_entries > 0 {
            tracing::info!(open_runs, jobs, sink_entries, "resuming what the last process left");
        }
    }

    /// What to log once this app has stopped.
    pub fn ending(&self) -> Ending {
        Ending { store: self.store.clone(), begun: Instant::now() }
    }
}

/// The log line at the end of a service; made when its stop begins.
pub struct Ending {
    store: Store,
    begun: Instant,
}

impl Ending {
    /// Logs the end, and what the next start resumes. `drained`: nothing was cut off.
    pub fn log(&self, drained: bool) {
        let seconds = self.begun.elapsed().as_secs();
        match self.store.counters() {
            Ok(left) => tracing::info!(
                drained,
                seconds,
                open_runs = left.open_runs,
                jobs = left.ready_jobs + left.waiting_jobs,
                sink_entries = left.outbox,
                "waybill stopped"
            ),
            Err(error) => tracing::info!(drained, seconds, %error, "waybill stopped"),
        }
    }
}

/// Logs each run that ends, once its documents are in the sink or [`WRITTEN_PATIENCE`] has passed.
pub(super) async fn log_runs(store: Store, mut ended: UnboundedReceiver<u64>, stop: CancellationToken) {
    let mut waiting: Vec<(u64, Instant)> = Vec::new();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            run = ended.recv() => match run {
                Some(run) => waiting.push((run, Instant::now())),
                None => break,
            },
            _ = looks.tick(), if !waiting.is_empty() => {}
        }
        waiting.retain(|(run, since)| !log_run(&store, *run, since.elapsed() >= WRITTEN_PATIENCE));
    }
    while let Ok(run) = ended.try_recv() {
        waiting.push((run, Instant::now()));
    }
    for (run, _) in waiting {
        log_run(&store, run, true);
    }
}

/// Logs a run, unless it should wait for its documents; false if so.
fn log_run(store: &Store, id: u64, at_once: bool) -> bool {
    // A run that a retry reopened is logged when it ends again.
    let Some(run) = store.run(id).ok().flatten().filter(|run| !run.is_open()) else { return true };
    if run.state == RunState::Done && run.written + run.refused < run.fetched && !at_once {
        return false;
    }
    log(&run);
    true
}

fn log(run: &Run) {
    let seconds = run.ended_at.map_or(0, |end| end.saturating_sub(run.started_at)).max(0) / 1000;
    let (mode, result) = (text(&run.mode), text(&run.state));
    let parameters = run.stream.combination.to_string();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                run.id = run.id,
                shop.id = run.stream.shop,
                resource = run.stream.resource,
                parameters,
                mode,
                result,
                pages = run.pages,
                listed = run.listed,
                fetched = run.fetched,
                written = run.written,
                parked = run.parked_in_all(),
                seconds,
                error = run.error.as_deref(),
                "run ended"
            )
        };
    }
    match run.state {
        RunState::Failed | RunState::Unproved | RunState::Stopped => line!(warn),
        RunState::Walking | RunState::Fetching | RunState::Done | RunState::Canceled => line!(info),
    }
}

/// The JSON name of a value.
fn text(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
