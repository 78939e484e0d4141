//! The words of the engine: shops, streams, runs, jobs, documents and what a failure means.
//!
//! Everything here is pure: no input, no output, no wall clock except [`clock`], which is the one
//! reader of it. Every other module may import this one; it imports nobody of ours.

pub mod backoff;
pub mod calls;
pub mod cause;
pub mod clock;
pub mod clock_check;
pub mod completeness;
pub mod datetime;
pub mod document;
pub mod health;
pub mod job;
pub mod json;
#[cfg(test)]
pub(crate) mod log_events;
pub mod retry;
pub mod run;
pub mod shop;
pub mod sparse;
pub mod stream;
pub mod stream_status;
pub mod text;
pub mod wait;

pub use backoff::Backoff;
pub use cause::{Cause, ErrorClass};
pub use clock::Clock;
pub use completeness::{Completeness, Gap, GapReason, Held};
pub use document::{Document, Entry, Parked, RunView};
pub use job::{Attempt, Class, Effects, Job, JobKind, Lease, Next, Rejected, Row};
pub use json::Json;
pub use retry::{Disposition, RetryPolicy};
pub use run::{Doubt, Mode, Pass, Run, RunState, Trigger};
pub use shop::{Shop, ShopId, ShopState};
pub use sparse::Sparse;
pub use stream::{Checkpoint, Combination, StreamId};
pub use stream_status::{CallKind, StreamError, StreamStatus, Trouble, Unproved};
pub use wait::{Wait, WaitReason};

/// Whether a field need not be written down: reading gives the same without it.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
