//! The whole catalog: each resource synced by its definition alone, its documents equal to what the sandbox has, and
//! what changes comes with the next walk, for as few calls as the API allows.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeMap;

use sandbox::Method;
use serde_json::Value;
use waybill::catalog::definition::Place;
use waybill::catalog::extract::extract;
use waybill::catalog::{self, Definition, RuleTable, source_defaults};
use waybill::domain::{Json, ListParams};

use crate::support::app::{Builder, TestApp};
use crate::support::mariadb::Database;
use crate::support::{CATALOG, no_limits};

fn builder() -> Builder {
    // Those of shipments the test app writes itself.
    let own = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let lifted: Vec<_> = no_limits().into_iter().filter(|(rule, _)| !own.contains(&rule.as_str())).collect();
    let text: Vec<String> = lifted.iter().map(|(rule, limit)| format!("\"{rule}\" = \"{limit}\"")).collect();
    // The table of limits is the last one that the test app writes.
    TestApp::builder()
        .resources(&CATALOG)
        .limits_too(&text.join("\n"))
        .options(move |options| options.limits.extend(lifted))
}

/// Every document of every resource is there, as the sandbox has it.
async fn is_whole(app: &TestApp) -> BTreeMap<&'static str, usize> {
    let mut counted = BTreeMap::new();
    for resource in CATALOG {
        let truth: BTreeMap<String, Value> = app.sandbox().truth_of("first", resource).into_iter().collect();
        let items = app.pages(&format!("/api/v1/{resource}?limit=500")).await;
        let shown: BTreeMap<String, Value> =
            items.iter().map(|item| (item["id"].as_str().unwrap().to_owned(), item["document"].clone())).collect();
        assert_eq!(shown.len(), items.len(), "{resource}: twice");
        for (id, document) in &truth {
            assert_eq!(shown.get(id), Some(document), "{resource} {id}");
        }
        assert_eq!(shown.len(), truth.len(), "{resource}");
        assert!(items.iter().all(|item| item["no_longer_listed_at"].is_null()), "{resource}");
        counted.insert(resource, truth.len());
    }
    counted
}

/// Values of an item at a place, as a filter writes them.
fn values_at(definition: &Definition, place: &Place, item: &Value) -> Vec<String> {
    let written = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    match place {
        Place::Id => written(&item["id"]).into_iter().collect(),
        Place::Column(name) => written(&item[name]).into_iter().collect(),
        Place::Child { table, column } => {
            let text = item["document"].to_string();
            let document = Json::parse(text.as_bytes()).unwrap();
            let cells = extract(definition, item["id"].as_str().unwrap(), &document, &ListParams::default());
            let at = definition.table.children.iter().position(|child| child.name == *table).unwrap();
            let columns = &definition.table.children[at].columns;
            let column = columns.iter().position(|known| known.name == *column).unwrap();
            cells.children[at].iter().filter_map(|row| written(&serde_json::to_value(&row[column]).unwrap())).collect()
        }
    }
}

/// Each filter of each resource finds just the documents that have its value. How many filters there are.
async fn each_filter_finds_its_own(app: &TestApp) -> usize {
    let rules = RuleTable::build([&source_defaults().unwrap().limits]).unwrap();
    let names = CATALOG.map(str::to_owned);
    let mut tried = 0;
    for definition in catalog::resources(&names, &toml::Table::new(), &rules).unwrap() {
        let path = format!("/api/v1/{}?limit=500", definition.name);
        let items = app.pages(&path).await;
        for (filter, place) in &definition.table.filters {
            let at = |item: &Value| values_at(&definition, place, item);
            let value = items.iter().flat_map(at).next().unwrap_or_else(|| panic!("{filter} of {}", definition.name));
            let ids = |items: &[Value]| -> Vec<String> { items.iter().map(|item| item["id"].to_string()).collect() };
            let wanted: Vec<Value> = items.iter().filter(|item| at(item).contains(&value)).cloned().collect();
            let query: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            let found = app.pages(&format!("{path}&{filter}={query}")).await;
            assert_eq!(ids(&found), ids(&wanted), "{filter}={value} of {}", definition.name);
            tried += 1;
        }
        if let Some(time) = &definition.table.time {
            each_time_is_found(app, &path, &items, time).await;
        }
    }
    tried
}

/// From an item's own time on there are just those that are no older; a day is its first moment.
async fn each_time_is_found(app: &TestApp, path: &str, items: &[Value], time: &str) {
    let own = items.iter().find_map(|item| item[time].as_str()).unwrap_or_else(|| panic!("{time} at {path}"));
    let from = if own.contains('T') { own.to_owned() } else { format!("{own}T00:00:00Z") };
    let wanted: Vec<&Value> = items.iter().filter(|item| item[time].as_str().is_some_and(|at| at >= own)).collect();
    let found = app.pages(&format!("{path}&from={from}")).await;
    let ids =
        |items: &mut dyn Iterator<Item = &Value>| -> Vec<String> { items.map(|item| item["id"].to_string()).collect() };
    assert_eq!(ids(&mut found.iter()), ids(&mut wanted.into_iter()), "from={from} at {path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_resource_is_synced_by_its_definition_alone() {
    let app = builder().shop("first", 260, 120).start().await;
    app.run_until_idle().await;
    let counted = is_whole(&app).await;
    println!("{counted:?}");
    assert!(counted.values().all(|count| *count > 5), "{counted:?}");
    assert!(counted["promotion_products"] > 100 && counted["offers"] > 200, "several pages: {counted:?}");
    assert_eq!(app.sandbox().audit().unknown_parameters, 0);
    assert!(each_filter_finds_its_own(&app).await > 20);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_resource_has_its_tables_in_mysql() {
    let database = Database::fresh().await;
    let app = builder().mysql(database.url()).shop("first", 60, 40).start().await;
    app.run_until_idle().await;
    let counted = is_whole(&app).await;
    for (resource, count) in counted {
        let rows: Vec<u64> = database.rows(&format!("SELECT COUNT(*) FROM `{resource}`")).await;
        assert_eq!(rows, [count as u64], "{resource}");
    }
    // What is nested finds what holds it, at any depth.
    for (child, parent, key) in [
        ("order_items", "orders", "order_id"),
        ("return_items", "returns", "return_id"),
        ("return_item_processing_results", "return_items", "rma_id"),
        ("replenishment_lines", "replenishments", "replenishment_id"),
        ("promotion_countries", "promotions", "promotion_id"),
        ("offer_bundle_prices", "offers", "offer_id"),
        ("invoice_request_products", "invoice_requests", "shipment_id"),
    ] {
        let text = format!(
            "SELECT COUNT(*), COUNT(p.`{key}`) FROM `{child}` c LEFT JOIN (SELECT DISTINCT shop_id, `{key}` FROM `{parent}`) p \
             ON p.shop_id = c.shop_id AND p.`{key}` = c.`{key}`"
        );
        let rows: Vec<(u64, u64)> = database.rows(&text).await;
        assert!(rows[0].0 > 0 && rows[0].0 == rows[0].1, "{child}: {rows:?}");
    }
    let issued: Vec<(u64, u64)> =
        database.rows("SELECT COUNT(*), COUNT(issue_date AND period_start_date) FROM invoices").await;
    assert_eq!(issued[0].0, issued[0].1, "times since 1970");
    assert!(each_filter_finds_its_own(&app).await > 20);
    app.finish().await;
}

/// The calls of the API since the last reset, by path without query, with how many.
fn calls(app: &TestApp) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for call in app.sandbox().calls().into_iter().filter(|call| !call.token) {
        *counted.entry(call.path).or_default() += 1;
    }
    app.sandbox().reset_audit();
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_orders_and_returns_come_with_the_fewest_calls() {
    let app = builder().resources(&["orders", "returns"]).shop("first", 100, 40).start().await;
    app.run_until_idle().await;
    calls(&app);
    // Nothing changed: one page of what changed in the last minutes, and no more of it; each list of returns.
    app.sync("first", "incremental").await;
    app.run_until_idle().await;
    let quiet = calls(&app);
    let lists = |calls: &BTreeMap<String, usize>, path: &str| -> usize {
        calls.iter().filter(|(key, _)| key.split('?').next() == Some(path)).map(|(_, count)| count).sum()
    };
    assert_eq!(lists(&quiet, "/retailer/orders"), 2, "a page, and the empty one: {quiet:#?}");
    assert!(quiet.keys().all(|path| path.contains('?')), "lists alone: {quiet:#?}");
    let recent = quiet.keys().filter(|path| path.contains("change-interval-minute=")).count();
    assert_eq!(recent, 2, "{quiet:#?}");
    // An open order is shipped; a return is handled.
    app.sandbox().add_shipments("first", Method::Fbr, 1).unwrap();
    let open = app.sandbox().truth_of("first", "returns").into_iter();
    let mut open = open.filter(|(_, document)| document["returnItems"][0]["handled"] == false);
    let (returned, _) = open.next_back().unwrap();
    assert!(app.sandbox().handle_return("first", &returned).unwrap());
    app.sync("first", "incremental").await;
    app.run_until_idle().await;
    let changed = calls(&app);
    assert_eq!(lists(&changed, "/retailer/orders"), 2, "{changed:#?}");
    // A list that has become empty has one page less.
    assert!(lists(&changed, "/retailer/returns") <= lists(&quiet, "/retailer/returns"), "{changed:#?}");
    assert_eq!(changed.get(&format!("/retailer/returns/{returned}")), Some(&1), "{changed:#?}");
    let details = changed.keys().filter(|path| path.starts_with("/retailer/returns/")).count();
    assert_eq!(details, 1, "no other return: {changed:#?}");
    let orders = changed.keys().filter(|path| path.starts_with("/retailer/orders/")).count();
    assert_eq!(orders, 2, "the shipped one, and the one that was placed in its stead: {changed:#?}");
    let item = app.pages("/api/v1/returns?limit=500").await.into_iter().find(|item| item["id"] == returned.as_str());
    assert_eq!(item.unwrap()["document"]["returnItems"][0]["handled"], true);
    // A whole walk sees that it left the one list, and that it is on the other.
    app.sync("first", "full").await;
    app.run_until_idle().await;
    let gone = app.pages("/api/v1/returns?limit=500").await;
    assert!(gone.iter().all(|item| item["no_longer_listed_at"].is_null()));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_is_handled_late_comes_with_the_next_walk_for_news() {
    let app = builder().resources(&["returns"]).shop("first", 2_400, 0).start().await;
    app.run_until_idle().await;
    let all = app.sandbox().truth_of("first", "returns");
    let at = |document: &Value| document["registrationDateTime"].as_str().unwrap().to_owned();
    let handled = |document: &Value| document["returnItems"][0]["handled"] == true;
    let late = all.iter().filter(|(_, document)| !handled(document)).min_by_key(|(_, document)| at(document)).unwrap();
    let newer = all.iter().filter(|(_, document)| handled(document) && at(document) > at(&late.1)).count();
    assert!(newer > 60, "more than a page of {} stand above it: {newer}", all.len());
    assert!(app.sandbox().handle_return("first", &late.0).unwrap());
    app.sync("first", "incremental").await;
    app.run_until_idle().await;
    let item = app.get(&format!("/api/v1/returns/{}/{}", app.shops["first"], late.0)).await;
    assert_eq!(item["document"]["returnItems"][0]["handled"], true, "{item}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_comes_with_the_next_walk() {
    let app = builder().resources(&["offers", "invoices"]).shop("first", 30, 10).start().await;
    app.run_until_idle().await;
    let (known, _) = app.sandbox().truth_of("first", "offers").remove(0);
    app.sandbox().put_offer("first", &known, 77).unwrap();
    app.sandbox().put_offer("first", "ffffffff-0000-4000-8000-000000000000", 5).unwrap();
    let invoice = app.sandbox().add_invoice("first").unwrap();
    calls(&app);
    app.sync("first", "incremental").await;
    app.run_until_idle().await;
    let calls = calls(&app);
    assert_eq!(calls.keys().filter(|path| path.starts_with("/retailer/offers/")).count(), 2, "{calls:#?}");
    assert_eq!(calls.keys().filter(|path| path.starts_with("/retailer/invoices")).count(), 1, "{calls:#?}");
    for resource in ["offers", "invoices"] {
        let truth = app.sandbox().truth_of("first", resource).into_iter().collect::<BTreeMap<_, _>>();
        let items = app.pages(&format!("/api/v1/{resource}?limit=500")).await;
        assert!(items.iter().all(|item| truth[item["id"].as_str().unwrap()] == item["document"]), "{resource}");
        assert_eq!(items.len(), truth.len(), "{resource}");
    }
    assert!(app.pages("/api/v1/invoices?limit=500").await.iter().any(|item| item["id"] == invoice.as_str()));
    app.finish().await;
}
