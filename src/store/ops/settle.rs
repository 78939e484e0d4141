//! Settling: applies the outputs of attempts, all of a batch in one commit.
//!
//! Called by the lanes. It is fenced: an output is applied only while its lease is the current one, so a late attempt
//! changes nothing. It alone calls what an output leads to: a list page, a document, a sweep, a delay, a dead letter.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::domain::{Facets, Failure, Job, Lease, ListParams, ShopId, StepOutput, Timestamp};
use crate::store::crypto::document_context;
use crate::store::error::StoreError;
use crate::store::keyspace::Queue;
use crate::store::ops::acknowledge;
use crate::store::ops::detail;
use crate::store::ops::lease;
use crate::store::ops::list_page;
use crate::store::ops::not_found;
use crate::store::ops::park::{self, Parking};
use crate::store::ops::passes;
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

/// Result of settling one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Applied,
    /// Fenced off; nothing changed.
    LeaseLost,
}

/// An output whose documents are sealed, ready for the committer's thread.
type SealedOutput = StepOutput<Vec<u8>>;

/// Applies outputs in their order; those whose lease is not the current one change nothing.
fn settle(
    tx: &mut Tx<'_>,
    outputs: Vec<SealedOutput>,
    leases: &[Lease],
    now: Timestamp,
    active: &SharedLeases,
) -> Result<Vec<Settled>, StoreError> {
    let current = lease::release(tx, active, leases.iter());
    let leaving =
        leases.iter().zip(&outputs).zip(&current).filter(|((_, output), current)| **current && ends_job(output));
    let taken = ready_queue::take(tx, leaving.map(|((lease, _), _)| lease))?;
    let mut counts = RunCounts::default();
    let mut known = HashMap::new();
    let mut noted = None;
    let mut settled = Vec::with_capacity(outputs.len());
    for ((output, Lease { job, .. }), current) in outputs.into_iter().zip(leases).zip(current) {
        let valid = current && (!ends_job(&output) || taken.contains(&job.seq));
        // A deleted shop's jobs are purged in later steps; none of their documents may be written after that.
        if !valid || !is_known(tx, &mut known, &job.shop)? {
            settled.push(Settled::LeaseLost);
            continue;
        }
        tx.raise(Signal::Progress);
        // Documents of one call that follow one another say the same of it: reading its records once for each would cost
        // as much as the ledger.
        let answer = DetailAnswer::of(&output, job);
        if answer.is_none() || answer != noted {
            note_answer(tx, &output, job, now)?;
        }
        noted = answer;
        apply(tx, output, &mut counts, now)?;
        settled.push(Settled::Applied);
    }
    counts.apply(tx, now)?;
    Ok(settled)
}

/// Whether the job leaves its queue.
fn ends_job(output: &SealedOutput) -> bool {
    !matches!(output, StepOutput::Failed { failure: Failure::Postpone { .. } | Failure::StopShop { .. }, .. })
}

/// Which detail call sent a document.
#[derive(PartialEq, Eq)]
struct DetailAnswer<'a> {
    shop: &'a ShopId,
    resource: &'a str,
    combination: &'a ListParams,
    endpoint: u64,
}

impl<'a> DetailAnswer<'a> {
    fn of(output: &SealedOutput, job: &'a Job) -> Option<DetailAnswer<'a>> {
        let StepOutput::Document { endpoint, .. } = output else { return None };
        let (shop, resource, combination) = (&job.shop, job.resource.as_str(), job.kind.as_ref());
        Some(DetailAnswer { shop, resource, combination, endpoint: *endpoint })
    }
}

/// Notes that a call gave a valid answer. Whether "not found" is one is decided by `not_found`.
fn note_answer(tx: &mut Tx<'_>, output: &SealedOutput, job: &Job, now: Timestamp) -> Result<(), StoreError> {
    match output {
        StepOutput::Page { .. } => stream_status::call_answered(tx, job),
        StepOutput::Document { endpoint, .. } => {
            stream_status::call_answered(tx, job)?;
            not_found::answered(tx, &job.shop, &job.resource, *endpoint, now)
        }
        StepOutput::PageSkipped { .. }
        | StepOutput::Sweep(_)
        | StepOutput::NotFound { .. }
        | StepOutput::Obsolete(_)
        | StepOutput::Failed { .. } => Ok(()),
    }
}

fn is_known(tx: &Tx<'_>, known: &mut HashMap<ShopId, bool>, shop: &ShopId) -> Result<bool, StoreError> {
    if let Some(known) = known.get(shop) {
        return Ok(*known);
    }
    let is_known = shops::is_known(tx, shop)?;
    known.insert(shop.clone(), is_known);
    Ok(is_known)
}

fn apply(tx: &mut Tx<'_>, output: SealedOutput, counts: &mut RunCounts, now: Timestamp) -> Result<(), StoreError> {
    match output {
        StepOutput::Page { lease, page, rule } => list_page::apply(tx, lease.job.kind, page, rule, now),
        StepOutput::PageSkipped { lease, reason, transient, next } => {
            let walk_continues = list_page::pass_over(tx, lease.job.kind.clone(), next, &reason, now)?;
            give_up(tx, lease.job.any_kind(), Parking { cause: reason, transient, walk_continues, doubted: false }, now)
        }
        StepOutput::Sweep(lease) => passes::apply_sweep(tx, &lease.job.kind, now),
        StepOutput::Document { lease: Lease { job, .. }, document, .. } => {
            detail::apply(tx, &job, &document, counts, now)
        }
        StepOutput::NotFound { lease, answer } => not_found::apply(tx, lease.job, &answer, counts, now),
        StepOutput::Obsolete(lease) => {
            counts.obsolete(lease.job.kind.run);
            Ok(())
        }
        StepOutput::Failed { lease, failure } => apply_failure(tx, lease.job, failure, now),
    }
}

fn apply_failure(tx: &mut Tx<'_>, mut job: Job, failure: Failure, now: Timestamp) -> Result<(), StoreError> {
    match failure {
        Failure::Retry { after, error } => {
            stream_status::call_failed(tx, &job, &error, now)?;
            job.last_error = Some(error.class);
            delay(tx, job, now + after, now)
        }
        // The job stays in its place, as before the lease.
        Failure::Postpone { error } => {
            stream_status::call_failed(tx, &job, &error, now)?;
            tx.raise(Signal::Queue(Queue::of(&job)));
            Ok(())
        }
        Failure::StopShop { reason, read_at } => {
            if !shop_state::refuse(tx, &job.shop, read_at, reason, now)? {
                tx.raise(Signal::Queue(Queue::of(&job)));
            }
            Ok(())
        }
        Failure::Park { reason, transient } => {
            give_up(tx, job, Parking { cause: reason, transient, walk_continues: false, doubted: false }, now)
        }
    }
}

fn give_up(tx: &mut Tx<'_>, job: Job, parking: Parking, now: Timestamp) -> Result<(), StoreError> {
    let is_one_document = job.document().is_some() && !parking.cause.class.concerns_all_calls();
    if is_one_document && job.auto_retries == 0 {
        stream_status::document_unreadable(tx, &job, &parking.cause, now)?;
    } else {
        stream_status::call_failed(tx, &job, &parking.cause, now)?;
    }
    park::park_job(tx, job, parking, now)
}

impl Store {
    /// Commits the outputs of attempts, all in one commit. The answers come in the same order.
    ///
    /// # Errors
    /// The engine's errors; then none of them is applied, and their jobs are ready again.
    pub async fn settle(&self, outputs: Vec<StepOutput>) -> Result<Vec<Settled>, StoreError> {
        self.count_work(outputs.len());
        let leases: Arc<[Lease]> = outputs.iter().map(StepOutput::lease).collect();
        let settled = self.settle_leases(outputs, Arc::clone(&leases)).await;
        if settled.is_err() {
            self.abandon(&leases);
        }
        settled
    }

    async fn settle_leases(&self, outputs: Vec<StepOutput>, leases: Arc<[Lease]>) -> Result<Vec<Settled>, StoreError> {
        let mut stopping = BTreeSet::new();
        let mut sealed = Vec::with_capacity(outputs.len());
        for (output, Lease { job, .. }) in outputs.into_iter().zip(&*leases) {
            if matches!(output, StepOutput::Failed { failure: Failure::StopShop { .. }, .. }) {
                stopping.insert(job.shop.clone());
            }
            sealed.push(self.seal(job, output)?);
        }
        let (now, active, parked_max) = (self.now(), SharedLeases::clone(&self.0.active_leases), self.parked_max());
        let counted = self.0.calls.take();
        let adding = counted.clone();
        let archives = self.0.archives_when_settling.load(Ordering::Relaxed);
        let transaction = self.transact(move |tx| {
            let settled = settle(tx, sealed, &leases, now, &active)?;
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

    /// Seals the documents of an output, on the caller's thread.
    fn seal(&self, job: &Job, output: StepOutput) -> Result<SealedOutput, StoreError> {
        let Job { shop, resource, .. } = job;
        let layout = self.index_layout(resource);
        output.convert_bodies(|id, body, facets| match self.shop_key(shop) {
            Ok(key) => {
                let index = layout.as_ref().and_then(|layout| layout.index_of(&key, facets, job.kind.as_ref()));
                let sealed = key.seal_document(&document_context(shop, resource, id), &body)?;
                Ok((sealed, index.map_or(Facets::Unknown, Facets::Hashed)))
            }
            // A shop deleted meanwhile has no key and no jobs: the fence drops the result.
            Err(StoreError::Absent { .. }) => Ok((Vec::new(), Facets::Unknown)),
            Err(error) => Err(error),
        })
    }
}
