//! Fail-fast supervision of long-running tasks.
//!
//! A part that works for as long as the process does must not die alone: when it panics, the process stops as after a
//! failure of the store, and its service manager starts it again. What is durable continues then. The store holds the
//! one [`Supervisor`], since all parts share the store and its own failure stops the process too.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinError;

/// The part that fails when another process has taken over.
pub const OWNERSHIP: &str = "the ownership of the schema";

/// Stops the process when a part of it fails. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    failed: watch::Sender<bool>,
    /// The first part that failed.
    part: Arc<OnceLock<&'static str>>,
}

impl Supervisor {
    /// Runs a part of the process: the future ends with it, and a panic in it is a failure of the process. An ordinary
    /// end is not. It does not hold the store open.
    ///
    /// Cancel safety: the part's own.
    pub fn supervise<F>(&self, part: &'static str, work: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send,
    {
        let supervisor = self.clone();
        // From zero: `increase()` of Prometheus misses the first event of a series that begins with it.
        metrics::counter!("waybill_panics_total", "part" => part).increment(0);
        // The panic's message may quote a document, so it is dropped; the panic hook logged its location.
        let work = AssertUnwindSafe(work).catch_unwind();
        async move {
            if work.await.is_err() {
                count_panic(part);
                supervisor.part_failed(part);
            }
        }
    }

    /// Stops the process: a part cannot do its work any more.
    pub fn part_failed(&self, part: &'static str) {
        tracing::error!(part, "a part of the process failed; stopping, so that the service manager restarts it");
        // Only the first failure is reported: later ones may follow from it.
        self.part.set(part).ok();
        self.stop_process();
    }

    /// Stops the process without naming a part: the store logs its own failures.
    pub fn stop_process(&self) {
        self.failed.send_replace(true);
    }

    /// The part that failed first; none: the store itself, or nothing failed.
    pub fn failed_part(&self) -> Option<&'static str> {
        self.part.get().copied()
    }

    /// Turns true when the process must stop.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.failed.subscribe()
    }
}

/// Counts a caught panic in the metrics; `part` is where.
pub fn count_panic(part: &'static str) {
    metrics::counter!("waybill_panics_total", "part" => part).increment(1);
}

/// How a task ended that has no result. Tokio's own text would contain the panic's message, which may quote a document.
pub fn describe_join_error(error: &JoinError) -> &'static str {
    if error.is_panic() { "it panicked; the log says where" } else { "it was cut off" }
}

#[cfg(test)]
mod tests {
    use super::{Supervisor, describe_join_error};

    #[tokio::test]
    async fn a_part_that_panics_stops_the_process_and_one_that_ends_does_not() {
        let supervisor = Supervisor::default();
        let failed = supervisor.failed();
        tokio::spawn(supervisor.supervise("good", async {})).await.unwrap();
        assert!(!*failed.borrow() && supervisor.failed_part().is_none(), "an ordinary end");
        let cut_off = tokio::spawn(supervisor.supervise("cut off", std::future::pending()));
        cut_off.abort();
        assert!(cut_off.await.unwrap_err().is_cancelled());
        assert!(!*failed.borrow(), "a cancelled part is no failure");
        tokio::spawn(supervisor.supervise("bad", async { panic!("of a test") })).await.unwrap();
        assert!(*failed.borrow());
        tokio::spawn(supervisor.supervise("worse", async { panic!("of a test") })).await.unwrap();
        assert_eq!(supervisor.failed_part(), Some("bad"));
    }

    #[tokio::test]
    async fn the_message_of_a_panic_is_not_repeated() {
        let ended = tokio::spawn(async { panic!("what a customer said") }).await;
        assert_eq!(describe_join_error(&ended.unwrap_err()), "it panicked; the log says where");
    }
}
