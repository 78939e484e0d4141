//! Times kept under a name: the last ticks of the schedule.

use crate::store::error::StoreError;
use crate::store::tx::handle::Store;

impl Store {
    /// A time kept under a name (the schedule's last ticks).
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn saved_time(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let key = [b"mtime.", name.as_bytes()].concat();
        let bytes = self.0.kv.get(&key)?;
        Ok(bytes.and_then(|bytes| bytes.as_slice().try_into().ok().map(i64::from_be_bytes)))
    }

    /// Keeps a time under a name.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn save_time(&self, name: &str, at: i64) -> Result<(), StoreError> {
        let key = [b"mtime.", name.as_bytes()].concat();
        self.transact(move |tx| {
            tx.put(key, at.to_be_bytes().to_vec());
            Ok(())
        })
        .await
    }
}
