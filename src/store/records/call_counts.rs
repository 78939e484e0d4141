//! Counts of calls, by day and rule, over restarts; the proof that no 429 came.
//!
//! A call is counted in memory when it ends, and becomes durable with the next settlement, which ends its job: no commit
//! is made for it alone. So a kill loses at most the calls that were in flight. Records are small, and a group of
//! commits writes each once.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::domain::calls::{CallCounts, CallDay, CallStatus, CallTotal};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;
use crate::store::tx::uncommitted_calls::Calls;

const DAY_MS: i64 = 86_400_000;
/// Days whose counts are kept.
pub const CALL_DAYS_KEPT: u64 = 90;
/// The day of a rule's record for all time.
const EVER: u64 = 0;
/// The rule under which logins are counted.
pub const LOGIN_RULE: &str = "login";

#[derive(Serialize, Deserialize)]
struct CallsRecord {
    /// When the first of them was counted.
    since: Timestamp,
    calls: CallCounts,
}

fn key(day: u64, rule: &str) -> Vec<u8> {
    [keyspace::calls_of_day(day).as_slice(), rule.as_bytes()].concat()
}

/// The number of a day, from 1970.
fn day_of(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis().div_euclid(DAY_MS)).unwrap_or(EVER)
}

/// Adds calls to the records of their day and of all time.
pub(crate) fn add(tx: &mut Tx<'_>, calls: &Calls, now: Timestamp) -> Result<(), StoreError> {
    let day = day_of(now).max(EVER + 1);
    for (rule, counts) in calls {
        for of in [EVER, day] {
            let key = key(of, rule);
            let known = tx.get(&key)?.map(|bytes| decode::<CallsRecord>("a count of calls", &bytes)).transpose()?;
            if known.is_none() && of != EVER {
                forget_before(tx, day.saturating_sub(CALL_DAYS_KEPT - 1))?;
            }
            let mut record = known.unwrap_or_else(|| CallsRecord { since: now, calls: CallCounts::default() });
            record.calls.merge(counts);
            tx.put(key, encode("a count of calls", &record)?);
        }
    }
    Ok(())
}

/// Removes the records of days before this one.
fn forget_before(tx: &mut Tx<'_>, day: u64) -> Result<(), StoreError> {
    let first = keyspace::calls_of_day(EVER + 1);
    let mut old = Vec::new();
    for pair in tx.pairs(keyspace::CALLS, &first) {
        let key = pair?.0;
        match day_and_rule(&key) {
            Some((of, _)) if of < day => old.push(key),
            _ => break,
        }
    }
    old.into_iter().for_each(|key| tx.delete(key));
    Ok(())
}

fn day_and_rule(key: &[u8]) -> Option<(u64, String)> {
    let (day, rule) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*day), String::from_utf8_lossy(rule).into_owned()))
}

impl Store {
    /// Counts a call that ended; the next settlement makes it durable.
    pub fn count_call(&self, rule: &str, status: CallStatus) {
        self.0.calls.with(|calls| calls.entry(rule.to_owned()).or_default().add(status, 1));
    }

    /// Makes calls durable that no settlement did: at a stop, and for callers without jobs.
    ///
    /// # Errors
    /// The engine's write errors; the calls wait for the next try then.
    pub async fn save_calls(&self) -> Result<(), StoreError> {
        let calls = self.0.calls.take();
        if calls.is_empty() {
            return Ok(());
        }
        let (now, adding) = (self.now(), calls.clone());
        let kept = self.transact(move |tx| add(tx, &adding, now)).await;
        if kept.is_err() {
            self.0.calls.put_back(calls);
        }
        kept
    }

    /// All calls ever, by rule.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn call_totals(&self) -> Result<Vec<CallTotal>, StoreError> {
        let prefix = keyspace::calls_of_day(EVER);
        let mut found = Vec::new();
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let (key, bytes) = pair?;
            let Some((_, rule)) = day_and_rule(&key) else { continue };
            let CallsRecord { since, calls } = decode("a count of calls", &bytes)?;
            found.push(CallTotal { rule, since, counts: calls });
        }
        Ok(found)
    }

    /// The calls of the last `days` days (UTC), today included, newest first.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn call_days(&self, days: u64) -> Result<Vec<CallDay>, StoreError> {
        let today = day_of(self.now());
        let first = keyspace::calls_of_day(today.saturating_sub(days.saturating_sub(1)).max(EVER + 1));
        let mut found = Vec::new();
        for pair in self.0.kv.scan(keyspace::CALLS, &first) {
            let (key, bytes) = pair?;
            let Some((day, rule)) = day_and_rule(&key) else { continue };
            let CallsRecord { calls, .. } = decode("a count of calls", &bytes)?;
            let day = Timestamp::from_millis(i64::try_from(day).unwrap_or(i64::MAX).saturating_mul(DAY_MS));
            found.push(CallDay { day, rule, counts: calls });
        }
        found.sort_by(|a, b| (b.day, &a.rule).cmp(&(a.day, &b.rule)));
        Ok(found)
    }
}
