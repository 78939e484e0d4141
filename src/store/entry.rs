//! The stored head of an outbox entry; a parked entry keeps it too.

use serde::{Deserialize, Serialize};

use crate::domain::{Checkpoint, ListParams, RunId, ShopId, StreamId, Timestamp};

/// All of a document but its body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DocumentHead {
    pub(crate) shop: ShopId,
    pub(crate) resource: String,
    pub(crate) combination: ListParams,
    pub(crate) id: String,
    pub(crate) fetched_at: Timestamp,
    pub(crate) first_listed_at: Timestamp,
    pub(crate) row_hash: u64,
    pub(crate) document_hash: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<RunId>,
    /// By what the archive finds it; only if an archive is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<String>,
}

impl DocumentHead {
    pub(crate) fn stream(&self) -> StreamId {
        StreamId { shop: self.shop.clone(), resource: self.resource.clone(), combination: self.combination.clone() }
    }
}

/// The head of an outbox record; a sealed part may follow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum EntryHead {
    Document(DocumentHead),
    Listing { shop: ShopId, resource: String, id: String, no_longer_listed_at: Option<Timestamp> },
    Checkpoint { stream: StreamId, checkpoint: Checkpoint },
    Shop { shop: ShopId },
    ShopDeleted { shop: ShopId, purge: bool },
}
