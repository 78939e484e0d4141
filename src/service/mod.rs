//! What the HTTP API and the command line ask for: one [`Service`] over the store, the sink, the engine and the source.
//!
//! It knows neither HTTP nor a terminal: arguments and results are plain types, failures are [`ServiceError`]s. `app`
//! builds it, and runs the tasks of it that last as long as the process.
//!
//! | file | holds |
//! | --- | --- |
//! | `handle` | what a service is made of |
//! | `shops` | registers, changes, deletes and syncs shops |
//! | `credentials` | verifies the credentials of shops |
//! | `adoption` | gives shops that could not be restored their old ids |
//! | `keys`, `key_usage`, `housekeeping` | API keys, and when each was last used |
//! | `master_key`, `rotation_state` | rotates the master key |
//! | `validation` | what a name, an id or a secret may be |
//! | `documents` | documents, and fields that no column takes |
//! | `runs` | runs, parked jobs, calls |
//! | `forecast`, `waits` | when a run will end, and what it waits for |
//! | `plan` | what the next walks cost |
//! | `completeness` | compares listed documents with the sink |
//! | `repair` | sends again or re-reads what the sink lacks |
//! | `sink_check` | finds that the sink lost documents, and has it repaired |
//! | `move_archive` | moves the embedded archive to MySQL |
//! | `sink_progress` | how far the check and the move are |
//! | `health`, `health_book` | health for every surface; logs its changes |
//! | `staleness` | alarm before rows leave the API's history |
//! | `status`, `read_status`, `readiness`, `metrics` | the status page, `/readyz`, the Prometheus page |
//! | `restore` | restores an empty data directory from MySQL |
//! | `source_move` | moves an installation to another source |
//! | `idempotency` | stored responses of repeated requests |
//!
//! What always holds: every future may be dropped at any await (a client disconnects, a timeout), and a change is then
//! made completely or not at all. What a result reports as done is durable. Shops that a key may not see are excluded
//! in the query, not afterwards.

mod adoption;
mod completeness;
mod credentials;
mod documents;
mod error;
mod forecast;
mod handle;
mod health;
mod health_book;
mod housekeeping;
mod idempotency;
mod key_usage;
mod keys;
mod master_key;
mod metrics;
mod move_archive;
pub mod plan;
mod read_status;
mod readiness;
mod repair;
mod restore;
mod rotation_state;
mod runs;
mod shops;
mod sink_check;
mod sink_progress;
mod source_move;
mod staleness;
mod status;
pub mod validation;
mod waits;

pub use adoption::Adoption;
pub use error::{FieldError, ServiceError};
pub use handle::Service;
pub(crate) use handle::ServiceDeps;
pub(crate) use health_book::HealthBook;
pub use keys::{KeyGrant, KeyView, MintedKey, NewKey};
pub(crate) use metrics::recorder;
pub use readiness::Readiness;
pub(crate) use rotation_state::MasterKeyFiles;
pub use rotation_state::{MasterKeyView, RotationView};
pub use shops::ShopPatch;
pub use source_move::{Proof, SourceMove, SourceMoveError};
pub use status::{BUDGETS_SHOWN_MAX, BudgetStatus, HealthView, Overdue, ShopCounts, SinkStatus, Status, StatusScope};

pub(crate) use crate::catalog::filter::held;
/// Answers of the parts below that are the service's own answers.
pub use crate::sink::{Item, ItemPage, ListQuery};
pub use crate::store::{
    AnswerName, CALL_DAYS_KEPT, KeyRecord, NewShop, RunFilter, Scope, StoredResponse, UnrestoredShop,
};
pub use crate::sync::drift::{Drift, Seen};
