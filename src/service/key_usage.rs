//! When each API key was last used: recorded in memory per request, stored once an hour and at shutdown.
//!
//! A crash loses the last hour. A dashboard that polls every few seconds thus causes 24 commits a day, and no request
//! waits for one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::Timestamp;

/// Most age of a stored time while the key is in use.
pub(super) const STORED_EVERY: Duration = Duration::from_secs(60 * 60);

/// Name of the stored time of a key.
pub(super) fn stored_name(key_id: &str) -> String {
    format!("used.{key_id}")
}

#[derive(Clone, Copy)]
struct Use {
    at: Timestamp,
    /// The time that this process stored last.
    stored: Option<Timestamp>,
}

/// Last use of each key since the start, by key id.
#[derive(Default)]
pub(super) struct KeyUsage(Mutex<HashMap<String, Use>>);

impl KeyUsage {
    pub(super) fn note(&self, key_id: &str, at: Timestamp) {
        let mut uses = self.entries();
        match uses.get_mut(key_id) {
            Some(last) => last.at = at,
            None => drop(uses.insert(key_id.to_owned(), Use { at, stored: None })),
        }
    }

    pub(super) fn forget(&self, key_id: &str) {
        self.entries().remove(key_id);
    }

    pub(super) fn last(&self, key_id: &str) -> Option<Timestamp> {
        self.entries().get(key_id).map(|last| last.at)
    }

    /// Keys whose stored time is at least `age` behind their last use.
    pub(super) fn unstored(&self, age: Duration) -> Vec<(String, Timestamp)> {
        let is_old = |last: &Use| match last.stored {
            None => true,
            // The clock may have been set back.
            Some(stored) => last.at != stored && last.at.abs_diff(stored) >= age,
        };
        self.entries().iter().filter(|(_, last)| is_old(last)).map(|(id, last)| (id.clone(), last.at)).collect()
    }

    pub(super) fn set_stored(&self, key_id: &str, at: Timestamp) {
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
    use std::time::Duration;

    use super::{KeyUsage, STORED_EVERY};
    use crate::domain::Timestamp;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_last_use_of_a_key_is_stored_once_an_hour_and_at_shutdown() {
        let uses = KeyUsage::default();
        let mut stored = Vec::new();
        // Two hours with a request per second and housekeeping per minute.
        for second in 0..7_200 {
            uses.note("a", at(second));
            if second % 60 == 59 {
                for (key, time) in uses.unstored(STORED_EVERY) {
                    uses.set_stored(&key, time);
                    stored.push(time);
                }
            }
        }
        assert_eq!(stored, [at(59), at(3_659)]);
        assert_eq!(uses.unstored(Duration::ZERO), [("a".to_owned(), at(7_199))], "at shutdown");
        uses.set_stored("a", at(7_199));
        assert!(uses.unstored(Duration::ZERO).is_empty());
        uses.note("a", at(1));
        assert_eq!(uses.unstored(STORED_EVERY), [("a".to_owned(), at(1))], "the clock was set back");
    }
}
