//! Scrub: reads the whole engine in all directions, to find damage that no read meets as an error.
//!
//! The first keys when the store opens, which is all of a small store; the others in the background. How damage shows
//! is in `engine::integrity`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::engine::kv::{Kv, LookFrom};
use crate::store::error::StoreError;
use crate::store::tx::handle::{Store, blocking};

/// Keys that are read before a store is open.
pub(crate) const AT_OPEN: usize = 50_000;

/// Keys that are read at once; a commit may have to wait for them.
pub(crate) const AT_ONCE: usize = 1_000;

/// Pause between two steps, so that other work is not slowed.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Looks at the first keys of a store that opens.
///
/// # Errors
/// [`StoreError::Damaged`], or the engine's read errors.
pub(crate) fn at_open(kv: &dyn Kv, path: &Path) -> Result<LookFrom, StoreError> {
    kv.look(b"", AT_OPEN).map_err(|error| match error {
        StoreError::Unsound(detail) => StoreError::Damaged { path: path.to_owned(), detail },
        error => error,
    })
}

impl Store {
    /// Looks at the keys that the opening left, in the background, until all were seen or `stop`. When there is
    /// damage the store is marked so, for the next start, and [`Store::failed`] sounds.
    ///
    /// Cancel safe.
    pub async fn scrub(self, stop: CancellationToken) {
        let mut next = self.0.unseen.clone();
        while let Some(from) = next {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            match self.look_from(from).await {
                Ok(then) => next = then,
                Err(StoreError::Unsound(detail)) => return self.mark_damaged(detail).await,
                // A read that needs the same data reports the error.
                Err(error) => return tracing::warn!(%error, "the integrity scan stopped before its end"),
            }
        }
    }

    async fn look_from(&self, from: Vec<u8>) -> Result<LookFrom, StoreError> {
        let (kv, start) = (Arc::clone(&self.0.kv), from.clone());
        match blocking(move || kv.look(&start, AT_ONCE)).await {
            // A write may have come between. Inside a transaction none can.
            Err(StoreError::Unsound(_)) => self.transact(move |tx| tx.look(&from, AT_ONCE)).await,
            looked => looked,
        }
    }

    pub(crate) async fn mark_damaged(&self, detail: String) {
        tracing::error!(detail, "the store is damaged: stopping; the next start will refuse to open it");
        if let Some(mark) = self.0.committer.mark.clone()
            && let Err(error) = blocking(move || mark.mark_damaged()).await
        {
            tracing::error!(%error, "failed to mark the store as damaged; the next start detects it itself");
        }
        self.0.committer.supervisor.stop_process();
    }
}
