//! A log that is shorter than it was: nothing that people gave is forgotten without a word.

use std::fs::File;
use std::path::Path;

use super::{NOW, new_shop, reopen, reopened, token};
use crate::domain::Clock;
use crate::store::{Scope, Store, StoreError};

fn open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(directory, &[1; 32], Clock::manual(NOW))
}

/// A directory like another one, with a shorter log.
fn cut(whole: &Path, length: u64) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("sled")).unwrap();
    for name in ["made-by-waybill", "keys", "sled/conf", "sled/db"] {
        std::fs::copy(whole.join(name), copy.path().join(name)).unwrap();
    }
    File::options().write(true).open(copy.path().join("sled/db")).unwrap().set_len(length).unwrap();
    copy
}

#[tokio::test]
async fn wherever_a_log_is_cut_it_is_damage_or_all_that_people_gave_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let store = open(at).unwrap();
    let shop = store.create_shop(new_shop("client-1")).await.unwrap().id;
    store.create_shop(new_shop("client-2")).await.unwrap();
    let (gone, _) = store.create_key("gone", Scope::Read, None, None).await.unwrap();
    let (key, text) = store.create_key("stays", Scope::Read, None, None).await.unwrap();
    assert!(store.revoke_key(&gone.id).await.unwrap() && store.delete_shop(&shop, false).await.unwrap());
    drop(store);
    drop(reopen(|| open(at)).await);
    let log = std::fs::read(at.join("sled/db")).unwrap();
    let used = log.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut refused, mut whole) = (0, 0);
    for length in (0..40).map(|part| used * part / 40).chain([used - 1, used, log.len()]) {
        let copy = cut(at, length as u64);
        match open(copy.path()) {
            Ok(store) => {
                whole += 1;
                assert_eq!(store.shops().unwrap().len(), 1, "cut at {length} of {used}");
                let keys: Vec<String> = store.keys().unwrap().into_iter().map(|key| key.id).collect();
                assert_eq!(keys, [key.id.as_str()], "cut at {length} of {used}");
                assert!(store.key(&text).unwrap().is_some());
            }
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("cut at {length} of {used}: {other}"),
        }
    }
    assert!(refused > 20 && whole > 0, "{refused} refused, {whole} whole");
}

/// What is acknowledged is on the disk, in the engine or in the log that it takes over from.
#[tokio::test]
async fn a_copy_of_an_open_store_has_every_commit() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let store = open(at).unwrap();
    for number in 1..=3 {
        store.create_shop(new_shop(&format!("client-{number}"))).await.unwrap();
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("sled")).unwrap();
        for name in ["made-by-waybill", "keys", "sled/conf", "sled/db", "sled/wal"] {
            std::fs::copy(at.join(name), copy.path().join(name)).unwrap();
        }
        assert_eq!(open(copy.path()).unwrap().shops().unwrap().len(), number);
        std::fs::write(copy.path().join("sled/wal"), b"").unwrap();
        assert!(matches!(reopened(|| open(copy.path())).await.map(drop), Ok(())), "it was taken over when it closed");
    }
}

/// What the mark counts.
fn noted(mark: &Path) -> u64 {
    let text = std::fs::read_to_string(mark).unwrap();
    text.split_once("commits ").unwrap().1.split(',').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_log_that_lost_its_last_commit_is_damaged_whatever_that_was_about() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let store = open(at).unwrap();
    store.create_shop(new_shop("client-1")).await.unwrap();
    drop(store);
    let before = reopen(|| open(at)).await;
    let files = ["sled/db", "sled/wal"].map(|name| at.join(name));
    let before_it = files.clone().map(|file| std::fs::read(file).unwrap());
    // Not given by a person: it comes from the work alone.
    before.save_token("client-1", token("token", NOW)).await.unwrap();
    drop(before);
    // Once it is closed nothing writes there any more.
    let lock = File::open(at.join("lock")).unwrap();
    lock.lock().unwrap();
    for (file, bytes) in files.iter().zip(before_it) {
        std::fs::write(file, bytes).unwrap();
    }
    drop(lock);
    let refused = open(at).map(drop).unwrap_err();
    let StoreError::Damaged { detail, .. } = refused else { panic!("{refused}") };
    assert!(detail.contains("log truncated: expected at least"), "{detail}");
}

#[tokio::test]
async fn a_mark_of_an_older_release_and_a_mark_that_is_gone_refuse_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (at, mark) = (directory.path(), directory.path().join("made-by-waybill"));
    open(at).unwrap().create_shop(new_shop("client-1")).await.unwrap();
    let first = noted(&mark);
    let old = "A store of waybill was made in this directory. Leave this file where it is.\n";
    for (number, old) in [(2, old.to_owned()), (3, format!("{old}changes by people: {:020}\n", 9_000_000))] {
        std::fs::write(&mark, old).unwrap();
        reopen(|| open(at)).await.create_shop(new_shop(&format!("client-{number}"))).await.unwrap();
        assert!(noted(&mark) >= first + number - 1);
    }
    std::fs::remove_file(&mark).unwrap();
    let store = reopen(|| open(at)).await;
    assert_eq!(store.shops().unwrap().len(), 3);
    assert!(noted(&mark) >= first + 2);
}

#[tokio::test]
async fn a_rotten_line_of_the_mark_refuses_nothing_and_is_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    let (at, mark) = (directory.path(), directory.path().join("made-by-waybill"));
    open(at).unwrap().create_shop(new_shop("client-1")).await.unwrap();
    let whole = std::fs::read_to_string(&mark).unwrap();
    let (number, format) = (whole.find("commits ").unwrap(), whole.find("format ").unwrap());
    assert!(matches!(Store::open(at, &[2; 32], Clock::manual(NOW)), Err(StoreError::WrongMasterKey { .. })));
    for byte in [number, number + 10, number + 25, format - 3, format + 7, format + 20, whole.len() - 3] {
        for bit in [0, 2, 7] {
            let mut rotten = std::fs::read(&mark).unwrap();
            rotten[byte] ^= 1 << bit;
            std::fs::write(&mark, &rotten).unwrap();
            let store = reopen(|| open(at)).await;
            assert_eq!(store.shops().unwrap().len(), 1);
            assert_ne!(std::fs::read(&mark).unwrap(), rotten, "byte {byte}, bit {bit}");
        }
    }
}
