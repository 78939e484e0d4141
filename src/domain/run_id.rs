//! The numbers of runs.
//!
//! A [`RunId`] is unique within one data directory: the store takes it from a sequence that rises from 1 over restarts, so
//! a later run has a greater one. Stored, sent and shown as the bare number.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(u64);

impl RunId {
    /// Before all runs.
    pub const MIN: RunId = RunId(0);

    /// From a number of the store's sequence of runs, or from outside.
    pub const fn from_number(number: u64) -> RunId {
        RunId(number)
    }

    /// The bare number, for keys, logs and JSON.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
