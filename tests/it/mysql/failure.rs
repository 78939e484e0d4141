//! What becomes of errors, dead servers and lost races.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use waybill::domain::Entry;
use waybill::sink::mysql::{ddl, own_ddl};
use waybill::sink::{Mysql, SinkErrorClass};

use super::{class_of, definitions, document, eans, entry, open, prepared, shipment};
use crate::support::mariadb::{Database, MariaDb};

#[tokio::test]
async fn poison_is_classed_and_leaves_nothing_of_its_batch() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let good = entry("s", "good", 1, &shipment("o", &["1"]));
    for body in ["", "{", "{\"a\":1e999}", "{\"a\":NaN}"] {
        let mut bad = document("s", "bad", 1, &Value::Null);
        bad.body = Bytes::from(body);
        let error = mysql.write(&[good.clone(), Entry::Document(bad)]).await.unwrap_err();
        assert_eq!(error.class, SinkErrorClass::Poison, "{body}");
        assert!(error.text.contains("bad"), "{error}");
    }
    // Refused by the server itself: MariaDB takes no JSON deeper than 32, MySQL none deeper than 100.
    let deep = format!("{}{}", "[".repeat(110), "]".repeat(110));
    let mut bad = document("s", "bad", 1, &Value::Null);
    bad.body = Bytes::from(deep);
    assert_eq!(class_of(&mysql, &[good.clone(), Entry::Document(bad)]).await, SinkErrorClass::Poison);
    let mut unknown = document("s", "bad", 1, &json!({}));
    unknown.resource = "unknown".into();
    assert_eq!(class_of(&mysql, &[good.clone(), Entry::Document(unknown)]).await, SinkErrorClass::Poison);
    assert_eq!(mysql.get("shipments", "s", "good").await.unwrap(), None);
    mysql.write(&[good]).await.unwrap();
    assert!(mysql.get("shipments", "s", "good").await.unwrap().is_some());
}

#[tokio::test]
async fn a_dropped_table_needs_the_operator() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    database.run("DROP TABLE shipment_items").await;
    assert_eq!(class_of(&mysql, &[entry("s", "1", 1, &shipment("o", &["1"]))]).await, SinkErrorClass::Operator);
    let none = Mysql::new(&database.url_of("unknown").into(), definitions("")).unwrap();
    assert_eq!(none.ping().await.unwrap_err().class, SinkErrorClass::Operator);
}

#[tokio::test]
async fn a_user_without_ddl_rights_can_use_prepared_tables() {
    let server = MariaDb::start();
    let database = Database::on(&server.url()).await;
    database.run("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'geheim'").await;
    database.run(&format!("GRANT SELECT, INSERT, DELETE ON `{}`.* TO app@'127.0.0.1'", database.name)).await;
    let app = open(database.url_of("app:geheim"));
    let rights = app.rights().await.unwrap();
    assert_eq!((&*rights.lacks_for_rows, &*rights.lacks_for_tables), (&["UPDATE"][..], &["CREATE", "ALTER"][..]));
    assert_eq!(rights.missing_tables.len(), 11, "{rights:?}");
    assert_eq!(app.prepare().await.unwrap_err().class, SinkErrorClass::Operator);

    for statement in own_ddl().into_iter().chain(ddl(&definitions("")).unwrap()) {
        database.run(&statement).await;
    }
    database.run(&format!("GRANT UPDATE ON `{}`.* TO app@'127.0.0.1'", database.name)).await;
    let app = open(database.url_of("app:geheim"));
    app.prepare().await.unwrap();
    let rights = app.rights().await.unwrap();
    assert_eq!((rights.lacks_for_rows, rights.missing_tables), (vec![], vec![]));
    app.write(&[entry("s", "1", 1, &shipment("o", &["1"]))]).await.unwrap();
    assert_eq!(eans(&database, "1").await, ["1"]);
}

#[tokio::test]
async fn a_lock_wait_timeout_is_retried() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let one = entry("s", "1", 1, &shipment("o", &["1"]));
    mysql.write(std::slice::from_ref(&one)).await.unwrap();
    let mut conn = database.conn().await;
    conn.query_drop("START TRANSACTION").await.unwrap();
    conn.query_drop("UPDATE shipments SET row_hash = 1").await.unwrap();
    let fresh = open(database.url());
    assert_eq!(class_of(&fresh, std::slice::from_ref(&one)).await, SinkErrorClass::Repeat);
    conn.query_drop("ROLLBACK").await.unwrap();
    fresh.write(&[one]).await.unwrap();
    conn.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_statement_without_an_answer_times_out_within_half_a_minute() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    database.run("CREATE TRIGGER slow BEFORE INSERT ON shipments FOR EACH ROW SET @slept = SLEEP(45)").await;
    let batch = [entry("s", "1", 1, &shipment("o", &["1"])), entry("s", "2", 1, &shipment("o", &["2"]))];
    let begun = Instant::now();
    let error = mysql.write(&batch).await.unwrap_err();
    assert_eq!(error.class, SinkErrorClass::Disconnected);
    assert!(error.text.contains("did not answer within 25 s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    database.run("DROP TRIGGER slow").await;
    // The server notices that no client waits for the statement any more, or ends it; its rows are held until then.
    mysql.ping().await.unwrap();
}

#[tokio::test]
async fn a_locked_table_is_waited_for_and_no_document_is_blamed() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let one = entry("s", "1", 1, &shipment("o", &["1"]));
    let mut conn = database.conn().await;
    conn.query_drop("LOCK TABLES shipments WRITE").await.unwrap();
    assert_eq!(class_of(&mysql, std::slice::from_ref(&one)).await, SinkErrorClass::Repeat);
    conn.query_drop("UNLOCK TABLES").await.unwrap();
    mysql.write(&[one]).await.unwrap();
    conn.disconnect().await.unwrap();
}

#[tokio::test]
async fn a_dead_or_read_only_server_is_disconnected_and_recovers() {
    let mut server = MariaDb::start();
    let database = Database::on(&server.url()).await;
    let mysql = prepared(&database).await;
    let batch = |version| [entry("s", "1", version, &shipment("o", &["1"]))];
    mysql.write(&batch(1)).await.unwrap();

    server.kill();
    // The first finds out; whether before it sends anything, the pool decides.
    let first = class_of(&mysql, &batch(2)).await;
    assert!(matches!(first, SinkErrorClass::Disconnected | SinkErrorClass::Unavailable), "{first:?}");
    assert_eq!(class_of(&mysql, &batch(2)).await, SinkErrorClass::Unavailable);
    assert_eq!(mysql.ping().await.unwrap_err().class, SinkErrorClass::Unavailable);
    server.run();
    mysql.write(&batch(2)).await.unwrap();

    // The server ends the connection under us.
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
    assert_eq!((&*rights.lacks_for_rows, &*rights.lacks_for_tables), (&[][..], &["CREATE", "ALTER"][..]), "{rights:?}");
    assert_eq!(rights.missing_tables, [""; 0]);
    assert!(rights.server_version.contains("MariaDB") && rights.sql_mode.contains("STRICT_ALL_TABLES"));
    app.write(&batch(4)).await.unwrap();
    let before = sessions(&database, "app").await;
    database.run("SET GLOBAL read_only = 1").await;
    assert_eq!(class_of(&app, &batch(5)).await, SinkErrorClass::Unavailable);
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
    assert_eq!(small.ping().await.unwrap_err().class, SinkErrorClass::Unavailable);
}

async fn sessions(database: &Database, user: &str) -> BTreeSet<u64> {
    let text = format!("SELECT id FROM information_schema.PROCESSLIST WHERE user = '{user}'");
    database.rows::<u64>(&text).await.into_iter().collect()
}
