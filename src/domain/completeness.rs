//! Whether everything the API listed has reached the sink, and if not, what is missing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clock;
use super::timestamp::Timestamp;

/// Gaps that are listed by name; the rest are only counted.
pub const GAPS_MAX: usize = 10_000;

/// One shop's resource: `listed = in_sink + pending + parked + gone + missing`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResourceCompleteness)]
pub struct Completeness {
    pub resource: String,
    /// When the whole list was last read, of the stream where that is longest ago. Null: some stream never was.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub full_walk_at: Option<Timestamp>,
    /// Why the last walk of a stream could not prove that it read the whole list.
    #[schema(required)]
    pub unproved: Option<String>,
    /// Rows that the API has listed so far: distinct ids, plus rejected rows.
    pub listed: u64,
    /// Of these, how many the ledger records as read.
    pub stored: u64,
    /// Of these, how many the sink holds, in the ledger's version or a newer one.
    pub in_sink: u64,
    /// A job is queued, or the document is in the outbox.
    pub pending: u64,
    /// Given up; listed under `/api/v1/parked`.
    pub parked: u64,
    /// Listed, but the API says that there is no such document.
    pub gone: u64,
    /// Of `gone`, those that the list still shows.
    #[serde(skip)]
    pub gone_but_listed: u64,
    /// Of `gone`, those that were read once and are no longer in the sink; their loss was accepted.
    pub lost: u64,
    /// Unaccounted for. Non-zero means data loss or a bug.
    pub missing: u64,
    /// In the sink, but not in the ledger: this installation never saw the list row.
    pub only_in_sink: u64,
    /// Missing documents; the API and the commands show the first hundred.
    pub gaps: Vec<Gap>,
    /// Lost documents; the API and the commands show the first hundred.
    pub lost_documents: Vec<LostDocument>,
}

/// One document that the sink lacks for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LostDocument {
    pub id: String,
    /// When its loss was accepted.
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    pub accepted_at: Timestamp,
}

/// The version of one document that the sink holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    pub version: u64,
    /// It is not marked as no longer listed.
    pub is_listed: bool,
}

/// One document that is missing from, or wrong in, the sink.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Gap {
    pub id: String,
    pub reason: GapReason,
}

/// What is wrong with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// It was listed but never read, and no job will read it.
    NeverRead,
    /// It was written, but is no longer in the sink.
    NotInSink,
    /// The sink has an older version than was written, as after a restore from backup.
    OlderInSink,
    /// The sink is wrong about whether the document is still listed.
    ListingInSink,
    /// Its rows in the child tables differ from those that the stored document yields.
    ChildrenInSink,
    /// It was written, is no longer in the sink, and cannot be re-read: the API no longer has it, or no longer lists it.
    Unrecoverable,
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GapReason::NeverRead => "listed, but never read",
            GapReason::NotInSink => "written, but no longer in the sink",
            GapReason::OlderInSink => "the sink has an older version than was written",
            GapReason::ListingInSink => "the sink is wrong about whether it is still listed",
            GapReason::Unrecoverable => "written, but no longer in the sink, and the API no longer has it",
            GapReason::ChildrenInSink => "its rows in the child tables differ from the stored document",
        })
    }
}

/// What the sink was found to have lost of one shop's resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkLoss {
    /// When it was found.
    pub since: Timestamp,
    pub stage: LossStage,
    /// Documents that are still missing after the repair; before another one: that were missing when it was found needed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How far the repair of a loss is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossStage {
    /// Its documents are to be compared with the sink.
    Suspected,
    /// What was missing is sent again or re-read.
    Repairing,
    /// The rest cannot be re-read.
    Lasting,
}

impl SinkLoss {
    /// A loss whose extent is not known yet.
    pub fn suspected(since: Timestamp) -> SinkLoss {
        SinkLoss { since, stage: LossStage::Suspected, missing: 0 }
    }
}

impl Completeness {
    /// Why it is incomplete, for people; None when it is complete.
    pub fn incomplete_reason(&self) -> Option<String> {
        let counts = [(self.missing, "missing"), (self.pending, "pending"), (self.parked, "parked")];
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let walk = self.full_walk_at.is_none().then(|| "its whole list has not been read yet".to_owned());
        let unproved =
            self.unproved.as_ref().map(|why| format!("it is not proved that its whole list was read: {why}"));
        let all: Vec<String> = walk.into_iter().chain(unproved).chain(counts).chain(self.all_gone()).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// No document was ever read, so nothing proves that those which the API does not know are gone.
    fn all_gone(&self) -> Option<String> {
        (self.stored == 0 && self.gone_but_listed > 0).then(|| {
            format!(
                "the API answered that it does not know any of its {} documents, although it lists them: is \
                 resource.{}.detail.path right?",
                self.gone_but_listed, self.resource
            )
        })
    }

    /// Whether the list was read to its end and everything on it is in the sink. Documents that the API no longer
    /// knows are not gaps.
    pub fn is_complete(&self) -> bool {
        self.incomplete_reason().is_none()
    }
}
