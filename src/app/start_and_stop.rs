//! Log lines about the start and the stop of a service.

use std::path::Path;

use tokio::time::Instant;

use super::App;
use crate::domain::clock::rfc3339;
use crate::domain::schedule::Schedule;
use crate::store::Store;

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
    pub fn ending(&self) -> StopLog {
        StopLog { store: self.store.clone(), begun: Instant::now() }
    }
}

/// The log line at the end of a service; made when its stop begins.
pub struct StopLog {
    store: Store,
    begun: Instant,
}

impl StopLog {
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
