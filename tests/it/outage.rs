//! What breaks heals by itself, loses nothing, and gives up only where trying again cannot help.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method as Verb;
use sandbox::{Fault, FaultBody, FaultKind};
use serde_json::{Value, json};

use crate::support::app::{TestApp, eventually};
use crate::support::mariadb::{Database, MariaDb};
use crate::support::{is_full, oracle};

async fn read_at_least(app: &TestApp, count: u64) {
    let what = format!("{count} details");
    eventually(&what, async || (app.sandbox().audit().details_distinct >= count).then_some(())).await;
}

async fn sink_is_unhealthy(app: &TestApp) -> Value {
    let look = async || Some(app.status().await).filter(|status| status["sink"]["healthy"] == false);
    eventually("an unhealthy sink", look).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mysql_that_is_killed_in_the_middle_loses_nothing() {
    let mut server = tokio::task::block_in_place(MariaDb::start);
    let database = Database::on(&server.url()).await;
    let builder = TestApp::builder().mysql(database.url()).limits(["50/s", "100/s"]);
    let scale = if is_full() { 20 } else { 1 };
    let app = builder.shop("left", 300 * scale, 0).shop("right", 200 * scale, 100 * scale).start().await;
    for (kill_at, start_at) in [(100, 300), (320, 600)] {
        read_at_least(&app, kill_at).await;
        tokio::task::block_in_place(|| server.kill());
        let url = database.url();
        let status = sink_is_unhealthy(&app).await;
        assert_eq!((&status["sink"]["kind"], &status["idle"]), (&json!("mysql"), &json!(false)), "{status}");
        assert!(!status["sink"]["error"].as_str().unwrap().contains(&url), "{status}");
        // Fetching goes on meanwhile, and what comes waits.
        read_at_least(&app, start_at).await;
        assert_eq!(app.call(Verb::GET, "/readyz", None).await.0, 200);
        assert!(app.status().await["outbox"].as_u64().unwrap() > 0);
        if is_full() {
            // How long the outage lasts; nothing is waited for.
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        tokio::task::block_in_place(|| server.run());
        assert_eq!(server.url(), url.rsplit_once('/').unwrap().0, "the server must come back on its port");
    }
    app.run_until_idle().await;
    assert_eq!(app.status().await["sink"], json!({"kind": "mysql", "healthy": true, "error": null, "indexing": []}));
    let truth = oracle::truth(&app);
    oracle::mysql(&database, &truth).await;
    oracle::listing(&app, &truth).await;
    assert_eq!(app.sandbox().audit().details_reread, 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mysql_that_is_down_at_start_does_not_hold_up_the_fetching() {
    let mut server = tokio::task::block_in_place(MariaDb::start);
    let database = Database::on(&server.url()).await;
    let mut app = TestApp::builder().mysql(database.url()).shop("early", 150, 50).unregistered().start().await;
    app.restart_after(|_| tokio::task::block_in_place(|| server.kill())).await;
    app.register("early").await;
    read_at_least(&app, 200).await;
    let status = sink_is_unhealthy(&app).await;
    assert_eq!((&status["idle"], &status["parked"]), (&json!(false), &json!(0)));
    let ready = app.get("/readyz").await;
    assert_eq!(ready["status"], "degraded", "{ready}");
    assert!(ready["reasons"][0].as_str().unwrap().contains("MySQL takes no documents"), "{ready}");
    let (status, problem) = app.call(Verb::GET, "/api/v1/shipments", None).await;
    assert_eq!(status, 503, "{problem}");
    // Nor does a restart meanwhile lose what waits.
    app.restart().await;
    sink_is_unhealthy(&app).await;
    tokio::task::block_in_place(|| server.run());
    app.run_until_idle().await;
    oracle::mysql(&database, &oracle::truth(&app)).await;
    let audit = app.sandbox().audit();
    assert_eq!((audit.details_distinct, audit.details_reread), (200, 0));
    app.finish().await;
}

fn answer(code: u16, body: FaultBody, retry_after: Option<&str>) -> FaultKind {
    let headers = retry_after.map(|seconds| ("Retry-After".to_owned(), seconds.to_owned()));
    FaultKind::Status { code, body, headers: headers.into_iter().collect() }
}

/// Everything that passes by itself, by a name for its shop.
fn passing() -> Vec<(&'static str, FaultKind)> {
    let text = |text: &str| FaultBody::Text(text.to_owned());
    vec![
        ("error-500", answer(500, FaultBody::Json, None)),
        ("page-502", answer(502, FaultBody::Html, None)),
        ("busy-503", answer(503, FaultBody::Json, Some("2"))),
        ("empty-503", answer(503, FaultBody::Empty, None)),
        ("throttled-429", answer(429, FaultBody::Json, Some("2"))),
        ("throttled-mute", answer(429, FaultBody::Json, None)),
        ("gateway-404", answer(404, FaultBody::Html, None)),
        ("timeout-408", answer(408, FaultBody::Empty, None)),
        ("html-200", answer(200, FaultBody::Html, None)),
        ("array-200", answer(200, text("[]"), None)),
        ("other-200", answer(200, text(r#"{"message":"maintenance"}"#), None)),
        ("empty-200", answer(200, FaultBody::Empty, None)),
        ("garbage", FaultKind::Garbage),
        ("nested", FaultKind::Nested { depth: 20_000 }),
        ("reset", FaultKind::Reset),
        ("reset-after", FaultKind::ResetAfter { bytes: 40 }),
        ("cut", FaultKind::Cut { after: 200 }),
        ("longer", FaultKind::WrongContentLength { by: 10 }),
        ("shorter", FaultKind::WrongContentLength { by: -10 }),
        ("bad-chunk", FaultKind::BadChunk),
        ("redirect", FaultKind::Redirect { to: "http://127.0.0.1:1/".to_owned() }),
        ("slow", FaultKind::Slow { ms: 700 }),
        ("drip", FaultKind::Drip { bytes: 300, ms: 20 }),
    ]
}

/// How often a call may meet it and still succeed: valid JSON of another shape is asked for twice only.
fn times(name: &str) -> u64 {
    if matches!(name, "array-200" | "other-200" | "nested") { 1 } else { 3 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_in_the_middle_of_lists_and_details_all_heal() {
    let passing = passing();
    let builder = TestApp::builder().limits(["100/s", "100/s"]).unregistered();
    let builder = passing.iter().fold(builder, |builder, (name, _)| builder.shop(name, 110, 20));
    let mut app = builder.start().await;
    let faults = passing.iter().flat_map(|(name, kind)| {
        ["/retailer/shipments?", "/retailer/shipments/"].map(|prefix| Fault {
            client_id: Some((*name).to_owned()),
            skip: 2,
            ..Fault::times(prefix, kind.clone(), times(name))
        })
    });
    app.sandbox().set_faults(faults.collect());
    for (name, _) in &passing {
        app.register(name).await;
    }
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    for (name, _) in &passing {
        let hits = app.sandbox().calls().iter().filter(|call| call.client_id == *name && call.faulted).count();
        let times = usize::try_from(times(name)).unwrap();
        assert_eq!(hits, 2 * times, "{name}: as many faults in lists as in details");
        assert!(app.runs(name).await.iter().all(|run| run["state"] == "done"), "{name}");
    }
    app.expect_429();
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_host_that_is_down_for_a_while_stops_nothing_for_good() {
    let app = TestApp::builder().limits(["50/s", "100/s"]).shop("locked", 200, 0).start().await;
    read_at_least(&app, 30).await;
    app.sandbox().set_faults(vec![Fault::times("/token", answer(503, FaultBody::Html, None), 2)]);
    app.sandbox().kill_tokens();
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    let shop = app.get(&format!("/api/v1/shops/{}", app.shops["locked"])).await;
    assert_eq!(shop["state"], "active", "a host that is down refuses no shop");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detail_that_is_rejected_is_parked_until_it_is_retried_on_request() {
    let mut app = TestApp::builder().unregistered().shop("rejected", 60, 0).start().await;
    let bad = app.sandbox().truth("rejected")[33].1.clone();
    let path = format!("/retailer/shipments/{bad}");
    app.sandbox().set_faults(vec![Fault::always(&path, answer(400, FaultBody::Json, None))]);
    app.register("rejected").await;
    app.run_until_idle().await;

    let parked = app.pages("/api/v1/parked").await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    let one = &parked[0];
    assert_eq!((&one["document_id"], &one["job"]), (&json!(bad), &json!("fetch_detail")));
    assert_eq!((&one["shop_id"], &one["attempts"]), (&json!(app.shops["rejected"]), &json!(1)));
    let reason = one["reason"].as_str().unwrap();
    assert!(reason.contains("400") && reason.contains("Sandbox fault"), "{reason}");
    let mut truth = oracle::truth(&app);
    let key = (app.shops["rejected"].clone(), bad.clone());
    let document = truth.remove(&key).unwrap();
    oracle::listing(&app, &truth).await;
    assert_eq!(app.status().await["parked"], 1);
    assert!(app.runs("rejected").await.iter().all(|run| run["state"] == "done"));

    let retry = format!("/api/v1/parked/{}/retry", one["id"]);
    // A retry while it is still rejected parks it again.
    assert!((200..300).contains(&app.call(Verb::POST, &retry, None).await.0));
    app.run_until_idle().await;
    let again = app.pages("/api/v1/parked").await;
    assert_eq!(again.len(), 1);
    app.sandbox().set_faults(Vec::new());
    let retry = format!("/api/v1/parked/{}/retry", again[0]["id"]);
    assert!((200..300).contains(&app.call(Verb::POST, &retry, None).await.0));
    assert_eq!(app.call(Verb::POST, &retry, None).await.0, 404, "it is not parked any more");
    app.run_until_idle().await;
    truth.insert(key, document);
    oracle::listing(&app, &truth).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detail_that_fails_for_good_is_parked_after_its_attempts() {
    let mut app =
        TestApp::builder().toml("[limits]\nattempts_max = 3").unregistered().shop("broken", 60, 0).start().await;
    let bad = app.sandbox().truth("broken")[10].1.clone();
    app.sandbox().set_faults(vec![Fault::always(&format!("/retailer/shipments/{bad}"), FaultKind::Garbage)]);
    app.register("broken").await;
    app.run_until_idle().await;
    let parked = app.pages("/api/v1/parked").await;
    assert_eq!((parked.len(), &parked[0]["attempts"]), (1, &json!(3)), "{parked:?}");
    let tries = app.sandbox().calls().iter().filter(|call| call.id.as_ref() == Some(&bad)).count();
    assert_eq!(tries, 3);
    app.expect_parked(1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detail_that_is_gone_is_no_error() {
    let mut app = TestApp::builder().unregistered().shop("gone", 60, 0).start().await;
    let gone = app.sandbox().truth("gone")[12].1.clone();
    let path = format!("/retailer/shipments/{gone}");
    app.sandbox().set_faults(vec![Fault::always(&path, answer(404, FaultBody::Json, None))]);
    app.register("gone").await;
    app.run_until_idle().await;
    let mut truth = oracle::truth(&app);
    truth.remove(&(app.shops["gone"].clone(), gone));
    oracle::listing(&app, &truth).await;
    let runs = app.runs("gone").await;
    let sum = |name: &str| runs.iter().filter_map(|run| run[name].as_u64()).sum::<u64>();
    assert_eq!((sum("gone"), sum("fetched"), sum("parked")), (1, 59, 0));
    assert!(runs.iter().all(|run| run["state"] == "done"), "{runs:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_repeats_its_first_page_for_ever_fails_the_run_with_that_reason() {
    let mut app = TestApp::builder().unregistered().shop("stuck", 120, 0).start().await;
    app.sandbox().set_faults(vec![Fault::always("/retailer/shipments?", FaultKind::SamePage)]);
    app.register("stuck").await;
    app.run_until_idle().await;
    let runs = app.runs("stuck").await;
    let failed: Vec<&Value> = runs.iter().filter(|run| run["state"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{runs:?}");
    assert!(failed[0]["error"].as_str().unwrap().contains("ignore the page parameter"), "{failed:?}");
    assert!(app.sandbox().audit().list_pages <= 4);
    // What it showed is kept; a walk that comes through later gets the rest.
    assert_eq!(app.pages("/api/v1/shipments").await.len(), 50);
    app.sandbox().set_faults(Vec::new());
    assert_eq!(app.sync("stuck", "incremental").await.0, 202);
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    app.expect_failed_runs(1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_cannot_be_read_is_parked_and_leaves_the_run_unproved() {
    let mut app =
        TestApp::builder().toml("[limits]\nattempts_max = 2").unregistered().shop("torn", 120, 0).start().await;
    let torn = "/retailer/shipments?fulfilment-method=FBR&page=2";
    app.sandbox().set_faults(vec![Fault::always(torn, answer(200, FaultBody::Html, None))]);
    app.register("torn").await;
    app.run_until_idle().await;
    let parked = app.pages("/api/v1/parked").await;
    assert_eq!((parked.len(), &parked[0]["job"]), (1, &json!("list_page")), "{parked:?}");
    let states: BTreeSet<String> = app.runs("torn").await.iter().map(|run| run["state"].to_string()).collect();
    assert!(states.contains("\"unproved\""), "an error is not the end of a list: {states:?}");
    assert_eq!(app.pages("/api/v1/shipments").await.len(), 70, "the page behind it was read");
    app.sandbox().set_faults(Vec::new());
    let retry = format!("/api/v1/parked/{}/retry", parked[0]["id"]);
    assert!((200..300).contains(&app.call(Verb::POST, &retry, None).await.0));
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    assert!(app.runs("torn").await.iter().all(|run| run["state"] == "done"), "all pages are read by now");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_of_which_too_much_is_parked_is_paused_alone_and_comes_back_whole() {
    let mut app = TestApp::builder()
        .toml("[limits]\nattempts_max = 1\nparked_max = 5")
        .unregistered()
        .shop("ill", 300, 100)
        .shop("well", 60, 0)
        .start()
        .await;
    let ill = Fault { client_id: Some("ill".to_owned()), ..Fault::always("/retailer/shipments/", FaultKind::Garbage) };
    app.sandbox().set_faults(vec![ill]);
    app.register("ill").await;
    app.register("well").await;
    let shop = |client: &str| format!("/api/v1/shops/{}", app.shops[client]);
    let paused = eventually("the pause", async || {
        let shop = app.get(&shop("ill")).await;
        (shop["state"] == "paused").then_some(shop)
    })
    .await;
    let reason = paused["reason"].as_str().unwrap();
    assert!(reason.contains("limits.parked_max allows 5") && reason.contains("/parked/retry"), "{reason}");
    app.run_until_idle().await;
    assert_eq!(app.get(&shop("well")).await["state"], "active");
    let mut well = oracle::truth(&app);
    well.retain(|(shop, _), _| *shop == app.shops["well"]);
    oracle::listing(&app, &well).await;
    let parked = app.pages("/api/v1/parked?limit=500").await.len();
    assert!((5..400).contains(&parked), "{parked} of 400");
    app.sandbox().set_faults(Vec::new());
    let retry = format!("{}/parked/retry?resource=shipments", shop("ill"));
    assert_eq!(app.call(Verb::POST, &retry, None).await, (200, json!({"retried": parked})));
    assert_eq!(app.patch("ill", json!({"paused": false})).await.0, 200);
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_in_trouble_holds_up_no_other() {
    let mut app = TestApp::builder()
        .limits(["50/s", "100/s"])
        .unregistered()
        .shop("ill", 60, 0)
        .shop("well", 60, 0)
        .start()
        .await;
    let ill = Fault {
        client_id: Some("ill".to_owned()),
        ..Fault::always("/retailer", answer(503, FaultBody::Json, Some("5")))
    };
    app.sandbox().set_faults(vec![ill]);
    app.register("ill").await;
    app.register("well").await;
    let mut well = oracle::truth(&app);
    let ill = app.shops["ill"].clone();
    well.retain(|(shop, _), _| *shop != ill);
    let path = format!("/api/v1/shipments?limit=500&shop={}", app.shops["well"]);
    eventually("the other shop", async || (app.pages(&path).await.len() == 60).then_some(())).await;
    oracle::listing(&app, &well).await;
    app.sandbox().set_faults(Vec::new());
    app.run_until_idle().await;
    oracle::listing(&app, &oracle::truth(&app)).await;
    let runs: BTreeMap<u64, Value> =
        app.pages("/api/v1/runs").await.into_iter().map(|run| (run["id"].as_u64().unwrap(), run)).collect();
    assert!(runs.values().all(|run| run["state"] == "done"), "{runs:?}");
    app.finish().await;
}
