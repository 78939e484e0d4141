//! The HTTP API over the whole program while it works: what the contract tests, in which no job runs, cannot cover.

use reqwest::Method as Verb;
use serde_json::json;

use crate::support::app::TestApp;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_for_shops_that_are_there() {
    let app = TestApp::builder().shop("first", 1, 0).start().await;
    let body = json!({"name": "k", "shops": [app.shops["first"], "unknown"]});
    let (status, answer) = app.call(Verb::POST, "/api/v1/keys", Some(body)).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (422, &json!("shops[1]")), "{answer}");
    assert_eq!(app.get("/api/v1/keys").await["items"], json!([]));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_is_not_configured_is_named_as_such() {
    let app = TestApp::builder().shop("first", 1, 0).start().await;
    for (path, expected) in [
        ("/api/v1/orders", "`orders` is in the catalog, but not among `resources`"),
        ("/api/v1/orders/a/b", "`orders` is in the catalog, but not among `resources`"),
        ("/api/v1/nothing", "it does not exist"),
        ("/api/v1/shipments/a/b", "it does not exist"),
    ] {
        let (status, answer) = app.call(Verb::GET, path, None).await;
        assert_eq!(status, 404, "{path}");
        assert!(answer["detail"].as_str().unwrap().starts_with(expected), "{path}: {answer}");
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_takes_what_its_column_can_hold() {
    let toml = "[resource.shipments.table.filters]\nquantity = \"shipment_items.quantity\"\n\
                price = \"shipment_items.unit_price\"\nat = \"shipment_date_time\"\n";
    let app = TestApp::builder().toml(toml).shop("first", 5, 0).start().await;
    app.run_until_idle().await;
    for (query, status) in [
        ("quantity=1", 200),
        ("quantity=abc", 400),
        ("quantity=1.5", 400),
        ("price=12.50", 200),
        ("price=1e2", 400),
        ("at=2026-02-30T00:00:00Z", 400),
        ("at=2026-02-28", 400),
        ("at=2026-02-28T00:00:00+01:00", 200),
        ("order_id=anything", 200),
    ] {
        let (reported, answer) = app.call(Verb::GET, &format!("/api/v1/shipments?{query}"), None).await;
        assert_eq!(reported, status, "{query}: {answer}");
        assert!(status == 200 || answer["detail"].as_str().unwrap().contains(" like "), "{answer}");
    }
    let described = app.get("/openapi.json").await;
    let parameters = described["paths"]["/api/v1/shipments"]["get"]["parameters"].as_array().unwrap().clone();
    let quantity = parameters.iter().find(|parameter| parameter["name"] == "quantity").unwrap();
    assert_eq!(quantity["schema"]["type"], "integer");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_takes_no_resource_without_the_one_it_is_asked_for_by() {
    let builder = TestApp::builder().resources(&["shipments", "promotions", "promotion_products"]);
    let app = builder.shop("first", 1, 0).unregistered().start().await;
    let shop =
        |resources: &[&str]| json!({"name": "n", "client_id": "first", "client_secret": "s", "resources": resources});
    let (status, answer) =
        app.call(Verb::POST, "/api/v1/shops", Some(shop(&["shipments", "promotion_products"]))).await;
    assert_eq!(status, 422);
    assert!(answer.to_string().contains("`promotion_products` requires `promotions`"), "{answer}");
    // With it the credentials are looked at.
    let (_, answer) = app.call(Verb::POST, "/api/v1/shops", Some(shop(&["promotions", "promotion_products"]))).await;
    assert_eq!(answer["type"], "urn:waybill:credentials-refused", "{answer}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_shows_when_it_was_last_used_over_a_restart_too() {
    let mut app = TestApp::builder().shop("first", 1, 0).start().await;
    let key = app.bound_key(&["first"]).await;
    let used = async |app: &TestApp| app.get("/api/v1/keys").await["items"][0]["last_used_at"].clone();
    assert_eq!(used(&app).await, json!(null));
    app.call_by(&key, Verb::GET, "/api/v1/shops", None).await;
    let at = used(&app).await;
    assert!(at.is_string(), "{at}");
    app.restart().await;
    assert_eq!(used(&app).await, at);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_again_is_done_once_over_a_restart_too() {
    let mut app = TestApp::builder().shop("first", 1, 0).start().await;
    let ask = async |app: &TestApp| {
        let body = json!({"name": "once"});
        let answer = app.request(Verb::POST, "/api/v1/keys").header("idempotency-key", "k-1").json(&body).send().await;
        let answer = answer.unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap())
    };
    let first = ask(&app).await;
    assert!(first.0 == 201 && first.1["key"].is_string(), "{first:?}");
    assert_eq!(ask(&app).await, first);
    app.restart().await;
    assert_eq!(ask(&app).await, first);
    assert_eq!(app.get("/api/v1/keys").await["items"].as_array().unwrap().len(), 1);
    app.finish().await;
}
