//! What a batch leaves in the tables.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use waybill::catalog::extract::Cell;
use waybill::domain::Timestamp;
use waybill::domain::{Checkpoint, Entry, Shop, ShopState, StoredVersion, StreamId};
use waybill::sink::mysql::{LedgerPart, MirroredShop};
use waybill::sink::{ListQuery, Mysql, SinkErrorClass};

use super::{MS, NOW, checksums, class_of, combination, document, eans, entry, note, open, prepared, shipment};
use crate::support::mariadb::Database;

#[tokio::test]
async fn odd_values_survive_byte_for_byte() {
    let database = Database::fresh().await;
    // MySQL keeps JSON in a form of its own: the same values, in an order and a spelling that it chooses.
    let keeps_bytes = database.is_mariadb().await;
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
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(read(&item.document), read(bodies[index].as_bytes()));
        assert!(!keeps_bytes || item.document == bodies[index].as_bytes(), "{text}");
        let column = item.columns.iter().find(|(name, _)| name == "shipment_reference").unwrap();
        assert_eq!(column.1, Cell::Text((*text).to_owned()));
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
        assert_eq!(item.columns.iter().find(|(name, _)| name == "order_id").unwrap().1, Cell::Text((*id).to_owned()));
    }
    // Spaces at the end would fall together: refused, one by one.
    for id in ["a ", "", &"x".repeat(129)] {
        assert_eq!(class_of(&mysql, &[entry("s", id, 1, &json!({}))]).await, SinkErrorClass::Poison);
    }
    assert_eq!(mysql.get("shipments", "s", "a ").await.unwrap(), None);
}

#[tokio::test]
async fn writing_a_batch_twice_changes_nothing() {
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
    early.first_listed_at = NOW - 1000 * MS;
    mysql.write(&[Entry::Document(early)]).await.unwrap();
    let item = mysql.get("shipments", "s", "1").await.unwrap().unwrap();
    assert_eq!((item.version, item.first_listed_at, item.fetched_at), (7, NOW - 1000 * MS, NOW + 7 * MS));
    assert_eq!(eans(&database, "1").await, ["n1"]);
}

#[tokio::test]
async fn child_rows_missing_from_the_document_are_deleted() {
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
    early.first_listed_at = NOW - 5 * MS;
    let batch = [entry("s", "1", 3, &shipment("new", &["3"])), note("s", "1", 2, Some(NOW)), Entry::Document(early)];
    mysql.write(&batch).await.unwrap();
    let item = mysql.get("shipments", "s", "1").await.unwrap().unwrap();
    assert_eq!((item.version, item.first_listed_at, item.no_longer_listed_at), (3, NOW - 5 * MS, None));
    assert_eq!(eans(&database, "1").await, ["3"]);
}

#[tokio::test]
async fn a_listing_note_loses_against_a_newer_document() {
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
async fn concurrent_writers_converge_on_the_newest_version() {
    let database = Database::fresh().await;
    let (one, two) = (prepared(&database).await, open(database.url()));
    let write = async |mysql: &Mysql, version: u64, reverse: bool| {
        let mut entries: Vec<Entry> = (0..120)
            .map(|n| {
                entry(
                    "s",
                    &format!("{n}"),
                    version,
                    &shipment("o", &["1", "2", "3"][..usize::try_from(version % 4).unwrap()]),
                )
            })
            .collect();
        if reverse {
            entries.reverse();
        }
        while let Err(error) = mysql.write(&entries).await {
            // A row that was not there a moment ago, and that the other one inserted meanwhile, is a duplicate.
            assert!(matches!(error.class, SinkErrorClass::Repeat | SinkErrorClass::Unknown), "{error}");
        }
    };
    for round in 0..10 {
        tokio::join!(write(&one, round * 2 + 2, false), write(&two, round * 2 + 1, true));
    }
    let rows: Vec<(u64, u64, u64)> = database.rows("SELECT COUNT(*), MIN(version), MAX(version) FROM shipments").await;
    assert_eq!(rows, [(120, 20, 20)]);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipment_items").await, [0]);
}

#[tokio::test]
async fn shops_and_checkpoints_are_mirrored_and_read_back() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let stream = StreamId { shop: "s".into(), resource: "shipments".to_owned(), combination: combination() };
    let at = Timestamp::from_millis;
    let checkpoint = |walked_at, full_walk_at, newest| Entry::Checkpoint {
        stream: stream.clone(),
        checkpoint: Checkpoint { walked_at, full_walk_at, newest, walked_before: None },
    };
    let shop = |updated_at: Timestamp, name: &str| Shop {
        id: "s".into(),
        name: name.to_owned(),
        client_id: "c".to_owned(),
        account: "c".to_owned(),
        resources: vec!["shipments".to_owned()],
        state: ShopState::Refused,
        reason: Some("the host said so".to_owned()),
        created_at: NOW,
        updated_at,
    };
    let sealed = vec![0u8, 255, 39, 92];
    let put = |shop: Shop| Entry::Shop { shop, sealed: sealed.clone() };
    mysql.write(&[put(shop(NOW + MS, "new 😀")), checkpoint(Some(at(5)), None, None)]).await.unwrap();
    mysql.write(&[put(shop(NOW, "old")), checkpoint(Some(at(4)), Some(at(9)), None)]).await.unwrap();
    // A refusal quotes the login host, whose words stay in the store.
    let reason = "the shop's credentials were refused or cannot be read; resume it, or give it a new secret".to_owned();
    let mirrored = Shop { reason: Some(reason), ..shop(NOW + MS, "new 😀") };
    let row = MirroredShop { shop: mirrored, sealed: sealed.clone(), unreadable: None };
    assert_eq!(mysql.shops().await.unwrap(), [row]);
    let want = Checkpoint { walked_at: Some(at(5)), full_walk_at: Some(at(9)), ..Checkpoint::default() };
    assert_eq!(mysql.checkpoints().await.unwrap(), [(stream.clone(), want)]);

    mysql.write(&[entry("s", "1", 3, &json!({})), entry("s", "2", 4, &json!({}))]).await.unwrap();
    let part = |after, young_since, limit| LedgerPart { resource: "shipments", shop: "s", after, young_since, limit };
    let rows = mysql.ledger(part("", None, 1)).await.unwrap();
    assert_eq!((rows.len(), rows[0].id.as_str(), rows[0].version, rows[0].row_hash), (1, "1", 3, u64::MAX));
    assert_eq!(rows[0].combination, combination());
    let rows = mysql.ledger(part("1", Some(Timestamp::EPOCH), 5)).await.unwrap();
    assert_eq!((rows.len(), rows[0].document_hash, rows[0].document.is_some()), (1, 4, true));
    let held = |id: &str, version| (id.to_owned(), StoredVersion { version, is_listed: true });
    assert_eq!(mysql.held("shipments", "s", "", 5).await.unwrap(), [held("1", 3), held("2", 4)]);
    assert_eq!(mysql.held("shipments", "s", "1", 5).await.unwrap(), [held("2", 4)]);
    assert_eq!(mysql.held("shipments", "other", "", 5).await.unwrap(), []);
}

#[tokio::test]
async fn a_deleted_shop_keeps_its_rows_unless_they_are_purged() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let write = |id: &str| entry("s", id, 1, &shipment("o", &["1", "2"]));
    mysql.write(&[write("1"), entry("other", "1", 1, &shipment("o", &["3"]))]).await.unwrap();
    let deleted = |purge| Entry::ShopDeleted { shop: "s".into(), purge };
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

#[tokio::test]
async fn a_purge_reaches_tables_of_unconfigured_resources() {
    let database = Database::fresh().await;
    let before = prepared(&database).await;
    let body = shipment("1", &["8712626055143"]);
    before.write(&[entry("s", "1", 1, &body), entry("other", "2", 2, &body)]).await.unwrap();
    // A foreign table, with a column of that name; and a view, which has all of our columns.
    database.run("CREATE TABLE notes (shop_id VARCHAR(64), version INT, position INT)").await;
    database.run("INSERT INTO notes VALUES ('s', 1, 1)").await;
    database.run("CREATE VIEW seen AS SELECT * FROM shipments").await;

    let now = Mysql::new(&database.url().into(), Vec::new()).unwrap();
    now.prepare().await.unwrap();
    now.write(&[Entry::ShopDeleted { shop: "s".into(), purge: true }]).await.unwrap();
    for (table, left) in [("shipments", 1), ("shipment_items", 1), ("notes", 1)] {
        let counted: Vec<u64> = database.rows(&format!("SELECT COUNT(*) FROM {table}")).await;
        assert_eq!(counted, [left], "{table}");
    }
}
