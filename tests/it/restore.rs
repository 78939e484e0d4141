//! A lost or damaged data directory heals from MySQL, and reads nothing again that is there unchanged.

use std::fs;
use std::path::Path;

use reqwest::Method as Verb;
use sandbox::Method;
use serde_json::{Value, json};

use crate::support::app::{TestApp, eventually, secret};
use crate::support::mariadb::{Database, MariaDb};
use crate::support::oracle;

fn lose(folder: &Path) {
    fs::remove_dir_all(folder.join("data")).unwrap();
}

async fn shops(app: &TestApp) -> Vec<Value> {
    app.get("/api/v1/shops").await["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_data_directory_comes_back_from_mysql() {
    let database = Database::fresh().await;
    let builder = TestApp::builder().mysql(database.url()).limits(["40/s", "80/s"]);
    let mut app = builder.shop("first", 160, 40).shop("second", 50, 0).start().await;
    app.run_until_idle().await;
    let before = shops(&app).await;
    // Two documents that never came to MySQL, two that are new, one that changes meanwhile.
    let ids: Vec<String> = app.sandbox().truth("first").into_iter().map(|(_, id, _)| id).collect();
    let shop = app.shops["first"].clone();
    for id in &ids[10..12] {
        for table in ["shipments", "shipment_items", "shipment_transport_events"] {
            database.run(&format!("DELETE FROM {table} WHERE shop_id = '{shop}' AND shipment_id = '{id}'")).await;
        }
    }
    app.restart_after(lose).await;
    let new = app.sandbox().add_shipments("first", Method::Fbr, 2).unwrap();
    app.sandbox().change_row("first", &ids[50]).unwrap();
    app.sandbox().reset_audit();
    assert_eq!(app.sync("first", "incremental").await.0, 202);
    app.run_until_idle().await;
    let reported = |shops: &[Value]| -> Vec<[Value; 4]> {
        shops.iter().map(|shop| ["id", "name", "client_id", "created_at"].map(|name| shop[name].clone())).collect()
    };
    assert_eq!(reported(&shops(&app).await), reported(&before));
    let truth = oracle::truth(&app);
    oracle::mysql(&database, &truth).await;
    oracle::listing(&app, &truth).await;
    for client in ["first", "second"] {
        let answer = app.get(&format!("/api/v1/shops/{}/completeness", app.shops[client])).await;
        assert_eq!(answer["complete"], true, "{answer}");
    }
    let read: Vec<String> = app.sandbox().calls().into_iter().filter_map(|call| call.id).collect();
    let mut expected = [&ids[10..12], &new[..], &ids[50..51]].concat();
    let mut read_once = read.clone();
    read_once.sort();
    expected.sort();
    assert_eq!(read_once, expected, "only what was lost, new or changed is read");
    assert!(app.sandbox().audit().breaches().is_empty());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_shop_is_registered_while_it_is_not_known_which_there_are() {
    let mut server = tokio::task::block_in_place(MariaDb::start);
    let database = Database::on(&server.url()).await;
    let mut app = TestApp::builder().mysql(database.url()).shop("first", 30, 0).start().await;
    app.run_until_idle().await;
    app.restart_after(|folder| {
        lose(folder);
        tokio::task::block_in_place(|| server.kill());
    })
    .await;
    let body = json!({"name": "first", "client_id": "first", "client_secret": secret("first")});
    let (status, answer) = app.call(Verb::POST, "/api/v1/shops", Some(body.clone())).await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("MySQL cannot be reached to see"), "{answer}");
    let ready = app.get("/readyz").await;
    assert_eq!(ready["status"], "degraded", "{ready}");
    tokio::task::block_in_place(|| server.run());
    let back = async || shops(&app).await.pop();
    let shop = eventually("the former shop", back).await;
    assert_eq!(shop["id"], app.shops["first"]);
    let known = async || {
        let (status, _) = app.call(Verb::POST, "/api/v1/shops", Some(body.clone())).await;
        (status != 503).then_some(status)
    };
    assert_eq!(eventually("an answer when all are back", known).await, 409);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_still_change_is_read_again_after_a_loss() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("young", 60, 0).start().await;
    app.run_until_idle().await;
    let waiting = app.status().await["waiting_jobs"].as_u64().unwrap();
    assert!(waiting > 0, "some shipments may still change");
    app.restart_after(lose).await;
    app.run_until_idle().await;
    assert_eq!(app.status().await["waiting_jobs"], json!(waiting), "and as many may after it");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_moved_aside_and_filled_from_mysql() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("rotten", 80, 20).start().await;
    app.run_until_idle().await;
    app.sandbox().reset_audit();
    app.restart_after(|folder| fs::write(folder.join("data/sled/db"), b"").unwrap()).await;
    app.run_until_idle().await;
    oracle::mysql(&database, &oracle::truth(&app)).await;
    assert_eq!(app.sandbox().audit().details_read, 0);
    app.restart_after(|folder| {
        let aside = fs::read_dir(folder.join("data")).unwrap();
        let names = aside.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.starts_with("damaged-")).count(), 1);
    })
    .await;
    assert_eq!(shops(&app).await.len(), 1, "the new store stays");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_master_key_is_reported_and_touches_nothing() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("sealed", 20, 0).start().await;
    app.run_until_idle().await;
    app.restart_after(|folder| {
        lose(folder);
        let mut keys = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let key = keys.find(|path| path.to_string_lossy().ends_with(".key")).unwrap();
        fs::remove_file(key).unwrap();
    })
    .await;
    let (status, answer) = app.call(Verb::GET, "/readyz", None).await;
    assert_eq!(status, 503);
    assert!(answer.to_string().contains("another master key"), "{answer}");
    assert_eq!(shops(&app).await.len(), 0);
    let rows: Vec<u64> = database.rows("SELECT COUNT(*) FROM waybill_shops").await;
    assert_eq!(rows, [1]);
    app.finish().await;
}
