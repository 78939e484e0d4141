//! The plan: estimates the calls and the duration of the next walk, from earlier walks and the ledger. Makes no
//! call.
//!
//! Each pass of a walk counts: a first walk may need two ([`least_passes`]). Documents that are new or changed in the
//! marketplace since the last walk are unknown and not in the plan.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Service, ServiceError};
use crate::catalog::Definition;
use crate::domain::{Mode, Shop, ShopId, ShopState, StreamId, Timestamp, least_passes};
use crate::source::{Walk, news_since, stretches};
use crate::store::{ListedRows, StoreError};

/// The basis of a plan by the rows that were given.
pub const BASIS_GIVEN: &str = "the given rows";

/// Assumed page size if neither the definition nor an earlier walk gives it.
const PAGE_ROWS: u64 = 50;
/// Common names of the page size parameter.
const SIZE_PARAMETERS: [&str; 7] = ["page-size", "page_size", "pageSize", "per_page", "per-page", "limit", "size"];

/// Arguments of the plan.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub shop: Option<ShopId>,
    pub resource: Option<String>,
    pub full: bool,
    /// Number of rows of streams that were never walked.
    pub rows: AssumedRows,
}

/// Numbers of rows of streams that were never walked.
#[derive(Clone, Debug, Default)]
pub struct AssumedRows {
    /// For each stream that is not named.
    pub each: Option<u64>,
    /// By resource, or by resource and parameters as the plan shows them.
    pub of: BTreeMap<String, u64>,
}

impl AssumedRows {
    fn of(&self, stream: &StreamId) -> Option<u64> {
        let named = self.of.get(&stream_name(stream)).or_else(|| self.of.get(&stream.resource));
        named.copied().or(self.each)
    }
}

/// Name of a stream in the plan: resource and parameters.
pub fn stream_name(stream: &StreamId) -> String {
    format!("{} {}", stream.resource, stream.combination).trim().to_owned()
}

/// The calls of one stream's next walk.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    pub shop: String,
    pub stream: StreamId,
    pub mode: Mode,
    /// List calls; none: unknown, because there was no such walk and no number of rows is given.
    pub lists: Option<u64>,
    pub details: Option<u64>,
    /// Source of the numbers.
    pub basis: &'static str,
}

/// The calls of one budget.
#[derive(Clone, Debug)]
pub struct BudgetPlan {
    pub account: String,
    pub rule: String,
    pub limit: String,
    pub calls: u64,
    /// Estimated duration; zero: no rate limit.
    pub takes: Duration,
}

/// Estimate for all streams and budgets.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub streams: Vec<StreamPlan>,
    pub budgets: Vec<BudgetPlan>,
}

impl Service {
    /// Plans the next walk of the active shops, or of the named one.
    ///
    /// # Errors
    /// `NotFound`: no such shop. `Unavailable` when the store cannot be read.
    pub fn plan(&self, ask: &Ask) -> Result<Plan, ServiceError> {
        let mut shops = self.store.shops()?;
        match &ask.shop {
            Some(id) => shops.retain(|shop| shop.id == *id),
            None => shops.retain(|shop| shop.state == ShopState::Active),
        }
        if shops.is_empty() && ask.shop.is_some() {
            return Err(ServiceError::NotFound);
        }
        let mut plan = Plan::default();
        let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
        for shop in &shops {
            let wanted = |definition: &&Definition| ask.resource.as_ref().is_none_or(|name| *name == definition.name);
            for definition in self.definitions_of(shop).filter(wanted) {
                for stream in definition.streams(&shop.id) {
                    let planned = self.plan_stream(definition, shop, stream, ask)?;
                    let paths = [
                        (Some(&definition.list.path), planned.lists),
                        (definition.detail.as_ref().map(|detail| &detail.path), planned.details),
                    ];
                    for (path, count) in paths {
                        let rule = path.and_then(|path| self.engine.rules().find("GET", path));
                        if let (Some(rule), Some(count)) = (rule, count) {
                            *calls.entry((shop.account.clone(), rule.name.clone())).or_default() += count;
                        }
                    }
                    plan.streams.push(planned);
                }
            }
        }
        for ((account, name), calls) in calls {
            let limit = self.engine.rules().rules().iter().find(|rule| rule.name == name).and_then(|rule| rule.limit);
            let takes = limit.map_or(Duration::ZERO, |limit| {
                // The calls of a window may leave at once; the last window need not end.
                let windows = calls.saturating_sub(1) / u64::from(limit.calls);
                limit.rest() * u32::try_from(windows).unwrap_or(u32::MAX)
            });
            let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            plan.budgets.push(BudgetPlan { account, rule: name, limit, calls, takes });
        }
        Ok(plan)
    }
}

/// The calls of one walk of one stream.
struct WalkCalls {
    lists: Option<u64>,
    details: Option<u64>,
    basis: &'static str,
}

impl Service {
    fn plan_stream(
        &self,
        definition: &Definition,
        shop: &Shop,
        stream: StreamId,
        ask: &Ask,
    ) -> Result<StreamPlan, StoreError> {
        let first = self.store.checkpoint(&stream)?.full_walk_at.is_none();
        let mode = if ask.full || first { Mode::Full } else { Mode::Incremental };
        let rows = self.store.listed_rows(&stream)?;
        let WalkCalls { lists, details, basis } = if first {
            self.first_walk(definition, &stream, &ask.rows)?
        } else {
            self.later_walk(definition, &stream, mode, &rows)?
        };
        // Due refreshes come on top of the walk; a repeated full walk includes them.
        let due = if mode == Mode::Full && !first { 0 } else { rows.due };
        let details = details.map(|details| if definition.detail.is_some() { details + due } else { 0 });
        Ok(StreamPlan { shop: shop.name.clone(), stream, mode, lists, details, basis })
    }

    /// Plans a walk over a list that was never read completely.
    fn first_walk(
        &self,
        definition: &Definition,
        stream: &StreamId,
        asked: &AssumedRows,
    ) -> Result<WalkCalls, StoreError> {
        let unknown = |basis| WalkCalls { lists: None, details: None, basis };
        let Some(rows) = asked.of(stream) else {
            return Ok(unknown("never walked; give --rows"));
        };
        let Some(parents) = self.parents(definition, stream, asked)? else {
            return Ok(unknown("its parents are unknown; give their --rows too"));
        };
        let now = self.store.clock().now();
        let walk = Walk { mode: Mode::Full, started_at: now, since: None, parent: None };
        let pages = pages_of(definition, stream, rows, parents.saturating_mul(stretches(definition, walk)));
        let passes = least_passes(true, pages, rows);
        Ok(WalkCalls { lists: Some(pages * u64::from(passes)), details: Some(rows), basis: BASIS_GIVEN })
    }

    /// Number of lists of a stream, one per parent: 1 without a parent resource; none: unknown.
    fn parents(
        &self,
        definition: &Definition,
        stream: &StreamId,
        asked: &AssumedRows,
    ) -> Result<Option<u64>, StoreError> {
        let Some(parent) = &definition.parent else { return Ok(Some(1)) };
        let Some(parent) = self.definitions.iter().find(|one| one.name == *parent) else { return Ok(None) };
        let mut count = 0;
        for stream in parent.streams(&stream.shop) {
            let walked = self.store.checkpoint(&stream)?.full_walk_at.is_some();
            let known =
                if walked { Some(self.store.listed_rows(&stream)?.times.len() as u64) } else { asked.of(&stream) };
            let Some(known) = known else { return Ok(None) };
            count += known;
        }
        Ok(Some(count))
    }

    /// Plans a walk over a list that was read completely before.
    fn later_walk(
        &self,
        definition: &Definition,
        stream: &StreamId,
        mode: Mode,
        rows: &ListedRows,
    ) -> Result<WalkCalls, StoreError> {
        let costs = self.store.walk_costs(stream)?;
        let details = if mode == Mode::Full { rows.may_change } else { 0 };
        let calls = |lists, basis| WalkCalls { lists, details: Some(details), basis };
        let whole = || costs.full.map(|cost| cost.pages);
        if mode == Mode::Full {
            return Ok(calls(
                whole(),
                if costs.full.is_some() { "the pages of the last walk" } else { "its number of pages is unknown" },
            ));
        }
        if definition.newest_first(&stream.combination) {
            let size = costs.full.map_or(PAGE_ROWS, |cost| {
                let full_pages = cost.pages.saturating_sub(1).max(1);
                cost.listed.div_ceil(full_pages).max(PAGE_ROWS.min(cost.listed)).max(1)
            });
            let walked_at = self.store.checkpoint(stream)?.walked_at;
            let young_from = walked_at.map_or(Timestamp::MIN, |at| at - definition.list.overlap);
            let pages = pages_to_known(&rows.times, size, young_from);
            return Ok(calls(Some(pages), "the rows within the overlap"));
        }
        if definition.list.windows.is_some() || definition.list.recent.is_some() {
            if let Some(cost) = costs.incremental {
                return Ok(calls(Some(cost.pages), "the pages of the last walk"));
            }
            let now = self.store.clock().now();
            let walked = self.store.checkpoint(stream)?.until(now);
            let since = news_since(definition, &walked, now);
            let lists = stretches(definition, Walk { mode, started_at: now, since, parent: None });
            return Ok(calls(
                Some(lists + u64::from(definition.list.pages.style().ends_with_an_empty_page())),
                "the days since the last walk",
            ));
        }
        let pages = costs.incremental.map(|cost| cost.pages).or_else(whole);
        Ok(calls(pages, if pages.is_some() { "the pages of the last walk" } else { "its number of pages is unknown" }))
    }
}

/// Number of pages of one pass. Rows are assumed to be spread over all lists, with the last page of each half full.
fn pages_of(definition: &Definition, stream: &StreamId, rows: u64, lists: u64) -> u64 {
    let style = definition.list.pages.style();
    if style.is_one_page() {
        return lists;
    }
    let size = page_size(definition, stream);
    let pages = if lists > 1 { (rows.div_ceil(size) + lists / 2).max(rows.min(lists)) } else { rows.div_ceil(size) };
    if style.ends_with_an_empty_page() { pages + lists } else { pages.max(lists) }
}

fn page_size(definition: &Definition, stream: &StreamId) -> u64 {
    if let Some(size) = definition.list.pages.size() {
        return size.max(1);
    }
    let asked = stream.combination.0.iter().find(|(name, _)| SIZE_PARAMETERS.contains(&name.as_str()));
    asked.and_then(|(_, value)| value.parse().ok()).filter(|size| *size > 0).unwrap_or(PAGE_ROWS)
}

/// Number of pages from the newest row to the first page without a row younger than `young_from`, or to the empty page
/// at the end.
fn pages_to_known(times: &[Option<Timestamp>], size: u64, young_from: Timestamp) -> u64 {
    let mut times = times.to_vec();
    times.sort_by(|a, b| b.cmp(a));
    let young = if times.iter().all(Option::is_none) {
        times.len()
    } else {
        times.iter().filter(|time| time.is_some_and(|time| time > young_from)).count()
    };
    // Plus the page where the walk stops.
    (young as u64).div_ceil(size) + 1
}

#[cfg(test)]
mod tests {
    use super::pages_to_known;
    use crate::domain::Timestamp;

    #[test]
    fn an_incremental_walk_stops_at_the_first_page_without_a_young_row() {
        let times = |young: i64, old: i64| -> Vec<Option<Timestamp>> {
            (0..old).chain((0..young).map(|n| 1_000 + n)).map(|at| Some(Timestamp::from_millis(at))).collect()
        };
        let young_from = Timestamp::from_millis(999);
        let pages = |young, old| pages_to_known(&times(young, old), 50, young_from);
        assert_eq!([pages(0, 200), pages(1, 200), pages(50, 200), pages(51, 200)], [1, 2, 2, 3]);
        assert_eq!([pages(0, 0), pages(3, 0)], [1, 2], "with the empty page");
        assert_eq!(pages_to_known(&[None; 60], 50, young_from), 3, "of unknown age");
    }
}
