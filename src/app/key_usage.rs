//! When each API key was last used: recorded in memory per request, stored once an hour and at shutdown.
//!
//! A crash loses the last hour. A dashboard that polls every few seconds thus causes 24 commits a day, and no request
//! waits for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Inner;
use crate::domain::clock::Millis;
use crate::store::StoreError;
use crate::sync::schedule::Work;

/// Most age of a stored time, in milliseconds, while the key is in use.
const STORED_EVERY: Millis = 60 * 60 * 1000;

/// Name of the stored time of a key.
fn name(key_id: &str) -> String {
    format!("used.{key_id}")
}

#[derive(Clone, Copy)]
struct Use {
    at: Millis,
    /// The time that this process stored last.
    stored: Option<Millis>,
}

/// Last use of each key since the start, by key id.
#[derive(Default)]
pub(super) struct KeyUsage(Mutex<HashMap<String, Use>>);

impl KeyUsage {
    pub(super) fn note(&self, key_id: &str, at: Millis) {
        let mut uses = self.entries();
        match uses.get_mut(key_id) {
            Some(last) => last.at = at,
            None => drop(uses.insert(key_id.to_owned(), Use { at, stored: None })),
        }
    }

    pub(super) fn forget(&self, key_id: &str) {
        self.entries().remove(key_id);
    }

    fn last(&self, key_id: &str) -> Option<Millis> {
        self.entries().get(key_id).map(|last| last.at)
    }

    /// Keys whose stored time is at least `age` milliseconds behind their last use.
    fn unstored(&self, age: Millis) -> Vec<(String, Millis)> {
        let is_old = |last: &Use| match last.stored {
            None => true,
            // `abs`: the clock may have been set back.
            Some(stored) => last.at != stored && (last.at - stored).abs() >= age,
        };
        self.entries().iter().filter(|(_, last)| is_old(last)).map(|(id, last)| (id.clone(), last.at)).collect()
    }

    fn set_stored(&self, key_id: &str, at: Millis) {
        if let Some(last) = self.entries().get_mut(key_id) {
            last.stored = Some(at);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        // Each change is one assignment, so a poisoned lock holds sound data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// When a key was last used; none: never, as far as is known.
    pub(super) fn last_used_at(&self, key_id: &str) -> Result<Option<Millis>, StoreError> {
        match self.key_usage.last(key_id) {
            Some(at) => Ok(Some(at)),
            None => self.store.saved_time(&name(key_id)),
        }
    }

    /// Cleans up, once a minute. What it looks for is old by the wall clock, so it may pause while that is set back.
    pub(super) fn housekeeping(self: &Arc<Inner>) -> Work {
        let (inner, supervisor) = (Arc::downgrade(self), self.store.supervisor().clone());
        Box::new(move || {
            // Weak, because the scheduler drops its jobs late.
            let cleanup = inner.upgrade().map(|inner| async move { inner.clean_up().await });
            let work = supervisor.supervise("housekeeping", async {
                if let Some(cleanup) = cleanup {
                    cleanup.await;
                }
            });
            Box::pin(work)
        })
    }

    async fn clean_up(&self) {
        self.store_key_usage(STORED_EVERY).await;
        if let Err(error) = self.store.forget_answers().await {
            error.warn("failed to remove expired responses of requests with an Idempotency-Key; trying again later");
        }
    }

    /// Stores the last use of keys whose stored time is at least `age` milliseconds behind.
    pub(super) async fn store_key_usage(&self, age: Millis) {
        for (key_id, at) in self.key_usage.unstored(age) {
            match self.store.save_time(&name(&key_id), at).await {
                Ok(()) => self.key_usage.set_stored(&key_id, at),
                Err(error) => return error.warn("failed to store when api keys were used; trying again later"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyUsage, STORED_EVERY};

    #[test]
    fn the_last_use_of_a_key_is_stored_once_an_hour_and_at_shutdown() {
        let uses = KeyUsage::default();
        let mut stored = Vec::new();
        // Two hours with a request per second and housekeeping per minute.
        for second in 0..7_200 {
            uses.note("a", second * 1000);
            if second % 60 == 59 {
                for (key, at) in uses.unstored(STORED_EVERY) {
                    uses.set_stored(&key, at);
                    stored.push(at / 1000);
                }
            }
        }
        assert_eq!(stored, [59, 3_659]);
        assert_eq!(uses.unstored(0), [("a".to_owned(), 7_199_000)], "at shutdown");
        uses.set_stored("a", 7_199_000);
        assert!(uses.unstored(0).is_empty());
        uses.note("a", 1);
        assert_eq!(uses.unstored(STORED_EVERY), [("a".to_owned(), 1)], "the clock was set back");
    }
}
