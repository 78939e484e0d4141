//! What `prepare` makes of a database.

use serde_json::{Value, json};
use waybill::sink::{Mysql, SinkErrorClass};

use super::{definitions, entry, open, prepared};
use crate::support::mariadb::Database;

#[tokio::test]
async fn columns_and_indexes_added_later_are_added_to_the_table() {
    let database = Database::fresh().await;
    let old = prepared(&database).await;
    old.write(&[entry("s", "1", 1, &json!({"note": "x".repeat(70), "weight": 1.25}))]).await.unwrap();
    let own = r#"
        [resource.shipments.table]
        indexes = ["order_id", "shipment_date_time", "track_and_trace", "note", "shipment_reference"]
        [resource.shipments.table.columns]
        note = { from = "/note", type = "text(500)" }
        weight = { from = "/weight", type = "decimal(8,3)" }
        ship_to_salutation = { from = "/shipmentDetails/salutation", type = "text(200)" }
        [resource.shipments.table.children.shipment_labels]
        from = "/labels"
        columns = { label = { from = "/label", type = "json" } }
    "#;
    let new = Mysql::new(&database.url().into(), definitions(own)).unwrap();
    new.prepare().await.unwrap();
    new.prepare().await.unwrap();
    let body = json!({"note": "y".repeat(70), "weight": 1.25, "labels": [{"label": [1]}],
        "shipmentDetails": {"salutation": "s".repeat(200)}});
    new.write(&[entry("s", "2", 1, &body)]).await.unwrap();
    let rows: Vec<(String, Option<String>, Option<String>)> =
        database.rows("SELECT shipment_id, note, CAST(weight AS CHAR) FROM shipments ORDER BY shipment_id").await;
    assert_eq!(rows[0], ("1".into(), None, None));
    assert_eq!(rows[1], ("2".into(), Some("y".repeat(70)), Some("1.250".into())));
    let indexes: Vec<String> = database
        .rows("SELECT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND INDEX_NAME IN ('by_note', 'by_shipment_reference')")
        .await;
    assert_eq!(indexes.len(), 2);
    // The old binary goes on beside the new one, and takes nothing away.
    old.prepare().await.unwrap();
    old.write(&[entry("s", "2", 2, &json!({}))]).await.unwrap();
    assert!(database.rows::<(String,)>("SELECT note FROM shipments WHERE shipment_id = '2'").await.len() == 1);
}

#[tokio::test]
async fn tables_with_very_many_texts_still_fit() {
    let database = Database::fresh().await;
    let mut own = String::from("[resource.shipments.table.columns]\n");
    for n in 0..60 {
        own.push_str(&format!("w{n} = {{ from = \"/w{n}\", type = \"text(1000)\" }}\n"));
        own.push_str(&format!("s{n} = {{ from = \"/s{n}\", type = \"text(63)\" }}\n"));
    }
    let mysql = Mysql::new(&database.url().into(), definitions(&own)).unwrap();
    mysql.prepare().await.unwrap();
    let mut body = serde_json::Map::new();
    for n in 0..60 {
        body.insert(format!("w{n}"), json!("\u{1f600}".repeat(1000)));
        body.insert(format!("s{n}"), json!("\u{1f600}".repeat(63)));
    }
    mysql.write(&[entry("s", "1", 1, &Value::Object(body))]).await.unwrap();
    let lengths: Vec<(u64, u64)> = database.rows("SELECT CHAR_LENGTH(w0), CHAR_LENGTH(s59) FROM shipments").await;
    assert_eq!(lengths, [(1000, 63)]);
}

#[tokio::test]
async fn two_processes_may_prepare_at_once() {
    let database = Database::fresh().await;
    let (one, two) = (open(database.url()), open(database.url()));
    let (first, second) = tokio::join!(one.prepare(), two.prepare());
    first.unwrap();
    second.unwrap();
    let migrations: Vec<(u32, String)> =
        database.rows("SELECT number, name FROM waybill_migrations ORDER BY number").await;
    assert_eq!(
        migrations,
        [(1, "waybill_shops".to_owned()), (2, "waybill_checkpoints".to_owned()), (3, "waybill_replays".to_owned())]
    );
}

#[tokio::test]
async fn a_table_of_somebody_else_is_left_alone() {
    let database = Database::fresh().await;
    database.run("CREATE TABLE shipments (x INT)").await;
    let error = open(database.url()).prepare().await.unwrap_err();
    assert_eq!(error.class, SinkErrorClass::Operator);
    assert!(error.text.contains("is not Waybill's"), "{error}");
}

#[tokio::test]
async fn rights_of_an_owner_are_all_there_and_leave_no_trace() {
    let database = Database::fresh().await;
    let rights = open(database.url()).rights().await.unwrap();
    assert!(rights.can_create && rights.can_insert && rights.can_delete && rights.max_allowed_packet > 0);
    assert!(database.rows::<String>("SHOW TABLES").await.is_empty());
}
