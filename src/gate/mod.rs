//! Whether this process may call the marketplace: a deadline by CLOCK_BOOTTIME, asked before each request leaves.
//!
//! A leaf that any module may use. The owner of a schema (`app::owner`) moves the deadline on with each heartbeat that
//! MySQL confirms; the source asks it, and drops its calls in flight when it closes. Without MySQL it is always open.
//! [`Watchdog`] holds the same deadline against a process that is stopped: the kernel ends it.

mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

pub use watchdog::Watchdog;

/// The deadline of a gate that never closes by itself.
const NEVER: u64 = u64::MAX;

/// An instant of CLOCK_BOOTTIME: time since the boot, with the time that the machine slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// The current instant.
    pub fn now() -> BootTime {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        BootTime(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default()))
    }

    /// The instant that this long a time after the boot is.
    pub fn after_boot(time: Duration) -> BootTime {
        BootTime(time)
    }

    /// Time since the boot.
    pub fn since_boot(self) -> Duration {
        self.0
    }

    /// Time from an earlier instant to this one; zero if that one is later.
    pub fn since(self, earlier: BootTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(NEVER)
    }
}

impl std::ops::Add<Duration> for BootTime {
    type Output = BootTime;

    fn add(self, time: Duration) -> BootTime {
        BootTime(self.0.saturating_add(time))
    }
}

/// The gate before each call and login. Cheap to clone; all clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Calls may leave before this instant, in nanoseconds.
    until: AtomicU64,
    /// Changes when calls in flight must be dropped.
    closings: watch::Sender<u64>,
    /// Passes that exist.
    in_flight: AtomicUsize,
}

/// Permission for one request, held as long as it is in flight.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    closings: watch::Receiver<u64>,
}

impl Gate {
    /// A gate that is open until it is closed.
    pub fn opened() -> Gate {
        Gate::with(NEVER)
    }

    /// A gate that is closed until it is opened.
    pub fn closed() -> Gate {
        Gate::with(0)
    }

    fn with(until: u64) -> Gate {
        Gate(Arc::new(Inner {
            until: AtomicU64::new(until),
            closings: watch::Sender::new(0),
            in_flight: AtomicUsize::new(0),
        }))
    }

    /// Whether a request may leave now; [`Gate::enter`] decides.
    pub fn is_open(&self) -> bool {
        match self.0.until.load(Ordering::Acquire) {
            NEVER => true,
            until => BootTime::now().nanoseconds() < until,
        }
    }

    /// Lets requests leave until an instant.
    pub fn open_until(&self, at: BootTime) {
        self.0.until.store(at.nanoseconds(), Ordering::Release);
    }

    /// Lets no request leave any more, and has the calls in flight dropped.
    pub fn close(&self) {
        self.0.until.store(0, Ordering::Release);
        self.0.closings.send_modify(|closings| *closings += 1);
    }

    /// Permission for one request; None: the gate is closed. To be asked immediately before the request leaves, after
    /// all waits.
    pub fn enter(&self) -> Option<Pass> {
        // Counted and subscribed before the question, so that a closing misses no request.
        self.0.in_flight.fetch_add(1, Ordering::AcqRel);
        let pass = Pass { gate: self.clone(), closings: self.0.closings.subscribe() };
        self.is_open().then_some(pass)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Acquire)
    }
}

impl Pass {
    /// Completes when the request must be dropped. Cancel safe.
    pub async fn revoked(&mut self) {
        // The sender lives as long as the gate of the pass.
        drop(self.closings.changed().await);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::{BootTime, Gate};

    #[tokio::test]
    async fn a_gate_is_open_until_its_deadline_and_a_closing_drops_what_is_in_flight() {
        let gate = Gate::opened();
        assert!(gate.is_open() && !Gate::closed().is_open());
        gate.open_until(BootTime::now() + Duration::from_secs(60));
        assert!(gate.is_open());
        gate.open_until(BootTime::now());
        assert!(!gate.is_open(), "by itself");
        gate.open_until(BootTime::now() + Duration::from_secs(60));
        let mut pass = gate.enter().unwrap();
        assert_eq!(gate.in_flight(), 1);
        gate.close();
        assert!(!gate.is_open() && gate.enter().is_none() && gate.in_flight() == 1);
        pass.revoked().await;
        assert!(pass.revoked().now_or_never().is_none(), "once");
        drop(pass);
        assert_eq!(gate.in_flight(), 0);
    }
}
