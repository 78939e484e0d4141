//! Attempts under way, in memory: the fencing token of each leased job, and which documents are being read.
//!
//! One process has the directory, so what is here is complete. What a restart must know of it is in `records::leases`.

use std::collections::HashMap;

use crate::domain::{Job, JobSeq, Lease};
use crate::store::keyspace::Queue;

/// What became of a lease that was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Another attempt has the job, or none.
    NotCurrent,
    Current,
    /// Likewise, and the last one with its fencing token.
    LastOfToken,
}

/// The leases of this process.
#[derive(Default)]
pub(crate) struct ActiveLeases {
    last_token: u64,
    /// The fencing token of each job.
    of: HashMap<JobSeq, u64>,
    /// How many jobs of each fencing token are under way.
    left: HashMap<u64, usize>,
    /// The documents that are being read, by queue, each with its fencing token.
    documents: HashMap<Queue, HashMap<String, u64>>,
}

impl ActiveLeases {
    /// Attempts under way.
    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether the job has an attempt under way.
    pub(crate) fn holds(&self, seq: JobSeq) -> bool {
        self.of.contains_key(&seq)
    }

    /// A new fencing token.
    pub(crate) fn next_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// The documents of a queue that are being read.
    pub(crate) fn documents(&self, queue: &Queue) -> Option<&HashMap<String, u64>> {
        self.documents.get(queue)
    }

    pub(crate) fn hold(&mut self, token: u64, jobs: &[(&Queue, &Job)]) {
        self.left.insert(token, jobs.len());
        for (queue, job) in jobs {
            self.of.insert(job.seq, token);
            let Some(id) = job.document() else { continue };
            match self.documents.get_mut(*queue) {
                Some(ids) => drop(ids.insert(id.to_owned(), token)),
                None => drop(self.documents.insert((*queue).clone(), [(id.to_owned(), token)].into())),
            }
        }
    }

    /// Ends leases whose commit failed.
    pub(crate) fn forget(&mut self, token: u64) {
        if self.left.remove(&token).is_some() {
            self.of.retain(|_, of| *of != token);
            self.documents.retain(|_, ids| {
                ids.retain(|_, of| *of != token);
                !ids.is_empty()
            });
        }
    }

    /// Ends an attempt.
    pub(crate) fn release(&mut self, lease: &Lease) -> Released {
        if self.of.get(&lease.job.seq) != Some(&lease.fencing_token) {
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
        let Some(left) = self.left.get_mut(&lease.fencing_token) else { return Released::Current };
        *left -= 1;
        if *left > 0 {
            return Released::Current;
        }
        self.left.remove(&lease.fencing_token);
        Released::LastOfToken
    }
}
