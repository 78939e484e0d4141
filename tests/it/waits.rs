//! What an open run waits for, as `GET /api/v1/runs` says it; and a list whose first page fails while all else works.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};
use waybill::domain::{Clock, Timestamp};

use crate::support::app::{TestApp, eventually};
use crate::support::mariadb::{Database, MariaDb};
use crate::support::program::{Folder, Market, Serving};

const LIST: &str = "GET /retailer/shipments";
const DETAIL: &str = "GET /retailer/shipments/*";

/// A market and a service with these limits on both sides; the shop has 3 pages. With a MySQL it has more than the
/// outbox takes.
async fn serving(list: &str, detail: &str, faults: Vec<Fault>, mysql: Option<&str>) -> (Market, Folder, Serving) {
    let fbr = if mysql.is_some() { 4_000 } else { 120 };
    let limits = BTreeMap::from([(LIST.to_owned(), list.to_owned()), (DETAIL.to_owned(), detail.to_owned())]);
    let shop = ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await;
    market.sandbox.set_faults(faults);
    let own = format!(
        "[limits]\noutbox_max_bytes = \"1MiB\"\n[source.limits]\n\"{LIST}\" = \"{list}\"\n\"{DETAIL}\" = \"{detail}\"\n"
    );
    let mut folder = Folder::at(&market.base, &own);
    if let Some(url) = mysql {
        folder.set("WAYBILL_MYSQL_URL", url);
    }
    let serving = folder.serve();
    let shop = json!({"name": "First", "client_id": "first", "client_secret": "s3cret"});
    assert_eq!(serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap().status(), 201);
    (market, folder, serving)
}

/// What the first run that waits for this says of it.
async fn waits_for(serving: &Serving, reason: &str) -> Value {
    let found = async || {
        let runs = serving.get("/api/v1/runs").await;
        let waits = runs["items"].as_array().unwrap().iter().map(|run| run["waits_for"].clone());
        waits.into_iter().find(|wait| wait["reason"] == reason)
    };
    eventually(&format!("a run that waits for {reason}"), found).await
}

fn is_ahead(time: &Value) -> bool {
    let now = Clock::system().now();
    time.as_str().is_some_and(|text| Timestamp::from(text.parse::<jiff::Timestamp>().unwrap()) > now)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_that_it_waits_for_its_rate_limit_and_until_when() {
    let (_market, _folder, serving) = serving("1/h", "none", Vec::new(), None).await;
    let wait = waits_for(&serving, "rate_limit").await;
    assert!(is_ahead(&wait["until"]) && wait["text"] == "the rate limit", "{wait}");
    let status = serving.get("/api/v1/status").await;
    let budget = status["budgets"].as_array().unwrap().iter().find(|budget| budget["rule"] == LIST).unwrap();
    assert!(is_ahead(&budget["next_free_at"]), "{budget}");
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_that_the_api_asked_for_a_pause() {
    let headers = BTreeMap::from([("retry-after".to_owned(), "3000".to_owned())]);
    let busy = FaultKind::Status { code: 429, body: FaultBody::Json, headers };
    let faults = vec![Fault::always("/retailer/shipments?", busy)];
    let (_market, _folder, serving) = serving("none", "none", faults, None).await;
    let wait = waits_for(&serving, "retry_after").await;
    assert!(is_ahead(&wait["until"]), "{wait}");
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_that_its_calls_fail() {
    let down = FaultKind::Status { code: 503, body: FaultBody::Json, headers: BTreeMap::new() };
    let faults = vec![Fault::always("/retailer/shipments?", down)];
    let (market, _folder, serving) = serving("none", "none", Vec::new(), None).await;
    // The next walk could be forecast from this one.
    serving.idle(Duration::from_secs(60)).await;
    let shop = serving.get("/api/v1/shops").await["items"][0]["id"].as_str().unwrap().to_owned();
    market.sandbox.set_faults(faults);
    let path = format!("/api/v1/shops/{shop}/sync");
    let answer = serving.call(Method::POST, &path).json(&json!({"mode": "full"})).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let wait = waits_for(&serving, "api").await;
    assert!(wait["text"].as_str().unwrap().contains("503"), "{wait}");
    // Not while the call is under way.
    let paused = async || is_ahead(&waits_for(&serving, "api").await["until"]).then_some(());
    eventually("a time at which it is tried again", paused).await;
    let runs = serving.get("/api/v1/runs").await;
    let failing = runs["items"].as_array().unwrap().iter().find(|run| run["waits_for"]["reason"] == "api").unwrap();
    assert!(failing["pages_expected"].is_u64() && failing["forecast_at"].is_null(), "{failing}");
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_that_it_waits_for_the_sink() {
    let mut server = tokio::task::block_in_place(MariaDb::start);
    let url = Database::on(&server.url()).await.url();
    let (_market, _folder, serving) = serving("none", "none", Vec::new(), Some(&url)).await;
    tokio::task::block_in_place(|| server.kill());
    let wait = waits_for(&serving, "sink").await;
    assert!(wait["text"].as_str().unwrap().starts_with("the sink"), "{wait}");
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_whose_first_page_fails_for_good_fails_alone() {
    let down = FaultKind::Status { code: 500, body: FaultBody::Json, headers: BTreeMap::new() };
    let builder = TestApp::builder().resources(&["shipments", "returns"]).toml("[limits]\nattempts_max = 2");
    let limits = "\"GET /retailer/returns\" = \"none\"\n\"GET /retailer/returns/*\" = \"none\"\n";
    let mut app = builder.limits_too(limits).unregistered().shop("part", 60, 10).start().await;
    app.sandbox().set_faults(vec![Fault::always("/retailer/returns?", down)]);
    app.register("part").await;
    app.run_until_idle().await;
    let shop = app.get(&format!("/api/v1/shops/{}", app.shops["part"])).await;
    let state = |resource: &str| {
        let of = |one: &&Value| one["resource"] == resource;
        shop["resources_health"].as_array().unwrap().iter().find(of).unwrap()["state"].clone()
    };
    assert_eq!((state("shipments"), state("returns")), (json!("fresh"), json!("failing")));
    let runs = app.runs("part").await;
    let failed = runs.iter().filter(|run| run["resource"] == "returns").count();
    for run in runs {
        let is_failed = run["resource"] == "returns";
        assert_eq!(run["state"], if is_failed { "failed" } else { "done" }, "{run}");
        assert!(!is_failed || run["error"].as_str().unwrap().contains("500"), "{run}");
    }
    let reasons = app.status().await["health"]["reasons"].clone();
    let about: Vec<&Value> = reasons.as_array().unwrap().iter().map(|reason| &reason["resource"]).collect();
    assert!(!about.is_empty() && about.iter().all(|resource| **resource == "returns"), "{reasons}");
    // The first page of each list, and the second where other calls were answered meanwhile.
    let parked = app.status().await["parked"].as_u64().unwrap();
    assert!((failed as u64..=2 * failed as u64).contains(&parked), "{parked} of {failed}");
    app.expect_failed_runs(failed);
    app.expect_parked(parked);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_page_that_fails_alone_closes_no_page_behind_it() {
    let down = FaultKind::Status { code: 500, body: FaultBody::Json, headers: BTreeMap::new() };
    let limits = "\"GET /retailer/returns\" = \"none\"\n\"GET /retailer/returns/*\" = \"none\"\n";
    // The details of the other list are read all the while.
    let builder = TestApp::builder().resources(&["shipments", "returns"]).limits(["none", "20/s"]).limits_too(limits);
    let builder = builder.toml("[limits]\nattempts_max = 4").unregistered().shop("part", 150, 0);
    let mut app = builder.start().await;
    let first = |handled: &str, by: &str| {
        // In either order of the parameters.
        let names = [format!("handled={handled}"), format!("fulfilment-method={by}")];
        [[0, 1], [1, 0]].map(|[a, b]| format!("/retailer/returns?{}&{}&page=1", names[a], names[b]))
    };
    let prefixes = ["true", "false"].into_iter().flat_map(|handled| ["FBR", "FBB"].map(|by| first(handled, by)));
    let faults = prefixes.flatten().map(|prefix| Fault::always(&prefix, down.clone()));
    app.sandbox().set_faults(faults.collect());
    app.register("part").await;
    app.run_until_idle().await;
    let runs = app.runs("part").await;
    let of_returns: Vec<&Value> = runs.iter().filter(|run| run["resource"] == "returns").collect();
    for run in &of_returns {
        let error = run["error"].as_str().unwrap_or_default();
        assert!(run["state"] == "unproved" && error.starts_with("page 1 could not be read"), "{run}");
    }
    assert!(of_returns.iter().any(|run| run["pages"].as_u64() > Some(0)), "{of_returns:?}");
    assert!(runs.iter().all(|run| run["resource"] == "returns" || run["state"] == "done"), "{runs:?}");
    app.expect_parked(of_returns.len() as u64);
    app.finish().await;
}
