//! Transactions: one thread that commits them in groups, the store-wide counters, and who is woken after a commit.

pub(crate) mod committer;
pub(crate) mod counters;
pub(crate) mod notify;
