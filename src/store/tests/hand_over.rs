//! Hand-over: the store of another data directory goes on with all that one holds, its data keys included.

use secrecy::ExposeSecret as _;

use super::{NOW, fixture, new_shop, reopen};
use crate::domain::Clock;
use crate::store::{Ownership, Parts, Store, StoreError, import};

const EPOCH: u64 = 7;

#[tokio::test]
async fn a_blank_store_takes_all_over_and_opens_its_secrets() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let open = |at: &tempfile::TempDir| Store::open(at.path(), &[1; 32], Clock::manual(NOW));
    let store = open(&from).unwrap();
    let shop = store.create_shop(new_shop("client-1")).await.unwrap().id;
    store.save_ownership(&Ownership::claimed(EPOCH, "schema".into(), "boot".into())).await.unwrap();
    let known = store.secrets(&shop).unwrap();
    let parts = store.export(EPOCH, b"the head").unwrap();
    assert_eq!(parts.0.len(), 2);
    drop(store);
    drop(open(&to).unwrap());
    let taken = |epoch, master: u8, parts: &Parts| import(to.path(), &[master; 32], epoch, parts);
    for refused in [
        taken(EPOCH + 1, 1, &parts),
        taken(EPOCH, 2, &parts),
        taken(EPOCH, 1, &Parts(parts.0.iter().take(1).cloned().collect())),
    ] {
        assert!(matches!(refused, Err(StoreError::Sealed { .. })), "{refused:?}");
    }
    assert!(reopen(|| open(&to)).await.is_blank().unwrap(), "nothing was changed");
    let head = loop {
        match taken(EPOCH, 1, &parts) {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            head => break head.unwrap(),
        }
    };
    assert_eq!(head, b"the head");
    let store = reopen(|| open(&to)).await;
    let opened = store.secrets(&shop).unwrap();
    assert_eq!(opened.client_secret.expose_secret(), known.client_secret.expose_secret());
    assert!(
        !store.is_blank().unwrap() && store.ownership().unwrap().is_none(),
        "the ownership is each directory's own"
    );
    drop(store);
    assert_eq!(reopen(|| open(&to)).await.secrets(&shop).unwrap().client_id, "client-1");
}

#[tokio::test]
async fn the_note_of_an_ownership_is_kept() {
    let f = fixture().await;
    let mut note = Ownership::claimed(EPOCH, "MySQL".into(), "boot-1".into());
    note.last_beat_ms = Some(5);
    f.store.save_ownership(&note).await.unwrap();
    assert_eq!(f.store.ownership().unwrap(), Some(note));
}
