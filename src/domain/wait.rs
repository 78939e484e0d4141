//! What an open run waits for.

use serde::Serialize;
use utoipa::ToSchema;

use super::timestamp::Timestamp;

/// Why an open run makes no call now. The names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// All slots of its rate rule are in use.
    RateLimit,
    /// The API asked for a pause: `Retry-After`, or headers that report a spent budget.
    RetryAfter,
    /// Its calls fail and are being retried.
    Api,
    /// The outbox is full: the sink is slower than the API, or down.
    Sink,
}

/// What a run waits for, and until when as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Wait {
    pub reason: WaitReason,
    #[serde(serialize_with = "super::clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub until: Option<Timestamp>,
    /// For people.
    pub text: String,
}
