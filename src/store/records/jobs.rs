//! Delayed jobs (`w`): retries after a failure, and planned re-reads.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Job, JobKind, JobSeq, Priority, ShopId, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace::{self, DueJob, Queue};
use crate::store::tx::counters::Counter;
use crate::store::tx::handle::Store;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// A new job of a stream's run.
pub(crate) fn new_job(
    tx: &mut Tx<'_>,
    shop: &ShopId,
    resource: &str,
    priority: Priority,
    kind: impl Into<JobKind>,
) -> Result<Job, StoreError> {
    Ok(Job::new(next_seq(tx)?, shop, resource, priority, kind.into()))
}

/// The number of a new job, or of one that goes behind the others.
pub(crate) fn next_seq(tx: &mut Tx<'_>) -> Result<JobSeq, StoreError> {
    tx.next("job").map(JobSeq::from_number)
}

/// How far ahead the clock must have been for a planned re-read to get another date.
pub(crate) const CLOCK_AHEAD: Duration = Duration::from_secs(2 * 60 * 60);

/// A delayed job as stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct DelayedJob {
    #[serde(flatten)]
    pub(crate) job: Job,
    /// When it was delayed.
    #[serde(default)]
    pub(crate) since: Timestamp,
}

/// Delays a job until `due`.
pub(crate) fn delay(tx: &mut Tx<'_>, job: Job, due: Timestamp, now: Timestamp) -> Result<(), StoreError> {
    let waiter = DelayedJob { job, since: now };
    tx.put(DueJob { due, seq: waiter.job.seq }.key(), encode("a job", &waiter)?);
    tx.count(Counter::Waiting, 1);
    if waiter.job.last_error.is_some() {
        tx.count(Counter::Retrying, 1);
    }
    tx.raise(Signal::Timer);
    Ok(())
}

/// The job of a delayed job's record.
pub(crate) fn delayed_job(bytes: &[u8]) -> Result<Job, StoreError> {
    decode::<DelayedJob>("a waiting job", bytes).map(|waiter| waiter.job)
}

/// Removes a delayed job; None when it is not there any more.
pub(crate) fn undelay(tx: &mut Tx<'_>, at: DueJob) -> Result<Option<Job>, StoreError> {
    let key = at.key();
    let Some(bytes) = tx.get(&key)? else { return Ok(None) };
    let job: Job = decode("a waiting job", &bytes)?;
    tx.delete(key);
    tx.count(Counter::Waiting, -1);
    if job.last_error.is_some() {
        tx.count(Counter::Retrying, -1);
    }
    Ok(Some(job))
}

impl Store {
    pub(crate) fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let first = self.0.kv.scan(keyspace::DELAYED_JOBS, keyspace::DELAYED_JOBS).next().transpose()?;
        Ok(first.and_then(|(key, _)| DueJob::of_key(&key)).map(|job| job.due))
    }

    /// When failed calls are tried again: the earliest time of each queue, by the first `limit` delayed jobs.
    ///
    /// # Errors
    /// The engine's errors.
    pub fn next_retries(&self, limit: usize) -> Result<HashMap<Queue, Timestamp>, StoreError> {
        let mut retries = HashMap::new();
        for pair in self.0.kv.scan(keyspace::DELAYED_JOBS, keyspace::DELAYED_JOBS).take(limit) {
            let (key, bytes) = pair?;
            let job = delayed_job(&bytes)?;
            if let Some(at) = DueJob::of_key(&key).filter(|_| job.last_error.is_some()) {
                retries.entry(Queue::of(&job)).or_insert(at.due);
            }
        }
        Ok(retries)
    }
}
