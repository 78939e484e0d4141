//! Leases: which jobs have an attempt under way, and what a crash must know of them.
//!
//! A claim lives in memory; one process has the directory. What is on disk is one record a claim, written
//! with the budget's occupied slots before any call leaves, so that attempts that a crash cut off are
//! counted at the next start. A late attempt's claim is not the current one, and its result is dropped.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::domain::{Class, Lease};
use crate::store::keyspace::{self, Queue};
use crate::store::records::rate_slots;
use crate::store::records::ready_queue::{self, Picked};
use crate::store::tx::notify::Signal;
use crate::store::{Claimed, Store, StoreError, Tx, claimed, decode, encode};

/// The claims of this process.
#[derive(Default)]
pub(crate) struct Claims {
    last: u64,
    /// The claim on each job, by seq.
    of: HashMap<u64, u64>,
    /// How many jobs of each claim are under way.
    left: HashMap<u64, usize>,
    /// The documents that are being read, by queue, each with its claim.
    documents: HashMap<Queue, HashMap<String, u64>>,
}

impl Claims {
    /// Attempts under way.
    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether somebody works on the job.
    pub(crate) fn holds(&self, seq: u64) -> bool {
        self.of.contains_key(&seq)
    }

    /// The number of a claim to come.
    fn draw(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The documents of a queue that are being read.
    pub(crate) fn documents(&self, queue: &Queue) -> Option<&HashMap<String, u64>> {
        self.documents.get(queue)
    }

    fn hold(&mut self, claim: u64, picked: &[Picked]) {
        self.left.insert(claim, picked.len());
        for Picked { queue, job, .. } in picked {
            self.of.insert(job.seq, claim);
            let Some(id) = job.document() else { continue };
            match self.documents.get_mut(queue) {
                Some(ids) => drop(ids.insert(id.to_owned(), claim)),
                None => drop(self.documents.insert(queue.clone(), [(id.to_owned(), claim)].into())),
            }
        }
    }

    /// Ends a claim whose commit failed.
    fn forget(&mut self, claim: u64) {
        if self.left.remove(&claim).is_some() {
            self.of.retain(|_, of| *of != claim);
            self.documents.retain(|_, ids| {
                ids.retain(|_, of| *of != claim);
                !ids.is_empty()
            });
        }
    }

    /// None: the claim is not the current one. Else whether it was the last job of its claim.
    fn release(&mut self, lease: &Lease) -> Option<bool> {
        if self.of.get(&lease.job.seq) != Some(&lease.claim) {
            return None;
        }
        self.of.remove(&lease.job.seq);
        if let Some(id) = lease.job.document() {
            let queue = Queue::of(&lease.job);
            if let Some(ids) = self.documents.get_mut(&queue) {
                ids.remove(id);
                if ids.is_empty() {
                    self.documents.remove(&queue);
                }
            }
        }
        let left = self.left.get_mut(&lease.claim)?;
        *left -= 1;
        let last = *left == 0;
        if last {
            self.left.remove(&lease.claim);
        }
        Some(last)
    }
}

/// Jobs of one record whose attempt is under way.
#[derive(Serialize, Deserialize)]
struct Begun {
    queue: Queue,
    class: Class,
    record: u64,
    seqs: HashSet<u64>,
}

fn begun(picked: &[Picked]) -> Vec<Begun> {
    let mut begun: Vec<Begun> = Vec::new();
    for Picked { queue, record, job } in picked {
        if let Some(known) = begun.iter_mut().find(|begun| begun.record == *record && begun.queue == *queue) {
            known.seqs.insert(job.seq);
        } else {
            begun.push(Begun { queue: queue.clone(), class: job.class, record: *record, seqs: [job.seq].into() });
        }
    }
    begun
}

/// Ends claims, current or late. The answers tell which were current.
pub(crate) fn release<'a>(tx: &mut Tx<'_>, claims: &Claimed, leases: impl Iterator<Item = &'a Lease>) -> Vec<bool> {
    let mut claims = claimed(claims);
    leases
        .map(|lease| {
            let released = claims.release(lease);
            if released == Some(true) {
                tx.delete(keyspace::numbered(b'l', lease.claim));
            }
            released.is_some()
        })
        .collect()
}

/// Counts the attempts that the process before this one did not end.
pub(crate) fn recover(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    for (key, bytes) in tx.scan(b"l", b"l", usize::MAX)? {
        for Begun { queue, class, record, seqs } in decode::<Vec<Begun>>("a claim", &bytes)? {
            ready_queue::count_attempts(tx, queue.key(class, record), &seqs)?;
        }
        tx.delete(key);
    }
    Ok(())
}

impl Store {
    /// Takes up to `want` jobs of the queues for one attempt each, most urgent class first and queues
    /// of one class in turn (beginning with the first). Durable before it returns, together with the
    /// budget's `occupied` slots, which counts the calls of these jobs already.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn lease(
        &self,
        queues: Vec<Queue>,
        want: usize,
        budget: Option<(String, String, u32)>,
    ) -> Result<Vec<Lease>, StoreError> {
        let claims = Claimed::clone(&self.0.claims);
        let claim = claimed(&claims).draw();
        let leased = self.transact(move |tx| {
            let mut claims = claimed(&claims);
            let picked = ready_queue::pick(tx, &queues, want, &claims)?;
            if picked.is_empty() {
                return Ok(Vec::new());
            }
            let under_way = encode("a claim", &begun(&picked))?;
            claims.hold(claim, &picked);
            tx.put(keyspace::numbered(b'l', claim), under_way);
            if let Some((account, rule, occupied)) = budget {
                let unused = u32::try_from(want - picked.len()).unwrap_or(0);
                rate_slots::put(tx, &account, &rule, occupied.saturating_sub(unused));
            }
            let lease = |Picked { record, mut job, .. }| {
                job.attempts += 1;
                Lease { attempt: job.attempts, job, claim, record }
            };
            Ok(picked.into_iter().map(lease).collect())
        });
        let leased = leased.await;
        if leased.is_err() {
            claimed(&self.0.claims).forget(claim);
        }
        leased
    }

    /// Gives up claims without an answer (a step that was cut off, a commit that failed): the jobs are
    /// ready again.
    pub fn abandon(&self, leases: &[Lease]) {
        let mut claims = claimed(&self.0.claims);
        for lease in leases {
            // The claim's record stays until the next start; it does no harm.
            claims.release(lease);
            self.0.signals.raise([Signal::Queue(Queue::of(&lease.job))].into());
        }
    }
}
