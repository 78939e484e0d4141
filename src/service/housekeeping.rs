//! Periodic cleanup: stores when API keys were used, removes expired responses, and destroys data keys of deleted shops.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Service;
use super::key_usage::{STORED_EVERY, stored_name};

impl Service {
    /// Cleans up each time that it is due, until the process ends. What it looks for is old by the wall clock, so it may
    /// pause while that is set back.
    pub(crate) async fn run_housekeeping(self, due: Arc<Notify>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = due.notified() => self.clean_up().await,
            }
        }
    }

    async fn clean_up(&self) {
        self.store_key_usage(STORED_EVERY).await;
        if let Err(error) = self.store.forget_answers().await {
            error.warn("failed to remove expired responses of requests with an Idempotency-Key; trying again later");
        }
        if let Err(error) = self.store.destroy_old_keys().await {
            error.warn("failed to destroy the data keys of deleted shops; trying again later");
        }
    }

    /// Stores the last use of keys whose stored time is at least `age` behind.
    pub(crate) async fn store_key_usage(&self, age: Duration) {
        for (key_id, at) in self.key_usage.unstored(age) {
            match self.store.save_time(&stored_name(&key_id), at).await {
                Ok(()) => self.key_usage.set_stored(&key_id, at),
                Err(error) => return error.warn("failed to store when api keys were used; trying again later"),
            }
        }
    }
}
