//! Turns: how many lanes may work at once.
//!
//! A lane takes a turn before it leases jobs, and gives it up when all of them are settled. So memory is bounded by the
//! number of turns and not by that of the shops, although ten thousand lanes get work in the same instant at a scheduled
//! tick. Lanes get their turns in the order in which they ask. A lane that sleeps until a slot is free, or waits for a
//! login, has none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a lane may keep its turn while others wait.
const TURN_MAX: Duration = Duration::from_secs(5);

/// The turns of all lanes.
pub(super) struct Turns(Arc<Semaphore>);

/// Permission to lease jobs, until it is dropped.
pub(super) struct Turn {
    permit: OwnedSemaphorePermit,
    since: Instant,
}

impl Turns {
    pub(super) fn new(at_once: usize) -> Turns {
        Turns(Arc::new(Semaphore::new(at_once)))
    }

    /// Waits for a turn. Cancel safe, but the place in the queue is lost. None: never, since the turns are not closed.
    pub(super) async fn take(&self) -> Option<Turn> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        Some(Turn { permit, since: Instant::now() })
    }
}

impl Turn {
    /// Whether the lane should settle what it has leased and ask again: it has worked for a while, and others wait.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= TURN_MAX && self.permit.semaphore().available_permits() == 0
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_over_after_a_while_if_others_wait() {
        let turns = Turns::new(1);
        let first = turns.take().await.unwrap();
        advance(TURN_MAX).await;
        let mut second = Box::pin(turns.take());
        assert!(second.as_mut().now_or_never().is_none(), "there is one turn");
        assert!(first.is_over(Instant::now()));
        drop(first);
        let second = second.now_or_never().flatten().expect("the turn was given up");
        assert!(!second.is_over(Instant::now()), "it has just begun");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_keeps_its_turn_while_there_are_more() {
        let turns = Turns::new(2);
        let first = turns.take().await.unwrap();
        advance(10 * TURN_MAX).await;
        assert!(!first.is_over(Instant::now()));
    }
}
