//! The time bounds of ownership, and what they allow. Pure.
//!
//! All times are of CLOCK_BOOTTIME, each of its own machine; the argument needs only that clocks run within a tenth of
//! each other. `h` is the instant before the owner sent its last heartbeat that was confirmed.
//!
//! - The owner lets requests leave until `h` + [`CALLS`], and the kernel ends a stopped one at `h` + [`END`].
//! - Another process that read the register, and finds the same heartbeat there [`proof`] of the promise later, knows
//!   that no later one was written: `h` is before its first reading, so the promise is over. It takes the row only if
//!   that is unchanged, so a late heartbeat either comes first and stops it, or finds that the row is another's.
//!
//! How long the owner may call after a heartbeat is its promise, which is in its row. Without a standby it is
//! [`ALONE`], so that an outage of MySQL stops nothing soon. Once it has seen a standby, it first keeps the short bounds
//! itself and only then promises them; it gives them up the other way round.

use std::time::Duration;

use crate::gate::BootTime;

/// Interval of heartbeats with a standby.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// The same without one.
pub(super) const BEAT_ALONE: Duration = Duration::from_secs(2);
/// With a standby: requests may leave this long after a heartbeat.
pub(super) const CALLS: Duration = Duration::from_secs(8);
/// With a standby: the kernel ends a process that is stopped for longer.
pub(super) const END: Duration = Duration::from_secs(9);
/// Without a standby: requests may leave this long after a heartbeat.
pub(super) const ALONE: Duration = Duration::from_secs(3600);
/// Heartbeats of a living process are seen within this time, twice the longest interval and an answer.
pub(super) const NOTICED: Duration = Duration::from_secs(6);
/// A standby without a heartbeat for this long is not there any more.
pub(super) const STANDBY_GONE: Duration = Duration::from_secs(30);

/// How long the same heartbeat must be seen before its promise is over, for clocks that run within a tenth of each other.
pub(super) fn proof(promise: Duration) -> Duration {
    promise * 11 / 9
}

/// The promise of the owner's row.
pub(super) fn promise(has_standby: bool) -> Duration {
    if has_standby { END } else { ALONE }
}

/// Until when requests may leave after a heartbeat at `h`.
pub(super) fn calls_until(h: BootTime, has_standby: bool) -> BootTime {
    h + if has_standby { CALLS } else { ALONE }
}

#[cfg(test)]
mod tests {
    use super::{ALONE, BEAT_ALONE, CALLS, END, NOTICED, proof};
    use std::time::Duration;

    #[test]
    fn the_bounds_are_in_order_for_all_clock_rates_within_a_tenth() {
        assert!(CALLS < END && END < ALONE && proof(END) == Duration::from_secs(11));
        assert!(NOTICED >= BEAT_ALONE * 2 + Duration::from_secs(2));
        for (owner, other) in [(0.9, 1.1), (1.0, 1.0), (1.1, 0.9)] {
            for promise in [END, ALONE] {
                // True time that passes while each clock shows its time.
                let (kept, proved) = (promise.div_f64(owner), proof(promise).div_f64(other));
                assert!(kept <= proved + Duration::from_micros(1), "{owner} {other} {promise:?}");
            }
        }
    }
}
