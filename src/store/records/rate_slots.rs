//! Occupied budget slots: what a restart must know so that no window ever holds a call too many.
//!
//! One number per account and rule: calls in flight plus slots still cooling, as of the last lease.
//! It is written with the lease, before the calls leave. Slots that come free later are not written
//! down, so the number is never too small; a restart counts them all as ended at its start.
//!
//! And the pauses that the other side asked for, which hold over a restart too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// A pause, by the wall clock. Its length bounds what is left of it, should the clock have been set back.
#[derive(Serialize, Deserialize)]
struct Pause {
    until: Timestamp,
    length_ms: u64,
}

pub(crate) fn put(tx: &mut Tx<'_>, account: &str, rule: &str, occupied: u32) {
    tx.put(keyspace::slots(account, rule), occupied.to_be_bytes().to_vec());
}

fn occupied(bytes: Option<Vec<u8>>) -> u32 {
    bytes.and_then(|bytes| bytes.as_slice().try_into().ok().map(u32::from_be_bytes)).unwrap_or(0)
}

/// Merges the slots and pauses of a shop's old account into its new one: the API still counts the old calls.
pub(crate) fn merge_from(tx: &mut Tx<'_>, from: &str, to: &str) -> Result<(), StoreError> {
    let old = keyspace::slots_of(from);
    for (key, bytes) in tx.scan(&old, &old, usize::MAX)? {
        let rule = key.get(old.len()..).unwrap_or_default();
        let new = [keyspace::slots_of(to).as_slice(), rule].concat();
        let sum = occupied(Some(bytes)).saturating_add(occupied(tx.get(&new)?));
        tx.put(new, sum.to_be_bytes().to_vec());
    }
    let old = keyspace::pauses_of(from);
    for (key, bytes) in tx.scan(&old, &old, usize::MAX)? {
        let rule = key.get(old.len()..).unwrap_or_default();
        let new = [keyspace::pauses_of(to).as_slice(), rule].concat();
        let until = |bytes: &[u8]| decode::<Pause>("a pause", bytes).map(|pause| pause.until);
        let known = tx.get(&new)?.map(|bytes| until(&bytes)).transpose()?;
        if known.is_none_or(|known| until(&bytes).is_ok_and(|until| until > known)) {
            tx.put(new, bytes);
        }
    }
    Ok(())
}

impl Store {
    /// Slots of a budget that may have been in use when the store was last written.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn occupied(&self, account: &str, rule: &str) -> Result<u32, StoreError> {
        Ok(occupied(self.0.kv.get(&keyspace::slots(account, rule))?))
    }

    /// Stores how many slots of a budget are in use, for a caller that runs without the lanes. Durable when it returns, so
    /// the call may leave.
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
        let keys = [keyspace::slots(account, rule), keyspace::pause(account, rule)];
        let mut known = Vec::new();
        for key in keys {
            if self.0.kv.get(&key)?.is_some() {
                known.push(key);
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        self.transact(move |tx| {
            if idle() {
                known.into_iter().for_each(|key| tx.delete(key));
            }
            Ok(())
        })
        .await
    }

    /// Keeps a pause that begins now, for the next start; a longer one stays. Durable when it returns.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_pause(&self, account: &str, rule: &str, length: Duration) -> Result<(), StoreError> {
        let key = keyspace::pause(account, rule);
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let (now, known) = (self.now(), self.pause_left(account, rule)?);
        if known >= length {
            return Ok(());
        }
        let pause = encode("a pause", &Pause { until: now + length, length_ms })?;
        self.transact(move |tx| {
            tx.put(key, pause);
            Ok(())
        })
        .await
    }

    /// What is left of the pause kept for a budget; zero when there is none.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn pause_left(&self, account: &str, rule: &str) -> Result<Duration, StoreError> {
        let Some(bytes) = self.0.kv.get(&keyspace::pause(account, rule))? else { return Ok(Duration::ZERO) };
        let Pause { until, length_ms } = decode("a pause", &bytes)?;
        Ok(until.since(self.now()).min(Duration::from_millis(length_ms)))
    }
}
