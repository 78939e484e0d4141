//! A key that is bound to shops sees these shops only, and no number that others change.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::{ADMIN, BOUND, READ};
use super::{Door, SHOP};

/// What the passing of time changes, and the id of each request.
const BY_ITSELF: [&str; 3] = ["age_seconds", "request_id", "started_at"];

fn without_time(value: &mut Value) {
    match value {
        Value::Object(map) => {
            BY_ITSELF.iter().for_each(|name| drop(map.remove(*name)));
            map.values_mut().for_each(without_time);
        }
        Value::Array(items) => items.iter_mut().for_each(without_time),
        _ => {}
    }
}

/// What the key gets from every GET of the description, of its own shop where a path names one.
async fn answers(door: &Door) -> BTreeMap<String, (u16, Value)> {
    let description = door.get("/openapi.json", ADMIN).await.json();
    let mut found = BTreeMap::new();
    for (template, item) in description["paths"].as_object().unwrap() {
        if item.get("get").is_none() {
            continue;
        }
        let path = template
            .replace("{shop_id}", "{one}")
            .replace("{id}", "id-1")
            .replace("{run_id}", "{run_one}")
            .replace("{resource}", "shipments");
        let got = door.get(&path, BOUND).await;
        assert!(got.status == 200 || got.status == 403, "{path}: {}", got.text);
        let mut value = serde_json::from_str(&got.text).unwrap_or(Value::String(got.text));
        without_time(&mut value);
        found.insert(path, (got.status, value));
    }
    found
}

#[tokio::test]
async fn nothing_that_others_do_shows_to_a_key_of_one_shop() {
    let door = Door::synced().await;
    let before = answers(&door).await;
    assert!(before.len() > 10, "{:?}", before.keys());
    let all = door.get("/api/v1/status", READ).await.json();
    for (method, path, body) in [
        ("POST", "/api/v1/shops", SHOP),
        ("POST", "/api/v1/shops/{two}/parked/retry", ""),
        ("POST", "/api/v1/shops/{two}/sync", "{}"),
        ("PATCH", "/api/v1/shops/{two}", r#"{"name":"Renamed"}"#),
        ("DELETE", "/api/v1/shops/{three}?purge=true", ""),
        ("POST", "/api/v1/keys", r#"{"name":"another"}"#),
    ] {
        let got = door.send(method, path, body).await;
        assert!(got.status < 300, "{method} {path}: {}", got.text);
    }
    let changed = door.get("/api/v1/status", READ).await.json();
    for name in ["pending_jobs", "open_runs", "idle", "parked"] {
        assert_ne!(all[name], changed[name], "{name}: the others did nothing that counts");
    }
    for (path, answer) in answers(&door).await {
        assert_eq!(before.get(&path), Some(&answer), "{path}");
    }
}

#[tokio::test]
async fn a_key_of_one_shop_finds_no_trace_of_another() {
    let door = Door::synced().await;
    let names =
        ["{two}", "{three}", "Shop two", "Shop three", "client-two", "client-three"].map(|name| door.world.fill(name));
    for (path, (status, answer)) in answers(&door).await {
        let text = answer.to_string();
        for name in &names {
            assert!(!text.contains(name.as_str()), "{path} has {name}: {text}");
        }
        let is_for_all = [
            "/metrics",
            "/api/v1/adoptions",
            "/api/v1/calls",
            "/api/v1/keys",
            "/api/v1/master-key",
            "/api/v1/resources/shipments/drift",
        ];
        assert_eq!(status == 403, is_for_all.contains(&path.as_str()), "{path}: {status}");
    }
}

#[tokio::test]
async fn the_status_of_a_key_of_one_shop_has_its_own_numbers() {
    let door = Door::synced().await;
    let own = door.get("/api/v1/status", BOUND).await.json();
    for name in ["calls", "refused_429", "logins", "calls_since", "waiting_jobs", "outbox", "outbox_bytes"] {
        assert_eq!(own.get(name), Some(&Value::Null), "{name} counts all shops");
    }
    let all = door.get("/api/v1/status", READ).await.json();
    assert!(all["calls"].as_u64() > Some(0) && all["logins"] == 3 && all["outbox"] == 0, "{all}");
    assert_eq!((&own["parked"], &all["parked"]), (&json!(1), &json!(2)));
    assert_eq!((&own["idle"], &own["open_runs"], &own["pending_jobs"]), (&json!(true), &json!(0), &json!(0)));
    // Work of its own shop shows.
    assert_eq!(door.send("POST", "/api/v1/shops/{one}/sync", "{}").await.status, 202);
    let busy = door.get("/api/v1/status", BOUND).await.json();
    assert_eq!((&busy["idle"], &busy["open_runs"], &busy["pending_jobs"]), (&json!(false), &json!(2), &json!(2)));
}
