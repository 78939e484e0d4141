//! Tests: sealed parts that cannot be opened any more affect their shop alone, and a new secret repairs it.

use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::{Fixture, fixture, new_shop};
use crate::domain::{Entry, Mode, Next};
use crate::store::engine::key_file::WrappedKeys;
use crate::store::{SealKey, ShopChange, Store, StoreError};

/// The store reopened after the shop's data key was replaced by another shop's.
fn damaged(f: &Fixture, other: &str) -> Store {
    let text = String::from_utf8(f.kv.get(b"mkeys").unwrap().unwrap()).unwrap();
    let mut keys = WrappedKeys::read(&text);
    let foreign = keys.shops[other].clone();
    keys.shops.insert(f.stream.shop.clone(), foreign);
    f.kv.apply(&[(b"mkeys".to_vec(), Some(keys.text().into_bytes()))]).unwrap();
    Store::over(Arc::clone(&f.kv), SealKey::new(&[1; 32]), f.clock.clone(), Path::new("memory")).unwrap()
}

#[tokio::test]
async fn a_shop_whose_data_key_cannot_be_read_holds_up_no_other_and_comes_back_with_a_new_secret() {
    let f = fixture().await;
    let other = f.store.create_shop(new_shop("client-2")).await.unwrap().id;
    f.start(Mode::Full).await;
    f.page(&[("1", 1, 0)], Next::End).await;
    f.read_details().await;
    f.store.archive(f.store.outbox_positions(100, usize::MAX).unwrap()).await.unwrap();
    f.start(Mode::Full).await;
    f.page(&[("1", 2, 0)], Next::End).await;
    f.read_details().await;
    let shop = f.stream.shop.as_str();
    let store = damaged(&f, &other);
    assert!(matches!(store.secrets(shop), Err(StoreError::Sealed { .. })));
    assert_eq!(store.secrets(&other).unwrap().client_secret.expose_secret(), "canary-secret");
    let batch = store.outbox_batch(None, 100, usize::MAX).unwrap();
    assert!(batch.iter().any(|item| item.entry.is_none()), "left out");
    assert!(batch.iter().all(|item| !matches!(item.entry, Some(Entry::Document(_)))));
    assert!(store.archived("things", None, None, 10).unwrap().documents.is_empty(), "passed over");
    assert!(store.archived("things", Some(shop), None, 10).is_err(), "an error when the shop itself is asked for");
    let why = "its data key cannot be read";
    store.refuse_shop(&store.shop(shop).unwrap().unwrap(), why.to_owned()).await.unwrap();
    assert_eq!(store.shop(shop).unwrap().unwrap().reason.as_deref(), Some(why));
    let change = ShopChange { client_secret: Some(SecretString::from("new")), ..ShopChange::default() };
    store.update_shop(shop, change).await.unwrap().unwrap();
    assert_eq!(store.secrets(shop).unwrap().client_secret.expose_secret(), "new");
    assert!(store.archived("things", Some(shop), None, 10).unwrap().documents.is_empty(), "no key opens them");
    assert_eq!(store.checkpoint(&f.stream).unwrap().full_walk_at, None, "it is walked from the beginning");
}
