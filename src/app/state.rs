//! `waybill state`: the content of the data directory as JSON. Read-only; without secrets, tokens and documents.

use std::path::Path;

use serde_json::{Value, json};

use super::App;
use crate::domain::clock::rfc3339;
use crate::domain::document::RunView;
use crate::domain::{Run, Shop, StreamId, Timestamp};
use crate::http;

/// Most open runs shown.
const RUNS_SHOWN: usize = 500;

/// The state of an empty data directory.
///
/// # Errors
/// A shop is named, which cannot exist.
pub fn empty(data_dir: &Path, shop: Option<&str>) -> anyhow::Result<Value> {
    if let Some(id) = shop {
        anyhow::bail!(super::NoSuchShop(id.to_owned()));
    }
    Ok(json!({
        "data_dir": data_dir.display().to_string(),
        "bytes": 0,
        "jobs": { "ready": 0, "waiting": 0, "retrying": 0 },
        "outbox": { "entries": 0, "bytes": 0 },
        "parked": 0,
        "open_runs": [],
        "shops": [],
    }))
}

impl App {
    /// The state of all shops, or of one.
    ///
    /// # Errors
    /// Store errors; an unknown shop.
    pub fn state(&self, shop: Option<&str>) -> anyhow::Result<Value> {
        let store = &self.store;
        let mut shops = store.shops()?;
        if let Some(id) = shop {
            shops.retain(|shop| shop.id == id);
            if shops.is_empty() {
                anyhow::bail!(super::NoSuchShop(id.to_owned()));
            }
        }
        let counters = store.counters()?;
        let mut open = store.open_runs()?;
        open.retain(|run| shops.iter().any(|shop| shop.id == run.stream.shop));
        open.truncate(RUNS_SHOWN);
        let shown: Vec<Value> = shops.iter().map(|shop| self.shop_state(shop)).collect::<anyhow::Result<_>>()?;
        Ok(json!({
            "data_dir": self.data_dir.display().to_string(),
            "bytes": store.size(),
            "jobs": {
                "ready": counters.ready_jobs, "waiting": counters.waiting_jobs, "retrying": counters.retrying_jobs,
            },
            "master_key": { "id": store.master_key_id(), "is_rotating": self.is_rotating },
            "outbox": { "entries": counters.outbox, "bytes": counters.outbox_bytes },
            "parked": counters.parked,
            "open_runs": open.into_iter().map(run_shown).collect::<anyhow::Result<Vec<_>>>()?,
            "shops": shown,
        }))
    }

    fn shop_state(&self, shop: &Shop) -> anyhow::Result<Value> {
        let store = &self.store;
        let mut streams = Vec::new();
        let mut budgets = Vec::new();
        for definition in self.service.definitions_of(shop) {
            for stream in definition.streams(&shop.id) {
                streams.push(self.stream_state(&stream)?);
            }
            for rule in definition.paths().filter_map(|path| self.engine.rules().find("GET", path)) {
                let occupied = store.occupied(&shop.account, &rule.name)?;
                let pause = store.pause_left(&shop.account, &rule.name)?;
                budgets.push(json!({
                    "account": shop.account, "rule": rule.name,
                    "limit": rule.limit.map(|limit| limit.to_string()), "occupied": occupied, "pause_s": pause.as_secs(),
                }));
            }
        }
        budgets.sort_by_key(ToString::to_string);
        budgets.dedup();
        Ok(json!({
            "id": shop.id, "name": shop.name, "client_id": shop.client_id, "account": shop.account,
            "state": shop.state, "reason": shop.reason, "streams": streams, "budgets": budgets,
        }))
    }

    fn stream_state(&self, stream: &StreamId) -> anyhow::Result<Value> {
        let checkpoint = self.store.checkpoint(stream)?;
        Ok(json!({
            "resource": stream.resource, "parameters": stream.combination.parameters(),
            "walked_at": time(checkpoint.walked_at), "full_walk_at": time(checkpoint.full_walk_at),
            "newest": time(checkpoint.newest),
        }))
    }
}

fn run_shown(run: Run) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(http::run_form(RunView { run, forecast_at: None, pages_expected: None, waits_for: None }))?)
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(rfc3339)
}
