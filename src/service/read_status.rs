//! Reads the status of the installation, whether it is idle, and the counts of calls for the metrics.

use std::cmp::Reverse;
use std::collections::HashMap;
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
/// Records of the outbox that are searched for those of some shops; a longer one counts as having some.
const OUTBOX_RECORDS_MAX: usize = 200;

/// How much there is to do.
#[derive(Default)]
struct WorkCounts {
    is_idle: bool,
    open_runs: u64,
    pending_jobs: u64,
    leased_jobs: u64,
    parked: u64,
}

impl Service {
    /// The status of the installation; with `of`, of these shops only, without numbers that count all shops together.
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
        let work = match of {
            None => self.work_of_all(&counters)?,
            Some(part) => self.work_of(part)?,
        };
        // The error names users and hosts, which a restricted key must not see.
        let shown = error.as_ref().map(|error| match of {
            None => error.clone(),
            Some(_) => "the database accepts no documents now".to_owned(),
        });
        // Calls are counted by rule, for all shops together.
        let totals = if of.is_none() { self.store.call_totals()? } else { Vec::new() };
        let calls_since = totals.iter().map(|total| total.since).min();
        let (logins, calls): (Vec<_>, Vec<_>) = totals.into_iter().partition(|total| total.rule == LOGIN_RULE);
        let for_all = |count: u64| of.is_none().then_some(count);
        let (budgets, budgets_left_out) = self.budgets(of)?;
        Ok(Status {
            idle: work.is_idle,
            open_runs: work.open_runs,
            pending_jobs: work.pending_jobs,
            waiting_jobs: for_all(counters.waiting_jobs),
            leased_jobs: work.leased_jobs,
            outbox: for_all(counters.outbox),
            outbox_bytes: for_all(counters.outbox_bytes),
            parked: work.parked,
            calls: for_all(calls.iter().map(|total| total.counts.total()).sum()),
            refused_429: for_all(calls.iter().map(|total| total.counts.get(CallStatus::TooMany)).sum()),
            logins: for_all(logins.iter().map(|total| total.counts.total()).sum()),
            calls_since,
            budgets,
            budgets_left_out,
            sink: SinkStatus {
                kind: self.sink.kind().to_owned(),
                healthy: error.is_none(),
                error: shown,
                indexing: self.store.unindexed_resources()?,
            },
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

    fn work_of_all(&self, counters: &Counters) -> Result<WorkCounts, StoreError> {
        Ok(WorkCounts {
            // From the same counters, so that an idle status is consistent.
            is_idle: self.is_idle_by(counters)?,
            open_runs: counters.open_runs,
            pending_jobs: counters.ready_jobs.saturating_sub(counters.leased_jobs) + counters.retrying_jobs,
            leased_jobs: counters.leased_jobs,
            parked: counters.parked,
        })
    }

    /// The work of some shops: nothing in it depends on other shops.
    fn work_of(&self, part: &StatusScope) -> Result<WorkCounts, StoreError> {
        let mut work = WorkCounts::default();
        let mut is_active = false;
        let shops = self.store.shops()?;
        let own: HashMap<&str, &Shop> =
            shops.iter().filter(|shop| part.shops.contains(&shop.id)).map(|shop| (shop.id.as_str(), shop)).collect();
        let may_run = |shop: &Shop, resource: &str| {
            shop.state == ShopState::Active && shop.syncs(resource) && self.definition(resource).is_some()
        };
        for run in self.store.open_runs()?.iter().filter(|run| run.is_open()) {
            let Some(&shop) = own.get(run.stream.shop.as_str()) else { continue };
            work.open_runs += 1;
            is_active |= may_run(shop, &run.stream.resource);
        }
        for &shop in own.values() {
            work.parked += self.store.parked_of(&shop.id)?;
            for resource in self.store.resources_with_jobs(&shop.id)? {
                for queue in Queue::all_of(&shop.id, &resource) {
                    let (ready, leased) = self.store.count_jobs_and_leases(&queue, COUNTED_MAX)?;
                    work.pending_jobs += ready.saturating_sub(leased) as u64;
                    work.leased_jobs += leased as u64;
                    is_active |= ready > 0 && may_run(shop, &resource);
                }
            }
        }
        let is_busy = is_active || self.is_moving_archive() || self.is_checking_sink();
        work.is_idle = !is_busy && !self.store.outbox_has_documents_of(&part.shops, OUTBOX_RECORDS_MAX)?;
        Ok(work)
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
    fn budgets(&self, of: Option<&StatusScope>) -> Result<(Vec<BudgetStatus>, u64), StoreError> {
        let mut lanes = self.engine.lanes();
        lanes.retain(|lane| of.is_none_or(|part| part.accounts.contains(&lane.key.account)));
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
                // Other shops may use the account too.
                for queue in lane.queues.iter().filter(|queue| of.is_none_or(|part| part.shops.contains(&queue.shop))) {
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
