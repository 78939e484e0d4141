//! Store-wide counters, and the number of commits.
//!
//! The committer adds up what each group changes and stores one value with every commit.

use std::collections::BTreeMap;

use crate::store::codec::number;
use crate::store::engine::kv::{Change, Kv};
use crate::store::error::StoreError;

pub(crate) const COUNTERS_KEY: &[u8] = b"mbooks";

/// How much work there is, store-wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that could run now, the leased ones included.
    pub ready_jobs: u64,
    /// Jobs that wait for a due time (pauses after failures, re-reads).
    pub waiting_jobs: u64,
    /// Of the waiting ones, those that failed before and will be tried again.
    pub retrying_jobs: u64,
    /// Attempts under way.
    pub leased_jobs: u64,
    pub outbox: u64,
    /// Sealed bytes in the outbox.
    pub outbox_bytes: u64,
    pub parked: u64,
    /// Runs that are walking or fetching.
    pub open_runs: u64,
}

/// How much each counter changes; the committer adds it to what is stored, once a group.
pub(crate) type CounterChanges = BTreeMap<Counter, i64>;

/// The counters; their order is part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    Ready,
    Waiting,
    Retrying,
    Outbox,
    OutboxBytes,
    Parked,
    OpenRuns,
}

const COUNTERS: usize = 7;

/// How many commits there were, and what the counters are after the last one. One value, written by every commit: a
/// log that lost a part of it lost all that came after, and the number of commits shows that.
#[derive(Default)]
pub(crate) struct StoredCounters {
    commits: u64,
    counts: [u64; COUNTERS],
}

impl StoredCounters {
    /// None yet: all are 0.
    pub(crate) fn read(bytes: Option<Vec<u8>>) -> Result<StoredCounters, StoreError> {
        let Some(bytes) = bytes else { return Ok(StoredCounters::default()) };
        let (numbers, []) = bytes.as_chunks::<8>() else { return Err(StoredCounters::unreadable()) };
        let [commits, counts @ ..] = numbers else { return Err(StoredCounters::unreadable()) };
        let counts: &[[u8; 8]; COUNTERS] = counts.try_into().map_err(|_| StoredCounters::unreadable())?;
        Ok(StoredCounters { commits: u64::from_be_bytes(*commits), counts: counts.map(u64::from_be_bytes) })
    }

    /// Reads the counters of an older build, which had a key each.
    fn of_older_build(kv: &dyn Kv) -> Result<StoredCounters, StoreError> {
        let mut books = StoredCounters::default();
        let names = ["ready", "waiting", "retrying", "outbox", "outbox_bytes", "parked", "open_runs"];
        for (count, name) in books.counts.iter_mut().zip(names) {
            *count = number(kv.get(&[b"mcount.", name.as_bytes()].concat())?);
        }
        Ok(books)
    }

    fn unreadable() -> StoreError {
        StoreError::Record { what: "the counters".to_owned(), detail: "its length is wrong".to_owned() }
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or_default()
    }

    fn bytes(&self) -> Vec<u8> {
        std::iter::once(&self.commits).chain(&self.counts).flat_map(|number| number.to_be_bytes()).collect()
    }
}

/// Migrates the counters of an older build.
pub(crate) fn carry_over(kv: &dyn Kv) -> Result<(), StoreError> {
    match kv.get(COUNTERS_KEY)? {
        Some(_) => Ok(()),
        None => kv.apply(&[(COUNTERS_KEY.to_vec(), Some(StoredCounters::of_older_build(kv)?.bytes()))]),
    }
}

/// The counters of another data directory, whose number of commits is not taken over.
pub(crate) fn of_hand_over(kv: &dyn Kv, theirs: &[u8]) -> Result<Vec<u8>, StoreError> {
    let theirs = StoredCounters::read(Some(theirs.to_vec()))?;
    Ok(StoredCounters { commits: commits(kv)?, ..theirs }.bytes())
}

/// The number of the commit to come, and the change that keeps it and the counters.
pub(crate) fn committed(kv: &dyn Kv, counts: &CounterChanges) -> Result<(u64, Change), StoreError> {
    let mut books = StoredCounters::read(kv.get(COUNTERS_KEY)?)?;
    books.commits += 1;
    for (counter, by) in counts {
        if let Some(count) = books.counts.get_mut(*counter as usize) {
            *count = count.saturating_add_signed(*by);
        }
    }
    Ok((books.commits, (COUNTERS_KEY.to_vec(), Some(books.bytes()))))
}

/// The counters as of the last commit.
pub(crate) fn stored(kv: &dyn Kv) -> Result<StoredCounters, StoreError> {
    StoredCounters::read(kv.get(COUNTERS_KEY)?)
}

/// How many commits are durable.
pub(crate) fn commits(kv: &dyn Kv) -> Result<u64, StoreError> {
    Ok(StoredCounters::read(kv.get(COUNTERS_KEY)?)?.commits)
}
