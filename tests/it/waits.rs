//! What an open run waits for, as `GET /api/v1/runs` says it.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use waybill::domain::Clock;
use waybill::sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};

use crate::support::app::eventually;
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
    time.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().unwrap().as_millisecond() > now)
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
    let (_market, _folder, serving) = serving("none", "none", faults, None).await;
    let wait = waits_for(&serving, "api").await;
    assert!(wait["text"].as_str().unwrap().contains("503") && wait["until"].is_null(), "{wait}");
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
