//! Occupied budget slots: what a restart must know so that no window ever holds a call too many.
//!
//! One number per account and rule: calls in flight plus slots still cooling, as of the last lease.
//! It is written with the lease, before the calls leave. Slots that come free later are not written
//! down, so the number is never too small; a restart counts them all as ended at its start.

use super::keys::texts;
use super::{Store, StoreError, Tx};

pub(super) fn put(tx: &mut Tx<'_>, account: &str, rule: &str, occupied: u32) {
    tx.put(texts(b'b', &[account, rule]), occupied.to_be_bytes().to_vec());
}

impl Store {
    /// Slots of a budget that may have been in use when the store was last written.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn occupied(&self, account: &str, rule: &str) -> Result<u32, StoreError> {
        let bytes = self.0.kv.get(&texts(b'b', &[account, rule]))?;
        Ok(bytes.and_then(|bytes| bytes.as_slice().try_into().ok().map(u32::from_be_bytes)).unwrap_or(0))
    }

    /// Notes that so many slots of a budget are in use, for a caller that runs without the lanes. Durable
    /// when it returns, so the call may leave.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn occupy(&self, account: &str, rule: &str, occupied: u32) -> Result<(), StoreError> {
        let (account, rule) = (account.to_owned(), rule.to_owned());
        self.transact(move |tx| {
            put(tx, &account, &rule, occupied);
            Ok(())
        })
        .await
    }

    /// Notes that a budget is wholly free, so that the next start need not wait for it. `idle` is asked
    /// in the committer's order: no lease may stand between its yes and the change.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn forget_occupied(
        &self,
        account: &str,
        rule: &str,
        idle: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        let key = texts(b'b', &[account, rule]);
        if self.0.kv.get(&key)?.is_none() {
            return Ok(());
        }
        self.transact(move |tx| {
            if idle() {
                tx.delete(key);
            }
            Ok(())
        })
        .await
    }
}
