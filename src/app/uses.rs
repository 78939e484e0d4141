//! When each API key was last used: noted in memory at each request, and stored once an hour and at a stop.
//!
//! A crash forgets the last hour. A dashboard or a monitor that asks every few seconds so causes 24 commits a day, and
//! no request waits for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Inner;
use crate::domain::clock::Millis;
use crate::store::StoreError;

/// Between two rounds of housekeeping.
const PAUSE: Duration = Duration::from_secs(60);
/// A stored time of a key that is in use may be this old.
const STORED_EVERY: Millis = 60 * 60 * 1000;

/// Under which name the store keeps a key's time.
fn name(key_id: &str) -> String {
    format!("used.{key_id}")
}

#[derive(Clone, Copy)]
struct Use {
    at: Millis,
    /// The time that is in the store; none: none of this process.
    stored: Option<Millis>,
}

/// Uses since the start, by the key's id.
#[derive(Default)]
pub(super) struct Uses(Mutex<HashMap<String, Use>>);

impl Uses {
    pub(super) fn note(&self, key_id: &str, at: Millis) {
        let mut uses = self.uses();
        match uses.get_mut(key_id) {
            Some(last) => last.at = at,
            None => drop(uses.insert(key_id.to_owned(), Use { at, stored: None })),
        }
    }

    pub(super) fn forget(&self, key_id: &str) {
        self.uses().remove(key_id);
    }

    fn last(&self, key_id: &str) -> Option<Millis> {
        self.uses().get(key_id).map(|last| last.at)
    }

    /// The uses whose stored time is older than they are by at least `age`.
    fn unstored(&self, age: Millis) -> Vec<(String, Millis)> {
        let is_old = |last: &Use| match last.stored {
            None => true,
            // A clock that was set back counts too.
            Some(stored) => last.at != stored && (last.at - stored).abs() >= age,
        };
        self.uses().iter().filter(|(_, last)| is_old(last)).map(|(id, last)| (id.clone(), last.at)).collect()
    }

    fn set_stored(&self, key_id: &str, at: Millis) {
        if let Some(last) = self.uses().get_mut(key_id) {
            last.stored = Some(at);
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<String, Use>> {
        // Each change is one assignment, so a poisoned lock holds sound data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// None: never, as far as is known.
    pub(super) fn last_used_at(&self, key_id: &str) -> Result<Option<Millis>, StoreError> {
        match self.uses.last(key_id) {
            Some(at) => Ok(Some(at)),
            None => self.store.kept_time(&name(key_id)),
        }
    }

    /// What is done once a minute, until the process ends.
    pub(super) async fn keep_house(self: Arc<Inner>) {
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {
                    self.keep_uses(STORED_EVERY).await;
                    if let Err(error) = self.store.forget_answers().await {
                        error.warn("answers that were kept for a day could not be removed; trying again later");
                    }
                }
            }
        }
    }

    /// Stores the uses whose stored time is older by at least `age`.
    pub(super) async fn keep_uses(&self, age: Millis) {
        for (key_id, at) in self.uses.unstored(age) {
            match self.store.keep_time(&name(&key_id), at).await {
                Ok(()) => self.uses.set_stored(&key_id, at),
                Err(error) => return error.warn("when keys were used could not be kept; trying again later"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{STORED_EVERY, Uses};

    #[test]
    fn a_key_in_use_is_stored_once_an_hour_and_at_a_stop() {
        let uses = Uses::default();
        let mut stored = Vec::new();
        // Two hours, with a request each second and a look each minute.
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
        assert_eq!(uses.unstored(0), [("a".to_owned(), 7_199_000)], "at a stop");
        uses.set_stored("a", 7_199_000);
        assert!(uses.unstored(0).is_empty());
        uses.note("a", 1);
        assert_eq!(uses.unstored(STORED_EVERY), [("a".to_owned(), 1)], "the clock was set back");
    }
}
