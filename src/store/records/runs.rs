//! Runs, their indexes, and which run walks a stream.

use std::time::Duration;

use crate::domain::{Run, RunId, RunState, StreamId, Timestamp};
use crate::store::codec::{decode, number};
use crate::store::engine::kv::Kv;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::texts::{self, ShopKeys};
use crate::store::tx::committer::run_once;
use crate::store::tx::handle::Store;
use crate::store::tx::sequences;
use crate::store::tx::transaction::Tx;

/// A run; its texts are sealed.
pub(crate) fn read(tx: &Tx<'_>, id: RunId) -> Result<Option<Run>, StoreError> {
    tx.get(&keyspace::run(id))?.map(|bytes| decode("a run", &bytes)).transpose()
}

/// A stored run, with its texts in clear.
pub(crate) fn opened(keys: &dyn ShopKeys, bytes: &[u8]) -> Result<Run, StoreError> {
    with_open_texts(keys, decode("a run", bytes)?)
}

fn with_open_texts(keys: &dyn ShopKeys, run: Run) -> Result<Run, StoreError> {
    let shop = run.stream.shop.clone();
    texts::open(keys, &shop, run)
}

/// The number of a new run.
pub(crate) fn next_id(tx: &mut Tx<'_>) -> Result<RunId, StoreError> {
    tx.next("run").map(RunId::from_number)
}

/// The run that walks a stream; none where its record says that it does not, or is gone.
pub(crate) fn walking(tx: &Tx<'_>, stream: &StreamId) -> Result<Option<Run>, StoreError> {
    let Some(bytes) = tx.get(&keyspace::walk(stream))? else { return Ok(None) };
    Ok(read(tx, decode("a walk", &bytes)?)?.filter(|run| run.state == RunState::Walking))
}

/// Whether some stream of this one's resource is being walked.
pub(crate) fn is_walked(tx: &Tx<'_>, stream: &StreamId) -> Result<bool, StoreError> {
    let prefix = keyspace::walks_of(&stream.shop, &stream.resource);
    for pair in tx.pairs(&prefix, &prefix) {
        let run = read(tx, decode("a walk", &pair?.1)?)?;
        if run.is_some_and(|run| run.state == RunState::Walking) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nothing walks the stream any more.
pub(crate) fn leave(tx: &mut Tx<'_>, stream: &StreamId) {
    tx.delete(keyspace::walk(stream));
}

impl Store {
    /// One run.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn run(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        self.0.kv.get(&keyspace::run(id))?.map(|bytes| opened(&*self.0.keys, &bytes)).transpose()
    }

    /// Runs that are wanted, newest first, below the id `before`, at most `limit`. Their texts are sealed when `wanted`
    /// looks at them.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn runs(
        &self,
        before: Option<RunId>,
        limit: usize,
        wanted: impl Fn(&Run) -> bool,
    ) -> Result<Vec<Run>, StoreError> {
        let end = before.map_or_else(|| keyspace::after(keyspace::RUNS), keyspace::run);
        let mut found = Vec::new();
        for pair in self.0.kv.scan_back(keyspace::RUNS, &end) {
            if found.len() == limit {
                break;
            }
            let run: Run = decode("a run", &pair?.1)?;
            if wanted(&run) {
                found.push(with_open_texts(&*self.0.keys, run)?);
            }
        }
        Ok(found)
    }
}

/// Runs of a stream that are kept whatever their age.
pub(crate) const KEPT_OF_STREAM: usize = 200;

/// Runs that need attention are kept at least so long.
pub(crate) const ATTENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Old runs looked at when one starts.
pub(crate) const LOOKED_AT: usize = 64;

/// Runs indexed in one transaction.
const STEP: usize = 500;

/// The last run that the index knows of. Older programs start runs without it.
pub(crate) const INDEXED: &[u8] = b"mruns";

/// The letter of a state in an index; part of the stored format.
pub(crate) fn letter(state: RunState) -> u8 {
    match state {
        RunState::Walking => b'w',
        RunState::Fetching => b'f',
        RunState::Done => b'd',
        RunState::Failed => b'x',
        RunState::Canceled => b'c',
        RunState::Unproved => b'u',
        RunState::Stopped => b's',
    }
}

/// The class of open runs.
pub(crate) const OPEN: u8 = b'o';

pub(crate) fn class(state: RunState) -> u8 {
    match state {
        RunState::Walking | RunState::Fetching => OPEN,
        RunState::Done | RunState::Failed | RunState::Canceled | RunState::Unproved | RunState::Stopped => {
            letter(state)
        }
    }
}

pub(crate) fn by_stream(run: &Run) -> Vec<u8> {
    keyspace::run_of_stream(&run.stream, run.id)
}

pub(crate) fn by_resource(run: &Run) -> Vec<u8> {
    keyspace::run_of_resource(&run.stream.resource, class(run.state), run.id)
}

/// Writes a run with its index entries. `before`: the run as it is stored.
pub(crate) fn put(tx: &mut Tx<'_>, before: Option<&Run>, run: &Run) -> Result<(), StoreError> {
    tx.put(keyspace::run(run.id), texts::encode(tx.keys, &run.stream.shop, "a run", run)?);
    if before.is_some_and(|before| before.state == run.state) {
        return Ok(());
    }
    match before {
        Some(before) if class(before.state) == class(run.state) => {}
        before => {
            if let Some(before) = before {
                tx.delete(by_resource(before));
            }
            tx.put(by_resource(run), Vec::new());
        }
    }
    tx.put(by_stream(run), vec![letter(run.state)]);
    Ok(())
}

/// Notes that a run was started by a program that keeps the index.
pub(crate) fn note_started(tx: &mut Tx<'_>, id: RunId) {
    tx.put(INDEXED.to_vec(), id.number().to_be_bytes().to_vec());
}

/// Deletes a run with its index entries, unless it is needed.
pub(crate) fn delete_if_unneeded(
    tx: &mut Tx<'_>,
    id: RunId,
    is_needed: impl FnOnce(&Run) -> bool,
) -> Result<bool, StoreError> {
    let key = keyspace::run(id);
    let Some(bytes) = tx.get(&key)? else { return Ok(false) };
    let run: Run = decode("a run", &bytes)?;
    if run.is_open() || is_needed(&run) {
        return Ok(false);
    }
    tx.delete(by_stream(&run));
    tx.delete(by_resource(&run));
    tx.delete(key);
    Ok(true)
}

/// Jobs of the run are still to come, or people may want to look at it.
pub(crate) fn is_needed(run: &Run, now: Timestamp) -> bool {
    let needs_attention =
        run.parked > 0 || matches!(run.state, RunState::Failed | RunState::Unproved | RunState::Stopped);
    let ended = run.ended_at.unwrap_or(run.started_at);
    run.pending() > 0 || (needs_attention && ended > now - ATTENTION)
}

/// Deletes old runs of a stream of which one starts; a bounded step.
pub(crate) fn trim_stream(tx: &mut Tx<'_>, run: &Run, now: Timestamp) -> Result<(), StoreError> {
    let own = by_stream(run);
    let Some(prefix) = own.len().checked_sub(8).and_then(|length| own.get(..length)) else { return Ok(()) };
    let found = tx.scan(prefix, prefix, KEPT_OF_STREAM + LOOKED_AT)?;
    for (key, _) in found.iter().take(found.len().saturating_sub(KEPT_OF_STREAM)) {
        if let Some(id) = keyspace::run_of_index(key) {
            delete_if_unneeded(tx, id, |run| is_needed(run, now))?;
        }
    }
    Ok(())
}

/// Builds the index of a data directory whose last program kept none. Again from the beginning after a crash.
///
/// # Errors
/// The engine's errors.
pub(crate) fn build(kv: &dyn Kv, keys: &dyn ShopKeys) -> Result<(), StoreError> {
    let last = sequences::last(kv, "run")?;
    let indexed = kv.get(INDEXED)?;
    if indexed.is_some() && number(indexed) == last {
        return Ok(());
    }
    loop {
        let stale: Vec<Vec<u8>> = kv
            .scan(keyspace::RUN_INDEX, keyspace::RUN_INDEX)
            .take(STEP)
            .map(|pair| Ok(pair?.0))
            .collect::<Result<_, StoreError>>()?;
        if stale.is_empty() {
            break;
        }
        run_once(kv, keys, |tx| {
            stale.into_iter().for_each(|key| tx.delete(key));
            Ok(())
        })?;
    }
    let mut from = keyspace::RUNS.to_vec();
    loop {
        let runs: Vec<Run> = kv
            .scan(keyspace::RUNS, &from)
            .take(STEP)
            .map(|pair| decode("a run", &pair?.1))
            .collect::<Result<_, StoreError>>()?;
        let Some(newest) = runs.last() else { break };
        from = keyspace::after(&keyspace::run(newest.id));
        run_once(kv, keys, |tx| {
            for run in &runs {
                tx.put(by_resource(run), Vec::new());
                tx.put(by_stream(run), vec![letter(run.state)]);
            }
            Ok(())
        })?;
    }
    run_once(kv, keys, |tx| {
        note_started(tx, RunId::from_number(last));
        Ok(())
    })
}
