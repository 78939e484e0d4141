//! One call, and what became of it and of its slot in the budget.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::budget::Budget;
use super::headers::Quota;
use super::problem::SourceError;
use crate::domain::calls::CallStatus;

/// The pause after a 429 that names none, when the rule is lifted and has no window.
const REFUSED_MIN: Duration = Duration::from_secs(1);

/// One read call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Begins with `/`; its segments are percent-encoded already.
    pub path: String,
    /// Encoded when the call is made.
    pub query: Vec<(String, String)>,
    pub media_type: String,
}

/// What became of a call, and so of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Not sent; the slot is unused.
    NotSent,
    /// The API began to answer, so the call has arrived, whatever became of the body.
    Answered,
    /// No answer began; the call may have arrived, or may still.
    Lost,
}

/// The result of a call.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The body of a 200 of the right type, whole and decompressed.
    pub result: Result<Bytes, SourceError>,
    /// Address of the next page of a list, from the header `Link`.
    pub next_link: Option<String>,
    pub quota: Quota,
    pub ending: Ending,
    /// The answer's status; none: no answer, or only the result is known.
    pub status: Option<u16>,
}

impl Outcome {
    /// An outcome without anything from headers.
    pub(crate) fn plain(result: Result<Bytes, SourceError>, ending: Ending) -> Outcome {
        Outcome { result, next_link: None, quota: Quota::default(), ending, status: None }
    }

    pub(super) fn not_sent(error: SourceError) -> Outcome {
        Outcome::plain(Err(error), Ending::NotSent)
    }

    /// How the call was answered; none: it was not sent.
    pub fn call_status(&self) -> Option<CallStatus> {
        let code = match (self.ending, &self.result) {
            (Ending::NotSent, _) => return None,
            (Ending::Lost, _) => None,
            (Ending::Answered, Ok(_)) => Some(200),
            (Ending::Answered, Err(SourceError::Throttled { .. })) => Some(429),
            (Ending::Answered, Err(_)) => self.status,
        };
        Some(CallStatus::of(code))
    }

    /// Whether the call was sent, so that its slot is used.
    pub fn sent(&self) -> bool {
        self.ending != Ending::NotSent
    }

    /// Settles the slot taken for this call. `now` is any instant after the call; a caller that drops
    /// [`super::Source::get`] before its end calls [`Budget::lost`] instead. Some: the API asked for a longer pause than was
    /// known, which the caller should store.
    pub fn settle(&self, budget: &mut Budget, now: Instant) -> Option<Duration> {
        let before = budget.blocked_for(now);
        match (self.ending, &self.result) {
            (Ending::NotSent, _) => budget.give_back(1),
            (Ending::Lost, _) => budget.lost(now),
            (Ending::Answered, Err(SourceError::Throttled { retry_after })) => {
                let pause = retry_after.unwrap_or(budget.window().max(REFUSED_MIN));
                budget.refused(now, pause, &self.quota);
            }
            (Ending::Answered, Err(SourceError::Unavailable { retry_after: Some(pause), .. })) => {
                budget.paused(now, *pause, &self.quota);
            }
            (Ending::Answered, _) => budget.ended(now, &self.quota),
        }
        let pause = budget.blocked_for(now);
        (pause > before).then_some(pause)
    }
}
