//! Filtered listings of runs over their indexes, and the deletion of old runs.
//!
//! Each run has two index entries (`records::runs`): by stream, and by resource and class of state, where open runs are
//! one class and each way of ending is one. A filtered listing merges the few lists that fit, newest first, and reads no
//! other run. Called by the API, the status and the housekeeping.

use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::{Run, RunId, RunState, ShopId};
use crate::store::engine::kv::{Kv, Pair};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::runs::{self, KEPT_OF_STREAM, OPEN};
use crate::store::tx::handle::{Store, blocking};

/// Runs looked at or indexed in one transaction.
const STEP: usize = 500;
/// Between two steps in the background.
const PAUSE: Duration = Duration::from_millis(20);
/// With more shops than this their lists are not merged: the runs of all shops are looked through.
const SHOPS_MERGED_MAX: usize = 64;

/// Which runs a listing shows.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub shops: Option<BTreeSet<ShopId>>,
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
    pub fn find_runs(&self, filter: &RunFilter, before: Option<RunId>, limit: usize) -> Result<Vec<Run>, StoreError> {
        let Some(lists) = self.lists_of(filter)? else { return self.runs(before, limit, |run| filter.takes(run)) };
        self.merge(&lists, before, limit, |run| filter.takes(run))
    }

    /// The open runs, newest first.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn open_runs(&self) -> Result<Vec<Run>, StoreError> {
        let mut lists = lists(&*self.0.kv, keyspace::RUNS_BY_RESOURCE)?;
        lists.retain(|list| list.last() == Some(&OPEN));
        self.merge(&lists, None, usize::MAX, Run::is_open)
    }

    /// The lists that hold all that a filter takes. None: all runs must be looked at.
    fn lists_of(&self, filter: &RunFilter) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let kv = &*self.0.kv;
        if let Some(shops) = filter.shops.as_ref().filter(|shops| shops.len() <= SHOPS_MERGED_MAX) {
            let mut found = Vec::new();
            for shop in shops {
                found.extend(lists(kv, &keyspace::runs_of_shop(shop, filter.resource.as_deref()))?);
            }
            return Ok(Some(found));
        }
        if filter.resource.is_none() && filter.state.is_none() {
            return Ok(None);
        }
        let mut found = lists(kv, &keyspace::runs_of_resource(filter.resource.as_deref()))?;
        let wanted = filter.state.map(runs::class);
        found.retain(|list| wanted.is_none() || list.last().copied() == wanted);
        Ok(Some(found))
    }

    /// Merges lists by their runs' numbers, from the greatest down.
    fn merge(
        &self,
        lists: &[Vec<u8>],
        before: Option<RunId>,
        limit: usize,
        takes: impl Fn(&Run) -> bool,
    ) -> Result<Vec<Run>, StoreError> {
        let kv = &*self.0.kv;
        let number = |pair: Option<Result<Pair, StoreError>>| {
            pair.transpose().map(|pair| pair.and_then(|(key, _)| keyspace::run_of_index(&key)))
        };
        let mut sources = Vec::with_capacity(lists.len());
        let mut heads = BinaryHeap::new();
        for (at, list) in lists.iter().enumerate() {
            let end = before.map_or_else(
                || keyspace::after(list),
                |before| [list.as_slice(), &before.number().to_be_bytes()].concat(),
            );
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
        let mut from = keyspace::RUNS_BY_STREAM.to_vec();
        while let Some((list, old)) = self.old_runs(from).await? {
            for some in old.chunks(STEP).map(<[RunId]>::to_vec) {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(PAUSE) => {}
                }
                let now = self.now();
                self.transact(move |tx| {
                    for id in some {
                        runs::delete_if_unneeded(tx, id, |run| runs::is_needed(run, now))?;
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
    async fn old_runs(&self, mut from: Vec<u8>) -> Result<Option<(Vec<u8>, Vec<RunId>)>, StoreError> {
        let store = self.clone();
        blocking(move || {
            while let Some(pair) = store.0.kv.scan(keyspace::RUNS_BY_STREAM, &from).next() {
                let mut list = pair?.0;
                list.truncate(list.len().saturating_sub(8));
                let newest = store.0.kv.scan_back(&list, &keyspace::after(&list)).skip(KEPT_OF_STREAM);
                let old =
                    newest.map(|pair| Ok(keyspace::run_of_index(&pair?.0))).collect::<Result<Vec<_>, StoreError>>()?;
                let old: Vec<RunId> = old.into_iter().flatten().collect();
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
