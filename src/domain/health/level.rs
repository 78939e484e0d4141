//! How well the installation or a part of it is.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::variants::with_all;

/// The state of the whole installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HealthLevel)]
pub enum Level {
    /// Every stream is fresh.
    #[default]
    Ok,
    /// Nothing fails, but not all of it is current or complete.
    Attention,
    /// Something fails.
    Failing,
}

impl Level {
    /// Its name in JSON and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Attention => "attention",
            Level::Failing => "failing",
        }
    }
}

with_all! {
    /// The state of a stream, a resource of a shop, or a shop. In order of severity.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    #[schema(as = ResourceState)]
    pub enum State {
        #[default]
        Fresh,
        Paused,
        /// Three schedules were missed, or `alerts.stale_after` has passed.
        Behind,
        /// The last walk ended without a proof that it was whole.
        Unproved,
        Failing,
        /// The login host refuses the credentials.
        Refused,
    }
}

impl State {
    /// Its name in JSON, metrics and the log.
    pub fn name(self) -> &'static str {
        match self {
            State::Fresh => "fresh",
            State::Paused => "paused",
            State::Behind => "behind",
            State::Unproved => "unproved",
            State::Failing => "failing",
            State::Refused => "refused",
        }
    }
}
