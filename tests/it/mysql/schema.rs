//! What `prepare` makes of a database.

use serde_json::{Value, json};
use waybill::domain::{Auth, SourceOrigin, SourceUrl};
use waybill::sink::mysql::{SourceClaim, own_ddl};
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
    let names = [
        (1, "waybill_shops"),
        (2, "waybill_checkpoints"),
        (3, "waybill_replays"),
        (4, "waybill_fences"),
        (5, "waybill_register"),
        (6, "waybill_handover"),
        (7, "waybill_installation"),
    ];
    assert_eq!(migrations, names.map(|(number, name)| (number, name.to_owned())));
}

#[tokio::test]
async fn a_schema_from_before_the_register_gets_what_it_lacks() {
    let database = Database::fresh().await;
    let is_later = |statement: &String| {
        ["waybill_fences", "waybill_register", "waybill_handover"].iter().any(|table| statement.contains(table))
    };
    for statement in own_ddl().into_iter().filter(|statement| !is_later(statement)) {
        database.run(&statement).await;
    }
    let numbers = async || database.rows::<u32>("SELECT number FROM waybill_migrations ORDER BY number").await;
    assert_eq!(numbers().await, [1, 2, 3, 7]);
    open(database.url()).prepare().await.unwrap();
    assert_eq!(numbers().await, [1, 2, 3, 4, 5, 6, 7]);
    let register = open(database.url()).register();
    register.make().await.unwrap();
    assert!(register.read().await.unwrap().owner.is_some());
}

#[tokio::test]
async fn a_foreign_table_is_left_alone() {
    let database = Database::fresh().await;
    database.run("CREATE TABLE shipments (x INT)").await;
    let error = open(database.url()).prepare().await.unwrap_err();
    assert_eq!(error.class, SinkErrorClass::Operator);
    assert!(error.text.contains("is not Waybill's"), "{error}");
}

#[tokio::test]
async fn probing_the_rights_of_an_owner_finds_all_and_leaves_no_trace() {
    let database = Database::fresh().await;
    let rights = open(database.url()).rights().await.unwrap();
    assert!(rights.lacks_for_rows.is_empty() && rights.lacks_for_tables.is_empty() && rights.max_allowed_packet > 0);
    assert!(rights.missing_tables.contains(&"waybill_shops".to_owned()), "{rights:?}");
    assert!(database.rows::<String>("SHOW TABLES").await.is_empty());
}

/// Columns of the types that a definition may change.
fn typed(database: &Database, columns: &str) -> Mysql {
    let own =
        format!("[resource.shipments.table]\nindexes = [\"note\"]\n[resource.shipments.table.columns]\n{columns}");
    Mysql::new(&database.url().into(), definitions(&own)).unwrap()
}

const NARROW: &str = r#"
    note = { from = "/note", type = "text(10)" }
    price = { from = "/price", type = "decimal(8,3)" }
    sold = { from = "/sold", type = "integer" }
    day = { from = "/day", type = "date" }
    code = { from = "/code", type = "text(10)" }
    raw = { from = "/raw", type = "json" }
"#;

async fn types(database: &Database) -> Vec<(String, String)> {
    let text = "SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND \
                TABLE_NAME = 'shipments' AND COLUMN_NAME IN ('note', 'price', 'sold', 'day', 'code', 'raw') ORDER BY 1";
    database.rows(text).await
}

#[tokio::test]
async fn a_column_is_widened_with_its_definition_where_no_value_can_be_lost() {
    let database = Database::fresh().await;
    let old = typed(&database, NARROW);
    old.prepare().await.unwrap();
    let body = json!({"note": "n", "price": 1.5, "sold": 7, "day": "2026-11-01", "code": "c", "raw": [1]});
    old.write(&[entry("s", "1", 1, &body)]).await.unwrap();
    let wide = NARROW
        .replace("/note\", type = \"text(10)", "/note\", type = \"text(500)")
        .replace("decimal(8,3)", "decimal(12,4)")
        .replace("integer", "decimal(23,4)")
        .replace("\"date\"", "\"datetime\"")
        .replace("/code\", type = \"text(10)", "/code\", type = \"text");
    let new = typed(&database, &wide);
    new.prepare().await.unwrap();
    let made = types(&database).await;
    new.prepare().await.unwrap();
    assert_eq!(types(&database).await, made);
    let kinds: Vec<&str> = made.iter().map(|(_, kind)| kind.as_str()).collect();
    assert_eq!(kinds[..4], ["text", "datetime(6)", "varchar(500)", "decimal(12,4)"]);
    let body = json!({"note": "n".repeat(400), "price": 12_345_678.5, "sold": 7.25, "day": "2026-11-02T10:00:00Z",
        "code": "c".repeat(9_000), "raw": [2]});
    new.write(&[entry("s", "2", 1, &body)]).await.unwrap();
    let text = "SELECT CHAR_LENGTH(note), CAST(price AS CHAR), CAST(sold AS CHAR), CAST(day AS CHAR), CHAR_LENGTH(code) \
                FROM shipments ORDER BY shipment_id";
    let row = |note, price: &str, sold: &str, day: &str, code| (note, price.into(), sold.into(), day.into(), code);
    assert_eq!(
        database.rows::<(u64, String, String, String, u64)>(text).await,
        [
            row(1, "1.5000", "7.0000", "2026-11-01 00:00:00.000000", 1),
            row(400, "12345678.5000", "7.2500", "2026-11-02 10:00:00.000000", 9_000),
        ]
    );
    // What is wider than asked is fine as it is: an older binary beside the new one.
    old.prepare().await.unwrap();
    old.write(&[entry("s", "3", 1, &json!({"note": "x", "sold": 9_000_000_000_000_000_000_u64}))]).await.unwrap();
    assert_eq!(types(&database).await, made);
}

#[tokio::test]
async fn a_change_of_type_that_could_lose_values_is_refused_with_a_remedy() {
    let database = Database::fresh().await;
    let old = typed(&database, NARROW);
    old.prepare().await.unwrap();
    let before = types(&database).await;
    old.write(&[entry("s", "1", 1, &json!({"note": "5", "price": 1, "raw": {"a": 1}}))]).await.unwrap();
    let changed = NARROW
        .replace("/note\", type = \"text(10)", "/note\", type = \"integer")
        .replace("\"json\"", "\"text\"")
        .replace("decimal(8,3)", "decimal(8,4)")
        .replace("\"date\"", "\"datetime\"");
    let new = typed(&database, &changed);
    let error = new.prepare().await.unwrap_err();
    assert_eq!(error.class, SinkErrorClass::Operator);
    let parts = [
        "table `shipments`: column `note` is varchar(10) and the definition asks for bigint",
        "column `price` is decimal(8,3) and the definition asks for decimal(8,4)",
        "column `raw` is json and the definition asks for text",
        "change the definition back, give the column another name, or run",
    ];
    for part in parts {
        assert!(error.text.contains(part), "`{part}` is not in: {error}");
    }
    assert!(!error.text.contains("`day`"), "{error}");
    assert_eq!(types(&database).await, before, "nothing was changed, not even what could be");
    for statement in error.text.split("or run ").skip(1) {
        database.run(statement.split(';').next().unwrap()).await;
    }
    new.prepare().await.unwrap();
    new.write(&[entry("s", "2", 1, &json!({"note": 6, "price": 1.2345, "raw": "no JSON"}))]).await.unwrap();
    let rows: Vec<(i64, String, String)> =
        database.rows("SELECT note, CAST(price AS CHAR), raw FROM shipments ORDER BY shipment_id").await;
    assert_eq!(rows[1], (6, "1.2345".into(), "no JSON".into()));
    assert_eq!(rows[0].0, 5);
}

#[tokio::test]
async fn a_table_whose_id_column_has_another_name_says_so() {
    let database = Database::fresh().await;
    prepared(&database).await.write(&[entry("s", "1", 1, &json!({}))]).await.unwrap();
    let own = "[resource.shipments.table]\nid = \"parcel_id\"\nsearch = [\"order_id\"]\n";
    let new = Mysql::new(&database.url().into(), definitions(own)).unwrap();
    // The table itself, and its children.
    for _ in 0..3 {
        let error = new.prepare().await.unwrap_err();
        assert_eq!(error.class, SinkErrorClass::Operator);
        assert!(error.text.contains("is called `shipment_id` there and `parcel_id` in the definition"), "{error}");
        database.run(error.text.split("or run ").nth(1).unwrap()).await;
    }
    new.prepare().await.unwrap();
    assert_eq!(database.rows::<String>("SELECT parcel_id FROM shipments").await, ["1"]);
}

#[tokio::test]
async fn a_schema_with_rows_of_another_source_is_refused_until_it_was_moved() {
    let database = Database::fresh().await;
    let origin = |name: &str| {
        let url = |host: &str| SourceUrl::parse(&format!("https://{host}.{name}.example"), "").unwrap();
        SourceOrigin::new(&url("api"), &url("login"), &Auth::ClientCredentials)
    };
    let claimed = |name: &str, adopts| open(database.url()).claimed_by(SourceClaim { origin: origin(name), adopts });
    let recorded =
        async || -> Vec<String> { database.rows("SELECT api FROM waybill_installation ORDER BY number").await };
    claimed("one", false).prepare().await.unwrap();
    // It holds nothing yet.
    claimed("two", false).prepare().await.unwrap();
    let shop = "INSERT INTO waybill_shops VALUES ('s', 'n', 'c', 'c', '[]', 'active', NULL, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), '')";
    database.run(shop).await;
    claimed("two", false).prepare().await.unwrap();
    for adopts in [false, true] {
        let other = claimed("one", adopts);
        let error = other.prepare().await.unwrap_err();
        assert_eq!(error.class, SinkErrorClass::Operator);
        let words =
            ["belongs to another source", "https://api.two.example", "https://api.one.example", "waybill source move"];
        assert!(words.iter().all(|word| error.text.contains(word)), "{error}");
        assert_eq!(other.other_source().await.unwrap().unwrap().to_string(), error.text);
    }
    assert_eq!(recorded().await, ["https://api.one.example", "https://api.two.example"]);
    let moved = claimed("one", false);
    moved.move_source().await.unwrap();
    moved.prepare().await.unwrap();
    assert_eq!(moved.sources().await.unwrap().first(), Some(&origin("one")));
    assert_eq!(recorded().await.len(), 3);
    claimed("two", true).prepare().await.unwrap_err();
    // Of an earlier release: only the data directory of its shops may say whose they are.
    database.run("DELETE FROM waybill_installation").await;
    let error = claimed("one", false).prepare().await.unwrap_err();
    assert!(error.text.contains("shops of an earlier release"), "{error}");
    claimed("one", true).prepare().await.unwrap();
    assert_eq!(recorded().await, ["https://api.one.example"]);
}
