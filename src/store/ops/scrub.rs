//! Scrub: reads the whole engine in all directions, to find damage that no read meets as an error.
//!
//! The first keys when the store opens, which is all of a small store; the others in the background. How damage shows
//! is in `engine::integrity`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::engine::kv::{Kv, Next};
use crate::store::error::StoreError;
use crate::store::tx::handle::{Store, blocking};

/// Keys that are looked at before a store is open.
pub(crate) const AT_OPEN: usize = 50_000;

/// Keys that are looked at in one go; a commit may have to wait for so many.
pub(crate) const AT_ONCE: usize = 1_000;

/// Between two goes, so that those who work do not feel it.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Looks at the first keys of a store that opens.
///
/// # Errors
/// [`StoreError::Damaged`], or the engine's read errors.
pub(crate) fn at_open(kv: &dyn Kv, path: &Path) -> Result<Next, StoreError> {
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
                Err(StoreError::Unsound(detail)) => return self.condemn(detail).await,
                // Whoever needs what cannot be read tells of it.
                Err(error) => return tracing::warn!(%error, "the store could not be looked through to its end"),
            }
        }
    }

    async fn look_from(&self, from: Vec<u8>) -> Result<Next, StoreError> {
        let (kv, start) = (Arc::clone(&self.0.kv), from.clone());
        match blocking(move || kv.look(&start, AT_ONCE)).await {
            // Somebody may have written meanwhile. Within a transaction nobody does.
            Err(StoreError::Unsound(_)) => self.transact(move |tx| tx.look(&from, AT_ONCE)).await,
            looked => looked,
        }
    }

    pub(crate) async fn condemn(&self, detail: String) {
        tracing::error!(detail, "the store is damaged; stopping. The next start will not open it");
        if let Some(mark) = self.0.committer.mark.clone()
            && let Err(error) = blocking(move || mark.condemn()).await
        {
            tracing::error!(%error, "that could not be noted beside the store: the next start finds out by itself");
        }
        self.0.committer.supervisor.stop_process();
    }
}
