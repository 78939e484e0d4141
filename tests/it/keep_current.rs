//! After the first sync: what is new or changed comes in, what is known costs next to nothing, and a
//! shop can be refused, paused, resumed and deleted.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method as Verb;
use sandbox::{Fault, FaultBody, FaultKind, Method};
use serde_json::{Value, json};
use waybill::domain::Clock;

use crate::support::app::{TestApp, eventually, secret};
use crate::support::mariadb::Database;
use crate::support::oracle;

const DAY: Duration = Duration::from_secs(86_400);
const FINAL: [&str; 4] =
    ["DELIVERED_AT_CUSTOMER", "DELIVERED_AT_NEIGHBOURS", "PICKED_UP_AT_PICK_UP_POINT", "RETURNED_TO_SENDER"];

/// The document as the API shows it; None: not there.
async fn shown(app: &TestApp, client: &str, id: &str) -> Option<Value> {
    let path = format!("/api/v1/shipments/{}/{id}", app.shops[client]);
    let (status, item) = app.call(Verb::GET, &path, None).await;
    (status == 200).then(|| item["document"].clone())
}

/// The document as the sandbox has it.
fn true_document(app: &TestApp, client: &str, id: &str) -> Value {
    app.sandbox().truth(client).into_iter().find(|(_, known, _)| known == id).unwrap().2
}

/// Waits until the API shows the document that the sandbox has.
async fn is_current(app: &TestApp, client: &str, id: &str) {
    let look = async || shown(app, client, id).await.filter(|document| *document == true_document(app, client, id));
    eventually("a document to be current", look).await;
}

/// Detail calls per id since the last reset.
fn details(app: &TestApp) -> BTreeMap<String, usize> {
    let mut reads = BTreeMap::new();
    for id in app.sandbox().calls().into_iter().filter_map(|call| call.id) {
        *reads.entry(id).or_default() += 1;
    }
    reads
}

fn calls_of(app: &TestApp, client: &str) -> usize {
    app.sandbox().calls().iter().filter(|call| call.client_id == client).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ticks_bring_in_new_documents_and_changed_rows() {
    let app = TestApp::builder().sync_at("*/2 * * * * *").shop("ticking", 120, 60).start().await;
    let first_sync = async || {
        // Its walk passes twice; what comes between is its own.
        let walked = app.runs("ticking").await.iter().all(|run| run["state"] == "done");
        (walked && app.sandbox().audit().details_distinct == 180).then_some(())
    };
    eventually("the first sync", first_sync).await;
    let new = app.sandbox().add_shipments("ticking", Method::Fbr, 1).unwrap();
    let changed = app.sandbox().truth("ticking")[20].1.clone();
    let before = true_document(&app, "ticking", &changed);
    assert!(app.sandbox().change_row("ticking", &changed).unwrap());
    assert_ne!(true_document(&app, "ticking", &changed), before);
    is_current(&app, "ticking", &new[0]).await;
    is_current(&app, "ticking", &changed).await;
    let runs = app.runs("ticking").await;
    assert!(runs.iter().any(|run| run["mode"] == "incremental" && run["new"] == 1), "{runs:?}");
    assert!(runs.iter().any(|run| run["mode"] == "incremental" && run["changed"] == 1), "{runs:?}");
    oracle::listing(&app, &oracle::truth(&app)).await;
    assert_eq!(details(&app).values().sum::<usize>(), 182, "nothing else was read again");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_incremental_run_costs_two_list_calls_a_stream_at_most() {
    let app = TestApp::builder().shop("quiet", 500, 300).start().await;
    app.run_until_idle().await;
    for _ in 0..3 {
        app.sandbox().reset_audit();
        let (status, started) = app.sync("quiet", "incremental").await;
        assert_eq!((status, started["run_ids"].as_array().map(Vec::len)), (202, Some(2)), "{started}");
        app.run_until_idle().await;
        let audit = app.sandbox().audit();
        assert!((2..=4).contains(&audit.list_pages), "{} pages for two streams", audit.list_pages);
        assert_eq!(audit.details_read, 0);
    }
    // Pages shift when something new comes; only that is read.
    app.sandbox().add_shipments("quiet", Method::Fbr, 60).unwrap();
    app.sandbox().reset_audit();
    app.sync("quiet", "incremental").await;
    app.run_until_idle().await;
    let audit = app.sandbox().audit();
    assert!(audit.list_pages <= 5, "{} pages", audit.list_pages);
    assert_eq!((audit.details_read, audit.details_reread), (60, 0));
    oracle::listing(&app, &oracle::truth(&app)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growing_documents_are_read_again_until_they_are_final() {
    let builder = TestApp::builder().toml("[resource.shipments.detail.refresh]\nevery = \"1s\"");
    let app = builder.options(|options| options.odd = false).shop("parcels", 0, 0).start().await;
    app.run_until_idle().await;
    let ids = app.sandbox().add_shipments("parcels", Method::Fbr, 3).unwrap();
    app.sync("parcels", "incremental").await;
    for id in &ids {
        is_current(&app, "parcels", id).await;
    }
    // The row stays as it is, so only a reading again can see the events.
    let (growing, last) = (&ids[..2], &ids[2]);
    for id in growing {
        while app.sandbox().grow_events("parcels", id).unwrap() {}
        is_current(&app, "parcels", id).await;
        let document = shown(&app, "parcels", id).await.unwrap();
        let events = document.pointer("/transport/transportEvents").unwrap().as_array().unwrap();
        assert!(FINAL.contains(&events.last().unwrap()["eventCode"].as_str().unwrap()));
    }
    // The third is still on its way: its next reads are the clock of this test.
    app.sandbox().reset_audit();
    eventually("two more reads of the third", async || (details(&app).get(last) >= Some(&2)).then_some(())).await;
    assert_eq!(details(&app).into_keys().collect::<Vec<_>>(), [last.as_str()], "final documents were read again");
    app.finish().await;
}

/// Whether the shipped rule reads it again: no final event, and not older than 30 days.
fn may_change(document: &Value) -> bool {
    let events = document.pointer("/transport/transportEvents").and_then(Value::as_array);
    let ended =
        events.is_some_and(|events| events.iter().any(|event| FINAL.iter().any(|last| event["eventCode"] == *last)));
    let at = document["shipmentDateTime"].as_str().map(|at| at.parse::<jiff::Timestamp>().unwrap());
    !ended && at.is_none_or(|at| Clock::system().now().since(at.into()) <= 30 * DAY)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_sync_on_request_reads_again_what_is_not_final() {
    let app = TestApp::builder().shop("asked", 300, 100).start().await;
    app.run_until_idle().await;
    // What was read last decides: what grew to its end meanwhile is read once more.
    let open = || -> BTreeSet<String> {
        let all = app.sandbox().truth("asked").into_iter();
        all.filter(|(_, _, document)| may_change(document)).map(|(_, id, _)| id).collect()
    };
    for round in 0..2 {
        let expected = open();
        assert!(expected.len() > 5 && expected.len() < 150, "{} of 400 may change", expected.len());
        let grown = app.sandbox().grow_newest("asked", 3).unwrap();
        assert!(!grown.is_empty() && grown.iter().all(|id| expected.contains(id)), "round {round}: {grown:?}");
        app.sandbox().reset_audit();
        assert_eq!(app.sync("asked", "full").await.0, 202);
        app.run_until_idle().await;
        assert_eq!(details(&app).into_keys().collect::<BTreeSet<_>>(), expected, "round {round}");
        assert_eq!(app.sandbox().audit().list_pages, 7 + 3);
        oracle::listing(&app, &oracle::truth(&app)).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_walk_no_longer_sees_is_noted_and_kept() {
    let database = Database::fresh().await;
    let app = TestApp::builder().mysql(database.url()).shop("shrinking", 80, 0).start().await;
    app.run_until_idle().await;
    let before = oracle::truth(&app);
    let gone = app.sandbox().truth("shrinking")[70].1.clone();
    assert!(app.sandbox().remove("shrinking", &gone).unwrap());
    app.sync("shrinking", "full").await;
    app.run_until_idle().await;
    oracle::mysql(&database, &before).await;
    let noted: Vec<String> =
        database.rows("SELECT shipment_id FROM shipments WHERE no_longer_listed_at IS NOT NULL").await;
    assert_eq!(noted, [gone]);
    app.finish().await;
}

async fn post_shop(app: &TestApp, client: &str, secret: &str) -> u16 {
    let body = json!({"name": client, "client_id": client, "client_secret": secret});
    let (status, answer) = app.call(Verb::POST, "/api/v1/shops", Some(body)).await;
    assert!(!answer.to_string().contains("secret-of"), "{answer}");
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_proved_credentials_make_a_shop() {
    let mut app = TestApp::builder().unregistered().shop("door", 10, 0).start().await;
    assert_eq!(post_shop(&app, "door", "wrong").await, 422);
    assert_eq!(post_shop(&app, "stranger", "secret-of-stranger").await, 422);
    let down = FaultKind::Status { code: 503, body: FaultBody::Html, headers: BTreeMap::new() };
    for kind in [FaultKind::Reset, down] {
        app.sandbox().set_faults(vec![Fault::always("/token", kind)]);
        assert_eq!(post_shop(&app, "door", &secret("door")).await, 502);
    }
    app.sandbox().set_faults(Vec::new());
    assert_eq!(app.get("/api/v1/shops").await["items"], json!([]));
    app.register("door").await;
    assert_eq!(post_shop(&app, "door", &secret("door")).await, 409);
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_shop_stops_visibly_and_goes_on_with_the_right_secret() {
    let app = TestApp::builder().limits(["50/s", "50/s"]).shop("revoked", 300, 0).shop("other", 20, 0).start().await;
    eventually("some details", async || (app.sandbox().audit().details_read > 60).then_some(())).await;
    app.sandbox().set_secret("revoked", "new-secret").unwrap();
    app.sandbox().kill_tokens();
    let path = format!("/api/v1/shops/{}", app.shops["revoked"]);
    let look = async || Some(app.get(&path).await).filter(|shop| shop["state"] == "refused");
    let shop = eventually("the shop to be refused", look).await;
    assert!(shop["reason"].as_str().unwrap().contains("refused"), "{shop}");
    app.run_until_idle().await;
    assert_eq!(app.status().await["shops"], json!({"active": 1, "paused": 0, "refused": 1}));

    app.sandbox().reset_audit();
    assert_eq!(app.sync("revoked", "full").await.0, 409);
    assert_eq!(app.sync("other", "full").await.0, 202);
    app.run_until_idle().await;
    assert_eq!(calls_of(&app, "revoked"), 0, "a refused shop makes no call");
    assert!(calls_of(&app, "other") > 0);

    let logins = app.sandbox().audit().token_requests;
    assert_eq!(app.patch("revoked", json!({"paused": true})).await.0, 409);
    assert_eq!(app.sandbox().audit().token_requests, logins, "what was refused is not sent again");
    assert_eq!(app.patch("revoked", json!({"paused": false})).await.0, 422);
    assert_eq!(app.sandbox().audit().token_requests, logins + 1, "but on request");
    assert_eq!(app.get(&path).await["state"], "refused");

    assert_eq!(app.patch("revoked", json!({"client_secret": "wrong-again"})).await.0, 422);
    let (status, shop) = app.patch("revoked", json!({"client_secret": "new-secret"})).await;
    assert_eq!((status, &shop["state"], &shop["reason"]), (200, &json!("active"), &Value::Null));
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    let runs = app.runs("revoked").await;
    let stopped = |run: &Value| run["state"] == "stopped" && run["error"].as_str().unwrap().contains("refused");
    assert!(runs.iter().any(stopped) && runs.iter().all(|run| run["state"] == "done" || stopped(run)), "{runs:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_shop_makes_no_call_until_it_is_resumed() {
    let app = TestApp::builder().limits(["50/s", "50/s"]).shop("paused", 200, 0).shop("other", 20, 0).start().await;
    eventually("some details", async || (app.sandbox().audit().details_read > 30).then_some(())).await;
    let (status, shop) = app.patch("paused", json!({"paused": true})).await;
    assert_eq!((status, &shop["state"]), (200, &json!("paused")));
    // Calls in flight end; what is idle then is the pause.
    app.run_until_idle().await;
    app.sandbox().reset_audit();
    assert_eq!(app.sync("paused", "full").await.0, 409);
    assert_eq!(app.sync("other", "full").await.0, 202);
    app.run_until_idle().await;
    assert_eq!(calls_of(&app, "paused"), 0);
    assert!(app.sandbox().truth("paused").len() > app.pages("/api/v1/shipments?limit=500").await.len() - 20);

    assert_eq!(app.patch("paused", json!({"paused": false})).await.1["state"], "active");
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_a_shop_takes_no_more_is_not_called_until_it_does() {
    let lifted = [("GET /retailer/orders", "none"), ("GET /retailer/orders/*", "10/s")];
    let text = lifted.map(|(rule, limit)| format!("\"{rule}\" = \"{limit}\"")).join("\n");
    let limits = lifted.map(|(rule, limit)| (rule.to_owned(), limit.to_owned()));
    let builder = TestApp::builder().resources(&["shipments", "orders"]).limits_too(&text).limits(["50/s", "100/s"]);
    let app = builder.options(move |options| options.limits.extend(limits)).shop("some", 60, 0).start().await;
    let called = || app.sandbox().calls().iter().filter(|call| call.path.starts_with("/retailer/orders")).count();
    eventually("some orders", async || (called() > 6).then_some(())).await;
    assert_eq!(app.patch("some", json!({"resources": ["shipments"]})).await.0, 200);
    // Calls in flight end; what is left waits for the operator.
    app.run_until_idle().await;
    app.sandbox().reset_audit();
    assert_eq!(app.sync("some", "full").await.0, 202);
    app.run_until_idle().await;
    assert_eq!(called(), 0);
    assert!(calls_of(&app, "some") > 0);
    assert_eq!(app.patch("some", json!({"resources": ["shipments", "orders"]})).await.0, 200);
    app.run_until_idle().await;
    assert_eq!(app.pages("/api/v1/orders?limit=500").await.len(), app.sandbox().truth_of("some", "orders").len());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_changes_its_account_calls_no_more_often() {
    let builder = TestApp::builder().limits(["10/2s", "20/2s"]);
    let app = builder.shop("moves", 150, 0).shop("stays", 150, 0).start().await;
    for (account, read) in [("north", 10), ("stays", 60), ("south", 110), ("moves", 170)] {
        eventually("some details", async || (app.sandbox().audit().details_read > read).then_some(())).await;
        let (status, shop) = app.patch("moves", json!({"account": account})).await;
        assert_eq!((status, &shop["account"]), (200, &json!(account)));
    }
    app.run_until_idle().await;
    // A call too many would have been refused.
    assert_eq!(app.status().await["refused_429"], 0);
    oracle::listing(&app, &oracle::truth(&app)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_shop_leaves_no_row_and_a_deleted_one_leaves_its_rows() {
    let database = Database::fresh().await;
    let builder = TestApp::builder().mysql(database.url()).limits(["50/s", "100/s"]);
    let mut app = builder.shop("purged", 200, 0).shop("deleted", 30, 0).shop("stays", 30, 0).start().await;
    let rows = format!("/api/v1/shipments?limit=500&shop={}", app.shops["purged"]);
    let written = async || {
        let (status, page) = app.call(Verb::GET, &rows, None).await;
        (status == 200 && page["items"].as_array().is_some_and(|items| items.len() > 20)).then_some(())
    };
    eventually("rows of the shop in MySQL", written).await;
    let all = oracle::truth(&app);
    let purged = app.shops.remove("purged").unwrap();
    let (status, _) = app.call(Verb::DELETE, &format!("/api/v1/shops/{purged}?purge=true"), None).await;
    assert_eq!(status, 204);
    app.run_until_idle().await;
    let deleted = app.shops.remove("deleted").unwrap();
    assert_eq!(app.call(Verb::DELETE, &format!("/api/v1/shops/{deleted}"), None).await.0, 204);
    app.run_until_idle().await;

    let kept = all.into_iter().filter(|((shop, _), _)| *shop != purged).collect();
    oracle::mysql(&database, &kept).await;
    oracle::listing(&app, &kept).await;
    for table in ["shipments", "shipment_items", "shipment_transport_events"] {
        let left: Vec<u64> = database.rows(&format!("SELECT COUNT(*) FROM {table} WHERE shop_id = '{purged}'")).await;
        assert_eq!(left, [0], "{table}");
    }
    for shop in [&purged, &deleted] {
        assert_eq!(app.call(Verb::GET, &format!("/api/v1/shops/{shop}"), None).await.0, 404);
    }
    app.sandbox().reset_audit();
    app.sync("stays", "full").await;
    app.run_until_idle().await;
    assert_eq!((calls_of(&app, "purged"), calls_of(&app, "deleted")), (0, 0));

    // Rows that were left can go later.
    let path = format!("/api/v1/shops/{deleted}?purge=true");
    assert_eq!(app.call(Verb::DELETE, &path, None).await.0, 204);
    app.run_until_idle().await;
    let left: Vec<u64> = database.rows(&format!("SELECT COUNT(*) FROM shipments WHERE shop_id = '{deleted}'")).await;
    assert_eq!(left, [0]);
    assert_eq!(app.call(Verb::DELETE, &path, None).await.0, 404);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_is_not_walked_raises_an_alarm_before_rows_fall_out_of_reach() {
    let toml = "[resource.shipments.list]\nhistory = \"3s\"\n";
    let builder = TestApp::builder().toml(toml).sync_at("* * * * * *");
    let app = builder.shop("asleep", 10, 10).shop("awake", 10, 0).start().await;
    app.run_until_idle().await;
    app.patch("asleep", json!({"paused": true})).await;
    let overdue = async || {
        let found = app.status().await["overdue"].as_array().unwrap().clone();
        (!found.is_empty()).then_some(found)
    };
    let found = eventually("an overdue stream", overdue).await;
    assert!(found.iter().all(|stream| stream["shop_id"] == app.shops["asleep"]), "{found:?}");
    assert!(found[0]["walked_at"].is_string(), "{found:?}");
    let (one, other) = (app.bound_key(&["asleep"]).await, app.bound_key(&["awake"]).await);
    let (_, status) = app.call_by(&one, Verb::GET, "/api/v1/status", None).await;
    assert_eq!(status["overdue"].as_array().unwrap().len(), found.len(), "{status}");
    let (_, status) = app.call_by(&other, Verb::GET, "/api/v1/status", None).await;
    assert!(!status.to_string().contains(&app.shops["asleep"]), "another shop's alarm: {status}");
    app.patch("asleep", json!({"paused": false})).await;
    app.finish().await;
}
