//! The numbers of jobs.
//!
//! A [`JobSeq`] is unique within one data directory and orders the jobs of one priority: the store takes it from a
//! sequence that rises from 1 over restarts, and a job that goes behind the others gets a new one. It is not the number
//! of the record that holds the job, which several jobs may share. Stored as the bare number.

use serde::{Deserialize, Serialize};

/// The number of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobSeq(u64);

impl JobSeq {
    /// From a number of the store's sequence of jobs.
    pub const fn from_number(number: u64) -> JobSeq {
        JobSeq(number)
    }

    /// The bare number, for keys and logs.
    pub const fn number(self) -> u64 {
        self.0
    }
}
