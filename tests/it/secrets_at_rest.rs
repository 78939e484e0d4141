//! Secrets at rest: a purge ends them, a changed row is noticed and concerns its shop alone, the master key rotates over
//! kills, and a shop that could not be restored gets its old id back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use reqwest::Method as Verb;
use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::app::{TestApp, eventually, secret};
use crate::support::data_files;
use crate::support::mariadb::Database;
use crate::support::no_limits;
use crate::support::oracle;
use crate::support::program::{Folder, Market, Serving};

/// Version, nonce, key, tag.
const WRAPPED: usize = 1 + 24 + 32 + 16;
/// No pace of our own.
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
/// Kills of one rotation.
const KILLS: u64 = 6;

fn master(folder: &Path) -> [u8; 32] {
    let text = fs::read_to_string(folder.join("data.key")).unwrap();
    STANDARD.decode(text.trim()).unwrap().try_into().unwrap()
}

/// What a key wraps a shop's data key for: now, and in older releases.
fn contexts(shop: &str) -> [String; 2] {
    [json!(["waybill 2", "data key", shop]).to_string(), format!("data key|{shop}")]
}

fn opens(master: &XChaCha20Poly1305, context: &str, sealed: &[u8]) -> bool {
    let Some((1, rest)) = sealed.split_first().map(|(version, rest)| (*version, rest)) else { return false };
    let (nonce, text) = rest.split_at(24);
    let nonce: [u8; 24] = nonce.try_into().unwrap();
    master.decrypt(&XNonce::from(nonce), Payload { msg: text, aad: context.as_bytes() }).is_ok()
}

/// How many wrapped keys of a shop are anywhere below a folder, and open with the master key.
fn wrapped_keys(folder: &Path, master: &[u8; 32], shop: &str) -> usize {
    let (master, contexts) = (XChaCha20Poly1305::new(&Key::from(*master)), contexts(shop));
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    let text_length = WRAPPED.div_ceil(3) * 4;
    let mut count = 0;
    for (_, bytes) in data_files::contents(folder) {
        for part in bytes.windows(WRAPPED).filter(|part| part[0] == 1) {
            count += usize::from(contexts.iter().any(|context| opens(&master, context, part)));
        }
        for part in bytes.windows(text_length).filter(|part| part.ends_with(b"==") && part.iter().all(is_letter)) {
            let sealed = STANDARD.decode(part).unwrap_or_default();
            count +=
                usize::from(sealed.len() == WRAPPED && contexts.iter().any(|context| opens(&master, context, &sealed)));
        }
    }
    count
}

async fn market(clients: usize) -> Market {
    let shop = |number: usize| {
        let client_id = format!("client-{number}");
        ShopOptions { client_secret: secret(&client_id), client_id, fbr: 2, fbb: 0 }
    };
    let shops = (0..clients).map(shop).collect();
    Market::open(Options { shops, limits: no_limits(), logins_max: None, ..Options::default() }).await
}

async fn added(serving: &Serving, client_id: &str) -> String {
    let body = json!({"name": client_id, "client_id": client_id, "client_secret": secret(client_id)});
    let answer = serving.call(Verb::POST, "/api/v1/shops").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_purge_data_directory_and_master_key_open_nothing_of_the_shop() {
    let market = market(2).await;
    let folder = Folder::at(&market.base, "");
    let serving = folder.serve();
    let (gone, stays) = (added(&serving, "client-0").await, added(&serving, "client-1").await);
    serving.idle(Duration::from_secs(60)).await;
    // The engine takes over what its log holds.
    assert_eq!(serving.terminate().0, Some(0));
    let (data, master) = (folder.path("data"), master(folder.dir.path()));
    assert!(wrapped_keys(&data, &master, &gone) > 0 && wrapped_keys(&data, &master, &stays) > 0);
    let serving = folder.serve();
    let path = format!("/api/v1/shops/{gone}?purge=true");
    assert_eq!(serving.call(Verb::DELETE, &path).send().await.unwrap().status(), 204);
    serving.kill();
    assert_eq!(wrapped_keys(&data, &master, &gone), 0, "from the answer on");
    assert!(wrapped_keys(&data, &master, &stays) > 0);
    assert_eq!(folder.serve().terminate().0, Some(0));
    assert_eq!(wrapped_keys(&data, &master, &gone), 0);
}

async fn sealed(database: &Database, shop: &str) -> String {
    let rows: Vec<String> = database.rows(&format!("SELECT HEX(sealed) FROM waybill_shops WHERE id = '{shop}'")).await;
    rows[0].clone()
}

async fn set(database: &Database, shop: &str, change: &str) {
    database.run(&format!("UPDATE waybill_shops SET {change} WHERE id = '{shop}'")).await;
}

/// The faults of the shops that are not restored, by id.
async fn faults(app: &TestApp) -> BTreeMap<String, String> {
    let items = app.get("/api/v1/adoptions").await["items"].as_array().unwrap().clone();
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    items.iter().map(|item| (text(item, "shop_id"), text(item, "fault"))).collect()
}

async fn adopt(app: &TestApp, body: Value) -> (u16, Value) {
    app.call(Verb::POST, "/api/v1/adoptions", Some(body)).await
}

/// Puts an older sealed part into the first row, changes the client id of the second, damages the third, and gives the
/// fourth the sealed part of another; returns their shops.
async fn tampered_rows(app: &TestApp, database: &Database) -> [String; 4] {
    let id = |number: usize| app.shops[&format!("shop{number}")].clone();
    let (older, changed, rotten, swapped) = (id(0), id(1), id(2), id(3));
    let before = sealed(database, &older).await;
    app.sandbox().set_secret("shop0", "another-secret-0").unwrap();
    assert_eq!(app.patch("shop0", json!({"client_secret": "another-secret-0"})).await.0, 200);
    app.run_until_idle().await;
    let newer = async || (sealed(database, &older).await != before).then_some(());
    eventually("the row of the new secret", newer).await;
    set(database, &older, &format!("sealed = UNHEX('{before}')")).await;
    set(database, &changed, "client_id = 'stranger'").await;
    set(database, &rotten, "sealed = REVERSE(sealed)").await;
    let other = sealed(database, &id(4)).await;
    set(database, &swapped, &format!("sealed = UNHEX('{other}')")).await;
    [older, changed, rotten, swapped]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_row_concerns_its_own_shop_and_that_is_adopted_or_purged() {
    let database = Database::fresh().await;
    let mut builder = TestApp::builder().mysql(database.url());
    for number in 0..6 {
        builder = builder.shop(&format!("shop{number}"), 5, 0);
    }
    let mut app = builder.shop("later", 3, 0).unregistered().start().await;
    for number in 0..6 {
        app.register(&format!("shop{number}")).await;
    }
    app.run_until_idle().await;
    let [older, changed, rotten, swapped] = tampered_rows(&app, &database).await;
    app.sandbox().reset_audit();
    app.restart_after(|folder| fs::remove_dir_all(folder.join("data")).unwrap()).await;
    let found = faults(&app).await;
    assert_eq!(found.len(), 4, "{found:?}");
    for (shop, what) in [
        (&older, "not of its last change"),
        (&changed, "its client id was changed"),
        (&rotten, "damaged"),
        (&swapped, "is that of shop"),
    ] {
        assert!(found[shop].contains(what), "{shop}: {found:?}");
    }
    assert_eq!(app.get("/api/v1/shops").await["items"].as_array().unwrap().len(), 2, "the others are restored");
    let status = app.status().await;
    let reasons = status["health"]["reasons"].as_array().unwrap();
    let reason = reasons.iter().find(|reason| reason["code"] == "shops_unrestored").unwrap();
    assert!(!reasons.iter().any(|reason| reason.to_string().contains("another master key,")), "{reasons:?}");
    assert!(reason["remedy"].as_str().unwrap().contains("/api/v1/adoptions"), "{reason}");
    app.register("later").await;

    // Registered again, it would get a new id.
    let again = json!({"name": "x", "client_id": "shop2", "client_secret": secret("shop2")});
    let (code, answer) = app.call(Verb::POST, "/api/v1/shops", Some(again)).await;
    assert!(code == 409 && answer["detail"].as_str().unwrap().contains(&rotten), "{answer}");
    let wrong = adopt(&app, json!({"shop_id": rotten, "client_secret": "wrong"})).await;
    assert_eq!(wrong.0, 422, "{}", wrong.1);
    assert_eq!(adopt(&app, json!({"shop_id": "unknown", "client_secret": "x"})).await.0, 404);
    for (shop, client_id, client_secret) in [
        (&rotten, None, secret("shop2")),
        (&older, None, "another-secret-0".to_owned()),
        (&changed, Some("shop1"), secret("shop1")),
    ] {
        let mut body = json!({"shop_id": shop, "client_secret": client_secret});
        if let Some(client_id) = client_id {
            body["client_id"] = json!(client_id);
        }
        let (code, answer) = adopt(&app, body).await;
        assert_eq!((code, answer["id"].as_str()), (201, Some(shop.as_str())), "{answer}");
    }
    assert_eq!(adopt(&app, json!({"shop_id": rotten, "client_secret": secret("shop2")})).await.0, 409);
    let path = format!("/api/v1/shops/{swapped}?purge=true");
    assert_eq!(app.call(Verb::DELETE, &path, None).await.0, 204);
    assert!(faults(&app).await.is_empty());
    app.run_until_idle().await;
    app.shops.remove("shop3");
    oracle::mysql(&database, &oracle::truth(&app)).await;
    let rows: Vec<String> = database.rows("SELECT id FROM waybill_shops ORDER BY id").await;
    let mut ids: Vec<String> = app.shops.values().cloned().collect();
    ids.sort();
    assert_eq!(rows, ids, "none under a second id");
    let read = app.sandbox().calls().into_iter().filter(|call| call.id.is_some() && call.client_id != "later").count();
    assert_eq!(read, 0, "unchanged documents are not read again");
    // Its rows are in order again.
    app.restart_after(|folder| fs::remove_dir_all(folder.join("data")).unwrap()).await;
    assert!(faults(&app).await.is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_lost_master_key_each_shop_is_adopted_with_its_secret_and_keeps_its_id() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("first", 6, 0).shop("second", 4, 0).start().await;
    app.run_until_idle().await;
    app.sandbox().reset_audit();
    app.restart_after(|folder| {
        fs::remove_dir_all(folder.join("data")).unwrap();
        fs::remove_file(folder.join("data.key")).unwrap();
    })
    .await;
    assert_eq!(faults(&app).await.len(), 2);
    for client in ["first", "second"] {
        let (shop, client_secret) = (app.shops[client].clone(), secret(client));
        let (code, answer) = adopt(&app, json!({"shop_id": shop, "client_secret": client_secret})).await;
        assert_eq!((code, answer["id"].as_str()), (201, Some(shop.as_str())), "{answer}");
    }
    app.run_until_idle().await;
    assert_eq!(app.sandbox().audit().details_read, 0);
    oracle::mysql(&database, &oracle::truth(&app)).await;
    let ready = async || (app.call(Verb::GET, "/readyz", None).await.0 == 200).then_some(());
    eventually("the restore to be over", ready).await;
    app.restart_after(|folder| fs::remove_dir_all(folder.join("data")).unwrap()).await;
    assert_eq!(app.get("/api/v1/shops").await["items"].as_array().unwrap().len(), 2, "with the new key");
    app.finish().await;
}

/// The key that a row says it is sealed with.
async fn keys_of_rows(database: &Database) -> Vec<String> {
    database.rows("SELECT DISTINCT JSON_VALUE(CONVERT(sealed USING utf8mb4), '$.key') FROM waybill_shops").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_rotates_over_kills_and_the_old_one_opens_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (market, database) = (market(8).await, Database::fresh().await);
    let mut folder = Folder::at(&market.base, &format!("{LIFTED}[mysql]\nurl = \"{}\"\n", database.url()));
    folder.set("WAYBILL_SOURCE_LOGINS_PER_SECOND", "50");
    let serving = folder.serve();
    let mut shops = Vec::new();
    for number in 0..8 {
        shops.push(added(&serving, &format!("client-{number}")).await);
    }
    serving.idle(Duration::from_secs(60)).await;
    assert_eq!(serving.terminate().0, Some(0));
    let old = master(folder.dir.path());
    let [before] = <[String; 1]>::try_from(keys_of_rows(&database).await).unwrap();
    for _ in 0..KILLS {
        let rotating = folder.spawn(&["keys", "rotate-master"]);
        tokio::time::sleep(Duration::from_millis(random.u64(0..250))).await;
        // It may be over by then; another one begins the next.
        rotating.kill();
    }
    folder.run(&["keys", "rotate-master"]).expect(0);
    let new = master(folder.dir.path());
    let [after] = <[String; 1]>::try_from(keys_of_rows(&database).await).unwrap();
    assert!(old != new && before != after);
    let left: Vec<String> = fs::read_dir(folder.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("key.new"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "the next key took its place, and nothing is left of it");
    let data = folder.path("data");
    for shop in &shops {
        assert_eq!((wrapped_keys(&data, &old, shop), wrapped_keys(&data, &new, shop)), (0, 1), "{shop}");
    }
    market.sandbox.kill_tokens();
    folder.run(&["sync", "--full", "--quiet"]).expect(0);
    folder.set("WAYBILL_MASTER_KEY", &STANDARD.encode(old));
    let refused = folder.run(&["shops", "list"]).expect(1);
    assert!(refused.err.contains("the master key does not fit the store"), "{}", refused.err);
    folder.set("WAYBILL_MASTER_KEY", "");
    // From MySQL alone, with the new key alone.
    fs::remove_dir_all(&data).unwrap();
    folder.run(&["sync", "--full", "--quiet"]).expect(0);
    assert_eq!(folder.run(&["shops", "list"]).expect(0).out.matches("active").count(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_rotates_its_master_key_and_goes_on() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("first", 6, 0).shop("second", 4, 0).start().await;
    app.run_until_idle().await;
    let before = app.get("/api/v1/master-key").await;
    assert_eq!(
        (&before["rotation"], keys_of_rows(&database).await),
        (&Value::Null, vec![before["id"].as_str().unwrap().to_owned()])
    );
    let (code, answer) = app.call(Verb::POST, "/api/v1/master-key/rotation", None).await;
    assert_eq!(code, 202, "{answer}");
    let over = async || {
        let now = app.get("/api/v1/master-key").await;
        now["rotation"].is_null().then_some(now["id"].as_str().unwrap().to_owned())
    };
    let after = eventually("the rotation to be over", over).await;
    assert_ne!(before["id"], json!(after));
    assert_eq!(keys_of_rows(&database).await, [after.as_str()]);
    app.sandbox().kill_tokens();
    assert_eq!(app.sync("first", "full").await.0, 202);
    app.run_until_idle().await;
    app.restart().await;
    assert_eq!(app.get("/api/v1/master-key").await["id"], json!(after));
    app.finish().await;
}
