//! `sync` ends when its documents are in the sink; its exit code says whether all of them are.

use std::time::Duration;

use reqwest::Method;
use sandbox::{Options, ShopOptions};
use serde_json::Value;

use crate::support::mariadb::{Database, MariaDb};
use crate::support::no_limits;
use crate::support::program::{Folder, Market};

const CLIENT: &str = "first";

async fn market() -> Market {
    let shop = ShopOptions { client_id: CLIENT.into(), client_secret: "secret-of-first".into(), fbr: 60, fbb: 20 };
    Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await
}

/// A folder with a registered shop, which nothing was read of yet.
fn registered(market: &Market, url: &str) -> Folder {
    let rules = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let folder = Folder::at(&market.base, &format!("{rules}[mysql]\nurl = \"{url}\"\n"));
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", CLIENT], "secret-of-first").expect(0);
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sink_refuses_is_counted_in_its_run_and_ends_the_sync_with_code_1() {
    let (market, database) = (market().await, Database::fresh().await);
    let ids: Vec<String> = market.sandbox.truth(CLIENT).into_iter().map(|(_, id, _)| id).collect();
    let folder = registered(&market, &database.url());
    let made = folder.run(&["schema", "print"]).expect(0).out;
    for statement in made.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        database.run(statement).await;
    }
    let refused = format!("'{}', '{}'", ids[3], ids[40]);
    database.run(&format!("ALTER TABLE shipments ADD CONSTRAINT odd CHECK (shipment_id NOT IN ({refused}))")).await;
    let synced = folder.run(&["sync"]).expect(1);
    assert!(synced.err.contains("2 pages or documents"), "{}", synced.err);
    // All others were written before it ended.
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipments").await, [78]);

    let serving = folder.serve();
    let sums = async || {
        let runs = serving.all("/api/v1/runs").await;
        let sum = |name: &str| runs.iter().map(|run| run[name].as_u64().unwrap()).sum::<u64>();
        ["to_fetch", "fetched", "written", "parked", "refused", "pending"].map(sum)
    };
    assert_eq!(sums().await, [80, 80, 78, 2, 2, 0]);
    // Each was written alone once, and refused at once.
    let parked = serving.all("/api/v1/parked").await;
    assert!(parked.iter().all(|one| one["attempts"] == 1), "{parked:?}");
    // Once the table takes them, a retry writes them, and the run says so.
    database.run("ALTER TABLE shipments DROP CONSTRAINT odd").await;
    let shop = serving.all("/api/v1/shops").await[0]["id"].as_str().unwrap().to_owned();
    let retried = serving.call(Method::POST, &format!("/api/v1/shops/{shop}/parked/retry")).send().await.unwrap();
    assert_eq!(retried.status(), 200);
    crate::support::app::eventually("both written", async || (sums().await == [80, 80, 80, 0, 0, 0]).then_some(()))
        .await;
    drop(serving);
    folder.run(&["sync"]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_never_ends_well_while_documents_wait_for_the_sink() {
    let mut server = tokio::task::block_in_place(MariaDb::start);
    let (market, database) = (market().await, Database::on(&server.url()).await);
    let folder = registered(&market, &database.url());
    tokio::task::block_in_place(|| server.kill());
    let ended = folder.run(&["sync", "--quiet", "--at-most", "4s"]).expect(1);
    assert!(ended.err.contains("the time ran out"), "{}", ended.err);
    assert!(market.sandbox.audit().details_read > 0, "reading goes on meanwhile");
    tokio::task::block_in_place(|| server.run());
    folder.run(&["sync", "--quiet"]).expect(0);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipments").await, [80]);
    assert_eq!(market.sandbox.audit().details_reread, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_would_merge_documents_is_named_by_check_and_written_to_by_nothing() {
    let (market, database) = (market().await, Database::fresh().await);
    let folder = registered(&market, &database.url());
    let made = folder.run(&["schema", "print"]).expect(0).out;
    for statement in made.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        database.run(statement).await;
    }
    let column = "shipment_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE";
    database.run(&format!("ALTER TABLE shipments MODIFY {column} utf8mb4_general_ci NOT NULL")).await;
    database.run("CREATE TRIGGER t AFTER INSERT ON shipment_items FOR EACH ROW SET @seen = 1").await;
    let checked = folder.run(&["check"]).expect(1).out;
    let line = |mark: &str| checked.lines().find(|line| line.starts_with(mark)).unwrap_or_default();
    assert!(line("FAIL").contains("`shipments`") && line("FAIL").contains("utf8mb4_general_ci"), "{checked}");
    assert!(line("WARN").contains("`shipment_items`") && line("WARN").contains("`t` AFTER INSERT"), "{checked}");

    let ended = folder.run(&["sync", "--at-most", "4s"]).expect(1);
    assert!(ended.err.contains("the time ran out"), "{}", ended.err);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipments").await, [0]);
    let (_, statement) = line("FAIL").split_once("run ").unwrap();

    // A server says so everywhere, with the table and the statement that repairs it.
    let explains = |text: &str| text.contains("`shipments`") && text.contains("run ALTER TABLE `shipments`");
    let serving = folder.serve();
    let mut health = Value::Null;
    for _ in 0..600 {
        health = serving.get("/api/v1/status").await["health"].take();
        // Before MySQL has answered it is what the process before this one found.
        assert_eq!(health["reasons"][0]["code"], "sink_unavailable", "{health}");
        if explains(health["reasons"][0]["text"].as_str().unwrap()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(health["level"] == "failing" && explains(health["reasons"][0]["text"].as_str().unwrap()), "{health}");
    let ready = serving.get("/readyz").await.to_string();
    let shops = serving.get("/api/v1/shops").await;
    let of_shop = &shops["items"][0]["resources_health"][0];
    assert!(explains(&ready) && of_shop["state"] == "failing", "{ready}, {of_shop}");
    assert_eq!(serving.terminate().0, Some(0));
    let said = folder.said();
    assert!(said.lines().any(|line| line.contains("sink_unavailable") && explains(line)), "{said}");
    let at_rest = folder.run(&["status"]).expect(1).out;
    assert!(at_rest.contains("`shipments`"), "{at_rest}");

    database.run(statement.split(", and then").next().unwrap()).await;
    folder.run(&["check"]).expect(0);
    folder.run(&["sync"]).expect(0);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipments").await, [80]);
    folder.run(&["verify"]).expect(0);
}
