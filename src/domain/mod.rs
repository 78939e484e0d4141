//! The vocabulary of the engine: shops, streams, runs, jobs, documents and failure classes.
//!
//! Everything here is pure: no IO and no wall clock except [`clock`], the only reader of it. Every other module may
//! import this one; it imports none of ours.

pub mod backoff;
pub mod calls;
pub mod cause;
pub mod clock;
pub mod clock_check;
pub mod completeness;
pub mod datetime;
pub mod detail_proof;
pub mod document;
pub mod duration;
pub mod facet;
pub mod health;
pub mod job;
pub mod job_seq;
pub mod json;
#[cfg(test)]
pub(crate) mod log_events;
pub mod log_throttle;
pub mod plural;
pub mod retry;
pub mod run;
pub mod run_id;
pub mod schedule;
pub mod sentence;
pub mod shop;
pub mod shop_id;
pub mod source_access;
pub mod source_origin;
pub mod step;
pub mod stream;
pub mod stream_status;
pub mod terminal;
pub mod timestamp;
pub(crate) mod variants;
pub mod wait;

pub use backoff::Backoff;
pub use cause::{Cause, ErrorClass};
pub use clock::Clock;
pub use completeness::{Completeness, Gap, GapReason, LossStage, LostDocument, SinkLoss, StoredVersion};
pub use detail_proof::{DetailEndpoint, DetailProof, NotFound, ProofState, Verdict};
pub use document::{Document, Entry, Parked, RunView};
pub use duration::{parse_duration, rough_duration, with_clock_margin};
pub use facet::{Facet, FacetValue, Facets};
pub use job::{Attempt, CallKind, FetchDetail, Job, JobKind, Lease, LeaseByKind, ListPage, Priority, Sweep};
pub use job_seq::JobSeq;
pub use json::Json;
pub use log_throttle::LogThrottle;
pub use plural::counted;
pub use retry::{Disposition, RetryPolicy};
pub use run::{Doubt, Mode, Pass, Run, RunState, Trigger, least_passes};
pub use run_id::RunId;
pub use shop::{Shop, ShopState};
pub use shop_id::ShopId;
pub use source_access::{Auth, AuthScheme, SourceUrl};
pub use source_origin::{OtherSource, RecordedSource, SourceOrigin};
pub use step::{Failure, FetchedDocument, Next, Page, Rejected, Row, StepOutput, WalkRule};
pub use stream::{Checkpoint, ListParams, StreamId};
pub use stream_status::{StreamError, StreamStatus, Trouble, TroubleKind, Unproved};
pub use timestamp::Timestamp;
pub use wait::{Wait, WaitReason};

/// For `skip_serializing_if`: a default value reads back the same when it is absent.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
