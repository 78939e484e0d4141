//! What is told seldom, however often it happens: a log that a fault floods hides what matters.
//!
//! Used where documents, answers or requests of others decide how often something happens.

use std::time::{Duration, Instant};

/// Between two tellings.
const EVERY: Duration = Duration::from_secs(60);

/// One kind of news.
#[derive(Debug, Default)]
pub struct Sparse {
    told_at: Option<Instant>,
    untold: u64,
}

impl Sparse {
    /// News that were never told.
    pub const fn new() -> Sparse {
        Sparse { told_at: None, untold: 0 }
    }

    /// It happened: if it is to be told now, how often it happened untold since the last telling.
    pub fn due(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            self.untold += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_told_once_a_minute_with_its_count() {
        let begun = Instant::now();
        let mut sparse = Sparse::new();
        let told = (0..150).map(|second| sparse.due(begun + Duration::from_secs(second)));
        let told: Vec<(usize, u64)> = told.enumerate().filter_map(|(at, told)| Some((at, told?))).collect();
        assert_eq!(told, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(sparse.due(begun), None, "an instant of before changes nothing");
    }
}
