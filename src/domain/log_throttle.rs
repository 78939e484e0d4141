//! Throttles repeated log messages to one a minute, so that a fault cannot flood the log.
//!
//! Used where documents, answers or requests from outside decide how often a message is due.

use std::time::{Duration, Instant};

/// Shortest time between two messages of one call site.
const EVERY: Duration = Duration::from_secs(60);

/// Throttle state of one log call site.
#[derive(Debug, Default)]
pub struct LogThrottle {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    /// A throttle that allows its first message.
    pub const fn new() -> LogThrottle {
        LogThrottle { logged_at: None, suppressed: 0 }
    }

    /// Whether to log now: `Some` with the number of messages suppressed since the last one.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_message_is_logged_once_a_minute_with_the_number_suppressed() {
        let start = Instant::now();
        let mut throttle = LogThrottle::new();
        let allowed = (0..150).map(|second| throttle.allow(start + Duration::from_secs(second)));
        let allowed: Vec<(usize, u64)> =
            allowed.enumerate().filter_map(|(at, suppressed)| Some((at, suppressed?))).collect();
        assert_eq!(allowed, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(throttle.allow(start), None, "an earlier instant changes nothing");
    }
}
