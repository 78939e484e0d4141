//! `sql/views`: each view against numbers that the test counts itself from the documents.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::{BTreeMap, BTreeSet};

use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::mariadb::Database;

const DELIVERED: [&str; 4] =
    ["DELIVERED_AT_CUSTOMER", "DELIVERED_AT_NEIGHBOURS", "AT_PICK_UP_POINT", "PICKED_UP_AT_PICK_UP_POINT"];

/// Transporter, shipments, delivered, share, mean and median.
type Carried = (String, u64, u64, f64, Option<f64>, Option<f64>);

/// Makes the views as a client that speaks this character set.
async fn apply_views(database: &Database, charset: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/views");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut conn = database.conn().await;
    conn.query_drop(format!("SET NAMES {charset}")).await.unwrap();
    for file in &files {
        conn.query_drop(std::fs::read_to_string(file).unwrap()).await.unwrap();
    }
    conn.disconnect().await.unwrap();
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

/// The first event with one of these codes.
fn first_event(document: &Value, codes: &[&str]) -> Option<jiff::Timestamp> {
    let events = list(document, "/transport/transportEvents");
    events
        .filter(|event| codes.contains(&event["eventCode"].as_str().unwrap()))
        .map(|event| at(&event["eventDateTime"]))
        .min()
}

fn delivered(document: &Value) -> Option<jiff::Timestamp> {
    first_event(document, &DELIVERED)
}

/// What an item brought: what was shipped of it, or was ordered where nothing says what was shipped.
fn revenue(item: &Value) -> f64 {
    let shipped = item.get("quantityShipped").unwrap_or(&item["quantity"]);
    number(shipped) * number(&item["unitPrice"])
}

/// The one in the middle, or the mean of the two.
fn median(mut minutes: Vec<i64>) -> Option<f64> {
    minutes.sort_unstable();
    let middle = minutes.len().checked_sub(1)? / 2;
    Some((minutes[middle] + minutes[minutes.len() / 2]) as f64 / 2.0)
}

/// The week of ISO 8601, as the views write it.
fn week(at: jiff::Timestamp) -> String {
    let week = jiff::tz::Offset::UTC.to_datetime(at).date().iso_week_date();
    format!("{}-W{:02}", week.year(), week.week())
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
    let views = apply_views(&database, "utf8mb4").await;
    let described = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sql.md")).unwrap();
    for view in &views {
        assert!(described.contains(&format!("### `{view}`")), "{view} is not in docs/sql.md");
    }
    hold_in_the_strictest_mode(&database, &views).await;
    // Again, as a shell's client may do it; a second installation changes nothing.
    apply_views(&database, "latin1").await;
    hold_in_the_strictest_mode(&database, &views).await;
    shipments(&app, &database).await;
    transporters(&app, &database).await;
    sums(&app, &database).await;
    others(&app, &database).await;
    made_up(&database).await;
    app.finish().await;
}

/// MySQL groups by full expressions only, by default; MariaDB does when it is set to.
async fn hold_in_the_strictest_mode(database: &Database, views: &[String]) {
    let mut conn = database.conn().await;
    conn.query_drop("SET SESSION sql_mode = CONCAT(@@sql_mode, ',ONLY_FULL_GROUP_BY')").await.unwrap();
    for view in views {
        conn.query_drop(format!("SELECT * FROM {view}")).await.unwrap();
    }
    conn.disconnect().await.unwrap();
}

async fn shipments(app: &TestApp, database: &Database) {
    let shipments = documents(app, "shipments");
    let methods: BTreeMap<String, String> =
        app.sandbox().truth("first").into_iter().map(|(method, id, _)| (id, method)).collect();
    let today = utc_day(jiff::Timestamp::from_millisecond(waybill::domain::Clock::system().now().as_millis()).unwrap());
    let is_late = |document: &Value| {
        let promised = list(document, "/shipmentItems")
            .filter_map(|item| item["fulfilment"]["latestDeliveryDate"].as_str().map(str::to_owned))
            .min();
        let ended = delivered(document).or_else(|| first_event(document, &["RETURNED_TO_SENDER"]));
        promised.is_some_and(|promised| promised < ended.map_or_else(|| today.clone(), utc_day))
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
}

async fn transporters(app: &TestApp, database: &Database) {
    let mut carried: BTreeMap<String, (u64, u64, Vec<i64>)> = BTreeMap::new();
    for document in documents(app, "shipments").values() {
        let code = document.pointer("/transport/transporterCode").and_then(Value::as_str).unwrap_or("(none)");
        let counted = carried.entry(code.to_owned()).or_default();
        counted.0 += 1;
        if let Some(came) = delivered(document) {
            counted.1 += 1;
            let shipped = document.get("shipmentDateTime").map(at);
            counted.2.extend(shipped.map(|shipped| (came.as_microsecond() - shipped.as_microsecond()) / 60_000_000));
        }
    }
    let rows: Vec<Carried> = database
        .rows(
            "SELECT transporter_code, shipments, delivered, CAST(share_delivered AS DOUBLE), CAST(mean_hours AS DOUBLE), \
             CAST(median_days AS DOUBLE) FROM v_shipments_per_transporter",
        )
        .await;
    assert_eq!(rows.len(), carried.len());
    for (code, all, came, share, mean_hours, median_days) in rows {
        let (expected_all, expected_came, minutes) = carried.remove(&code).unwrap();
        assert_eq!((all, came), (expected_all, expected_came), "{code}");
        assert!((share - came as f64 / all as f64).abs() < 0.0001, "{code}: {share}");
        let near = |found: Option<f64>, expected: Option<f64>, off: f64| match (found, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() <= off,
            (found, expected) => found.is_none() && expected.is_none(),
        };
        let mean = (!minutes.is_empty()).then(|| minutes.iter().sum::<i64>() as f64 / minutes.len() as f64 / 60.0);
        assert!(near(mean_hours, mean, 0.051), "{code}: {mean_hours:?} {mean:?}");
        let median = median(minutes).map(|minutes| minutes / 1440.0);
        assert!(near(median_days, median, 0.0051), "{code}: {median_days:?} {median:?}");
    }
}

async fn sums(app: &TestApp, database: &Database) {
    let shipments = documents(app, "shipments");
    let methods: BTreeMap<String, String> =
        app.sandbox().truth("first").into_iter().map(|(method, id, _)| (id, method)).collect();
    let mut months: BTreeMap<(String, String), (u64, f64)> = BTreeMap::new();
    let mut weeks: BTreeMap<(String, String), f64> = BTreeMap::new();
    for (id, document) in &shipments {
        let shipped = document.get("shipmentDateTime").map(at);
        let month = shipped.map_or_else(String::new, |shipped| utc_day(shipped).chars().take(7).collect());
        let counted = months.entry((month, methods[id].clone())).or_default();
        counted.0 += 1;
        for item in list(document, "/shipmentItems") {
            counted.1 += revenue(item);
            let ean = item["product"]["ean"].as_str().unwrap().to_owned();
            *weeks.entry((ean, shipped.map_or_else(String::new, week))).or_default() += revenue(item);
        }
    }
    let rows: Vec<(String, String, u64, f64)> = database
        .rows(
            "SELECT COALESCE(month, ''), fulfilment_method, shipments, CAST(revenue AS DOUBLE) FROM v_fulfilment_by_month",
        )
        .await;
    assert_eq!(rows.len(), months.len());
    for (month, method, count, revenue) in rows {
        let expected = months[&(month, method)];
        assert!(count == expected.0 && (revenue - expected.1).abs() < 0.01, "{count} {revenue} {expected:?}");
    }
    let rows: Vec<(String, String, f64)> = database
        .rows("SELECT ean, COALESCE(week, ''), CAST(revenue AS DOUBLE) FROM v_revenue_per_product_and_week")
        .await;
    assert_eq!(rows.len(), weeks.len());
    for (ean, week, revenue) in rows {
        assert!((weeks[&(ean.clone(), week.clone())] - revenue).abs() < 0.01, "{ean} {week} {revenue}");
    }
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

/// What the sandbox does not have: an order in two parts, a parcel that came back in time and one that came back late, a letter.
async fn made_up(database: &Database) {
    let shipment = |id: &str, code: &str| {
        format!("('made-up', '{id}', 'FBR', '{code}', '2026-01-05 10:00:00', '{{}}', 1, '2026-01-05', '2026-01-05')")
    };
    let rows = [shipment("part-1", "T"), shipment("part-2", "T"), shipment("back", "T"), shipment("letter", "LETTER")];
    database
        .run(&format!(
            "INSERT INTO shipments (shop_id, shipment_id, fulfilment_method, transporter_code, shipment_date_time, document, \
             version, fetched_at, first_listed_at) VALUES {}",
            rows.join(", ")
        ))
        .await;
    database
        .run(
            "INSERT INTO shipment_items (shop_id, shipment_id, position, ean, quantity, quantity_shipped, unit_price, \
             latest_delivery_date, version) VALUES \
             ('made-up', 'part-1', 0, 'E', 10, 4, 2.5, '2026-01-07', 1), ('made-up', 'part-2', 0, 'E', 10, 6, 2.5, '2026-01-07', 1), \
             ('made-up', 'back', 0, 'F', 1, NULL, 3, '2026-01-09', 1), ('made-up', 'letter', 0, 'F', 2, 2, 3, '2026-01-07', 1)",
        )
        .await;
    database
        .run(
            "INSERT INTO shipment_transport_events (shop_id, shipment_id, position, event_code, event_date_time, version) VALUES \
             ('made-up', 'part-1', 0, 'DELIVERED_AT_CUSTOMER', '2026-01-06 10:00:00', 1), \
             ('made-up', 'part-2', 0, 'RETURNED_TO_SENDER', '2026-01-10 10:00:00', 1), \
             ('made-up', 'back', 0, 'RETURNED_TO_SENDER', '2026-01-08 10:00:00', 1)",
        )
        .await;
    let rows: Vec<(String, u64, f64)> = database
        .rows(
            "SELECT ean, CAST(quantity AS UNSIGNED), CAST(revenue AS DOUBLE) FROM v_revenue_per_product_and_week \
             WHERE shop_id = 'made-up' AND week = '2026-W02' ORDER BY ean",
        )
        .await;
    assert_eq!(rows, [("E".to_owned(), 10, 25.0), ("F".to_owned(), 3, 9.0)]);
    let rows: Vec<(String, Option<String>, bool)> = database
        .rows(
            "SELECT shipment_id, last_event, days_late = 3 FROM v_late_shipments WHERE shop_id = 'made-up' ORDER BY shipment_id",
        )
        .await;
    let expected = [("letter", None, false), ("part-2", Some("RETURNED_TO_SENDER"), true)];
    assert_eq!(rows, expected.map(|(id, event, late)| (id.to_owned(), event.map(str::to_owned), late)));
}
