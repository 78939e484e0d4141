//! Tables that were made or changed by hand: what would corrupt is refused at the start, what would refuse documents is
//! found by `check`, which tries the writes and leaves nothing behind.

use serde_json::json;
use waybill::domain::Entry;
use waybill::sink::mysql::Severity::{self, Corrupts, Notice, Refuses};
use waybill::sink::{Mysql, SinkErrorClass};

use super::{checksums, entry, open, prepared, shipment};
use crate::support::mariadb::{Database, MariaDb};

/// What is found of the tables, each with its weight.
async fn faults(mysql: &Mysql) -> Vec<(Severity, String)> {
    let inspection = mysql.inspect().await.unwrap();
    inspection.faults.into_iter().map(|fault| (fault.severity, fault.text)).collect()
}

/// The statement that a text says to run.
fn statement(text: &str) -> &str {
    let (_, statement) = text.split_once("run ").unwrap_or_else(|| panic!("no statement in: {text}"));
    statement.split(", once ").next().unwrap().split(", and then ").next().unwrap()
}

const UNKEYED: &str = "ALTER TABLE shipments DROP PRIMARY KEY";

/// Changes that would corrupt, and what is said of each.
fn corrupting() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("ALTER TABLE shipments ENGINE = MyISAM", &["`shipments`", "MyISAM", "no transactions"]),
        ("ALTER TABLE shipment_items ENGINE = MyISAM", &["`shipment_items`", "MyISAM"]),
        ("ALTER TABLE waybill_shops ENGINE = MyISAM", &["`waybill_shops`", "MyISAM"]),
        (UNKEYED, &["`shipments`", "no primary key", "twice"]),
        (
            "ALTER TABLE shipments DROP PRIMARY KEY, ADD PRIMARY KEY (shop_id, shipment_id, fetched_at)",
            &["`shipments`", "`fetched_at`", "distinguished by"],
        ),
        (
            "ALTER TABLE shipments DROP PRIMARY KEY, ADD PRIMARY KEY (shipment_id)",
            &["(`shipment_id`)", "distinguished by"],
        ),
        (
            "ALTER TABLE shipments DROP PRIMARY KEY, ADD PRIMARY KEY (shop_id, shipment_id(8))",
            &["`shipment_id`(8)", "distinguished by"],
        ),
        (
            "ALTER TABLE shipments MODIFY shipment_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL",
            &["`shipment_id`", "utf8mb4_general_ci", "different ids as equal", "verify --mend"],
        ),
        (
            "ALTER TABLE shipment_items MODIFY shop_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL",
            &["`shipment_items`", "`shop_id`", "utf8mb4_unicode_ci"],
        ),
    ]
}

#[tokio::test]
async fn a_table_that_would_merge_or_tear_documents_is_refused_with_the_statement_that_repairs_it() {
    for (change, says) in corrupting() {
        let database = Database::fresh().await;
        prepared(&database).await.disconnect().await.unwrap();
        assert_eq!(faults(&open(database.url())).await, [], "as made");
        database.run(change).await;
        let mysql = open(database.url());
        let found = faults(&mysql).await;
        let reported: Vec<&String> =
            found.iter().filter(|(weight, _)| *weight == Corrupts).map(|(_, text)| text).collect();
        assert_eq!(reported.len(), 1, "{change}: {found:?}");
        for part in says {
            assert!(reported[0].contains(part), "`{part}` is not in: {}", reported[0]);
        }
        let error = mysql.prepare().await.unwrap_err();
        assert_eq!((error.class, &error.text), (SinkErrorClass::Operator, reported[0]), "{change}");
        database.run(statement(reported[0])).await;
        mysql.prepare().await.unwrap();
        assert_eq!(faults(&mysql).await, [], "{change}");
    }
}

/// Changes by which documents are refused, and what is said of each.
fn refusing() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("ALTER TABLE shipments ADD UNIQUE u (order_id(20), shop_id)", &["`u`", "unique", "`order_id`(20)"]),
        ("ALTER TABLE shipment_items ADD UNIQUE u (ean)", &["`shipment_items`", "`u`", "(`ean`)"]),
        ("ALTER TABLE shipments ADD mine INT NOT NULL", &["`mine`", "NOT NULL", "no default"]),
        ("ALTER TABLE shipments MODIFY order_id VARCHAR(64) NOT NULL", &["`order_id`", "NOT NULL", "parked"]),
        (
            "ALTER TABLE shipments MODIFY shipment_reference TEXT CHARACTER SET utf8mb3 NULL",
            &["`shipment_reference`", "utf8mb3", "every character"],
        ),
    ]
}

#[tokio::test]
async fn a_table_that_refuses_documents_is_found_with_the_statement_that_repairs_it() {
    for (change, says) in refusing() {
        let database = Database::fresh().await;
        prepared(&database).await.disconnect().await.unwrap();
        database.run(change).await;
        let mysql = open(database.url());
        mysql.prepare().await.unwrap();
        let found = faults(&mysql).await;
        let (_, reported) =
            found.iter().find(|(_, text)| text.contains("run ")).unwrap_or_else(|| panic!("{change}: {found:?}"));
        assert!(found.iter().any(|(weight, _)| *weight == Refuses), "{change}: {found:?}");
        for part in says {
            assert!(reported.contains(part), "`{part}` is not in: {reported}");
        }
        database.run(statement(reported)).await;
        assert_eq!(faults(&mysql).await, [], "{change}");
    }
}

#[tokio::test]
async fn a_rolled_back_write_finds_what_inspection_cannot() {
    for (change, weight, says) in [
        (
            "CREATE TRIGGER t BEFORE INSERT ON shipments FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed'",
            Refuses,
            "1644",
        ),
        (
            "CREATE TRIGGER t BEFORE UPDATE ON shipment_items FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed'",
            Refuses,
            "1644",
        ),
        (
            "CREATE TRIGGER t BEFORE DELETE ON shipment_items FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'closed'",
            Refuses,
            "1644",
        ),
        ("ALTER TABLE shipments ADD CONSTRAINT odd CHECK (version > 9)", Refuses, "odd"),
        ("ALTER TABLE shipments ADD CONSTRAINT odd CHECK (order_id LIKE 'A%')", Notice, "odd"),
        ("ALTER TABLE shipments ADD gen INT AS (1) STORED", Notice, ""),
    ] {
        let database = Database::fresh().await;
        let mysql = prepared(&database).await;
        mysql.write(&[entry("s", "1", 20, &shipment("A1", &["1"]))]).await.unwrap();
        database.run(change).await;
        let before = checksums(&database).await;
        let inspection = mysql.inspect().await.unwrap();
        let tried: Vec<_> = inspection.faults.iter().filter(|fault| fault.text.contains("MySQL error")).collect();
        if says.is_empty() {
            assert_eq!((inspection.faults.len(), inspection.written), (0, vec!["shipments".to_owned()]), "{change}");
        } else {
            assert_eq!(tried.len(), 1, "{change}: {:?}", inspection.faults);
            assert_eq!(tried[0].severity, weight, "{change}: {:?}", inspection.faults);
            assert!(tried[0].text.contains(says), "{change}: {}", tried[0].text);
        }
        assert_eq!(checksums(&database).await, before, "{change}");
    }
}

#[tokio::test]
async fn a_trial_write_skips_tables_without_transactions() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    database.run("CREATE TABLE audit (n INT) ENGINE = MyISAM").await;
    database.run("CREATE TRIGGER t AFTER INSERT ON shipments FOR EACH ROW INSERT INTO audit VALUES (1)").await;
    let found = faults(&mysql).await;
    assert!(found.iter().all(|(weight, _)| *weight == Notice), "{found:?}");
    assert!(found.iter().any(|(_, text)| text.contains("not tried")), "{found:?}");
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM audit").await, [0]);
    // Nor a table that has none.
    database.run("DROP TRIGGER t").await;
    database.run("ALTER TABLE shipment_items ENGINE = MyISAM").await;
    let inspection = mysql.inspect().await.unwrap();
    assert_eq!(inspection.written, [""; 0]);
    assert_eq!(database.rows::<u64>("SELECT COUNT(*) FROM shipment_items").await, [0]);
}

#[tokio::test]
async fn harmless_additions_are_no_faults() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let mut changes = vec![
        "ALTER TABLE shipments ADD UNIQUE wider (shop_id, shipment_id, order_id(20))",
        "ALTER TABLE shipments ADD note TEXT NULL, ADD seen INT NOT NULL DEFAULT 0, ADD KEY by_note (note(10))",
        "ALTER TABLE shipments DROP PRIMARY KEY, ADD PRIMARY KEY (shipment_id, shop_id)",
        "ALTER TABLE shipment_items PARTITION BY KEY (shop_id) PARTITIONS 3",
    ];
    if database.is_mariadb().await {
        changes.push("ALTER TABLE shipments ADD SYSTEM VERSIONING");
        changes.push("ALTER TABLE shipment_transport_events ADD s TIMESTAMP(6) GENERATED ALWAYS AS ROW START, ADD e TIMESTAMP(6) GENERATED ALWAYS AS ROW END, ADD PERIOD FOR SYSTEM_TIME(s, e), ADD SYSTEM VERSIONING");
    }
    for change in changes {
        database.run(change).await;
        assert_eq!(faults(&mysql).await, [], "{change}");
        open(database.url()).prepare().await.unwrap();
    }
    mysql.write(&[entry("s", "1", 1, &shipment("o", &["1"])), entry("s", "2", 1, &json!({}))]).await.unwrap();
}

#[tokio::test]
async fn a_read_only_server_and_a_user_without_rights_are_found() {
    let server = MariaDb::start();
    let database = Database::on(&server.url()).await;
    prepared(&database).await;
    database.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'").await;
    database.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON `{}`.* TO app@'127.0.0.1'", database.name)).await;
    let app = open(database.url_of("app:geheim"));
    assert_eq!(app.inspect().await.unwrap().written, ["shipments"]);
    database.run("SET GLOBAL read_only = 1").await;
    let found = faults(&app).await;
    assert!(found.iter().any(|(weight, text)| *weight == Refuses && text.contains("1290")), "{found:?}");
    database.run("SET GLOBAL read_only = 0").await;
    database.run(&format!("REVOKE DELETE ON `{}`.* FROM app@'127.0.0.1'", database.name)).await;
    let found = faults(&open(database.url_of("app:geheim"))).await;
    assert!(found.iter().any(|(weight, text)| *weight == Refuses && text.contains("1142")), "{found:?}");
    let entries: Vec<Entry> = Vec::new();
    app.write(&entries).await.unwrap();
}
