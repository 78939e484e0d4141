//! The embedded side: jobs, ledger, checkpoints, outbox, shops, tokens, budgets, runs and the archive,
//! in one sled tree behind a write-ahead log.
//!
//! | layer | what it is |
//! | --- | --- |
//! | `ops` | what the store does: settle an attempt, apply a list page, restore, purge |
//! | `records` | what is stored: one file a kind of record; no file knows another |
//! | `tx` | transactions: the handle, the committer, counters, notifications after a commit |
//! | `engine` | an ordered map of bytes with durable batches: sled, behind a write-ahead log |
//!
//! A file imports from its own layer and those below it, in no circle (`it::tidy`). Below all layers are `keyspace` (the
//! table of keys), `codec`, `crypto`, `mirror_seal`, `texts`, `entry`, `error` and `holder`.
//!
//! Every change is a transaction run by the one committer (`tx::committer`) and durable before its caller continues.
//! Reading needs no transaction. Client secrets, tokens, documents (`crypto`), and errors and reasons (`texts`) are sealed
//! before they reach the engine.
//! Reading order: `keyspace`, `tx::handle`, `tx::transaction`, `ops::lease`, `records::ready_queue`, `ops::settle`,
//! `ops::list_page`, `ops::passes`, `ops::detail`, `records::outbox`, `ops::acknowledge`.
//!
//! A crash at any instant leaves the state after some transaction, whole. A new process starts without leases, and the
//! attempts that were under way count as made.

mod codec;
mod crypto;
mod engine;
mod entry;
mod error;
mod holder;
mod keyspace;
mod mirror_seal;
mod ops;
#[cfg(test)]
mod record_forms;
mod records;
#[cfg(test)]
mod tests;
mod texts;
mod tx;

pub use crypto::SealKey;
pub use error::StoreError;
pub use holder::Holder;
pub use keyspace::Queue;
pub use mirror_seal::RowFault;
pub use ops::archive::{ArchivePage, Archived};
pub use ops::archive_lookup::{Candidates, IndexCondition, IndexQuery, Lookup};
pub use ops::completeness::{LedgerState, Listed, UnderWay};
pub use ops::hand_over::{Parts, import};
pub use ops::index_archive::IndexCheck;
pub use ops::lease::OccupiedSlots;
pub use ops::list_runs::RunFilter;
pub use ops::move_archive::MovedDocuments;
#[cfg(test)]
pub(crate) use ops::open::Memory;
pub use ops::open::set_aside;
pub use ops::restore::{Mirrored, Restored, opens_shop};
pub use ops::retry::{Retried, RetriedAll};
pub use ops::rotate_master::master_key_id;
pub use ops::settle::Settled;
pub use ops::shops::{NewShop, ShopChange};
pub use ops::start_run::{Start, Started};
pub use records::api_keys::{KeyRecord, Scope};
pub use records::call_counts::{CALL_DAYS_KEPT, LOGIN_RULE};
pub use records::idempotency::{AnswerName, StoredResponse};
pub use records::ledger::{ListedRows, UnusableRows};
pub use records::outbox::{OutboxItem, OutboxPosition};
pub use records::ownership::Ownership;
pub use records::shops::{Secrets, Token};
pub use records::sink_losses::LossOf;
pub use records::source::InstalledSource;
pub use records::unrestored::UnrestoredShop;
pub use records::walk_costs::{WalkCost, WalkCosts};
pub use tx::counters::Counters;
pub use tx::handle::{Store, blocking};
pub use tx::notify::{Changed, Changes, Signals};
pub use tx::transaction::Tx;
