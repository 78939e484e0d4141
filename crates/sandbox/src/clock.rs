//! The sandbox's wall clock: windows, token lifetimes, dates and arrivals follow it. Tests set a manual one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// A point on the wall clock: milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// The wall clock, or one that tests set. Cheap to clone; clones of a manual clock share its time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that only [`Clock::set`] moves.
    pub fn manual(now: Millis) -> Clock {
        Clock(Source::Manual(Arc::new(AtomicI64::new(now))))
    }

    /// Sets a manual clock; no effect on the system's.
    pub fn set(&self, now: Millis) {
        if let Source::Manual(manual) = &self.0 {
            manual.store(now, Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970, UTC.
    #[expect(clippy::disallowed_methods, reason = "the sandbox's one reader of the wall clock")]
    pub fn now(&self) -> Millis {
        match &self.0 {
            Source::System => Timestamp::now().as_millisecond(),
            Source::Manual(manual) => manual.load(Ordering::SeqCst),
        }
    }
}

/// `2026-11-22T15:04:05.123Z`; an out-of-range value reads as 1970.
pub(crate) fn rfc3339(at: Millis) -> String {
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// `Thu, 27 Aug 2026 16:30:06 GMT`.
pub(crate) fn http_date(at: Millis) -> String {
    let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
