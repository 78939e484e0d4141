//! Attempts under way, in memory: which claim holds which job, and which documents are being read.
//!
//! One process has the directory, so what is here is complete. What a restart must know of it is in `records::leases`.

use std::collections::HashMap;

use crate::domain::{Job, Lease};
use crate::store::keyspace::Queue;

/// What became of a lease that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Another attempt has the job, or none.
    NotCurrent,
    Current,
    /// It was the last one of its claim.
    LastOfClaim,
}

/// The claims of this process.
#[derive(Default)]
pub(crate) struct ActiveLeases {
    last: u64,
    /// The claim on each job, by seq.
    of: HashMap<u64, u64>,
    /// How many jobs of each claim are under way.
    left: HashMap<u64, usize>,
    /// The documents that are being read, by queue, each with its claim.
    documents: HashMap<Queue, HashMap<String, u64>>,
}

impl ActiveLeases {
    /// Attempts under way.
    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether the job has an attempt under way.
    pub(crate) fn holds(&self, seq: u64) -> bool {
        self.of.contains_key(&seq)
    }

    /// The number of a claim to come.
    pub(crate) fn draw(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The documents of a queue that are being read.
    pub(crate) fn documents(&self, queue: &Queue) -> Option<&HashMap<String, u64>> {
        self.documents.get(queue)
    }

    pub(crate) fn hold(&mut self, claim: u64, jobs: &[(&Queue, &Job)]) {
        self.left.insert(claim, jobs.len());
        for (queue, job) in jobs {
            self.of.insert(job.seq, claim);
            let Some(id) = job.document() else { continue };
            match self.documents.get_mut(*queue) {
                Some(ids) => drop(ids.insert(id.to_owned(), claim)),
                None => drop(self.documents.insert((*queue).clone(), [(id.to_owned(), claim)].into())),
            }
        }
    }

    /// Ends a claim whose commit failed.
    pub(crate) fn forget(&mut self, claim: u64) {
        if self.left.remove(&claim).is_some() {
            self.of.retain(|_, of| *of != claim);
            self.documents.retain(|_, ids| {
                ids.retain(|_, of| *of != claim);
                !ids.is_empty()
            });
        }
    }

    /// Ends an attempt.
    pub(crate) fn release(&mut self, lease: &Lease) -> Released {
        if self.of.get(&lease.job.seq) != Some(&lease.claim) {
            return Released::NotCurrent;
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
        let Some(left) = self.left.get_mut(&lease.claim) else { return Released::Current };
        *left -= 1;
        if *left > 0 {
            return Released::Current;
        }
        self.left.remove(&lease.claim);
        Released::LastOfClaim
    }
}
