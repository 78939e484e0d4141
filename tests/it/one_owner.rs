//! Of any number of processes on one MySQL schema, one calls the marketplace and writes.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use reqwest::Method;
use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::mariadb::Database;
use crate::support::program::{Folder, Market, Serving};

const IDLE_WITHIN: Duration = Duration::from_secs(60);
/// Narrow enough that two processes with the whole budget each are over it at once.
const LIMITS: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"10/2s\"\n\"GET /retailer/shipments/*\" = \"20/2s\"\n";
const MAIN_KEY: &str = "data.key";

async fn market(clients: &[&str], rows: usize) -> Market {
    let shop = |client: &&str| ShopOptions {
        client_id: (*client).to_owned(),
        client_secret: format!("secret-of-{client}"),
        fbr: rows,
        fbb: 0,
    };
    let limits: toml::Table = toml::from_str(LIMITS).unwrap();
    let limits: BTreeMap<String, String> = limits["source"]["limits"].clone().try_into().unwrap();
    Market::open(Options { shops: clients.iter().map(shop).collect(), limits, ..Options::default() }).await
}

/// A folder on the schema; `like`: with the master key of another one.
fn folder(market: &Market, database: &Database, like: Option<&Folder>) -> Folder {
    let folder = Folder::at(&market.base, &format!("[mysql]\nurl = \"{}\"\n{LIMITS}", database.url()));
    if let Some(like) = like {
        fs::copy(like.path(MAIN_KEY), folder.path(MAIN_KEY)).unwrap();
    }
    folder
}

async fn register(serving: &Serving, client: &str) {
    let body = json!({"name": client, "client_id": client, "client_secret": format!("secret-of-{client}")});
    let answer = serving.call(Method::POST, "/api/v1/shops").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

async fn calls(market: &Market, at_least: usize) {
    while market.sandbox.calls().len() < at_least {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All documents are there, once and exact, and no window was over.
async fn assert_whole(market: &Market, database: &Database, clients: &[&str]) {
    let mut truth: Vec<(String, Value)> = Vec::new();
    for client in clients {
        truth.extend(market.sandbox.truth(client).into_iter().map(|(_, id, document)| (id, document)));
    }
    let rows: Vec<(String, Vec<u8>)> = database.rows("SELECT shipment_id, document FROM shipments").await;
    let mut rows: Vec<(String, Value)> =
        rows.into_iter().map(|(id, document)| (id, serde_json::from_slice(&document).unwrap())).collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    truth.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(rows, truth);
    let audit = market.sandbox.audit();
    assert!(audit.breaches().is_empty() && audit.refused_429 == 0, "{:#?}", audit.budgets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_a_schema_is_refused_before_any_call() {
    let database = Database::fresh().await;
    let market = market(&["first"], 120).await;
    let one = folder(&market, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    calls(&market, 12).await;
    let two = folder(&market, &database, Some(&one));
    assert_eq!(two.spawn_serve().ended(), Some(1), "{}", two.said());
    let said = two.said();
    for part in ["another process: `waybill serve` on ", &format!("(process {})", first.pid()), "since 20", "SIGTERM"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(two.run(&["sync"]).expect(1).err.contains("another process"), "{}", two.said());
    let added = two.feed(&["shops", "add", "--name", "x", "--client-id", "first"], "x").expect(1);
    assert!(added.err.contains("another process"), "{}", added.err);
    first.idle(IDLE_WITHIN).await;
    assert_whole(&market, &database, &["first"]).await;
    let audit = market.sandbox.audit();
    assert_eq!((audit.token_requests, audit.details_reread), (1, 0), "one login, and no document twice");
    assert_eq!(first.terminate().0, Some(0));
    // It was let go.
    let second = two.serve();
    second.idle(IDLE_WITHIN).await;
    assert_eq!(market.sandbox.audit().details_reread, 0);
    assert_eq!(second.terminate().0, Some(0));
    assert_whole(&market, &database, &["first"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_data_directory_takes_over_from_a_dead_process_with_used_up_budgets() {
    let database = Database::fresh().await;
    let market = market(&["first"], 150).await;
    let one = folder(&market, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    calls(&market, 30).await;
    // A shop that MySQL does not have yet is lost with its data directory.
    while database.rows::<u64>("SELECT COUNT(*) FROM waybill_shops").await != [1] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.kill();
    let two = folder(&market, &database, Some(&one));
    let second = two.serve();
    second.idle(IDLE_WITHIN).await;
    assert_whole(&market, &database, &["first"]).await;
    // The dead process's directory is overtaken: it begins again from MySQL, after the new one.
    let again = one.spawn_serve().ended();
    assert_eq!(again, Some(1), "{}", one.said());
    market.sandbox.add_shipments("first", sandbox::Method::Fbr, 3).unwrap();
    assert_eq!(second.terminate().0, Some(0));
    let first = one.serve();
    first.idle(IDLE_WITHIN).await;
    assert!(one.said().contains("moved its files aside"), "{}", one.said());
    let epochs: Vec<u64> = database.rows("SELECT epoch FROM waybill_register WHERE role = 'owner'").await;
    assert_eq!(epochs, [3]);
    assert_whole(&market, &database, &["first"]).await;
    assert_eq!(first.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_data_directory_comes_back_at_once_after_a_kill() {
    let database = Database::fresh().await;
    let market = market(&["first"], 100).await;
    let one = folder(&market, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    calls(&market, 15).await;
    first.kill();
    let first = one.serve();
    assert!(!one.said().contains("moved its files aside"), "{}", one.said());
    first.idle(IDLE_WITHIN).await;
    assert_whole(&market, &database, &["first"]).await;
    // The token of the registration is not stored; the next one is.
    assert!(market.sandbox.audit().token_requests <= 2);
    assert_eq!(first.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_replaced_writes_nothing_and_ends() {
    let database = Database::fresh().await;
    let market = market(&["first"], 20).await;
    let one = folder(&market, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    first.idle(IDLE_WITHIN).await;
    // As a takeover does, whatever the former owner believes.
    database.run("UPDATE waybill_fences SET epoch = epoch + 1").await;
    database.run("DELETE FROM shipments").await;
    market.sandbox.add_shipments("first", sandbox::Method::Fbr, 5).unwrap();
    first
        .call(Method::POST, &format!("/api/v1/shops/{}/sync", shop_id(&first).await))
        .json(&json!({}))
        .send()
        .await
        .ok();
    assert_eq!(first.ended(), Some(1), "{}", one.said());
    assert!(one.said().contains("has taken the MySQL schema over"), "{}", one.said());
    let rows: Vec<u64> = database.rows("SELECT COUNT(*) FROM shipments").await;
    assert_eq!(rows, [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_changes_what_an_owner_relies_on_is_the_owner_while_it_runs() {
    let database = Database::fresh().await;
    let (old, new) = (market(&["first"], 5).await, market(&["first"], 5).await);
    let one = folder(&old, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    first.idle(IDLE_WITHIN).await;
    let two = folder(&new, &database, Some(&one));
    let moving = ["source", "move", "--yes"];
    for command in [&moving[..], &["keys", "rotate-master"]] {
        let refused = two.run(command);
        assert!(refused.code != Some(0), "{command:?}: {}", refused.out);
    }
    assert!(two.run(&moving).expect(1).err.contains("another process"), "{}", two.said());
    assert_eq!(first.terminate().0, Some(0));
    let rows = async || {
        let row = "SELECT r.epoch, f.epoch, r.state, r.command FROM waybill_register r, waybill_fences f \
                   WHERE r.role = 'owner'";
        database.rows::<(u64, u64, String, String)>(row).await
    };
    let row = |epoch, command: &str| vec![(epoch, epoch, "free".to_owned(), command.to_owned())];
    assert_eq!(rows().await, row(1, "serve"));
    one.run(&["keys", "rotate-master"]).expect(0);
    assert_eq!(rows().await, row(2, "keys rotate-master"));
    fs::copy(one.path(MAIN_KEY), two.path(MAIN_KEY)).unwrap();
    fs::remove_dir_all(two.path("data")).unwrap();
    two.run(&moving).expect(0);
    assert_eq!(rows().await, row(3, "source move"), "a process that was suspended all the time writes no more");
    assert_eq!(old.sandbox.audit().token_requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_could_not_go_on_says_so_and_ends() {
    let database = Database::fresh().await;
    let (market, other) = (market(&["first"], 5).await, market(&["first"], 5).await);
    let alone = Folder::at(&market.base, "");
    assert!(alone.run(&["serve", "--standby"]).expect(2).err.contains("nothing to take over without mysql.url"));
    let one = folder(&market, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    first.idle(IDLE_WITHIN).await;
    // It makes a key of its own.
    let two = folder(&market, &database, None);
    assert_eq!(two.spawn(&["serve", "--standby"]).ended(), Some(1), "{}", two.said());
    assert!(two.said().contains("its master key opens none of the 1 shop"), "{}", two.said());
    let three = folder(&other, &database, Some(&one));
    assert_eq!(three.spawn(&["serve", "--standby"]).ended(), Some(2), "{}", three.said());
    assert!(three.said().contains("belongs to another source"), "{}", three.said());
    // The owner was not disturbed, and waits for no other.
    let standby: Vec<String> = database.rows("SELECT state FROM waybill_register WHERE role = 'standby'").await;
    assert_eq!(standby, ["free"]);
    assert_eq!(first.terminate().0, Some(0));
}

async fn shop_id(serving: &Serving) -> String {
    serving.all("/api/v1/shops").await[0]["id"].as_str().unwrap().to_owned()
}

async fn promise_ms(database: &Database) -> u64 {
    database.rows("SELECT promise_ms FROM waybill_register WHERE role = 'owner'").await[0]
}

/// Starts a standby, and waits until the owner has seen it.
async fn stand_by(folder: &Folder, database: &Database) -> Serving {
    let mut standby = folder.spawn(&["serve", "--standby"]);
    let line = standby.line().unwrap();
    assert!(line.contains("is a standby on http://"), "{line}");
    while promise_ms(database).await > 9_000 {
        assert!(standby.is_alive(), "{}", folder.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    standby
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_change_calls_nothing_twice_and_waits_for_no_window() {
    let database = Database::fresh().await;
    let market = market(&["first"], 160).await;
    let one = folder(&market, &database, None);
    let none = one.run(&["hand-over"]).expect(1).err;
    assert!(none.contains("no server runs"), "{none}");
    let first = one.serve();
    register(&first, "first").await;
    // The token of a registration is not stored; that of the next start is.
    assert_eq!(first.terminate().0, Some(0));
    let first = one.serve();
    let alone = one.run(&["hand-over"]).expect(1).err;
    assert!(alone.contains("no standby is there"), "{alone}");
    calls(&market, 40).await;
    let two = folder(&market, &database, Some(&one));
    let mut second = stand_by(&two, &database).await;
    let before = market.sandbox.audit();
    let handed = one.run(&["hand-over"]).expect(0).out;
    assert!(handed.contains("handed over to the standby on "), "{handed}");
    assert_eq!(first.ended(), Some(0), "{}", one.said());
    second.listening();
    second.idle(IDLE_WITHIN).await;
    assert!(two.said().contains("took over the state of the former owner"), "{}", two.said());
    let after = market.sandbox.audit();
    assert_eq!((after.token_requests, after.details_reread), (before.token_requests, 0), "{}", two.said());
    assert_whole(&market, &database, &["first"]).await;
    let runs = second.all("/api/v1/runs").await;
    assert!(runs.iter().all(|run| run["state"] == "done"), "the walk that was begun has ended: {runs:?}");
    let left: Vec<u64> = database.rows("SELECT COUNT(*) FROM waybill_handover").await;
    assert_eq!(left, [0]);
    assert_eq!(second.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_alive_and_not_ready_and_takes_over_from_a_dead_owner() {
    let database = Database::fresh().await;
    let market = market(&["first"], 100).await;
    let one = folder(&market, &database, None);
    let first = one.serve();
    register(&first, "first").await;
    let two = folder(&market, &database, Some(&one));
    let mut standby = two.spawn(&["serve", "--standby"]);
    let base = standby.line().unwrap().split(" on ").nth(1).unwrap().trim_end_matches('/').to_owned();
    let ask = async |path: &str| {
        let answer = reqwest::get(format!("{base}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("/livez").await.0, 200);
    for path in ["/readyz", "/api/v1/shops"] {
        let (status, text) = ask(path).await;
        assert!(status == 503 && text.contains("standby: another process works"), "{path}: {status} {text}");
    }
    while promise_ms(&database).await > 9_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metrics = first.call(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("waybill_standby 1"), "{metrics}");
    first.idle(IDLE_WITHIN).await;
    // A heartbeat waits for this lock: the owner stops calling, and says so, although it has nothing to write.
    let mut other = database.conn().await;
    other.query_drop("START TRANSACTION").await.unwrap();
    other.query_drop("SELECT * FROM waybill_register WHERE role = 'owner' FOR UPDATE").await.unwrap();
    while !first.get("/api/v1/status").await["health"].to_string().contains("calls wait for it") {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(first.call(Method::GET, "/readyz").send().await.unwrap().status(), 200, "it serves reads");
    first.kill();
    drop(other);
    standby.listening();
    assert_eq!(ask("/readyz").await.0, 200);
    standby.idle(IDLE_WITHIN).await;
    assert_whole(&market, &database, &["first"]).await;
    assert_eq!(standby.terminate().0, Some(0));
}
