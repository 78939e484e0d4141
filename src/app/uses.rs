//! When each API key was last used: noted in memory at each request, put into the store once a minute and at a stop.
//!
//! A crash forgets the last minute. The request itself waits for none of this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Inner;
use crate::domain::clock::Millis;
use crate::store::StoreError;

/// Between two times that the uses are put into the store.
const PAUSE: Duration = Duration::from_secs(60);

/// Under which name the store keeps a key's time.
fn name(key_id: &str) -> String {
    format!("used.{key_id}")
}

#[derive(Clone, Copy)]
struct Use {
    at: Millis,
    is_kept: bool,
}

/// Uses since the start, by the key's id.
#[derive(Default)]
pub(super) struct Uses(Mutex<HashMap<String, Use>>);

impl Uses {
    pub(super) fn note(&self, key_id: &str, at: Millis) {
        let mut uses = self.uses();
        let last = Use { at, is_kept: false };
        match uses.get_mut(key_id) {
            Some(before) => *before = last,
            None => drop(uses.insert(key_id.to_owned(), last)),
        }
    }

    pub(super) fn forget(&self, key_id: &str) {
        self.uses().remove(key_id);
    }

    fn last(&self, key_id: &str) -> Option<Millis> {
        self.uses().get(key_id).map(|last| last.at)
    }

    fn unkept(&self) -> Vec<(String, Millis)> {
        let uses = self.uses();
        let unkept = uses.iter().filter(|(_, last)| !last.is_kept);
        unkept.map(|(id, last)| (id.clone(), last.at)).collect()
    }

    fn kept(&self, key_id: &str, at: Millis) {
        if let Some(last) = self.uses().get_mut(key_id).filter(|last| last.at == at) {
            last.is_kept = true;
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
                    self.keep_uses().await;
                    if let Err(error) = self.store.forget_answers().await {
                        error.warn("answers that were kept for a day could not be removed; trying again later");
                    }
                }
            }
        }
    }

    pub(super) async fn keep_uses(&self) {
        for (key_id, at) in self.uses.unkept() {
            match self.store.keep_time(&name(&key_id), at).await {
                Ok(()) => self.uses.kept(&key_id, at),
                Err(error) => return error.warn("when keys were used could not be kept; trying again later"),
            }
        }
    }
}
