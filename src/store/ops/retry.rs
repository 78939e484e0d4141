//! Retrying what was parked: on request, or automatically after a walk.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::{Job, JobKind, Mode, Parked, ProofState, Run, RunState, ShopId, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::entry::EntryHead;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::detail;
use crate::store::ops::listing_state::{self, ListingState};
use crate::store::ops::park::{AUTO_RETRIED_MAX, AUTO_RETRY_AFTER_MAX};
use crate::store::ops::run_progress;
use crate::store::records::dead_letters::{self, AutoRetry, DeadLetter, SEQUENCE, What};
use crate::store::records::detail_proofs;
use crate::store::records::ledger::{self, RowNote};
use crate::store::records::outbox;
use crate::store::records::ready_queue::enqueue;
use crate::store::records::runs;
use crate::store::tx::handle::{Store, blocking};
use crate::store::tx::sequences;
use crate::store::tx::transaction::Tx;

/// Records requeued by one commit when all of a shop are retried, and their bytes.
pub(crate) const RETRIED_MAX: usize = 500;

/// Reads that were "not found" which one walk tries again while their call is not proved to work.
const PROBES_MAX: usize = 3;

pub(crate) const RETRIED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Automatic retry after a walk to the end of a list: requeues reads of its stream that may succeed by now, and deletes
/// dead letters of pages that the walk has read. What was parked during an outage needs no request.
pub(crate) fn auto_retry(tx: &mut Tx<'_>, walked: &Run, is_whole: bool, now: Timestamp) -> Result<(), StoreError> {
    let prefix = keyspace::parked_jobs(&walked.stream);
    let proof = detail_proofs::read(tx, &walked.stream.shop, &walked.stream.resource)?;
    let proof = proof.map_or(ProofState::Untried, |proof| proof.state);
    let (mut found, mut probes) = (Vec::new(), 0);
    for pair in tx.pairs(&prefix, &prefix) {
        let (key, bytes) = pair?;
        let note: AutoRetry = decode("a parked job", &bytes)?;
        // A clock that was ahead once must not put it off for ever.
        let mut is_due = note.not_before <= now || note.not_before > now + AUTO_RETRY_AFTER_MAX;
        if note.doubted && proof == ProofState::Answered {
            is_due = true;
        } else if note.doubted {
            // One that is answered proves the call; then all others are read too.
            is_due = probes < PROBES_MAX && (is_due || proof == ProofState::Untried);
            if !is_due {
                continue;
            }
            probes += 1;
        }
        found.push((key, note, is_due));
        if found.len() == AUTO_RETRIED_MAX {
            break;
        }
    }
    for (key, note, is_due) in found {
        match note.page_of {
            None if is_due => drop(retry(tx, note.parked, true, now)?),
            // A walk for news does not read what a whole one gave up.
            Some(mode) if is_whole && (walked.mode == Mode::Full || mode == Mode::Incremental) => {
                dead_letters::forget(tx, note.parked)?;
                tx.delete(key);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tries the reads of a resource again that were parked until its detail call is proved to work. Returns whether there may
/// be more.
pub(crate) fn retry_doubted(tx: &mut Tx<'_>, shop: &str, resource: &str, now: Timestamp) -> Result<bool, StoreError> {
    let prefix = keyspace::parked_jobs_of(shop, resource);
    let mut found = Vec::new();
    for pair in tx.pairs(&prefix, &prefix) {
        let note: AutoRetry = decode("a parked job", &pair?.1)?;
        if note.doubted {
            found.push(note.parked);
        }
        if found.len() == RETRIED_MAX {
            break;
        }
    }
    for id in &found {
        retry(tx, *id, true, now)?;
    }
    Ok(found.len() == RETRIED_MAX)
}

/// What became of a parked record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// There is no such record.
    Absent,
    /// Its job or entry is in its queue again.
    Queued,
    /// A row of a list: only a full walk of this resource reads it again.
    Row { shop: ShopId, resource: String },
}

/// How many parked records were put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetriedAll {
    pub count: u64,
    /// Resources with rows of lists among them: only a full walk reads those again.
    pub to_walk: BTreeSet<String>,
}

pub(crate) fn retry(tx: &mut Tx<'_>, id: u64, automatic: bool, now: Timestamp) -> Result<Retried, StoreError> {
    let key = keyspace::parked(id);
    let Some(bytes) = tx.get(&key)? else { return Ok(Retried::Absent) };
    let record: DeadLetter = decode("a parked record", &bytes)?;
    let mut retried = Retried::Queued;
    match record.what {
        What::Job { mut job } => {
            tx.delete(keyspace::parked_job(&job.stream(), id));
            job.auto_retries = if automatic { job.auto_retries.saturating_add(1) } else { 0 };
            retry_job(tx, &job, now)?;
        }
        What::Entry { head, sealed } => {
            if let EntryHead::Document(head) = &head {
                run_progress::update(tx, head.run, now, |run| run.refused = run.refused.saturating_sub(1))?;
            }
            let sealed = STANDARD
                .decode(sealed)
                .map_err(|error| StoreError::Record { what: format!("parked {id}"), detail: error.to_string() })?;
            requeue(tx, head, &sealed, now)?;
        }
        What::Row { key } => {
            // Until a walk has read it again, it counts as listed and not read.
            if let Ok(key) = STANDARD.decode(key)
                && let Some(note) = ledger::row_note(tx, &key)?
            {
                tx.put(key, encode("a ledger row", &RowNote { parked: None, ..note })?);
            }
            let Parked { shop_id, resource, .. } = &record.parked;
            retried = Retried::Row { shop: shop_id.clone(), resource: resource.clone() };
        }
    }
    tx.delete(key);
    dead_letters::count(tx, &record.parked.shop_id, &record.parked.resource, -1)?;
    Ok(retried)
}

/// Requeues an entry that the sink refused, unless something newer is known by now: that is under way, in the sink, or
/// parked itself, and must not be overwritten.
pub(crate) fn requeue(tx: &mut Tx<'_>, head: EntryHead, sealed: &[u8], now: Timestamp) -> Result<(), StoreError> {
    match head {
        EntryHead::Document(head) => detail::requeue(tx, head, sealed, now),
        EntryHead::Listing { shop, resource, id, no_longer_listed_at } => {
            let no_longer_listed_at = match listing_state::listing_state(tx, &shop, &resource, &id)? {
                ListingState::Unknown => no_longer_listed_at,
                ListingState::Listed => None,
                ListingState::Unlisted(at) => Some(at),
            };
            outbox::append(tx, &EntryHead::Listing { shop, resource, id, no_longer_listed_at }, sealed, now).map(drop)
        }
        head @ (EntryHead::Checkpoint { .. } | EntryHead::Shop { .. } | EntryHead::ShopDeleted { .. }) => {
            outbox::append(tx, &head, sealed, now).map(drop)
        }
    }
}

/// Retries the first of these, as many as one commit takes; returns the last one looked at, and those that still existed.
pub(crate) fn retry_some(tx: &mut Tx<'_>, found: &[Parked], now: Timestamp) -> Result<(u64, RetriedAll), StoreError> {
    let (mut done, mut all) = (0, RetriedAll::default());
    for parked in found {
        // Documents may be large, and one of any size must pass.
        if all.count > 0 && tx.size() > RETRIED_BYTES_MAX {
            break;
        }
        let retried = retry(tx, parked.id, false, now)?;
        all.count += u64::from(retried != Retried::Absent);
        if let Retried::Row { resource, .. } = retried {
            all.to_walk.insert(resource);
        }
        done = parked.id;
    }
    Ok((done, all))
}

pub(crate) fn retry_job(tx: &mut Tx<'_>, job: &Job, now: Timestamp) -> Result<(), StoreError> {
    if let Some(run) = job.walk() {
        // Its run was deleted: the next walk reads the page.
        if runs::read(tx, run)?.is_none() {
            return Ok(());
        }
        // A newer walk reads this page too, and sweeps.
        if runs::walking(tx, &job.stream())?.is_some() {
            return Ok(());
        }
        tx.put(keyspace::walk(&job.stream()), encode("a walk", &run)?);
        let from = if let JobKind::ListPage(page) = &job.kind { Some(page.page) } else { None };
        run_progress::update(tx, Some(run), now, |run| {
            run.state = RunState::Walking;
            (run.error, run.error_class) = (None, None);
            // It reads the pages from here on again.
            run.doubts.retain(|doubt| from.is_some_and(|from| doubt.page < from));
        })?;
    } else {
        run_progress::update(tx, job.run(), now, |run| {
            run.parked = run.parked.saturating_sub(1);
            if run.state == RunState::Done {
                run.state = RunState::Fetching;
            }
        })?;
    }
    enqueue(tx, job)
}

impl Store {
    /// Puts all back that is parked of a shop, or of one resource of it, as [`Store::retry_parked`] does one; in
    /// bounded steps, so that it blocks no other work. What is parked meanwhile is not retried: that could
    /// go on for ever.
    ///
    /// # Errors
    /// The engine's errors; what was put back by then stays so.
    pub async fn retry_all_parked(&self, shop: &str, resource: Option<&str>) -> Result<RetriedAll, StoreError> {
        let last = sequences::last(&*self.0.kv, SEQUENCE)?;
        let (mut after, mut retried) = (None, RetriedAll::default());
        loop {
            let (store, shop, resource) = (self.clone(), ShopId::from(shop), resource.map(str::to_owned));
            let found = blocking(move || {
                let is_asked = |parked: &Parked| resource.as_ref().is_none_or(|name| parked.resource == *name);
                store.parked(after, RETRIED_MAX, |parked| {
                    parked.id <= last && parked.shop_id == shop && is_asked(parked)
                })
            });
            let found = found.await?;
            if found.is_empty() {
                return Ok(retried);
            }
            let now = self.now();
            let (done, some) = self.transact(move |tx| retry_some(tx, &found, now)).await?;
            after = Some(done);
            retried.count += some.count;
            retried.to_walk.extend(some.to_walk);
        }
    }

    /// Puts a parked job, document or row back with fresh attempts.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn retry_parked(&self, id: u64) -> Result<Retried, StoreError> {
        let now = self.now();
        self.transact(move |tx| retry(tx, id, false, now)).await
    }
}
