//! Counts of calls by rate rule and by how they were answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::timestamp::Timestamp;
use super::variants::with_all;

with_all! {
    /// How a call was answered: the class of its status, with 429 apart.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
    pub enum CallStatus {
        #[serde(rename = "2xx")]
        Success,
        #[serde(rename = "3xx")]
        Redirect,
        #[serde(rename = "4xx")]
        Rejected,
        #[serde(rename = "429")]
        TooMany,
        #[serde(rename = "5xx")]
        ServerError,
        /// No answer began: the connection broke, or the call timed out.
        #[serde(rename = "none")]
        NoAnswer,
    }
}

impl CallStatus {
    /// The class of a status code; None: there was no answer.
    pub fn of(code: Option<u16>) -> CallStatus {
        match code {
            Some(429) => CallStatus::TooMany,
            Some(300..=399) => CallStatus::Redirect,
            Some(400..=499) => CallStatus::Rejected,
            Some(500..) => CallStatus::ServerError,
            Some(_) => CallStatus::Success,
            None => CallStatus::NoAnswer,
        }
    }

    /// As in JSON and in the label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            CallStatus::Success => "2xx",
            CallStatus::Redirect => "3xx",
            CallStatus::Rejected => "4xx",
            CallStatus::TooMany => "429",
            CallStatus::ServerError => "5xx",
            CallStatus::NoAnswer => "none",
        }
    }
}

/// Calls of one rule, by how they were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallCounts(BTreeMap<CallStatus, u64>);

impl CallCounts {
    pub fn add(&mut self, status: CallStatus, calls: u64) {
        *self.0.entry(status).or_default() += calls;
    }

    pub fn merge(&mut self, more: &CallCounts) {
        more.iter().for_each(|(status, calls)| self.add(status, calls));
    }

    pub fn get(&self, status: CallStatus) -> u64 {
        self.0.get(&status).copied().unwrap_or_default()
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (CallStatus, u64)> {
        self.0.iter().map(|(status, calls)| (*status, *calls))
    }
}

/// All calls of one rule since counting began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallTotal {
    pub rule: String,
    /// When counting began.
    pub since: Timestamp,
    pub counts: CallCounts,
}

/// The calls of one rule on one day (UTC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallDay {
    /// Midnight.
    pub day: Timestamp,
    pub rule: String,
    pub counts: CallCounts,
}
