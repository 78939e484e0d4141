//! A run: one walk over a stream, with its progress counters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::cause::ErrorClass;
use super::detail_proof::IN_A_ROW;
use super::run_id::RunId;
use super::stream::StreamId;
use super::timestamp::Timestamp;
use super::variants::with_all;

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Newest first, until a whole page is known, unchanged and older than the last successful walk minus the overlap.
    Incremental,
    /// All pages.
    Full,
}

/// What started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Schedule,
    /// On request; a full run then also re-reads every document that may still change.
    Request,
}

with_all! {
    /// State of a run. Only while it is `walking`, no second run of the same stream starts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum RunState {
        /// Pages are being read.
        Walking,
        /// All pages are read; details are still to come.
        Fetching,
        /// Everything it listed is committed: in the outbox, in the sink, or parked.
        Done,
        /// The walk was aborted; `error` says why. Nothing it found is lost.
        Failed,
        /// Its shop was deleted.
        Canceled,
        /// The walk ended without proof that it saw the whole list; `error` says why. The checkpoint did not move, and no
        /// row was marked as no longer listed.
        Unproved,
        /// Its shop was refused or paused while the run was open; `error` says why. What it found is kept.
        Stopped,
    }
}

impl RunState {
    /// Its name in JSON, metrics and texts.
    pub fn name(self) -> &'static str {
        match self {
            RunState::Walking => "walking",
            RunState::Fetching => "fetching",
            RunState::Done => "done",
            RunState::Failed => "failed",
            RunState::Canceled => "canceled",
            RunState::Unproved => "unproved",
            RunState::Stopped => "stopped",
        }
    }

    /// Walking or fetching.
    pub fn is_open(self) -> bool {
        match self {
            RunState::Walking | RunState::Fetching => true,
            RunState::Done | RunState::Failed | RunState::Canceled | RunState::Unproved | RunState::Stopped => false,
        }
    }
}

/// One walk over a stream. `to_fetch = fetched + parked + gone + still pending`, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub id: RunId,
    pub stream: StreamId,
    pub mode: Mode,
    pub trigger: Trigger,
    pub state: RunState,
    pub started_at: Timestamp,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// Pages received, the empty last one included.
    #[serde(default)]
    pub pages: u64,
    /// Rows on those pages, rejected ones included; a row that a full walk meets again counts once.
    #[serde(default)]
    pub listed: u64,
    /// Of these, rows that were rejected: no usable id, or unreadable. Each is parked, and counts there too.
    #[serde(default)]
    pub rejected: u64,
    /// Rows never seen before.
    #[serde(default)]
    pub new: u64,
    /// Rows whose content differs from the last time.
    #[serde(default)]
    pub changed: u64,
    /// Detail reads that the walk queued.
    #[serde(default)]
    pub to_fetch: u64,
    /// Detail reads done.
    #[serde(default)]
    pub fetched: u64,
    /// Details that the API no longer knows (404).
    #[serde(default)]
    pub gone: u64,
    /// Reads given up after all attempts; listed under `/api/v1/parked`.
    #[serde(default)]
    pub parked: u64,
    /// Documents of this run whose commit in the sink is confirmed.
    #[serde(default)]
    pub written: u64,
    /// Documents of this run that the sink refused. They are parked but not counted in `parked`, as they were fetched.
    #[serde(default)]
    pub refused: u64,
    /// Why the run failed.
    #[serde(default)]
    pub error: Option<String>,
    /// Class of that error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<ErrorClass>,
    /// Latest row time seen so far; becomes the checkpoint's `newest` when the walk ends.
    #[serde(default)]
    pub newest: Option<Timestamp>,
    /// The current pass over the list, or the last one.
    #[serde(default)]
    pub pass: Pass,
    /// The list kept moving: even the last pass found rows that an earlier one should have seen, or missed rows from
    /// the middle of the list.
    #[serde(default, rename = "drift")]
    pub list_moved: bool,
    /// Streams to walk once no stream of this resource is being walked any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<StreamId>,
    /// The high parse-failure warning was already logged for this run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alarmed: bool,
    /// Why the pages read may not be the whole list; if there are any, the run ends unproved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubt>,
    /// The full run of the same stream, requested meanwhile, that starts when this one's walk ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RunId>,
}

/// One reading of a list from its head to its end. A list shifts while it is read: rows that leave pull later ones
/// onto pages that were already read. So a full walk repeats passes until one finds nothing unexpected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Counts from 1.
    pub number: u32,
    /// It met a row that was known before the pass began.
    pub met_known: bool,
    /// New rows below a known one: an earlier pass should have seen them.
    pub missed: u64,
    /// Earliest row time it met; older rows may have aged out of the list.
    #[serde(default)]
    pub oldest: Option<Timestamp>,
    /// Pages received.
    #[serde(default)]
    pub pages: u64,
    /// It met an unreadable row, so it cannot know which rows are gone.
    #[serde(default)]
    pub unreadable: bool,
}

/// A reason to believe that a list has rows that a walk did not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The page concerned, counted like that of a job.
    pub page: u64,
    pub reason: String,
    /// Why the page itself could not be read; the walk continued after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
    /// The page itself could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// Passes of a full walk over a list that does not move. The very first pass has nothing to be compared with, so a
/// second one confirms it. A list of one page cannot have moved, unless it is empty.
pub fn least_passes(is_first_walk: bool, pages_of_a_pass: u64, rows: u64) -> u32 {
    if is_first_walk && (pages_of_a_pass > 1 || rows == 0) { 2 } else { 1 }
}

impl Default for Pass {
    fn default() -> Pass {
        Pass { number: 1, met_known: false, missed: 0, oldest: None, pages: 0, unreadable: false }
    }
}

impl Run {
    /// Whether none of the rows that it met could be read. A few on the first pages of a list may each be at fault.
    pub fn is_unreadable(&self) -> bool {
        let are_enough = self.mode == Mode::Full || self.rejected >= IN_A_ROW as u64;
        self.listed > 0 && self.rejected >= self.listed && are_enough
    }

    /// A run that begins to walk.
    pub fn new(id: RunId, stream: StreamId, mode: Mode, trigger: Trigger, started_at: Timestamp) -> Run {
        Run {
            id,
            stream,
            mode,
            trigger,
            state: RunState::Walking,
            started_at,
            ended_at: None,
            pages: 0,
            listed: 0,
            rejected: 0,
            new: 0,
            changed: 0,
            to_fetch: 0,
            fetched: 0,
            gone: 0,
            parked: 0,
            written: 0,
            refused: 0,
            error: None,
            error_class: None,
            newest: None,
            pass: Pass::default(),
            list_moved: false,
            followers: Vec::new(),
            alarmed: false,
            doubts: Vec::new(),
            next: None,
        }
    }

    /// Detail reads that are not yet done, parked or gone.
    pub fn pending(&self) -> u64 {
        self.to_fetch.saturating_sub(self.fetched + self.gone + self.parked)
    }

    /// Everything parked in this run: reads that were given up, and documents that the sink refused.
    pub fn parked_in_all(&self) -> u64 {
        self.parked.saturating_add(self.refused)
    }

    /// Walking or fetching.
    pub fn is_open(&self) -> bool {
        self.state.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::least_passes;

    #[test]
    fn only_the_first_walk_over_several_pages_or_none_passes_twice() {
        let first = [(0, 0), (1, 0), (1, 7), (2, 60)].map(|(pages, rows)| least_passes(true, pages, rows));
        assert_eq!(first, [2, 2, 1, 2]);
        assert_eq!([least_passes(false, 1, 0), least_passes(false, 9, 400)], [1, 1]);
    }
}
