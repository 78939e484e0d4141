//! The embedded archive answers what MySQL answers: the same documents, filters, order and cursors.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reqwest::Method as Verb;
use serde_json::Value;

use crate::support::app::{Builder, TestApp};
use crate::support::mariadb::Database;
use crate::support::{no_limits, oracle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_document_of_three_shops_arrives_in_the_archive_as_it_was_sent() {
    let builder = TestApp::builder().options(|options| options.seed = 72);
    let builder = builder.shop("north", 700, 300).shop("west", 500, 200).shop("south", 200, 100);
    let mut app = builder.start().await;
    app.run_until_idle().await;
    let truth = oracle::truth(&app);
    assert_eq!(truth.len(), 2_000);
    oracle::listing(&app, &truth).await;
    let audit = app.sandbox().audit();
    assert_eq!((audit.details_distinct, audit.details_reread), (2_000, 0));
    // What is archived is durable: the next start shows the same and reads nothing.
    app.sandbox().reset_audit();
    app.restart().await;
    app.run_until_idle().await;
    oracle::listing(&app, &truth).await;
    assert_eq!(app.sandbox().audit().calls, 0);
    app.finish().await;
}

/// Percent-encodes a value of the query.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// One value at a path of some documents, each once; those that a query may hold.
fn values(documents: &[Value], at: &str, count: usize) -> Vec<String> {
    let found = documents.iter().filter_map(|document| document.pointer(at)?.as_str());
    let usable = found.filter(|text| !text.is_empty() && text.len() < 100 && !text.contains(char::is_control));
    usable.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().take(count).collect()
}

/// Queries of all kinds, most of which find something.
fn queries(documents: &[Value]) -> Vec<String> {
    let mut all: Vec<String> =
        ["", "fulfilment_method=FBR", "fulfilment_method=FBB", "fulfilment_method=fbr", "order_id=none", "ean=0"]
            .map(str::to_owned)
            .into();
    let filters = [("order_id", "/order/orderId"), ("ean", "/shipmentItems/0/product/ean")];
    for (name, at) in filters {
        all.extend(values(documents, at, 12).iter().map(|value| format!("{name}={}", encoded(value))));
    }
    let searched = ["/shipmentId", "/shipmentDetails/zipCode", "/transport/trackAndTrace", "/shipmentReference"];
    for at in searched {
        all.extend(values(documents, at, 6).iter().map(|value| format!("q={}", encoded(value))));
    }
    // Parts of words, both cases, and everything that a pattern could take for something else.
    let parts = [
        "testema", "PROEF", "der P", "wb0000", "%", "_", "!", "\\", "'", "\"", "'; DROP", "<script", "10%", "%s",
        "cafe",
    ];
    all.extend(parts.iter().map(|part| format!("q={}", encoded(part))));
    let times = values(documents, "/shipmentDateTime", usize::MAX);
    let (early, late) = (&times[times.len() / 4], &times[times.len() / 2]);
    all.push(format!("from={}", encoded(early)));
    all.push(format!("to={}", encoded(early)));
    all.push(format!("from={}&to={}", encoded(early), encoded(late)));
    all.push(format!("from={}&fulfilment_method=FBB&q=e", encoded(early)));
    all.push(format!("from={}&to={}", encoded(late), encoded(late)));
    all
}

/// What both answer alike: everything but our own shop ids and the time and number of the reading.
fn comparable(app: &TestApp, items: Vec<Value>) -> BTreeMap<String, Vec<Value>> {
    let mut by_client: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut item in items {
        let (client, _) = app.shops.iter().find(|(_, shop)| item["shop_id"] == **shop).unwrap();
        for ours in ["shop_id", "fetched_at", "first_listed_at", "version"] {
            assert_ne!(item[ours], Value::Null, "{ours}");
            item[ours] = Value::Null;
        }
        by_client.entry(client.clone()).or_default().push(item);
    }
    by_client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_answers_every_query_as_mysql_does() {
    let database = Database::fresh().await;
    let builder = TestApp::builder().mysql(database.url()).options(|options| options.seed = 73);
    let mysql = builder.shop("north", 230, 120).shop("south", 90, 40).start().await;
    let mut archive = TestApp::builder().on(&Arc::clone(&mysql.stand)).start().await;
    for client in ["north", "south"] {
        archive.register(client).await;
    }
    mysql.run_until_idle().await;
    archive.run_until_idle().await;

    let documents: Vec<Value> = mysql.sandbox().truth("north").into_iter().map(|(_, _, document)| document).collect();
    let (mut found, queries) = (0, queries(&documents));
    for query in &queries {
        for limit in [500, 29] {
            let path = format!("/api/v1/shipments?limit={limit}&{query}");
            let (left, right) = (mysql.pages(&path).await, archive.pages(&path).await);
            found += usize::from(!left.is_empty() && limit == 500);
            let (left, right) = (comparable(&mysql, left), comparable(&archive, right));
            let ids = |answer: &BTreeMap<String, Vec<Value>>| -> Vec<String> {
                answer.values().flatten().map(|item| item["id"].to_string()).collect()
            };
            assert_eq!(ids(&left), ids(&right), "{query}, {limit} a page");
            assert!(left == right, "{query}: the same ids with other content");
        }
    }
    assert!(found * 4 > queries.len() * 3, "only {found} of {} queries found anything", queries.len());
    for app in [&mysql, &archive] {
        let path = format!("/api/v1/shipments?shop={}&limit=11&fulfilment_method=FBB", app.shops["south"]);
        assert_eq!(app.pages(&path).await.len(), 40);
        // A cursor belongs to its query.
        let first = app.get("/api/v1/shipments?limit=5").await;
        let stray = format!("/api/v1/shipments?limit=5&q=e&cursor={}", first["next_cursor"].as_str().unwrap());
        assert_eq!(app.call(Verb::GET, &stray, None).await.0, 400);
    }
    mysql.finish().await;
    archive.finish().await;
}

/// Orders under another name, with columns of the types that orders filter by text only.
const SALES: &str = r#"
[resource.sales]
media_type = "application/vnd.retailer.v10+json"
id = "/orderId"
list = { path = "/retailer/orders", items = "/orders", pages = { style = "number", parameter = "page" }, parameters = { status = ["ALL"], fulfilment-method = ["ALL"] } }
detail = { path = "/retailer/orders/{id}" }
[resource.sales.table]
time = "day"
filters = { day = "day", placed_at = "placed_at", price = "sale_items.price", quantity = "sale_items.quantity", pickup = "pickup" }
[resource.sales.table.columns]
day = { from = "/orderPlacedDateTime", type = "date" }
placed_at = { from = "/orderPlacedDateTime", type = "datetime" }
pickup = { from = "/pickupPoint", type = "boolean" }
[resource.sales.table.children.sale_items]
from = "/orderItems"
columns = { price = { from = "/unitPrice", type = "decimal(10,1)" }, quantity = { from = "/quantity", type = "integer" } }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_of_every_type_and_times_of_days_find_the_same_in_both() {
    let database = Database::fresh().await;
    let rules = "\"GET /retailer/orders\" = \"none\"\n\"GET /retailer/orders/*\" = \"none\"";
    let with = |builder: Builder| builder.resources(&["sales"]).toml(SALES).limits_too(rules);
    let lifted = no_limits().into_iter().collect::<BTreeMap<_, _>>();
    let builder = TestApp::builder().mysql(database.url()).options(|options| options.limits.extend(lifted));
    let mysql = with(builder).shop("north", 700, 300).start().await;
    let mut archive = with(TestApp::builder().on(&Arc::clone(&mysql.stand))).start().await;
    archive.register("north").await;
    mysql.run_until_idle().await;
    archive.run_until_idle().await;
    let ids = async |app: &TestApp, query: &str| -> BTreeSet<String> {
        let items = app.pages(&format!("/api/v1/sales?limit=500&{query}")).await;
        items.iter().map(|item| item["id"].to_string()).collect()
    };
    let all = mysql.pages("/api/v1/sales?limit=500").await;
    let one = &all[all.len() / 2];
    let (day, placed_at) = (one["day"].as_str().unwrap(), one["placed_at"].as_str().unwrap());
    let price = one["document"]["orderItems"][0]["unitPrice"].to_string();
    let pickup = one["pickup"].to_string();
    // What is shown is found, and means what it says.
    for query in [
        format!("day={day}"),
        format!("from={day}T00:00:00Z"),
        format!("from={day}T00:00:00Z&to={day}T00:00:00.001Z"),
        format!("placed_at={placed_at}"),
        format!("price={price}"),
        format!("price=00{price}0"),
        format!("pickup={pickup}"),
        "quantity=1".to_owned(),
    ] {
        let query = query.replace('+', "%2B");
        let found = ids(&mysql, &query).await;
        assert!(!found.is_empty() && found.len() < all.len(), "{query}: {} of {}", found.len(), all.len());
        assert_eq!(found, ids(&archive, &query).await, "{query}");
    }
    for query in [
        format!("from={day}T00:00:00.001Z&to={day}T23:59:59Z"),
        format!("placed_at={}", placed_at.replace(".000000Z", ".000001Z")),
    ] {
        assert_eq!(ids(&mysql, &query).await, BTreeSet::new(), "{query}");
        assert_eq!(ids(&archive, &query).await, BTreeSet::new(), "{query}");
    }
    let wrong = ["nan", "inf", "1e2", "99999999999999999999"].map(|price| format!("price={price}"));
    let others = ["quantity=1.0", "pickup=1", "day=-000001-01-01"].map(str::to_owned);
    for query in wrong.iter().chain(&others) {
        for app in [&mysql, &archive] {
            let (status, answer) = app.call(Verb::GET, &format!("/api/v1/sales?{query}"), None).await;
            assert_eq!(status, 400, "{query}: {answer}");
        }
    }
    mysql.finish().await;
    archive.finish().await;
}
