//! The completeness ledger: it sees every gap, by name and reason, and closes it.

use std::collections::BTreeSet;

use reqwest::Method as Verb;
use sandbox::{Fault, FaultBody, FaultKind};
use serde_json::{Value, json};

use crate::support::app::{TestApp, eventually};
use crate::support::mariadb::Database;
use crate::support::{is_full, oracle};

async fn repair(app: &TestApp, client: &str) -> Value {
    let path = format!("/api/v1/shops/{}/completeness", app.shops[client]);
    let (status, answer) = app.call(Verb::POST, &path, None).await;
    assert_eq!(status, 202, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_vanish_from_mysql_are_named_and_brought_back() {
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("lossy", 120, 30).shop("well", 40, 0).start().await;
    app.run_until_idle().await;
    let (complete, found) = app.completeness("lossy").await;
    assert!(complete, "{found}");
    assert_eq!((&found["listed"], &found["stored"], &found["in_sink"]), (&json!(150), &json!(150), &json!(150)));
    assert_eq!(repair(&app, "lossy").await, json!({"asked": 0}));

    // As if the database had been set back to an older copy of itself.
    let shop = app.shops["lossy"].clone();
    let ids: Vec<String> = app.sandbox().truth("lossy").into_iter().map(|(_, id, _)| id).collect();
    let (lost, old) = (&ids[..5], &ids[7..9]);
    for id in lost {
        database.run(&format!("DELETE FROM shipments WHERE shop_id = '{shop}' AND shipment_id = '{id}'")).await;
        database.run(&format!("DELETE FROM shipment_items WHERE shop_id = '{shop}' AND shipment_id = '{id}'")).await;
    }
    for id in old {
        let set = "UPDATE shipments SET version = 5, document = '{}' WHERE";
        database.run(&format!("{set} shop_id = '{shop}' AND shipment_id = '{id}'")).await;
    }
    let (complete, found) = app.completeness("lossy").await;
    assert!(!complete);
    let named = |reason: &str| -> Vec<String> {
        let gaps = found["gaps"].as_array().unwrap().iter().filter(|gap| gap["reason"] == reason);
        gaps.map(|gap| gap["id"].as_str().unwrap().to_owned()).collect()
    };
    let sorted = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    assert_eq!((named("not_in_sink"), named("older_in_sink")), (sorted(lost), sorted(old)), "{found}");
    assert!(app.completeness("well").await.0, "the other shop lacks nothing");

    app.sandbox().reset_audit();
    assert_eq!(repair(&app, "lossy").await, json!({"asked": 7}));
    app.run_until_idle().await;
    assert!(app.completeness("lossy").await.0);
    oracle::mysql(&database, &oracle::truth(&app)).await;
    assert_eq!(app.sandbox().audit().details_read, 7, "nothing else was read again");
    let (status, _) = app.call(Verb::GET, "/api/v1/shops/unknown/completeness", None).await;
    assert_eq!(status, 404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_look_can_name_is_asked_for_all_the_same() {
    // A look names 10,000.
    if !is_full() {
        return eprintln!("skipped: a look that cannot name all takes WAYBILL_TEST_FULL=1");
    }
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("large", 10_150, 0).start().await;
    app.run_until_idle().await;
    database.run("DELETE FROM shipments").await;
    assert_eq!(repair(&app, "large").await, json!({"asked": 10_150}));
    app.run_until_idle().await;
    assert!(app.completeness("large").await.0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_forgot_of_the_list_is_sent_again_without_a_call() {
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("marked", 60, 20).start().await;
    app.run_until_idle().await;
    let ids: Vec<String> = app.sandbox().truth("marked").into_iter().map(|(_, id, _)| id).collect();
    let (left, stays) = (&ids[30], &ids[5]);
    assert!(app.sandbox().remove("marked", left).unwrap());
    app.sync("marked", "full").await;
    app.run_until_idle().await;
    let marked =
        async || database.rows::<String>("SELECT shipment_id FROM shipments WHERE no_longer_listed_at > 0").await;
    assert_eq!(marked().await, [left.as_str()]);
    assert!(app.completeness("marked").await.0);

    // As if it had been set back to before the one left, and before the other came back.
    let turned = "UPDATE shipments SET no_longer_listed_at = IF(no_longer_listed_at IS NULL, '2026-01-01', NULL)";
    database.run(&format!("{turned} WHERE shipment_id IN ('{left}', '{stays}')")).await;
    assert_eq!(marked().await, [stays.as_str()]);
    let (complete, found) = app.completeness("marked").await;
    let gaps = found["gaps"].as_array().unwrap().iter().map(|gap| (text(&gap["id"]), text(&gap["reason"])));
    let expected = BTreeSet::from([left, stays].map(|id| (id.clone(), "listing_in_sink".to_owned())));
    assert_eq!((complete, gaps.collect::<BTreeSet<_>>()), (false, expected));

    app.sandbox().reset_audit();
    assert_eq!(repair(&app, "marked").await, json!({"asked": 2}));
    app.run_until_idle().await;
    assert_eq!(marked().await, [left.as_str()]);
    assert!(app.completeness("marked").await.0);
    assert_eq!(app.sandbox().audit().details_read, 0);
    app.finish().await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_parked_gone_or_on_their_way_are_counted_apart() {
    let builder = TestApp::builder().toml("[limits]\nattempts_max = 2").limits(["20/s", "20/s"]);
    let mut app = builder.unregistered().shop("mixed", 60, 20).start().await;
    let ids: Vec<String> = app.sandbox().truth("mixed").into_iter().map(|(_, id, _)| id).collect();
    let answer = |code| FaultKind::Status { code, body: FaultBody::Json, headers: Default::default() };
    let fault = |id: &String, code| Fault::always(&format!("/retailer/shipments/{id}"), answer(code));
    app.sandbox().set_faults(vec![fault(&ids[3], 404), fault(&ids[40], 400)]);
    app.register("mixed").await;
    let (complete, found) = app.completeness("mixed").await;
    assert!(!complete, "the first sync is under way: {found}");
    assert_eq!(found["missing"], 0, "{found}");
    app.run_until_idle().await;
    let (complete, found) = app.completeness("mixed").await;
    assert!(!complete, "something is parked");
    let reported =
        ["listed", "stored", "in_sink", "pending", "parked", "gone", "missing"].map(|name| found[name].clone());
    assert_eq!(reported, [80, 78, 78, 0, 1, 1, 0].map(|count: u64| json!(count)));
    assert_eq!(repair(&app, "mixed").await, json!({"asked": 0}), "the parked one waits for its retry");
    app.expect_parked(1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_set_back_heals_after_the_next_full_walk() {
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("restored", 90, 30).start().await;
    app.run_until_idle().await;
    // The first full walk is noted as whole some seconds after it; the next one is what heals.
    let shop = app.shops["restored"].clone();
    let heals = async || {
        database.run(&format!("DELETE FROM shipments WHERE shop_id = '{shop}' AND shipment_id LIKE '%7'")).await;
        let lost = !app.completeness("restored").await.0;
        app.sync("restored", "full").await;
        app.run_until_idle().await;
        let healed = async || app.completeness("restored").await.0.then_some(());
        let waited = tokio::time::timeout(std::time::Duration::from_secs(8), eventually("no gap", healed)).await;
        (lost && waited.is_ok()).then_some(())
    };
    eventually("a full walk that heals", heals).await;
    app.run_until_idle().await;
    oracle::mysql(&database, &oracle::truth(&app)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_child_tables_are_compared_with_the_stored_documents_and_written_again_from_them() {
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("torn", 250, 30).start().await;
    app.run_until_idle().await;
    assert!(app.completeness("torn").await.0);
    let sums = async || {
        database.rows::<(u64, u64)>("SELECT COUNT(*), CAST(SUM(CRC32(CONCAT_WS('|', shipment_id, position, ean, unit_price, version))) AS UNSIGNED) FROM shipment_items").await
    };
    let whole = sums().await;
    let ids: Vec<String> =
        database.rows("SELECT DISTINCT shipment_id FROM shipment_items ORDER BY shipment_id LIMIT 4 OFFSET 100").await;
    let [lost, stale, more, altered] = ids.as_slice() else { panic!("{ids:?}") };
    let alter = "UPDATE shipment_items SET ean = REVERSE(ean), unit_price = NULL WHERE position = 0 AND";
    database.run(&format!("{alter} shipment_id = '{altered}'")).await;
    database.run(&format!("DELETE FROM shipment_items WHERE shipment_id = '{lost}' AND position = 0")).await;
    database.run(&format!("UPDATE shipment_items SET version = version - 1 WHERE shipment_id = '{stale}'")).await;
    let copy = "INSERT INTO shipment_items (shop_id, shipment_id, position, ean, version)";
    database
        .run(&format!("{copy} SELECT shop_id, shipment_id, 40 + position, ean, version FROM shipment_items WHERE shipment_id = '{more}'"))
        .await;
    let (complete, found) = app.completeness("torn").await;
    let gaps = found["gaps"].as_array().unwrap().iter().map(|gap| (text(&gap["id"]), text(&gap["reason"])));
    let expected = BTreeSet::from([lost, stale, more, altered].map(|id| (id.clone(), "children_in_sink".to_owned())));
    assert_eq!((complete, gaps.collect::<BTreeSet<_>>()), (false, expected));
    assert_eq!((&found["missing"], &found["in_sink"], &found["listed"]), (&json!(4), &json!(276), &json!(280)));

    app.sandbox().reset_audit();
    assert_eq!(repair(&app, "torn").await, json!({"asked": 4}));
    assert!(app.completeness("torn").await.0);
    // Columns that the copy left out are filled too.
    assert_eq!(sums().await, whole);
    assert_eq!(app.sandbox().audit().details_read, 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_rows_that_were_changed_by_hand_heal_after_the_next_full_walk() {
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("children", 90, 30).start().await;
    app.run_until_idle().await;
    let rows = async |table: &str| {
        let text = format!(
            "SELECT COUNT(*), CAST(SUM(CRC32(CONCAT_WS('|', shipment_id, position))) AS UNSIGNED) FROM {table}"
        );
        database.rows::<(u64, u64)>(&text).await
    };
    let whole = (rows("shipment_items").await, rows("shipment_transport_events").await);
    // The first full walk is noted as whole some seconds after it; the next one is what heals.
    let heals = async || {
        for statement in [
            "DELETE FROM shipment_items WHERE shipment_id LIKE '%7' AND position = 0",
            "UPDATE shipment_items SET ean = 'changed' WHERE shipment_id LIKE '%3'",
            "DELETE FROM shipment_transport_events WHERE shipment_id LIKE '%5'",
            "REPLACE INTO shipment_transport_events (shop_id, shipment_id, position, event_code, version) \
             SELECT shop_id, shipment_id, 50, 'ADDED', version FROM shipments WHERE shipment_id LIKE '%9'",
        ] {
            database.run(statement).await;
        }
        assert!(!app.completeness("children").await.0);
        app.sync("children", "full").await;
        app.run_until_idle().await;
        let healed = async || app.completeness("children").await.0.then_some(());
        tokio::time::timeout(std::time::Duration::from_secs(8), eventually("no gap", healed)).await.ok()
    };
    eventually("a full walk that heals", heals).await;
    app.run_until_idle().await;
    oracle::mysql(&database, &oracle::truth(&app)).await;
    assert_eq!((rows("shipment_items").await, rows("shipment_transport_events").await), whole);
    let changed: Vec<u64> = database.rows("SELECT COUNT(*) FROM shipment_items WHERE ean = 'changed'").await;
    assert_eq!(changed, [0]);
    app.finish().await;
}
