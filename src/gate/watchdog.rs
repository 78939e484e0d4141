//! A kernel timer that ends this process at an instant of CLOCK_BOOTTIME, unless it is moved on before.
//!
//! For a process that cannot keep its own promise because it does not run: stopped by a signal or a debugger, starved,
//! swapped out, or suspended with its machine. SIGKILL needs no instruction of the process.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use tokio::sync::oneshot;

use super::BootTime;

/// The timer. It is disarmed when this value is dropped.
#[derive(Debug)]
pub struct Watchdog {
    orders: Sender<Order>,
}

/// The new end of the process; none: no end.
struct Order {
    at: Option<BootTime>,
    done: oneshot::Sender<io::Result<()>>,
}

impl Watchdog {
    /// Makes the timer, disarmed. It belongs to a thread of its own, since it may not change threads.
    ///
    /// # Errors
    /// The system has no such timer, or no thread left.
    pub async fn start() -> io::Result<Watchdog> {
        let (orders, received) = channel();
        let (made, is_made) = oneshot::channel();
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || serve(&received, made))?;
        is_made.await.unwrap_or_else(|_| Err(ended()))?;
        Ok(Watchdog { orders })
    }

    /// Moves the end of the process; none: it has no end. In force when this returns.
    ///
    /// # Errors
    /// The system's; the former end stays.
    pub async fn end_at(&self, at: Option<BootTime>) -> io::Result<()> {
        let (done, is_done) = oneshot::channel();
        self.orders.send(Order { at, done }).map_err(|_| ended())?;
        is_done.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread of the watchdog ended")
}

fn serve(orders: &Receiver<Order>, made: oneshot::Sender<io::Result<()>>) {
    let kill = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
    let mut timer = match Timer::new(ClockId::CLOCK_BOOTTIME, SigEvent::new(kill)) {
        Ok(timer) => timer,
        Err(error) => {
            made.send(Err(error.into())).ok();
            return;
        }
    };
    made.send(Ok(())).ok();
    for Order { at, done } in orders {
        // Zero disarms it.
        let at = at.map_or(Duration::ZERO, BootTime::since_boot);
        let end = Expiration::OneShot(TimeSpec::from_duration(at));
        done.send(timer.set(end, TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(io::Error::from)).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Watchdog;
    use crate::gate::BootTime;

    #[tokio::test]
    async fn an_end_that_is_moved_on_or_lifted_does_not_come() {
        let watchdog = Watchdog::start().await.unwrap();
        for time in [Duration::from_secs(300), Duration::from_secs(600)] {
            watchdog.end_at(Some(BootTime::now() + time)).await.unwrap();
        }
        watchdog.end_at(None).await.unwrap();
    }
}
