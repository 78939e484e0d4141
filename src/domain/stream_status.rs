//! The record of a stream's last runs and calls, from which health is computed.

use serde::{Deserialize, Serialize};

use super::cause::{Cause, ErrorClass};
use super::clock::Millis;
use super::job::CallKind;
use super::run::{Run, RunState};

/// The durable record of one stream. Changed only in transactions that commit other changes anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// When a run last ended, or a call last began to fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<Millis>,
    /// When a run last ended `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Millis>,
    /// Kept after the stream has recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<StreamError>,
    /// Runs in a row that ended `failed`.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub failures: u32,
    /// End of the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Millis>,
    /// Set while list calls fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_trouble: Option<Trouble>,
    /// Set while all detail calls fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail_trouble: Option<Trouble>,
}

/// The last error of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamError {
    pub class: ErrorClass,
    pub text: String,
    pub at: Millis,
}

/// An unbroken series of failed calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub since: Millis,
    pub cause: Cause,
}

/// Why a stream's list is not proved to have been read whole. Its own record, kept until a full walk is proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproved {
    pub reason: String,
    /// The end of the first walk that could not prove it.
    pub since: Millis,
    /// The end of the first walk that found none of the known rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vanished_at: Option<Millis>,
}

impl StreamStatus {
    /// Records the end of a run.
    pub fn run_ended(&mut self, run: &Run, now: Millis) {
        let text = || run.error.clone().unwrap_or_default();
        let class = run.error_class.unwrap_or_default();
        match run.state {
            RunState::Walking | RunState::Fetching | RunState::Canceled => return,
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
                self.detail_trouble = None;
                self.last_error = Some(StreamError { class, text: text(), at: now });
            }
        }
        self.last_attempt_at = Some(now);
    }

    /// Records a failed call. False: nothing new, so nothing to write.
    pub fn call_failed(&mut self, kind: CallKind, cause: &Cause, now: Millis) -> bool {
        if cause.class == ErrorClass::Stopping || (kind == CallKind::Detail && !cause.class.concerns_all_calls()) {
            return false;
        }
        let trouble = self.trouble_mut(kind);
        if trouble.as_ref().is_some_and(|known| known.cause.class == cause.class) {
            return false;
        }
        let since = trouble.as_ref().map_or(now, |known| known.since);
        *trouble = Some(Trouble { since, cause: cause.clone() });
        self.last_error = Some(StreamError { class: cause.class, text: cause.text.clone(), at: now });
        self.last_attempt_at = Some(now);
        true
    }

    /// Records a successful call. False: nothing new, so nothing to write.
    pub fn call_answered(&mut self, kind: CallKind) -> bool {
        self.trouble_mut(kind).take().is_some()
    }

    fn trouble_mut(&mut self, kind: CallKind) -> &mut Option<Trouble> {
        match kind {
            CallKind::List => &mut self.list_trouble,
            CallKind::Detail => &mut self.detail_trouble,
        }
    }
}
