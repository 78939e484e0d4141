//! Errors of the service, for every caller: HTTP maps them to problems, the command line to messages and exit codes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::sentence::clause;
use crate::domain::{LogThrottle, ShopId};
use crate::sink::{SinkError, SinkErrorClass};
use crate::store::StoreError;

/// How long to wait after a temporary failure.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Why the service cannot answer or change something. Texts are shown to the caller: no secrets, no internals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Does not exist, or the caller may not see it.
    #[error("not found")]
    NotFound,
    /// Not possible in the present state.
    #[error("{0}")]
    Conflict(String),
    /// Well-formed, but invalid; all errors with their fields.
    #[error("{} invalid field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The login host refused the credentials, for this reason.
    #[error(
        "the login host refused the credentials: {0}. Check the client id and the secret in the settings of the \
         marketplace, and that the account is enabled there; if in doubt, create a new secret"
    )]
    Refused(String),
    /// The login host refused the stored credentials of a refused shop again, for this reason.
    #[error(
        "the login host still refuses the secret of shop {shop}: {}; the shop stays refused. If its account is off, resume it \
         once it is on; if the secret changed, give the new one: `waybill shops rotate {shop}`",
        clause(.reason)
    )]
    StillRefused { reason: String, shop: ShopId },
    /// The login host could not be reached.
    #[error("{detail}")]
    LoginUnreachable { detail: String, retry_after: Option<Duration> },
    /// Temporary: starting, stopping, or a component is down.
    #[error("{detail}")]
    Unavailable { detail: String, retry_after: Duration },
    /// The caller's API key has as many reads under way as it may have.
    #[error("{detail}")]
    TooManyReads { detail: String, retry_after: Duration },
    /// The disk that holds the data directory is full.
    #[error("{detail}")]
    NoRoom { detail: String, retry_after: Duration },
    /// A bug. The text is logged and never shown.
    #[error("internal: {0}")]
    Internal(String),
}

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// `name`, or `resources[1]`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> ServiceError {
        match error {
            StoreError::DuplicateClient => ServiceError::Conflict("this client id is registered already".into()),
            StoreError::Absent { .. } => ServiceError::NotFound,
            StoreError::Full => ServiceError::NoRoom {
                detail: "the disk that holds the data directory is full".into(),
                retry_after: RETRY_AFTER,
            },
            // Temporary: the process is about to be restarted.
            StoreError::Failed | StoreError::Engine(_) | StoreError::Io { .. } => {
                tracing::error!(%error, "a request failed because the store failed");
                let detail = "the store failed; the service restarts".into();
                ServiceError::Unavailable { detail, retry_after: RETRY_AFTER }
            }
            other => ServiceError::Internal(other.to_string()),
        }
    }
}

impl From<SinkError> for ServiceError {
    fn from(error: SinkError) -> ServiceError {
        static LOGGED: Mutex<LogThrottle> = Mutex::new(LogThrottle::new());
        let allowed = LOGGED.lock().unwrap_or_else(PoisonError::into_inner).allow(Instant::now());
        if let Some(suppressed) = allowed {
            tracing::warn!(error = error.text, suppressed, "failed to read from the sink");
        }
        let detail = match error.class {
            SinkErrorClass::Operator => {
                "the database refuses to be read, since a table, a column or a right is missing; `waybill check` names it"
            }
            SinkErrorClass::Repeat
            | SinkErrorClass::Disconnected
            | SinkErrorClass::Unavailable
            | SinkErrorClass::Unconfirmed
            | SinkErrorClass::NoRoom
            | SinkErrorClass::Poison
            | SinkErrorClass::Fenced
            | SinkErrorClass::Unknown => "the database cannot be read now; try again",
        };
        ServiceError::Unavailable { detail: detail.into(), retry_after: RETRY_AFTER }
    }
}

#[cfg(test)]
mod tests {
    use super::{RETRY_AFTER, ServiceError};
    use crate::sink::{SinkError, SinkErrorClass};
    use crate::store::StoreError;

    #[test]
    fn a_failure_below_the_service_is_shown_without_its_cause() {
        let absent = StoreError::Absent { what: "the shop" };
        assert_eq!(ServiceError::from(absent), ServiceError::NotFound);
        assert!(matches!(ServiceError::from(StoreError::DuplicateClient), ServiceError::Conflict(_)));
        let full = ServiceError::from(StoreError::Full);
        assert!(matches!(full, ServiceError::NoRoom { retry_after: RETRY_AFTER, .. }), "{full:?}");
        let secret = SinkError::new(SinkErrorClass::Disconnected, "waybill@db.internal: refused");
        for unavailable in [ServiceError::from(StoreError::Failed), ServiceError::from(secret)] {
            assert!(matches!(unavailable, ServiceError::Unavailable { .. }), "{unavailable:?}");
            assert!(!unavailable.to_string().contains("db.internal"));
        }
        let no_table =
            ServiceError::from(SinkError::new(SinkErrorClass::Operator, "Table 'w.shipments' doesn't exist"));
        assert!(no_table.to_string().contains("`waybill check` names it"), "{no_table}");
    }
}
