//! Leases (`l`): which jobs have an attempt under way, for the start after a crash.
//!
//! Leases live in memory (`tx::active_leases`). On disk is one record for those that one commit took, under their
//! fencing token, written with the budget's occupied slots before any call leaves: so attempts that a crash cut off are
//! counted at the next start. A late attempt's fencing token is not the current one, and its result is dropped.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::domain::{JobSeq, Priority};
use crate::store::keyspace::Queue;

/// Jobs of one record whose attempt is under way.
#[derive(Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) queue: Queue,
    #[serde(rename = "class")]
    pub(crate) priority: Priority,
    pub(crate) record: u64,
    pub(crate) seqs: HashSet<JobSeq>,
}
