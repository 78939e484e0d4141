//! Stop signals, and a shutdown that cannot hang.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

use super::command_error::CommandError;
use super::log;
use crate::app::App;

/// SIGTERM and SIGINT (Ctrl-C), handled from [`StopSignals::listen`] on. Before that they kill the process, so a service
/// listens for them before it announces itself.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// # Errors
    /// The system refuses to install the handlers.
    pub(super) fn listen() -> Result<StopSignals, CommandError> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for a signal received since [`StopSignals::listen`]. Cancel safe; each call consumes one.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal received from now on. Cancel safe; each call waits for a new one.
pub(super) async fn requested() -> Result<(), CommandError> {
    StopSignals::listen()?.requested().await;
    Ok(())
}

/// Drains work in flight for at most `drain`; a second signal ends the wait. The rest is durable and resumes at the
/// next start, so a timeout is not a failure.
///
/// # Errors
/// Those of `App::stop`, or that a second signal cut the command off.
pub(super) async fn stop(app: App, drain: Duration) -> Result<(), CommandError> {
    tokio::select! {
        stopped = drained(app, drain) => stopped.map(drop),
        again = requested() => {
            again?;
            Err(CommandError::Failed(anyhow::anyhow!("{AT_ONCE}")))
        }
    }
}

/// Like [`stop`], for a service, which was asked to end: a second signal is not a failure. Logs the end.
///
/// # Errors
/// Those of `App::stop`.
pub(super) async fn stop_service(app: App, drain: Duration, signals: &mut StopSignals) -> Result<(), CommandError> {
    let ending = app.ending();
    let (drained, stopped) = tokio::select! {
        stopped = drained(app, drain) => match stopped {
            Ok(is_drained) => (is_drained, Ok(())),
            Err(error) => (false, Err(error)),
        },
        () = signals.requested() => {
            log::say(Level::WARN, format_args!("waybill: {AT_ONCE}"));
            (false, Ok(()))
        }
    };
    ending.log(drained);
    stopped
}

const AT_ONCE: &str = "stopped at once; work in flight is repeated at the next start";

/// False: it took too long, and the rest was cut off.
async fn drained(app: App, drain: Duration) -> Result<bool, CommandError> {
    let Ok(stopped) = tokio::time::timeout(drain, app.stop()).await else {
        let late = format!("waybill: work in flight did not end within {drain:?}; it is repeated at the next start");
        log::say(Level::WARN, late);
        return Ok(false);
    };
    stopped?;
    Ok(true)
}
