//! Exponential backoff. Pure; jitter is added by [`super::RetryPolicy`].

use std::time::Duration;

/// Pauses that double from `min` up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Pauses from `min` to `max`.
    pub const fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max }
    }

    /// The pause after a failure that followed `failures` others in a row.
    pub fn pause(self, failures: u32) -> Duration {
        self.min.saturating_mul(1 << failures.min(31)).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_secs(600), Duration::from_secs(3600));
        let pauses = [0, 1, 2, 3, 4, 31, 32, u32::MAX].map(|failures| backoff.pause(failures).as_secs());
        assert_eq!(pauses, [600, 1200, 2400, 3600, 3600, 3600, 3600, 3600]);
    }
}
