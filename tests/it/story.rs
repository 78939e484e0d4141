//! What the log says of a service's life, and counts of calls that survive its ends.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::app::eventually;
use crate::support::program::{Folder, Market, Serving, lossy};

const SECRET: &str = "canary-client-secret-51c0ffee";
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
const IDLE_WITHIN: Duration = Duration::from_secs(120);
/// Calls that may be in flight at a kill: those of a lane of pages and of one of details.
const IN_FLIGHT_MAX: u64 = 128;

async fn market(rows: usize) -> Market {
    let shop = |client: &str| ShopOptions { client_id: client.into(), client_secret: SECRET.into(), fbr: rows, fbb: 0 };
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    let latency = Duration::from_millis(2);
    Market::open(Options { shops: vec![shop("first"), shop("second")], limits, latency, ..Options::default() }).await
}

async fn register(serving: &Serving, client: &str) -> String {
    let shop = json!({"name": client, "client_id": client, "client_secret": SECRET});
    let answer = serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
}

async fn walk(serving: &Serving, shop: &str) {
    let path = format!("/api/v1/shops/{shop}/sync");
    let answer = serving.call(Method::POST, &path).json(&json!({"mode": "full"})).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    serving.idle(IDLE_WITHIN).await;
}

/// The events of the log; every line of both outputs must be one.
fn events(folder: &Folder) -> Vec<Value> {
    let said = ["serve.stdout", "serve.stderr"].map(|name| lossy(&folder.path(name))).concat();
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

fn with_message<'a>(events: &'a [Value], message: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_started_and_how_each_run_ended() {
    let market = market(60).await;
    let mut folder = Folder::at(&market.base, LIFTED);
    folder.set("WAYBILL_LOG_FORMAT", "json");
    let serving = folder.serve();
    let shop = register(&serving, "first").await;
    serving.idle(IDLE_WITHIN).await;
    // A run that fails, and what is tried again on the way there.
    let body = FaultBody::default();
    let error = FaultKind::Status { code: 400, body: body.clone(), headers: BTreeMap::default() };
    market.sandbox.set_faults(vec![Fault::always("/retailer/shipments?", error)]);
    walk(&serving, &shop).await;
    market.sandbox.set_faults(Vec::new());
    let error = FaultKind::Status { code: 500, body, headers: BTreeMap::default() };
    market.sandbox.set_faults(vec![Fault::times("/retailer/shipments?", error, 2)]);
    walk(&serving, &shop).await;
    assert_eq!(serving.terminate().0, Some(0));
    let events = events(&folder);
    let started = with_message(&events, "waybill started");
    assert_eq!(started.len(), 1);
    assert_eq!((&started[0]["sink"], &started[0]["resources"]), (&json!("archive"), &json!("shipments")));
    assert!(started[0]["configuration"].as_str().unwrap().ends_with("waybill.toml"), "{}", started[0]);
    assert!(started[0]["next_sync"].as_str().unwrap().ends_with('Z'), "{}", started[0]);
    assert_eq!(events.iter().filter(|event| said(event).starts_with("waybill listens on ")).count(), 1);
    let stopped = with_message(&events, "waybill stopped");
    assert_eq!(stopped.len(), 1);
    for (field, value) in [("drained", json!(true)), ("open_runs", json!(0)), ("sink_entries", json!(0))] {
        assert_eq!(stopped[0][field], value, "{}", stopped[0]);
    }
    assert!(with_message(&events, "resuming what the last process left").is_empty(), "a first start");
    for event in &events {
        let time = event["timestamp"].as_str().unwrap();
        assert_eq!(time.len(), "2026-11-30T11:05:32.852414Z".len(), "{event}");
    }
    let ended = with_message(&events, "run ended");
    let first: Vec<&&Value> = ended.iter().filter(|run| run["listed"] == 60).collect();
    assert_eq!(first[0]["level"], "INFO");
    for (field, value) in [("result", json!("done")), ("fetched", json!(60)), ("written", json!(60))] {
        assert_eq!(first[0][field], value, "{}", first[0]);
    }
    assert_eq!((&first[0]["shop.id"], &first[0]["resource"]), (&json!(shop), &json!("shipments")));
    assert!(first[0]["parameters"].as_str().unwrap().contains("FBR") && first[0]["seconds"].is_u64(), "{}", first[0]);
    let failed: Vec<&&Value> = ended.iter().filter(|run| run["result"] == "failed").collect();
    assert!(!failed.is_empty() && failed.iter().all(|run| run["level"] == "WARN"), "{ended:?}");
    assert!(failed[0]["error"].as_str().unwrap().contains("400"), "{}", failed[0]);
    let again = with_message(&events, "calls failed and are retried");
    assert_eq!(again.iter().map(|line| line["calls"].as_u64().unwrap()).sum::<u64>(), 2, "{again:?}");
    assert_eq!((&again[0]["shop.id"], &again[0]["rule"]), (&json!(shop), &json!("GET /retailer/shipments")));
    assert!(again[0]["error"].as_str().unwrap().contains("500"), "{}", again[0]);
}

fn said(event: &Value) -> &str {
    event["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_key_of_a_first_start_is_an_event_too() {
    let market = market(1).await;
    let mut folder = Folder::at(&market.base, LIFTED);
    folder.set("WAYBILL_ADMIN_KEY", "");
    folder.set("WAYBILL_LOG_FORMAT", "json");
    assert_eq!(folder.serve().terminate().0, Some(0));
    let events = events(&folder);
    let key = std::fs::read_to_string(folder.path("data.admin-key")).unwrap();
    assert!(
        events.iter().any(|event| said(event).contains("created an admin API key, as there was none; it is in")),
        "{events:?}"
    );
    assert!(!folder.said().contains(key.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_after_a_kill_says_what_it_resumes() {
    let market = market(400).await;
    let mut folder = Folder::at(
        &market.base,
        "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"20/h\"\n",
    );
    folder.set("WAYBILL_LOG_FORMAT", "json");
    let serving = folder.serve();
    register(&serving, "first").await;
    eventually("an open run", async || {
        let status = serving.get("/api/v1/status").await;
        (status["open_runs"].as_u64() > Some(0) && status["pending_jobs"].as_u64() > Some(10)).then_some(())
    })
    .await;
    serving.kill();
    assert_eq!(folder.serve().terminate().0, Some(0));
    let events = events(&folder);
    let resumed = with_message(&events, "resuming what the last process left");
    assert_eq!(resumed.len(), 1, "{events:?}");
    assert!(resumed[0]["open_runs"].as_u64() > Some(0) && resumed[0]["jobs"].as_u64() > Some(10), "{}", resumed[0]);
    let stopped = with_message(&events, "waybill stopped");
    assert!(stopped.len() == 1 && stopped[0]["jobs"].as_u64() > Some(10), "{stopped:?}");
}

/// Calls by rule, as the service counted them over its lives.
async fn counted(serving: &Serving) -> BTreeMap<String, u64> {
    let mut rules = BTreeMap::new();
    for item in serving.get("/api/v1/calls?days=90").await["items"].as_array().unwrap() {
        let statuses: u64 = item["statuses"].as_object().unwrap().values().map(|calls| calls.as_u64().unwrap()).sum();
        assert_eq!(json!(statuses), item["calls"], "{item}");
        *rules.entry(item["rule"].as_str().unwrap().to_owned()).or_default() += statuses;
    }
    rules
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_calls_survive_restarts_and_agree_with_the_audit() {
    let market = market(400).await;
    let folder = Folder::at(&market.base, LIFTED);
    let mut serving = folder.serve();
    let shop = register(&serving, "first").await;
    serving.idle(IDLE_WITHIN).await;
    let error = |code| FaultKind::Status { code, body: FaultBody::default(), headers: BTreeMap::default() };
    let faults = [500, 429].map(|code| Fault::times("/retailer/shipments?", error(code), 1));
    market.sandbox.set_faults(faults.to_vec());
    walk(&serving, &shop).await;
    for _ in 0..2 {
        let status = serving.get("/api/v1/status").await;
        let audit = market.sandbox.audit();
        assert_eq!(status["calls"], json!(audit.calls));
        assert_eq!((&status["refused_429"], &status["logins"]), (&json!(1), &json!(audit.token_requests)));
        assert!(status["calls_since"].is_string(), "{status}");
        let mut rules = counted(&serving).await;
        assert_eq!(rules.remove("login"), Some(audit.token_requests));
        assert_eq!(rules, audit.by_rule);
        let metrics = serving.call(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        for (labels, calls) in [("429", 1), ("5xx", 1)] {
            let line = format!("waybill_calls_total{{rule=\"GET /retailer/shipments\",status=\"{labels}\"}} {calls}\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
        assert!(metrics.contains("waybill_refused_429_total{rule=\"GET /retailer/shipments\"} 1\n"), "{metrics}");
        assert_eq!(serving.terminate().0, Some(0));
        serving = folder.serve();
    }
    // A kill in the middle of the work loses at most the calls that were in flight.
    let before = market.sandbox.audit().calls;
    register(&serving, "second").await;
    eventually("half of the work", async || (market.sandbox.audit().calls > before + 150).then_some(())).await;
    serving.kill();
    let serving = folder.serve();
    let status = serving.idle(IDLE_WITHIN).await;
    let (calls, audit) = (status["calls"].as_u64().unwrap(), market.sandbox.audit().calls);
    assert!(calls <= audit && audit - calls <= IN_FLIGHT_MAX, "{calls} counted of {audit}");
    assert!(calls > before, "{calls} counted, {before} before");
    assert_eq!(serving.terminate().0, Some(0));
}
