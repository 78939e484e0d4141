//! Work that goes on when the client disconnects.

use tracing::Instrument as _;

use super::reply::ApiResult;
use crate::service::ServiceError;
use crate::supervisor::{count_panic, describe_join_error};

/// Runs a future to completion, even if the returned one is dropped.
pub(super) async fn run_detached(doing: impl Future<Output = ApiResult> + Send + 'static) -> ApiResult {
    let done = tokio::spawn(doing.in_current_span()).await;
    done.unwrap_or_else(|error| {
        if error.is_panic() {
            count_panic("a request");
        }
        Err(ServiceError::Internal(format!("a request handler failed: {}", describe_join_error(&error))).into())
    })
}
