//! Data keys: none outlives its shop, a store of an older release gets its file, and a rotation wraps all of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::faulty::Faulty;
use super::{Kv, NOW, SECOND, fixture, new_shop, reopen};
use crate::domain::{Clock, Entry, SourceOrigin};
use crate::store::keyspace::{self, texts};
use crate::store::{Restored, RowFault, SealKey, ShopChange, Store, StoreError, StoredResponse, master_key_id};

fn over(kv: &Arc<dyn Kv>, master: u8) -> Result<Store, StoreError> {
    Store::over(Arc::clone(kv), SealKey::new(&[master; 32]), Clock::manual(NOW), Path::new("memory"))
}

fn key_file(kv: &dyn Kv) -> String {
    String::from_utf8(kv.get(b"mkeys").unwrap().unwrap()).unwrap()
}

#[tokio::test]
async fn a_purge_destroys_the_key_before_it_returns_and_a_deletion_once_the_sink_has_all() {
    let f = fixture().await;
    let other = f.store.create_shop(new_shop("client-2")).await.unwrap().id;
    let (purged, kept) = (f.stream.shop.as_str(), other.as_str());
    assert!(f.store.delete_shop(purged, true).await.unwrap());
    assert!(!key_file(&*f.kv).contains(purged));
    assert!(f.store.delete_shop(kept, false).await.unwrap());
    f.store.destroy_old_keys().await.unwrap();
    assert!(key_file(&*f.kv).contains(kept), "the sink may need it");
    f.drain().await;
    f.store.destroy_old_keys().await.unwrap();
    assert!(!key_file(&*f.kv).contains(kept));
}

#[tokio::test]
async fn a_key_of_no_shop_is_destroyed_at_the_next_opening() {
    let f = fixture().await;
    let shop = f.stream.shop.clone();
    // As a crash leaves it: between a key and its shop, or between the deletion of a shop and that of its key.
    f.kv.apply(&[(texts(b's', &[&shop]), None), (keyspace::deleted_shop(&shop), Some(Vec::new()))]).unwrap();
    assert!(key_file(&*f.kv).contains(shop.as_str()));
    drop(over(&f.kv, 1).unwrap());
    assert!(!key_file(&*f.kv).contains(shop.as_str()));
}

#[tokio::test]
async fn with_the_data_directory_and_the_master_key_nothing_of_a_purged_shop_opens() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), &[1; 32], Clock::manual(NOW));
    let store = open().unwrap();
    let shop = store.create_shop(new_shop("client-1")).await.unwrap().id;
    let other = store.create_shop(new_shop("client-2")).await.unwrap().id;
    drop(store);
    let store = reopen(open).await;
    assert!(store.delete_shop(&shop, true).await.unwrap());
    drop(store);
    assert!(reopen(open).await.secrets(&other).is_ok());
    let mut files = vec![directory.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.file_name().is_some_and(|name| name == "keys") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(other.as_str()) && !text.contains(shop.as_str()), "{text}");
        }
    }
}

/// What a store of format 2 holds, made out of one of today.
async fn as_of_format_2(kv: &Arc<dyn Kv>) -> (String, String) {
    let store = over(kv, 1).unwrap();
    let (id, gone) = (store.create_shop(new_shop("client-1")).await.unwrap().id, "gonegonegone");
    store
        .save_response([7; 32], StoredResponse { request: [1; 32], status: 201, location: None, body: "b".into() })
        .await
        .unwrap();
    let (master, data_key) = (SealKey::new(&[1; 32]), SealKey::new(&[5; 32]));
    let part = |sealed: Vec<u8>| STANDARD.encode(sealed);
    let wrapped = |id: &str| part(master.seal(&format!("data key|{id}"), &[5; 32]).unwrap());
    let cursor = store.cursor_key().to_vec();
    drop(store);
    let record = texts(b's', &[&id]);
    let mut shop: Value = serde_json::from_slice(&kv.get(&record).unwrap().unwrap()).unwrap();
    let secret = part(data_key.seal(&format!("client secret|{id}"), b"canary-secret").unwrap());
    shop = json!({"shop": shop["shop"], "secret": secret, "data_key": wrapped(&id)});
    let token = part(data_key.seal(&format!("token|{id}"), b"canary-token").unwrap());
    let token = json!({"shop": id, "sealed": token, "expires_at": (NOW + SECOND).as_millis()});
    let answer = keyspace::answer(&[7; 32]);
    let text = json!({"at": NOW.as_millis(), "answer": {"request": vec![1; 32], "status": 201, "location": null, "body": "b"}});
    let context = format!("answer {}", "07".repeat(32));
    let bytes = |value: &Value| Some(value.to_string().into_bytes());
    kv.apply(&[
        (b"mkeys".to_vec(), None),
        (b"mformat".to_vec(), Some(2_u32.to_be_bytes().to_vec())),
        (b"mcursor_key".to_vec(), Some(master.seal("cursor key", &cursor).unwrap())),
        (record, bytes(&shop)),
        (keyspace::token("client-1"), bytes(&token)),
        (keyspace::deleted_shop(gone), Some(wrapped(gone).into_bytes())),
        (answer, Some(master.seal(&context, text.to_string().as_bytes()).unwrap())),
    ])
    .unwrap();
    (id.to_string(), gone.to_owned())
}

#[tokio::test]
async fn a_store_of_an_older_release_is_carried_over_whatever_step_is_cut_off() {
    // One more step is done each time; the last time all of them.
    for steps in 0.. {
        let faulty = Arc::new(Faulty::default());
        let kv: Arc<dyn Kv> = Arc::<Faulty>::clone(&faulty);
        let (shop, gone) = as_of_format_2(&kv).await;
        let before = faulty.batches.load(Ordering::SeqCst);
        faulty.fail_at.store(before + steps + 1, Ordering::SeqCst);
        let cut = over(&kv, 1);
        let was_cut = cut.is_err();
        drop(cut);
        faulty.fail_at.store(0, Ordering::SeqCst);
        let wrong = over(&kv, 2).map(drop).unwrap_err();
        assert!(matches!(wrong, StoreError::WrongMasterKey { .. }), "{steps}: {wrong}");
        let store = over(&kv, 1).unwrap();
        assert_eq!(store.secrets(&shop).unwrap().client_secret.expose_secret(), "canary-secret", "{steps}");
        let here = SourceOrigin::from_canonical("https://api.example.com https://login.example.com/token").unwrap();
        store.use_source(here.clone());
        store.adopt_source(here.clone()).await.unwrap();
        store.reseal_credentials().await.unwrap();
        store.reseal_credentials().await.unwrap();
        let secrets = store.secrets(&shop).unwrap();
        assert_eq!((secrets.client_secret.expose_secret(), secrets.proved_at.as_ref()), ("canary-secret", Some(&here)));
        assert_eq!(store.token("client-1").unwrap().token.expose_secret(), "canary-token");
        assert_eq!(store.saved_response(&[7; 32]).unwrap().unwrap().body, "b");
        assert!(store.shop_key(&gone).is_ok(), "the sink may need the key of a shop that was deleted");
        let record = String::from_utf8(kv.get(&texts(b's', &[&shop])).unwrap().unwrap()).unwrap();
        assert!(!record.contains("data_key"), "{record}");
        assert_eq!(kv.get(&keyspace::deleted_shop(&gone)).unwrap().unwrap(), b"1");
        if !was_cut {
            assert!(steps > 3, "{steps}");
            break;
        }
    }
}

#[tokio::test]
async fn a_credential_is_sealed_for_its_client_id_and_its_source() {
    let f = fixture().await;
    let key = texts(b's', &[&f.stream.shop]);
    let stored = f.kv.get(&key).unwrap().unwrap();
    for (pointer, value) in
        [("/shop/client_id", json!("client-9")), ("/proved_at", json!({"api": "https://evil.example"}))]
    {
        let mut record: Value = serde_json::from_slice(&stored).unwrap();
        match record.pointer_mut(pointer) {
            Some(there) => *there = value,
            None => record["proved_at"] = value,
        }
        f.kv.apply(&[(key.clone(), Some(record.to_string().into_bytes()))]).unwrap();
        assert!(matches!(f.store.secrets(&f.stream.shop), Err(StoreError::Sealed { .. })), "{pointer}");
    }
}

/// The rows that a mirror has of all shops.
fn rows(store: &Store) -> Vec<(crate::domain::Shop, Vec<u8>)> {
    let batch = store.outbox_batch(None, 1000, usize::MAX).unwrap();
    let rows = batch.into_iter().filter_map(|item| match item.entry? {
        Entry::Shop { shop, sealed } => Some((shop, sealed)),
        _ => None,
    });
    rows.collect()
}

#[tokio::test]
async fn after_a_rotation_the_old_master_key_opens_neither_the_store_nor_a_row() {
    let f = fixture().await;
    let shop = f.stream.shop.clone();
    let before = rows(&f.store);
    f.store.rotate_master(&[2; 32]).await.unwrap();
    f.store.rotate_master(&[2; 32]).await.unwrap();
    assert_eq!(f.store.master_key_id(), master_key_id(&[2; 32]));
    assert_eq!(f.store.secrets(&shop).unwrap().client_secret.expose_secret(), "canary-secret");
    assert!(!f.store.is_sealed_with_master(&before[0].1));
    let (row, sealed) = f.store.mirror_row(&shop).unwrap().unwrap();
    assert!(f.store.is_sealed_with_master(&sealed));
    assert!(matches!(over(&f.kv, 1).map(drop), Err(StoreError::WrongMasterKey { .. })));
    let again = over(&f.kv, 2).unwrap();
    assert_eq!(again.secrets(&shop).unwrap().client_secret.expose_secret(), "canary-secret");
    assert_eq!(again.cursor_key(), f.store.cursor_key());
    // A data directory that is lost in the middle: rows of either key are restored.
    let empty: Arc<dyn Kv> = Arc::new(super::MemoryKv::strict());
    let lost = over(&empty, 2).unwrap();
    let old = RowFault::OtherKey { id: master_key_id(&[1; 32]) };
    assert_eq!(lost.may_restore(&before[0].0, &before[0].1).unwrap(), Restored::Unreadable(old));
    assert_eq!(lost.may_restore(&row, &sealed).unwrap(), Restored::Yes);
    lost.also_open_with(Some(&[1; 32]));
    assert_eq!(lost.may_restore(&before[0].0, &before[0].1).unwrap(), Restored::Yes);
    assert!(lost.restore_shop(&before[0].0, &before[0].1, Vec::new()).await.unwrap());
    assert_eq!(lost.secrets(&shop).unwrap().client_secret.expose_secret(), "canary-secret");
    assert!(lost.is_sealed_with_master(&rows(&lost)[0].1));
}

#[tokio::test]
async fn an_older_row_and_a_row_of_another_client_are_noticed() {
    let f = fixture().await;
    let older = rows(&f.store).remove(0);
    f.clock.set(NOW + SECOND);
    let change = ShopChange { client_secret: Some(SecretString::from("new")), ..ShopChange::default() };
    let mut now = f.store.update_shop(&f.stream.shop, change).await.unwrap().unwrap();
    let empty: Arc<dyn Kv> = Arc::new(super::MemoryKv::strict());
    let lost = over(&empty, 1).unwrap();
    let fault = |shop: &crate::domain::Shop, sealed: &[u8]| match lost.may_restore(shop, sealed).unwrap() {
        Restored::Unreadable(fault) => Some(fault),
        _ => None,
    };
    let sealed = rows(&f.store).remove(0).1;
    assert_eq!(fault(&now, &sealed), None);
    assert!(matches!(fault(&now, &older.1), Some(RowFault::OtherVersion { .. })));
    now.client_id = "client-2".into();
    assert!(matches!(fault(&now, &sealed), Some(RowFault::OtherClient { .. })));
}
