//! A run: one walk over a stream, with the counters that people watch.

use serde::{Deserialize, Serialize};

use super::cause::ErrorClass;
use super::clock::Millis;
use super::stream::StreamId;

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Newest first, until a whole page is known, unchanged and older than the overlap.
    Incremental,
    /// All pages.
    Full,
}

/// What started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Schedule,
    /// Somebody asked; a full run then also reads again every document that may still change.
    Request,
}

/// Where a run stands. `Walking` is the only state that keeps a second run of the stream away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Pages are being read.
    Walking,
    /// All pages are read; details are still to come.
    Fetching,
    /// Everything it listed is committed: in the outbox, in the sink, or parked.
    Done,
    /// The walk could not go on; `error` says why. Nothing it found is lost.
    Failed,
    /// Its shop was deleted.
    Canceled,
    /// The walk reached an end that nothing proves to be the end of the list; `error` says why. The checkpoint did not
    /// move, and no row was marked as no longer listed.
    Unproved,
    /// Its shop was refused or paused while the run was open; `error` says why. What it found is kept.
    Stopped,
}

/// One walk over a stream. `to_fetch = fetched + parked + gone + still pending`, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Counts up within one data directory.
    pub id: u64,
    pub stream: StreamId,
    pub mode: Mode,
    pub trigger: Trigger,
    pub state: RunState,
    pub started_at: Millis,
    #[serde(default)]
    pub ended_at: Option<Millis>,
    /// List calls that brought a page, the empty last one included.
    #[serde(default)]
    pub pages: u64,
    /// Rows on those pages, those that cannot be kept included; a row that a full walk meets again counts once.
    #[serde(default)]
    pub listed: u64,
    /// Of these, rows that cannot be kept: without a usable id, or unreadable. Each is parked, and counts there too.
    #[serde(default)]
    pub rejected: u64,
    /// Rows never seen before.
    #[serde(default)]
    pub new: u64,
    /// Rows whose content differs from the last time.
    #[serde(default)]
    pub changed: u64,
    /// Detail reads that the walk asked for.
    #[serde(default)]
    pub to_fetch: u64,
    /// Detail reads done.
    #[serde(default)]
    pub fetched: u64,
    /// Details that the API no longer knows (404).
    #[serde(default)]
    pub gone: u64,
    /// Given up after all attempts, to be seen under `/api/v1/parked`.
    #[serde(default)]
    pub parked: u64,
    /// Documents of this run whose commit in the sink is confirmed.
    #[serde(default)]
    pub written: u64,
    /// Documents of this run that the sink refused; they are parked, and counted beside `parked`, as they were fetched.
    #[serde(default)]
    pub refused: u64,
    /// Why the run failed.
    #[serde(default)]
    pub error: Option<String>,
    /// Class of that error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<ErrorClass>,
    /// Greatest row time seen so far; becomes the checkpoint's `newest` when the walk ends.
    #[serde(default)]
    pub newest: Option<Millis>,
    /// The pass over the list that is under way, or was the last.
    #[serde(default)]
    pub pass: Pass,
    /// The list kept moving: also the last pass found rows that an earlier one should have seen, or no longer
    /// found some that stood among others.
    #[serde(default)]
    pub drift: bool,
    /// Streams to walk when no stream of this one's resource is being walked any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<StreamId>,
    /// It was told of that much of what it met cannot be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alarmed: bool,
    /// Why the pages that were read may not be the whole list; the run ends unproved then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<Doubt>,
    /// The run of the same stream that begins when this one's walk ends: a whole walk was asked for meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One reading of a list from its head to its end. While it is read, a list moves: rows that leave pull later
/// ones onto pages that were read already. So a full walk passes again until a pass brings nothing unexpected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// Counts from 1.
    pub number: u32,
    /// It met a row that was known before it.
    pub met_known: bool,
    /// Rows below a known one that were not known themselves.
    pub missed: u64,
    /// Least row time that it met; what is older may have come of age.
    #[serde(default)]
    pub oldest: Option<Millis>,
    /// List calls of it that brought a page.
    #[serde(default)]
    pub pages: u64,
    /// It met a row that nobody can read, and so cannot tell which rows are gone.
    #[serde(default)]
    pub unreadable: bool,
}

/// Why a list may have rows that a walk did not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The page that it is about, counted like that of a job.
    pub page: u64,
    pub reason: String,
    /// The page itself could not be read; the walk went on behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

impl Default for Pass {
    fn default() -> Pass {
        Pass { number: 1, met_known: false, missed: 0, oldest: None, pages: 0, unreadable: false }
    }
}

impl Run {
    /// Detail reads not yet done, parked or found gone.
    pub fn pending(&self) -> u64 {
        self.to_fetch.saturating_sub(self.fetched + self.gone + self.parked)
    }

    /// All that is parked of this run: reads that were given up, and documents that the sink refused.
    pub fn parked_in_all(&self) -> u64 {
        self.parked.saturating_add(self.refused)
    }

    /// Walking or fetching.
    pub fn is_open(&self) -> bool {
        matches!(self.state, RunState::Walking | RunState::Fetching)
    }
}
