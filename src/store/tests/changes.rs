//! Changes of shops: refusals that come late, accounts, deletions that were cut off, and a later purge.

use std::time::Duration;

use secrecy::SecretString;

use super::{MS, NOW, fixture};
use crate::domain::{CallKind, Entry, Failure, Mode, Next, ShopId, ShopState, Timestamp};
use crate::store::ShopChange;
use crate::store::keyspace::texts;

#[tokio::test]
async fn a_refusal_of_credentials_that_were_changed_meanwhile_stops_no_shop() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let shop = f.store.shop(&f.stream.shop).unwrap().unwrap();
    let refused = |read_at| {
        let failure = Failure::StopShop { reason: "no".into(), read_at };
        async {
            let lease = f.lease(CallKind::List, 1).await.remove(0);
            f.settle(lease, failure).await;
            f.store.shop(&f.stream.shop).unwrap().unwrap().state
        }
    };
    let right = || ShopChange { client_secret: Some(SecretString::from("right")), ..ShopChange::default() };
    let changed = f.store.update_shop(&f.stream.shop, right()).await.unwrap().unwrap();
    assert!(changed.updated_at > shop.updated_at, "in the same millisecond too");
    assert_eq!(refused(shop.updated_at).await, ShopState::Active);
    assert_eq!(refused(changed.updated_at).await, ShopState::Refused);
    let reactivated = f.store.update_shop(&f.stream.shop, right()).await.unwrap().unwrap();
    assert_eq!((reactivated.state, reactivated.reason), (ShopState::Active, None));
}

#[tokio::test]
async fn a_new_account_takes_over_what_was_called_and_what_was_asked_to_wait() {
    let f = fixture().await;
    f.store.occupy("client-1", "GET /things", 7).await.unwrap();
    f.store.occupy("both", "GET /things", 2).await.unwrap();
    f.store.save_pause("client-1", "GET /things", Duration::from_secs(60)).await.unwrap();
    f.store.save_pause("both", "GET /things", Duration::from_secs(5)).await.unwrap();
    let change = ShopChange { account: Some("both".into()), ..ShopChange::default() };
    f.store.update_shop(&f.stream.shop, change).await.unwrap();
    assert_eq!(f.store.occupied("both", "GET /things").unwrap(), 9);
    assert_eq!(f.store.pause_left("both", "GET /things").unwrap(), Duration::from_secs(60));
}

#[tokio::test]
async fn a_deletion_goes_on_after_a_crash_though_the_sink_has_it() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 0), ("1", 1, 0)], Next::End).await;
    let lease = f.lease(CallKind::Detail, 1).await.remove(0);
    let retry = Failure::Retry { after: Duration::from_secs(1), error: "503".into() };
    f.settle(lease, retry).await;
    // As the crash leaves it: the shop is gone, its state is not.
    let (shop, known) = (texts(b's', &[&f.stream.shop]), texts(b'e', &[&f.stream.shop]));
    f.store
        .transact(move |tx| {
            tx.delete(shop);
            tx.put(known, Vec::new());
            Ok(())
        })
        .await
        .unwrap();
    f.store.resume_deletions().await.unwrap();
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.waiting_jobs, counters.open_runs), (0, 0, 0));
    for kind in [b"j", b"w", b"r", b"d", b"v", b"e"] {
        assert_eq!(f.kv.scan(kind, kind).count(), 0, "{}", String::from_utf8_lossy(kind));
    }
}

#[tokio::test]
async fn rows_that_a_deletion_left_can_be_purged_later() {
    let f = fixture().await;
    let shop = f.stream.shop.as_str();
    f.drain().await;
    assert!(f.store.delete_shop(shop, false).await.unwrap());
    assert_eq!(f.drain().await.len(), 1);
    assert!(!f.store.delete_shop(shop, false).await.unwrap(), "there is no such shop");
    assert!(f.store.delete_shop(shop, true).await.unwrap(), "but rows of it");
    assert_eq!(f.drain().await.len(), 1);
    assert!(!f.store.delete_shop(shop, true).await.unwrap());
    assert_eq!(f.store.clock().now(), NOW);
}

#[tokio::test]
async fn a_mirror_that_was_set_back_is_sent_what_it_lacks() {
    let f = fixture().await;
    f.drain().await;
    let (here, now) = (f.stream.shop.clone(), f.store.shop(&f.stream.shop).unwrap().unwrap().updated_at);
    let mirror = |shops: &[(&str, Timestamp)]| shops.iter().map(|(id, at)| (ShopId::from(*id), *at)).collect();
    assert_eq!(f.store.repair_mirror(mirror(&[(&here, now), ("a-stranger", now)])).await.unwrap(), 0);
    assert_eq!(f.store.repair_mirror(mirror(&[(&here, now - MS)])).await.unwrap(), 1, "older");
    assert_eq!(f.store.repair_mirror(mirror(&[])).await.unwrap(), 1, "missing");
    assert!(matches!(f.drain().await.as_slice(), [Entry::Shop { .. }, Entry::Shop { .. }]));
    for purge in [false, true] {
        f.store.delete_shop(&here, purge).await.unwrap();
        f.drain().await;
        assert_eq!(f.store.repair_mirror(mirror(&[])).await.unwrap(), 0);
        assert_eq!(f.store.repair_mirror(mirror(&[(&here, now)])).await.unwrap(), 1, "it is back");
        let sent = f.drain().await;
        assert!(matches!(sent.as_slice(), [Entry::ShopDeleted { purge: again, .. }] if *again == purge), "{sent:?}");
    }
}

#[tokio::test]
async fn a_purge_of_many_archived_documents_is_done_in_steps() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    let ids: Vec<String> = (0..2_300).map(|id| id.to_string()).collect();
    f.page(&ids.iter().map(|id| (id.as_str(), 1, 0)).collect::<Vec<_>>(), Next::End).await;
    while !f.read_details().await.is_empty() {}
    let archived = async || {
        let mut commits = 0;
        loop {
            let positions = f.store.outbox_positions(500, usize::MAX).unwrap();
            if positions.is_empty() {
                return commits;
            }
            f.store.archive(positions).await.unwrap();
            commits += 1;
        }
    };
    archived().await;
    let held = |limit| f.store.archive_held("things", &f.stream.shop, "", limit).unwrap().len();
    assert_eq!(held(9_999), 2_300);
    assert!(f.store.delete_shop(&f.stream.shop, true).await.unwrap());
    assert_eq!(archived().await, 3);
    assert_eq!(held(9_999), 0);
    assert_eq!(f.store.counters().unwrap().outbox, 0);
}
