//! The log lines that tell an operator what happened: the start, and the end of each run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::{App, Inner};
use crate::domain::clock::rfc3339;
use crate::domain::{Run, RunState};

/// How long the line of a run waits for the documents of that run to reach the sink.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl App {
    /// Logs what this process works with. `file`: its configuration file.
    pub fn log_start(&self, file: Option<&Path>) {
        let inner = &self.inner;
        let resources: Vec<&str> = inner.definitions.iter().map(|definition| definition.name.as_str()).collect();
        let now = inner.store.clock().now();
        let next = |schedule: &crate::sync::schedule::Schedule| schedule.next(now).map(rfc3339).unwrap_or_default();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            configuration = %file.map_or_else(|| "none".into(), |file| file.display().to_string()),
            data_dir = %inner.data_dir.display(),
            sink = inner.sink.kind(),
            shops = inner.store.shops().map_or(0, |shops| shops.len()),
            resources = resources.join(","),
            next_sync = next(&inner.timetable.sync),
            next_reconcile = next(&inner.timetable.reconcile),
            "waybill started"
        );
    }
}

impl Inner {
    /// Logs each run that ends, once its documents are in the sink or have had time for it.
    pub(super) async fn log_runs(self: Arc<Inner>, mut ended: UnboundedReceiver<u64>) {
        let mut waiting: Vec<(u64, Instant)> = Vec::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                run = ended.recv() => match run {
                    Some(run) => waiting.push((run, Instant::now())),
                    None => break,
                },
                _ = looks.tick(), if !waiting.is_empty() => {}
            }
            waiting.retain(|(run, since)| !self.log_run(*run, since.elapsed() >= WRITTEN_PATIENCE));
        }
        while let Ok(run) = ended.try_recv() {
            waiting.push((run, Instant::now()));
        }
        for (run, _) in waiting {
            self.log_run(run, true);
        }
    }

    /// Logs a run, unless it may be waited for. Whether it was, or there is nothing to log.
    fn log_run(&self, id: u64, at_once: bool) -> bool {
        // A run that was opened again, by a retry of what it parked, ends once more later.
        let Some(run) = self.store.run(id).ok().flatten().filter(|run| !run.is_open()) else { return true };
        if run.state == RunState::Done && run.written + run.refused < run.fetched && !at_once {
            return false;
        }
        log(&run);
        true
    }
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

/// The name that JSON has for it.
fn text(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}
