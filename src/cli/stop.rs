//! Stop signals, and a stop that cannot hang.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::out::tell;
use crate::app::App;

/// Waits for SIGTERM or SIGINT (Ctrl-C). Cancel safe; each call waits for a new one.
pub(super) async fn requested() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

// fits app.rs: `App::stop`.

/// Lets work in flight end, for `drain` at most; a second signal does not wait for it. What is left
/// is durable and goes on at the next start, so running out of time is no failure.
///
/// # Errors
/// What `App::stop` says, or that a second signal came.
pub(super) async fn stop(app: App, drain: Duration) -> Result<(), Failure> {
    tokio::select! {
        stopped = tokio::time::timeout(drain, app.stop()) => match stopped {
            Ok(stopped) => Ok(stopped?),
            Err(_) => {
                tell(format_args!("waybill: work in flight did not end within {drain:?}; it is repeated at the next start"));
                Ok(())
            }
        },
        again = requested() => {
            again?;
            Err(Failure::Failed(anyhow::anyhow!("stopped at once; work in flight is repeated at the next start")))
        }
    }
}
