//! JSON form of the health of one resource of a shop.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::clock;
use crate::domain::health::{ResourceHealth, State};
use crate::domain::{ErrorClass, Timestamp};

/// Health of one resource of a shop.
#[derive(Serialize, ToSchema)]
#[schema(as = ResourceHealth)]
pub(super) struct ResourceHealthForm {
    resource: String,
    /// The worst state of its streams.
    state: State,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    since: Option<Timestamp>,
    /// When a run last succeeded.
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    last_success_at: Option<Timestamp>,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    last_attempt_at: Option<Timestamp>,
    #[serde(serialize_with = "clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    next_due_at: Option<Timestamp>,
    /// Since the last success.
    #[schema(required)]
    age_seconds: Option<u64>,
    #[schema(required)]
    last_error: Option<ErrorForm>,
    /// Why it is not fresh; `remedy` says what to do.
    #[schema(required)]
    reason: Option<String>,
    #[schema(required)]
    remedy: Option<String>,
}

/// The last failure of a resource.
#[derive(Serialize, ToSchema)]
#[schema(as = ResourceError)]
struct ErrorForm {
    #[schema(value_type = String)]
    class: ErrorClass,
    text: String,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    at: Timestamp,
}

impl From<ResourceHealth> for ResourceHealthForm {
    fn from(health: ResourceHealth) -> ResourceHealthForm {
        let (reason, remedy) = health.reason.map(|reason| (reason.text, reason.remedy)).unzip();
        ResourceHealthForm {
            resource: health.resource,
            state: health.state,
            since: health.since,
            last_success_at: health.last_success_at,
            last_attempt_at: health.last_attempt_at,
            next_due_at: health.next_due_at,
            age_seconds: health.age_seconds,
            last_error: health.last_error.map(|error| ErrorForm { class: error.class, text: error.text, at: error.at }),
            reason,
            remedy,
        }
    }
}
