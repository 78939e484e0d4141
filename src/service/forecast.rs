//! Estimates when a run will end: its remaining calls at the rate that the budgets allow.
//!
//! The number of pages comes from the last walk, from the first pass, or from how far back in time the walk is. Without
//! any of these there is no forecast.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Service;
use crate::catalog::Definition;
use crate::domain::{Mode, Run, RunState, RunView, ShopId, Timestamp, Wait, WaitReason, least_passes};
use crate::store::StoreError;

/// Account and rule.
type BudgetKey = (String, String);

impl Service {
    /// Adds forecasts to runs. Runs that share a budget end together, when all its calls are made.
    pub(super) fn with_forecast(&self, runs: Vec<Run>) -> Result<Vec<RunView>, StoreError> {
        let mut accounts = BTreeMap::new();
        let mut waiting = WaitingCalls::default();
        let mut waits = None;
        if runs.iter().any(Run::is_open) {
            waits = Some(self.waits()?);
            accounts.extend(self.store.shops()?.into_iter().map(|shop| (shop.id, shop.account)));
            for run in self.store.open_runs()? {
                self.add(&mut waiting, &run, &accounts)?;
            }
        }
        runs.into_iter()
            .map(|run| {
                let pages_expected = self.pages_expected(&run)?.map(|expected| expected.of_walk);
                let waits_for = match (&waits, accounts.get(&run.stream.shop)) {
                    (Some(waits), Some(account)) => self.waits_for(waits, &run, account)?,
                    _ => None,
                };
                let forecast_at = self.forecast(&run, pages_expected, &waiting, &accounts);
                let forecast_at = forecast_at.and_then(|at| after(waits_for.as_ref(), at, self.store.clock().now()));
                Ok(RunView { forecast_at, pages_expected, waits_for, run })
            })
            .collect()
    }

    fn add(
        &self,
        waiting: &mut WaitingCalls,
        run: &Run,
        accounts: &BTreeMap<ShopId, String>,
    ) -> Result<(), StoreError> {
        let Some((definition, account)) = self.whose(run, accounts) else { return Ok(()) };
        let mut details = run.pending();
        if run.state == RunState::Walking
            && let Some(expected) = self.pages_expected(run)?
        {
            if let Some(key) = self.budget_of(account, &definition.list.path) {
                *waiting.0.entry(key).or_default() += expected.of_walk.saturating_sub(run.pages);
            }
            // Further passes need no details.
            details += details_to_come(run, expected.of_pass);
        }
        if let Some(detail) = &definition.detail
            && let Some(key) = self.budget_of(account, &detail.path)
        {
            *waiting.0.entry(key).or_default() += details;
        }
        Ok(())
    }

    fn forecast(
        &self,
        run: &Run,
        pages_expected: Option<u64>,
        waiting: &WaitingCalls,
        accounts: &BTreeMap<ShopId, String>,
    ) -> Option<Timestamp> {
        let now = self.store.clock().now();
        let (definition, account) = self.whose(run, accounts)?;
        let details = definition.detail.as_ref().and_then(|detail| self.budget_of(account, &detail.path));
        let details = details.and_then(|key| self.takes_ms(waiting, &key));
        let left = match run.state {
            RunState::Fetching => details?,
            RunState::Walking => {
                let expected = pages_expected?;
                let by_rule =
                    self.budget_of(account, &definition.list.path).and_then(|key| self.takes_ms(waiting, &key));
                // Without a rate limit the walk continues at its past rate.
                let so_far = u64::try_from(now.since(run.started_at).as_millis()).unwrap_or(u64::MAX);
                let at_pace = || so_far.saturating_mul(expected.saturating_sub(run.pages)) / run.pages.max(1);
                by_rule.unwrap_or_else(at_pace).max(details.unwrap_or(0))
            }
            RunState::Done | RunState::Failed | RunState::Canceled | RunState::Unproved | RunState::Stopped => {
                return None;
            }
        };
        Some(now + Duration::from_millis(left))
    }

    /// How long the waiting calls of a budget take; none: no rate limit.
    fn takes_ms(&self, waiting: &WaitingCalls, key: &BudgetKey) -> Option<u64> {
        let rule = self.engine.rules().rules().iter().find(|rule| rule.name == key.1)?;
        let limit = rule.limit?;
        let windows = waiting.0.get(key).copied().unwrap_or(0).div_ceil(u64::from(limit.calls));
        Some(windows.saturating_mul(u64::try_from(limit.rest().as_millis()).unwrap_or(u64::MAX)))
    }

    fn whose<'a>(&'a self, run: &Run, accounts: &'a BTreeMap<ShopId, String>) -> Option<(&'a Definition, &'a str)> {
        let account = accounts.get(&run.stream.shop)?;
        let definition = self.definitions.iter().find(|definition| definition.name == run.stream.resource)?;
        Some((definition, account))
    }

    fn budget_of(&self, account: &str, path: &str) -> Option<BudgetKey> {
        Some((account.to_owned(), self.engine.rules().find("GET", path)?.name.clone()))
    }

    /// How many pages a walk reads; none: unknown yet, or it has ended.
    fn pages_expected(&self, run: &Run) -> Result<Option<ExpectedPages>, StoreError> {
        if run.state != RunState::Walking {
            return Ok(None);
        }
        let costs = self.store.walk_costs(&run.stream)?;
        let last = match run.mode {
            Mode::Full => costs.full,
            Mode::Incremental => costs.incremental,
        };
        let number = u64::from(run.pass.number.max(1));
        let before = run.pages.saturating_sub(run.pass.pages);
        let of_pass = if number > 1 {
            Some(before / (number - 1))
        } else if let Some(last) = last {
            Some(last.pages)
        } else {
            self.by_age(run)
        };
        let Some(of_pass) = of_pass else { return Ok(None) };
        let is_first_walk = self.store.checkpoint(&run.stream)?.full_walk_at.is_none();
        let passes = u64::from(least_passes(is_first_walk, of_pass, run.listed));
        let of_walk = before + of_pass.max(run.pass.pages) + of_pass * passes.saturating_sub(number);
        Ok(Some(ExpectedPages { of_pass, of_walk }))
    }

    /// Estimates the pages of a pass by time, for a list with the newest rows first and a known history.
    fn by_age(&self, run: &Run) -> Option<u64> {
        let definition = self.definitions.iter().find(|definition| definition.name == run.stream.resource)?;
        let history = definition.list.history?;
        if run.mode != Mode::Full || !definition.newest_first(&run.stream.combination) {
            return None;
        }
        let seen = self.store.clock().now().since(run.pass.oldest?).clamp(Duration::from_millis(1), history);
        Some((run.pass.pages as f64 * history.as_millis() as f64 / seen.as_millis() as f64).ceil() as u64)
    }
}

/// A forecast that considers what the run waits for: none while calls fail or the sink is full, later by a pause that the
/// API asked for.
fn after(wait: Option<&Wait>, forecast_at: Timestamp, now: Timestamp) -> Option<Timestamp> {
    match wait.map(|wait| (wait.reason, wait.until)) {
        Some((WaitReason::Api | WaitReason::Sink, _)) => None,
        Some((WaitReason::RetryAfter, until)) => Some(forecast_at + until.unwrap_or(now).since(now)),
        Some((WaitReason::RateLimit, _)) | None => Some(forecast_at),
    }
}

/// Detail calls of the rest of a first pass, extrapolated from its pages so far.
fn details_to_come(run: &Run, a_pass: u64) -> u64 {
    if run.pass.number > 1 || run.pages == 0 {
        return 0;
    }
    run.to_fetch.saturating_mul(a_pass.saturating_sub(run.pages)) / run.pages
}

/// Estimated number of pages.
struct ExpectedPages {
    of_pass: u64,
    /// Over all passes.
    of_walk: u64,
}

/// Waiting calls by budget.
#[derive(Default)]
struct WaitingCalls(BTreeMap<BudgetKey, u64>);
