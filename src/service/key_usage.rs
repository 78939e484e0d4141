//! When each API key was last used: recorded in memory per request, stored once an hour and at shutdown.
//!
//! A crash loses the last hour. A dashboard that polls every few seconds thus causes 24 commits a day, and no request
//! waits for one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::clock::Millis;

/// Most age of a stored time, in milliseconds, while the key is in use.
pub(super) const STORED_EVERY: Millis = 60 * 60 * 1000;

/// Name of the stored time of a key.
pub(super) fn stored_name(key_id: &str) -> String {
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

    pub(super) fn last(&self, key_id: &str) -> Option<Millis> {
        self.entries().get(key_id).map(|last| last.at)
    }

    /// Keys whose stored time is at least `age` milliseconds behind their last use.
    pub(super) fn unstored(&self, age: Millis) -> Vec<(String, Millis)> {
        let is_old = |last: &Use| match last.stored {
            None => true,
            // `abs`: the clock may have been set back.
            Some(stored) => last.at != stored && (last.at - stored).abs() >= age,
        };
        self.entries().iter().filter(|(_, last)| is_old(last)).map(|(id, last)| (id.clone(), last.at)).collect()
    }

    pub(super) fn set_stored(&self, key_id: &str, at: Millis) {
        if let Some(last) = self.entries().get_mut(key_id) {
            last.stored = Some(at);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        // Each change is one assignment, so a poisoned lock holds sound data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
