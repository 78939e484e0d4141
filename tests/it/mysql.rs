//! The MySQL sink against a real server.

mod failure;
mod inspect;
mod listing;
mod replace;
mod schema;
mod tls;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use waybill::catalog::{self, Definition, RuleTable};
use waybill::domain::Timestamp;
use waybill::domain::{Document, Entry, ListParams};
use waybill::sink::{Mysql, SinkErrorClass};

use crate::support::mariadb::Database;

/// 2026-11-22T00:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_795_305_600_000);
const MS: Duration = Duration::from_millis(1);

fn definitions(own: &str) -> Vec<Arc<Definition>> {
    let rules = RuleTable::build([&catalog::source_defaults().unwrap().limits]).unwrap();
    let own: toml::Table = toml::from_str(own).unwrap();
    let own = own.get("resource").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let more = own.keys().filter(|name| *name != "shipments").cloned();
    let names: Vec<String> = ["shipments".to_owned()].into_iter().chain(more).collect();
    catalog::resources(&names, &own, &rules).unwrap()
}

fn open(url: String) -> Mysql {
    Mysql::new(&url.into(), definitions("")).unwrap()
}

async fn prepared(database: &Database) -> Mysql {
    let mysql = open(database.url());
    mysql.prepare().await.unwrap();
    mysql
}

fn combination() -> ListParams {
    ListParams(vec![("fulfilment-method".to_owned(), "FBR".to_owned())])
}

fn document(shop: &str, id: &str, version: u64, body: &Value) -> Document {
    Document {
        shop: shop.into(),
        resource: "shipments".to_owned(),
        combination: combination(),
        id: id.to_owned(),
        version,
        fetched_at: NOW + Duration::from_millis(version),
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

fn note(shop: &str, id: &str, version: u64, gone: Option<Timestamp>) -> Entry {
    Entry::Listing {
        shop: shop.into(),
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
