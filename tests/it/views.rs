//! `sql/views`: each view against numbers that the test counts itself from the documents.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::mariadb::Database;

const DELIVERED: [&str; 3] = ["DELIVERED_AT_CUSTOMER", "DELIVERED_AT_NEIGHBOURS", "PICKED_UP_AT_PICK_UP_POINT"];

async fn apply_views(database: &Database) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/views");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        database.run(&std::fs::read_to_string(file).unwrap()).await;
    }
    files.iter().map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

fn documents(app: &TestApp, resource: &str) -> BTreeMap<String, Value> {
    app.sandbox().truth_of("first", resource).into_iter().collect()
}

fn list<'a>(document: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    document.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn at(value: &Value) -> jiff::Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// The first event of delivery.
fn delivered(document: &Value) -> Option<jiff::Timestamp> {
    let events = list(document, "/transport/transportEvents");
    events
        .filter(|event| DELIVERED.contains(&event["eventCode"].as_str().unwrap()))
        .map(|event| at(&event["eventDateTime"]))
        .min()
}

fn utc_day(at: jiff::Timestamp) -> String {
    jiff::tz::Offset::UTC.to_datetime(at).date().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_view_says_what_the_documents_say() {
    let database = Database::fresh().await;
    let app = TestApp::builder()
        .mysql(database.url())
        .resources(&["shipments", "orders", "returns", "inventory"])
        .limits_too(
            "\"GET /retailer/orders\" = \"none\"\n\"GET /retailer/orders/*\" = \"none\"\n\"GET /retailer/returns\" = \"none\"\n\"GET /retailer/returns/*\" = \"none\"",
        )
        .options(|options| {
            for rule in ["orders", "orders/*", "returns", "returns/*"] {
                options.limits.insert(format!("GET /retailer/{rule}"), "none".to_owned());
            }
        })
        .shop("first", 120, 60)
        .start()
        .await;
    app.run_until_idle().await;
    let views = apply_views(&database).await;
    let described = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sql.md")).unwrap();
    for view in &views {
        assert!(described.contains(&format!("### `{view}`")), "{view} stands not in docs/sql.md");
    }
    // Again: a second installation changes nothing.
    apply_views(&database).await;
    shipments(&app, &database).await;
    others(&app, &database).await;
    app.finish().await;
}

async fn shipments(app: &TestApp, database: &Database) {
    let shipments = documents(app, "shipments");
    let methods: BTreeMap<String, String> =
        app.sandbox().truth("first").into_iter().map(|(method, id, _)| (id, method)).collect();
    let today = utc_day(jiff::Timestamp::from_millisecond(waybill::domain::Clock::system().now()).unwrap());
    let is_late = |document: &Value| {
        let promised = list(document, "/shipmentItems")
            .filter_map(|item| item["fulfilment"]["latestDeliveryDate"].as_str().map(str::to_owned))
            .min();
        promised.is_some_and(|promised| promised < delivered(document).map_or_else(|| today.clone(), utc_day))
    };
    let late: BTreeSet<String> =
        shipments.iter().filter(|(_, document)| is_late(document)).map(|(id, _)| id.clone()).collect();
    let rows: Vec<(String, i64)> = database.rows("SELECT shipment_id, days_late FROM v_late_shipments").await;
    assert!(!late.is_empty() && rows.iter().all(|(_, days)| *days > 0));
    assert_eq!(rows.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), late);

    let untracked: BTreeSet<String> = shipments
        .iter()
        .filter(|(id, document)| methods[*id] == "FBR" && document.pointer("/transport/trackAndTrace").is_none())
        .map(|(id, _)| id.clone())
        .collect();
    let rows: Vec<String> = database.rows("SELECT shipment_id FROM v_shipments_without_tracking").await;
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), untracked);

    let mut carried: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for document in shipments.values() {
        let code = document.pointer("/transport/transporterCode").and_then(Value::as_str).unwrap_or("(none)");
        let counted = carried.entry(code.to_owned()).or_default();
        counted.0 += 1;
        counted.1 += u64::from(delivered(document).is_some());
    }
    let rows: Vec<(String, u64, u64, Option<f64>)> = database
        .rows("SELECT transporter_code, shipments, delivered, mean_hours FROM v_shipments_per_transporter")
        .await;
    assert!(rows.iter().all(|(_, _, delivered, hours)| (*delivered > 0) == hours.is_some()));
    assert_eq!(rows.into_iter().map(|(code, all, came, _)| (code, (all, came))).collect::<BTreeMap<_, _>>(), carried);

    let revenue = |document: &Value| -> f64 {
        list(document, "/shipmentItems").map(|item| number(&item["quantity"]) * number(&item["unitPrice"])).sum()
    };
    for method in ["FBR", "FBB"] {
        let ours = shipments.iter().filter(|(id, _)| methods[*id] == method);
        let expected: (u64, f64) = ours.fold((0, 0.0), |sum, (_, document)| (sum.0 + 1, sum.1 + revenue(document)));
        let rows: Vec<(u64, f64)> = database
            .rows(&format!(
                "SELECT CAST(SUM(shipments) AS UNSIGNED), CAST(SUM(revenue) AS DOUBLE) FROM v_fulfilment_by_month \
                 WHERE fulfilment_method = '{method}'"
            ))
            .await;
        assert_eq!(rows[0].0, expected.0);
        assert!((rows[0].1 - expected.1).abs() < 0.01, "{rows:?} {expected:?}");
    }
    let mut products: BTreeMap<String, f64> = BTreeMap::new();
    for item in shipments.values().flat_map(|document| list(document, "/shipmentItems")) {
        let ean = item["product"]["ean"].as_str().unwrap().to_owned();
        *products.entry(ean).or_default() += number(&item["quantity"]) * number(&item["unitPrice"]);
    }
    let rows: Vec<(String, f64)> = database
        .rows("SELECT ean, CAST(SUM(revenue) AS DOUBLE) FROM v_revenue_per_product_and_week GROUP BY ean")
        .await;
    assert_eq!(rows.len(), products.len());
    assert!(rows.iter().all(|(ean, revenue)| (products[ean] - revenue).abs() < 0.01));
}

async fn others(app: &TestApp, database: &Database) {
    let orders = documents(app, "orders");
    let to_ship: BTreeSet<String> = orders
        .values()
        .flat_map(|order| list(order, "/orderItems"))
        .filter(|item| {
            number(&item["quantity"]) > number(&item["quantityShipped"]) + number(&item["quantityCancelled"])
        })
        .map(|item| item["orderItemId"].as_str().unwrap().to_owned())
        .collect();
    let rows: Vec<String> = database.rows("SELECT order_item_id FROM v_open_orders").await;
    assert!(!to_ship.is_empty());
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), to_ship);

    let mut reasons: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for item in documents(app, "returns").values().flat_map(|document| list(document, "/returnItems")) {
        let text = |name: &str| item["returnReason"][name].as_str().unwrap_or("(none)").to_owned();
        let counted = reasons.entry((text("mainReason"), text("detailedReason"))).or_default();
        counted.0 += 1;
        counted.1 += item["expectedQuantity"].as_u64().unwrap();
    }
    let rows: Vec<(String, String, u64, u64)> = database
        .rows("SELECT main_reason, detailed_reason, items, CAST(quantity AS UNSIGNED) FROM v_returns_by_reason")
        .await;
    let rows: BTreeMap<(String, String), (u64, u64)> = rows.into_iter().map(|(a, b, c, d)| ((a, b), (c, d))).collect();
    assert_eq!(rows, reasons);

    let shipments = documents(app, "shipments");
    let sold: BTreeSet<&str> = shipments
        .values()
        .flat_map(|document| list(document, "/shipmentItems"))
        .filter_map(|item| item["product"]["ean"].as_str())
        .collect();
    let inventory = documents(app, "inventory");
    let dead = inventory.values().filter(|row| {
        number(&row["regularStock"]) + number(&row["gradedStock"]) > 0.0 && !sold.contains(row["ean"].as_str().unwrap())
    });
    let expected = dead.count() as u64;
    let rows: Vec<u64> = database.rows("SELECT COUNT(*) FROM v_stock_without_sales").await;
    assert_eq!(rows, [expected]);
    // One that was never sold.
    database
        .run(
            "INSERT INTO inventory (shop_id, bsku, ean, regular_stock, graded_stock, document, version, fetched_at, first_listed_at) \
             SELECT shop_id, 'dead', '0000000000000', 3, 0, '{}', 1, fetched_at, first_listed_at FROM inventory LIMIT 1",
        )
        .await;
    let rows: Vec<u64> = database.rows("SELECT COUNT(*) FROM v_stock_without_sales").await;
    assert_eq!(rows, [expected + 1]);
    database.run("DELETE FROM inventory WHERE bsku = 'dead'").await;
}
