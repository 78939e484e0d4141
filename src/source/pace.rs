//! Steady pace of all calls to one host: a token bucket with a fair queue.
//!
//! The budgets of the rate rules are exact and elsewhere; this only keeps a host from being flooded
//! (the login host blocks addresses that flood it). Waiters are served in the order they came.

use std::time::Duration;

use ratelimit::{Builder, Ratelimiter, TryWaitError};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// The bucket runs on tokio's monotonic time, so that tests may move it.
struct Monotonic(Instant);

impl ratelimit::Clock for Monotonic {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Paces calls.
pub(super) struct Pace {
    bucket: Ratelimiter<Monotonic>,
    /// Held by the waiter at the front: one sleeper instead of a thundering herd.
    queue: Mutex<()>,
}

impl Pace {
    /// `per_second` calls on average, `burst` at once after a rest, `ready` at the start.
    ///
    /// # Errors
    /// A text when a number is zero or `ready` is above `burst`.
    pub(super) fn new(per_second: u32, burst: u32, ready: u32) -> Result<Pace, String> {
        if per_second == 0 {
            // The bucket would take it as "no limit".
            return Err("0 calls a second would never make a call; use 1 or more".to_owned());
        }
        let bucket = Builder::with_clock(u64::from(per_second), Monotonic(Instant::now()))
            .max_tokens(u64::from(burst))
            .initial_available(u64::from(ready))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Pace { bucket, queue: Mutex::new(()) })
    }

    /// Waits for the caller's turn. Cancel safe: a dropped waiter takes nothing.
    pub(super) async fn wait(&self) {
        let _queue = self.queue.lock().await;
        loop {
            match self.bucket.try_wait() {
                Ok(()) => return,
                // Timers are no finer than a millisecond.
                Err(TryWaitError::Insufficient(wait)) => sleep(wait.max(Duration::from_millis(1))).await,
                // Cannot happen: the bucket holds at least one. Waiting is safe.
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_calls_keep_the_pace() {
        let pace = Pace::new(5, 10, 10).unwrap();
        let start = Instant::now();
        for _ in 0..10 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            pace.wait().await;
        }
        assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(Pace::new(0, 1, 0).is_err());
    }
}
