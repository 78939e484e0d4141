//! The sandbox's controls over HTTP.

use reqwest::Method as Http;
use sandbox::{Audit, Options};
use serde_json::{Value, json};

use super::{Stand, stand};
use crate::support::no_limits;

#[tokio::test]
async fn controls_work_over_http() {
    let stand = stand(Options { limits: no_limits(), ..Options::default() }).await;
    let added = json!({ "client_id": "x", "client_secret": "secret of x", "fbr": 3, "fbb": 2 });
    assert_eq!(stand.control(Http::POST, "shops", added.clone()).await.0, 200);
    assert_eq!(stand.control(Http::POST, "shops", added).await.0, 409);
    let token = stand.token("x").await;
    let (_, truth) = stand.control(Http::GET, "truth?client_id=x", Value::Null).await;
    assert_eq!(truth.lines().count(), 5);
    let line: Value = serde_json::from_str(truth.lines().next().unwrap()).unwrap();
    assert_eq!(line["document"]["shipmentId"], line["id"]);
    let more = json!({ "client_id": "x", "method": "FBB", "count": 2 });
    let (_, ids) = stand.control(Http::POST, "shipments", more).await;
    assert_eq!(serde_json::from_str::<Value>(&ids).unwrap()["ids"].as_array().unwrap().len(), 2);
    let (status, _) = stand.control(Http::POST, "events", json!({ "client_id": "x", "count": 1 })).await;
    assert_eq!(status, 200);
    assert_eq!(stand.control(Http::POST, "rows", json!({ "client_id": "x", "id": line["id"] })).await.0, 200);
    assert_eq!(stand.control(Http::POST, "remove", json!({ "client_id": "x", "id": "none" })).await.0, 404);
    let faults = json!([{ "match": "/retailer/shipments", "kind": "reset", "times": 1 }]);
    assert_eq!(stand.control(Http::POST, "faults", faults).await.0, 200);
    assert!(stand.try_get(&token, "shipments").await.is_err());
    let settings =
        json!({ "limits": { "GET /retailer/shipments": "1/h" }, "token_life_ms": 5000, "expires_in": "soon" });
    assert_eq!(stand.control(Http::POST, "settings", settings).await.0, 200);
    assert_eq!(stand.get(&token, "shipments").await.status(), 200);
    assert_eq!(stand.get(&token, "shipments").await.status(), 429);
    assert_eq!(stand.control(Http::POST, "settings", json!({ "limit": {} })).await.0, 400);
    assert_eq!(stand.control(Http::POST, "tokens/kill", Value::Null).await.1, r#"{"killed":1}"#);
    assert_eq!(stand.control(Http::POST, "login", json!({ "blocked": true })).await.0, 200);
    assert_eq!(stand.login("x", "secret of x").send().await.unwrap().status(), 404);
    let (_, audit) = stand.control(Http::GET, "audit", Value::Null).await;
    let audit: Audit = serde_json::from_str(&audit).unwrap();
    assert_eq!((audit.calls, audit.refused_429, audit.token_requests, audit.faulted), (3, 1, 2, 1));
    let (_, calls) = stand.control(Http::GET, "calls", Value::Null).await;
    assert_eq!(calls.lines().count(), 5);
    assert!(!calls.contains("secret"));
    assert_eq!(stand.control(Http::POST, "audit/reset", Value::Null).await.0, 200);
    assert_eq!(stand.sandbox.audit(), Audit::default());
    let rates = stand.http.get(format!("{}/retailer/public/ratelimits", stand.base)).send().await.unwrap();
    assert!(rates.text().await.unwrap().contains(r#""maxCapacity":"1","#));
    let closed = stand_without_controls().await;
    assert_eq!(closed.control(Http::GET, "audit", Value::Null).await.0, 404);
}

async fn stand_without_controls() -> Stand {
    stand(Options { admin: false, ..Options::default() }).await
}
