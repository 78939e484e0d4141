//! Times kept under a name: the last ticks of the schedule.

use crate::domain::Timestamp;
use crate::store::error::StoreError;
use crate::store::tx::handle::Store;

/// Stored for a time that was forgotten.
const CLEARED: Timestamp = Timestamp::EPOCH;

impl Store {
    /// A time kept under a name (the schedule's last ticks).
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn saved_time(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let key = [b"mtime.", name.as_bytes()].concat();
        let bytes = self.0.kv.get(&key)?.and_then(|bytes| bytes.as_slice().try_into().ok());
        Ok(bytes.map(|bytes| Timestamp::from_millis(i64::from_be_bytes(bytes))).filter(|at| *at != CLEARED))
    }

    /// Keeps a time under a name.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn save_time(&self, name: &str, at: Timestamp) -> Result<(), StoreError> {
        let key = [b"mtime.", name.as_bytes()].concat();
        self.transact(move |tx| {
            tx.put(key, at.as_millis().to_be_bytes().to_vec());
            Ok(())
        })
        .await
    }

    /// Forgets a time kept under a name.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn clear_time(&self, name: &str) -> Result<(), StoreError> {
        self.save_time(name, CLEARED).await
    }
}
