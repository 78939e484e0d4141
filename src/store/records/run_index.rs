//! Indexes of runs, changed in the transaction that changes the run, and the rule by which old runs go.
//!
//! Two kinds of entries stand beside each run: by stream, with the run's state as the value, and by resource and class,
//! where open runs are one class and each way of ending is one. A filtered listing merges the few lists that fit, newest
//! first, and reads no other run.
//!
//! Called by `runs` for every change. The lists of an older data directory are built when it is opened.

use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::{Run, RunState};
use crate::store::engine::sled::{Kv, Pair};
use crate::store::keyspace;
use crate::store::tx::committer::run_once;
use crate::store::tx::counters;
use crate::store::{Store, StoreError, Tx, decode, encode};

/// Runs of a stream that are kept whatever their age.
const KEPT_OF_STREAM: usize = 200;
/// Runs that need attention are kept at least so long.
const ATTENTION_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// Old runs looked at when one starts.
const LOOKED_AT: usize = 64;
/// Runs looked at or indexed in one transaction.
const STEP: usize = 500;
/// Between two steps in the background.
const PAUSE: Duration = Duration::from_millis(20);
/// With more shops than this their lists are not merged: the runs of all shops are looked through.
const SHOPS_MERGED_MAX: usize = 64;
/// The last run that the index knows of. Older programs start runs without it.
const INDEXED: &[u8] = b"mruns";

/// Which runs a listing shows.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub shops: Option<BTreeSet<String>>,
    pub resource: Option<String>,
    pub state: Option<RunState>,
}

impl RunFilter {
    fn takes(&self, run: &Run) -> bool {
        self.shops.as_ref().is_none_or(|shops| shops.contains(&run.stream.shop))
            && self.resource.as_ref().is_none_or(|resource| *resource == run.stream.resource)
            && self.state.is_none_or(|state| state == run.state)
    }
}

/// The letter of a state in an index; part of the stored format.
fn letter(state: RunState) -> u8 {
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
const OPEN: u8 = b'o';

fn class(state: RunState) -> u8 {
    match state {
        RunState::Walking | RunState::Fetching => OPEN,
        ended => letter(ended),
    }
}

fn by_stream(run: &Run) -> Vec<u8> {
    let mut key = [b"U".as_slice(), &keyspace::stream(b's', &run.stream)].concat();
    key.extend(run.id.to_be_bytes());
    key
}

fn by_resource(run: &Run) -> Vec<u8> {
    let mut key = [b"U".as_slice(), &keyspace::texts(b'r', &[&run.stream.resource])].concat();
    key.push(class(run.state));
    key.extend(run.id.to_be_bytes());
    key
}

/// Writes a run with its index entries. `before`: the run as it is stored.
pub(crate) fn put(tx: &mut Tx<'_>, before: Option<&Run>, run: &Run) -> Result<(), StoreError> {
    tx.put(keyspace::numbered(b'u', run.id), encode("a run", run)?);
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
pub(crate) fn note_started(tx: &mut Tx<'_>, id: u64) {
    tx.put(INDEXED.to_vec(), id.to_be_bytes().to_vec());
}

/// Deletes a run with its index entries, unless it is needed.
pub(crate) fn delete_if_unneeded(
    tx: &mut Tx<'_>,
    id: u64,
    is_needed: impl FnOnce(&Run) -> bool,
) -> Result<bool, StoreError> {
    let key = keyspace::numbered(b'u', id);
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
fn is_needed(run: &Run, now: i64) -> bool {
    let needs_attention =
        run.parked > 0 || matches!(run.state, RunState::Failed | RunState::Unproved | RunState::Stopped);
    let ended = run.ended_at.unwrap_or(run.started_at);
    run.pending() > 0 || (needs_attention && ended > now.saturating_sub(ATTENTION_MS))
}

/// Deletes old runs of a stream of which one starts; a bounded step.
pub(crate) fn trim_stream(tx: &mut Tx<'_>, run: &Run, now: i64) -> Result<(), StoreError> {
    let own = by_stream(run);
    let Some(prefix) = own.len().checked_sub(8).and_then(|length| own.get(..length)) else { return Ok(()) };
    let found = tx.scan(prefix, prefix, KEPT_OF_STREAM + LOOKED_AT)?;
    for (key, _) in found.iter().take(found.len().saturating_sub(KEPT_OF_STREAM)) {
        if let Some(id) = keyspace::number_of(key) {
            delete_if_unneeded(tx, id, |run| is_needed(run, now))?;
        }
    }
    Ok(())
}

/// Builds the index of a data directory whose last program kept none. Again from the beginning after a crash.
///
/// # Errors
/// The engine's errors.
pub(crate) fn build(kv: &dyn Kv) -> Result<(), StoreError> {
    let last = counters::last(kv, "run")?;
    let indexed = kv.get(INDEXED)?;
    if indexed.is_some() && counters::number(indexed) == last {
        return Ok(());
    }
    loop {
        let stale: Vec<Vec<u8>> =
            kv.scan(b"U", b"U").take(STEP).map(|pair| Ok(pair?.0)).collect::<Result<_, StoreError>>()?;
        if stale.is_empty() {
            break;
        }
        run_once(kv, |tx| {
            stale.into_iter().for_each(|key| tx.delete(key));
            Ok(())
        })?;
    }
    let mut from = b"u".to_vec();
    loop {
        let runs: Vec<Run> =
            kv.scan(b"u", &from).take(STEP).map(|pair| decode("a run", &pair?.1)).collect::<Result<_, StoreError>>()?;
        let Some(newest) = runs.last() else { break };
        from = keyspace::numbered(b'u', newest.id + 1);
        run_once(kv, |tx| {
            for run in &runs {
                tx.put(by_resource(run), Vec::new());
                tx.put(by_stream(run), vec![letter(run.state)]);
            }
            Ok(())
        })?;
    }
    run_once(kv, |tx| {
        note_started(tx, last);
        Ok(())
    })
}

/// The lists under a prefix: the beginnings of their keys, without the run's number.
fn lists(kv: &dyn Kv, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let (mut found, mut from) = (Vec::new(), prefix.to_vec());
    while let Some(pair) = kv.scan(prefix, &from).next() {
        let mut list = pair?.0;
        list.truncate(list.len().saturating_sub(8));
        from = keyspace::after(&list);
        found.push(list);
    }
    Ok(found)
}

impl Store {
    /// Runs that a filter takes, newest first, below the id `before`, at most `limit`.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn find_runs(&self, filter: &RunFilter, before: Option<u64>, limit: usize) -> Result<Vec<Run>, StoreError> {
        let Some(lists) = self.lists_of(filter)? else { return self.runs(before, limit, |run| filter.takes(run)) };
        self.merge(&lists, before, limit, |run| filter.takes(run))
    }

    /// The open runs, newest first.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn open_runs(&self) -> Result<Vec<Run>, StoreError> {
        let mut lists = lists(&*self.0.kv, b"Ur")?;
        lists.retain(|list| list.last() == Some(&OPEN));
        self.merge(&lists, None, usize::MAX, Run::is_open)
    }

    /// The lists that hold all that a filter takes. None: all runs must be looked at.
    fn lists_of(&self, filter: &RunFilter) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let kv = &*self.0.kv;
        if let Some(shops) = filter.shops.as_ref().filter(|shops| shops.len() <= SHOPS_MERGED_MAX) {
            let mut found = Vec::new();
            for shop in shops {
                let texts: Vec<&str> = std::iter::once(shop.as_str()).chain(filter.resource.as_deref()).collect();
                found.extend(lists(kv, &[b"U".as_slice(), &keyspace::texts(b's', &texts)].concat())?);
            }
            return Ok(Some(found));
        }
        if filter.resource.is_none() && filter.state.is_none() {
            return Ok(None);
        }
        let texts: Vec<&str> = filter.resource.as_deref().into_iter().collect();
        let mut found = lists(kv, &[b"U".as_slice(), &keyspace::texts(b'r', &texts)].concat())?;
        let wanted = filter.state.map(class);
        found.retain(|list| wanted.is_none() || list.last().copied() == wanted);
        Ok(Some(found))
    }

    /// Merges lists by their runs' numbers, from the greatest down.
    fn merge(
        &self,
        lists: &[Vec<u8>],
        before: Option<u64>,
        limit: usize,
        takes: impl Fn(&Run) -> bool,
    ) -> Result<Vec<Run>, StoreError> {
        let kv = &*self.0.kv;
        let number = |pair: Option<Result<Pair, StoreError>>| {
            pair.transpose().map(|pair| pair.and_then(|(key, _)| keyspace::number_of(&key)))
        };
        let mut sources = Vec::with_capacity(lists.len());
        let mut heads = BinaryHeap::new();
        for (at, list) in lists.iter().enumerate() {
            let end = before
                .map_or_else(|| keyspace::after(list), |before| [list.as_slice(), &before.to_be_bytes()].concat());
            let mut source = kv.scan_back(list, &end);
            if let Some(head) = number(source.next())? {
                heads.push((head, at));
            }
            sources.push(source);
        }
        let mut found: Vec<Run> = Vec::new();
        while found.len() < limit
            && let Some((id, at)) = heads.pop()
        {
            if let Some(source) = sources.get_mut(at)
                && let Some(next) = number(source.next())?
            {
                heads.push((next, at));
            }
            // Its state may have changed since its list was read, and it may be in another list by now.
            let is_new = found.last().is_none_or(|last| last.id != id);
            found.extend(self.run(id)?.filter(|run| is_new && takes(run)));
        }
        Ok(found)
    }

    /// Deletes the old runs of all streams, in steps and in the background, until none is left or `stop`.
    ///
    /// Cancel safe.
    pub async fn trim_runs(self, stop: CancellationToken) {
        if let Err(error) = self.trim_all(&stop).await {
            error.warn("old runs could not be deleted; the next start tries again");
        }
    }

    async fn trim_all(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut from = b"Us".to_vec();
        while let Some((list, old)) = self.old_runs(from).await? {
            for some in old.chunks(STEP).map(<[u64]>::to_vec) {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(PAUSE) => {}
                }
                let now = self.now();
                self.transact(move |tx| {
                    for id in some {
                        delete_if_unneeded(tx, id, |run| is_needed(run, now))?;
                    }
                    Ok(())
                })
                .await?;
            }
            from = keyspace::after(&list);
        }
        Ok(())
    }

    /// The first stream at or behind a key that has more runs than are kept of one, and those beyond.
    async fn old_runs(&self, mut from: Vec<u8>) -> Result<Option<(Vec<u8>, Vec<u64>)>, StoreError> {
        let store = self.clone();
        crate::store::blocking(move || {
            while let Some(pair) = store.0.kv.scan(b"Us", &from).next() {
                let mut list = pair?.0;
                list.truncate(list.len().saturating_sub(8));
                let newest = store.0.kv.scan_back(&list, &keyspace::after(&list)).skip(KEPT_OF_STREAM);
                let old =
                    newest.map(|pair| Ok(keyspace::number_of(&pair?.0))).collect::<Result<Vec<_>, StoreError>>()?;
                let old: Vec<u64> = old.into_iter().flatten().collect();
                if !old.is_empty() {
                    return Ok(Some((list, old)));
                }
                from = keyspace::after(&list);
            }
            Ok(None)
        })
        .await
    }
}
