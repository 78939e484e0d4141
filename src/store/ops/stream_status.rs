//! The status of each stream (`S`): results of its last runs and calls, for the health.
//!
//! Changed only inside transactions that commit anyway: the one that ends a run, and those that settle calls. A call
//! that fails as the one before did writes nothing.

use std::collections::BTreeSet;

use crate::domain::{Cause, Checkpoint, Job, Run, StreamId, StreamStatus, Timestamp};
use crate::store::codec::decode;
use crate::store::entry::DocumentHead;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::checkpoints;
use crate::store::records::shops;
use crate::store::texts;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

fn read(tx: &Tx<'_>, stream: &StreamId) -> Result<StreamStatus, StoreError> {
    decoded(tx.get(&keyspace::stream_status(stream))?, || checkpoints::checkpoint(tx, stream))
}

/// A stream's record. One without a record was not walked by a version that keeps them: there the start of the last
/// walk counts as the last success.
fn decoded(
    record: Option<Vec<u8>>,
    checkpoint: impl FnOnce() -> Result<Checkpoint, StoreError>,
) -> Result<StreamStatus, StoreError> {
    match record {
        Some(bytes) => decode("a stream's status", &bytes),
        None => Ok(StreamStatus { last_success_at: checkpoint()?.walked_at, ..StreamStatus::default() }),
    }
}

fn put(tx: &mut Tx<'_>, stream: &StreamId, status: &StreamStatus) -> Result<(), StoreError> {
    let record = texts::encode(tx.keys, &stream.shop, "a stream's status", status)?;
    tx.put(keyspace::stream_status(stream), record);
    Ok(())
}

/// Makes the record of a stream that has none when a run starts: the checkpoint moves before the run is done.
pub(crate) fn run_starts(tx: &mut Tx<'_>, stream: &StreamId) -> Result<(), StoreError> {
    if tx.get(&keyspace::stream_status(stream))?.is_some() {
        return Ok(());
    }
    let status = read(tx, stream)?;
    put(tx, stream, &status)
}

/// Notes the end of a run; part of the transaction that ends it.
pub(crate) fn run_ended(tx: &mut Tx<'_>, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    let before = read(tx, &run.stream)?;
    let mut status = before.clone();
    status.run_ended(run, now);
    if status == before { Ok(()) } else { put(tx, &run.stream, &status) }
}

/// Notes that a job's call failed, unless that is known.
pub(crate) fn call_failed(tx: &mut Tx<'_>, job: &Job, cause: &Cause, now: Timestamp) -> Result<(), StoreError> {
    change(tx, &job.stream(), |status| status.call_failed(job.kind.call(), cause, now))
}

/// Notes that a job's call was answered, where one before it failed.
pub(crate) fn call_answered(tx: &mut Tx<'_>, job: &Job) -> Result<(), StoreError> {
    change(tx, &job.stream(), |status| status.call_answered(job.kind.call()))
}

/// Notes that a detail call was answered with what cannot be read, for the first time for this document.
pub(crate) fn document_unreadable(tx: &mut Tx<'_>, job: &Job, cause: &Cause, now: Timestamp) -> Result<(), StoreError> {
    change(tx, &job.stream(), |status| status.document_unreadable(cause, now))
}

/// Notes that the sink refused a document.
pub(crate) fn document_refused(
    tx: &mut Tx<'_>,
    of: &DocumentHead,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    // A deleted shop keeps no record.
    if !shops::is_known(tx, &of.shop)? {
        return Ok(());
    }
    change(tx, &of.stream(), |status| status.document_refused(&Cause::from(reason), now))
}

/// Notes that the sink took documents of these streams.
pub(crate) fn documents_written(tx: &mut Tx<'_>, streams: BTreeSet<StreamId>) -> Result<(), StoreError> {
    for stream in streams {
        change(tx, &stream, StreamStatus::document_written)?;
    }
    Ok(())
}

/// Notes that MySQL has a stream's checkpoint.
pub(crate) fn checkpoint_delivered(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    checkpoint: &Checkpoint,
) -> Result<(), StoreError> {
    // A deleted shop keeps no record.
    if !shops::is_known(tx, &stream.shop)? {
        return Ok(());
    }
    change(tx, stream, |status| status.checkpoint_delivered(checkpoint.walked_at))
}

/// Writes a stream's record if a change says that there is something new.
fn change(
    tx: &mut Tx<'_>,
    stream: &StreamId,
    change: impl FnOnce(&mut StreamStatus) -> bool,
) -> Result<(), StoreError> {
    let mut status = read(tx, stream)?;
    if change(&mut status) { put(tx, stream, &status) } else { Ok(()) }
}

impl Store {
    /// What is recorded of a stream.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn stream_status(&self, stream: &StreamId) -> Result<StreamStatus, StoreError> {
        let status = decoded(self.0.kv.get(&keyspace::stream_status(stream))?, || self.checkpoint(stream))?;
        texts::open(&*self.0.keys, &stream.shop, status)
    }
}
