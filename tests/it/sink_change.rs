//! The sink changes under the ledger: from the archive to MySQL and back, to an empty or older database. No document is lost
//! on the way, and what cannot be brought back is named, never counted as complete.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::Method as Verb;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::json;

use crate::support::app::{TestApp, eventually};
use crate::support::mariadb::Database;
use crate::support::program::{Folder, Market, lossy};
use crate::support::{no_limits, oracle};

/// The configuration of a program without limits.
const UNLIMITED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";

fn configure(folder: &Path, change: impl FnOnce(String) -> String) {
    let file = folder.join("waybill.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, change(text)).unwrap();
}

/// Adds `[mysql]`, or names another database.
fn use_mysql(folder: &Path, url: &str) {
    let without = |text: String| text.split("[mysql]").next().unwrap().to_owned();
    configure(folder, |text| format!("{}[mysql]\nurl = \"{url}\"\n", without(text)));
}

fn use_archive(folder: &Path) {
    configure(folder, |text| text.split("[mysql]").next().unwrap().to_owned());
}

/// Takes shipments of a shop from the marketplace, each fifth from a place on; returns their number.
fn take_from_market(app: &TestApp, client: &str, from: usize) -> u64 {
    let ids: Vec<String> = app.sandbox().truth(client).into_iter().map(|(_, id, _)| id).collect();
    let gone: Vec<&String> = ids.iter().skip(from).step_by(5).collect();
    for id in &gone {
        assert!(app.sandbox().remove(client, id).unwrap());
    }
    gone.len() as u64
}

/// The codes of the reasons why the installation is not well.
async fn reasons(app: &TestApp) -> Vec<String> {
    let health = app.status().await["health"].clone();
    let reasons = health["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| reason["code"].as_str().unwrap().to_owned()).collect()
}

async fn count(database: &Database, of: &str) -> u64 {
    database.rows::<u64>(&format!("SELECT COUNT(*) FROM {of}")).await[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_the_archive_move_to_mysql_without_a_call() {
    let mut app = TestApp::builder().shop("first", 120, 30).shop("second", 50, 0).start().await;
    app.run_until_idle().await;
    let truth = oracle::truth(&app);
    // Documents that a walk found to be no longer listed, and others of which no walk knows yet.
    let marked = take_from_market(&app, "first", 0);
    app.sync("first", "full").await;
    app.run_until_idle().await;
    take_from_market(&app, "second", 3);
    let before = app.pages("/api/v1/shipments?limit=500").await;
    assert_eq!(before.len(), 200);

    let database = Database::fresh().await;
    app.sandbox().reset_audit();
    app.restart_after(|folder| use_mysql(folder, &database.url())).await;
    app.run_until_idle().await;
    oracle::mysql(&database, &truth).await;
    assert_eq!(app.pages("/api/v1/shipments?limit=500").await, before, "versions and times are kept");
    assert_eq!(count(&database, "shipments WHERE no_longer_listed_at IS NOT NULL").await, marked);
    for client in ["first", "second"] {
        let (complete, found) = app.completeness(client).await;
        assert!(complete, "{found}");
    }
    assert_eq!((count(&database, "waybill_shops").await, reasons(&app).await), (2, Vec::new()));
    assert_eq!(app.sandbox().audit().calls, 0);

    // The mirror is whole: an empty data directory is restored from it, and nothing is moved or read again.
    app.restart_after(|folder| fs::remove_dir_all(folder.join("data")).unwrap()).await;
    app.run_until_idle().await;
    oracle::mysql(&database, &truth).await;
    assert_eq!(app.sandbox().audit().details_read, 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_was_deleted_keeps_its_documents_in_the_move_and_a_purged_one_does_not() {
    let mut app = TestApp::builder().shop("deleted", 40, 0).shop("purged", 30, 0).shop("stays", 20, 0).start().await;
    app.run_until_idle().await;
    let delete = async |client: &str, query: &str| {
        let path = format!("/api/v1/shops/{}{query}", app.shops[client]);
        assert_eq!(app.call(Verb::DELETE, &path, None).await.0, 204);
    };
    delete("deleted", "").await;
    delete("purged", "?purge=true").await;
    let database = Database::fresh().await;
    app.restart_after(|folder| use_mysql(folder, &database.url())).await;
    app.run_until_idle().await;
    let of = |client: &str| format!("shipments WHERE shop_id = '{}'", app.shops[client]);
    let counts = [of("deleted"), of("purged"), of("stays"), "waybill_shops".to_owned()];
    let mut found = Vec::new();
    for one in &counts {
        found.push(count(&database, one).await);
    }
    assert_eq!(found, [40, 0, 20, 1]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_in_the_middle_of_the_move_loses_nothing() {
    const ROWS: usize = 1500;
    let shop = ShopOptions { client_id: "large".into(), client_secret: "secret-of-large".into(), fbr: ROWS, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let mut folder = Folder::at(&market.base, UNLIMITED);
    let mut serving = folder.serve();
    let body = json!({"name": "large", "client_id": "large", "client_secret": "secret-of-large"});
    let answer = serving.call(Verb::POST, "/api/v1/shops").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    serving.idle(Duration::from_secs(120)).await;
    serving.kill();

    let database = Database::fresh().await;
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    market.sandbox.reset_audit();
    let written = async || match database.rows::<String>("SHOW TABLES LIKE 'shipments'").await.len() {
        0 => 0,
        _ => count(&database, "shipments").await,
    };
    let mut moments = 0;
    for target in [1, 300, 600, 900] {
        serving = folder.serve();
        let reached = async || (written().await >= target).then_some(());
        eventually("documents in MySQL", reached).await;
        serving.kill();
        moments += u64::from((1..ROWS as u64).contains(&written().await));
    }
    assert!(moments > 0, "no kill came in the middle");
    serving = folder.serve();
    serving.idle(Duration::from_secs(120)).await;
    assert_eq!(written().await, ROWS as u64);
    assert_eq!(market.sandbox.audit().details_read, 0);
    let health = serving.get("/api/v1/status").await["health"].clone();
    assert_eq!(health["level"], "ok", "{health}");
    serving.kill();
}

/// What the API no longer has is missing after a change to a sink that does not have it.
async fn expect_missing(app: &TestApp, missing: u64) {
    let (complete, found) = app.completeness("mover").await;
    assert_eq!((complete, &found["missing"], &found["gone"]), (false, &json!(missing), &json!(0)), "{found}");
    let gaps = found["gaps"].as_array().unwrap();
    assert!(gaps.iter().all(|gap| gap["reason"] == "unrecoverable"), "{found}");
    assert_eq!(gaps.len() as u64, missing);
    assert_eq!(reasons(app).await, ["documents_missing"]);
    let shop = app.get(&format!("/api/v1/shops/{}", app.shops["mover"])).await;
    assert_ne!(shop["resources_health"][0]["state"], "fresh", "{shop}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_database_and_the_archive_are_filled_from_the_api_and_the_rest_is_named() {
    let first = Database::fresh().await;
    let mut app = TestApp::builder().mysql(first.url()).shop("mover", 80, 20).start().await;
    app.run_until_idle().await;
    let all = oracle::truth(&app);
    let lost = take_from_market(&app, "mover", 2);
    let left = oracle::truth(&app);

    let second = Database::fresh().await;
    app.sandbox().reset_audit();
    app.restart_after(|folder| use_mysql(folder, &second.url())).await;
    app.run_until_idle().await;
    oracle::mysql(&second, &left).await;
    expect_missing(&app, lost).await;
    assert_eq!((count(&second, "waybill_shops").await, count(&second, "waybill_checkpoints").await), (1, 2));
    let answer = app.sync("mover", "full").await;
    assert_eq!(answer.0, 202, "{}", answer.1);
    app.run_until_idle().await;
    expect_missing(&app, lost).await;

    // Known as lost: another start reads nothing again.
    app.sandbox().reset_audit();
    app.restart().await;
    app.run_until_idle().await;
    assert_eq!(app.sandbox().audit().details_read, 0);
    expect_missing(&app, lost).await;

    app.restart_after(use_archive).await;
    app.run_until_idle().await;
    oracle::listing(&app, &left).await;
    expect_missing(&app, lost).await;

    // The first database still has them all.
    app.restart_after(|folder| use_mysql(folder, &first.url())).await;
    app.run_until_idle().await;
    oracle::mysql(&first, &all).await;
    let (complete, found) = app.completeness("mover").await;
    assert!(complete, "{found}");
    assert_eq!(reasons(&app).await, Vec::<String>::new());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_were_emptied_dropped_or_set_back_are_filled_at_the_next_start() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("mover", 60, 20).start().await;
    app.run_until_idle().await;
    let truth = oracle::truth(&app);
    let harms: [(&[&str], u64); 3] = [
        (&["DELETE FROM shipments"], 80),
        (&["DROP TABLE shipments", "DROP TABLE shipment_items"], 80),
        // As by a restore from a backup of an hour ago.
        (
            &[
                "UPDATE waybill_checkpoints SET walked_at = walked_at - INTERVAL 1 HOUR",
                "DELETE FROM shipments ORDER BY version DESC LIMIT 30",
            ],
            30,
        ),
    ];
    for (harm, lost) in harms {
        for statement in harm {
            database.run(statement).await;
        }
        app.sandbox().reset_audit();
        app.restart().await;
        app.run_until_idle().await;
        oracle::mysql(&database, &truth).await;
        assert_eq!(app.sandbox().audit().details_read, lost, "{harm:?}");
        let (complete, found) = app.completeness("mover").await;
        assert!(complete, "{harm:?}: {found}");
        assert_eq!(reasons(&app).await, Vec::<String>::new());
        // A start on a sound database reads nothing.
        app.sandbox().reset_audit();
        app.restart().await;
        app.run_until_idle().await;
        assert_eq!(app.sandbox().audit().calls, 0, "{harm:?}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_is_noticed_before_what_waits_is_written() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("mover", 60, 20).start().await;
    app.run_until_idle().await;
    // While MySQL is away, documents and a checkpoint are left for it.
    app.restart_after(|folder| use_mysql(folder, "mysql://waybill@127.0.0.1:1/away")).await;
    app.sandbox().add_shipments("mover", sandbox::Method::Fbr, 20).unwrap();
    app.sync("mover", "incremental").await;
    let waiting = async || {
        let status = app.status().await;
        (status["outbox"].as_u64() > Some(20) && status["open_runs"] == 0).then_some(())
    };
    eventually("documents that wait for MySQL", waiting).await;
    let truth = oracle::truth(&app);
    for statement in [
        "UPDATE waybill_checkpoints SET walked_at = walked_at - INTERVAL 1 HOUR",
        "DELETE FROM shipments ORDER BY version DESC LIMIT 30",
    ] {
        database.run(statement).await;
    }
    app.sandbox().reset_audit();
    app.restart_after(|folder| use_mysql(folder, &database.url())).await;
    app.run_until_idle().await;
    oracle::mysql(&database, &truth).await;
    assert_eq!(app.sandbox().audit().details_read, 30);
    let (complete, found) = app.completeness("mover").await;
    assert!(complete, "{found}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_waits_for_the_move_and_fails_while_documents_are_missing() {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "secret-of-first".into(), fbr: 60, fbb: 20 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let mut folder = Folder::at(&market.base, UNLIMITED);
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], "secret-of-first").expect(0);
    folder.run(&["sync"]).expect(0);
    let ids: Vec<String> = market.sandbox.truth("first").into_iter().map(|(_, id, _)| id).collect();
    // Apart from each other: "not found" many times in a row would not be believed.
    for id in ids.iter().step_by(8) {
        assert!(market.sandbox.remove("first", id).unwrap());
    }

    let (first, second) = (Database::fresh().await, Database::fresh().await);
    folder.set("WAYBILL_MYSQL_URL", &first.url());
    let synced = folder.run(&["sync"]).expect(0);
    assert!(synced.err.contains("80 documents of the embedded archive were moved to MySQL"), "{}", synced.err);
    assert_eq!(count(&first, "shipments").await, 80);
    folder.run(&["verify"]).expect(0);
    let status = folder.run(&["status"]).expect(0);
    assert!(!status.out.contains("archive_moving"), "{}", status.out);

    folder.set("WAYBILL_MYSQL_URL", &second.url());
    let synced = folder.run(&["sync"]).expect(1);
    assert!(synced.err.contains("10 documents are missing in the sink"), "{}", synced.err);
    // The runs of this pass read none of them.
    assert!(synced.out.contains("also read: 70 documents again"), "{}", synced.out);
    assert_eq!(count(&second, "shipments").await, 70);
    let verified = folder.run(&["verify"]).expect(1);
    assert!(verified.out.contains("the API no longer has it"), "{}", verified.out);
    let status = folder.run(&["status"]).expect(1);
    assert!(status.out.contains("10 documents are missing in the sink"), "{}", status.out);

    // Their loss is accepted, and no other: one that can be read again stays missing until it is.
    let there: Vec<String> = second.rows("SELECT shipment_id FROM shipments LIMIT 1").await;
    second.run(&format!("DELETE FROM shipments WHERE shipment_id = '{}'", there[0])).await;
    let accepted = folder.run(&["verify", "--accept-missing"]).expect(1);
    assert!(accepted.err.contains("the loss of 10 documents is accepted"), "{}", accepted.err);
    assert!(accepted.out.contains("written, but no longer in the sink"), "{}", accepted.out);
    assert!(!accepted.out.contains("the API no longer has it"), "{}", accepted.out);
    folder.run(&["verify", "--mend"]).expect(0);
    let verified = folder.run(&["verify"]).expect(0);
    assert!(verified.out.contains("but 10 lost"), "{}", verified.out);
    assert_eq!(verified.out.matches("lost: shipments of shop").count(), 10, "{}", verified.out);
    let synced = folder.run(&["sync"]).expect(0);
    assert!(!synced.err.contains("documents are missing"), "{}", synced.err);
    let status = folder.run(&["status"]).expect(0);
    assert!(!status.out.contains("missing"), "{}", status.out);
    assert_eq!(count(&second, "shipments").await, 70);

    // A repair on request says itself that all is well again.
    let third = Database::fresh().await;
    folder.set("WAYBILL_MYSQL_URL", &third.url());
    let repaired = folder.run(&["verify", "--mend"]).expect(0).err;
    // By itself, or by the check of the sink at its start.
    let tries = ["trying to re-read or rewrite 70 documents", "documents=70"];
    assert!(tries.iter().any(|text| repaired.contains(text)), "{repaired}");
    assert!(!repaired.contains("runs open"), "earlier runs are not its progress: {repaired}");
    assert_eq!(count(&third, "shipments").await, 70);
    let status = folder.run(&["status"]).expect(0);
    assert!(!status.out.contains("sink_changed"), "{}", status.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_during_a_repair_is_repaired_too_and_not_given_up() {
    let database = Database::fresh().await;
    let mut app = TestApp::builder().mysql(database.url()).shop("first", 30, 0).start().await;
    app.run_until_idle().await;
    let truth = oracle::truth(&app);
    let last = app.sandbox().truth("first").into_iter().map(|(_, id, _)| id).next_back().unwrap();

    // The repair waits for one document.
    let busy = FaultKind::Status { code: 503, body: FaultBody::Json, headers: Default::default() };
    app.sandbox().set_faults(vec![Fault::always(&format!("/retailer/shipments/{last}"), busy)]);
    database.run("DELETE FROM shipments").await;
    app.restart().await;
    let reached = async || (count(&database, "shipments").await == 29).then_some(());
    eventually("the others are read again", reached).await;
    assert_eq!(reasons(&app).await, ["sink_changed"]);
    database.run("DELETE FROM shipments").await;
    app.sandbox().set_faults(Vec::new());
    app.run_until_idle().await;
    assert_eq!(reasons(&app).await, Vec::<String>::new());
    oracle::mysql(&database, &truth).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_a_resource_that_is_not_configured_any_more_are_named_and_move_once_it_is() {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "secret-of-first".into(), fbr: 12, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let limits = no_limits();
    let limits: String = limits.keys().map(|rule| format!("\"{rule}\" = \"none\"\n")).collect();
    let mut folder = Folder::at(&market.base, &format!("[source.limits]\n{limits}"));
    folder.set("WAYBILL_RESOURCES", "shipments,returns");
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], "secret-of-first").expect(0);
    folder.run(&["sync"]).expect(0);

    let database = Database::fresh().await;
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    folder.set("WAYBILL_RESOURCES", "shipments");
    let synced = folder.run(&["sync"]).expect(0);
    assert!(synced.err.contains("12 documents of the embedded archive were moved"), "{}", synced.err);
    assert!(
        synced.err.contains("resources that are not configured") && synced.err.contains("returns"),
        "{}",
        synced.err
    );
    let checked = folder.run(&["check"]).expect(0);
    assert!(checked.out.contains("resources that are not configured (returns)"), "{}", checked.out);

    folder.set("WAYBILL_RESOURCES", "shipments,returns");
    market.sandbox.reset_audit();
    let synced = folder.run(&["sync"]).expect(0);
    assert!(!synced.err.contains("not configured"), "{}", synced.err);
    assert!(count(&database, "returns").await > 0);
    let checked = folder.run(&["check"]).expect(0);
    assert!(!checked.out.contains("not configured"), "{}", checked.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_change_of_the_sink_is_not_reported_as_a_loss() {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "secret-of-first".into(), fbr: 20, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let limits: String = no_limits().keys().map(|rule| format!("\"{rule}\" = \"none\"\n")).collect();
    let mut folder = Folder::at(&market.base, &format!("[source.limits]\n{limits}"));
    // A walked list without a row is no loss either.
    folder.set("WAYBILL_RESOURCES", "shipments,promotions");
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], "secret-of-first").expect(0);
    let empty = FaultKind::Status { code: 200, body: FaultBody::Text("{}".to_owned()), headers: Default::default() };
    market.sandbox.set_faults(vec![Fault::always("/retailer/promotions", empty)]);
    folder.run(&["sync"]).expect(0);

    let database = Database::fresh().await;
    use_mysql(folder.dir.path(), &database.url());
    let moving = folder.run(&["status"]).expect(1);
    assert!(moving.out.contains("archive_moving: documents of the embedded archive move to MySQL"), "{}", moving.out);
    let serving = folder.serve();
    serving.idle(Duration::from_secs(120)).await;
    assert_eq!(serving.terminate().0, Some(0));
    let log = lossy(&folder.path("serve.stderr"));
    for part in [
        "the sink is another kind than before",
        "sending to the sink what it does not know of walks",
        "moved the documents of the embedded archive to MySQL documents=20",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    for loss in ["does not hold what was written", "MySQL lost", "failed to check"] {
        assert!(!log.contains(loss), "{loss}: {log}");
    }
    folder.run(&["status"]).expect(0);

    // Back to the archive: the documents are in MySQL, and a look at rest says so.
    use_archive(folder.dir.path());
    let left = folder.run(&["status"]).expect(1);
    let text = "sink_changed: the documents are in another sink (mysql), which is not configured any more";
    for part in [text, "configure the other sink again"] {
        assert!(left.out.contains(part), "{part}: {}", left.out);
    }
    let left: serde_json::Value = serde_json::from_str(&folder.run(&["status", "--json"]).expect(1).out).unwrap();
    let reason = &left["health"]["reasons"][0];
    assert_eq!((&left["health"]["level"], &reason["code"]), (&json!("attention"), &json!("sink_changed")), "{left}");
    use_mysql(folder.dir.path(), &database.url());
    assert!(folder.run(&["status"]).expect(0).out.contains("health: ok"));

    // A loss is still reported as one.
    database.run("DELETE FROM shipments").await;
    let lost = folder.run(&["sync"]).expect(0);
    assert!(lost.err.contains("WARN") && lost.err.contains("does not hold what was written to it"), "{}", lost.err);
}
