//! Shops are registered, changed and deleted.

use secrecy::{ExposeSecret, SecretString};

use super::{NOW, SECOND, detail, fixture, new_shop, token};
use crate::domain::{CallKind, Entry, Mode, Next, ShopState};
use crate::store::keyspace::texts;
use crate::store::{Settled, ShopChange, StoreError};

#[tokio::test]
async fn a_client_id_registers_once_and_its_secret_rotates() {
    let f = fixture().await;
    assert_eq!(f.store.create_shop(new_shop("client-1")).await.unwrap_err(), StoreError::DuplicateClient);
    f.store.save_token("client-1", token("old", NOW + SECOND)).await.unwrap();
    let change = ShopChange {
        client_secret: Some(SecretString::from("new")),
        state: Some(ShopState::Paused),
        ..ShopChange::default()
    };
    let shop = f.store.update_shop(&f.stream.shop, change).await.unwrap().unwrap();
    assert_eq!(shop.state, ShopState::Paused);
    assert!(f.store.token("client-1").is_none(), "the old secret's token is gone");
    assert_eq!(f.store.secrets(&f.stream.shop).unwrap().client_secret.expose_secret(), "new");
    assert!(f.store.update_shop("unknown", ShopChange::default()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_purged_shop_leaves_nothing_and_a_result_on_its_way_is_dropped() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("2", 1, 0), ("1", 1, 0)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 2).await;
    f.settle(leases.remove(0), detail("2", Some(SECOND))).await;
    assert!(f.store.delete_shop(&f.stream.shop, true).await.unwrap());
    assert_eq!(f.settle(leases.remove(0), detail("1", None)).await, Settled::LeaseLost);
    let entries = f.drain().await;
    assert!(
        matches!(entries.as_slice(), [Entry::Checkpoint { .. }, Entry::ShopDeleted { purge: true, .. }]),
        "{entries:?}"
    );
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.ready_jobs, counters.waiting_jobs, counters.outbox, counters.open_runs), (0, 0, 0, 0));
    let left = f.kv.scan(b"", b"").map(|pair| String::from_utf8_lossy(&pair.unwrap().0).into_owned());
    // Its runs are kept, and with them what lists them.
    let left: Vec<String> = left.filter(|key| !key.starts_with('U') && key.contains(f.stream.shop.as_str())).collect();
    assert_eq!(left, [format!("P{}\0", f.stream.shop)], "only that it was purged");
}

#[tokio::test]
async fn a_result_between_a_deletion_and_its_clearing_is_dropped() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    let mut leases = f.lease(CallKind::Detail, 1).await;
    f.drain().await;
    // What the deletion commits first: the shop is gone, its jobs are not.
    f.kv.apply(&[(texts(b's', &[&f.stream.shop]), None)]).unwrap();
    assert_eq!(f.settle(leases.remove(0), detail("1", None)).await, Settled::LeaseLost);
    assert!(!f.drain().await.iter().any(|entry| matches!(entry, Entry::Document(_))));
}
