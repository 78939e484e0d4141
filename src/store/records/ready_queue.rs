//! Ready jobs (`j`). The details that one page asked for share a record, since they differ in seq and id only: a write costs
//! the engine much the same whatever its size.
//!
//! Called inside transactions by the queue, the walk and the ledger. A record's key never changes; a
//! record without jobs is removed with the last of them. The key of a job alone is its seq; the key of a
//! record of several is no job's seq.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::domain::{Job, JobKind, JobSeq, Lease, Priority};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace::{self, Queue};
use crate::store::tx::active_leases::ActiveLeases;
use crate::store::tx::counters::Counter;
use crate::store::tx::handle::{Store, lock_leases};
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// Jobs of one record: a page or two, and about a kilobyte.
const JOBS_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
struct QueuedJobs {
    job: Job,
    /// Seq and id of further jobs, alike in all else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more: Vec<(JobSeq, String)>,
}

/// A job that may be leased, and its record.
pub(crate) struct SelectedJob {
    pub(crate) queue: Queue,
    pub(crate) record: u64,
    pub(crate) job: Job,
}

impl QueuedJobs {
    fn len(&self) -> usize {
        1 + self.more.len()
    }

    /// Its jobs that are wanted, in order, at most `limit`.
    fn jobs(&self, limit: usize, mut wanted: impl FnMut(JobSeq, &str) -> bool) -> Vec<Job> {
        let own = self.job.document().unwrap_or_default();
        let all = std::iter::once((self.job.seq, own)).chain(self.more.iter().map(|(seq, id)| (*seq, id.as_str())));
        // Asked one by one: what is wanted may depend on what was taken.
        let taken = all.filter(|(seq, id)| wanted(*seq, id)).take(limit);
        taken.map(|(seq, id)| self.job.sibling(seq, id.to_owned())).collect()
    }

    /// Takes the jobs out that are wanted; what is left, if anything.
    fn without(mut self, wanted: &HashSet<JobSeq>) -> Option<QueuedJobs> {
        self.more.retain(|(seq, _)| !wanted.contains(seq));
        if !wanted.contains(&self.job.seq) {
            return Some(self);
        }
        let (seq, id) = if self.more.is_empty() { return None } else { self.more.remove(0) };
        Some(QueuedJobs { job: self.job.sibling(seq, id), more: self.more })
    }
}

fn read(tx: &Tx<'_>, key: &[u8]) -> Result<Option<QueuedJobs>, StoreError> {
    tx.get(key)?.map(|bytes| decode("ready jobs", &bytes)).transpose()
}

fn put(tx: &mut Tx<'_>, key: Vec<u8>, record: &QueuedJobs) -> Result<(), StoreError> {
    tx.put(key, encode("ready jobs", record)?);
    Ok(())
}

/// Adds a job to its queue, in a record of its own under its seq.
pub(crate) fn enqueue(tx: &mut Tx<'_>, job: &Job) -> Result<(), StoreError> {
    let queue = Queue::of(job);
    put(tx, queue.key(job.priority, job.seq.number()), &QueuedJobs { job: job.clone(), more: Vec::new() })?;
    tx.count(Counter::Ready, 1);
    tx.raise(Signal::Queue(queue));
    Ok(())
}

/// Adds one job for each id, in their order; `pattern` is what they have in common.
pub(crate) fn enqueue_alike(tx: &mut Tx<'_>, pattern: &Job, ids: Vec<String>) -> Result<(), StoreError> {
    tx.count(Counter::Ready, i64::try_from(ids.len()).unwrap_or(i64::MAX));
    let mut ids = ids.into_iter().peekable();
    while ids.peek().is_some() {
        let some: Vec<String> = ids.by_ref().take(JOBS_MAX).collect();
        // The record's number is no job's: one that comes back alone must not take its place.
        let number = tx.next_many("job", 1 + some.len() as u64)?;
        let mut jobs: Vec<(JobSeq, String)> = (number + 1..).map(JobSeq::from_number).zip(some).collect();
        let (seq, id) = jobs.remove(0);
        let job = pattern.sibling(seq, id);
        put(tx, Queue::of(&job).key(job.priority, number), &QueuedJobs { job, more: jobs })?;
    }
    tx.raise(Signal::Queue(Queue::of(pattern)));
    Ok(())
}

/// Removes a job that has a record of its own, if it is there.
pub(crate) fn remove(tx: &mut Tx<'_>, queue: &Queue, priority: Priority, seq: JobSeq) -> Result<bool, StoreError> {
    let key = queue.key(priority, seq.number());
    let present = tx.get(&key)?.is_some();
    if present {
        tx.delete(key);
        tx.count(Counter::Ready, -1);
    }
    Ok(present)
}

/// How many jobs a record holds.
pub(crate) fn count(bytes: &[u8]) -> Result<usize, StoreError> {
    decode::<QueuedJobs>("ready jobs", bytes).map(|record| record.len())
}

/// A record as it is written now.
pub(crate) fn rewritten(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    encode("ready jobs", &decode::<QueuedJobs>("ready jobs", bytes)?)
}

/// The documents that a record's jobs are for.
pub(crate) fn document_ids(bytes: &[u8]) -> Result<Vec<String>, StoreError> {
    let jobs = decode::<QueuedJobs>("ready jobs", bytes)?.jobs(usize::MAX, |_, _| true).into_iter();
    let id = |job: Job| if let JobKind::FetchDetail(detail) = job.kind { Some(detail.id) } else { None };
    Ok(jobs.filter_map(id).collect())
}

/// Selects the most urgent jobs without an attempt under way, and one job a document: the answer of a slow attempt must
/// not overwrite that of a later one. Queues take turns within a priority.
pub(crate) fn pick(
    tx: &Tx<'_>,
    queues: &[Queue],
    want: usize,
    active: &ActiveLeases,
) -> Result<Vec<SelectedJob>, StoreError> {
    let mut candidates = Vec::new();
    for (turn, queue) in queues.iter().enumerate() {
        for (place, (record, job)) in first_free(tx, queue, want, active)?.into_iter().enumerate() {
            candidates.push(((job.priority, place, turn), SelectedJob { queue: queue.clone(), record, job }));
        }
    }
    candidates.sort_by_key(|(rank, _)| *rank);
    candidates.truncate(want);
    Ok(candidates.into_iter().map(|(_, picked)| picked).collect())
}

fn first_free(tx: &Tx<'_>, queue: &Queue, want: usize, active: &ActiveLeases) -> Result<Vec<(u64, Job)>, StoreError> {
    let prefix = queue.prefix();
    let under_way = active.documents(queue);
    let mut found = Vec::new();
    let mut met = HashSet::new();
    for pair in tx.pairs(&prefix, &prefix) {
        let (key, bytes) = pair?;
        let record: QueuedJobs = decode("ready jobs", &bytes)?;
        let number = crate::store::keyspace::number_of(&key).unwrap_or(0);
        let free = record.jobs(want - found.len(), |seq, id| {
            let is_free = !active.holds(seq) && !under_way.is_some_and(|ids| ids.contains_key(id));
            is_free && (id.is_empty() || met.insert(id.to_owned()))
        });
        found.extend(free.into_iter().map(|job| (number, job)));
        if found.len() == want {
            break;
        }
    }
    Ok(found)
}

/// Takes the jobs of leases off their queues. Returns the seqs of those that were there.
pub(crate) fn take<'a>(
    tx: &mut Tx<'_>,
    leases: impl Iterator<Item = &'a Lease>,
) -> Result<HashSet<JobSeq>, StoreError> {
    let mut wanted: BTreeMap<Vec<u8>, HashSet<JobSeq>> = BTreeMap::new();
    for lease in leases {
        let key = Queue::of(&lease.job).key(lease.job.priority, lease.record);
        wanted.entry(key).or_default().insert(lease.job.seq);
    }
    let mut taken = HashSet::new();
    for (key, seqs) in wanted {
        taken.extend(take_from(tx, key, &seqs)?.into_iter().map(|job| job.seq));
    }
    Ok(taken)
}

fn take_from(tx: &mut Tx<'_>, key: Vec<u8>, seqs: &HashSet<JobSeq>) -> Result<Vec<Job>, StoreError> {
    let Some(record) = read(tx, &key)? else { return Ok(Vec::new()) };
    let taken = record.jobs(usize::MAX, |seq, _| seqs.contains(&seq));
    tx.count(Counter::Ready, -i64::try_from(taken.len()).unwrap_or(i64::MAX));
    match record.without(seqs) {
        Some(rest) => put(tx, key, &rest)?,
        None => tx.delete(key),
    }
    Ok(taken)
}

/// Counts an attempt that a crash cut off; its job moves to a record of its own.
pub(crate) fn count_attempts(tx: &mut Tx<'_>, key: Vec<u8>, seqs: &HashSet<JobSeq>) -> Result<(), StoreError> {
    for mut job in take_from(tx, key, seqs)? {
        job.attempts += 1;
        enqueue(tx, &job)?;
    }
    Ok(())
}

impl Job {
    /// The same for another document.
    fn sibling(&self, seq: JobSeq, of: String) -> Job {
        let mut job = self.clone();
        job.seq = seq;
        if let JobKind::FetchDetail(detail) = &mut job.kind {
            detail.id = of;
        }
        job
    }
}

impl Store {
    /// Whether a queue holds jobs, leased ones included.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_jobs(&self, queue: &Queue) -> Result<bool, StoreError> {
        let prefix = queue.prefix();
        Ok(self.0.kv.scan(&prefix, &prefix).next().transpose()?.is_some())
    }

    /// The resources of which a shop has ready jobs, configured or not.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn resources_with_jobs(&self, shop: &str) -> Result<Vec<String>, StoreError> {
        let prefix = keyspace::ready_of_shop(shop);
        let (mut found, mut from) = (Vec::new(), prefix.clone());
        while let Some(pair) = self.0.kv.scan(&prefix, &from).next() {
            let (key, _) = pair?;
            let rest = key.get(prefix.len()..).unwrap_or_default();
            let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            from = keyspace::after(&keyspace::ready_of(shop, &name));
            found.push(name);
        }
        Ok(found)
    }

    /// Ready jobs of a queue, up to about `limit`, and how many of them have an attempt under way.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn count_jobs_and_leases(&self, queue: &Queue, limit: usize) -> Result<(usize, usize), StoreError> {
        let prefix = queue.prefix();
        let (mut ready, mut leased) = (0, 0);
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let record: QueuedJobs = decode("ready jobs", &pair?.1)?;
            ready += record.len();
            let active = lock_leases(&self.0.active_leases);
            leased += record.jobs(usize::MAX, |seq, _| active.holds(seq)).len();
            if ready >= limit {
                break;
            }
        }
        Ok((ready, leased))
    }

    /// Ready jobs of a queue, up to `limit`.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn count_jobs(&self, queue: &Queue, limit: usize) -> Result<usize, StoreError> {
        let prefix = queue.prefix();
        let mut found = 0;
        for pair in self.0.kv.scan(&prefix, &prefix) {
            found += count(&pair?.1)?;
            if found >= limit {
                return Ok(limit);
            }
        }
        Ok(found)
    }
}
