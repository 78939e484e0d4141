//! Wakes lanes when one of their queues gets work, and drops budgets that are idle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::inner::Inner;
use super::lane::{Lane, LaneKey};
use super::lane_loop;
use crate::domain::{CallKind, Shop, ShopState};
use crate::source::Budget;
use crate::store::{Queue, StoreError};

/// Interval between searches for idle budgets.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Budgets that were handed over are of use for as long as the longest window. Later ones are in the store.
const HANDED_FOR: Duration = Duration::from_secs(7200);

/// Wakes the lanes of queues that transactions added jobs to.
pub(super) async fn listen(inner: Arc<Inner>, mut queues: mpsc::UnboundedReceiver<Queue>) {
    loop {
        let queue = tokio::select! {
            () = inner.stop.cancelled() => return,
            queue = queues.recv() => queue,
        };
        let Some(queue) = queue else { return };
        match inner.deps.store.shop(&queue.shop) {
            Ok(Some(shop)) => wake(&inner, &shop, queue),
            Ok(None) => {}
            Err(error) => error.warn("failed to read a shop; its jobs wait for the next signal"),
        }
    }
}

/// Wakes the lanes of all jobs, at start.
pub(super) fn wake_all(inner: &Arc<Inner>) -> Result<(), StoreError> {
    for shop in inner.deps.store.shops()? {
        find_work(inner, &shop)?;
    }
    Ok(())
}

/// Wakes the lanes of one shop, and removes its queues from those of the account that it no longer uses. Calls made
/// there count in the new account's budgets, as the API still counts them.
pub(super) fn wake_shop(inner: &Arc<Inner>, shop: &Shop, account: &str) -> Result<(), StoreError> {
    if account != shop.account {
        let (now, map) = (Instant::now(), inner.lanes.lock());
        for (_, lane) in of(&map.lanes, account) {
            lane.lock_queues().retain(|queue| queue.shop != shop.id);
        }
        for (LaneKey { rule, .. }, old) in of(&map.budgets, account) {
            // A budget that is not in use yet is read from the store, where both are added up already.
            let new = map.budgets.get(&LaneKey { account: shop.account.clone(), rule: rule.clone() });
            if let Some(new) = new {
                // No deadlock between opposite changes: each holds the map's lock.
                let old = old.lock().unwrap_or_else(PoisonError::into_inner);
                new.lock().unwrap_or_else(PoisonError::into_inner).merge_from(&old, now);
            }
        }
    }
    find_work(inner, shop)
}

/// The entries of an account.
fn of<'a, T>(map: &'a BTreeMap<LaneKey, T>, account: &'a str) -> impl Iterator<Item = (&'a LaneKey, &'a T)> {
    let first = LaneKey { account: account.to_owned(), rule: String::new() };
    map.range(first..).take_while(move |(key, _)| key.account == account)
}

/// Wakes the lane of each queue of a shop that has jobs.
fn find_work(inner: &Arc<Inner>, shop: &Shop) -> Result<(), StoreError> {
    for definition in &inner.deps.definitions {
        for queue in Queue::all_of(&shop.id, &definition.name) {
            if inner.deps.store.has_jobs(&queue)? {
                wake(inner, shop, queue);
            }
        }
    }
    Ok(())
}

/// Adds a queue to its lane, which is started if necessary.
fn wake(inner: &Arc<Inner>, shop: &Shop, queue: Queue) {
    let is_wanted = shop.syncs(&queue.resource) && inner.deps.only.takes(&shop.id, &queue.resource);
    if shop.state != ShopState::Active || !is_wanted || inner.stop.is_cancelled() {
        return;
    }
    let Some(key) = lane_of(inner, shop, &queue) else {
        tracing::warn!(resource = queue.resource, "jobs of a resource that is not configured are not run");
        return;
    };
    let mut map = inner.lanes.lock();
    if let Some(lane) = map.lanes.get(&key) {
        return lane.open(queue);
    }
    let budget = match map.budgets.get(&key) {
        Some(budget) => Arc::clone(budget),
        None => {
            let budget = match stored_budget(inner, &key) {
                Ok(budget) => Arc::new(Mutex::new(budget)),
                Err(error) => return error.warn("failed to read a budget; its lane stays closed"),
            };
            map.budgets.insert(key.clone(), Arc::clone(&budget));
            budget
        }
    };
    let lane = Arc::new(Lane::new(key.clone(), budget, queue));
    map.lanes.insert(key, Arc::clone(&lane));
    inner.spawn("a lane", lane_loop::run(Arc::clone(inner), lane));
}

/// A budget as the last process left it.
fn stored_budget(inner: &Inner, key: &LaneKey) -> Result<Budget, StoreError> {
    let LaneKey { account, rule } = key;
    let (store, now) = (&inner.deps.store, Instant::now());
    let limit = inner.deps.rules.rules().iter().find(|known| known.name == *rule).and_then(|rule| rule.limit);
    if let Some(handed) = &inner.deps.handed
        && let Some(left) = handed.budgets.get(key)
        && handed.received.elapsed() < HANDED_FOR
    {
        return Ok(Budget::handed(limit, left, handed.received));
    }
    Ok(Budget::restored(limit, store.occupied(account, rule)?, store.pause_left(account, rule)?, now))
}

fn lane_of(inner: &Inner, shop: &Shop, queue: &Queue) -> Option<LaneKey> {
    let definition = inner.definition(&queue.resource)?;
    let path = match queue.kind {
        CallKind::List => &definition.list.path,
        CallKind::Detail => &definition.detail.as_ref()?.path,
    };
    let rule = inner.deps.rules.find("GET", path)?.name.clone();
    Some(LaneKey { account: shop.account.clone(), rule })
}

/// Drops budgets without a used slot and without a lane, here and in the store.
pub(super) async fn drop_idle_budgets(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        let now = Instant::now();
        let idle: Vec<LaneKey> = {
            let mut map = inner.lanes.lock();
            let free = |budget: &Mutex<Budget>| {
                let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
                budget.occupied(now) == 0 && budget.view(now).blocked_for_ms == 0
            };
            let idle: Vec<LaneKey> = map
                .budgets
                .iter()
                .filter(|(key, budget)| !map.lanes.contains_key(key) && free(budget))
                .map(|(key, _)| key.clone())
                .collect();
            for key in &idle {
                map.budgets.remove(key);
            }
            idle
        };
        for key in idle {
            let (asked, gone) = (key.clone(), Arc::clone(&inner));
            // A lane that started meanwhile has its budget in the map; its stored slots must stay.
            let idle = move || !gone.lanes.lock().budgets.contains_key(&asked);
            if let Err(error) = inner.deps.store.forget_occupied(&key.account, &key.rule, idle).await {
                error.warn(
                    "failed to delete the stored slots of an idle budget; the next start waits one window for them",
                );
            }
        }
    }
}
