//! What to do after a failed attempt, and the backoff between retries.

use std::time::Duration;

use super::Backoff;

/// What to do after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again, after `Some(hint)` at the earliest, or with the policy's own backoff. Counts as an attempt.
    Retry { after: Option<Duration> },
    /// Try once more, with the policy's backoff: the answer itself is wrong, and more tries only cost budget.
    RetryOnce,
    /// Not the job's fault (throttled, login host blocked, shutting down): try again after the pause without counting
    /// it.
    Postpone { after: Duration },
    /// Retrying cannot help now: park it with the reason. With `transient` it is requeued automatically, at growing
    /// intervals, like a job that failed too often.
    Park { transient: bool },
    /// The shop's credentials are refused: stop the shop, keep its jobs.
    StopShop,
}

/// Attempts of what gets [`Disposition::RetryOnce`].
pub const ATTEMPTS_OF_WRONG_ANSWERS: u32 = 2;

/// Exponential backoff with jitter, between `base` and `cap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts before a job is parked.
    pub attempts_max: u32,
    pub base: Duration,
    pub cap: Duration,
}

impl Default for RetryPolicy {
    /// Eight attempts within about a minute: longer than a restart of the API's front end. Jobs parked in a longer
    /// outage are requeued by the walks after it.
    fn default() -> RetryPolicy {
        RetryPolicy { attempts_max: 8, base: Duration::from_millis(500), cap: Duration::from_secs(120) }
    }
}

impl RetryPolicy {
    /// The pause after attempt number `attempt` (from 1) failed. `jitter` is a random number in `0.0..1.0`. A hint from
    /// the server is never shortened, only lengthened.
    pub fn delay(&self, attempt: u32, hint: Option<Duration>, jitter: f64) -> Duration {
        let ceiling = Backoff::new(self.base, self.cap).pause(attempt.saturating_sub(1));
        let own = ceiling.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        hint.map_or(own, |hint| hint.max(own))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::RetryPolicy;
    use std::time::Duration;

    proptest! {
        #[test]
        fn delay_stays_in_bounds_and_never_shortens_a_hint(
            attempt in any::<u32>(), jitter in 0.0f64..1.0, hint_ms in 0u64..10_000_000,
        ) {
            let policy = RetryPolicy::default();
            prop_assert!(policy.delay(attempt, None, jitter) <= policy.cap);
            prop_assert!(policy.delay(attempt, None, jitter) >= policy.base / 2);
            let hint = Duration::from_millis(hint_ms);
            prop_assert!(policy.delay(attempt, Some(hint), jitter) >= hint);
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap_and_jitter_removes_half_at_most() {
        let ms = Duration::from_millis;
        let policy = RetryPolicy { attempts_max: 8, base: ms(100), cap: ms(1000) };
        let pauses = |jitter| [1, 2, 3, 4, 5, 40].map(|attempt| policy.delay(attempt, None, jitter).as_millis());
        assert_eq!(pauses(1.0), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pauses(0.5), [75, 150, 300, 600, 750, 750]);
        assert_eq!(pauses(0.0), [50, 100, 200, 400, 500, 500]);
    }
}
