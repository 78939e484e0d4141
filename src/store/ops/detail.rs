//! Applies a fetched document: its ledger entry, an outbox entry, the next re-read.

use std::time::Duration;

use crate::domain::{
    CallKind, Facets, FetchDetail, FetchedDocument, Job, JobSeq, Priority, Run, RunId, StreamId, Timestamp,
};
use crate::store::codec::{decode, encode};
use crate::store::entry::{self, DocumentHead};
use crate::store::error::StoreError;
use crate::store::keyspace::{self, DueJob, Queue};
use crate::store::ops::invariants;
use crate::store::ops::listing_state::{self, ListingState};
use crate::store::ops::run_progress::RunCounts;
use crate::store::records::jobs::{CLOCK_AHEAD, delay, new_job, undelay};
use crate::store::records::ledger::{self, DocumentNote, GONE, RowNote};
use crate::store::records::outbox;
use crate::store::records::ready_queue::{self, enqueue};
use crate::store::tx::transaction::Tx;

/// Which document of which stream, its row in the ledger, and the run that asked for it.
#[derive(Clone, Copy)]
pub(crate) struct DetailTarget<'a> {
    pub(crate) stream: &'a StreamId,
    pub(crate) run: Option<RunId>,
    pub(crate) id: &'a str,
    pub(crate) row: &'a RowNote,
}

/// Applies a document that was read.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    job: &Job<FetchDetail>,
    document: &FetchedDocument<Vec<u8>>,
    counts: &mut RunCounts,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (stream, FetchDetail { run, id, .. }) = (job.stream(), &job.kind);
    let row = ledger::row_note(tx, &keyspace::row(&stream, id))?;
    let row = row.unwrap_or(RowNote { first_listed_at: now, ..RowNote::default() });
    store(tx, &DetailTarget { stream: &stream, run: *run, id, row: &row }, document, now)?;
    counts.fetched(*run);
    Ok(())
}

/// Notes the document and hands it to the outbox, unless a routine re-read found nothing new.
pub(crate) fn store<B: AsRef<[u8]>>(
    tx: &mut Tx<'_>,
    place: &DetailTarget<'_>,
    fetched: &FetchedDocument<B>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let DetailTarget { stream, run, id, row } = *place;
    let key = keyspace::document(&stream.shop, &stream.resource, id);
    let known: Option<DocumentNote> = ledger::document_note(tx, &key)?;
    if let Some(refresh) = known.as_ref().and_then(|note| note.refresh) {
        drop_refresh(tx, stream, refresh)?;
    }
    let refresh = match fetched.refresh_after {
        Some(pause) => Some(plan_refresh(tx, stream, id, pause, now)?),
        None => None,
    };
    let is_unchanged = |note: &&DocumentNote| note.hash == fetched.hash && note.version != GONE && !note.lost;
    let unchanged = known.as_ref().filter(|note| run.is_none() && is_unchanged(note));
    let version = match unchanged {
        Some(note) => note.version,
        None => {
            let head = entry::DocumentHead {
                shop: stream.shop.clone(),
                resource: stream.resource.clone(),
                combination: stream.combination.clone(),
                id: id.to_owned(),
                fetched_at: now,
                first_listed_at: row.first_listed_at,
                row_hash: row.hash,
                document_hash: fetched.hash,
                run,
                index: match &fetched.facets {
                    Facets::Hashed(index) => Some(index.clone()),
                    Facets::Known(_) | Facets::Unknown => None,
                },
            };
            let version = outbox::append_document(tx, head, fetched.body.as_ref(), now)?;
            // A newer version counts as listed; this one was found not to be.
            if let Some(unlisted_at) = row.unlisted_at
                && !listing_state::is_listed_elsewhere(tx, stream, id)?
            {
                outbox::append_listing(tx, stream, id, Some(unlisted_at), now)?;
            }
            version
        }
    };
    if let Some(newer) = known.as_ref().filter(|note| note.version > version) {
        let what = format!("{} {id} got version {version} after {}", stream.resource, newer.version);
        invariants::pause_shop(tx, &stream.shop, &what, now)?;
    }
    let note = DocumentNote { hash: fetched.hash, version, refresh, unknown: false, ..DocumentNote::gone(now) };
    tx.put(key, encode("a ledger document", &note)?);
    Ok(())
}

/// Plans a re-read `pause` from now.
pub(crate) fn plan_refresh(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    id: &str,
    pause: Duration,
    now: Timestamp,
) -> Result<DueJob, StoreError> {
    let read = FetchDetail { run: None, combination: stream.combination.clone(), id: id.to_owned() };
    let job = new_job(tx, &stream.shop, &stream.resource, Priority::Refresh, read)?;
    let planned = DueJob { due: now + pause, seq: job.seq };
    delay(tx, job, planned.due, now)?;
    Ok(planned)
}

/// Cancels a planned re-read, delayed or ready.
fn drop_refresh(tx: &mut Tx<'_>, stream: &StreamId, planned: DueJob) -> Result<bool, StoreError> {
    if undelay(tx, planned)?.is_some() {
        return Ok(true);
    }
    let queue = Queue { shop: stream.shop.clone(), resource: stream.resource.clone(), kind: CallKind::Detail };
    ready_queue::remove(tx, &queue, Priority::Refresh, planned.seq)
}

/// Notes the new time and seq of a re-read whose seq was `before`, so that it can still be canceled. Does
/// nothing for other jobs.
pub(crate) fn replan(tx: &mut Tx<'_>, job: &Job, before: JobSeq, due: Timestamp) -> Result<(), StoreError> {
    let Some(id) = job.document().filter(|_| job.priority == Priority::Refresh) else { return Ok(()) };
    let key = keyspace::document(&job.shop, &job.resource, id);
    let Some(mut note) = ledger::document_note(tx, &key)? else { return Ok(()) };
    if note.refresh.is_some_and(|planned| planned.seq == before) {
        note.refresh = Some(DueJob { due, seq: job.seq });
        tx.put(key, encode("a ledger document", &note)?);
    }
    Ok(())
}

/// Moves a planned re-read to now, for a full run on request. False when the document is
/// final or its read is under way.
pub(crate) fn read_early(tx: &mut Tx<'_>, run: &Run, id: &str) -> Result<bool, StoreError> {
    let key = keyspace::document(&run.stream.shop, &run.stream.resource, id);
    let Some(mut note) = ledger::document_note(tx, &key)? else { return Ok(false) };
    let Some(planned) = note.refresh else { return Ok(false) };
    if undelay(tx, planned)?.is_none() {
        return Ok(false);
    }
    let read = FetchDetail { run: Some(run.id), combination: run.stream.combination.clone(), id: id.to_owned() };
    let job = new_job(tx, &run.stream.shop, &run.stream.resource, Priority::Refresh, read)?;
    enqueue(tx, &job)?;
    note.refresh = None;
    tx.put(key, encode("a ledger document", &note)?);
    Ok(true)
}

/// Notes that the sink lacks a document, and cancels its planned re-read: the next read is written even if nothing changed.
/// That it was read once stays known, so that it counts as missing if the API does not know it any more. False: that was
/// noted already.
pub(crate) fn note_lost(tx: &mut Tx<'_>, stream: &StreamId, id: &str) -> Result<bool, StoreError> {
    let key = keyspace::document(&stream.shop, &stream.resource, id);
    let Some(note) = ledger::document_note(tx, &key)? else { return Ok(true) };
    if let Some(refresh) = note.refresh {
        drop_refresh(tx, stream, refresh)?;
    }
    let is_news = !note.lost;
    tx.put(key, encode("a ledger document", &DocumentNote { refresh: None, lost: true, ..note })?);
    Ok(is_news)
}

/// Requeues a document that the sink refused, unless another version was read since.
pub(crate) fn requeue(tx: &mut Tx<'_>, head: DocumentHead, sealed: &[u8], now: Timestamp) -> Result<(), StoreError> {
    let (stream, id) = (head.stream(), head.id.clone());
    let key = keyspace::document(&stream.shop, &stream.resource, &id);
    let note: Option<DocumentNote> = ledger::document_note(tx, &key)?;
    if note.as_ref().is_some_and(|note| note.version != GONE && note.hash != head.document_hash) {
        return Ok(());
    }
    let version = outbox::append_document(tx, head, sealed, now)?;
    if let Some(note) = note.filter(|note| note.version != GONE) {
        tx.put(key, encode("a ledger document", &DocumentNote { version, ..note })?);
    }
    // A newer version counts as listed.
    match listing_state::listing_state(tx, &stream.shop, &stream.resource, &id)? {
        ListingState::Unlisted(at) => outbox::append_listing(tx, &stream, &id, Some(at), now),
        ListingState::Listed | ListingState::Unknown => Ok(()),
    }
}

/// Whether the API did not know the document when it was last asked for, or it was read by a clock that was ahead: then
/// its age was misjudged, and with it whether it may still change.
pub(crate) fn is_doubtful(tx: &Tx<'_>, stream: &StreamId, id: &str, now: Timestamp) -> Result<bool, StoreError> {
    let key = keyspace::document(&stream.shop, &stream.resource, id);
    let Some(note) = ledger::document_note(tx, &key)? else { return Ok(false) };
    let is_misjudged = note.refresh.is_none() && note.fetched_at > now + CLOCK_AHEAD;
    Ok(note.unknown || note.version == GONE || is_misjudged)
}

/// Whether the API did not know the document when it was last asked for.
pub(crate) fn is_unknown(tx: &Tx<'_>, shop: &str, resource: &str, id: &str) -> Result<bool, StoreError> {
    Ok(ledger::document_note(tx, &keyspace::document(shop, resource, id))?.is_some_and(|note| note.unknown))
}

/// Forgets that a document which was never read is gone: that is not believed any more.
pub(crate) fn forget_gone(tx: &mut Tx<'_>, shop: &str, resource: &str, id: &str) -> Result<(), StoreError> {
    let key = keyspace::document(shop, resource, id);
    if ledger::document_note(tx, &key)?.is_some_and(|note| note.version == GONE) {
        tx.delete(key);
    }
    Ok(())
}

/// The API does not know the id any more. What the sink holds stays: absence is not deletion.
pub(crate) fn apply_gone(
    tx: &mut Tx<'_>,
    job: &Job<FetchDetail>,
    counts: &mut RunCounts,
    now: Timestamp,
) -> Result<(), StoreError> {
    let key = keyspace::document(&job.shop, &job.resource, &job.kind.id);
    let note = match tx.get(&key)? {
        Some(bytes) => DocumentNote { refresh: None, unknown: true, ..decode("a ledger document", &bytes)? },
        None => DocumentNote::gone(now),
    };
    tx.put(key, encode("a ledger document", &note)?);
    counts.gone(job.kind.run);
    Ok(())
}
