//! The API's limiter: fixed windows aligned with the wall clock, one budget per account and rule, no smoothing inside
//! a window (`docs/bol-api.md`, "Rate limits").

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Millis;
use crate::limits::Limit;

/// State of a budget after a call, for the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) limit: u32,
    pub(crate) remaining: u32,
    /// Seconds until the window ends, at least 1.
    pub(crate) reset: u64,
    /// The call exceeds the limit.
    pub(crate) refused: bool,
}

#[derive(Debug, Default)]
struct Window {
    number: Millis,
    used: u32,
}

/// The windows of all accounts.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    windows: HashMap<(Arc<str>, String), Window>,
}

impl Limiter {
    /// Counts a call.
    pub(crate) fn count(&mut self, account: &Arc<str>, rule: &str, limit: Limit, now: Millis) -> Standing {
        let length = Millis::try_from(limit.window.as_millis()).unwrap_or(Millis::MAX).max(1);
        let number = now.div_euclid(length);
        let window = self.windows.entry((Arc::clone(account), rule.to_owned())).or_default();
        if window.number != number {
            *window = Window { number, used: 0 };
        }
        let refused = window.used >= limit.calls;
        if !refused {
            window.used += 1;
        }
        let left_ms = length - now.rem_euclid(length);
        let reset = u64::try_from(left_ms).unwrap_or_default().div_ceil(1000).max(1);
        Standing { limit: limit.calls, remaining: limit.calls.saturating_sub(window.used), reset, refused }
    }

    /// Restarts all windows, as after a change of the limits.
    pub(crate) fn clear(&mut self) {
        self.windows.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Limiter, Standing};
    use crate::limits::Limit;
    use std::time::Duration;

    const TWO_A_MINUTE: Limit = Limit { calls: 2, window: Duration::from_secs(60) };

    #[test]
    fn windows_turn_with_the_wall_clock() {
        let mut limiter = Limiter::default();
        let mut at = |second: i64| limiter.count(&"one".into(), "GET /x", TWO_A_MINUTE, second * 1000);
        assert_eq!(at(6), Standing { limit: 2, remaining: 1, reset: 54, refused: false });
        assert_eq!(at(59), Standing { limit: 2, remaining: 0, reset: 1, refused: false });
        assert!(at(59).refused);
        assert_eq!(at(60), Standing { limit: 2, remaining: 1, reset: 60, refused: false });
    }

    #[test]
    fn accounts_and_rules_have_their_own_budgets() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.count(&"one".into(), "GET /x", TWO_A_MINUTE, 0).remaining, 1);
        assert_eq!(limiter.count(&"two".into(), "GET /x", TWO_A_MINUTE, 0).remaining, 1);
        assert_eq!(limiter.count(&"one".into(), "GET /y", TWO_A_MINUTE, 0).remaining, 1);
        assert_eq!(limiter.count(&"one".into(), "GET /x", TWO_A_MINUTE, 59_999).remaining, 0);
        assert_eq!(limiter.count(&"one".into(), "GET /x", TWO_A_MINUTE, 59_999).reset, 1);
    }
}
