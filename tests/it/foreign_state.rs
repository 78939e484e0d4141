//! A state that this program must not open: it says so, and not a byte of it changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Options, ShopOptions};
use sha2::{Digest as _, Sha256};

use crate::support::no_limits;
use crate::support::program::{Folder, Market};

/// Every file below a folder, with its bytes.
fn files(below: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// A folder whose data directory holds a shop and its documents.
fn worked(market: &Market) -> Folder {
    let lifted = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let folder = Folder::at(&market.base, lifted);
    folder.feed(&["shops", "add", "--name", "First", "--client-id", "first"], "secret-of-first").expect(0);
    folder.run(&["sync", "--quiet"]).expect(0);
    folder
}

/// Every command that opens the state refuses it with these words.
#[track_caller]
fn refused(folder: &Folder, words: &str) {
    let before = files(&folder.path("data"));
    assert!(before.len() > 4, "{:?}", before.keys());
    for command in [&["serve"][..], &["sync"], &["shops", "list"], &["keys", "list"], &["preview", "shipments"]] {
        let ended = folder.run(command).expect(1);
        assert!(ended.err.contains(words), "{command:?}: {}", ended.err);
        let after = files(&folder.path("data"));
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{command:?}");
        let changed: Vec<&PathBuf> =
            before.iter().filter(|(path, bytes)| after[*path] != **bytes).map(|(path, _)| path).collect();
        assert!(changed.is_empty(), "{command:?} changed {changed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_state_and_a_wrong_master_key_are_refused_without_touching_a_byte() {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "secret-of-first".into(), fbr: 30, fbb: 10 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let mut folder = worked(&market);
    let mark = folder.path("data/made-by-waybill");
    let ours = fs::read_to_string(&mark).unwrap();

    let (kept, last) = ours.trim_end().rsplit_once('\n').unwrap();
    assert!(last.starts_with("format 3, key , sum "), "{last}");
    let said = "format 4, key ".to_owned();
    let sum: String = Sha256::digest(said.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    fs::write(&mark, format!("{kept}\n{said}, sum {sum}\n")).unwrap();
    refused(&folder, "was written by a newer waybill (format 4); use that version");

    fs::write(&mark, &ours).unwrap();
    folder.set("WAYBILL_MASTER_KEY", &STANDARD.encode([9; 32]));
    refused(&folder, "the master key does not fit the store");

    folder.set("WAYBILL_MASTER_KEY", "");
    assert!(folder.run(&["shops", "list"]).expect(0).out.contains("First"), "it is as it was");
}
