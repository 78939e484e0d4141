//! Documents as the sink holds them, and what their definitions do not cover.

use std::time::Duration;

use super::{Service, ServiceError};
use crate::sink::{Item, ItemPage, ListQuery, ReadError, TooManyReads};
use crate::sync::drift::Drift;

/// How long to wait before another list, when a key has too many under way.
const RETRY_READ_AFTER: Duration = Duration::from_secs(1);

impl Service {
    /// A page of documents, ordered by the bytes of `(shop_id, id)`, for the reader with this API key.
    ///
    /// # Errors
    /// `NotFound`: no such resource. `TooManyReads`: the key has as many under way as it may have. `Unavailable` when the
    /// sink cannot be read, or the read takes too long.
    pub async fn documents(&self, resource: &str, query: &ListQuery, key_id: &str) -> Result<ItemPage, ServiceError> {
        if self.definition(resource).is_none() {
            return Err(ServiceError::NotFound);
        }
        let limits = self.reads.limits();
        let mut read = self.reads.admit(key_id).map_err(|TooManyReads| ServiceError::TooManyReads {
            detail: format!(
                "this API key has {} lists of documents under way; wait until one of them has ended",
                limits.of_one_key
            ),
            retry_after: RETRY_READ_AFTER,
        })?;
        self.sink.list(resource, query, &mut read).await.map_err(|error| match error {
            ReadError::Late => ServiceError::Unavailable {
                detail: format!(
                    "the list took more than {} s; narrow it: by `shop`, by `from` and `to`, or by a filter beside `q`",
                    limits.time_max.as_secs()
                ),
                retry_after: limits.time_max,
            },
            ReadError::Sink(error) => error.into(),
        })
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
