//! Documents and their children are replaced by version, whatever the server says of affected rows.

use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use waybill::domain::{Document, Entry};
use waybill::sink::mysql::ReplayScope;
use waybill::sink::{Mysql, SinkErrorClass};

use super::{checksums, definitions, document, eans, entry, prepared, shipment};
use crate::support::mariadb::Database;

/// Ten documents of a version, each with its own number of children.
fn documents(version: u64, eans: impl Fn(usize) -> usize) -> Vec<Entry> {
    let all = ["1", "2", "3", "4", "5", "6"];
    (0..10).map(|n| entry("s", &format!("d{n}"), version, &shipment("o", &all[..eans(n)]))).collect()
}

async fn counts(database: &Database) -> Vec<u64> {
    database
        .rows(
            "SELECT COUNT(i.position) FROM shipments s LEFT JOIN shipment_items i \
             ON i.shop_id = s.shop_id AND i.shipment_id = s.shipment_id AND i.version = s.version \
             GROUP BY s.shipment_id ORDER BY s.shipment_id",
        )
        .await
}

/// What makes the server count affected rows otherwise, or does more than it is asked for.
async fn changed_tables() -> Vec<(&'static str, Database)> {
    let mut tables = Vec::new();
    let mut changes = vec![
        ("as made", ""),
        (
            "triggers that write elsewhere",
            "CREATE TABLE seen (n INT); \
             CREATE TRIGGER a AFTER INSERT ON shipments FOR EACH ROW INSERT INTO seen VALUES (1), (2); \
             CREATE TRIGGER b AFTER UPDATE ON shipments FOR EACH ROW INSERT INTO seen VALUES (3), (4); \
             CREATE TRIGGER c AFTER DELETE ON shipment_items FOR EACH ROW INSERT INTO seen VALUES (5)",
        ),
        (
            "a trigger that changes the row",
            "CREATE TRIGGER a BEFORE UPDATE ON shipments FOR EACH ROW SET NEW.shipment_reference = CONCAT('x', RAND())",
        ),
        ("partitions", "ALTER TABLE shipments PARTITION BY KEY (shop_id) PARTITIONS 4"),
    ];
    if Database::fresh().await.is_mariadb().await {
        changes.push(("system versioning", "ALTER TABLE shipments ADD SYSTEM VERSIONING"));
        changes.push(("system versioning of children", "ALTER TABLE shipment_items ADD SYSTEM VERSIONING"));
    }
    for (what, statements) in changes {
        let database = Database::fresh().await;
        prepared(&database).await.disconnect().await.unwrap();
        for statement in statements.split("; ").filter(|statement| !statement.is_empty()) {
            database.run(statement).await;
        }
        tables.push((what, database));
    }
    tables
}

#[tokio::test]
async fn child_rows_follow_their_document_whatever_counts_the_server_reports() {
    for (what, database) in changed_tables().await {
        let mysql = prepared(&database).await;
        mysql.write(&documents(1, |n| n % 6)).await.unwrap();
        assert_eq!(counts(&database).await, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3], "{what}");
        // More, fewer, none; in one batch with others that are new and others that are older than what is there.
        let mut batch = documents(3, |n| 5 - n % 6);
        batch.truncate(6);
        batch.push(entry("s", "new", 3, &shipment("o", &["1", "2"])));
        batch.push(entry("s", "d9", 0, &shipment("o", &["9", "9", "9", "9", "9"])));
        mysql.write(&batch).await.unwrap();
        assert_eq!(counts(&database).await, [5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 2], "{what}");
        let rows: Vec<u64> = database.rows("SELECT COUNT(*) FROM shipment_items").await;
        assert_eq!(rows, [23], "{what}: rows of no stored version");
        // Each by itself, as after a batch that was halved; and again.
        for _ in 0..2 {
            for one in documents(4, |n| n % 3) {
                mysql.write(&[one]).await.unwrap();
            }
            assert_eq!(counts(&database).await, [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2], "{what}");
        }
    }
}

#[tokio::test]
async fn orphaned_child_rows_are_removed_when_the_document_is_read_again() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    mysql.write(&[entry("s", "1", 7, &shipment("o", &["1", "2", "3"]))]).await.unwrap();
    database.run("DELETE FROM shipments").await;
    // Older than what its children say of themselves, as from a backup.
    mysql.write(&[entry("s", "1", 5, &shipment("o", &["4"]))]).await.unwrap();
    assert_eq!(eans(&database, "1").await, ["4"]);
    // Some of them are gone too.
    mysql.write(&[entry("s", "1", 8, &shipment("o", &["1", "2", "3", "4"]))]).await.unwrap();
    database.run("DELETE FROM shipment_items WHERE position IN (0, 2)").await;
    mysql.write(&[entry("s", "1", 9, &shipment("o", &["5", "6", "7"]))]).await.unwrap();
    assert_eq!(eans(&database, "1").await, ["5", "6", "7"]);
}

#[tokio::test]
async fn columns_that_people_added_keep_their_values() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    database.run("ALTER TABLE shipment_items ADD note VARCHAR(20) NULL").await;
    database.run("ALTER TABLE shipments ADD note VARCHAR(20) NULL").await;
    mysql.write(&[entry("s", "1", 1, &shipment("o", &["1", "2", "3"]))]).await.unwrap();
    database.run("UPDATE shipment_items SET note = CONCAT('of ', position)").await;
    database.run("UPDATE shipments SET note = 'mine'").await;
    mysql.write(&[entry("s", "1", 2, &shipment("o", &["7", "2"]))]).await.unwrap();
    let notes: Vec<String> = database.rows("SELECT note FROM shipment_items ORDER BY position").await;
    assert_eq!((notes, eans(&database, "1").await), (vec!["of 0".into(), "of 1".into()], vec!["7".into(), "2".into()]));
    assert_eq!(database.rows::<String>("SELECT note FROM shipments").await, ["mine"]);
}

#[tokio::test]
async fn an_added_unique_index_never_merges_two_documents() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    database.run("ALTER TABLE shipments ADD UNIQUE u (order_id(20))").await;
    database.run("ALTER TABLE shipment_items ADD UNIQUE v (ean)").await;
    let one = |id: &str, version: u64, order: &str, ean: &str| entry("s", id, version, &shipment(order, &[ean]));
    mysql.write(&[one("1", 1, "o1", "e1"), one("2", 1, "o2", "e2")]).await.unwrap();
    let before = checksums(&database).await;
    for (bad, index) in [
        (one("3", 1, "o1", "e3"), "'u'"),
        (one("2", 2, "o1", "e2"), "'u'"),
        (one("3", 1, "o3", "e1"), "'v'"),
        (one("2", 2, "o2", "e1"), "'v'"),
    ] {
        let error = mysql.write(&[bad]).await.unwrap_err();
        assert_eq!(error.class, SinkErrorClass::Poison, "{error}");
        assert!(error.text.contains(index) || error.text.contains(&index.replace('\'', "")), "{error}");
        assert_eq!(checksums(&database).await, before);
    }
}

#[tokio::test]
async fn ids_that_collide_in_the_server_stop_the_writer_and_merge_nothing() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    mysql.write(&[entry("s", "CASE", 1, &shipment("o1", &["1"]))]).await.unwrap();
    // The table is changed while we write to it.
    let mut conn = database.conn().await;
    let text = "ALTER TABLE shipments MODIFY shipment_id VARCHAR(128) CHARACTER SET utf8mb4 \
                COLLATE utf8mb4_general_ci NOT NULL";
    conn.query_drop(text).await.unwrap();
    conn.disconnect().await.unwrap();
    let before = checksums(&database).await;
    let error = mysql.write(&[entry("s", "case", 2, &shipment("o2", &["2"]))]).await.unwrap_err();
    assert_eq!(error.class, SinkErrorClass::Operator, "{error}");
    assert!(error.text.contains("`shipments`") && error.text.contains("shipment_id"), "{error}");
    assert_eq!(checksums(&database).await, before);
    let stored: Vec<String> = database.rows("SELECT document FROM shipments").await;
    assert_eq!(serde_json::from_str::<Value>(&stored[0]).unwrap(), shipment("o1", &["1"]));
}

/// A resource whose child table takes its rows from one of two lists of a document.
fn things(from: &str) -> String {
    format!(
        "[resource.things]\nid = \"/id\"\n\
         list = {{ path = \"/retailer/shipments\", items = \"\", pages = {{ style = \"none\" }} }}\n\
         [resource.things.table]\nid = \"thing_id\"\n[resource.things.table.columns]\n\
         name = {{ from = \"/name\", type = \"text(64)\" }}\n\
         [resource.things.table.children.thing_parts]\nfrom = \"/{from}\"\n\
         columns = {{ part = {{ from = \"/n\", type = \"integer\" }} }}\n"
    )
}

async fn opened(database: &Database, from: &str) -> Mysql {
    let definitions = definitions(&things(from));
    let mysql = Mysql::new(&database.url().into(), definitions).unwrap();
    mysql.prepare().await.unwrap();
    mysql
}

#[tokio::test]
async fn a_replay_after_a_changed_child_table_leaves_exactly_the_rows_of_the_stored_documents() {
    for change in ["", "ALTER TABLE things ADD SYSTEM VERSIONING", "ALTER TABLE thing_parts ADD SYSTEM VERSIONING"] {
        let database = Database::fresh().await;
        if !change.is_empty() && !database.is_mariadb().await {
            continue;
        }
        let mysql = opened(&database, "old").await;
        let parts = |numbers: std::ops::Range<u64>| numbers.map(|n| json!({"n": n})).collect::<Vec<_>>();
        let entries = (0..60u64).map(|n| {
            let body = json!({"name": "x", "old": parts(0..n % 4), "new": parts(100..100 + n % 5)});
            let id = format!("{n:03}");
            Entry::Document(Document { resource: "things".into(), ..document("s", &id, n + 1, &body) })
        });
        mysql.write(&entries.collect::<Vec<_>>()).await.unwrap();
        mysql.disconnect().await.unwrap();
        database.run("ALTER TABLE thing_parts ADD note VARCHAR(20) NULL DEFAULT 'kept'").await;
        if !change.is_empty() {
            database.run(change).await;
        }
        database.run("UPDATE thing_parts SET note = 'mine'").await;
        // Holes, rows of another version, and rows far behind.
        database.run("DELETE FROM thing_parts WHERE thing_id = '003' AND position = 0").await;
        database.run("UPDATE thing_parts SET version = 99 WHERE thing_id = '006'").await;
        let far = "INSERT INTO thing_parts (shop_id, thing_id, position, part, version) VALUES ('s', '001', 900, 1, 7)";
        database.run(far).await;

        let mysql = opened(&database, "new").await;
        let scope = ReplayScope { resource: "things", shop: None };
        while !mysql.replay_some(scope, 7).await.unwrap().ended {}
        mysql.disconnect().await.unwrap();
        let rows: Vec<(String, u64, u64, u64)> =
            database.rows("SELECT thing_id, position, part, version FROM thing_parts ORDER BY 1, 2").await;
        let wanted: Vec<_> = (0..60u64)
            .flat_map(|n| (0..n % 5).map(move |position| (format!("{n:03}"), position, 100 + position, n + 1)))
            .collect();
        assert_eq!(rows, wanted, "{change}");
        let mine: Vec<u64> = database.rows("SELECT COUNT(*) FROM thing_parts WHERE note = 'mine'").await;
        // A document without holes keeps the rows at the positions that it had and has.
        let kept: u64 = (0..60u64).filter(|n| ![1, 3].contains(n)).map(|n| (n % 4).min(n % 5)).sum();
        assert_eq!(mine, [kept], "{change}: what people added stays with the rows");
    }
}
