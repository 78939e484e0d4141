//! The sandbox as a client sees it, over a real socket.

#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

mod changes;
mod controls;
mod faults;
mod limits;
mod resources;
mod specification;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sandbox::{Clock, Fault, FaultBody, FaultKind, MEDIA_TYPE, Method, Options, Sandbox, ShopOptions};
use serde_json::{Value, json};

use crate::support::no_limits;

/// 2026-11-22T16:30:06Z: six seconds into a minute.
const NOW: i64 = 1_795_365_006_000;

struct Stand {
    sandbox: Sandbox,
    clock: Clock,
    base: String,
    http: Client,
}

fn shop(client_id: &str, fbr: usize, fbb: usize) -> ShopOptions {
    ShopOptions { client_id: client_id.into(), client_secret: format!("secret of {client_id}"), fbr, fbb }
}

async fn stand(options: Options) -> Stand {
    drop(rustls::crypto::ring::default_provider().install_default());
    let clock = Clock::manual(NOW);
    let sandbox = Sandbox::new(options, clock.clone()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/api", listener.local_addr().unwrap());
    tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
    let http =
        Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(20)).build().unwrap();
    Stand { sandbox, clock, base, http }
}

impl Stand {
    fn login(&self, client_id: &str, secret: &str) -> RequestBuilder {
        let form = [("grant_type", "client_credentials")];
        self.http.post(format!("{}/token", self.base)).basic_auth(client_id, Some(secret)).form(&form)
    }

    async fn token(&self, client_id: &str) -> String {
        let answer = self.login(client_id, &format!("secret of {client_id}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
    }

    async fn get(&self, token: &str, path: &str) -> Response {
        self.try_get(token, path).await.unwrap()
    }

    async fn try_get(&self, token: &str, path: &str) -> reqwest::Result<Response> {
        let url = format!("{}/retailer/{path}", self.base);
        self.http.get(url).bearer_auth(token).header("accept", MEDIA_TYPE).send().await
    }

    async fn json(&self, token: &str, path: &str) -> Value {
        let answer = self.get(token, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(MEDIA_TYPE));
        answer.json().await.unwrap()
    }

    async fn ids(&self, token: &str, path: &str) -> Vec<String> {
        let page = self.json(token, path).await;
        let rows = page["shipments"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| row["shipmentId"].as_str().unwrap().to_owned()).collect()
    }

    /// Walks a method to its end: the ids in the order of the list.
    async fn walk(&self, token: &str, method: &str) -> Vec<String> {
        let mut all = Vec::new();
        for page in 1.. {
            let ids = self.ids(token, &format!("shipments?fulfilment-method={method}&page={page}")).await;
            if ids.is_empty() {
                return all;
            }
            assert!(ids.len() <= 50);
            all.extend(ids);
        }
        unreachable!("a list without an end")
    }

    async fn control(&self, method: reqwest::Method, path: &str, body: Value) -> (StatusCode, String) {
        let root = self.base.strip_suffix("/api").unwrap();
        let answer = self.http.request(method, format!("{root}/_sandbox/{path}")).json(&body).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

fn header(answer: &Response, name: &str) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn served_documents_equal_the_expected_ones() {
    let options = Options { shops: vec![shop("a", 123, 51)], limits: no_limits(), ..Options::default() };
    let stand = stand(options).await;
    let token = stand.token("a").await;
    let truth = stand.sandbox.truth("a");
    assert_eq!(truth.len(), 174);
    for method in ["FBR", "FBB"] {
        let expected: Vec<&String> = truth.iter().filter(|row| row.0 == method).map(|row| &row.1).collect();
        assert_eq!(stand.walk(&token, method).await.iter().collect::<Vec<_>>(), expected);
    }
    for (method, id, document) in &truth {
        let served = stand.json(&token, &format!("shipments/{id}")).await;
        assert_eq!(&served, document);
        assert_eq!(served["shipmentItems"][0]["fulfilment"]["method"], **method);
    }
    let past = stand.get(&token, "shipments?page=99&fulfilment-method=FBR").await.text().await.unwrap();
    assert_eq!(past, "{}");
    stand.sandbox.set_empty_array(true);
    let past = stand.get(&token, "shipments?page=99&fulfilment-method=FBR").await.text().await.unwrap();
    assert_eq!(past, r#"{"shipments":[]}"#);
    let audit = stand.sandbox.audit();
    assert_eq!((audit.details_read, audit.details_distinct, audit.details_reread), (174, 174, 0));
    assert_eq!((audit.refused_429, audit.refused_401, audit.token_requests), (0, 0, 1));
}

#[tokio::test]
async fn lists_are_newest_first_within_three_months_and_rows_agree_with_details() {
    let stand = stand(Options { shops: vec![shop("a", 400, 0)], limits: no_limits(), ..Options::default() }).await;
    let token = stand.token("a").await;
    let mut before = i64::MAX;
    let mut equal_times = 0;
    for page in 1..=8 {
        let rows = stand.json(&token, &format!("shipments?page={page}")).await;
        for row in rows["shipments"].as_array().unwrap() {
            let detail = stand.json(&token, &format!("shipments/{}", row["shipmentId"].as_str().unwrap())).await;
            for key in ["shipmentDateTime", "shipmentReference", "order"] {
                assert_eq!(row[key], detail[key]);
            }
            assert_eq!(row["shipmentItems"][0]["ean"], detail["shipmentItems"][0]["product"]["ean"]);
            assert_eq!(row["transport"]["transportId"], detail["transport"]["transportId"]);
            let Some(time) = row["shipmentDateTime"].as_str() else { continue };
            let at = waybill::catalog::extract::timestamp_of(None, &waybill::domain::Json::Text(time.into()))
                .unwrap()
                .as_millis();
            assert!(at <= before && at <= NOW && at > NOW - 92 * 86_400_000);
            equal_times += u32::from(at == before);
            before = at;
        }
    }
    assert!(equal_times > 10);
}

#[tokio::test]
async fn tokens_are_issued_by_the_rules_and_expire() {
    let stand = stand(Options { shops: vec![shop("a", 1, 0)], ..Options::default() }).await;
    let refused = stand.login("a", "wrong").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.json::<Value>().await.unwrap(), json!({ "error": "invalid_client" }));
    assert_eq!(stand.login("unknown", "x").send().await.unwrap().status(), 401);
    let bare = stand.http.post(format!("{}/token", stand.base)).basic_auth("a", Some("secret of a"));
    let in_query = bare.try_clone().unwrap().query(&[("grant_type", "client_credentials")]);
    assert_eq!(in_query.send().await.unwrap().status(), 400);
    let other_grant = bare.try_clone().unwrap().form(&[("grant_type", "password")]);
    assert_eq!(other_grant.send().await.unwrap().status(), 400);
    assert_eq!(bare.json(&json!({ "grant_type": "client_credentials" })).send().await.unwrap().status(), 415);

    let given = stand.login("a", "secret of a").send().await.unwrap();
    assert!(header(&given, "x-ratelimit-limit").is_none());
    let given: Value = given.json().await.unwrap();
    assert_eq!((&given["expires_in"], &given["token_type"]), (&json!(599), &json!("Bearer")));
    let token = given["access_token"].as_str().unwrap();
    stand.clock.set(NOW + 598_999);
    assert_eq!(stand.get(token, "shipments").await.status(), 200);
    stand.clock.set(NOW + 599_000);
    let expired = stand.get(token, "shipments").await;
    assert_eq!(expired.status(), 401);
    let body: Value = expired.json().await.unwrap();
    assert_eq!(body["title"], "Expired JWT");
    assert!(body["detail"].as_str().unwrap().starts_with("JWT expired at 2026-11-22T16:40:05Z."));
    assert_eq!(stand.get("made.up.token", "shipments").await.status(), 401);

    let early = stand.token("a").await;
    assert_eq!(stand.sandbox.kill_tokens(), 1);
    assert_eq!(stand.get(&early, "shipments").await.status(), 401);
    stand.sandbox.set_token_life(Duration::from_secs(60), Some(Value::Null));
    let silent: Value = stand.login("a", "secret of a").send().await.unwrap().json().await.unwrap();
    assert!(silent.get("expires_in").is_none());
    stand.sandbox.set_secret("a", "new").unwrap();
    assert_eq!(stand.login("a", "secret of a").send().await.unwrap().status(), 401);
    stand.sandbox.set_active("a", false).unwrap();
    assert_eq!(stand.login("a", "new").send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn too_many_logins_block_the_login_host() {
    let options = Options { shops: vec![shop("a", 0, 0), shop("b", 0, 0)], logins_max: Some(3), ..Options::default() };
    let stand = stand(options).await;
    for _ in 0..3 {
        stand.token("a").await;
    }
    assert_eq!(stand.login("a", "secret of a").send().await.unwrap().status(), 404);
    assert_eq!(stand.login("b", "secret of b").send().await.unwrap().status(), 404);
    stand.clock.set(NOW + 11 * 60_000);
    stand.token("b").await;
}

#[tokio::test]
async fn rate_windows_are_aligned_with_the_wall_clock() {
    let shops = vec![shop("a", 3, 0), shop("b", 3, 0), shop("c", 3, 0)];
    let accounts = BTreeMap::from([("c".to_owned(), "a".to_owned())]);
    let limits = BTreeMap::from([("GET /retailer/shipments/*".to_owned(), "2/s".to_owned())]);
    let stand = stand(Options { shops, accounts, limits, ..Options::default() }).await;
    let (a, b, c) = (stand.token("a").await, stand.token("b").await, stand.token("c").await);
    for used in 1..=25 {
        let answer = stand.get(&a, "shipments").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "x-ratelimit-limit").as_deref(), Some("25"));
        assert_eq!(header(&answer, "x-ratelimit-remaining"), Some((25 - used).to_string()));
        assert_eq!(header(&answer, "x-ratelimit-reset").as_deref(), Some("54"));
        assert!(header(&answer, "x-request-id").is_some());
    }
    let refused = stand.get(&a, "shipments").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "retry-after").as_deref(), Some("54"));
    let expected =
        json!({ "title": "Too Many Requests", "status": 429, "detail": "Too many requests, retry in 54 seconds." });
    assert_eq!(refused.json::<Value>().await.unwrap(), expected);
    stand.sandbox.set_retry_after(false);
    assert!(header(&stand.get(&a, "shipments").await, "retry-after").is_none());
    assert_eq!(stand.get(&c, "shipments").await.status(), 429, "c shares the account of a");
    assert_eq!(stand.get(&b, "shipments").await.status(), 200);
    let id = stand.sandbox.truth("a")[0].1.clone();
    let detail = stand.get(&a, &format!("shipments/{id}")).await;
    assert_eq!(header(&detail, "x-ratelimit-remaining").as_deref(), Some("1"), "a budget of its own");
    stand.clock.set(NOW + 54_000);
    assert_eq!(stand.get(&a, "shipments").await.status(), 200);

    let audit = stand.sandbox.audit();
    assert_eq!((audit.calls, audit.refused_429), (31, 3));
    let budget = audit.budgets.iter().find(|b| b.account == "a" && b.rule == "GET /retailer/shipments").unwrap();
    assert_eq!((budget.calls, budget.refused_429, budget.allowed), (29, 3, Some(25)));
    assert!(budget.busiest > Some(25) && budget.span_us == budget.last_us - budget.first_us);
    assert_eq!(audit.breaches().len(), 1);
}

#[tokio::test]
async fn queries_are_validated_strictly() {
    let stand = stand(Options { shops: vec![shop("a", 60, 60)], limits: no_limits(), ..Options::default() }).await;
    let token = stand.token("a").await;
    let url = format!("{}/retailer/shipments", stand.base);
    for accept in ["*/*", "application/json", "application/vnd.retailer.v9+json"] {
        let answer = stand.http.get(&url).bearer_auth(&token).header("accept", accept).send().await.unwrap();
        assert_eq!(answer.status(), 406, "{accept}");
    }
    assert_eq!(stand.http.get(&url).header("accept", MEDIA_TYPE).send().await.unwrap().status(), 401);
    for (path, name) in [
        ("shipments?fulfilment-method=FBX", json!("fulfilment-method")),
        ("shipments?fulfilment-method=ALL", json!("fulfilment-method")),
        ("shipments?page=0", json!("page")),
        ("shipments?page=two", json!("page")),
        ("shipments?order-id=1&fulfilment-method=FBR", Value::Null),
        ("orders?status=CLOSED", json!("status")),
        ("orders?change-interval-minute=61", json!("change-interval-minute")),
        ("orders?latest-change-date=yesterday", json!("latest-change-date")),
    ] {
        let answer = stand.get(&token, path).await;
        assert_eq!(answer.status(), 400, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["violations"][0]["name"], name, "{path}");
        assert_eq!(body["instance"], format!("https://api.bol.com/retailer/{path}"));
    }
    let unknown = stand.get(&token, "shipments/999").await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.unwrap()["detail"], "Shipment for shipment id 999 not found.");
    let posted = stand.http.post(&url).bearer_auth(&token).header("accept", MEDIA_TYPE).send().await.unwrap();
    assert_eq!(posted.status(), 405);

    let default = stand.ids(&token, "shipments").await;
    assert_eq!(default, stand.ids(&token, "shipments?fulfilment-method=FBR&page=1").await);
    assert_eq!(default, stand.ids(&token, "shipments?fulfillmentmethod=FBB").await, "misspelt names are ignored");
    assert_eq!(stand.sandbox.audit().unknown_parameters, 1, "but counted");
    let row = &stand.json(&token, "shipments?fulfilment-method=FBB").await["shipments"][0];
    let order_id = row["order"]["orderId"].as_str().unwrap();
    assert!(
        stand
            .ids(&token, &format!("shipments?order-id={order_id}"))
            .await
            .contains(&row["shipmentId"].as_str().unwrap().to_owned())
    );
}

#[tokio::test]
async fn content_changes_as_in_the_api() {
    let options = Options {
        shops: vec![shop("a", 120, 0)],
        limits: no_limits(),
        arrivals: Some(Duration::from_secs(10)),
        ..Options::default()
    };
    let stand = stand(options).await;
    let token = stand.token("a").await;
    let first = stand.ids(&token, "shipments?page=1").await;
    let added = stand.sandbox.add_shipments("a", Method::Fbr, 3).unwrap();
    let second = stand.ids(&token, "shipments?page=2").await;
    assert_eq!(first[47..], second[..3], "new rows push older ones to the next page");
    let head = stand.ids(&token, "shipments").await;
    assert_eq!(head.iter().take(3).rev().collect::<Vec<_>>(), added.iter().collect::<Vec<_>>());

    let id = &added[2];
    let row = stand.json(&token, "shipments").await["shipments"][0].clone();
    let events = |document: &Value| document["transport"]["transportEvents"].as_array().map_or(0, Vec::len);
    let before = stand.json(&token, &format!("shipments/{id}")).await;
    assert!(stand.sandbox.grow_events("a", id).unwrap());
    let after = stand.json(&token, &format!("shipments/{id}")).await;
    assert_eq!(events(&after), events(&before) + 1);
    assert_eq!(stand.json(&token, "shipments").await["shipments"][0], row, "the row does not tell");
    while stand.sandbox.grow_events("a", id).unwrap() {}
    let done = stand.json(&token, &format!("shipments/{id}")).await;
    let last = done["transport"]["transportEvents"].as_array().unwrap().last().unwrap()["eventCode"].clone();
    assert!(
        ["DELIVERED_AT_CUSTOMER", "DELIVERED_AT_NEIGHBOURS", "PICKED_UP_AT_PICK_UP_POINT", "RETURNED_TO_SENDER"]
            .contains(&last.as_str().unwrap())
    );
    assert!(stand.sandbox.change_row("a", id).unwrap());
    assert_ne!(stand.json(&token, "shipments").await["shipments"][0], row);
    assert!(stand.sandbox.remove("a", id).unwrap());
    assert_eq!(stand.get(&token, &format!("shipments/{id}")).await.status(), 404);

    stand.clock.set(NOW + 41_000);
    assert_eq!(stand.sandbox.truth("a").len(), 120 + 2 + 4);
}

#[tokio::test]
async fn equal_ids_in_two_shops_have_different_content_and_a_seed_repeats() {
    let options = |seed| Options { seed, shops: vec![shop("a", 40, 5), shop("b", 40, 5)], ..Options::default() };
    let first = Sandbox::new(options(1), Clock::manual(NOW)).unwrap();
    let again = Sandbox::new(options(1), Clock::manual(NOW)).unwrap();
    let other = Sandbox::new(options(2), Clock::manual(NOW)).unwrap();
    let (a, b) = (first.truth("a"), first.truth("b"));
    assert!(a.iter().zip(&b).all(|(a, b)| a.1 == b.1 && a.2 != b.2));
    assert_eq!(a, again.truth("a"));
    assert_ne!(a, other.truth("a"));
    let twice = vec![shop("a", 0, 0), shop("a", 0, 0)];
    assert!(Sandbox::new(Options { shops: twice, ..Options::default() }, Clock::manual(NOW)).is_err());
    let limits = BTreeMap::from([("GET /x".to_owned(), "often".to_owned())]);
    let wrong = Sandbox::new(Options { limits, ..Options::default() }, Clock::manual(NOW)).unwrap_err().to_string();
    assert!(wrong.contains("`often` is not a limit"), "{wrong}");
}

#[tokio::test]
async fn edge_cases_occur_only_if_enabled() {
    let truth = |odd| {
        let options = Options { shops: vec![shop("a", 400, 100)], odd, ..Options::default() };
        Sandbox::new(options, Clock::manual(NOW)).unwrap().truth("a")
    };
    let odd = truth(true);
    let missing = |key: &str| odd.iter().filter(|row| row.2.get(key).is_none()).count();
    for key in ["shipmentReference", "shipmentDateTime", "shipmentDetails", "billingDetails", "transport"] {
        assert!(missing(key) > 0, "{key}");
    }
    assert!(missing("shipmentDateTime") < 10);
    let text: String = odd.iter().map(|row| row.2.to_string()).collect();
    for value in
        ["\u{1F600}", "DROP TABLE", "<script>", "\\\\", "\\u0000", "\u{202E}", "1234.5", "12999.99", ":9007199254740"]
    {
        assert!(text.contains(value), "{value}");
    }
    assert!(odd.iter().any(|row| row.2["shipmentItems"].as_array().unwrap().len() == 12));
    assert!(
        odd.iter().any(|row| row.2["shipmentItems"][0]["product"]["title"].as_str().unwrap().chars().count() == 2_000)
    );
    let folded: HashSet<String> = odd.iter().map(|row| row.1.to_lowercase()).collect();
    assert!(folded.len() < odd.len(), "some ids differ only in case");
    for (_, id, document) in truth(false) {
        for key in ["shipmentReference", "shipmentDateTime", "shipmentDetails", "billingDetails", "transport"] {
            assert!(document.get(key).is_some(), "{id} {key}");
        }
    }
}

#[tokio::test]
async fn each_fault_breaks_the_answer_it_names() {
    let stand = stand(Options { shops: vec![shop("a", 60, 0)], limits: no_limits(), ..Options::default() }).await;
    let token = stand.token("a").await;
    let id = stand.sandbox.truth("a")[0].1.clone();
    let path = format!("shipments/{id}");
    let one = |kind| stand.sandbox.set_faults(vec![Fault::times("/retailer/shipments/", kind, 1)]);

    let headers = BTreeMap::from([("Retry-After".to_owned(), "4".to_owned())]);
    one(FaultKind::Status { code: 503, body: FaultBody::Html, headers });
    let answer = stand.get(&token, &path).await;
    assert_eq!((answer.status().as_u16(), header(&answer, "retry-after").as_deref()), (503, Some("4")));
    assert!(answer.text().await.unwrap().starts_with("<html>"));
    one(FaultKind::Status { code: 500, body: FaultBody::Empty, headers: BTreeMap::new() });
    assert_eq!(stand.get(&token, &path).await.text().await.unwrap(), "");
    one(FaultKind::Garbage);
    let bytes = stand.get(&token, &path).await.bytes().await.unwrap();
    assert!(std::str::from_utf8(&bytes).is_err());
    for kind in [
        FaultKind::Cut { after: 100 },
        FaultKind::ResetAfter { bytes: 100 },
        FaultKind::WrongContentLength { by: 10 },
        FaultKind::BadChunk,
        FaultKind::Reset,
    ] {
        one(kind.clone());
        let broken = match stand.try_get(&token, &path).await {
            Ok(answer) => answer.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(broken, "{kind:?}");
        assert_eq!(stand.json(&token, &path).await["shipmentId"], id, "once only");
    }
    one(FaultKind::WrongContentLength { by: -10 });
    assert!(stand.get(&token, &path).await.json::<Value>().await.is_err());
    one(FaultKind::Redirect { to: "http://127.0.0.1:9/".into() });
    assert_eq!(stand.get(&token, &path).await.status(), 302);
    one(FaultKind::Nested { depth: 1_000 });
    assert!(stand.get(&token, &path).await.json::<Value>().await.is_err());
    one(FaultKind::Huge { bytes: 9_000_000 });
    assert_eq!(stand.get(&token, &path).await.bytes().await.unwrap().len(), 9_000_000);
    one(FaultKind::GzipBomb { bytes: 4_000_000 });
    let unpacked = stand.get(&token, &path).await.bytes().await.unwrap();
    assert!(unpacked.len() >= 4_000_000 && unpacked.iter().all(|byte| *byte == 0));
    for kind in [FaultKind::Slow { ms: 5 }, FaultKind::Drip { bytes: 700, ms: 1 }] {
        one(kind);
        assert_eq!(stand.json(&token, &path).await["shipmentId"], id);
    }
    stand.sandbox.set_faults(vec![Fault::always("/retailer/shipments?", FaultKind::SamePage)]);
    assert_eq!(stand.ids(&token, "shipments?page=1").await, stand.ids(&token, "shipments?page=2").await);
    stand.sandbox.set_faults(vec![Fault::times("/retailer/shipments?", FaultKind::Reversed, 1)]);
    let oldest = stand.ids(&token, "shipments?page=1").await.swap_remove(0);
    let (mut page, mut last) = (1, None);
    while let Some(id) = stand.ids(&token, &format!("shipments?page={page}")).await.pop() {
        (page, last) = (page + 1, Some(id));
    }
    assert_eq!(last, Some(oldest));
    let status = FaultKind::Status { code: 429, body: FaultBody::Json, headers: BTreeMap::new() };
    stand.sandbox.set_faults(vec![Fault::times("/token", status, 1)]);
    assert_eq!(stand.login("a", "secret of a").send().await.unwrap().status(), 429);
    stand.token("a").await;
    assert_eq!(stand.sandbox.audit().faulted, 19);
}

#[tokio::test]
async fn orders_come_from_the_same_shipments() {
    let stand = stand(Options { shops: vec![shop("a", 300, 40)], limits: no_limits(), ..Options::default() }).await;
    let token = stand.token("a").await;
    let open = stand.json(&token, "orders").await;
    let open_id = open["orders"][0]["orderId"].as_str().unwrap();
    assert_eq!(open["orders"][0]["orderItems"][0]["fulfilmentStatus"], "OPEN");
    assert_eq!(stand.json(&token, &format!("orders/{open_id}")).await["orderId"], open_id);
    let shipped = stand.json(&token, "orders?status=SHIPPED&fulfilment-method=ALL").await;
    let shipped = shipped["orders"].as_array().unwrap();
    assert!(!shipped.is_empty() && shipped.len() < 20, "48 hours only");
    let day = stand.json(&token, "orders?status=ALL&latest-change-date=2026-10-01").await;
    let row = &day["orders"][0];
    let order_id = row["orderId"].as_str().unwrap();
    let detail = stand.json(&token, &format!("orders/{order_id}")).await;
    assert_eq!(detail["orderItems"][0]["product"]["ean"], row["orderItems"][0]["ean"]);
    assert!(!stand.ids(&token, &format!("shipments?order-id={order_id}")).await.is_empty());
    assert_eq!(stand.get(&token, "orders/none").await.status(), 404);
    // The newest open order is the last one to be shipped.
    stand.sandbox.add_shipments("a", Method::Fbr, 3).unwrap();
    let handled = stand.json(&token, "orders?status=SHIPPED").await;
    assert!(handled["orders"].to_string().contains(open_id), "an open order is handled under its id");
}
