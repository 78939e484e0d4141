//! Transactions: one thread that commits them in groups, the store-wide counters, and who is woken after a commit.

pub(crate) mod active_leases;
pub(crate) mod committer;
pub(crate) mod counters;
pub(crate) mod handle;
pub(crate) mod notify;
pub(crate) mod sequences;
pub(crate) mod transaction;
pub(crate) mod uncommitted_calls;
