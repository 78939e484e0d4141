//! What is stored: one file a kind of record, with its type, its keys and how it is read and written.

pub(crate) mod api_keys;
pub(crate) mod archive_index;
pub(crate) mod call_counts;
pub(crate) mod checkpoints;
pub(crate) mod dead_letters;
pub(crate) mod definition_digests;
pub(crate) mod detail_proofs;
pub(crate) mod drift;
pub(crate) mod idempotency;
pub(crate) mod jobs;
pub(crate) mod leases;
pub(crate) mod ledger;
pub(crate) mod outbox;
pub(crate) mod ownership;
pub(crate) mod rate_slots;
pub(crate) mod ready_queue;
pub(crate) mod runs;
pub(crate) mod schedule_times;
pub(crate) mod shops;
pub(crate) mod sink_losses;
pub(crate) mod source;
pub(crate) mod unproved;
pub(crate) mod unrestored;
pub(crate) mod walk_costs;
