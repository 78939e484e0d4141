//! What must be there: the sandbox's own documents, against the rows in MySQL and against the API.
//!
//! Compares whole sets: nothing may be missing, nothing may be too much, everything must be equal.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeMap;

use mysql_async::Row;
use serde_json::Value;

use super::app::TestApp;
use super::mariadb::Database;

/// (shop id, document id) -> method and document.
pub(crate) type Truth = BTreeMap<(String, String), (String, Value)>;

/// Differences shown of one comparison.
const SHOWN: usize = 5;

/// Everything that the registered shops hold in the sandbox now.
pub(crate) fn truth(app: &TestApp) -> Truth {
    let mut truth = Truth::new();
    for (client, shop) in &app.shops {
        for (method, id, document) in app.sandbox().truth(client) {
            let twice = truth.insert((shop.clone(), id), (method, document));
            assert!(twice.is_none(), "the sandbox shows an id twice");
        }
    }
    truth
}

fn assert_same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &BTreeMap<(String, String), T>,
    found: &BTreeMap<(String, String), T>,
) {
    let missing: Vec<_> = expected.keys().filter(|key| !found.contains_key(*key)).collect();
    let surplus: Vec<_> = found.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}: {} missing, {} too much; first: {:?} {:?}",
        missing.len(),
        surplus.len(),
        missing.iter().take(SHOWN).collect::<Vec<_>>(),
        surplus.iter().take(SHOWN).collect::<Vec<_>>(),
    );
    let mut unequal = expected.iter().filter(|(key, value)| found.get(*key) != Some(*value));
    if let Some((key, value)) = unequal.next() {
        let others = unequal.count();
        panic!("{what}: {key:?} differs (and {others} others)\nexpected {value:?}\nfound    {:?}", found.get(key));
    }
}

/// The API's listing, page by page: the order, the documents, some columns.
pub(crate) async fn listing(app: &TestApp, truth: &Truth) {
    let items = app.pages("/api/v1/shipments?limit=500").await;
    let key = |item: &Value| {
        let text = |name: &str| item[name].as_str().unwrap().to_owned();
        (text("shop_id"), text("id"))
    };
    for pair in items.windows(2) {
        assert!(key(&pair[0]) < key(&pair[1]), "order by (shop_id, id): {:?}, {:?}", key(&pair[0]), key(&pair[1]));
    }
    let shown = |method: &str, document: &Value| {
        let text = |at: &str| document.pointer(at).and_then(Value::as_str).map(str::to_owned);
        let columns = [Some(method.to_owned()), text("/order/orderId"), text("/shipmentDetails/surname")];
        (columns, document.clone())
    };
    let expected = truth.iter().map(|(key, (method, document))| (key.clone(), shown(method, document))).collect();
    let found = items.iter().map(|item| {
        let text = |name: &str| item[name].as_str().map(str::to_owned);
        let columns = [text("fulfilment_method"), text("order_id"), text("ship_to_surname")];
        (key(item), (columns, item["document"].clone()))
    });
    assert_same("the API", &expected, &found.collect());
}

/// The rows in MySQL: the documents, some typed columns, and the children.
pub(crate) async fn mysql(database: &Database, truth: &Truth) {
    documents(database, truth).await;
    columns(database, truth).await;
    let items = |document: &Value| {
        let items = document["shipmentItems"].as_array().unwrap();
        let cents = |item: &Value| (item["unitPrice"].as_f64().unwrap() * 100.0).round() as u64;
        let quantity = |item: &Value| item["quantity"].as_u64().unwrap();
        (items.len() as u64, items.iter().map(cents).sum(), items.iter().map(quantity).sum())
    };
    let sums = "CAST(SUM(unit_price) * 100 AS UNSIGNED), CAST(SUM(quantity) AS UNSIGNED)";
    children(database, truth, ("shipment_items", sums), items).await;
    let events = |document: &Value| {
        let events = document.pointer("/transport/transportEvents").and_then(Value::as_array);
        let events = events.map(Vec::as_slice).unwrap_or_default();
        let letters = |event: &Value| event["eventCode"].as_str().unwrap().len() as u64;
        (events.len() as u64, events.iter().map(letters).sum(), events.len() as u64)
    };
    let sums = "CAST(SUM(LENGTH(event_code)) AS UNSIGNED), COUNT(event_date_time)";
    children(database, truth, ("shipment_transport_events", sums), events).await;
}

async fn documents(database: &Database, truth: &Truth) {
    let rows: Vec<(String, String, Vec<u8>)> =
        database.rows("SELECT shop_id, shipment_id, document FROM shipments").await;
    let count = rows.len();
    let found: BTreeMap<_, Value> =
        rows.into_iter().map(|(shop, id, document)| ((shop, id), serde_json::from_slice(&document).unwrap())).collect();
    assert_eq!(found.len(), count, "an id is twice in MySQL");
    let expected = truth.iter().map(|(key, (_, document))| (key.clone(), document.clone())).collect();
    assert_same("MySQL", &expected, &found);
}

async fn columns(database: &Database, truth: &Truth) {
    const COLUMNS: [(&str, &str); 6] = [
        ("order_id", "/order/orderId"),
        ("shipment_reference", "/shipmentReference"),
        ("track_and_trace", "/transport/trackAndTrace"),
        ("ship_to_surname", "/shipmentDetails/surname"),
        ("ship_to_extra_address_information", "/shipmentDetails/extraAddressInformation"),
        ("bill_to_company", "/billingDetails/company"),
    ];
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let text = format!(
        "SELECT shop_id, shipment_id, fulfilment_method, DATE_FORMAT(shipment_date_time, '%Y-%m-%d %H:%i:%s.%f'), {} \
         FROM shipments",
        names.join(", ")
    );
    let cells = |row: &Row| (2..row.len()).map(|at| row.get::<Option<String>, _>(at).unwrap()).collect::<Vec<_>>();
    let rows: Vec<Row> = database.rows(&text).await;
    let found = rows.iter().map(|row| ((row.get(0).unwrap(), row.get(1).unwrap()), cells(row))).collect();
    let expected = truth.iter().map(|(key, (method, document))| {
        let at = document["shipmentDateTime"].as_str().map(utc);
        let texts = COLUMNS.iter().map(|(_, at)| document.pointer(at).and_then(Value::as_str).map(str::to_owned));
        (key.clone(), [Some(method.clone()), at].into_iter().chain(texts).collect::<Vec<_>>())
    });
    assert_same("columns in MySQL", &expected.collect(), &found);
}

fn utc(text: &str) -> String {
    text.parse::<jiff::Timestamp>().unwrap().strftime("%Y-%m-%d %H:%M:%S.%6f").to_string()
}

/// Count and two sums of a child table, per document.
async fn children(
    database: &Database,
    truth: &Truth,
    (table, sums): (&str, &str),
    expect: impl Fn(&Value) -> (u64, u64, u64),
) {
    let text = format!("SELECT shop_id, shipment_id, COUNT(*), {sums} FROM {table} GROUP BY shop_id, shipment_id");
    let rows: Vec<(String, String, u64, u64, u64)> = database.rows(&text).await;
    let found = rows.into_iter().map(|(shop, id, count, a, b)| ((shop, id), (count, a, b))).collect();
    let expected = truth.iter().map(|(key, (_, document))| (key.clone(), expect(document)));
    assert_same(table, &expected.filter(|(_, sums)| sums.0 > 0).collect(), &found);
}
