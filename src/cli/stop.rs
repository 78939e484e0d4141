//! Stop signals, and a stop that cannot hang.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::Level;

use super::Failure;
use super::log;
use crate::app::App;

/// SIGTERM and SIGINT (Ctrl-C), heard from [`Signals::listen`] on. Before it they end the process the
/// hard way, so a service listens before it says that it is there.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// The system refuses to hand the signals over.
    pub(super) fn listen() -> Result<Signals, Failure> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one that came since it listens. Cancel safe; each call takes one.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal that comes from now on. Cancel safe; each call waits for a new one.
pub(super) async fn requested() -> Result<(), Failure> {
    Signals::listen()?.requested().await;
    Ok(())
}

/// Lets work in flight end, for `drain` at most; a second signal does not wait for it. What is left
/// is durable and goes on at the next start, so running out of time is no failure.
///
/// # Errors
/// What `App::stop` says, or that a second signal came: the command did not do what it was asked.
pub(super) async fn stop(app: App, drain: Duration) -> Result<(), Failure> {
    tokio::select! {
        stopped = drained(app, drain) => stopped,
        again = requested() => {
            again?;
            Err(Failure::Failed(anyhow::anyhow!("{AT_ONCE}")))
        }
    }
}

/// The same for a service, which was asked to end and does: a second of the `signals` is no failure.
///
/// # Errors
/// What `App::stop` says.
pub(super) async fn stop_service(app: App, drain: Duration, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        stopped = drained(app, drain) => stopped,
        () = signals.requested() => {
            log::say(Level::WARN, format_args!("waybill: {AT_ONCE}"));
            Ok(())
        }
    }
}

const AT_ONCE: &str = "stopped at once; work in flight is repeated at the next start";

async fn drained(app: App, drain: Duration) -> Result<(), Failure> {
    let Ok(stopped) = tokio::time::timeout(drain, app.stop()).await else {
        let late = format!("waybill: work in flight did not end within {drain:?}; it is repeated at the next start");
        log::say(Level::WARN, late);
        return Ok(());
    };
    Ok(stopped?)
}
