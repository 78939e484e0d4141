//! A refused shop is resumed with the secret that it has, which one login tries: by the API, the command and the dashboard.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method as Verb;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};

use crate::fault_matrix::browser::{self, Browser};
use crate::support::app::{TestApp, eventually, secret};
use crate::support::no_limits;
use crate::support::program::{ADMIN_KEY, Folder, Market, Serving, says};

const SECRET: &str = "secret-of-first";

fn resume() -> Value {
    json!({"paused": false})
}

/// The logins of a client that the host has answered.
fn logins(app: &TestApp, client: &str) -> usize {
    app.sandbox().calls().iter().filter(|call| call.token && call.client_id == client).count()
}

async fn shop(app: &TestApp, client: &str) -> Value {
    app.get(&format!("/api/v1/shops/{}", app.shops[client])).await
}

/// Switches the account off, and waits until its shop is refused.
async fn refuse(app: &TestApp, client: &str) {
    app.sandbox().set_active(client, false).unwrap();
    app.sandbox().kill_tokens();
    assert_eq!(app.sync(client, "incremental").await.0, 202);
    let refused = async || (shop(app, client).await["state"] == "refused").then_some(());
    eventually("the shop to be refused", refused).await;
    app.run_until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_a_refused_shop_tries_its_secret_once_and_says_what_the_host_answers() {
    let app = TestApp::builder().shop("off", 30, 0).start().await;
    app.run_until_idle().await;
    refuse(&app, "off").await;
    // The remedy for an account that is on again comes first.
    let reasons = app.status().await["health"]["reasons"].clone();
    let remedy = reasons[0]["remedy"].as_str().unwrap();
    let places = ["{\"paused\": false}", "waybill shops resume", "client_secret", "waybill shops rotate"]
        .map(|part| remedy.find(part).unwrap());
    assert!(places.is_sorted(), "{remedy}");
    let (status, answer) = app.sync("off", "full").await;
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("resume it first"), "{answer}");

    let known = logins(&app, "off");
    let (status, answer) = app.patch("off", resume()).await;
    let detail = answer["detail"].as_str().unwrap();
    assert_eq!((status, &answer["type"]), (422, &json!("urn:waybill:credentials-refused")), "{answer}");
    for part in ["still refuses", "Account is not active", "(403)", "stays refused", "client_secret"] {
        assert!(detail.contains(part), "{part}: {answer}");
    }
    assert_eq!(logins(&app, "off"), known + 1);
    // It is paused already as far as calls go.
    let (status, answer) = app.patch("off", json!({"paused": true})).await;
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("tries its secret again"), "{answer}");
    let renamed = app.patch("off", json!({"name": "Off for now"})).await;
    assert_eq!((renamed.0, &renamed.1["state"]), (200, &json!("refused")));
    assert_eq!(logins(&app, "off"), known + 1, "only a resumption tries it");

    // While the host does not answer, nothing is known, and it can be tried again.
    let down = FaultKind::Status { code: 503, body: FaultBody::Html, headers: BTreeMap::new() };
    for kind in [down, FaultKind::Reset] {
        app.sandbox().set_faults(vec![Fault::always("/token", kind)]);
        let (status, answer) = app.patch("off", resume()).await;
        assert!(status == 502 && answer["detail"].as_str().unwrap().contains("stays refused"), "{answer}");
    }
    app.sandbox().set_faults(Vec::new());
    // Another reason than before replaces it.
    app.sandbox().set_active("off", true).unwrap();
    app.sandbox().set_secret("off", "another").unwrap();
    assert_eq!(app.patch("off", resume()).await.0, 422);
    let refused = shop(&app, "off").await;
    assert!(refused["state"] == "refused" && refused["reason"].as_str().unwrap().contains("(401)"), "{refused}");
    app.sandbox().set_secret("off", &secret("off")).unwrap();

    // Two at once are one login.
    let known = logins(&app, "off");
    app.sandbox().set_latency(Duration::from_secs(1));
    let (first, second) = tokio::join!(app.patch("off", resume()), app.patch("off", resume()));
    app.sandbox().set_latency(Duration::ZERO);
    for (status, resumed) in [first, second] {
        assert_eq!((status, &resumed["state"], &resumed["reason"]), (200, &json!("active"), &Value::Null), "{resumed}");
    }
    assert_eq!(logins(&app, "off"), known + 1);
    app.run_until_idle().await;
    let last = app.runs("off").await.swap_remove(0);
    assert_eq!((&last["state"], logins(&app, "off")), (&json!("done"), known + 1), "the token of the proof is used");
    assert_eq!(app.status().await["health"]["level"], "ok");
    app.finish().await;
}

/// A folder with a synced shop of a market, and the shop's id.
async fn synced() -> (Market, Folder, String) {
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 12, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let folder = Folder::at(&market.base, "");
    let add = ["shops", "add", "--name", "First shop", "--client-id", "first"];
    let id = folder.feed(&add, SECRET).expect(0).out.trim().to_owned();
    folder.run(&["sync", "--quiet"]).expect(0);
    (market, folder, id)
}

fn switch(market: &Market, is_on: bool) {
    market.sandbox.set_active("first", is_on).unwrap();
    market.sandbox.kill_tokens();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_resumes_a_refused_shop_once_its_account_is_on() {
    let (market, folder, id) = synced().await;
    switch(&market, false);
    let resume = ["shops", "resume", id.as_str()];
    let (resumes, rotates) = (format!("`waybill shops resume {id}`"), format!("`waybill shops rotate {id}`"));
    says(&folder.run(&["sync", "--quiet"]).expect(1).err, &[&resumes, &rotates]);
    says(&folder.run(&["status"]).expect(1).out, &["Account is not active", "(403)", &resumes, &rotates]);
    says(&folder.run(&["check"]).expect(1).out, &[&resumes, &rotates]);

    market.sandbox.reset_audit();
    let parts = ["waybill: the login host still refuses", &id, "(403)", "stays refused", &rotates];
    says(&folder.run(&resume).expect(1).err, &parts);
    assert_eq!(market.sandbox.audit().token_requests, 1);
    let down = FaultKind::Status { code: 503, body: FaultBody::Html, headers: BTreeMap::new() };
    market.sandbox.set_faults(vec![Fault::always("/token", down)]);
    says(
        &folder.run(&resume).expect(1).err,
        &["no access token for now", "answered 503", "stays refused", "again later"],
    );
    market.sandbox.set_faults(Vec::new());

    // A running server is asked instead.
    let serving = folder.serve();
    let asked = folder.run(&resume).expect(1).err;
    says(&asked, &["already in use", "curl -X PATCH", "{\"paused\": false}"]);
    assert_eq!(serving.terminate().0, Some(0));

    switch(&market, true);
    market.sandbox.reset_audit();
    let resumed = folder.run(&[&resume[..], &["--json"]].concat()).expect(0).out;
    let resumed: Value = serde_json::from_str(&resumed).unwrap();
    assert_eq!((&resumed["state"], &resumed["reason"]), (&json!("active"), &Value::Null), "{resumed}");
    folder.run(&["sync", "--quiet"]).expect(0);
    assert_eq!(market.sandbox.audit().token_requests, 1, "its token is used by the next command");
    says(&folder.run(&["status"]).expect(0).out, &["health: ok"]);

    // One that was paused on request is resumed without a login: it was not refused.
    folder.run(&["shops", "pause", &id]).expect(0);
    switch(&market, false);
    market.sandbox.reset_audit();
    says(&folder.run(&resume).expect(0).err, &["is active"]);
    assert_eq!(market.sandbox.audit().token_requests, 0);
    says(&folder.run(&["sync", "--quiet"]).expect(1).err, &[&resumes]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_read_is_not_tried_and_given_again() {
    let (market, folder, id) = synced().await;
    let keys = std::fs::read_to_string(folder.path("data/keys")).unwrap();
    let left: Vec<&str> = keys.split('\n').filter(|line| !line.starts_with(&format!("shop {id} "))).collect();
    assert_eq!(left.len() + 1, keys.split('\n').count(), "{keys}");
    folder.write("data/keys", &left.join("\n"));
    says(&folder.run(&["sync", "--quiet"]).expect(1).err, &["credentials cannot be read"]);
    market.sandbox.reset_audit();
    let resumed = folder.run(&["shops", "resume", &id]).expect(1).err;
    says(&resumed, &["cannot be read, so it cannot be tried", &format!("`waybill shops rotate {id}`")]);
    assert_eq!(market.sandbox.audit().token_requests, 0);
    folder.feed(&["shops", "rotate", &id], SECRET).expect(0);
    folder.run(&["sync", "--quiet"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_offers_to_try_again_beside_a_new_secret() {
    if browser::program().is_none() {
        eprintln!("SKIPPED: the dashboard in a browser, there is no Chromium");
        return;
    }
    let (market, folder, id) = synced().await;
    switch(&market, false);
    let serving = folder.serve();
    let refused = async |serving: &Serving| {
        let sync = serving.call(Verb::POST, &format!("/api/v1/shops/{id}/sync")).json(&json!({"mode": "full"}));
        assert_eq!(sync.send().await.unwrap().status(), 202);
        let look = async || serving.get(&format!("/api/v1/shops/{id}")).await["state"] == "refused";
        eventually("the shop to be refused", async || look().await.then_some(())).await;
    };
    refused(&serving).await;
    let mut browser = Browser::open(&format!("sessionStorage.setItem('waybill-key', '{ADMIN_KEY}')"));
    let button = |name: &str| format!("document.getElementById('{name}-{id}')");
    let (again, new, pause) = (button("again"), button("secret"), button("pause"));
    tokio::task::block_in_place(|| {
        browser.go(&format!("{}/", serving.base));
        browser.until(&format!("{again} !== null && {new} !== null && {pause} === null"));
        browser.value(&format!("{again}.click()"));
        browser.until("document.getElementById('toast').textContent.includes('(403)')");
        switch(&market, true);
        browser.value(&format!("{again}.click()"));
        browser.until(&format!("{again} === null && {pause} !== null"));
    });
    // The secret changed too.
    serving.idle(Duration::from_secs(60)).await;
    market.sandbox.set_secret("first", "another-secret").unwrap();
    market.sandbox.kill_tokens();
    refused(&serving).await;
    let give = |secret: &str| {
        format!(
            "document.querySelector('#secret-form input').value = '{secret}'; \
             document.querySelector('#secret-form button[type=submit]').click()"
        )
    };
    tokio::task::block_in_place(|| {
        browser.until(&format!("{new} !== null"));
        browser.value(&format!("{new}.click()"));
        browser.value(&give("wrong"));
        browser.until("document.getElementById('secret-problem').textContent.includes('invalid_client (401)')");
        browser.value(&give("another-secret"));
        browser.until(&format!("{new} === null && !document.getElementById('secret-dialog').open"));
    });
    serving.idle(Duration::from_secs(60)).await;
    assert_eq!(serving.get("/api/v1/status").await["health"]["level"], "ok");
    assert_eq!(serving.terminate().0, Some(0));
}
