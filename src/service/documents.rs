//! Documents as the sink holds them, and what their definitions do not cover.

use super::{Service, ServiceError};
use crate::sink::{Item, ItemPage, ListQuery};
use crate::sync::drift::Drift;

impl Service {
    /// A page of documents, ordered by the bytes of `(shop_id, id)`.
    ///
    /// # Errors
    /// `NotFound`: no such resource. `Unavailable` when the sink cannot be read.
    pub async fn documents(&self, resource: &str, query: &ListQuery) -> Result<ItemPage, ServiceError> {
        if self.definition(resource).is_none() {
            return Err(ServiceError::NotFound);
        }
        Ok(self.sink.list(resource, query).await?)
    }

    /// None: no such document.
    ///
    /// # Errors
    /// `Unavailable` when the sink cannot be read.
    pub async fn document(&self, resource: &str, shop_id: &str, id: &str) -> Result<Option<Item>, ServiceError> {
        Ok(self.sink.get(resource, shop_id, id).await?)
    }

    /// Fields of a resource's documents that its columns do not cover. `since` is set: counting starts with the
    /// process.
    pub fn drift(&self, resource: &str) -> Drift {
        let mut found = self.engine.drift(resource);
        found.since.get_or_insert(self.started_at);
        found
    }
}
