//! What health is computed from, and the verdict on one stream.

use std::time::Duration;

use super::code::{Code, Means};
use super::level::State;
use super::ticks::Ticks;
use crate::domain::cause::ErrorClass;
use crate::domain::completeness::SinkLoss;
use crate::domain::shop::Shop;
use crate::domain::stream_status::{StreamStatus, Unproved};
use crate::domain::timestamp::Timestamp;

/// Records further in the future than this are distrusted: a clock that was ahead wrote them.
pub(super) const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Failing calls count as an outage after this, or after half a schedule if that is shorter: one bad answer does not.
const OUTAGE_AFTER: Duration = Duration::from_secs(60);

/// What the health of every shop depends on, beside its own records.
pub struct Facts<'a> {
    pub now: Timestamp,
    /// The means that remedies may name.
    pub means: Means,
    /// `alerts.stale_after`.
    pub stale_after: Option<Duration>,
    pub ticks: &'a Ticks,
    /// What is wrong with the installation as a whole.
    pub faults: &'a [Fault],
}

/// Something wrong with the installation as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    pub since: Option<Timestamp>,
    pub text: String,
}

/// One shop and what it syncs.
pub struct ShopFacts {
    pub shop: Shop,
    pub resources: Vec<ResourceFacts>,
}

/// One resource of a shop.
pub struct ResourceFacts {
    pub name: String,
    /// Shortest time between two incremental walks.
    pub every: Option<Duration>,
    pub streams: Vec<StreamFacts>,
    /// Pages and documents that were given up.
    pub parked: u64,
    /// What the sink was found to have lost.
    pub loss: Option<SinkLoss>,
}

/// One stream.
#[derive(Default)]
pub struct StreamFacts {
    pub status: StreamStatus,
    /// Why its list is not proved to have been read whole.
    pub unproved: Option<Unproved>,
    pub open: Vec<OpenRun>,
}

/// A run that is walking or fetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRun {
    pub started_at: Timestamp,
    /// Detail reads not yet done.
    pub pending: u64,
}

/// Why one stream is not fresh.
pub(super) struct StreamVerdict {
    pub(super) state: State,
    pub(super) since: Option<Timestamp>,
    pub(super) code: Code,
    pub(super) class: Option<ErrorClass>,
    pub(super) text: String,
}

/// How long calls must fail to count as an outage.
pub(super) fn outage_after(facts: &Facts<'_>) -> Duration {
    facts.ticks.gap().map_or(OUTAGE_AFTER, |gap| (gap / 2).min(OUTAGE_AFTER))
}

/// A recorded time, unless a clock that was ahead wrote it.
pub(super) fn past(at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    at.filter(|at| *at <= now + AHEAD_MAX).map(|at| at.min(now))
}
