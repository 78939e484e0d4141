//! The MySQL sink against a real server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use waybill::catalog::definition::FilterTarget;
use waybill::catalog::{self, Definition, RuleTable};
use waybill::domain::clock::Millis;
use waybill::domain::{Checkpoint, Combination, Document, Entry, Shop, ShopState, StreamId};
use waybill::sink::{ListQuery, Mysql, SinkErrorClass};

use crate::support::mariadb::{Database, MariaDb};

/// 2026-11-22T00:00:00Z
const NOW: Millis = 1_795_305_600_000;

fn definitions(own: &str) -> Vec<Arc<Definition>> {
    let rules = RuleTable::build([&catalog::source_defaults().unwrap().limits]).unwrap();
    let own: toml::Table = toml::from_str(own).unwrap();
    let own = own.get("resource").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    catalog::resources(&["shipments".to_owned()], &own, &rules).unwrap()
}

fn open(url: String) -> Mysql {
    Mysql::new(&url.into(), definitions("")).unwrap()
}

async fn prepared(database: &Database) -> Mysql {
    let mysql = open(database.url());
    mysql.prepare().await.unwrap();
    mysql
}

fn combination() -> Combination {
    Combination(vec![("fulfilment-method".to_owned(), "FBR".to_owned())])
}

fn document(shop: &str, id: &str, version: u64, body: &Value) -> Document {
    Document {
        shop: shop.to_owned(),
        resource: "shipments".to_owned(),
        combination: combination(),
        id: id.to_owned(),
        version,
        fetched_at: NOW + i64::try_from(version).unwrap(),
        first_listed_at: NOW,
        row_hash: u64::MAX,
        document_hash: version,
        run: None,
        body: Bytes::from(body.to_string()),
    }
}

fn entry(shop: &str, id: &str, version: u64, body: &Value) -> Entry {
    Entry::Document(document(shop, id, version, body))
}

fn note(shop: &str, id: &str, version: u64, gone: Option<Millis>) -> Entry {
    Entry::Listing {
        shop: shop.to_owned(),
        resource: "shipments".to_owned(),
        id: id.to_owned(),
        version,
        no_longer_listed_at: gone,
    }
}

/// A document with one child row an EAN.
fn shipment(order: &str, eans: &[&str]) -> Value {
    let items: Vec<Value> = eans.iter().map(|ean| json!({"orderItemId": "1", "product": {"ean": ean}})).collect();
    json!({"shipmentDateTime": "2026-11-20T10:00:00+01:00", "order": {"orderId": order}, "shipmentItems": items})
}

async fn eans(database: &Database, id: &str) -> Vec<String> {
    database.rows(&format!("SELECT ean FROM shipment_items WHERE shipment_id = '{id}' ORDER BY position")).await
}

async fn checksums(database: &Database) -> Vec<(String, Option<u64>)> {
    database
        .rows("CHECKSUM TABLE shipments, shipment_items, shipment_transport_events, waybill_shops, waybill_checkpoints")
        .await
}

async fn class_of(mysql: &Mysql, entries: &[Entry]) -> SinkErrorClass {
    mysql.write(entries).await.unwrap_err().class
}

#[tokio::test]
async fn odd_values_survive_byte_for_byte() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let long = "é".repeat(32_000);
    let odd = [
        "\u{1f600}\u{1f468}\u{200d}\u{1f469}",
        "\u{0}",
        "'; DROP TABLE shipments; --",
        "\" OR 1=1 ? :name %s {{7*7}}",
        "a\r\nX: y\t\\",
        " trailing ",
        "\u{202e}rtl",
        "e\u{301} \u{e9}",
        long.as_str(),
    ];
    let mut entries = Vec::new();
    let mut bodies = Vec::new();
    for (index, text) in odd.iter().enumerate() {
        let body = format!(
            "{{ \"shipmentReference\" :{}, \"n\": 18446744073709551615, \"big\":123456789012345678901234567890.50, \"unknown\":[1,{{}}] }}",
            json!(text)
        );
        let mut document = document("s", &format!("id{index}"), 1, &Value::Null);
        document.body = Bytes::from(body.clone());
        entries.push(Entry::Document(document));
        bodies.push(body);
    }
    mysql.write(&entries).await.unwrap();
    for (index, text) in odd.iter().enumerate() {
        let item = mysql.get("shipments", "s", &format!("id{index}")).await.unwrap().unwrap();
        assert_eq!(item.document, bodies[index].as_bytes());
        let column = item.columns.iter().find(|(name, _)| name == "shipment_reference").unwrap();
        assert_eq!(column.1, json!(text));
        let stored: Vec<Vec<u8>> =
            database.rows(&format!("SELECT shipment_reference FROM shipments WHERE shipment_id = 'id{index}'")).await;
        assert_eq!(stored, [text.as_bytes()]);
    }
}

#[tokio::test]
async fn ids_that_a_collation_would_merge_stay_apart() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let ids = ["a", "A", "é", "e", "e\u{301}", "😀", "😁", "ß", "ss", "a\u{0}", "a\t", " a", "1", "01", "1.0"];
    let entries: Vec<Entry> = ids.iter().map(|id| entry("s", id, 1, &shipment(id, &[id]))).collect();
    mysql.write(&entries).await.unwrap();
    let page = mysql.list("shipments", &ListQuery { limit: 100, ..ListQuery::default() }).await.unwrap();
    let found: BTreeSet<&str> = page.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(found, BTreeSet::from(ids));
    for id in ids {
        let item = mysql.get("shipments", "s", id).await.unwrap().unwrap();
        assert_eq!(item.columns.iter().find(|(name, _)| name == "order_id").unwrap().1, json!(id));
    }
    // Spaces at the end would fall together: refused, one by one.
    for id in ["a ", "", &"x".repeat(129)] {
        assert_eq!(class_of(&mysql, &[entry("s", id, 1, &json!({}))]).await, SinkErrorClass::Poison);
    }
    assert_eq!(mysql.get("shipments", "s", "a ").await.unwrap(), None);
}

#[tokio::test]
async fn writing_a_batch_twice_is_writing_it_once() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let mut entries: Vec<Entry> =
        (0..100).map(|n| entry("s", &format!("{n}"), 5, &shipment("o", &["1", "2"]))).collect();
    entries.push(note("s", "7", 6, Some(NOW)));
    mysql.write(&entries).await.unwrap();
    let once = checksums(&database).await;
    mysql.write(&entries).await.unwrap();
    assert_eq!(checksums(&database).await, once);
    // A repeat of the document alone does not undo the later note.
    mysql.write(&entries[..100]).await.unwrap();
    assert_eq!(checksums(&database).await, once);
    let item = mysql.get("shipments", "s", "7").await.unwrap().unwrap();
    assert_eq!(item.no_longer_listed_at, Some(NOW));
}

#[tokio::test]
async fn an_older_document_never_overwrites_a_newer_one_nor_its_children() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    mysql.write(&[entry("s", "1", 7, &shipment("new", &["n1"]))]).await.unwrap();
    let newest = checksums(&database).await;
    mysql.write(&[entry("s", "1", 6, &shipment("old", &["o1", "o2", "o3"]))]).await.unwrap();
    assert_eq!(checksums(&database).await, newest);
    assert_eq!(eans(&database, "1").await, ["n1"]);
    // Only the time of the first listing may come from an older one.
    let mut early = document("s", "1", 5, &shipment("old", &["o1", "o2"]));
    early.first_listed_at = NOW - 1000;
    mysql.write(&[Entry::Document(early)]).await.unwrap();
    let item = mysql.get("shipments", "s", "1").await.unwrap().unwrap();
    assert_eq!((item.version, item.first_listed_at, item.fetched_at), (7, NOW - 1000, NOW + 7));
    assert_eq!(eans(&database, "1").await, ["n1"]);
}

#[tokio::test]
async fn children_that_vanished_from_the_document_go() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    mysql
        .write(&[entry("s", "1", 1, &shipment("o", &["1", "2", "3"])), entry("s", "2", 1, &shipment("o", &["4"]))])
        .await
        .unwrap();
    mysql.write(&[entry("s", "1", 2, &shipment("o", &["3"]))]).await.unwrap();
    assert_eq!(eans(&database, "1").await, ["3"]);
    mysql.write(&[entry("s", "1", 3, &shipment("o", &[]))]).await.unwrap();
    assert!(eans(&database, "1").await.is_empty());
    assert_eq!(eans(&database, "2").await, ["4"]);
}

#[tokio::test]
async fn of_two_readings_in_one_batch_the_newer_stays() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let mut early = document("s", "1", 1, &shipment("old", &["1", "2"]));
    early.first_listed_at = NOW - 5;
    let batch = [entry("s", "1", 3, &shipment("new", &["3"])), note("s", "1", 2, Some(NOW)), Entry::Document(early)];
    mysql.write(&batch).await.unwrap();
    let item = mysql.get("shipments", "s", "1").await.unwrap().unwrap();
    assert_eq!((item.version, item.first_listed_at, item.no_longer_listed_at), (3, NOW - 5, None));
    assert_eq!(eans(&database, "1").await, ["3"]);
}

#[tokio::test]
async fn a_note_about_the_listing_loses_against_a_newer_reading() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let gone = async || mysql.get("shipments", "s", "1").await.unwrap().unwrap().no_longer_listed_at;
    mysql.write(&[entry("s", "1", 5, &shipment("o", &[])), note("s", "1", 4, Some(NOW))]).await.unwrap();
    assert_eq!(gone().await, None);
    mysql.write(&[note("s", "1", 6, Some(NOW))]).await.unwrap();
    assert_eq!(gone().await, Some(NOW));
    mysql.write(&[note("s", "1", 7, None)]).await.unwrap();
    assert_eq!(gone().await, None);
    mysql.write(&[note("s", "1", 8, Some(NOW)), entry("s", "1", 9, &shipment("o", &[]))]).await.unwrap();
    assert_eq!(gone().await, None);
    mysql.write(&[note("s", "no such", 8, Some(NOW))]).await.unwrap();
    assert_eq!(mysql.get("shipments", "s", "no such").await.unwrap(), None);
}

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
    assert_eq!(migrations, [(1, "waybill_shops".to_owned()), (2, "waybill_checkpoints".to_owned())]);
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
async fn poison_is_classed_and_leaves_nothing_of_its_batch() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let good = entry("s", "good", 1, &shipment("o", &["1"]));
    for body in ["", "{", "{\"a\":1e999}", "\u{feff}{}", "{\"a\":\"\\ud800\"}"] {
        let mut bad = document("s", "bad", 1, &Value::Null);
        bad.body = Bytes::from(body);
        let error = mysql.write(&[good.clone(), Entry::Document(bad)]).await.unwrap_err();
        assert_eq!(error.class, SinkErrorClass::Poison, "{body}");
        assert!(error.text.contains("bad"), "{error}");
    }
    // Refused by the server itself: MariaDB takes no JSON deeper than 32.
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    let mut bad = document("s", "bad", 1, &Value::Null);
    bad.body = Bytes::from(deep);
    assert_eq!(class_of(&mysql, &[good.clone(), Entry::Document(bad)]).await, SinkErrorClass::Poison);
    let mut unknown = document("s", "bad", 1, &json!({}));
    unknown.resource = "nobody".into();
    assert_eq!(class_of(&mysql, &[good.clone(), Entry::Document(unknown)]).await, SinkErrorClass::Poison);
    assert_eq!(mysql.get("shipments", "s", "good").await.unwrap(), None);
    mysql.write(&[good]).await.unwrap();
    assert!(mysql.get("shipments", "s", "good").await.unwrap().is_some());
}

#[tokio::test]
async fn a_dropped_table_is_the_operators() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    database.run("DROP TABLE shipment_items").await;
    assert_eq!(class_of(&mysql, &[entry("s", "1", 1, &shipment("o", &["1"]))]).await, SinkErrorClass::Operator);
    let none = Mysql::new(&database.url_of("nobody").into(), definitions("")).unwrap();
    assert_eq!(none.ping().await.unwrap_err().class, SinkErrorClass::Operator);
}

#[tokio::test]
async fn a_lock_wait_is_repeated() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let one = entry("s", "1", 1, &shipment("o", &["1"]));
    mysql.write(std::slice::from_ref(&one)).await.unwrap();
    let mut conn = database.conn().await;
    use mysql_async::prelude::Queryable;
    conn.query_drop("SET GLOBAL innodb_lock_wait_timeout = 1").await.unwrap();
    conn.query_drop("START TRANSACTION").await.unwrap();
    conn.query_drop("UPDATE shipments SET row_hash = 1").await.unwrap();
    let fresh = open(database.url());
    assert_eq!(class_of(&fresh, std::slice::from_ref(&one)).await, SinkErrorClass::Repeat);
    conn.query_drop("ROLLBACK").await.unwrap();
    conn.query_drop("SET GLOBAL innodb_lock_wait_timeout = DEFAULT").await.unwrap();
    fresh.write(&[one]).await.unwrap();
    conn.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_dead_or_read_only_server_is_disconnected_and_heals() {
    let mut server = MariaDb::start();
    let database = Database::on(&server.url()).await;
    let mysql = prepared(&database).await;
    let batch = |version| [entry("s", "1", version, &shipment("o", &["1"]))];
    mysql.write(&batch(1)).await.unwrap();

    server.kill();
    assert_eq!(class_of(&mysql, &batch(2)).await, SinkErrorClass::Disconnected);
    assert_eq!(mysql.ping().await.unwrap_err().class, SinkErrorClass::Disconnected);
    server.run();
    mysql.write(&batch(2)).await.unwrap();

    // Somebody ends the connection under us.
    database.run("SET @own = CONNECTION_ID(); BEGIN NOT ATOMIC FOR c IN (SELECT id FROM information_schema.PROCESSLIST WHERE id <> @own AND command = 'Sleep') DO KILL c.id; END FOR; END").await;
    if let Err(error) = mysql.write(&batch(3)).await {
        assert_eq!(error.class, SinkErrorClass::Disconnected);
    }
    mysql.write(&batch(3)).await.unwrap();

    // A read-only server, met without the right to pass over it. The data directory knows no roles,
    // so the user is made here.
    database.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'").await;
    database.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{}`.* TO app@'127.0.0.1'", database.name)).await;
    let app = open(database.url_of("app:geheim"));
    // Nothing is missing, so it needs no rights for DDL.
    app.prepare().await.unwrap();
    let rights = app.rights().await.unwrap();
    assert!(!rights.can_create && rights.can_insert && rights.can_delete, "{rights:?}");
    assert!(rights.server_version.contains("MariaDB") && rights.sql_mode.contains("STRICT_ALL_TABLES"));
    app.write(&batch(4)).await.unwrap();
    let before = sessions(&database, "app").await;
    database.run("SET GLOBAL read_only = 1").await;
    assert_eq!(class_of(&app, &batch(5)).await, SinkErrorClass::Disconnected);
    let after = sessions(&database, "app").await;
    assert!(before.intersection(&after).count() < before.len(), "the connection is still there: {before:?} {after:?}");
    database.run("SET GLOBAL read_only = 0").await;
    app.write(&batch(5)).await.unwrap();

    // A document larger than the server's packet is the document's fault, not the connection's.
    database.run("SET GLOBAL max_allowed_packet = 1048576").await;
    let small = open(database.url());
    let large = json!({"shipmentReference": "x", "blob": "y".repeat(1_200_000)});
    let error = small.write(&[entry("s", "large", 1, &large)]).await.unwrap_err();
    assert_eq!(error.class, SinkErrorClass::Poison);
    assert!(error.text.contains("large") && error.text.contains("max_allowed_packet"), "{error}");
    // Many of middle size are cut into statements that fit.
    let middle: Vec<Entry> =
        (0..40).map(|n| entry("s", &format!("m{n}"), 1, &json!({"blob": "z".repeat(100_000)}))).collect();
    small.write(&middle).await.unwrap();
    small.disconnect().await.unwrap();
    assert_eq!(small.ping().await.unwrap_err().class, SinkErrorClass::Disconnected);
}

async fn sessions(database: &Database, user: &str) -> BTreeSet<u64> {
    let text = format!("SELECT id FROM information_schema.PROCESSLIST WHERE user = '{user}'");
    database.rows::<u64>(&text).await.into_iter().collect()
}

#[tokio::test]
async fn rights_of_an_owner_are_all_there_and_leave_no_trace() {
    let database = Database::fresh().await;
    let rights = open(database.url()).rights().await.unwrap();
    assert!(rights.can_create && rights.can_insert && rights.can_delete && rights.max_allowed_packet > 0);
    assert!(database.rows::<String>("SHOW TABLES").await.is_empty());
}

#[tokio::test]
async fn pages_of_the_listing_add_up_to_the_set() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let mut want = BTreeSet::new();
    let mut entries = Vec::new();
    for shop in ["a", "A", "b", "é"] {
        for n in 0..83 {
            let id = format!("{n}");
            entries.push(entry(shop, &id, 1, &shipment(&format!("o{n}"), &["1"])));
            want.insert((shop.to_owned(), id));
        }
    }
    mysql.write(&entries).await.unwrap();
    for limit in [1, 7, 83, 332, 500] {
        let mut query = ListQuery { limit, ..ListQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = mysql.list("shipments", &query).await.unwrap();
            assert!(page.items.len() <= limit);
            seen.extend(page.items.into_iter().map(|item| (item.shop_id, item.id)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), want.len());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), want);
    }
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let at = |time: &str, order: &str, ean: &str, name: &str| {
        json!({"shipmentDateTime": time, "order": {"orderId": order}, "shipmentItems": [{"product": {"ean": ean}}],
            "shipmentDetails": {"surname": name}})
    };
    mysql
        .write(&[
            entry("s", "1", 1, &at("2026-11-22T01:00:00+01:00", "o1", "ean1", "Jansen")),
            entry("s", "2", 1, &at("2026-11-22T01:00:00.001+01:00", "O1", "ean2", "50%_Müller")),
            entry("t", "3", 1, &at("2026-11-23T00:00:00Z", "o2", "ean1", "de Vries")),
        ])
        .await
        .unwrap();
    let find = async |change: &dyn Fn(&mut ListQuery)| {
        let mut query = ListQuery { limit: 10, ..ListQuery::default() };
        change(&mut query);
        let page = mysql.list("shipments", &query).await.unwrap();
        page.items.into_iter().map(|item| item.id).collect::<Vec<_>>().join(",")
    };
    let column = |name: &str| FilterTarget::Column(name.to_owned());
    let ean = || FilterTarget::Child { table: "shipment_items".to_owned(), column: "ean".to_owned() };
    assert_eq!(find(&|_| ()).await, "1,2,3");
    assert_eq!(find(&|q| q.shop = Some("t".into())).await, "3");
    assert_eq!(find(&|q| q.shops = Some(vec!["s".into(), "x".into()])).await, "1,2");
    assert_eq!(find(&|q| q.shops = Some(Vec::new())).await, "");
    assert_eq!(
        find(&|q| {
            q.shops = Some(vec!["s".into()]);
            q.shop = Some("t".into());
        })
        .await,
        ""
    );
    assert_eq!(find(&|q| q.filters = vec![(column("order_id"), "o1".into())]).await, "1");
    assert_eq!(find(&|q| q.filters = vec![(column("order_id"), "o1' OR '1'='1".into())]).await, "");
    assert_eq!(find(&|q| q.filters = vec![(column("ship_to_surname"), "jansen".into())]).await, "");
    assert_eq!(find(&|q| q.filters = vec![(ean(), "ean1".into())]).await, "1,3");
    assert_eq!(find(&|q| q.filters = vec![(ean(), "ean1".into()), (column("order_id"), "o2".into())]).await, "3");
    assert_eq!(find(&|q| q.filters = vec![(column("fulfilment_method"), "FBR".into())]).await, "1,2,3");
    assert_eq!(find(&|q| q.from = Some(NOW + 1)).await, "2,3");
    assert_eq!(find(&|q| q.to = Some(NOW + 1)).await, "1");
    assert_eq!(find(&|q| q.q = Some("JANS".into())).await, "1");
    assert_eq!(find(&|q| q.q = Some("o1".into())).await, "1,2");
    assert_eq!(find(&|q| q.q = Some("0%_m".into())).await, "2");
    assert_eq!(find(&|q| q.q = Some("%".into())).await, "2");
    assert_eq!(find(&|q| q.q = Some("!".into())).await, "");
}

#[tokio::test]
async fn shops_and_checkpoints_are_mirrored_and_read_back() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let stream = StreamId { shop: "s".to_owned(), resource: "shipments".to_owned(), combination: combination() };
    let checkpoint = |walked_at, full_walk_at, newest| Entry::Checkpoint {
        stream: stream.clone(),
        checkpoint: Checkpoint { walked_at, full_walk_at, newest },
    };
    let shop = |updated_at: Millis, name: &str| Shop {
        id: "s".to_owned(),
        name: name.to_owned(),
        client_id: "c".to_owned(),
        account: "c".to_owned(),
        resources: vec!["shipments".to_owned()],
        state: ShopState::Refused,
        reason: Some("refused".to_owned()),
        created_at: NOW,
        updated_at,
    };
    let sealed = vec![0u8, 255, 39, 92];
    let put = |shop: Shop| Entry::Shop { shop, sealed: sealed.clone() };
    mysql.write(&[put(shop(NOW + 1, "new 😀")), checkpoint(Some(5), None, None)]).await.unwrap();
    mysql.write(&[put(shop(NOW, "old")), checkpoint(Some(4), Some(9), None)]).await.unwrap();
    assert_eq!(mysql.shops().await.unwrap(), [(shop(NOW + 1, "new 😀"), sealed.clone())]);
    let want = Checkpoint { walked_at: Some(5), full_walk_at: Some(9), newest: None };
    assert_eq!(mysql.checkpoints().await.unwrap(), [(stream.clone(), want)]);

    mysql.write(&[entry("s", "1", 3, &json!({})), entry("s", "2", 4, &json!({}))]).await.unwrap();
    let rows = mysql.ledger("shipments", None, 1).await.unwrap();
    assert_eq!((rows.len(), rows[0].id.as_str(), rows[0].version, rows[0].row_hash), (1, "1", 3, u64::MAX));
    assert_eq!(rows[0].combination, combination());
    let rows = mysql.ledger("shipments", Some(&("s".to_owned(), "1".to_owned())), 5).await.unwrap();
    assert_eq!((rows.len(), rows[0].document_hash), (1, 4));
}

#[tokio::test]
async fn a_deleted_shop_keeps_its_rows_unless_they_are_purged() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let write = |id: &str| entry("s", id, 1, &shipment("o", &["1", "2"]));
    mysql.write(&[write("1"), entry("other", "1", 1, &shipment("o", &["3"]))]).await.unwrap();
    let deleted = |purge| Entry::ShopDeleted { shop: "s".to_owned(), purge };
    mysql.write(&[write("2"), deleted(false)]).await.unwrap();
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipments").await, [3]);
    // What the same batch wrote before the purge goes too.
    mysql.write(&[write("3"), note("s", "1", 2, Some(NOW)), deleted(true)]).await.unwrap();
    let left: Vec<(String, String)> =
        database.rows("SELECT 'p', shop_id FROM shipments UNION ALL SELECT 'c', shop_id FROM shipment_items").await;
    assert_eq!(left, [("p".to_owned(), "other".to_owned()), ("c".to_owned(), "other".to_owned())]);
}

/// Prints what a batch costs; asserts no times.
#[tokio::test]
async fn five_hundred_at_a_time_are_written_whole() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let event = json!({"eventCode": "DELIVERED_AT_CUSTOMER", "eventDateTime": "2026-11-20T10:00:00+01:00"});
    let item = json!({"orderItemId": "1", "product": {"ean": "8712345678906", "title": "T".repeat(60)}, "quantity": 1,
        "unitPrice": 12.99, "commission": 5.18, "offer": {"offerId": "6ff736b5-cdd0-4150-8c67-78269ee986f5"}});
    let person = json!({"salutation": "MALE", "firstName": "Jan", "surname": "Jansen", "streetName": "Dorpstraat",
        "houseNumber": "1", "zipCode": "1111ZZ", "city": "Utrecht", "countryCode": "NL", "email": "x".repeat(60)});
    let body = json!({"shipmentDateTime": "2026-11-20T10:00:00+01:00", "shipmentReference": "r", "pickupPoint": true,
        "order": {"orderId": "A1", "orderPlacedDateTime": "2026-11-19T10:00:00+01:00"},
        "shipmentItems": [item, item], "shipmentDetails": person, "billingDetails": person,
        "transport": {"transportId": "1", "transporterCode": "TNT", "trackAndTrace": "3SBOL", "transportEvents": [event]},
        "filler": "z".repeat(500)});
    for version in 1..=2 {
        let start = Instant::now();
        for batch in 0..8 {
            let entries: Vec<Entry> =
                (0..500).map(|n| entry("s", &format!("{batch:02}{n:03}"), version, &body)).collect();
            mysql.write(&entries).await.unwrap();
        }
        println!(
            "version {version}: {:.0} us a document of {} bytes",
            start.elapsed().as_secs_f64() * 250.0,
            body.to_string().len()
        );
    }
    let counts: Vec<(u64, u64)> = database
        .rows("SELECT (SELECT COUNT(*) FROM shipments WHERE version = 2), (SELECT COUNT(*) FROM shipment_items)")
        .await;
    assert_eq!(counts, [(4000, 8000)]);
}
