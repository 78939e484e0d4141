//! No half-alive process. The parts that work for as long as the process does are watched: when one panics, the
//! process ends as after a failure of the store, and its supervisor starts it anew. What is durable goes on then.
//!
//! It stands here because the store is what all parts share, and because its failure ends the process already.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinError;

use super::{Store, StoreError};

/// What ends the process.
#[derive(Clone)]
struct Alarm {
    fail: watch::Sender<bool>,
    part: Arc<OnceLock<&'static str>>,
}

impl Alarm {
    fn sound(&self, part: &'static str) {
        tracing::error!(part, "a part of the process failed; stopping, so that it is started anew");
        // The first one is what people are told of.
        self.part.set(part).ok();
        self.fail.send_replace(true);
    }
}

impl Store {
    /// Watches over a part: the future ends with it, and sounds [`Store::failed`] when it panics. That it ends by
    /// itself is nobody's failure. It does not hold the store open.
    ///
    /// Cancel safety: the part's own.
    pub fn watched<F>(&self, part: &'static str, work: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send,
    {
        let alarm = self.alarm();
        // What it panicked with may quote a document; the log tells where it was.
        let work = AssertUnwindSafe(work).catch_unwind();
        async move {
            if work.await.is_err() {
                count_panic(part);
                alarm.sound(part);
            }
        }
    }

    /// Sounds [`Store::failed`]: a part cannot do its work any more.
    pub fn part_failed(&self, part: &'static str) {
        self.alarm().sound(part);
    }

    /// The part that is the reason of [`Store::failed`]; none: the store itself.
    pub fn failed_part(&self) -> Option<&'static str> {
        self.0.failed_part.get().copied()
    }

    fn alarm(&self) -> Alarm {
        Alarm { fail: self.0.committer.fail.clone(), part: Arc::clone(&self.0.failed_part) }
    }
}

/// Counts a panic that was caught; `part` is where.
pub fn count_panic(part: &'static str) {
    metrics::counter!("waybill_panics_total", "part" => part).increment(1);
}

/// How a task ended that has no result. What it panicked with may quote a document, and tokio would say it.
pub fn how_it_ended(error: &JoinError) -> &'static str {
    if error.is_panic() { "it panicked; the log says where" } else { "it was cut off" }
}

/// Reads on a thread that may block.
///
/// # Errors
/// The read's own, and [`StoreError::Engine`] when it panicked. Cancel safe: it goes on, and nobody hears of it.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::Engine(how_it_ended(&error).to_owned()))?
}

#[cfg(test)]
mod tests {
    use crate::domain::Clock;
    use crate::store::{Memory, Store, how_it_ended};

    #[tokio::test]
    async fn a_part_that_panics_ends_the_process_and_one_that_ends_does_not() {
        let store = Store::simulated(&Memory::default(), Clock::system()).unwrap();
        let failed = store.failed();
        tokio::spawn(store.watched("good", async {})).await.unwrap();
        assert!(!*failed.borrow() && store.failed_part().is_none(), "an ordinary end");
        let cut_off = tokio::spawn(store.watched("cut off", std::future::pending()));
        cut_off.abort();
        assert!(cut_off.await.unwrap_err().is_cancelled());
        assert!(!*failed.borrow(), "a stop does not wait for all");
        tokio::spawn(store.watched("bad", async { panic!("of a test") })).await.unwrap();
        assert!(*failed.borrow());
        tokio::spawn(store.watched("worse", async { panic!("of a test") })).await.unwrap();
        assert_eq!(store.failed_part(), Some("bad"));
    }

    #[tokio::test]
    async fn what_a_task_panicked_with_is_not_told() {
        let ended = tokio::spawn(async { panic!("what a customer said") }).await;
        assert_eq!(how_it_ended(&ended.unwrap_err()), "it panicked; the log says where");
    }
}
