//! When the API last answered a call of a shop: whether it is the API that is away, or one list that fails.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::clock::Millis;

/// The last answer of each shop.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<String, Millis>>);

impl Answers {
    /// A call of a shop was answered well.
    pub(super) fn note(&self, shop: &str, at: Millis) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.get_mut(shop) {
            Some(last) => *last = at.max(*last),
            None => drop(answers.insert(shop.to_owned(), at)),
        }
    }

    /// Whether calls of a shop were answered while others failed, from `since` until `now`. Of an answer soon after
    /// `since` it is not known whether it came before the outage: only the latter half counts.
    pub(super) fn came_during(&self, shop: &str, since: Millis, now: Millis) -> bool {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let half = since.saturating_add(now.saturating_sub(since) / 2);
        answers.get(shop).is_some_and(|at| *at >= half && *at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::Answers;

    #[test]
    fn only_answers_in_the_latter_half_of_an_outage_count() {
        let answers = Answers::default();
        answers.note("a", 1_000);
        assert!(!answers.came_during("a", 2_000, 4_000), "before it");
        answers.note("a", 2_100);
        assert!(!answers.came_during("a", 2_000, 4_000), "it may have been on its way");
        answers.note("a", 3_500);
        assert!(answers.came_during("a", 2_000, 4_000) && !answers.came_during("b", 2_000, 4_000));
        assert!(!answers.came_during("a", 2_000, 3_000), "a clock that was set back");
    }
}
