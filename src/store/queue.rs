//! The job queue: enqueue, lease, settle, wait, promote.
//!
//! A job is ready (`j`), or waits for a due time (`w`). A lease raises the job's attempts on disk, with
//! the occupied budget slots, before any call leaves. Settling is fenced: it applies only while the
//! job's attempts equal the lease's.

use std::collections::HashSet;

use super::keys::{self, Queue};
use super::kv::Pair;
use super::meta::Counter;
use super::runs::RunCounts;
use super::signal::Signal;
use super::{Leased, Store, StoreError, Tx, WalkRule, decode, detail, encode, locked, parked, shops, slots, walk};
use crate::domain::{Class, Effects, Job, JobKind, Lease, ShopState};

/// Waiting jobs made ready in one transaction.
const PROMOTED_MAX: usize = 500;

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Settlement {
    Done { effects: Effects, rule: WalkRule },
    Failed(Failure),
}

/// What becomes of a job whose attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Try again at `due` (wall clock).
    Retry { due: i64, error: String },
    /// Ready again at once and the attempt not counted; the lane itself waits.
    Postpone,
    /// Given up.
    Park { reason: String },
    /// The shop's credentials are refused: the shop stops, the job stays.
    StopShop { reason: String },
}

/// What settling did, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Applied,
    /// Fenced off; nothing changed.
    LeaseLost,
}

/// Adds a job to its queue.
pub(super) fn enqueue(tx: &mut Tx<'_>, job: &Job) -> Result<(), StoreError> {
    let queue = Queue::of(job);
    tx.put(queue.key(job.class, job.seq), encode("a job", job)?);
    tx.count(Counter::Ready, 1)?;
    tx.raise(Signal::Queue(queue));
    Ok(())
}

/// A new job of a stream's run.
pub(super) fn new_job(
    tx: &mut Tx<'_>,
    shop: &str,
    resource: &str,
    class: Class,
    kind: JobKind,
) -> Result<Job, StoreError> {
    let seq = tx.next("job")?;
    Ok(Job { seq, shop: shop.to_owned(), resource: resource.to_owned(), class, kind, attempts: 0, last_error: None })
}

/// Puts a job aside until `due`.
pub(super) fn wait(tx: &mut Tx<'_>, job: &Job, due: i64) -> Result<(), StoreError> {
    tx.put(keys::waiting(due, job.seq), encode("a job", job)?);
    tx.count(Counter::Waiting, 1)?;
    if job.last_error.is_some() {
        tx.count(Counter::Retrying, 1)?;
    }
    tx.raise(Signal::Timer);
    Ok(())
}

/// Takes a waiting job out; None when it is not there any more.
pub(super) fn unwait(tx: &mut Tx<'_>, due: i64, seq: u64) -> Result<Option<Job>, StoreError> {
    let key = keys::waiting(due, seq);
    let Some(bytes) = tx.get(&key)? else { return Ok(None) };
    let job: Job = decode("a waiting job", &bytes)?;
    tx.delete(key);
    tx.count(Counter::Waiting, -1)?;
    if job.last_error.is_some() {
        tx.count(Counter::Retrying, -1)?;
    }
    Ok(Some(job))
}

/// Removes a ready job if it is there.
pub(super) fn remove_ready(tx: &mut Tx<'_>, queue: &Queue, class: Class, seq: u64) -> Result<bool, StoreError> {
    let key = queue.key(class, seq);
    let present = tx.get(&key)?.is_some();
    if present {
        tx.delete(key);
        tx.count(Counter::Ready, -1)?;
    }
    Ok(present)
}

/// Checks the fence and takes the job off its queue.
fn take_leased(tx: &mut Tx<'_>, lease: &Lease, leased: &Leased) -> Result<Job, StoreError> {
    locked(leased).remove(&lease.job.seq);
    let key = Queue::of(&lease.job).key(lease.job.class, lease.job.seq);
    let bytes = tx.get(&key)?.ok_or(StoreError::LeaseLost)?;
    let job: Job = decode("a job", &bytes)?;
    if job.attempts != lease.attempt {
        return Err(StoreError::LeaseLost);
    }
    tx.delete(key);
    tx.count(Counter::Ready, -1)?;
    Ok(job)
}

fn settle(
    tx: &mut Tx<'_>,
    (lease, settlement): (Lease, Prepared),
    counts: &mut RunCounts,
    now: i64,
    leased: &Leased,
) -> Result<Settled, StoreError> {
    let job = match take_leased(tx, &lease, leased) {
        Ok(job) => job,
        Err(StoreError::LeaseLost) => return Ok(Settled::LeaseLost),
        Err(error) => return Err(error),
    };
    // A deleted shop's jobs are cleared in steps after it; no document of theirs may come behind its purge.
    if !shops::is_known(tx, &job.shop)? {
        return Ok(Settled::LeaseLost);
    }
    tx.raise(Signal::Progress);
    match settlement {
        Prepared::Page { page, rule } => walk::apply_page(tx, &job, page, rule, now)?,
        Prepared::Sweep => walk::apply_sweep(tx, &job, now)?,
        Prepared::Detail { sealed, hash, refresh_after_ms } => {
            detail::apply(tx, &job, detail::Fetched { sealed, hash, refresh_after_ms }, counts, now)?;
        }
        Prepared::Gone => detail::apply_gone(tx, &job, counts)?,
        Prepared::Failed(failure) => apply_failure(tx, job, failure, now)?,
    }
    Ok(Settled::Applied)
}

fn apply_failure(tx: &mut Tx<'_>, mut job: Job, failure: Failure, now: i64) -> Result<(), StoreError> {
    match failure {
        Failure::Retry { due, error } => {
            job.last_error = Some(error);
            wait(tx, &job, due)
        }
        Failure::Postpone => {
            job.attempts = job.attempts.saturating_sub(1);
            enqueue(tx, &job)
        }
        Failure::Park { reason } => parked::park_job(tx, job, reason, now),
        Failure::StopShop { reason } => {
            job.attempts = job.attempts.saturating_sub(1);
            shops::set_state(tx, &job.shop, ShopState::Refused, Some(reason), now)?;
            enqueue(tx, &job)
        }
    }
}

/// A settlement whose documents are sealed, ready for the committer's thread.
enum Prepared {
    Page { page: walk::Page, rule: WalkRule },
    Sweep,
    Detail { sealed: Vec<u8>, hash: u64, refresh_after_ms: Option<i64> },
    Gone,
    Failed(Failure),
}

impl Store {
    /// Takes up to `want` jobs of the queues for one attempt each, most urgent class first and queues
    /// of one class in turn (beginning with the first). Durable before it returns, together with the
    /// budget's `occupied` slots, which counts the calls of these jobs already.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn lease(
        &self,
        queues: Vec<Queue>,
        want: usize,
        budget: Option<(String, String, u32)>,
    ) -> Result<Vec<Lease>, StoreError> {
        let leased = Leased::clone(&self.0.leased);
        self.transact(move |tx| {
            let taken = pick(tx, &queues, want, &locked(&leased))?;
            let mut leases = Vec::with_capacity(taken.len());
            for (key, bytes) in taken {
                let mut job: Job = decode("a job", &bytes)?;
                job.attempts += 1;
                tx.put(key, encode("a job", &job)?);
                leases.push(Lease { attempt: job.attempts, job });
            }
            if let Some((account, rule, occupied)) = budget.filter(|_| !leases.is_empty()) {
                let unused = u32::try_from(want - leases.len()).unwrap_or(0);
                slots::put(tx, &account, &rule, occupied.saturating_sub(unused));
            }
            locked(&leased).extend(leases.iter().map(|lease| lease.job.seq));
            Ok(leases)
        })
        .await
    }

    /// Applies how attempts ended, all in one commit. The answers come in the same order.
    ///
    /// # Errors
    /// The engine's errors; then none of them is applied.
    pub async fn settle(&self, settlements: Vec<(Lease, Settlement)>) -> Result<Vec<Settled>, StoreError> {
        let mut prepared = Vec::with_capacity(settlements.len());
        for (lease, settlement) in settlements {
            let settlement = self.prepare(&lease, settlement)?;
            prepared.push((lease, settlement));
        }
        let (now, leased) = (self.now(), Leased::clone(&self.0.leased));
        self.transact(move |tx| {
            let mut counts = RunCounts::default();
            let settled = prepared.into_iter().map(|one| settle(tx, one, &mut counts, now, &leased)).collect();
            counts.apply(tx, now)?;
            settled
        })
        .await
    }

    /// Seals what must be sealed, on the caller's thread.
    fn prepare(&self, lease: &Lease, settlement: Settlement) -> Result<Prepared, StoreError> {
        let (shop, resource) = (lease.job.shop.as_str(), lease.job.resource.as_str());
        let seal = |id: &str, body: &[u8]| match self.shop_key(shop) {
            Ok(key) => key.seal_document(&super::document_context(shop, resource, id), body),
            // A shop deleted meanwhile has no key and no jobs: the fence drops the result.
            Err(StoreError::Absent { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        Ok(match settlement {
            Settlement::Failed(failure) => Prepared::Failed(failure),
            Settlement::Done { effects: Effects::Gone, .. } => Prepared::Gone,
            Settlement::Done { effects: Effects::Local, .. } => Prepared::Sweep,
            Settlement::Done { effects: Effects::Detail { body, hash, refresh_after_ms }, .. } => {
                let JobKind::FetchDetail { id, .. } = &lease.job.kind else { return Ok(Prepared::Sweep) };
                Prepared::Detail { sealed: seal(id, &body)?, hash, refresh_after_ms }
            }
            Settlement::Done { effects: Effects::Page { rows, rejected, digest, next }, rule } => {
                let rows = rows
                    .into_iter()
                    .map(|row| {
                        let sealed = row.body.as_ref().map(|body| seal(&row.id, body)).transpose()?;
                        Ok(walk::SealedRow { id: row.id, hash: row.hash, time: row.time, sealed })
                    })
                    .collect::<Result<Vec<_>, StoreError>>()?;
                Prepared::Page { page: walk::Page { rows, rejected, digest, next }, rule }
            }
        })
    }

    /// Makes waiting jobs ready whose time has come. Returns when the next one is due.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn promote(&self) -> Result<Option<i64>, StoreError> {
        let now = self.now();
        match self.next_due()? {
            Some(due) if due <= now => {}
            other => return Ok(other),
        }
        self.transact(move |tx| {
            for (key, _) in tx.scan(b"w", b"w", PROMOTED_MAX)? {
                let Some((due, seq)) = keys::due_and_seq(&key).filter(|(due, _)| *due <= now) else { break };
                if let Some(job) = unwait(tx, due, seq)? {
                    enqueue(tx, &job)?;
                }
            }
            Ok(())
        })
        .await?;
        self.next_due()
    }

    fn next_due(&self) -> Result<Option<i64>, StoreError> {
        let first = self.0.kv.scan(b"w", b"w").next().transpose()?;
        Ok(first.and_then(|(key, _)| keys::due_and_seq(&key)).map(|(due, _)| due))
    }

    /// Whether a queue holds jobs, leased ones included.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_jobs(&self, queue: &Queue) -> Result<bool, StoreError> {
        let prefix = queue.prefix();
        Ok(self.0.kv.scan(&prefix, &prefix).next().transpose()?.is_some())
    }

    /// Ready jobs of a queue, up to `limit`.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn count_jobs(&self, queue: &Queue, limit: usize) -> Result<usize, StoreError> {
        let prefix = queue.prefix();
        self.0.kv.scan(&prefix, &prefix).take(limit).try_fold(0, |count, pair| pair.map(|_| count + 1))
    }

    /// Gives up leases without an answer (a step that panicked or was cut off): the jobs are ready
    /// again, the attempt stays counted.
    pub fn abandon(&self, leases: &[Lease]) {
        let mut leased = locked(&self.0.leased);
        for lease in leases {
            leased.remove(&lease.job.seq);
            self.0.signals.raise([Signal::Queue(Queue::of(&lease.job))].into());
        }
    }
}

/// The most urgent jobs that are not leased; equal classes take turns between the queues.
fn pick(tx: &Tx<'_>, queues: &[Queue], want: usize, leased: &HashSet<u64>) -> Result<Vec<Pair>, StoreError> {
    let mut candidates = Vec::new();
    for (turn, queue) in queues.iter().enumerate() {
        let prefix = queue.prefix();
        let free = |key: &[u8]| keys::class_and_seq(key).is_some_and(|(_, seq)| !leased.contains(&seq));
        for (place, (key, value)) in tx.scan_where(&prefix, &prefix, want, free)?.into_iter().enumerate() {
            let class = keys::class_and_seq(&key).map_or(u8::MAX, |(class, _)| class);
            candidates.push(((class, place, turn), key, value));
        }
    }
    candidates.sort_by_key(|(rank, _, _)| *rank);
    candidates.truncate(want);
    Ok(candidates.into_iter().map(|(_, key, value)| (key, value)).collect())
}
