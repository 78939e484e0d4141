//! Points on the wall clock.
//!
//! A [`Timestamp`] counts milliseconds since 1970-01-01T00:00:00Z, in UTC and without leap seconds; negative: before.
//! [`Clock`](super::Clock) makes those of now, the parsers of [`super::datetime`] those that others wrote. They order by
//! time. Arithmetic saturates, as records of a wrong clock must not stop the engine; a difference is a [`Duration`],
//! and two points cannot be added. Stored as the bare number, shown as RFC 3339
//! ([`clock::serialize`](super::clock::serialize)).

use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// Before all others.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// After all others.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// From milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    /// Milliseconds since 1970, for keys, SQL and the calendar.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to here; zero if that is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        self.checked_since(earlier).unwrap_or_default()
    }

    /// The time from `earlier` to here. None: that is later.
    pub fn checked_since(self, earlier: Timestamp) -> Option<Duration> {
        (self >= earlier).then(|| self.abs_diff(earlier))
    }

    /// The time between the two, whichever is earlier.
    pub fn abs_diff(self, other: Timestamp) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// How far it is ahead of `other`; negative: behind.
    pub fn ahead_of(self, other: Timestamp) -> SignedDuration {
        SignedDuration::from_millis(self.0.saturating_sub(other.0))
    }

    /// The last multiple of `step` until then, counted from 1970.
    pub fn round_down(self, step: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(self.0.rem_euclid(millis(step).max(1))))
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(at: jiff::Timestamp) -> Timestamp {
        Timestamp(at.as_millisecond())
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Timestamp;

    #[test]
    fn arithmetic_saturates_and_no_difference_is_negative() {
        let (first, second) = (Timestamp::from_millis(-5), Timestamp::from_millis(7));
        assert_eq!((second.since(first), first.since(second)), (Duration::from_millis(12), Duration::ZERO));
        assert_eq!((first.checked_since(first), first.checked_since(second)), (Some(Duration::ZERO), None));
        assert_eq!((first.abs_diff(second), second.abs_diff(first)), (second.since(first), second.since(first)));
        assert_eq!((second.ahead_of(first).as_millis(), first.ahead_of(second).as_millis()), (12, -12));
        assert_eq!(first.round_down(Duration::from_millis(4)), Timestamp::from_millis(-8));
        assert_eq!((first + Duration::from_millis(12), second - Duration::from_millis(12)), (second, first));
        assert_eq!(Timestamp::MAX.since(Timestamp::MIN), Duration::from_millis(u64::MAX));
        assert_eq!((second + Duration::MAX, first - Duration::MAX), (Timestamp::MAX, Timestamp::MIN));
    }

    #[test]
    fn it_is_stored_as_the_bare_number() {
        let at = Timestamp::from_millis(1_790_000_000_000);
        assert_eq!(serde_json::to_string(&at).unwrap(), "1790000000000");
        assert_eq!(serde_json::from_str::<Timestamp>("1790000000000").unwrap(), at);
    }
}
