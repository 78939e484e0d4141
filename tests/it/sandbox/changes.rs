//! How what the sandbox serves beside shipments changes: by the controls, never by time alone.

use std::collections::BTreeMap;

use reqwest::Method as Http;
use sandbox::Method;
use serde_json::{Value, json};

use super::NOW;
use super::resources::{by_id, one_shop, rows};
use crate::support::CATALOG;

#[tokio::test]
async fn returns_move_from_one_list_to_the_other() {
    let (stand, token) = one_shop(1_500, 300).await;
    let lists = ["returns?handled=false", "returns?handled=true"];
    let [open, handled] = lists.map(|path| format!("{path}&fulfilment-method=FBR"));
    let (before, done) = (stand.pages(&token, &open, "returns").await, stand.pages(&token, &handled, "returns").await);
    let times = |rows: &[Value]| -> Vec<i64> {
        let time = |row: &Value| row["registrationDateTime"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        rows.iter().map(|row| time(row).as_millisecond()).collect()
    };
    assert!(before.len() > 20 && times(&before).is_sorted(), "oldest first");
    assert!(done.len() > 100 && times(&done).iter().rev().is_sorted(), "newest first");
    let results = |row: &Value| row["returnItems"][0].get("processingResults").is_some();
    assert!(before.iter().all(|row| !results(row)) && done.iter().all(results));
    let reason = |row: &Value, key: &str| row["returnItems"][0]["returnReason"].get(key).is_some();
    assert!(before.iter().any(|row| !reason(row, "customerComments")));
    assert!(before.iter().any(|row| !reason(row, "detailedReason")));
    assert_eq!(stand.json(&token, "returns").await["returns"][0], before[0], "the defaults");

    let id = before[3]["returnId"].as_str().unwrap();
    assert!(stand.sandbox.handle_return("a", id).unwrap());
    assert!(!stand.sandbox.handle_return("a", id).unwrap(), "once");
    assert!(!stand.sandbox.handle_return("a", "none").unwrap());
    let (after, done) = (stand.pages(&token, &open, "returns").await, stand.pages(&token, &handled, "returns").await);
    assert!(after.iter().all(|row| row["returnId"] != id));
    let moved = done.iter().find(|row| row["returnId"] == id).unwrap();
    assert_eq!(moved["returnItems"][0]["handled"], true);
    let detail = stand.json(&token, &format!("returns/{id}")).await;
    assert_eq!(detail["returnItems"][0]["processingResults"], moved["returnItems"][0]["processingResults"]);
    let added = stand.sandbox.add_return("a").unwrap();
    let after = stand.pages(&token, &open, "returns").await;
    assert_eq!(after.last().unwrap()["returnId"], added, "the newest comes last");
}

#[tokio::test]
async fn orders_are_filtered_and_change() {
    let (stand, token) = one_shop(300, 120).await;
    let ids = |list: &Value| by_id(&rows(list, "orders"), "orderId").into_keys().collect::<Vec<_>>();
    let open = stand.json(&token, "orders?status=OPEN&fulfilment-method=FBR").await;
    assert_eq!(stand.json(&token, "orders").await, open, "the defaults");
    let all = ids(&stand.json(&token, "orders?status=ALL&fulfilment-method=ALL").await);
    for method in ["FBR", "FBB"] {
        for status in ["OPEN", "SHIPPED"] {
            let list = stand.json(&token, &format!("orders?status={status}&fulfilment-method={method}")).await;
            let state = if status == "OPEN" { "OPEN" } else { "HANDLED" };
            assert!(!rows(&list, "orders").is_empty(), "{status} {method}");
            for order in rows(&list, "orders") {
                let item = &order["orderItems"][0];
                assert_eq!((&item["fulfilmentMethod"], &item["fulfilmentStatus"]), (&json!(method), &json!(state)));
                assert!(all.iter().any(|id| order["orderId"] == *id));
            }
        }
    }
    stand.clock.set(NOW + 7_200_000);
    assert_eq!(stand.json(&token, "orders?status=OPEN&fulfilment-method=FBR").await, open, "time alone changes none");
    let interval = "orders?status=ALL&fulfilment-method=ALL&change-interval-minute=60";
    assert_eq!(stand.json(&token, interval).await, json!({}));

    // One that was handled weeks ago; its change is seen by every filter of changes.
    let day = "orders?status=ALL&latest-change-date=2026-10-01";
    let old = ids(&stand.json(&token, day).await).remove(0);
    let before = stand.json(&token, &format!("orders/{old}")).await;
    assert!(stand.sandbox.change_order("a", &old).unwrap());
    assert!(!stand.sandbox.change_order("a", "4123456788").unwrap());
    assert_eq!(ids(&stand.json(&token, interval).await), [old.as_str()]);
    assert!(!ids(&stand.json(&token, day).await).contains(&old), "its latest change is another day");
    assert!(ids(&stand.json(&token, "orders?status=ALL&latest-change-date=2026-11-22").await).contains(&old));
    let after = stand.json(&token, &format!("orders/{old}")).await;
    let latest = after["orderItems"][0]["latestChangedDateTime"].as_str().unwrap();
    assert_eq!(latest.parse::<jiff::Timestamp>().unwrap().as_millisecond(), NOW + 7_200_000);
    assert_ne!(after["orderItems"][0]["cancellationRequest"], before["orderItems"][0]["cancellationRequest"]);
    let added = stand.sandbox.add_order("a", Method::Fbr).unwrap();
    assert_eq!(stand.json(&token, "orders").await["orders"][0]["orderId"], added);
    stand.sandbox.add_shipments("a", Method::Fbr, 5).unwrap();
    assert!(ids(&stand.json(&token, "orders?status=SHIPPED").await).contains(&added), "handled under its id");
    let placed = |list: &Value| rows(list, "orders").iter().map(|row| row["orderPlacedDateTime"].clone()).next();
    assert!(placed(&stand.json(&token, "orders?status=SHIPPED").await).is_some());
    for odd in ["4123456790", "A2K8", "A2K8zzzz", "a2k80000", "", "99999999999999999999"] {
        assert_eq!(stand.get(&token, &format!("orders/{odd}")).await.status(), 404, "{odd}");
    }
}

#[tokio::test]
async fn a_document_of_each_resource_can_be_added_and_changed() {
    let (stand, _) = one_shop(200, 60).await;
    for resource in CATALOG {
        let before = stand.truth_of(resource);
        let (status, body) = stand.control(Http::POST, "add", json!({ "client_id": "a", "resource": resource })).await;
        assert_eq!(status, 200, "{resource} {body}");
        let id = serde_json::from_str::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned();
        let added = stand.truth_of(resource);
        // A shipment hands its open order on to the next in line; the others are one more.
        assert!(added.len() == before.len() + 1 && added.contains_key(&id) && !before.contains_key(&id), "{resource}");
        let change = json!({ "client_id": "a", "resource": resource, "id": id });
        let (status, body) = stand.control(Http::POST, "change", change).await;
        assert_eq!(status.as_u16(), if resource == "invoices" { 404 } else { 200 }, "{resource} {body}");
        let changed = stand.truth_of(resource);
        assert_eq!(changed.len(), added.len(), "{resource}");
        let others = |all: &BTreeMap<String, Value>| all.iter().filter(|(key, _)| **key != id).count();
        let same = changed.iter().filter(|(key, value)| added.get(*key) == Some(*value)).count();
        assert_eq!(same, if resource == "invoices" { changed.len() } else { others(&changed) }, "{resource}");
        let path = format!("truth?client_id=a&resource={resource}");
        let (_, lines) = stand.control(Http::GET, &path, Value::Null).await;
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let given = lines.map(|line| (line["id"].as_str().unwrap().to_owned(), line["document"].clone()));
        assert_eq!(given.collect::<BTreeMap<_, _>>(), changed, "{resource}");
    }
    assert_eq!(stand.control(Http::GET, "truth?client_id=a&resource=parcels", Value::Null).await.0, 404);
    let wrong = json!({ "client_id": "a", "resource": "parcels" });
    assert_eq!(stand.control(Http::POST, "add", wrong).await.0, 404);
    let order = json!({ "client_id": "a", "method": "FBB" });
    assert_eq!(stand.control(Http::POST, "orders", order).await.0, 200);
}
