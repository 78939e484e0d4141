//! The record of a stream's last runs and calls, from which health is computed.

use serde::{Deserialize, Serialize};

use super::cause::{Cause, ErrorClass};
use super::detail_proof::IN_A_ROW;
use super::job::CallKind;
use super::plural::counted;
use super::run::{Run, RunState};
use super::timestamp::Timestamp;

/// The durable record of one stream. Changed only in transactions that commit other changes anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// When a run last ended, or a call last began to fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<Timestamp>,
    /// When a run last ended `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Timestamp>,
    /// Kept after the stream has recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<StreamError>,
    /// Runs in a row that ended `failed`.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub failures: u32,
    /// End of the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Set while list calls fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_trouble: Option<Trouble>,
    /// Set while all detail calls fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail_trouble: Option<Trouble>,
    /// Documents in a row that were answered and could not be read, counted to [`IN_A_ROW`]: then it is a trouble.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub unreadable: usize,
    /// Set while the sink refuses all documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_trouble: Option<Trouble>,
    /// Documents in a row that the sink refused, counted like `unreadable`.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub refused: usize,
    /// `walked_at` of the last checkpoint that MySQL confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_walk: Option<Timestamp>,
}

/// The last error of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamError {
    pub class: ErrorClass,
    pub text: String,
    pub at: Timestamp,
}

/// An unbroken series of failed calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub since: Timestamp,
    pub cause: Cause,
}

/// Why a stream's list is not proved to have been read whole. Its own record, kept until a full walk is proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproved {
    pub reason: String,
    /// Why a page could not be read, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
    /// The end of the first walk that could not prove it.
    pub since: Timestamp,
    /// The end of the first walk that found none of the known rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished_at: Option<Timestamp>,
}

/// What of a stream fails, or counts as failing once it fails in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    List,
    Detail,
    Write,
}

impl StreamStatus {
    /// Records the end of a run.
    pub fn run_ended(&mut self, run: &Run, now: Timestamp) {
        let text = || run.error.clone().unwrap_or_default();
        let class = run.error_class.unwrap_or_default();
        match run.state {
            RunState::Walking | RunState::Fetching | RunState::Canceled => return,
            RunState::Done if run.is_unreadable() => {
                self.list_trouble = None;
                self.failures = self.failures.saturating_add(1);
                self.failing_since.get_or_insert(now);
                let rows = counted(run.listed, "row", "rows");
                let text = format!("none of the {rows} that the list shows could be read; GET /api/v1/parked says why");
                self.last_error = Some(StreamError { class: ErrorClass::Shape, text, at: now });
            }
            RunState::Done => {
                self.last_success_at = Some(now);
                (self.failures, self.failing_since, self.list_trouble) = (0, None, None);
            }
            RunState::Failed => {
                self.failures = self.failures.saturating_add(1);
                self.failing_since.get_or_insert(now);
                self.last_error = Some(StreamError { class, text: text(), at: now });
            }
            RunState::Unproved => {
                // Its calls worked.
                (self.failures, self.failing_since, self.list_trouble) = (0, None, None);
                self.last_error = Some(StreamError { class: ErrorClass::Unproved, text: text(), at: now });
            }
            RunState::Stopped => {
                self.list_trouble = None;
                (self.detail_trouble, self.unreadable) = (None, 0);
                self.last_error = Some(StreamError { class, text: text(), at: now });
            }
        }
        self.last_attempt_at = Some(now);
    }

    /// Records a failed call. False: nothing new, so nothing to write.
    pub fn call_failed(&mut self, kind: CallKind, cause: &Cause, now: Timestamp) -> bool {
        if cause.class == ErrorClass::Stopping || (kind == CallKind::Detail && !cause.class.concerns_all_calls()) {
            return false;
        }
        let kind = match kind {
            CallKind::List => TroubleKind::List,
            CallKind::Detail => TroubleKind::Detail,
        };
        self.enter_trouble(kind, cause, now)
    }

    /// Records a document that was given up: one is the document's fault, [`IN_A_ROW`] are not. False: nothing new.
    pub fn document_unreadable(&mut self, cause: &Cause, now: Timestamp) -> bool {
        if self.unreadable < IN_A_ROW {
            self.unreadable += 1;
        }
        let is_row = self.unreadable == IN_A_ROW;
        !is_row || self.enter_trouble(TroubleKind::Detail, cause, now)
    }

    /// Records a document that the sink refused. False: nothing new, so nothing to write.
    pub fn document_refused(&mut self, cause: &Cause, now: Timestamp) -> bool {
        if self.refused < IN_A_ROW {
            self.refused += 1;
        }
        let is_row = self.refused == IN_A_ROW;
        !is_row || self.enter_trouble(TroubleKind::Write, cause, now)
    }

    /// Records a document that the sink took. False: nothing new, so nothing to write.
    pub fn document_written(&mut self) -> bool {
        let was_refused = std::mem::take(&mut self.refused) > 0;
        self.write_trouble.take().is_some() || was_refused
    }

    /// Records that MySQL has a checkpoint. False: nothing new, so nothing to write.
    pub fn checkpoint_delivered(&mut self, walked_at: Option<Timestamp>) -> bool {
        let before = self.delivered_walk;
        self.delivered_walk = walked_at.or(before);
        self.delivered_walk != before
    }

    /// Records a successful call. False: nothing new, so nothing to write.
    pub fn call_answered(&mut self, kind: CallKind) -> bool {
        match kind {
            CallKind::List => self.list_trouble.take().is_some(),
            CallKind::Detail => {
                let was_unreadable = std::mem::take(&mut self.unreadable) > 0;
                self.detail_trouble.take().is_some() || was_unreadable
            }
        }
    }

    /// What fails, in the order of a document's path.
    pub fn troubles(&self) -> impl Iterator<Item = (TroubleKind, &Trouble)> {
        let list = self.list_trouble.as_ref().map(|trouble| (TroubleKind::List, trouble));
        let detail = self.detail_trouble.as_ref().map(|trouble| (TroubleKind::Detail, trouble));
        let write = self.write_trouble.as_ref().map(|trouble| (TroubleKind::Write, trouble));
        [list, detail, write].into_iter().flatten()
    }

    fn enter_trouble(&mut self, kind: TroubleKind, cause: &Cause, now: Timestamp) -> bool {
        let trouble = match kind {
            TroubleKind::List => &mut self.list_trouble,
            TroubleKind::Detail => &mut self.detail_trouble,
            TroubleKind::Write => &mut self.write_trouble,
        };
        if trouble.as_ref().is_some_and(|known| known.cause.class == cause.class) {
            return false;
        }
        let since = trouble.as_ref().map_or(now, |known| known.since);
        *trouble = Some(Trouble { since, cause: cause.clone() });
        self.last_error = Some(StreamError { class: cause.class, text: cause.text.clone(), at: now });
        self.last_attempt_at = Some(now);
        true
    }
}

impl TroubleKind {
    /// Whether it has been proved by several documents in a row, so that there is nothing to wait for.
    pub fn is_proved_by(self, class: ErrorClass) -> bool {
        match self {
            TroubleKind::List => false,
            TroubleKind::Detail => class == ErrorClass::AllNotFound || !class.concerns_all_calls(),
            TroubleKind::Write => true,
        }
    }
}
