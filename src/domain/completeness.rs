//! Whether everything that was listed is where it belongs, and if not, what is missing.

use serde::Serialize;

use super::clock::Millis;

/// Gaps that one look names; the rest are counted.
pub const GAPS_MAX: usize = 10_000;

/// One shop's resource: `listed = in_sink + pending + parked + gone + missing`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Completeness {
    pub resource: String,
    /// When the whole list was last read, of the stream for which that is longest ago; None: of one of them it
    /// never was, so nobody knows what there is.
    #[serde(skip)]
    pub full_walk_at: Option<Millis>,
    /// Why it is not known whether the last walk saw the whole list, of the first stream of which that is so.
    pub unproved: Option<String>,
    /// Rows that the API has listed so far, each id once, and those that cannot be kept.
    pub listed: u64,
    /// Of these, how many the ledger notes as read.
    pub stored: u64,
    /// Of these, how many the sink holds, at least as new as the ledger says.
    pub in_sink: u64,
    /// On their way: a job is waiting, or the document is in the outbox.
    pub pending: u64,
    /// Given up, to be seen under `/api/v1/parked`.
    pub parked: u64,
    /// Listed, but the API says that there is no such document.
    pub gone: u64,
    /// Nothing of the above: what should not be.
    pub missing: u64,
    /// In the sink, but not in the ledger: of a list row that was never seen here.
    pub only_in_sink: u64,
    /// The missing ones by name, up to [`GAPS_MAX`].
    pub gaps: Vec<Gap>,
}

/// What the sink holds of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub version: u64,
    /// It is not noted as no longer listed.
    pub is_listed: bool,
}

/// One id that is not where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    pub id: String,
    pub reason: GapReason,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// It was listed, and neither read nor is anybody about to.
    NeverRead,
    /// It was read and written, and the sink does not have it any more.
    NotInSink,
    /// The sink has an older document than the ledger: it was set back.
    OlderInSink,
    /// The sink has the document, but does not know that it left the list, or came back to it.
    ListingInSink,
    /// The sink has the document, and other rows in its child tables than the document says.
    ChildrenInSink,
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            GapReason::NeverRead => "listed, but never read",
            GapReason::NotInSink => "read and written, but not in the sink any more",
            GapReason::OlderInSink => "the sink has an older one than was written",
            GapReason::ListingInSink => "the sink is wrong about whether it is still listed",
            GapReason::ChildrenInSink => "its rows in the child tables are not those of the stored document",
        })
    }
}

impl Completeness {
    /// Why it is not complete, for people; none: it is.
    pub fn lacks(&self) -> Option<String> {
        let counts = [(self.missing, "missing"), (self.pending, "on their way"), (self.parked, "parked")];
        let some = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let walk = self.full_walk_at.is_none().then(|| "its list was not read whole yet".to_owned());
        let unproved =
            self.unproved.as_ref().map(|why| format!("it is not proved that its list was read whole: {why}"));
        let all: Vec<String> = walk.into_iter().chain(unproved).chain(some).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The list was read to its end, and everything on it is in the sink; what the API itself does not know any
    /// more is no gap.
    pub fn is_complete(&self) -> bool {
        self.lacks().is_none()
    }
}
