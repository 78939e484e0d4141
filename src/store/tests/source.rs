//! A data directory, its secrets and its tokens belong to one source, and move to another one shop by shop.

use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Fixture, NOW, SECOND, fixture, new_shop, origin, token};
use crate::domain::{Clock, Entry, Shop, ShopState, SourceOrigin};
use crate::store::engine::kv::Kv;
use crate::store::engine::memory::MemoryKv;
use crate::store::{LOGIN_RULE, NewShop, SealKey, ShopChange, Store};

/// The next process over the same files, configured for a source.
fn next(f: &Fixture, source: &SourceOrigin) -> Store {
    let store = Store::over(Arc::clone(&f.kv), SealKey::new(&[1; 32]), f.clock.clone(), Path::new("memory")).unwrap();
    store.use_source(source.clone());
    store
}

fn proved_at(store: &Store, shop: &str) -> Option<SourceOrigin> {
    store.secrets(shop).unwrap().proved_at
}

fn ids(shops: &[Shop]) -> Vec<&str> {
    shops.iter().map(|shop| shop.id.as_str()).collect()
}

#[tokio::test]
async fn what_an_earlier_release_stored_belongs_to_the_source_that_is_adopted() {
    let (f, [old, new]) = (fixture().await, ["old", "new"].map(origin));
    let id = f.stream.shop.as_str();
    assert_eq!((proved_at(&f.store, id), f.store.is_unused().unwrap()), (None, false));
    let store = next(&f, &old);
    assert_eq!(store.installed_source().unwrap(), None);
    assert_eq!(proved_at(&store, id), Some(old.clone()), "commands that adopt nothing work too");
    store.adopt_source(old.clone()).await.unwrap();
    let later = next(&f, &new);
    assert_eq!(later.installed_source().unwrap().unwrap().origin, old);
    assert_eq!((proved_at(&later, id), ids(&later.unproved_shops(&new).unwrap())), (Some(old), vec![id]));
}

#[tokio::test]
async fn a_move_drops_tokens_and_moves_each_shop_when_it_was_proved() {
    let (f, [old, new]) = (fixture().await, ["old", "new"].map(origin));
    let first = f.stream.shop.as_str();
    let store = next(&f, &old);
    store.adopt_source(old.clone()).await.unwrap();
    let noted = NewShop { client_secret: SecretString::from("other"), ..new_shop("client-2") };
    let second = store.create_shop(noted).await.unwrap();
    store.save_token("client-2", token("canary-token", NOW + SECOND)).await.unwrap();
    store.save_pause("", LOGIN_RULE, SECOND).await.unwrap();
    assert_eq!(store.token("client-2").unwrap().origin, old);

    let store = next(&f, &new);
    store.begin_source_move(new.clone()).await.unwrap();
    let moving = store.installed_source().unwrap().unwrap();
    assert_eq!((moving.is_moving, &moving.origin), (true, &new));
    assert!(store.token("client-2").is_none() && store.pause_left("", LOGIN_RULE).unwrap().is_zero());
    assert_eq!(store.unproved_shops(&new).unwrap().len(), 2);
    store.note_proof(first).await.unwrap();
    store.refuse_shop(&second, "unknown client".into()).await.unwrap();
    // Another process goes on with what is left.
    let store = next(&f, &new);
    store.begin_source_move(new.clone()).await.unwrap();
    assert_eq!(ids(&store.unproved_shops(&new).unwrap()), [second.id.as_str()]);
    store.end_source_move().await.unwrap();
    assert!(!store.installed_source().unwrap().unwrap().is_moving);
    assert_eq!((proved_at(&store, first), proved_at(&store, &second.id)), (Some(new.clone()), Some(old)));
    let refused = store.shop(&second.id).unwrap().unwrap();
    assert_eq!((refused.state, refused.reason.as_deref()), (ShopState::Refused, Some("unknown client")));
    // A new secret was proved at the source in use.
    let change = ShopChange { client_secret: Some(SecretString::from("new")), ..ShopChange::default() };
    assert_eq!(store.update_shop(&second.id, change).await.unwrap().unwrap().state, ShopState::Active);
    assert_eq!(proved_at(&store, &second.id), Some(new.clone()));
    // Where nothing is recorded, a move does not know either.
    let unknown = fixture().await;
    let store = next(&unknown, &new);
    store.begin_source_move(new.clone()).await.unwrap();
    assert_eq!((proved_at(&store, &unknown.stream.shop), store.unproved_shops(&new).unwrap().len()), (None, 1));
}

#[tokio::test]
async fn the_mirror_says_where_each_secret_was_proved() {
    let (f, [old, new]) = (fixture().await, ["old", "new"].map(origin));
    let store = next(&f, &old);
    store.create_shop(new_shop("client-2")).await.unwrap();
    let batch = store.outbox_batch(None, 10, usize::MAX).unwrap();
    let mirrored = batch.into_iter().filter_map(|item| match item.entry {
        Some(Entry::Shop { shop, sealed }) => Some((shop, sealed)),
        _ => None,
    });
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::strict());
    let restored = Store::over(kv, SealKey::new(&[1; 32]), Clock::manual(NOW), Path::new("memory")).unwrap();
    restored.use_source(new.clone());
    assert!(restored.is_unused().unwrap());
    restored.adopt_source(new.clone()).await.unwrap();
    restored.set_unnoted(None).await.unwrap();
    let mut found = Vec::new();
    for (shop, sealed) in mirrored {
        restored.restore_shop(&shop, &sealed, Vec::new()).await.unwrap();
        let secrets = restored.secrets(&shop.id).unwrap();
        assert_eq!(secrets.client_secret.expose_secret(), "canary-secret");
        found.push((shop.client_id, secrets.proved_at));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(found, [("client-1".to_owned(), None), ("client-2".to_owned(), Some(old))]);
}
