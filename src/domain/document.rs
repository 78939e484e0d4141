//! Entries for the sink: documents and notes about them, in commit order.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::run::Run;
use super::run_id::RunId;
use super::shop::Shop;
use super::shop_id::ShopId;
use super::stream::{Checkpoint, ListParams, StreamId};
use super::timestamp::Timestamp;
use super::wait::Wait;

/// One document as read from the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub shop: ShopId,
    pub resource: String,
    /// The stream parameters under which it was listed; columns may be filled from them.
    pub combination: ListParams,
    pub id: String,
    /// Rises with every read of any document of this installation; newer wins.
    pub version: u64,
    pub fetched_at: Timestamp,
    pub first_listed_at: Timestamp,
    /// Digests of its list row and of itself, for rebuilding the ledger.
    pub row_hash: u64,
    pub document_hash: u64,
    /// The run that asked for it.
    pub run: Option<RunId>,
    /// The JSON text, byte for byte as received except where JSON parsers disagree.
    pub body: Bytes,
}

/// One change for the sink. Applied in order; each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Document(Document),
    /// A full walk no longer found the document (`Some`), or found it again (`None`).
    Listing {
        shop: ShopId,
        resource: String,
        id: String,
        version: u64,
        no_longer_listed_at: Option<Timestamp>,
    },
    /// A stream's checkpoint moved.
    Checkpoint {
        stream: StreamId,
        checkpoint: Checkpoint,
    },
    /// A shop was added or changed. `sealed` is its secret and data key, unreadable without the
    /// master key.
    Shop {
        shop: Shop,
        sealed: Vec<u8>,
    },
    /// A shop was deleted; with `purge` its rows are deleted too.
    ShopDeleted {
        shop: ShopId,
        purge: bool,
    },
}

/// A dead letter: a job or document that was given up, listed until it is retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    pub id: u64,
    pub shop_id: ShopId,
    pub resource: String,
    /// None for pages.
    pub document_id: Option<String>,
    /// `list_page`, `fetch_detail` or `write`.
    pub job: String,
    pub reason: String,
    pub attempts: u32,
    pub parked_at: Timestamp,
}

/// A run with its forecast, as the API shows it.
#[derive(Clone, Debug)]
pub struct RunView {
    pub run: Run,
    /// When it will be done at the pace that the budgets allow; None: unknown.
    pub forecast_at: Option<Timestamp>,
    /// While it walks: about how many pages it will read in all; None: unknown.
    pub pages_expected: Option<u64>,
    /// Why it makes no call now; None: it does, or it is not open.
    pub waits_for: Option<Wait>,
}
