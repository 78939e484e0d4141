//! Totals over all runs: the summary line.
//!
//! Every test adds to the one summary of the process. The zeros are findings of the oracle; a run that adds to them
//! has failed, and the line repeats it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One number of the line.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The summary of the process.
#[derive(Default)]
pub(crate) struct Score {
    /// kill -9 of the service, by a test or at a system call.
    pub(crate) kills: Count,
    /// Copies of a block device, taken without unmounting, that the service was started on.
    pub(crate) powercuts: Count,
    /// Runs with a fault at one system call.
    pub(crate) sweeps: Count,
    /// Calls under a limit: each ends one window that was counted.
    pub(crate) windows_checked: Count,
    /// Documents compared with the sandbox's.
    pub(crate) documents: Count,
    pub(crate) lost: Count,
    pub(crate) doubled: Count,
    pub(crate) stale: Count,
    pub(crate) rate_breaches: Count,
    pub(crate) secrets_found: Count,
    /// Answers of the API from 500 on, except 503 and 507, which report a passing state.
    pub(crate) server_errors: Count,
    pub(crate) panics: Count,
    worst_recovery_ms: AtomicU64,
}

impl Score {
    /// Time from a start of the service to its first answer.
    pub(crate) fn recovered(&self, after: Duration) {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.worst_recovery_ms.fetch_max(ms, Ordering::Relaxed);
    }
}

impl fmt::Display for Score {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("kills", &self.kills),
            ("powercuts", &self.powercuts),
            ("sweeps", &self.sweeps),
            ("windows_checked", &self.windows_checked),
            ("documents", &self.documents),
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("stale", &self.stale),
            ("rate_breaches", &self.rate_breaches),
            ("secrets_found", &self.secrets_found),
            ("server_errors", &self.server_errors),
            ("panics", &self.panics),
        ] {
            write!(out, "{name}={} ", count.get())?;
        }
        write!(out, "worst_recovery_s={:.1}", self.worst_recovery_ms.load(Ordering::Relaxed) as f64 / 1000.0)
    }
}
