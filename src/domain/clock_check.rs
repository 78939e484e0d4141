//! Detects clock skew from the `Date` header of answers.
//!
//! One answer proves nothing: it may come from a cache, or from a server whose own clock is wrong. So the smallest
//! difference among the last answers counts. Only health uses it.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::SignedDuration;

use super::timestamp::Timestamp;

/// Number of answers that must agree.
const ANSWERS: usize = 6;
/// Differences up to this are ignored: dates are whole seconds, and clocks never agree exactly.
const BOUND: Duration = Duration::from_secs(60);
/// How far a date, cut to whole seconds, may lag behind its answer.
const DATE_STEP: Duration = Duration::from_millis(999);

/// The differences of the last answers.
#[derive(Debug, Default)]
pub struct ClockCheck {
    /// How far our clock was ahead; negative: behind.
    last: VecDeque<SignedDuration>,
}

impl ClockCheck {
    /// Records an answer: the request and receive times by our clock, and the date it carries. A date within that
    /// interval counts as no difference.
    pub fn note(&mut self, asked: Timestamp, received: Timestamp, date: Timestamp) {
        let latest = date + DATE_STEP;
        let ahead =
            if latest < asked { asked.ahead_of(latest) } else { received.ahead_of(date).min(SignedDuration::ZERO) };
        self.last.push_front(ahead);
        self.last.truncate(ANSWERS);
    }

    /// How far our clock is ahead (negative: behind). None: it agrees with one of the last answers, or there are too
    /// few.
    pub fn ahead(&self) -> Option<SignedDuration> {
        let least = self.last.iter().copied().min_by_key(|ahead| ahead.unsigned_abs())?;
        let is_one_way = self.last.iter().all(|ahead| ahead.signum() == least.signum());
        (self.last.len() == ANSWERS && is_one_way && least.unsigned_abs() > BOUND).then_some(least)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ClockCheck;
    use crate::domain::Timestamp;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// The skew in seconds after answers that took a second, with dates off by these seconds.
    fn check(dates: &[i64]) -> Option<i64> {
        let mut check = ClockCheck::default();
        let date = |off: i64| Timestamp::from_millis(NOW.as_millis() + off * 1000);
        dates.iter().for_each(|off| check.note(NOW, NOW + Duration::from_secs(1), date(*off)));
        check.ahead().map(|ahead| ahead.as_secs())
    }

    #[test]
    fn the_clock_is_wrong_only_if_all_of_the_last_answers_agree() {
        assert_eq!(check(&[-300; 6]), Some(299), "ahead");
        assert_eq!(check(&[300; 6]), Some(-299), "behind");
        assert_eq!(check(&[-300; 5]), None, "too few");
        assert_eq!(check(&[-60; 6]), None, "within the bound");
        assert_eq!(check(&[-62; 6]), Some(61));
        assert_eq!(check(&[-300, -400, -9000, -300, -350, -500]), Some(299), "the least of them");
        assert_eq!(check(&[-9000, -9000, 0, -9000, -9000, -9000]), None, "all but one from a cache");
        assert_eq!(check(&[-300, -300, 300, -300, -300, -300]), None, "servers that disagree");
        assert_eq!(check(&[-300, -300, -300, -300, -300, -300, 0]), None, "over with the first that agrees");
        assert_eq!(check(&[0, -300, -300, -300, -300, -300, -300]), Some(299));
    }

    #[test]
    fn a_slow_answer_is_not_mistaken_for_a_wrong_clock() {
        let mut check = ClockCheck::default();
        // Dated at any moment of the ten minutes that it took.
        let step = Duration::from_secs(50);
        (0..12).for_each(|n| check.note(NOW, NOW + 12 * step, NOW + n * step));
        assert_eq!(check.ahead(), None);
    }
}
