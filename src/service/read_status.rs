//! Reads the status of the installation, whether it is idle, and the counts of calls for the metrics.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::status::{BUDGETS_SHOWN_MAX, BudgetStatus, HealthView, ShopCounts, SinkStatus, Status, StatusScope};
use super::{Service, ServiceError};
use crate::domain::calls::{CallStatus, CallTotal};
use crate::domain::{Run, Shop, ShopState, Timestamp};
use crate::store::{Counters, LOGIN_RULE, Queue, StoreError};
use crate::sync::LaneView;

/// Most jobs counted per queue.
const COUNTED_MAX: usize = 100_000;

impl Service {
    /// The status of the installation; with `of`, budgets and overdue streams of these shops only.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read.
    pub fn status(&self, of: Option<&StatusScope>) -> Result<Status, ServiceError> {
        let counters = self.store.counters()?;
        let mut shops = ShopCounts::default();
        for shop in self.store.shops()? {
            match shop.state {
                ShopState::Active => shops.active += 1,
                ShopState::Paused => shops.paused += 1,
                ShopState::Refused => shops.refused += 1,
            }
        }
        let error = self.sink_health.error();
        let (open_runs, parked) = match of {
            None => (counters.open_runs, counters.parked),
            Some(part) => self.counted(part)?,
        };
        // The error names users and hosts, which a restricted key must not see.
        let shown = error.as_ref().map(|error| match of {
            None => error.clone(),
            Some(_) => "the database accepts no documents now".to_owned(),
        });
        let totals = self.store.call_totals()?;
        let calls_since = totals.iter().map(|total| total.since).min();
        let (logins, calls): (Vec<_>, Vec<_>) = totals.into_iter().partition(|total| total.rule == LOGIN_RULE);
        let logins = logins.iter().map(|total| total.counts.total()).sum();
        let (budgets, budgets_left_out) = self.budgets(of.map(|part| &part.accounts))?;
        Ok(Status {
            // From the same counters, so that an idle status is consistent.
            idle: self.is_idle_by(&counters)?,
            open_runs,
            pending_jobs: counters.ready_jobs.saturating_sub(counters.leased_jobs) + counters.retrying_jobs,
            waiting_jobs: counters.waiting_jobs,
            leased_jobs: counters.leased_jobs,
            outbox: counters.outbox,
            outbox_bytes: counters.outbox_bytes,
            parked,
            calls: calls.iter().map(|total| total.counts.total()).sum(),
            refused_429: calls.iter().map(|total| total.counts.get(CallStatus::TooMany)).sum(),
            logins,
            calls_since,
            budgets,
            budgets_left_out,
            sink: SinkStatus { kind: self.sink.kind().to_owned(), healthy: error.is_none(), error: shown },
            logins_paused_until: self.logins_paused_until()?,
            overdue: self.overdue(of.map(|part| &part.shops))?,
            shops,
            health: self.health_view(of)?,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
        })
    }

    fn health_view(&self, of: Option<&StatusScope>) -> Result<HealthView, StoreError> {
        let health = match of {
            None => self.health_now()?,
            Some(part) => Arc::new(self.health_of(&part.shops)?),
        };
        Ok(HealthView { level: health.level, reasons: health.reasons.clone() })
    }

    /// Number of open runs and parked jobs of some shops.
    fn counted(&self, part: &StatusScope) -> Result<(u64, u64), StoreError> {
        let open = self.store.open_runs()?.iter().filter(|run| part.shops.contains(&run.stream.shop)).count();
        let parked: Result<u64, StoreError> = part.shops.iter().map(|shop| self.store.parked_of(shop)).sum();
        Ok((open as u64, parked?))
    }

    /// Until when logins are paused; none: they are not.
    fn logins_paused_until(&self) -> Result<Option<Timestamp>, StoreError> {
        let left = self.store.pause_left("", LOGIN_RULE)?;
        Ok((!left.is_zero()).then(|| self.store.clock().now() + left))
    }

    /// Whether there is nothing to do now. Work of paused and refused shops does not count: it waits for an operator; nor
    /// does that of streams which the engine leaves alone.
    pub(crate) fn is_idle(&self) -> Result<bool, StoreError> {
        self.is_idle_by(&self.store.counters()?)
    }

    fn is_idle_by(&self, counters: &Counters) -> Result<bool, StoreError> {
        // Retries are counted for all streams together; those of chosen ones keep their runs open.
        let retrying = if self.engine.only().is_all() { counters.retrying_jobs } else { 0 };
        let is_busy = self.is_moving_archive() || self.is_checking_sink();
        if is_busy || counters.outbox + counters.leased_jobs + retrying > 0 {
            return Ok(false);
        }
        if counters.ready_jobs == 0 && counters.open_runs == 0 {
            return Ok(true);
        }
        // Work is dormant if its shop is not active, or if its resource is not synced or not configured any more.
        let shops = self.store.shops()?;
        let active: HashMap<&str, &Shop> =
            shops.iter().filter(|shop| shop.state == ShopState::Active).map(|shop| (shop.id.as_str(), shop)).collect();
        let is_dormant = |shop: &str, resource: &str| {
            !active.get(shop).is_some_and(|shop| shop.syncs(resource))
                || !self.engine.only().takes(shop, resource)
                || self.definitions.iter().all(|definition| definition.name != resource)
        };
        // Checked first because it is cheap; counting dormant jobs reads every shop.
        let open = |run: &Run| run.is_open() && !is_dormant(&run.stream.shop, &run.stream.resource);
        if counters.open_runs > 0 && self.store.open_runs()?.iter().any(open) {
            return Ok(false);
        }
        if !self.engine.only().is_all() {
            return self.has_no_chosen_jobs(active.values().copied());
        }
        let mut dormant_jobs = 0;
        for shop in &shops {
            for resource in
                self.store.resources_with_jobs(&shop.id)?.into_iter().filter(|name| is_dormant(&shop.id, name))
            {
                for queue in Queue::all_of(&shop.id, &resource) {
                    dormant_jobs += self.store.count_jobs(&queue, COUNTED_MAX)? as u64;
                }
            }
        }
        Ok(dormant_jobs >= counters.ready_jobs)
    }

    /// Whether the chosen streams of these shops have no job that could run now.
    fn has_no_chosen_jobs<'a>(&self, active: impl Iterator<Item = &'a Shop>) -> Result<bool, StoreError> {
        for shop in active {
            let resources = self.definitions.iter().map(|definition| &definition.name);
            for resource in resources.filter(|name| shop.syncs(name) && self.engine.only().takes(&shop.id, name)) {
                for queue in Queue::all_of(&shop.id, resource) {
                    if self.store.has_jobs(&queue)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// The busiest budgets, by account and rule, and how many more there are.
    fn budgets(&self, accounts: Option<&HashSet<String>>) -> Result<(Vec<BudgetStatus>, u64), StoreError> {
        let mut lanes = self.engine.lanes();
        lanes.retain(|lane| accounts.is_none_or(|accounts| accounts.contains(&lane.key.account)));
        let now = self.store.clock().now();
        let left_out = lanes.len().saturating_sub(BUDGETS_SHOWN_MAX);
        if left_out > 0 {
            let busy = |lane: &LaneView| (lane.budget.blocked_for_ms, lane.budget.in_flight + lane.budget.cooling);
            lanes.sort_by_key(|lane| Reverse(busy(lane)));
            lanes.truncate(BUDGETS_SHOWN_MAX);
            lanes.sort_by(|a, b| a.key.cmp(&b.key));
        }
        let shown: Result<Vec<BudgetStatus>, StoreError> = lanes
            .into_iter()
            .map(|lane| {
                let mut waiting = 0;
                for queue in &lane.queues {
                    waiting += self.store.count_jobs(queue, COUNTED_MAX)? as u64;
                }
                Ok(BudgetStatus {
                    account: lane.key.account,
                    rule: lane.key.rule,
                    limit: lane.budget.tightened.or(lane.budget.limit),
                    window_s: lane.budget.limit.map(|_| lane.budget.window_s as f64),
                    in_flight: lane.budget.in_flight,
                    cooling: lane.budget.cooling,
                    available: lane.available,
                    waiting: waiting.saturating_sub(u64::from(lane.budget.in_flight)),
                    blocked_for_ms: lane.budget.blocked_for_ms,
                    next_free_at: lane.budget.next_free_ms.map(|ms| now + Duration::from_millis(ms)),
                })
            })
            .collect();
        Ok((shown?, left_out as u64))
    }

    /// Sets the call counters of the metrics to the stored totals, which survive restarts.
    pub(super) fn set_call_metrics(&self) {
        for CallTotal { rule, counts, .. } in self.store.call_totals().unwrap_or_default() {
            for (status, calls) in counts.iter() {
                let status = status.as_str();
                metrics::counter!("waybill_calls_total", "rule" => rule.clone(), "status" => status).absolute(calls);
            }
            let refused = counts.get(CallStatus::TooMany);
            metrics::counter!("waybill_refused_429_total", "rule" => rule).absolute(refused);
        }
    }
}
