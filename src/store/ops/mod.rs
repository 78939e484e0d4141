//! What the store does: each file is one operation over several kinds of records.

pub(crate) mod completeness;
pub(crate) mod detail;
pub(crate) mod invariants;
pub(crate) mod list_page;
pub(crate) mod listing_state;
pub(crate) mod parse_alert;
pub(crate) mod passes;
pub(crate) mod purge;
pub(crate) mod repair_mirror;
pub(crate) mod restore;
pub(crate) mod settle;
pub(crate) mod stop_runs;
pub(crate) mod unproved;
