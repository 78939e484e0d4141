//! Descriptions of all metrics, and the Prometheus page. A new metric is added here, in docs/operations.md and in
//! `tests/it/golden/names.snap`; tests ask for both.
//!
//! Labels are ids, resource and rule names, and fixed words; never a secret or a part of a document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::Service;
use crate::catalog::coverage::FieldDrift;
use crate::domain::calls::CallStatus;
use crate::domain::health::{Health, State};
use crate::domain::json::Tolerance;
use crate::domain::{RunState, Timestamp};
use crate::sink::Sink;
use crate::store::LOGIN_RULE;

/// Counters with their help texts.
const COUNTERS: [(&str, &str); 12] = [
    ("waybill_calls_total", "Calls sent to the API, by rate rule and status class, over restarts."),
    ("waybill_refused_429_total", "Calls that the API answered with 429."),
    ("waybill_runs_total", "Runs that ended, by resource and result."),
    ("waybill_documents_written_total", "Documents committed in the sink."),
    ("waybill_gaps_total", "Documents missing in the sink that were sent or fetched again."),
    ("waybill_misfits_total", "Values that did not fit the type of their column."),
    ("waybill_tolerated_total", "Documents with a tolerated JSON error."),
    ("waybill_unreadable_times_total", "Documents with an unparseable time."),
    ("waybill_unreadable_total", "Rows and documents that were given up, whatever the reason."),
    ("waybill_panics_total", "Panics, by component."),
    ("waybill_invariant_breaches_total", "Failed internal consistency checks; each is a bug."),
    ("waybill_log_lines_lost_total", "Log lines dropped because the log could not be written fast enough."),
];

/// Gauges with their help texts.
const GAUGES: [(&str, &str); 14] = [
    ("waybill_open_runs", "Runs that are walking or fetching."),
    ("waybill_ready_jobs", "Jobs that are due, including those in progress."),
    ("waybill_waiting_jobs", "Delayed jobs."),
    ("waybill_leased_jobs", "Jobs with an attempt in progress."),
    ("waybill_outbox_entries", "Entries in the outbox, waiting for the sink."),
    ("waybill_outbox_bytes", "Bytes in the outbox, waiting for the sink."),
    ("waybill_store_bytes", "Bytes of the embedded store on disk."),
    ("waybill_standby", "1 while a standby waits to take over, else 0."),
    ("waybill_sink_healthy", "1 while the sink accepts documents, else 0."),
    ("waybill_logins_paused_seconds", "Seconds until logins resume, as the login host asked; 0: not paused."),
    (
        "waybill_clock_ahead_seconds",
        "Seconds that this machine's clock is ahead of the Date header of the API; negative: behind.",
    ),
    ("waybill_overdue_streams", "Streams whose rows may soon leave the API's history."),
    ("waybill_unmapped_fields", "Fields of documents that no column covers, by resource."),
    ("waybill_health_level", "Health of the installation: 0 ok, 1 attention, 2 failing."),
];

/// The recorder of the process; tests start several apps in one process.
pub(crate) fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return handle.clone();
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = HANDLE.get_or_init(|| recorder.handle()).clone();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("another metrics recorder is installed; metrics are shown there");
    }
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    handle
}

impl Service {
    /// Exports every counter with all label sets that are known in advance, from zero: `increase()` of Prometheus misses
    /// the first event of a series that begins with it.
    pub(super) fn register_counters(&self) {
        for name in ["waybill_gaps_total", "waybill_invariant_breaches_total", "waybill_log_lines_lost_total"] {
            counter!(name).increment(0);
        }
        // The owner of a schema notes it with each heartbeat.
        metrics::gauge!("waybill_standby").set(0.0);
        // The other parts are supervised from their start, and registered there.
        for part in ["a connection", "a request", "an attempt"] {
            counter!("waybill_panics_total", "part" => part).increment(0);
        }
        let mut rules = BTreeSet::from([LOGIN_RULE.to_owned()]);
        for definition in self.definitions.iter() {
            let resource = || definition.name.clone();
            for ended in RunState::ALL.iter().filter(|state| !state.is_open()) {
                counter!("waybill_runs_total", "resource" => resource(), "result" => ended.name()).increment(0);
            }
            for name in
                ["waybill_documents_written_total", "waybill_unreadable_times_total", "waybill_unreadable_total"]
            {
                counter!(name, "resource" => resource()).increment(0);
            }
            for kind in Tolerance::ALL.iter().map(|what| what.name()) {
                counter!("waybill_tolerated_total", "resource" => resource(), "kind" => kind).increment(0);
            }
            let table = &definition.table;
            let children = table.children.iter().map(|child| (&child.name, &child.columns));
            for (table, columns) in std::iter::once((&table.name, &table.columns)).chain(children) {
                for column in columns {
                    let column = format!("{table}.{}", column.name);
                    counter!("waybill_misfits_total", "resource" => resource(), "column" => column).increment(0);
                }
            }
            let paths = [Some(&definition.list.path), definition.detail.as_ref().map(|detail| &detail.path)];
            let found = paths.into_iter().flatten().filter_map(|path| self.engine.rules().find("GET", path));
            rules.extend(found.map(|rule| rule.name.clone()));
        }
        for rule in rules {
            for &status in CallStatus::ALL {
                let status = status.as_str();
                counter!("waybill_calls_total", "rule" => rule.clone(), "status" => status).increment(0);
            }
            counter!("waybill_refused_429_total", "rule" => rule).increment(0);
        }
    }

    fn accepts_documents(&self) -> bool {
        let is_known = self.sink_health.is_known() || !matches!(self.sink, Sink::Mysql(_));
        is_known && self.sink_health.error().is_none()
    }

    /// Prometheus text, format 0.0.4.
    pub fn render_metrics(&self) -> String {
        if let Ok(counters) = self.store.counters() {
            for (name, value) in [
                ("waybill_open_runs", counters.open_runs),
                ("waybill_ready_jobs", counters.ready_jobs),
                ("waybill_waiting_jobs", counters.waiting_jobs),
                ("waybill_leased_jobs", counters.leased_jobs),
                ("waybill_outbox_entries", counters.outbox),
                ("waybill_outbox_bytes", counters.outbox_bytes),
                ("waybill_store_bytes", self.store.size()),
                ("waybill_sink_healthy", u64::from(self.accepts_documents())),
            ] {
                metrics::gauge!(name).set(value as f64);
            }
        }
        if let Ok(left) = self.store.pause_left("", LOGIN_RULE) {
            metrics::gauge!("waybill_logins_paused_seconds").set(left.as_secs_f64());
        }
        metrics::gauge!("waybill_clock_ahead_seconds")
            .set(self.source.clock_ahead().map_or(0, |ahead| ahead.as_secs()) as f64);
        for definition in self.definitions.iter() {
            let drift = self.engine.drift(&definition.name);
            let unmapped = drift.places.keys().filter(|left| matches!(left, FieldDrift::Unmapped { .. })).count();
            metrics::gauge!("waybill_unmapped_fields", "resource" => definition.name.clone()).set(unmapped as f64);
        }
        self.set_call_metrics();
        let mut text = String::new();
        let health = self.health_now();
        if let Ok(health) = &health {
            metrics::gauge!("waybill_health_level").set(f64::from(health.level as u8));
            write_health(&mut text, health, self.store.clock().now());
        }
        if let Ok(parked) = self.store.parked_by_resource() {
            write_parked(&mut text, parked.into_iter().map(|((_, resource), count)| (resource, count)));
        }
        write_family(&mut text, "waybill_build_info", "The running version; always 1.");
        line(&mut text, "waybill_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let mut page = self.metrics.render();
        page.push_str(&text);
        page
    }
}

/// Writes metrics per shop directly: the recorder would keep those of deleted shops.
fn write_health(text: &mut String, health: &Health, now: Timestamp) {
    let help = "Seconds since the last successful run of a shop's resource; before the first, since the shop was \
                registered.";
    write_family(text, "waybill_stream_age_seconds", help);
    for shop in &health.shops {
        for resource in &shop.resources {
            let since = resource.last_success_at.unwrap_or(shop.created_at);
            let age = now.since(since).as_secs();
            let labels = [("shop", shop.shop_id.as_str()), ("resource", resource.resource.as_str())];
            line(text, "waybill_stream_age_seconds", &labels, age);
        }
    }
    write_family(text, "waybill_shops", "Shops, by the worst state of their resources.");
    for &state in State::ALL {
        let count = health.shops.iter().filter(|shop| shop.state == state).count() as u64;
        line(text, "waybill_shops", &[("state", state.name())], count);
    }
}

fn write_parked(text: &mut String, parked: impl Iterator<Item = (String, u64)>) {
    let mut by_resource: BTreeMap<String, u64> = BTreeMap::new();
    parked.for_each(|(resource, count)| *by_resource.entry(resource).or_default() += count);
    write_family(text, "waybill_parked", "Pages and documents that failed after all attempts.");
    for (resource, count) in by_resource {
        line(text, "waybill_parked", &[("resource", &resource)], count);
    }
}

fn write_family(text: &mut String, name: &str, help: &str) {
    // Writing to a string does not fail.
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    writeln!(text, "{name}{{{}}} {value}", labels.join(",")).ok();
}
