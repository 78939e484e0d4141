//! A lane: the jobs that share one budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::{Shop, ShopState};
use crate::source::Budget;
use crate::store::{Queue, Store, StoreError};

/// The account and the rule of a budget.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    pub account: String,
    pub rule: String,
}

/// One lane: shared by its loop and the registry.
pub(super) struct Lane {
    pub(super) key: LaneKey,
    pub(super) wake: Notify,
    budget: Arc<Mutex<Budget>>,
    /// Mostly one: a small list takes less memory than a set.
    queues: Mutex<Vec<Queue>>,
}

impl Lane {
    /// A lane with one queue.
    pub(super) fn new(key: LaneKey, budget: Arc<Mutex<Budget>>, queue: Queue) -> Lane {
        Lane { key, wake: Notify::new(), budget, queues: Mutex::new(vec![queue]) }
    }

    pub(super) fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn queues(&self) -> Vec<Queue> {
        self.lock_queues().clone()
    }

    pub(super) fn has_queues(&self) -> bool {
        !self.lock_queues().is_empty()
    }

    /// Adds a queue that got work, and wakes the lane.
    pub(super) fn open(&self, queue: Queue) {
        let mut open = self.lock_queues();
        if !open.contains(&queue) {
            open.push(queue);
        }
        drop(open);
        self.wake.notify_one();
    }

    /// Removes a queue whose shop does not belong to this lane now; a signal adds it again. Checks again under the lock:
    /// the shop may have come back since the lane looked, and its signal is used up.
    pub(super) fn close(&self, store: &Store, queue: &Queue) -> Result<(), StoreError> {
        let mut open = self.lock_queues();
        if !store.shop(&queue.shop)?.is_some_and(|shop| self.is_for(&shop, queue)) {
            open.retain(|known| known != queue);
        }
        Ok(())
    }

    /// Whether a shop's jobs of a queue may run here: it is active, syncs the resource, and this is its account's lane.
    pub(super) fn is_for(&self, shop: &Shop, queue: &Queue) -> bool {
        shop.state == ShopState::Active && shop.syncs(&queue.resource) && shop.account == self.key.account
    }

    /// Removes queues without jobs. Work that arrives meanwhile raises a signal, which adds its queue
    /// again, so no job is missed.
    pub(super) fn close_empty(&self, store: &Store, queues: &[Queue]) -> Result<(), StoreError> {
        for queue in queues {
            let mut open = self.lock_queues();
            if !store.has_jobs(queue)? {
                open.retain(|known| known != queue);
            }
        }
        Ok(())
    }

    pub(super) fn lock_queues(&self) -> MutexGuard<'_, Vec<Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
