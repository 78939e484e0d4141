//! Calls that were counted and that no commit holds yet.
//!
//! Kept in memory by the handle; the next settlement writes them (`records::call_counts`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::calls::CallCounts;

/// Calls that no commit holds yet, by rule.
pub(crate) type Calls = BTreeMap<String, CallCounts>;

/// Where they wait for the next commit.
#[derive(Default)]
pub(crate) struct UncommittedCalls(Mutex<Calls>);

impl UncommittedCalls {
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Calls) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn take(&self) -> Calls {
        self.with(std::mem::take)
    }

    /// Returns calls whose commit was refused.
    pub(crate) fn put_back(&self, calls: Calls) {
        self.with(|waiting| {
            for (rule, counts) in calls {
                waiting.entry(rule).or_default().merge(&counts);
            }
        });
    }
}
