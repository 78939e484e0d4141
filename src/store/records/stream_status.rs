//! What is recorded of each stream's last runs and calls, for the health.
//!
//! Changed only inside transactions that commit anyway: the one that ends a run, and those that settle calls. A call
//! that fails as the one before did writes nothing.

use std::collections::HashMap;

use crate::store::keyspace;

use crate::store::records::runs;

use crate::domain::{CallKind, Cause, Checkpoint, Job, JobKind, Run, StreamId, StreamStatus};
use crate::store::{Store, StoreError, Tx, decode, encode};

fn read(tx: &Tx<'_>, stream: &StreamId) -> Result<StreamStatus, StoreError> {
    decoded(tx.get(&keyspace::stream(b'S', stream))?, || runs::checkpoint(tx, stream))
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
    tx.put(keyspace::stream(b'S', stream), encode("a stream's status", status)?);
    Ok(())
}

/// Makes the record of a stream that has none when a run starts: the checkpoint moves before the run is done.
pub(crate) fn run_starts(tx: &mut Tx<'_>, stream: &StreamId) -> Result<(), StoreError> {
    if tx.get(&keyspace::stream(b'S', stream))?.is_some() {
        return Ok(());
    }
    let status = read(tx, stream)?;
    put(tx, stream, &status)
}

/// Notes the end of a run; part of the transaction that ends it.
pub(crate) fn run_ended(tx: &mut Tx<'_>, run: &Run, now: i64) -> Result<(), StoreError> {
    let before = read(tx, &run.stream)?;
    let mut status = before.clone();
    status.run_ended(run, now);
    if status == before { Ok(()) } else { put(tx, &run.stream, &status) }
}

/// Notes that a job's call failed, unless that is known.
pub(crate) fn call_failed(tx: &mut Tx<'_>, job: &Job, cause: &Cause, now: i64) -> Result<(), StoreError> {
    let stream = job.stream();
    let mut status = read(tx, &stream)?;
    let is_news = status.call_failed(kind(job), cause, now);
    if is_news { put(tx, &stream, &status) } else { Ok(()) }
}

/// Notes that a job's call was answered, where one before it failed.
pub(crate) fn call_answered(tx: &mut Tx<'_>, job: &Job) -> Result<(), StoreError> {
    let stream = job.stream();
    let mut status = read(tx, &stream)?;
    if status.call_answered(kind(job)) { put(tx, &stream, &status) } else { Ok(()) }
}

fn kind(job: &Job) -> CallKind {
    match job.kind {
        JobKind::ListPage { .. } | JobKind::Sweep { .. } => CallKind::List,
        JobKind::FetchDetail { .. } => CallKind::Detail,
    }
}

impl Store {
    /// What is recorded of a stream.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn stream_status(&self, stream: &StreamId) -> Result<StreamStatus, StoreError> {
        decoded(self.0.kv.get(&keyspace::stream(b'S', stream))?, || self.checkpoint(stream))
    }

    /// How much is parked of a resource of a shop.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_of_resource(&self, shop: &str, resource: &str) -> Result<u64, StoreError> {
        Ok(crate::store::tx::counters::number(self.0.kv.get(&keyspace::texts(b'Y', &[shop, resource]))?))
    }

    /// How much is parked of each resource of each shop; those without anything are left out.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_by_resource(&self) -> Result<HashMap<(String, String), u64>, StoreError> {
        let mut found = HashMap::new();
        for pair in self.0.kv.scan(b"Y", b"Y") {
            let (key, bytes) = pair?;
            let mut parts = key.get(1..).unwrap_or_default().split(|byte| *byte == 0);
            let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            found.insert((part(), part()), crate::store::tx::counters::number(Some(bytes)));
        }
        Ok(found)
    }
}
