//! Health, through the front door: what fails is visible within a schedule, and its end too.

use reqwest::Method as Verb;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::app::{TestApp, eventually, secret};
use crate::support::no_limits;
use crate::support::program::{Folder, Market};

const EACH_SECOND: &str = "* * * * * *";

fn server_error() -> FaultKind {
    FaultKind::Status { code: 500, body: FaultBody::Json, headers: Default::default() }
}

async fn resource(app: &TestApp, client: &str, name: &str) -> Value {
    let shop = app.get(&format!("/api/v1/shops/{}", app.shops[client])).await;
    let found = shop["resources_health"].as_array().unwrap().iter().find(|one| one["resource"] == name).cloned();
    found.unwrap_or_else(|| panic!("{name}: {shop}"))
}

async fn is_in(app: &TestApp, client: &str, state: &str) -> Value {
    let what = format!("{client} to be {state}");
    eventually(&what, async || Some(resource(app, client, "shipments").await).filter(|one| one["state"] == state)).await
}

/// The reason of a status that is about a shop.
async fn reason(app: &TestApp, client: &str) -> Option<Value> {
    let status = app.status().await;
    let reasons = status["health"]["reasons"].as_array().unwrap().clone();
    reasons.into_iter().find(|reason| reason["shop_id"] == app.shops[client].as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_switched_off_shows_at_once_and_its_runs_end() {
    let app = TestApp::builder().sync_at(EACH_SECOND).shop("off", 120, 0).shop("on", 20, 0).start().await;
    is_in(&app, "off", "fresh").await;
    app.sandbox().set_active("off", false).unwrap();
    app.sandbox().kill_tokens();
    let refused = is_in(&app, "off", "refused").await;
    assert_eq!((&refused["next_due_at"], refused["last_success_at"].is_string()), (&Value::Null, true), "{refused}");
    assert!(refused["remedy"].as_str().unwrap().contains(&app.shops["off"]), "{refused}");
    let why = reason(&app, "off").await.unwrap();
    assert_eq!((&why["code"], &why["resource"]), (&json!("refused"), &json!("shipments")), "{why}");
    assert_eq!(app.status().await["health"]["level"], "failing");
    // Its runs end, with the reason; none starts.
    let stopped = eventually("the end of its runs", async || {
        let runs = app.runs("off").await;
        runs.iter().all(|run| !run["ended_at"].is_null()).then_some(runs)
    })
    .await;
    let stopped: Vec<&Value> = stopped.iter().filter(|run| run["state"] == "stopped").collect();
    assert!(!stopped.is_empty() && stopped[0]["error"].as_str().unwrap().contains("refused"), "{stopped:?}");
    // The other shop goes on.
    is_in(&app, "on", "fresh").await;
    // While it is off, the host is asked each time the secret is given, and says no.
    let same = json!({"client_secret": secret("off")});
    let logins = || app.sandbox().calls().iter().filter(|call| call.token && call.client_id == "off").count();
    let before = logins();
    assert_eq!(app.patch("off", same.clone()).await.0, 422);
    assert_eq!(logins(), before + 1, "one login");
    // Switched on again, the same secret is the remedy, at once.
    app.sandbox().set_active("off", true).unwrap();
    assert_eq!(app.patch("off", same).await.0, 200);
    is_in(&app, "off", "fresh").await;
    assert_eq!(reason(&app, "off").await, None);
    assert_eq!(app.patch("off", json!({"paused": true})).await.0, 200);
    app.patch("on", json!({"paused": true})).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_answers_500_to_everything_is_failing_until_it_answers_again() {
    let builder = TestApp::builder().toml("[limits]\nattempts_max = 2").sync_at(EACH_SECOND);
    let mut app = builder.shop("ill", 60, 0).start().await;
    is_in(&app, "ill", "fresh").await;
    assert_eq!(app.status().await["health"], json!({"level": "ok", "reasons": []}));
    app.sandbox().set_faults(vec![Fault::always("/retailer", server_error())]);
    let failing = is_in(&app, "ill", "failing").await;
    assert_eq!(failing["last_error"]["class"], "unavailable", "{failing}");
    let why = reason(&app, "ill").await.unwrap();
    assert!(why["text"].as_str().unwrap().contains("500") && why["since"].is_string(), "{why}");
    // After all attempts its runs fail, and it goes on failing.
    eventually("a failed run", async || app.runs("ill").await.iter().any(|run| run["state"] == "failed").then_some(()))
        .await;
    assert_eq!(resource(&app, "ill", "shipments").await["state"], "failing");
    app.sandbox().set_faults(Vec::new());
    let well = is_in(&app, "ill", "fresh").await;
    assert_eq!((&well["reason"], &well["remedy"]), (&Value::Null, &Value::Null), "{well}");
    app.patch("ill", json!({"paused": true})).await;
    let failed = app.runs("ill").await.iter().filter(|run| run["state"] == "failed").count();
    app.expect_failed_runs(failed);
    let parked = app.status().await["parked"].as_u64().unwrap();
    app.expect_parked(parked);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_shop_says_so_and_its_open_runs_end() {
    let app = TestApp::builder().limits(["10/s", "10/s"]).shop("rests", 400, 0).start().await;
    eventually("a page", async || (app.sandbox().audit().list_pages > 1).then_some(())).await;
    let first = resource(&app, "rests", "shipments").await;
    assert_eq!((&first["state"], &first["age_seconds"]), (&json!("behind"), &Value::Null), "{first}");
    assert_eq!(app.patch("rests", json!({"paused": true})).await.0, 200);
    let paused = is_in(&app, "rests", "paused").await;
    assert_eq!(paused["reason"], "paused on request");
    let runs = app.runs("rests").await;
    assert!(runs.iter().all(|run| !run["ended_at"].is_null()), "{runs:?}");
    let stopped: Vec<&Value> = runs.iter().filter(|run| run["state"] == "stopped").collect();
    assert!(!stopped.is_empty(), "{runs:?}");
    assert!(stopped.iter().all(|run| run["error"] == "the shop was paused on request"), "{runs:?}");
    assert_eq!(app.status().await["health"]["level"], "attention");
    app.run_until_idle().await;
    assert_eq!(
        app.call(Verb::PATCH, &format!("/api/v1/shops/{}", app.shops["rests"]), Some(json!({"paused": false}))).await.0,
        200
    );
    is_in(&app, "rests", "fresh").await;
    app.run_until_idle().await;
    assert_eq!(app.pages("/api/v1/shipments?limit=500").await.len(), 400, "what it lacked is read");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_success_survives_a_restart() {
    let mut app = TestApp::builder().shop("old", 20, 0).start().await;
    app.run_until_idle().await;
    let before = resource(&app, "old", "shipments").await["last_success_at"].clone();
    assert!(before.is_string());
    app.restart().await;
    let after = resource(&app, "old", "shipments").await;
    assert_eq!((&after["state"], &after["last_success_at"]), (&json!("fresh"), &before), "it is durable");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_health_at_rest_and_exits_by_it() {
    let shop = ShopOptions { client_id: "first".into(), client_secret: "s3cret".into(), fbr: 30, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let folder = Folder::at(&market.base, "");
    let none = folder.run(&["status"]).expect(0);
    assert!(none.out.contains("no shops yet"), "{}", none.out);
    let nothing: Value = serde_json::from_str(&folder.run(&["status", "--json"]).expect(0).out).unwrap();
    assert_eq!(nothing, json!({"health": {"level": "ok", "reasons": []}, "shops": []}));
    folder.write("secret.txt", "s3cret");
    let add = ["shops", "add", "--name", "First", "--client-id", "first", "--secret-file"];
    let secret = folder.path("secret.txt").display().to_string();
    folder.run(&[&add[..], &[secret.as_str()]].concat()).expect(0);
    let first = folder.run(&["status"]).expect(1);
    assert!(first.out.contains("health: attention") && first.out.contains("first walk"), "{}", first.out);
    folder.run(&["sync", "--quiet"]).expect(0);
    let well = folder.run(&["status"]).expect(0);
    assert!(well.out.contains("fresh") && well.out.contains("health: ok"), "{}", well.out);
    market.sandbox.set_active("first", false).unwrap();
    market.sandbox.kill_tokens();
    folder.run(&["sync", "--quiet"]).expect(1);
    let refused = folder.run(&["status", "--json"]).expect(1);
    let reported: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(reported["health"]["level"], "failing", "{reported}");
    let of = &reported["shops"][0]["resources_health"][0];
    assert_eq!((&of["resource"], &of["state"]), (&json!("shipments"), &json!("refused")), "{reported}");
    let remedy = reported["health"]["reasons"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains(reported["shops"][0]["id"].as_str().unwrap()), "{reported}");
    // While a server has the directory, it is asked, and its remedy is a call to it.
    let serving = folder.serve();
    let asked = folder.run(&["status"]).expect(1);
    assert!(asked.out.contains("refused") && asked.out.contains("PATCH /api/v1/shops/"), "{}", asked.out);
    assert_eq!(serving.terminate().0, Some(0));
}
