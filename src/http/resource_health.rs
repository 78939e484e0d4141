//! JSON form of the health of one resource of a shop.

use serde::Serialize;

use crate::domain::ErrorClass;
use crate::domain::clock::{self, Millis};
use crate::domain::health::{ResourceHealth, State};

/// Health of one resource of a shop. Field names are those of the JSON.
#[derive(Serialize)]
pub(super) struct ResourceHealthForm {
    resource: String,
    state: State,
    #[serde(serialize_with = "clock::serialize_opt")]
    since: Option<Millis>,
    #[serde(serialize_with = "clock::serialize_opt")]
    last_success_at: Option<Millis>,
    #[serde(serialize_with = "clock::serialize_opt")]
    last_attempt_at: Option<Millis>,
    #[serde(serialize_with = "clock::serialize_opt")]
    next_due_at: Option<Millis>,
    age_seconds: Option<u64>,
    last_error: Option<ErrorForm>,
    /// Why it is not fresh; `remedy` says what to do.
    reason: Option<String>,
    remedy: Option<String>,
}

#[derive(Serialize)]
struct ErrorForm {
    class: ErrorClass,
    text: String,
    #[serde(serialize_with = "clock::serialize")]
    at: Millis,
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
