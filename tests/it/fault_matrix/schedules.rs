//! Time in schedules: a surface is late when runs that met the fault have ended and it does not say so. Counted by the
//! service's own records and by the order of its log, so that a slow machine makes nothing late.

use std::collections::BTreeMap;

use serde_json::Value;

use super::surfaces::{About, Said};
use crate::support::program::Serving;

/// Runs that started after the last one of a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(u64);

impl Since {
    /// Now: the newest run is the last one that began earlier.
    pub(super) async fn now(serving: &Serving) -> Since {
        let runs = serving.get("/api/v1/runs?limit=1").await;
        Since(runs["items"][0]["id"].as_u64().unwrap_or(0))
    }

    /// How often a stream of what the fault is about was walked since: the most of its streams, as each of them meets
    /// the fault.
    pub(super) async fn walked(self, serving: &Serving, about: &About) -> u64 {
        let path = format!("/api/v1/runs?limit=500&shop={}&resource={}", about.shop, about.resource());
        let runs = serving.get(&path).await;
        let ended = runs["items"].as_array().unwrap().iter().filter(|run| !run["ended_at"].is_null());
        let streams = self.count(ended.map(|run| (&run["id"], run["parameters"].to_string())));
        streams.into_values().max().unwrap_or(0)
    }

    /// How often each stream of each shop was walked since, to a good end: the least of all streams.
    pub(super) async fn walked_well(self, serving: &Serving) -> u64 {
        let runs = serving.get("/api/v1/runs?limit=500").await;
        let runs = runs["items"].as_array().unwrap();
        let stream = |run: &Value| format!("{}{}{}", run["shop_id"], run["resource"], run["parameters"]);
        let done = self.count(runs.iter().filter(|run| run["state"] == "done").map(|run| (&run["id"], stream(run))));
        let all = runs.iter().map(stream);
        all.map(|stream| done.get(&stream).copied().unwrap_or(0)).min().unwrap_or(0)
    }

    fn count<'a>(self, runs: impl Iterator<Item = (&'a Value, String)>) -> BTreeMap<String, u64> {
        let mut streams = BTreeMap::new();
        for (_, stream) in runs.filter(|(id, _)| id.as_u64().unwrap() > self.0) {
            *streams.entry(stream).or_default() += 1;
        }
        streams
    }

    /// How many runs of what the fault is about, begun since, had ended when the log said a line; the most of its streams.
    pub(super) fn logged_before(self, lines: &[Value], about: &About) -> u64 {
        let is_ours = |line: &&Value| {
            line["message"] == "run ended"
                && line["shop.id"] == about.shop.as_str()
                && line["resource"] == about.resource()
        };
        let streams =
            self.count(lines.iter().filter(is_ours).map(|line| (&line["run.id"], line["parameters"].to_string())));
        streams.into_values().max().unwrap_or(0)
    }
}

/// When a surface first said what it should, and how late that was.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    late: Option<String>,
}

impl Cell {
    pub(super) const fn new() -> Cell {
        Cell { late: None }
    }

    /// One look. `walked`: runs counted before the surface was asked; it may not have said it while fewer than `allowed`
    /// were.
    pub(super) fn look(&mut self, said: &Said, walked: u64, allowed: u64) {
        if let (Err(said), true) = (said, walked >= allowed) {
            self.late
                .get_or_insert_with(|| format!("not within {allowed} schedules: after {walked} runs it says {said}"));
        }
    }

    /// What was said at the end, unless it was said late.
    pub(super) fn judge(self, said: Said) -> Said {
        match (said, self.late) {
            (Ok(_), Some(late)) => Err(late),
            (said, _) => said,
        }
    }
}
