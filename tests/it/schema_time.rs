//! The schema over time: columns and tables that a definition gains later are made at the start, and filled from the
//! stored documents without a call of the API, also when that is killed.

mod replay_concurrency;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::support::app::TestApp;
use crate::support::is_full;
use crate::support::mariadb::Database;
use crate::support::program::Folder;

const SHOP: &str = "k3v9x0q2m1ab";

/// A resource with few columns, or with what it gained later.
fn configuration(url: &str, more: bool) -> String {
    let (column, child) = if more {
        (
            "city = { from = \"/to/city\", type = \"text(64)\" }\nsold = { from = \"/sold\", type = \"integer\" }\n",
            "[resource.things.table.children.thing_parts]\nfrom = \"/parts\"\n\
             columns = { part = { from = \"/n\", type = \"integer\" } }\n",
        )
    } else {
        ("", "")
    };
    format!(
        "resources = [\"things\"]\n[mysql]\nurl = \"{url}\"\n[source.limits]\n\"GET /things\" = \"1/s\"\n[resource.things]\n\
         id = \"/id\"\nlist = {{ path = \"/things\", items = \"\", pages = {{ style = \"none\" }} }}\n\
         [resource.things.table]\nid = \"thing_id\"\n[resource.things.table.columns]\n\
         name = {{ from = \"/name\", type = \"text(64)\" }}\n{column}{child}"
    )
}

/// That many documents, put into the table as an earlier release wrote them.
async fn fill(database: &Database, documents: u64) {
    fill_shop(database, SHOP, documents).await;
}

async fn fill_shop(database: &Database, shop: &str, documents: u64) {
    // As every server can count.
    let digits = (1..10).fold("SELECT 0 AS d".to_owned(), |all, digit| format!("{all} UNION ALL SELECT {digit}"));
    let digits = format!("({digits})");
    database
        .run(&format!(
            "INSERT INTO things (shop_id, thing_id, combination, name, document, fetched_at, first_listed_at, row_hash, \
             document_hash, version) SELECT '{shop}', LPAD(seq, 9, '0'), '', CONCAT('n', seq), \
             JSON_OBJECT('id', LPAD(seq, 9, '0'), 'name', CONCAT('n', seq), 'sold', IF(seq % 10, seq, 'many'), \
             'to', JSON_OBJECT('city', CONCAT('c', seq % 7)), 'parts', JSON_ARRAY(JSON_OBJECT('n', seq), JSON_OBJECT('n', seq + 1))), \
             '2026-11-01 10:00:00.123', '2026-10-01 09:00:00.456', seq, seq * 2, seq + 5 \
             FROM (SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS seq FROM \
             {digits} a, {digits} b, {digits} c, {digits} e, {digits} f) numbers WHERE seq <= {documents}"
        ))
        .await;
}

/// What must not change.
async fn kept(database: &Database) -> Vec<(u64, String, u64)> {
    let text = "SELECT CAST(SUM(version) AS UNSIGNED), SHA2(GROUP_CONCAT(fetched_at, first_listed_at, row_hash ORDER BY thing_id), 256), \
                CAST(SUM(document_hash) AS UNSIGNED) FROM things WHERE thing_id < '000000500'";
    database.rows(text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn added_columns_and_tables_are_filled_from_the_documents_also_over_a_kill() {
    let documents: u64 = if is_full() { 100_000 } else { 20_000 };
    let database = Database::fresh().await;
    let mut folder = Folder::bare();
    folder.write("waybill.toml", &configuration(&database.url(), false));
    // Makes the tables of today, and has nothing to do.
    assert_eq!(folder.run(&["schema", "replay"]).expect(0).out, "things: 0 documents\n");
    fill(&database, documents).await;
    let before = kept(&database).await;

    folder.write("waybill.toml", &configuration(&database.url(), true));
    // The first is killed in the middle, as soon as something was done.
    folder.set("WAYBILL_LOG_LEVEL", "warn");
    let mut killed =
        folder.command(&["schema", "replay"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut reported = BufReader::new(killed.stderr.take().unwrap()).lines();
    let first = reported.next().unwrap().unwrap();
    assert!(first.starts_with("things: ") && first.contains("so far"), "{first}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    let filled: Vec<u64> = database.rows("SELECT COUNT(*) FROM things WHERE city IS NOT NULL").await;
    let noted: Vec<u64> = database.rows("SELECT documents FROM waybill_replays").await;
    assert_eq!(filled, noted, "the place and the rows are one commit");
    assert!(filled[0] > 0 && filled[0] < documents, "{filled:?} of {documents}");

    let ended = folder.run(&["schema", "replay"]).expect(0);
    assert_eq!(ended.out, format!("things: {documents} documents, {} of them earlier\n", noted[0]));
    let columns: Vec<(u64, u64, u64)> = database
        .rows("SELECT COUNT(*), SUM(city = CONCAT('c', name + 0)), COUNT(sold) FROM (SELECT city, sold, SUBSTR(name, 2) % 7 AS name FROM things) t")
        .await;
    assert_eq!(columns, [(documents, documents, documents - documents / 10)], "misfits are NULL");
    let parts: Vec<(u64, u64, u64)> = database
        .rows("SELECT COUNT(*), SUM(part = thing_id + position), SUM(p.version = t.version) FROM thing_parts p JOIN things t USING (shop_id, thing_id)")
        .await;
    assert_eq!(parts, [(2 * documents, 2 * documents, 2 * documents)]);
    assert_eq!(kept(&database).await, before, "versions, times and hashes stay");
    // Nothing is left; asked for, it begins again, and ends with the same.
    let again = folder.run(&["schema", "replay", "things"]).expect(0).out;
    assert_eq!(
        again,
        format!("things: nothing left to do, {documents} documents were done earlier; --again starts over\n")
    );
    let other = folder.run(&["schema", "replay", "thing"]).expect(2);
    assert!(other.err.contains("`thing` is not configured; did you mean `things`?"), "{}", other.err);
    // The API is nowhere, and no call asked for it.
    assert!(!folder.path("data").exists(), "no data directory is needed");
    // A column that the definition no longer has stays, with what is in it.
    folder.write("waybill.toml", &configuration(&database.url(), false));
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    let cities: Vec<u64> = database.rows("SELECT COUNT(city) FROM things").await;
    assert_eq!(cities, [documents]);
}

#[test]
fn without_mysql_there_is_nothing_to_fill_and_the_tables_can_be_seen_all_the_same() {
    let folder = Folder::bare();
    let replayed = folder.run(&["schema", "replay"]).expect(0);
    assert!(replayed.err.contains("nothing to fill"), "{}", replayed.err);
    let printed = folder.run(&["schema", "print"]).expect(0).out;
    for part in [
        "CREATE TABLE IF NOT EXISTS `waybill_shops`",
        "CREATE TABLE IF NOT EXISTS `shipment_items`",
        "PRIMARY KEY (`shop_id`,`shipment_id`)",
    ] {
        assert!(printed.contains(part), "{part}:\n{printed}");
    }
    let one = folder.run(&["schema", "print", "shipments"]).expect(0).out;
    assert!(!one.contains("waybill_shops") && one.contains("`shipments`"), "{one}");
    assert_eq!(json!(one.matches("CREATE TABLE").count()), json!(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_tables_are_those_that_are_made() {
    let database = Database::fresh().await;
    let printed = Folder::bare().run(&["schema", "print"]).expect(0).out;
    for statement in printed.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        database.run(statement).await;
    }
    let shape = "SELECT table_name, column_name, column_type, COALESCE(collation_name, ''), is_nullable \
                 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name <> 'waybill_migrations' ORDER BY 1, 2";
    let by_hand: Vec<(String, String, String, String, String)> = database.rows(shape).await;
    let other = Database::fresh().await;
    let folder = Folder::bare();
    folder.write("waybill.toml", &format!("[mysql]\nurl = \"{}\"\n", other.url()));
    folder.run(&["schema", "replay", "--quiet"]).expect(0);
    assert_eq!(other.rows::<(String, String, String, String, String)>(shape).await, by_hand);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_column_takes_and_what_does_not_fit_is_named_and_nothing_is_parked() {
    let app = TestApp::builder()
        .resources(&["parcels"])
        .toml(
            "[resource.parcels]\nmedia_type = \"application/vnd.retailer.v10+json\"\nid = \"/shipmentId\"\n\
             list = { path = \"/retailer/shipments\", items = \"/shipments\", pages = { style = \"number\", parameter = \"page\" }, \
             parameters = { fulfilment-method = [\"FBR\"] } }\ndetail = { path = \"/retailer/shipments/{id}\" }\n\
             [resource.parcels.table.columns]\nat = { from = \"/shipmentDateTime\", type = \"datetime\" }\n\
             order_number = { from = \"/order/orderId\", type = \"text(4)\" }\n\
             [resource.parcels.table.children.parcel_items]\nfrom = \"/shipmentItems\"\n\
             columns = { ean = { from = \"/product/ean\", type = \"text(64)\" }, product = { from = \"/offer\", type = \"json\" } }",
        )
        .shop("first", 30, 0)
        .start()
        .await;
    app.run_until_idle().await;
    let found = app.get("/api/v1/resources/parcels/drift").await;
    let paths: Vec<&str> =
        found["unmapped"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    for path in [
        "/shipmentDetails",
        "/shipmentItems/*/quantity",
        "/shipmentItems/*/product/title",
        "/order/orderPlacedDateTime",
    ] {
        assert!(paths.contains(&path), "{path}: {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.contains("ean") || path.contains("/offer")), "{paths:?}");
    let item =
        found["unmapped"].as_array().unwrap().iter().find(|one| one["path"] == "/shipmentItems/*/quantity").unwrap();
    assert_eq!((&item["documents"], &item["kind"]), (&json!(30), &json!("number")));
    let misfits = found["misfits"].as_array().unwrap();
    assert_eq!(
        (misfits.len(), &misfits[0]["column"], &misfits[0]["table"]),
        (1, &json!("order_number"), &json!("parcels"))
    );
    let documents = app.pages("/api/v1/parcels?limit=100").await;
    assert_eq!(documents.len(), 30, "all are kept");
    assert!(
        documents.iter().all(|one| one["order_number"].is_null() && one["document"]["order"]["orderId"].is_string())
    );
    // No value is shown: only names.
    let order = documents[0]["document"]["order"]["orderId"].as_str().unwrap();
    assert!(!found.to_string().contains(order));
    let listed = app.get("/api/v1/resources").await;
    assert_eq!(listed["items"][0]["name"], "parcels");
    assert_eq!(listed["items"][0]["children"][0]["columns"][1], json!({"name": "product", "type": "json"}));
    let (status, _) = app.call(reqwest::Method::GET, "/api/v1/resources/nothing/drift", None).await;
    assert_eq!(status, 404);
    app.finish().await;
}
