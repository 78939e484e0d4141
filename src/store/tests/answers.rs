//! Answers that are kept for who asks again.

use super::{DAY, MS, NOW, fixture};
use crate::store::StoredResponse;

fn answer(body: &str) -> StoredResponse {
    StoredResponse { request: [7; 32], status: 201, location: None, body: body.to_owned() }
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day_and_sealed() {
    let f = fixture().await;
    let (one, other) = ([1; 32], [2; 32]);
    f.store.save_response(one, answer("canary-key")).await.unwrap();
    assert_eq!(f.store.saved_response(&one).unwrap(), Some(answer("canary-key")));
    assert_eq!(f.store.saved_response(&other).unwrap(), None);
    for pair in f.kv.scan(b"", b"") {
        assert!(!String::from_utf8_lossy(&pair.unwrap().1).contains("canary"));
    }
    f.clock.set(NOW + DAY - MS);
    f.store.forget_answers().await.unwrap();
    assert!(f.store.saved_response(&one).unwrap().is_some());
    f.clock.set(NOW + DAY);
    assert_eq!(f.store.saved_response(&one).unwrap(), None);
    // The name is free again, and its new answer outlives the removal of the old one.
    f.store.save_response(one, answer("new")).await.unwrap();
    f.clock.set(NOW + DAY + MS);
    f.store.forget_answers().await.unwrap();
    assert_eq!(f.store.saved_response(&one).unwrap(), Some(answer("new")));
    f.clock.set(NOW + 2 * DAY);
    f.store.forget_answers().await.unwrap();
    for prefix in [b"i", b"n"] {
        assert_eq!(f.kv.scan(prefix, prefix).count(), 0, "nothing is left");
    }
    assert_eq!(f.kv.get(b"mkept_answers").unwrap().unwrap(), 0u64.to_be_bytes());
}

#[tokio::test]
async fn the_oldest_of_too_many_go_first() {
    let f = fixture().await;
    let keep = async |number: u8| {
        f.clock.set(NOW + u32::from(number) * MS);
        f.store.save_response([number; 32], answer("x")).await.unwrap();
    };
    let there = |number: u8| f.store.saved_response(&[number; 32]).unwrap().is_some();
    keep(1).await;
    // As if that many more were stored.
    f.kv.apply(&[(b"mkept_answers".to_vec(), Some(9_999u64.to_be_bytes().to_vec()))]).unwrap();
    keep(2).await;
    assert!(there(1) && there(2));
    keep(3).await;
    assert!(!there(1) && there(2) && there(3));
}
