//! The idempotency keys of the requests in flight.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::service::AnswerName;

/// Keys of the requests in flight.
#[derive(Clone, Default)]
pub(super) struct InFlightKeys(Arc<Mutex<HashSet<AnswerName>>>);

/// Marks one key as in flight; released on drop.
pub(super) struct InFlightGuard(InFlightKeys, AnswerName);

impl InFlightKeys {
    /// None if the key is in flight already.
    pub(super) fn begin(&self, name: AnswerName) -> Option<InFlightGuard> {
        self.names().insert(name).then(|| InFlightGuard(self.clone(), name))
    }

    fn names(&self) -> MutexGuard<'_, HashSet<AnswerName>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.names().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::InFlightKeys;

    #[test]
    fn a_key_is_in_flight_once_until_its_guard_is_dropped() {
        let in_flight = InFlightKeys::default();
        let first = in_flight.begin([1; 32]);
        assert!(first.is_some() && in_flight.begin([1; 32]).is_none() && in_flight.begin([2; 32]).is_some());
        drop(first);
        assert!(in_flight.begin([1; 32]).is_some());
    }
}
