//! When the API last answered a call of a shop: whether it is the API that is away, or one list that fails.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::clock::Millis;

/// Of each shop: when the latest call left that was answered well.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<String, Millis>>);

impl Answers {
    /// A call of a shop, which left at `begun`, was answered well.
    pub(super) fn note(&self, shop: &str, begun: Millis) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.get_mut(shop) {
            Some(last) => *last = begun.max(*last),
            None => drop(answers.insert(shop.to_owned(), begun)),
        }
    }

    /// Whether a call of a shop that left after `since` was answered well.
    pub(super) fn came_since(&self, shop: &str, since: Millis) -> bool {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(shop).is_some_and(|begun| *begun > since)
    }
}

#[cfg(test)]
mod tests {
    use super::Answers;

    #[test]
    fn only_answers_to_calls_that_left_later_count() {
        let answers = Answers::default();
        assert!(!answers.came_since("a", 0));
        answers.note("a", 2_000);
        assert!(!answers.came_since("a", 2_000), "it left before the others failed");
        answers.note("a", 2_001);
        answers.note("a", 1_000);
        assert!(answers.came_since("a", 2_000) && !answers.came_since("b", 2_000));
    }
}
