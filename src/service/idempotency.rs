//! Responses of requests with an idempotency key, stored for a day.

use super::{Service, ServiceError};
use crate::store::{AnswerName, StoredResponse};

impl Service {
    /// The response that was stored under a name in the last 24 h.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be read.
    pub fn load_response(&self, name: &AnswerName) -> Result<Option<StoredResponse>, ServiceError> {
        Ok(self.store.saved_response(name)?)
    }

    /// Stores a response durably for 24 h, or less when there are very many.
    ///
    /// # Errors
    /// Of the store.
    pub async fn store_response(&self, name: AnswerName, answer: StoredResponse) -> Result<(), ServiceError> {
        Ok(self.store.save_response(name, answer).await?)
    }
}
