//! The metrics: what each is called and means, and the page that shows them.
//!
//! Labels hold ids, names of resources and rules, and words of ours; never a secret, nor anything of a document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::Inner;
use super::keeper::LOGIN;
use crate::domain::clock::Millis;
use crate::domain::health::{Health, State};
use crate::sink::Sink;

/// Counters, with what they count.
const COUNTERS: [(&str, &str); 12] = [
    ("waybill_calls_total", "Calls that left for the API, by rate rule and class of status, over restarts."),
    ("waybill_refused_429_total", "Calls that the API answered with 429."),
    ("waybill_runs_total", "Runs that ended, by resource and result."),
    ("waybill_documents_written_total", "Documents whose commit in the sink is confirmed."),
    ("waybill_gaps_total", "Documents missing in the sink that were asked for again."),
    ("waybill_misfits_total", "Values that did not fit the type of their column."),
    ("waybill_tolerated_total", "Documents whose JSON was read in spite of an error in it."),
    ("waybill_unreadable_times_total", "Documents with a time that could not be read as one."),
    ("waybill_unreadable_total", "Documents and rows that were given up because they could not be read."),
    ("waybill_panics_total", "Panics, by the part of the process."),
    ("waybill_invariant_breaches_total", "Checks of our own books that failed; each is a bug."),
    ("waybill_log_lines_lost_total", "Lines of the log that were dropped because they were not read in time."),
];

/// Gauges, with what they measure.
const GAUGES: [(&str, &str); 13] = [
    ("waybill_open_runs", "Runs that are walking or fetching."),
    ("waybill_ready_jobs", "Jobs that could run now, those under way included."),
    ("waybill_waiting_jobs", "Jobs that wait for their time."),
    ("waybill_leased_jobs", "Jobs with an attempt under way."),
    ("waybill_outbox_entries", "Entries that wait for the sink."),
    ("waybill_outbox_bytes", "Bytes that wait for the sink."),
    ("waybill_store_bytes", "Bytes of the embedded store on disk."),
    ("waybill_sink_healthy", "1 while the sink takes documents, else 0."),
    ("waybill_logins_paused_seconds", "How long the login host wants no logins; 0: it takes them."),
    (
        "waybill_clock_ahead_seconds",
        "How far this machine's clock is ahead of the dates on the API's answers, negative: behind; 0: they agree.",
    ),
    ("waybill_overdue_streams", "Streams whose rows may soon fall out of the API's reach."),
    ("waybill_unmapped_fields", "Fields of documents that no column takes, by resource."),
    ("waybill_health_level", "How the installation is: 0 ok, 1 attention, 2 failing."),
];

/// One recorder a process; tests start several apps in one.
pub(super) fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return handle.clone();
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = HANDLE.get_or_init(|| recorder.handle()).clone();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("another recorder is in place; its numbers are shown there");
    }
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    handle
}

impl Inner {
    fn takes_documents(&self) -> bool {
        let is_known = self.health.is_known() || !matches!(self.sink, Sink::Mysql(_));
        is_known && self.health.error().is_none()
    }

    pub(super) fn render_metrics(&self) -> String {
        if let Ok(counters) = self.store.counters() {
            for (name, value) in [
                ("waybill_open_runs", counters.open_runs),
                ("waybill_ready_jobs", counters.ready_jobs),
                ("waybill_waiting_jobs", counters.waiting_jobs),
                ("waybill_leased_jobs", counters.leased_jobs),
                ("waybill_outbox_entries", counters.outbox),
                ("waybill_outbox_bytes", counters.outbox_bytes),
                ("waybill_store_bytes", self.store.size()),
                ("waybill_sink_healthy", u64::from(self.takes_documents())),
            ] {
                metrics::gauge!(name).set(value as f64);
            }
        }
        if let Ok(left) = self.store.pause_left("", LOGIN) {
            metrics::gauge!("waybill_logins_paused_seconds").set(left.as_secs_f64());
        }
        metrics::gauge!("waybill_clock_ahead_seconds").set((self.source.clock_ahead().unwrap_or(0) / 1000) as f64);
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
        write_family(&mut text, "waybill_build_info", "The version that runs; always 1.");
        line(&mut text, "waybill_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let mut page = self.metrics.render();
        page.push_str(&text);
        page
    }
}

/// What the recorder would keep of shops that are gone is written here, as it is now.
fn write_health(text: &mut String, health: &Health, now: Millis) {
    let help = "Seconds since the last run of a shop's resource that ended well; before the first, since the shop was \
                registered.";
    write_family(text, "waybill_stream_age_seconds", help);
    for shop in &health.shops {
        for resource in &shop.resources {
            let since = resource.last_success_at.unwrap_or(shop.created_at);
            let age = u64::try_from(now.saturating_sub(since) / 1000).unwrap_or(0);
            let labels = [("shop", shop.shop_id.as_str()), ("resource", resource.resource.as_str())];
            line(text, "waybill_stream_age_seconds", &labels, age);
        }
    }
    write_family(text, "waybill_shops", "Shops, by the worst state of their resources.");
    for state in State::ALL {
        let count = health.shops.iter().filter(|shop| shop.state == state).count() as u64;
        line(text, "waybill_shops", &[("state", state.name())], count);
    }
}

fn write_parked(text: &mut String, parked: impl Iterator<Item = (String, u64)>) {
    let mut by_resource: BTreeMap<String, u64> = BTreeMap::new();
    parked.for_each(|(resource, count)| *by_resource.entry(resource).or_default() += count);
    write_family(text, "waybill_parked", "Pages and documents that were given up after their attempts.");
    for (resource, count) in by_resource {
        line(text, "waybill_parked", &[("resource", &resource)], count);
    }
}

fn write_family(text: &mut String, name: &str, help: &str) {
    // Writing into a text does not fail.
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
    writeln!(text, "{name}{{{}}} {value}", labels.join(",")).ok();
}
