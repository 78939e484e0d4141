//! Settling: applies the results of attempts, all of a batch in one commit.
//!
//! Called by the lanes. It is fenced: a result is applied only while its lease is the current one, so a late attempt
//! changes nothing. It alone calls what a result leads to: a list page, a document, a sweep, a delay, a dead letter.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::domain::{Cause, Effects, Job, JobKind, Lease, Next};
use crate::store::crypto::document_context;
use crate::store::error::StoreError;
use crate::store::keyspace::Queue;
use crate::store::ops::acknowledge;
use crate::store::ops::detail;
use crate::store::ops::lease;
use crate::store::ops::list_page;
use crate::store::ops::park::{self, Parking};
use crate::store::ops::passes::{self, WalkRule};
use crate::store::ops::run_progress::RunCounts;
use crate::store::ops::shop_state;
use crate::store::ops::stream_status;
use crate::store::records::call_counts;
use crate::store::records::jobs::delay;
use crate::store::records::ready_queue;
use crate::store::records::shops;
use crate::store::tx::handle::{SharedLeases, Store};
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Settlement {
    Done { effects: Effects, rule: WalkRule },
    Failed(Failure),
}

/// What happens to a job whose attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Retry that long after the commit; a duration, since the clock may be set meanwhile.
    Retry { after: Duration, error: Cause },
    /// Ready again at once and the attempt not counted; the lane itself waits.
    Postpone { error: Cause },
    /// Given up. `may_pass`: it may succeed later without a change, and is retried when the API answers for its list.
    /// `next`: of a page, where the walk continues behind it.
    Park { reason: Cause, may_pass: bool, next: Option<Next> },
    /// The credentials that the shop had at its change of `read_at` are refused: it stops, the job stays.
    StopShop { reason: String, read_at: i64 },
}

/// Result of settling one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Applied,
    /// Fenced off; nothing changed.
    LeaseLost,
}

/// Applies settlements in their order; those whose claim is not the current one change nothing.
fn settle(
    tx: &mut Tx<'_>,
    settlements: Vec<(Lease, SealedResult)>,
    now: i64,
    claims: &SharedLeases,
) -> Result<Vec<Settled>, StoreError> {
    let current = lease::release(tx, claims, settlements.iter().map(|(lease, _)| lease));
    let leaving = settlements.iter().zip(&current).filter(|((_, prepared), current)| **current && prepared.ends_job());
    let taken = ready_queue::take(tx, leaving.map(|((lease, _), _)| lease))?;
    let mut counts = RunCounts::default();
    let mut known = HashMap::new();
    let mut settled = Vec::with_capacity(settlements.len());
    for ((lease, prepared), current) in settlements.into_iter().zip(current) {
        let valid = current && (!prepared.ends_job() || taken.contains(&lease.job.seq));
        // A deleted shop's jobs are purged in later steps; none of their documents may be written after that.
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

fn apply(
    tx: &mut Tx<'_>,
    job: Job,
    settlement: SealedResult,
    counts: &mut RunCounts,
    now: i64,
) -> Result<(), StoreError> {
    if settlement.was_answered() {
        stream_status::call_answered(tx, &job)?;
    }
    match settlement {
        SealedResult::Page { page, rule } => list_page::apply_page(tx, &job, page, rule, now),
        SealedResult::Sweep => passes::apply_sweep(tx, &job, now),
        SealedResult::Detail { sealed, hash, refresh_after_ms } => {
            detail::apply(tx, &job, detail::Fetched { sealed, hash, refresh_after_ms }, counts, now)
        }
        SealedResult::Gone => detail::apply_gone(tx, &job, counts, now),
        SealedResult::Failed(failure) => apply_failure(tx, job, failure, now),
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
            delay(tx, job, now.saturating_add(pause), now)
        }
        // The job stays in its place, as before the lease.
        Failure::Postpone { .. } => {
            tx.raise(Signal::Queue(Queue::of(&job)));
            Ok(())
        }
        Failure::StopShop { reason, read_at } => {
            if !shop_state::refuse(tx, &job.shop, read_at, reason, now)? {
                tx.raise(Signal::Queue(Queue::of(&job)));
            }
            Ok(())
        }
        Failure::Park { reason, may_pass, next } => {
            let goes_on = match next {
                Some(next) => list_page::pass_over(tx, &job, next, &reason.text, now)?,
                None => false,
            };
            park::park_job(tx, job, Parking { cause: reason, may_pass, goes_on }, now)
        }
    }
}

/// A settlement whose documents are sealed, ready for the committer's thread.
enum SealedResult {
    Page { page: list_page::Page, rule: WalkRule },
    Sweep,
    Detail { sealed: Vec<u8>, hash: u64, refresh_after_ms: Option<i64> },
    Gone,
    Failed(Failure),
}

impl SealedResult {
    /// Whether the job leaves its queue.
    fn ends_job(&self) -> bool {
        !matches!(self, SealedResult::Failed(Failure::Postpone { .. } | Failure::StopShop { .. }))
    }

    /// Whether the API gave a valid answer.
    fn was_answered(&self) -> bool {
        matches!(self, SealedResult::Page { .. } | SealedResult::Detail { .. } | SealedResult::Gone)
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
        let stops = |prepared: &SealedResult| matches!(prepared, SealedResult::Failed(Failure::StopShop { .. }));
        let stopping: BTreeSet<String> = prepared
            .iter()
            .filter(|(_, prepared)| stops(prepared))
            .map(|(lease, _): &(Lease, SealedResult)| lease.job.shop.clone())
            .collect();
        let (now, claims, parked_max) = (self.now(), SharedLeases::clone(&self.0.claims), self.parked_max());
        let counted = self.0.calls.take();
        let adding = counted.clone();
        let archives = self.0.archives_when_settling.load(Ordering::Relaxed);
        let transaction = self.transact(move |tx| {
            let settled = settle(tx, prepared, now, &claims)?;
            if archives {
                acknowledge::archive_oldest(tx, now)?;
            }
            let paused = park::pause_full(tx, parked_max, now)?;
            call_counts::add(tx, &adding, now)?;
            Ok((settled, paused))
        });
        let settled = transaction.await;
        if settled.is_err() {
            self.0.calls.put_back(counted);
        }
        let (settled, paused) = settled?;
        for shop in stopping.into_iter().chain(paused) {
            // If this fails, the next start ends the runs.
            self.stop_runs(&shop).await?;
        }
        Ok(settled)
    }

    /// Seals what must be sealed, on the caller's thread.
    fn prepare(&self, lease: &Lease, settlement: Settlement) -> Result<SealedResult, StoreError> {
        let (shop, resource) = (lease.job.shop.as_str(), lease.job.resource.as_str());
        let seal = |id: &str, body: &[u8]| match self.shop_key(shop) {
            Ok(key) => key.seal_document(&document_context(shop, resource, id), body),
            // A shop deleted meanwhile has no key and no jobs: the fence drops the result.
            Err(StoreError::Absent { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        Ok(match settlement {
            Settlement::Failed(failure) => SealedResult::Failed(failure),
            Settlement::Done { effects: Effects::Gone, .. } => SealedResult::Gone,
            Settlement::Done { effects: Effects::Local, .. } => SealedResult::Sweep,
            Settlement::Done { effects: Effects::Detail { body, hash, refresh_after_ms }, .. } => {
                let JobKind::FetchDetail { id, .. } = &lease.job.kind else { return Ok(SealedResult::Sweep) };
                SealedResult::Detail { sealed: seal(id, &body)?, hash, refresh_after_ms }
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
                SealedResult::Page { page: list_page::Page { rows, rejected, digest, next, doubt }, rule }
            }
        })
    }
}
