//! Transactions: the handle to the store, one thread that commits in groups, store-wide counters, notifications.

pub(crate) mod active_leases;
pub(crate) mod committer;
pub(crate) mod counters;
pub(crate) mod handle;
pub(crate) mod notify;
pub(crate) mod sequences;
pub(crate) mod transaction;
pub(crate) mod uncommitted_calls;
