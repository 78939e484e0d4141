//! The job queue: settle, wait, promote.
//!
//! A job is ready (`j`, see `ready`), or waits for a due time (`w`). Settling is fenced: it applies only
//! while the lease's claim is the current one (`lease`).

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::{Cause, Class, Effects, Job, JobKind, Lease, Next, RunState};
use crate::store::keyspace::{self, Queue};
use crate::store::ops::detail;
use crate::store::ops::list_page;
use crate::store::ops::passes;
use crate::store::records::call_counts;
use crate::store::records::dead_letters;
use crate::store::records::leases;
use crate::store::records::outbox;
use crate::store::records::ready_queue::{self, enqueue};
use crate::store::records::runs::{self, RunCounts};
use crate::store::records::shops;
use crate::store::records::stream_status;
use crate::store::tx::counters::Counter;
use crate::store::tx::notify::Signal;
use crate::store::{Claimed, Store, StoreError, Tx, WalkRule, blocking, decode, encode};

/// Waiting jobs made ready in one transaction.
const PROMOTED_MAX: usize = 500;

/// Attempts that a job makes from its place in the queue. One that failed so often goes behind what waits by then: it may
/// fail over and over, and each try takes a slot that others wait for.
const ATTEMPTS_IN_PLACE: u32 = 2;

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Settlement {
    Done { effects: Effects, rule: WalkRule },
    Failed(Failure),
}

/// What becomes of a job whose attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Try again so long after the commit. Not at a time: the clock may be set meanwhile.
    Retry { after: Duration, error: Cause },
    /// Ready again at once and the attempt not counted; the lane itself waits.
    Postpone { error: Cause },
    /// Given up. `may_pass`: it may work by itself later, and is tried again when the API answers for its list.
    /// `next`: of a page, where the walk goes on behind it.
    Park { reason: Cause, may_pass: bool, next: Option<Next> },
    /// The credentials that the shop had at its change of `read_at` are refused: it stops, the job stays.
    StopShop { reason: String, read_at: i64 },
}

/// What settling did, for those who count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Applied,
    /// Fenced off; nothing changed.
    LeaseLost,
}

/// A new job of a stream's run.
pub(crate) fn new_job(
    tx: &mut Tx<'_>,
    shop: &str,
    resource: &str,
    class: Class,
    kind: JobKind,
) -> Result<Job, StoreError> {
    let seq = tx.next("job")?;
    Ok(Job::new(seq, shop, resource, class, kind))
}

/// So much ahead the clock was when a planned re-read is given another date.
pub(crate) const CLOCK_AHEAD_MS: i64 = 2 * 60 * 60 * 1000;

/// A job as it waits.
#[derive(Serialize, Deserialize)]
struct Waiter {
    #[serde(flatten)]
    job: Job,
    /// When it was put aside.
    #[serde(default)]
    since: i64,
}

/// Puts a job aside, now, until `due`.
pub(crate) fn wait(tx: &mut Tx<'_>, job: Job, due: i64, now: i64) -> Result<(), StoreError> {
    let waiter = Waiter { job, since: now };
    tx.put(keyspace::waiting(due, waiter.job.seq), encode("a job", &waiter)?);
    tx.count(Counter::Waiting, 1);
    if waiter.job.last_error.is_some() {
        tx.count(Counter::Retrying, 1);
    }
    tx.raise(Signal::Timer);
    Ok(())
}

/// The job of a waiting record.
pub(crate) fn waiting_job(bytes: &[u8]) -> Result<Job, StoreError> {
    decode::<Waiter>("a waiting job", bytes).map(|waiter| waiter.job)
}

/// Takes a waiting job out; None when it is not there any more.
pub(crate) fn unwait(tx: &mut Tx<'_>, due: i64, seq: u64) -> Result<Option<Job>, StoreError> {
    let key = keyspace::waiting(due, seq);
    let Some(bytes) = tx.get(&key)? else { return Ok(None) };
    let job: Job = decode("a waiting job", &bytes)?;
    tx.delete(key);
    tx.count(Counter::Waiting, -1);
    if job.last_error.is_some() {
        tx.count(Counter::Retrying, -1);
    }
    Ok(Some(job))
}

/// Applies settlements in their order; those whose claim is not the current one change nothing.
fn settle(
    tx: &mut Tx<'_>,
    settlements: Vec<(Lease, Prepared)>,
    now: i64,
    claims: &Claimed,
) -> Result<Vec<Settled>, StoreError> {
    let current = leases::release(tx, claims, settlements.iter().map(|(lease, _)| lease));
    let leaving = settlements.iter().zip(&current).filter(|((_, prepared), current)| **current && prepared.ends_job());
    let taken = ready_queue::take(tx, leaving.map(|((lease, _), _)| lease))?;
    let mut counts = RunCounts::default();
    let mut known = HashMap::new();
    let mut settled = Vec::with_capacity(settlements.len());
    for ((lease, prepared), current) in settlements.into_iter().zip(current) {
        let valid = current && (!prepared.ends_job() || taken.contains(&lease.job.seq));
        // A deleted shop's jobs are cleared in steps after it; no document of theirs may come behind its purge.
        if !valid || !is_known(tx, &mut known, &lease.job.shop)? {
            settled.push(Settled::LeaseLost);
            continue;
        }
        tx.raise(Signal::Progress);
        apply(tx, lease.job, prepared, &mut counts, now)?;
        settled.push(Settled::Applied);
    }
    counts.apply(tx, now)?;
    Ok(settled)
}

fn is_known(tx: &Tx<'_>, known: &mut HashMap<String, bool>, shop: &str) -> Result<bool, StoreError> {
    if let Some(known) = known.get(shop) {
        return Ok(*known);
    }
    let is_known = shops::is_known(tx, shop)?;
    known.insert(shop.to_owned(), is_known);
    Ok(is_known)
}

fn apply(tx: &mut Tx<'_>, job: Job, settlement: Prepared, counts: &mut RunCounts, now: i64) -> Result<(), StoreError> {
    if settlement.was_answered() {
        stream_status::call_answered(tx, &job)?;
    }
    match settlement {
        Prepared::Page { page, rule } => list_page::apply_page(tx, &job, page, rule, now),
        Prepared::Sweep => passes::apply_sweep(tx, &job, now),
        Prepared::Detail { sealed, hash, refresh_after_ms } => {
            detail::apply(tx, &job, detail::Fetched { sealed, hash, refresh_after_ms }, counts, now)
        }
        Prepared::Gone => detail::apply_gone(tx, &job, counts, now),
        Prepared::Failed(failure) => apply_failure(tx, job, failure, now),
    }
}

fn apply_failure(tx: &mut Tx<'_>, mut job: Job, failure: Failure, now: i64) -> Result<(), StoreError> {
    if let Failure::Retry { error, .. } | Failure::Postpone { error } | Failure::Park { reason: error, .. } = &failure {
        stream_status::call_failed(tx, &job, error, now)?;
    }
    match failure {
        Failure::Retry { after, error } => {
            job.last_error = Some(error.text);
            let pause = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            wait(tx, job, now.saturating_add(pause), now)
        }
        // Both stay in their place, as they were before the lease.
        Failure::Postpone { .. } => {
            tx.raise(Signal::Queue(Queue::of(&job)));
            Ok(())
        }
        Failure::StopShop { reason, read_at } => {
            if !shops::refuse(tx, &job.shop, read_at, reason, now)? {
                tx.raise(Signal::Queue(Queue::of(&job)));
            }
            Ok(())
        }
        Failure::Park { reason, may_pass, next } => dead_letters::park_job(tx, job, (reason, may_pass, next), now),
    }
}

/// A settlement whose documents are sealed, ready for the committer's thread.
enum Prepared {
    Page { page: list_page::Page, rule: WalkRule },
    Sweep,
    Detail { sealed: Vec<u8>, hash: u64, refresh_after_ms: Option<i64> },
    Gone,
    Failed(Failure),
}

impl Prepared {
    /// Whether the job leaves its queue.
    fn ends_job(&self) -> bool {
        !matches!(self, Prepared::Failed(Failure::Postpone { .. } | Failure::StopShop { .. }))
    }

    /// Whether the API answered the call as it should.
    fn was_answered(&self) -> bool {
        matches!(self, Prepared::Page { .. } | Prepared::Detail { .. } | Prepared::Gone)
    }
}

/// Whether a page is for a run that ended meanwhile: its shop was refused or paused.
fn is_of_ended_run(tx: &Tx<'_>, job: &Job) -> Result<bool, StoreError> {
    match job.kind {
        JobKind::ListPage { run, .. } | JobKind::Sweep { run, .. } => {
            Ok(runs::read(tx, run)?.is_some_and(|run| run.state == RunState::Stopped))
        }
        JobKind::FetchDetail { .. } => Ok(false),
    }
}

impl Store {
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
        let stops = |prepared: &Prepared| matches!(prepared, Prepared::Failed(Failure::StopShop { .. }));
        let stopping: BTreeSet<String> = prepared
            .iter()
            .filter(|(_, prepared)| stops(prepared))
            .map(|(lease, _): &(Lease, Prepared)| lease.job.shop.clone())
            .collect();
        let (now, claims, parked_max) = (self.now(), Claimed::clone(&self.0.claims), self.parked_max());
        let counted = self.0.calls.take();
        let adding = counted.clone();
        let archives = self.0.archives_when_settling.load(Ordering::Relaxed);
        let transaction = self.transact(move |tx| {
            let settled = settle(tx, prepared, now, &claims)?;
            if archives {
                outbox::archive_oldest(tx, now)?;
            }
            let paused = dead_letters::pause_full(tx, parked_max, now)?;
            call_counts::add(tx, &adding, now)?;
            Ok((settled, paused))
        });
        let settled = transaction.await;
        if settled.is_err() {
            self.0.calls.put_back(counted);
        }
        let (settled, paused) = settled?;
        for shop in stopping.into_iter().chain(paused) {
            // What a failure leaves open the next start ends.
            self.stop_runs(&shop).await?;
        }
        Ok(settled)
    }

    /// Seals what must be sealed, on the caller's thread.
    fn prepare(&self, lease: &Lease, settlement: Settlement) -> Result<Prepared, StoreError> {
        let (shop, resource) = (lease.job.shop.as_str(), lease.job.resource.as_str());
        let seal = |id: &str, body: &[u8]| match self.shop_key(shop) {
            Ok(key) => key.seal_document(&crate::store::document_context(shop, resource, id), body),
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
            Settlement::Done { effects: Effects::Page { rows, rejected, digest, next, doubt }, rule } => {
                let rows = rows
                    .into_iter()
                    .map(|row| {
                        let sealed = row.body.as_ref().map(|body| seal(&row.id, body)).transpose()?;
                        let (id, hash, legacy, time) = (row.id, row.hash, row.legacy, row.time);
                        Ok(list_page::SealedRow { id, hash, legacy, time, sealed })
                    })
                    .collect::<Result<Vec<_>, StoreError>>()?;
                Prepared::Page { page: list_page::Page { rows, rejected, digest, next, doubt }, rule }
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
            // Only what is due is read: there may be as many planned re-reads as documents.
            let mut found = Vec::new();
            for pair in tx.pairs(b"w", b"w").take(PROMOTED_MAX) {
                let Some(at) = keyspace::due_and_seq(&pair?.0).filter(|(due, _)| *due <= now) else { break };
                found.push(at);
            }
            for (due, seq) in found {
                if let Some(mut job) = unwait(tx, due, seq)? {
                    if is_of_ended_run(tx, &job)? {
                        continue;
                    }
                    if job.attempts >= ATTEMPTS_IN_PLACE {
                        job.seq = tx.next("job")?;
                        detail::replan(tx, &job, seq, due)?;
                    }
                    enqueue(tx, &job)?;
                }
            }
            Ok(())
        })
        .await?;
        self.next_due()
    }

    /// Gives what was put aside later than now, so before the wall clock was set back, its pause anew from now on; else
    /// it would wait for a time that is far away. A planned re-read keeps its date if the clock was not ahead by much.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn mend_waits(&self) -> Result<(), StoreError> {
        let (store, now) = (self.clone(), self.now());
        let found = blocking(move || store.put_aside_after(now)).await?;
        for some in found.chunks(PROMOTED_MAX).map(<[_]>::to_vec) {
            self.transact(move |tx| {
                for (due, seq, pause) in some {
                    if let Some(job) = unwait(tx, due, seq)? {
                        detail::replan(tx, &job, seq, now + pause)?;
                        wait(tx, job, now + pause, now)?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// What was put aside after `now`: due time, seq and pause. Looks at every waiting job.
    fn put_aside_after(&self, now: i64) -> Result<Vec<(i64, u64, i64)>, StoreError> {
        let mut found = Vec::new();
        for pair in self.0.kv.scan(b"w", b"w") {
            let (key, bytes) = pair?;
            let Some((due, seq)) = keyspace::due_and_seq(&key) else { continue };
            let Waiter { job, since } = decode("a waiting job", &bytes)?;
            let ahead = if job.last_error.is_some() { 0 } else { CLOCK_AHEAD_MS };
            if since > now + ahead {
                found.push((due, seq, (due - since).max(0)));
            }
        }
        Ok(found)
    }

    fn next_due(&self) -> Result<Option<i64>, StoreError> {
        let first = self.0.kv.scan(b"w", b"w").next().transpose()?;
        Ok(first.and_then(|(key, _)| keyspace::due_and_seq(&key)).map(|(due, _)| due))
    }

    /// Whether a queue holds jobs, leased ones included.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_jobs(&self, queue: &Queue) -> Result<bool, StoreError> {
        let prefix = queue.prefix();
        Ok(self.0.kv.scan(&prefix, &prefix).next().transpose()?.is_some())
    }

    /// The resources of which a shop has ready jobs, configured or not.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn resources_with_jobs(&self, shop: &str) -> Result<Vec<String>, StoreError> {
        let prefix = keyspace::texts(b'j', &[shop]);
        let (mut found, mut from) = (Vec::new(), prefix.clone());
        while let Some(pair) = self.0.kv.scan(&prefix, &from).next() {
            let (key, _) = pair?;
            let rest = key.get(prefix.len()..).unwrap_or_default();
            let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            from = keyspace::after(&keyspace::texts(b'j', &[shop, &name]));
            found.push(name);
        }
        Ok(found)
    }

    /// Ready jobs of a queue, up to `limit`.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn count_jobs(&self, queue: &Queue, limit: usize) -> Result<usize, StoreError> {
        let prefix = queue.prefix();
        let mut found = 0;
        for pair in self.0.kv.scan(&prefix, &prefix) {
            found += ready_queue::count(&pair?.1)?;
            if found >= limit {
                return Ok(limit);
            }
        }
        Ok(found)
    }
}
