//! Time of the last successful call per shop. Shows whether the API is down, or one list fails.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::{ShopId, Timestamp};

/// Per shop: when its latest successful call was sent.
#[derive(Debug, Default)]
pub(super) struct LastSuccess(Mutex<HashMap<ShopId, Timestamp>>);

impl LastSuccess {
    /// Records a successful call that was sent at `sent_at`.
    pub(super) fn note(&self, shop: &ShopId, sent_at: Timestamp) {
        let mut shops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match shops.get_mut(shop) {
            Some(last) => *last = sent_at.max(*last),
            None => drop(shops.insert(shop.clone(), sent_at)),
        }
    }

    /// Whether a call of the shop that was sent after `since` succeeded.
    pub(super) fn is_after(&self, shop: &str, since: Timestamp) -> bool {
        let shops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shops.get(shop).is_some_and(|sent_at| *sent_at > since)
    }
}

#[cfg(test)]
mod tests {
    use super::LastSuccess;
    use crate::domain::{ShopId, Timestamp};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn only_calls_sent_later_count() {
        let (last, shop) = (LastSuccess::default(), ShopId::from("a"));
        assert!(!last.is_after("a", at(0)));
        last.note(&shop, at(2_000));
        assert!(!last.is_after("a", at(2_000)), "it was sent before the others failed");
        last.note(&shop, at(2_001));
        last.note(&shop, at(1_000));
        assert!(last.is_after("a", at(2_000)) && !last.is_after("b", at(2_000)));
    }
}
