//! When a run will be done: its pages and its details, at the pace that the budgets allow.
//!
//! How many pages a walk reads is known from the last walk, from its own first pass, or from how far back in time it is.
//! Where nothing is known, there is no forecast.

use std::collections::BTreeMap;

use super::Inner;
use crate::catalog::Definition;
use crate::domain::clock::Millis;
use crate::domain::{Mode, Run, RunState, RunView};
use crate::store::StoreError;

/// Account and rule.
type BudgetKey = (String, String);

impl Inner {
    /// Runs with their forecast. Runs that wait for one budget are done when all of it is.
    pub(super) fn with_forecast(&self, runs: Vec<Run>) -> Result<Vec<RunView>, StoreError> {
        let mut accounts = BTreeMap::new();
        let mut waiting = Waiting::default();
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
                let pages_expected = if run.is_open() { self.pages_expected(&run)? } else { None };
                let forecast_at = self.forecast(&run, pages_expected, &waiting, &accounts);
                let waits_for = match (&waits, accounts.get(&run.stream.shop)) {
                    (Some(waits), Some(account)) => self.waits_for(waits, &run, account)?,
                    _ => None,
                };
                Ok(RunView { forecast_at, pages_expected, waits_for, run })
            })
            .collect()
    }

    fn add(&self, waiting: &mut Waiting, run: &Run, accounts: &BTreeMap<String, String>) -> Result<(), StoreError> {
        let Some((definition, account)) = self.whose(run, accounts) else { return Ok(()) };
        let mut details = run.pending();
        if run.state == RunState::Walking
            && let Some(expected) = self.pages_expected(run)?
        {
            if let Some(key) = self.budget_of(account, &definition.list.path) {
                *waiting.0.entry(key).or_default() += expected.saturating_sub(run.pages);
            }
            details += details_to_come(run, expected);
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
        waiting: &Waiting,
        accounts: &BTreeMap<String, String>,
    ) -> Option<Millis> {
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
                // Without a rule the walk goes on as fast as it went.
                let so_far = u64::try_from(now.saturating_sub(run.started_at)).unwrap_or(0);
                let at_pace = || so_far.saturating_mul(expected.saturating_sub(run.pages)) / run.pages.max(1);
                by_rule.unwrap_or_else(at_pace).max(details.unwrap_or(0))
            }
            _ => return None,
        };
        Some(now.saturating_add(i64::try_from(left).unwrap_or(i64::MAX)))
    }

    /// How long the calls that wait for a budget take; none: its rule is lifted.
    fn takes_ms(&self, waiting: &Waiting, key: &BudgetKey) -> Option<u64> {
        let rule = self.engine.rules().rules().iter().find(|rule| rule.name == key.1)?;
        let limit = rule.limit?;
        let windows = waiting.0.get(key).copied().unwrap_or(0).div_ceil(u64::from(limit.calls));
        Some(windows.saturating_mul(u64::try_from(limit.window.as_millis()).unwrap_or(u64::MAX)))
    }

    fn whose<'a>(&'a self, run: &Run, accounts: &'a BTreeMap<String, String>) -> Option<(&'a Definition, &'a str)> {
        let account = accounts.get(&run.stream.shop)?;
        let definition = self.definitions.iter().find(|definition| definition.name == run.stream.resource)?;
        Some((definition, account))
    }

    fn budget_of(&self, account: &str, path: &str) -> Option<BudgetKey> {
        Some((account.to_owned(), self.engine.rules().find("GET", path)?.name.clone()))
    }

    /// How many pages a walk reads in all, its passes together; none: not known yet.
    fn pages_expected(&self, run: &Run) -> Result<Option<u64>, StoreError> {
        if run.state != RunState::Walking {
            return Ok(None);
        }
        let costs = self.store.walk_costs(&run.stream)?;
        let is_first = self.store.checkpoint(&run.stream)?.full_walk_at.is_none();
        let last = match run.mode {
            Mode::Full => costs.full,
            Mode::Incremental => costs.incremental,
        };
        let number = u64::from(run.pass.number.max(1));
        let before = run.pages.saturating_sub(run.pass.pages);
        let a_pass = if number > 1 {
            Some(before / (number - 1))
        } else if let Some(last) = last {
            Some(last.pages)
        } else {
            self.by_age(run)
        };
        let passes = if is_first { number.max(2) } else { number };
        Ok(a_pass.map(|pages| before + pages.max(run.pass.pages) + pages * passes.saturating_sub(number)))
    }

    /// From how far back in time the pages have come, where the list shows the newest first and all of a known time.
    fn by_age(&self, run: &Run) -> Option<u64> {
        let definition = self.definitions.iter().find(|definition| definition.name == run.stream.resource)?;
        let history = i64::try_from(definition.list.history?.as_millis()).ok()?;
        if run.mode != Mode::Full || !definition.newest_first(&run.stream.combination) {
            return None;
        }
        let seen = self.store.clock().now().saturating_sub(run.pass.oldest?).clamp(1, history);
        Some((run.pass.pages as f64 * history as f64 / seen as f64).ceil() as u64)
    }
}

/// Details that the rest of a first pass will ask for, when its pages are like those before.
fn details_to_come(run: &Run, pages_expected: u64) -> u64 {
    if run.pass.number > 1 || run.pages == 0 {
        return 0;
    }
    // A first walk passes twice; the second pass asks for nothing.
    let a_pass = if run.new > 0 { pages_expected / 2 } else { pages_expected };
    run.to_fetch.saturating_mul(a_pass.saturating_sub(run.pages)) / run.pages
}

/// Calls that wait, by budget.
#[derive(Default)]
struct Waiting(BTreeMap<BudgetKey, u64>);
