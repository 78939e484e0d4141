//! Time as an argument.
//!
//! [`Clock`] gives the wall-clock time for stored records, as a [`Timestamp`]. Budgets and timeouts never
//! use it: they run on the monotonic `tokio::time::Instant`, because the wall clock may jump. Tests pass in a clock
//! that they set themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::timestamp::Timestamp;

/// The wall clock, or one that tests set. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(ClockSource);

#[derive(Clone, Debug)]
enum ClockSource {
    System,
    Manual(Arc<AtomicI64>),
    /// Started at this time at that instant; advances with the runtime's clock.
    #[cfg(test)]
    Runtime(Timestamp, tokio::time::Instant),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(ClockSource::System)
    }

    /// A clock that only [`Clock::set`] moves.
    pub fn manual(now: Timestamp) -> Clock {
        Clock(ClockSource::Manual(Arc::new(AtomicI64::new(now.as_millis()))))
    }

    /// A clock that follows the tokio runtime's time, which a test may have paused.
    #[cfg(test)]
    pub fn of_runtime(now: Timestamp) -> Clock {
        Clock(ClockSource::Runtime(now, tokio::time::Instant::now()))
    }

    /// Sets a manual clock; no effect on others.
    pub fn set(&self, now: Timestamp) {
        if let ClockSource::Manual(manual) = &self.0 {
            manual.store(now.as_millis(), Ordering::SeqCst);
        }
    }

    /// The time of this clock.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            ClockSource::System => system_now(),
            ClockSource::Manual(manual) => Timestamp::from_millis(manual.load(Ordering::SeqCst)),
            #[cfg(test)]
            ClockSource::Runtime(at, since) => *at + since.elapsed(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
fn system_now() -> Timestamp {
    jiff::Timestamp::now().into()
}

/// RFC 3339 in JSON: `#[serde(serialize_with = "clock::serialize")]`.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// RFC 3339 in JSON, or null.
///
/// # Errors
/// The serializer's own.
pub fn serialize_opt<S: serde::Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// `2026-11-22T15:04:05.123Z`; an out-of-range value reads as 1970.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
