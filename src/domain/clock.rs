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
#[derive(Clone, Debug)]
pub struct Clock(Hand);

#[derive(Clone, Debug)]
enum Hand {
    System,
    Manual(Arc<AtomicI64>),
    /// Shows this at the instant, and moves with the runtime's time from there.
    #[cfg(test)]
    Runtime(Millis, tokio::time::Instant),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(Hand::System)
    }

    /// A clock that stands still until [`Clock::set`] moves it.
    pub fn manual(now: Millis) -> Clock {
        Clock(Hand::Manual(Arc::new(AtomicI64::new(now))))
    }

    /// A clock that moves with the time of the tokio runtime, which a test may have paused.
    #[cfg(test)]
    pub fn of_runtime(now: Millis) -> Clock {
        Clock(Hand::Runtime(now, tokio::time::Instant::now()))
    }

    /// Moves a manual clock; others stay as they are.
    pub fn set(&self, now: Millis) {
        if let Hand::Manual(manual) = &self.0 {
            manual.store(now, Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970, UTC.
    pub fn now(&self) -> Millis {
        match &self.0 {
            Hand::System => system_now(),
            Hand::Manual(manual) => manual.load(Ordering::SeqCst),
            #[cfg(test)]
            Hand::Runtime(at, since) => {
                at.saturating_add(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
fn system_now() -> Millis {
    jiff::Timestamp::now().as_millisecond()
}

/// RFC 3339 in JSON: `#[serde(serialize_with = "clock::serialize")]`.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: serde::Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

/// RFC 3339 in JSON, or null.
///
/// # Errors
/// The serializer's own.
pub fn serialize_opt<S: serde::Serializer>(at: &Option<Millis>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serialize(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// `2026-11-22T15:04:05.123Z`; an out-of-range value reads as 1970.
pub fn rfc3339(at: Millis) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// `2026-11-22 15:04:05.123000`, the form MySQL's `DATETIME(6)` takes.
pub fn sql_datetime(at: Millis) -> String {
    super::datetime::civil(at).map_or_else(|| sql_datetime(0), super::datetime::sql_text)
}
