//! The HTTP API over the whole program: what the contract's tests, which have a backend of their own, cannot see.

use reqwest::Method as Verb;
use serde_json::json;

use crate::support::app::TestApp;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_for_shops_that_are_there() {
    let app = TestApp::builder().shop("first", 1, 0).start().await;
    let body = json!({"name": "k", "shops": [app.shops["first"], "nobody"]});
    let (status, answer) = app.call(Verb::POST, "/api/v1/keys", Some(body)).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (422, &json!("shops[1]")), "{answer}");
    assert_eq!(app.get("/api/v1/keys").await["items"], json!([]));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_goes_back_to_all_resources() {
    let app = TestApp::builder().shop("first", 1, 0).start().await;
    let path = format!("/api/v1/shops/{}", app.shops["first"]);
    let names = json!(["shipments"]);
    let is = |shop: &serde_json::Value, all: bool| shop["all_resources"] == all && shop["resources"] == names;
    assert!(is(&app.get(&path).await, true));
    let change = async |resources| app.patch("first", json!({ "resources": resources })).await.1;
    assert!(is(&change(names.clone()).await, false));
    assert!(is(&change(json!(null)).await, true));
    assert!(is(&app.get(&path).await, true));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_login_host_is_seen_and_passed_on() {
    let app = TestApp::builder().shop("first", 1, 0).shop("second", 1, 0).start().await;
    assert_eq!(app.status().await["logins_paused_until"], json!(null));
    app.sandbox().set_login_blocked(true);
    let body = json!({"client_secret": "another"});
    let path = format!("/api/v1/shops/{}", app.shops["first"]);
    let answer = app.send(Verb::PATCH, &path, body).await;
    assert_eq!(answer.status(), 502);
    let seconds: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((500..=600).contains(&seconds), "{seconds}");
    let status = app.status().await;
    assert!(status["logins_paused_until"].is_string(), "{status}");
    app.finish().await;
}
