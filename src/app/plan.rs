//! `waybill plan`: which calls the next walk would make, and how long they take. From what earlier walks came to; makes
//! no call itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::App;
use crate::catalog::Definition;
use crate::catalog::definition::{Pages, Span};
use crate::domain::{Mode, Run, RunState, Shop, ShopState, StreamId};

/// Runs looked through for the last walks of the streams.
const RUNS_LOOKED: usize = 20_000;
/// Rows of a page, where the definition does not say it.
const PAGE_ROWS: u64 = 50;

/// What to plan.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub shop: Option<String>,
    pub resource: Option<String>,
    pub full: bool,
    /// Rows of a stream that was never walked.
    pub rows: Option<u64>,
}

/// The calls of one stream's next walk.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    pub shop: String,
    pub stream: StreamId,
    pub mode: Mode,
    /// None: it was never walked so, and nobody said how much there is.
    pub lists: Option<u64>,
    pub details: Option<u64>,
    /// Where the numbers come from.
    pub basis: &'static str,
}

/// The calls that share one budget.
#[derive(Clone, Debug)]
pub struct BudgetPlan {
    pub account: String,
    pub rule: String,
    pub limit: String,
    pub calls: u64,
    /// Zero: the rule is lifted.
    pub takes: Duration,
}

/// The whole plan.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub streams: Vec<StreamPlan>,
    pub budgets: Vec<BudgetPlan>,
}

impl App {
    /// Plans the next walk of the shops that are active, or of the one that is named.
    ///
    /// # Errors
    /// The store's read errors; a shop that is not there.
    pub fn plan(&self, ask: &Ask) -> anyhow::Result<Plan> {
        let inner = &self.inner;
        let mut shops = inner.store.shops()?;
        match &ask.shop {
            Some(id) => shops.retain(|shop| shop.id == *id),
            None => shops.retain(|shop| shop.state == ShopState::Active),
        }
        if let (true, Some(id)) = (shops.is_empty(), &ask.shop) {
            anyhow::bail!(super::NoSuchShop(id.to_owned()));
        }
        let walked = |run: &Run| matches!(run.state, RunState::Done | RunState::Fetching);
        let runs = inner.store.runs(None, RUNS_LOOKED, walked)?;
        let mut plan = Plan::default();
        let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
        for shop in &shops {
            let wanted = |definition: &&Definition| ask.resource.as_ref().is_none_or(|name| *name == definition.name);
            for definition in inner.definitions_of(shop).filter(wanted) {
                for stream in definition.streams(&shop.id) {
                    let first = inner.store.checkpoint(&stream)?.full_walk_at.is_none();
                    let mode = if ask.full || first { Mode::Full } else { Mode::Incremental };
                    let last = runs.iter().find(|run| run.stream == stream && run.mode == mode);
                    let known = Known { first, last, rows: ask.rows };
                    let planned = plan_stream(definition, shop, (stream, mode), &known);
                    let paths = [
                        (Some(&definition.list.path), planned.lists),
                        (definition.detail.as_ref().map(|detail| &detail.path), planned.details),
                    ];
                    for (path, count) in paths {
                        let rule = path.and_then(|path| inner.engine.rules().find("GET", path));
                        if let (Some(rule), Some(count)) = (rule, count) {
                            *calls.entry((shop.account.clone(), rule.name.clone())).or_default() += count;
                        }
                    }
                    plan.streams.push(planned);
                }
            }
        }
        for ((account, name), calls) in calls {
            let limit = inner.engine.rules().rules().iter().find(|rule| rule.name == name).and_then(|rule| rule.limit);
            let takes = limit.map_or(Duration::ZERO, |limit| {
                // A whole window's calls may leave at once; the last ones need not wait for theirs to end.
                let windows = calls.saturating_sub(1) / u64::from(limit.calls);
                limit.window * u32::try_from(windows).unwrap_or(u32::MAX)
            });
            let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            plan.budgets.push(BudgetPlan { account, rule: name, limit, calls, takes });
        }
        Ok(plan)
    }
}

/// What there is to plan a stream by.
struct Known<'a> {
    /// It was never walked whole.
    first: bool,
    /// Its last walk of the kind that comes next.
    last: Option<&'a Run>,
    rows: Option<u64>,
}

fn plan_stream(
    definition: &Definition,
    shop: &Shop,
    (stream, mode): (StreamId, Mode),
    known: &Known<'_>,
) -> StreamPlan {
    let has_detail = definition.detail.is_some();
    let details = |count: u64| if has_detail { count } else { 0 };
    let (lists, found, basis) = match (known.last, known.rows) {
        (Some(run), _) => (Some(run.pages), Some(details(run.to_fetch)), "the last such walk"),
        (None, Some(rows)) => (Some(lists_of(definition, rows)), Some(details(rows)), "the rows that were given"),
        (None, None) if definition.list.windows.is_some() && mode == Mode::Full => {
            (Some(lists_of(definition, 0)), None, "the days; rows are not known")
        }
        (None, None) => {
            let basis = match (known.first, mode) {
                (true, _) => "never walked; give --rows",
                (false, Mode::Full) => "its whole walk is too long ago; give --rows",
                (false, Mode::Incremental) => "walked whole, not for news yet; give --rows",
            };
            (None, if has_detail { None } else { Some(0) }, basis)
        }
    };
    StreamPlan { shop: shop.name.clone(), stream, mode, lists, details: found, basis }
}

/// List calls of a whole walk over so many rows.
fn lists_of(definition: &Definition, rows: u64) -> u64 {
    let size = if let Pages::Offset { size, .. } = definition.list.pages { size.max(1) } else { PAGE_ROWS };
    let windows = definition.list.windows.as_ref().map_or(1, |windows| {
        let days = match windows.span {
            Span::Day { .. } => 1,
            Span::Days { days, .. } => days.max(1),
        };
        u64::from(windows.reach_days + 1).div_ceil(u64::from(days))
    });
    // Such a list ends with an empty page, in each stretch of days.
    let ends = match definition.list.pages {
        Pages::Number { .. } | Pages::Offset { .. } => windows,
        _ => 0,
    };
    match definition.list.pages {
        Pages::None => windows,
        _ => rows.div_ceil(size).max(windows.min(rows)) + ends,
    }
}
