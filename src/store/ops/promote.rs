//! Makes delayed jobs ready when they are due, and repairs their dates after the wall clock was set back.

use std::time::Duration;

use crate::domain::{Job, RunState, Timestamp};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace::{self, DueJob};
use crate::store::ops::detail;
use crate::store::records::jobs::{CLOCK_AHEAD, DelayedJob, delay, next_seq, undelay};
use crate::store::records::ready_queue::enqueue;
use crate::store::records::runs;
use crate::store::tx::handle::{Store, blocking};
use crate::store::tx::transaction::Tx;

/// Waiting jobs made ready in one transaction.
pub(crate) const PROMOTED_MAX: usize = 500;

/// Attempts that a job makes from its place in the queue. One that failed as often goes to the end: it may fail again and
/// again, and each attempt takes a slot that others wait for.
pub(crate) const ATTEMPTS_IN_PLACE: u32 = 2;

/// Whether a list job's run has ended meanwhile, because its shop was refused or paused.
pub(crate) fn is_of_ended_run(tx: &Tx<'_>, job: &Job) -> Result<bool, StoreError> {
    match job.walk() {
        Some(run) => Ok(runs::read(tx, run)?.is_some_and(|run| run.state == RunState::Stopped)),
        None => Ok(false),
    }
}

impl Store {
    /// Makes delayed jobs ready that are due; returns when the next one is.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn promote(&self) -> Result<Option<Timestamp>, StoreError> {
        let now = self.now();
        match self.next_due()? {
            Some(due) if due <= now => {}
            other => return Ok(other),
        }
        self.transact(move |tx| {
            // Only what is due is read: there may be as many planned re-reads as documents.
            let mut found = Vec::new();
            for pair in tx.pairs(keyspace::DELAYED_JOBS, keyspace::DELAYED_JOBS).take(PROMOTED_MAX) {
                let Some(at) = DueJob::of_key(&pair?.0).filter(|at| at.due <= now) else { break };
                found.push(at);
            }
            for at in found {
                if let Some(mut job) = undelay(tx, at)? {
                    if is_of_ended_run(tx, &job)? {
                        continue;
                    }
                    if job.attempts >= ATTEMPTS_IN_PLACE {
                        job.seq = next_seq(tx)?;
                        detail::replan(tx, &job, at.seq, at.due)?;
                    }
                    enqueue(tx, &job)?;
                }
            }
            Ok(())
        })
        .await?;
        self.next_due()
    }

    /// Restarts the pause of jobs that were delayed at a time later than now, which is before the wall clock was set back;
    /// else they would wait for a date far away. A planned re-read keeps its date if the clock was not ahead by much.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn repair_delays(&self) -> Result<(), StoreError> {
        let (store, now) = (self.clone(), self.now());
        let found = blocking(move || store.delayed_after(now)).await?;
        for some in found.chunks(PROMOTED_MAX).map(<[_]>::to_vec) {
            self.transact(move |tx| {
                for (at, pause) in some {
                    if let Some(job) = undelay(tx, at)? {
                        detail::replan(tx, &job, at.seq, now + pause)?;
                        delay(tx, job, now + pause, now)?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Jobs delayed after `now`, each with its pause. Reads every delayed job.
    fn delayed_after(&self, now: Timestamp) -> Result<Vec<(DueJob, Duration)>, StoreError> {
        let mut found = Vec::new();
        for pair in self.0.kv.scan(keyspace::DELAYED_JOBS, keyspace::DELAYED_JOBS) {
            let (key, bytes) = pair?;
            let Some(at) = DueJob::of_key(&key) else { continue };
            let DelayedJob { job, since } = decode("a waiting job", &bytes)?;
            let ahead = if job.last_error.is_some() { Duration::ZERO } else { CLOCK_AHEAD };
            if since > now + ahead {
                found.push((at, at.due.since(since)));
            }
        }
        Ok(found)
    }
}
