//! Time as an argument.
//!
//! [`Clock`] answers "what time is it" for records people read (milliseconds since 1970, UTC).
//! Budgets and timeouts never use it: they run on the monotonic `tokio::time::Instant`, because the
//! wall clock may jump. Tests hand in a clock that they set themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A point on the wall clock: milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// The wall clock, or a hand-set one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(None)
    }

    /// A clock that stands still until [`Clock::set`] moves it.
    pub fn manual(now: Millis) -> Clock {
        Clock(Some(Arc::new(AtomicI64::new(now))))
    }

    /// Moves a manual clock; a system clock stays as it is.
    pub fn set(&self, now: Millis) {
        if let Some(manual) = &self.0 {
            manual.store(now, Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970, UTC.
    pub fn now(&self) -> Millis {
        match &self.0 {
            Some(manual) => manual.load(Ordering::SeqCst),
            None => system_now(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
fn system_now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

/// `2026-11-22T15:04:05.123Z`; an out-of-range value reads as 1970.
pub fn rfc3339(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// `2026-11-22 15:04:05.123000`, the form MySQL's `DATETIME(6)` takes.
pub fn sql_datetime(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%d %H:%M:%S%.6f")
        .to_string()
}
