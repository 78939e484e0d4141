//! Replays beside a writer and of one shop, columns added by a running program, and drift over restarts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mysql_async::prelude::Queryable as _;
use reqwest::Method;
use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};
use waybill::domain::{Document, Entry, ListParams, Timestamp};
use waybill::sink::Mysql;
use waybill::sink::mysql::ReplayScope;

use super::{SHOP, configuration, fill, fill_shop, kept};
use crate::support::configuration::load;
use crate::support::mariadb::Database;
use crate::support::program::{Folder, Market, lossy};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder whose tables are the narrow ones, filled, and whose configuration is the wide one.
async fn outgrown(database: &Database, documents: u64) -> Folder {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = Folder::bare();
    folder.write("waybill.toml", &configuration(&database.url(), false));
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    fill(database, documents).await;
    let listen = "[http]\nlisten = \"127.0.0.1:0\"\n";
    folder.write("waybill.toml", &format!("{}{listen}", configuration(&database.url(), true)));
    folder
}

/// Documents whose columns or child rows are not those of what is stored.
async fn differing(database: &Database) -> u64 {
    let columns: Vec<u64> =
        database.rows("SELECT COUNT(*) FROM things WHERE NOT (city <=> JSON_VALUE(document, '$.to.city'))").await;
    let children: Vec<u64> = database
        .rows(
            "SELECT COUNT(*) FROM things t WHERE (SELECT COUNT(*) FROM thing_parts p WHERE p.shop_id = t.shop_id AND \
             p.thing_id = t.thing_id AND p.version = t.version) <> JSON_LENGTH(document, '$.parts') OR \
             (SELECT COUNT(*) FROM thing_parts p WHERE p.shop_id = t.shop_id AND p.thing_id = t.thing_id) <> JSON_LENGTH(document, '$.parts')",
        )
        .await;
    columns[0] + children[0]
}

fn newer(number: u64, round: u64) -> Entry {
    let id = format!("{number:09}");
    let body = json!({"id": id, "name": "newer", "sold": round, "to": {"city": format!("newer{round}")}, "parts": [{"n": round}]});
    Entry::Document(Document {
        shop: SHOP.into(),
        resource: "things".to_owned(),
        combination: ListParams::default(),
        id,
        version: 1_000_000 + round,
        fetched_at: Timestamp::from_millis(1_795_305_600_000),
        first_listed_at: Timestamp::from_millis(1_795_305_600_000),
        row_hash: 1,
        document_hash: 1,
        run: None,
        body: Bytes::from(body.to_string()),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_write_wins_over_a_replay() {
    const DOCUMENTS: u64 = 6_000;
    const EVERY: u64 = 40;
    let database = Database::fresh().await;
    let folder = outgrown(&database, DOCUMENTS).await;
    let config = load(&std::fs::read_to_string(folder.path("waybill.toml")).unwrap(), &[]).unwrap();
    let mysql = Mysql::new(&database.url().into(), config.definitions).unwrap();
    mysql.prepare().await.unwrap();
    // A newer document that is written but not committed when the replay reaches it.
    let mut held = database.conn().await;
    held.query_drop("START TRANSACTION").await.unwrap();
    held.query_drop(
        "UPDATE things SET version = version + 900, document = JSON_SET(document, '$.to.city', 'held') WHERE thing_id = '000000003'",
    )
    .await
    .unwrap();
    let mut replay = folder.spawn(&["schema", "replay", "--quiet"]);
    let waits = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    let begun = Instant::now();
    while database.rows::<u64>(waits).await[0] == 0 && begun.elapsed() < PATIENCE {
        // Asked for more often, the server shows what it showed before.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    held.query_drop("COMMIT").await.unwrap();
    held.disconnect().await.unwrap();
    // The same from a writer, again and again, over all of them.
    let mut round = 0;
    while replay.is_alive() || round == 0 {
        round += 1;
        let batch: Vec<Entry> = (1..=DOCUMENTS / EVERY).map(|n| newer(n * EVERY, round)).collect();
        while mysql.write(&batch).await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "the writer is shut out");
        }
    }
    assert_eq!(replay.ended(), Some(0), "{}", folder.said());
    println!("{round} rounds of the writer");
    assert_eq!(differing(&database).await, 0);
    let versions: Vec<(u64, u64)> = database
        .rows(&format!("SELECT COUNT(*), COUNT(DISTINCT city) FROM things WHERE version = {}", 1_000_000 + round))
        .await;
    assert_eq!(versions, [(DOCUMENTS / EVERY, 1)], "no newer one was set back");
    let held: Vec<(u64, String)> = database.rows("SELECT version, city FROM things WHERE thing_id = '000000003'").await;
    assert_eq!(held, [(908, "held".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_shop_can_be_filled_by_itself_and_only_what_differs_changes() {
    let database = Database::fresh().await;
    let folder = outgrown(&database, 700).await;
    fill_shop(&database, "zzz", 300).await;
    let before = kept(&database).await;
    let replay = |more: &[&str]| folder.run(&[&["schema", "replay", "things"][..], more].concat()).expect(0).out;
    assert_eq!(replay(&["--shop", "zzz"]), "things: 300 documents\n");
    let filled = "SELECT shop_id, COUNT(*) FROM things WHERE city IS NOT NULL GROUP BY 1 ORDER BY 1";
    let of = |shop: &str, count: u64| (shop.to_owned(), count);
    assert_eq!(database.rows::<(String, u64)>(filled).await, [of("zzz", 300)]);
    assert_eq!(
        replay(&["--shop", "zzz"]),
        "things: nothing left to do, 300 documents were done earlier; --again starts over\n"
    );
    assert_eq!(replay(&[]), "things: 1000 documents\n");
    assert_eq!(database.rows::<(String, u64)>(filled).await, [of(SHOP, 700), of("zzz", 300)]);
    assert_eq!(
        replay(&["--shop", SHOP]),
        "things: nothing left to do, 1000 documents were done earlier; --again starts over\n"
    );
    assert_eq!((kept(&database).await, differing(&database).await), (before, 0));
    // Rows of a child table that the document does not have, a column that was emptied, a document that is none
    // (which MySQL never takes).
    if database.is_mariadb().await {
        let broken = "UPDATE things SET document = '{' WHERE shop_id = 'zzz' AND thing_id = '000000009'";
        database.run(&format!("SET STATEMENT check_constraint_checks = 0 FOR {broken}")).await;
    }
    database.run("UPDATE things SET city = NULL WHERE thing_id < '000000005'").await;
    database.run("INSERT INTO thing_parts (shop_id, thing_id, position, part, version) SELECT shop_id, thing_id, 7, 7, version FROM things").await;
    assert_eq!(replay(&["--again"]), "things: 1000 documents\n");
    database
        .run("UPDATE things SET document = '{\"to\":{\"city\":\"c2\"},\"parts\":[1,2,3]}' WHERE document = '{'")
        .await;
    assert_eq!(differing(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_adds_columns_at_once_takes_none_away_and_says_how_to_fill_them() {
    let database = Database::fresh().await;
    let folder = outgrown(&database, 50).await;
    let tables = if database.is_mariadb().await { "INNODB_SYS_TABLES" } else { "INNODB_TABLES" };
    let table = format!("SELECT TABLE_ID FROM information_schema.{tables} WHERE NAME = CONCAT(DATABASE(), '/things')");
    let before: Vec<u64> = database.rows(&table).await;
    let columns = "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND \
                   TABLE_NAME = 'things' AND COLUMN_NAME IN ('name', 'city', 'sold') ORDER BY 1";
    let serving = folder.serve();
    let begun = Instant::now();
    // Nothing is there to be written.
    while !lossy(&folder.path("serve.stderr")).contains("run `waybill schema replay things` to fill them") {
        assert!(begun.elapsed() < PATIENCE, "{}", folder.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(database.rows::<String>(columns).await, ["city", "name", "sold"]);
    assert_eq!(database.rows::<u64>(&table).await, before, "the table was not rebuilt");
    // Beside the server, which holds the data directory.
    assert_eq!(folder.run(&["schema", "replay"]).expect(0).out, "things: 50 documents\n");
    assert_eq!(serving.terminate().0, Some(0));
    folder
        .write("waybill.toml", &format!("{}[http]\nlisten = \"127.0.0.1:0\"\n", configuration(&database.url(), false)));
    let said = lossy(&folder.path("serve.stderr")).len();
    assert_eq!(folder.serve().terminate().0, Some(0));
    assert_eq!(database.rows::<String>(columns).await, ["city", "name", "sold"]);
    assert_eq!(database.rows::<u64>("SELECT COUNT(city) FROM things").await, [50]);
    assert!(
        !lossy(&folder.path("serve.stderr")).get(said..).unwrap_or_default().contains("schema replay"),
        "nothing was added"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_is_reported() {
    let database = Database::fresh().await;
    let folder = outgrown(&database, 30).await;
    let named = |name: &str| {
        let table = format!("[resource.things.table]\nname = \"{name}\"\n");
        configuration(&database.url(), true).replace("[resource.things.table]\n", &table)
    };
    folder.write("waybill.toml", &named("stock"));
    let fresh = folder.run(&["schema", "replay"]).expect(0);
    assert!(!fresh.err.contains("RENAME"), "it was never synced: {}", fresh.err);
    database
        .run(&format!(
            "INSERT INTO waybill_checkpoints (shop_id, resource, combination) VALUES ('{SHOP}', 'things', '')"
        ))
        .await;
    folder.write("waybill.toml", &named("goods"));
    let said = folder.run(&["schema", "replay"]).expect(0).err;
    let statement = "RENAME TABLE `goods` TO `goods_unused`, `THE OLD NAME` TO `goods`";
    assert!(said.contains(statement), "{said}");
    database.run(&statement.replace("THE OLD NAME", "things")).await;
    let again = folder.run(&["schema", "replay", "--again"]).expect(0);
    assert_eq!(again.out, "things: 30 documents\n");
    assert!(!again.err.contains("RENAME"), "{}", again.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_return_are_filled_from_the_first_document_on() {
    let database = Database::fresh().await;
    let folder = outgrown(&database, 50).await;
    let replay = |more: &[&str]| folder.run(&[&["schema", "replay"][..], more].concat()).expect(0).out;
    assert_eq!(replay(&[]), "things: 50 documents\n");
    let wide = std::fs::read_to_string(folder.path("waybill.toml")).unwrap();
    // A start without the columns, whose writer leaves them empty.
    let config = load(&configuration(&database.url(), false), &[]).unwrap();
    let narrow = Mysql::new(&database.url().into(), config.definitions).unwrap();
    narrow.prepare().await.unwrap();
    narrow.write(&[newer(51, 1)]).await.unwrap();
    narrow.disconnect().await.unwrap();
    folder.write("waybill.toml", &wide);
    assert_eq!(replay(&[]), "things: 51 documents\n");
    assert_eq!(differing(&database).await, 0);
    let left = replay(&[]);
    assert!(left.contains("nothing left to do") && left.contains("--again"), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_replay_is_bounded_by_its_bytes() {
    let database = Database::fresh().await;
    let folder = outgrown(&database, 40).await;
    // Some far larger than the others, and some larger than a batch.
    database.run("UPDATE things SET document = JSON_SET(document, '$.filler', REPEAT('x', 2000000)) WHERE thing_id > '000000020'").await;
    database.run("UPDATE things SET document = JSON_SET(document, '$.more', REPEAT('y', 4000000)) WHERE thing_id > '000000037'").await;
    let config = load(&std::fs::read_to_string(folder.path("waybill.toml")).unwrap(), &[]).unwrap();
    let mysql = Mysql::new(&database.url().into(), config.definitions).unwrap();
    mysql.prepare().await.unwrap();
    let scope = ReplayScope { resource: "things", shop: None };
    let (mut done, mut steps) = (mysql.replayed(scope).await.unwrap(), Vec::new());
    while !done.ended {
        let before = done.documents;
        done = mysql.replay_some(scope, 500).await.unwrap();
        steps.push(done.documents - before);
    }
    assert_eq!(steps.iter().sum::<u64>(), 40);
    assert!(steps[0] >= 20 && steps[1..].iter().all(|step| *step <= 2), "{steps:?}");
    assert_eq!(differing(&database).await, 0);
    mysql.disconnect().await.unwrap();
}

const PARCELS: &str = "[resource.parcels]\nmedia_type = \"application/vnd.retailer.v10+json\"\nid = \"/shipmentId\"\n\
    list = { path = \"/retailer/shipments\", items = \"/shipments\", pages = { style = \"number\", parameter = \"page\" }, \
    parameters = { fulfilment-method = [\"FBR\"] } }\ndetail = { path = \"/retailer/shipments/{id}\" }\n\
    [resource.parcels.table.columns]\norder_number = { from = \"/order/orderId\", type = \"text(4)\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_kept_over_restarts_until_a_column_takes_it() {
    let rules =
        ["GET /retailer/shipments", "GET /retailer/shipments/*"].map(|rule| (rule.to_owned(), "none".to_owned()));
    let shop = ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr: 30, fbb: 0 };
    let limits = BTreeMap::from(rules);
    let market = Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await;
    let lifted = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let mut folder = Folder::at(&market.base, &format!("{lifted}{PARCELS}"));
    folder.set("WAYBILL_RESOURCES", "parcels");
    let path = "/api/v1/resources/parcels/drift";
    let serving = folder.serve();
    let shop = json!({"name": "First", "client_id": "first", "client_secret": "s3cret"});
    assert_eq!(serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap().status(), 201);
    serving.idle(PATIENCE).await;
    let first = serving.get(path).await;
    let metrics = serving.call(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let metric = "waybill_misfits_total{resource=\"parcels\",column=\"parcels.order_number\"} 30";
    assert!(metrics.contains(metric), "{metrics}");
    assert!(metrics.contains("waybill_unmapped_fields{resource=\"parcels\"}"), "{metrics}");
    assert_eq!(serving.get("/api/v1/status").await["parked"], 0);
    assert_eq!(serving.terminate().0, Some(0));
    let log = lossy(&folder.path("serve.stderr"));
    assert!(log.contains("fields that no column takes") && log.contains("/shipmentItems"), "{log}");

    let serving = folder.serve();
    assert_eq!(serving.get(path).await, first);
    assert_eq!(serving.terminate().0, Some(0));
    let again = lossy(&folder.path("serve.stderr"));
    assert!(
        !again.get(log.len()..).unwrap_or_default().contains("fields that no column takes"),
        "logged once a day, restarts or not: {again}"
    );

    let column = "[resource.parcels.table.children.parcel_items]\nfrom = \"/shipmentItems\"\n\
                  columns = { all = { from = \"\", type = \"json\" } }\n";
    let wide =
        std::fs::read_to_string(folder.path("waybill.toml")).unwrap().replace("order_number", "order_id") + column;
    folder.write("waybill.toml", &wide);
    let serving = folder.serve();
    let now = serving.get(path).await;
    let paths = |drift: &Value| -> Vec<Value> {
        drift["unmapped"].as_array().unwrap().iter().filter(|one| one["path"] != "/shipmentItems").cloned().collect()
    };
    assert!(first["unmapped"].to_string().contains("\"/shipmentItems\""), "{first}");
    assert_eq!((now["unmapped"].as_array().unwrap(), &now["misfits"]), (&paths(&first), &json!([])));
    assert_eq!(serving.terminate().0, Some(0));
}
