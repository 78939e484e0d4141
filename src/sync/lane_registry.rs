//! The lanes that exist, and their budgets. A lane starts when one of its queues gets work and ends when none has any,
//! so ten thousand shops are at most ten thousand sleeping lanes, not ten thousand workers.
//!
//! A budget outlives its lane until all its slots are free.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::lane::{Lane, LaneKey};
use crate::source::{Budget, BudgetView, SlotsLeft};
use crate::store::Queue;

/// A budget and the queues that wait for it, for the API and the dashboard.
#[derive(Clone, Debug)]
pub struct LaneView {
    pub key: LaneKey,
    pub budget: BudgetView,
    /// Free slots; none: the rule is lifted.
    pub available: Option<u32>,
    /// Queues that wait for its slots.
    pub queues: Vec<Queue>,
}

/// The lanes by key. A lane is added and removed under one lock.
#[derive(Default)]
pub(super) struct LaneRegistry(Mutex<Map>);

/// The lanes, and their budgets.
#[derive(Default)]
pub(super) struct Map {
    pub(super) lanes: BTreeMap<LaneKey, Arc<Lane>>,
    pub(super) budgets: BTreeMap<LaneKey, Arc<Mutex<Budget>>>,
}

impl LaneRegistry {
    pub(super) fn lock(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a lane without queues. Queues are added and lanes removed under one lock, so a lane
    /// never ends with work.
    pub(super) fn remove_if_empty(&self, lane: &Lane) -> bool {
        let mut map = self.lock();
        let empty = lane.lock_queues().is_empty();
        if empty {
            map.lanes.remove(&lane.key);
        }
        empty
    }

    /// The used slots of all budgets, as time left.
    pub(super) fn slots_left(&self) -> HashMap<LaneKey, SlotsLeft> {
        let now = Instant::now();
        let map = self.lock();
        let left = |budget: &Mutex<Budget>| budget.lock().unwrap_or_else(PoisonError::into_inner).left(now);
        map.budgets.iter().map(|(key, budget)| (key.clone(), left(budget))).collect()
    }

    pub(super) fn view(&self) -> Vec<LaneView> {
        let now = Instant::now();
        let map = self.lock();
        map.budgets
            .iter()
            .map(|(key, budget)| {
                let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
                let view = budget.view(now);
                let queues = map.lanes.get(key).map(|lane| lane.queues()).unwrap_or_default();
                let available = view.limit.map(|_| budget.free(now));
                LaneView { key: key.clone(), budget: view, available, queues }
            })
            .collect()
    }
}
