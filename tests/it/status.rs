//! `waybill status`: the same at rest and beside a running server, over `--server` too; and what it says of a server that
//! does not answer, and of a data directory that another command holds.

use std::net::SocketAddr;

use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use warp::Filter as _;

use crate::support::app::eventually;
use crate::support::program::{self, Ended, Folder, Market};

const SECRET: &str = "secret-of-first";

async fn market() -> Market {
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 12, fbb: 3 };
    Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await
}

/// A folder with the market's shop; and the shop's id.
fn registered(market: &Market) -> (Folder, String) {
    let limits = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let folder = Folder::at(&market.base, limits);
    let added = folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], SECRET).expect(0);
    (folder, added.out.trim().to_owned())
}

#[track_caller]
fn says(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    program::says(&ended.err, parts);
}

/// Without what passes by itself.
fn lasting(json: &str) -> Value {
    let mut status: Value = serde_json::from_str(json).unwrap();
    for shop in status["shops"].as_array_mut().unwrap() {
        for resource in shop["resources_health"].as_array_mut().unwrap() {
            resource.as_object_mut().unwrap().remove("age_seconds");
        }
    }
    status
}

/// The lines of the table without the ages.
fn table(out: &str) -> Vec<String> {
    out.lines().map(|line| line.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_gives_the_same_status_as_the_data_directory_at_rest() {
    let market = market().await;
    let (folder, shop) = registered(&market);
    folder.run(&["sync", "--quiet"]).expect(0);
    let at_rest = [&["status"][..], &["status", "--json"]].map(|arguments| folder.run(arguments).expect(0).out);
    assert!(at_rest[0].contains(&shop) && at_rest[0].contains("health: ok"), "{}", at_rest[0]);
    let serving = folder.serve();
    // It finds the server by itself: its address is no other's, and its key is that of the configuration.
    let beside = [&["status"][..], &["status", "--json"]].map(|arguments| folder.run(arguments).expect(0).out);
    // From elsewhere, with a key that can only read: of the variable, a file, and standard input.
    let key = json!({"name": "status", "scope": "read"});
    let made = serving.call(reqwest::Method::POST, "/api/v1/keys").json(&key).send().await.unwrap();
    let key = made.json::<Value>().await.unwrap()["key"].as_str().unwrap().to_owned();
    let mut elsewhere = Folder::bare();
    elsewhere.write("key.txt", &format!("{key}\n"));
    let ask = ["status", "--server", &serving.base];
    let from_file = elsewhere.run(&[&ask[..], &["--key-file", "key.txt"]].concat()).expect(0).out;
    let piped = elsewhere.feed(&[&ask[..], &["--key-file", "-"]].concat(), &key).expect(0).out;
    elsewhere.set("WAYBILL_API_KEY", &key);
    let in_json = elsewhere.run(&[&ask[..], &["--json"]].concat()).expect(0).out;
    for out in [&beside[0], &from_file, &piped] {
        assert_eq!(table(out), table(&at_rest[0]));
    }
    for out in [&beside[1], &in_json] {
        assert_eq!(lasting(out), lasting(&at_rest[1]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_well_ends_with_code_1_and_a_remedy_that_works_there() {
    let market = market().await;
    let (folder, shop) = registered(&market);
    let first = folder.run(&["status"]).expect(1).out;
    assert!(first.contains("let `waybill serve` or `waybill sync` run") && !first.contains("by itself"), "{first}");
    folder.run(&["sync", "--quiet"]).expect(0);
    folder.run(&["shops", "pause", &shop]).expect(0);
    let at_rest = folder.run(&["status"]).expect(1);
    assert!(at_rest.out.contains(&format!("`waybill shops resume {shop}`")), "{}", at_rest.out);
    says(&at_rest, 1, &["not well: attention"]);
    let serving = folder.serve();
    let beside = folder.run(&["status"]).expect(1);
    assert!(beside.out.contains(&format!("PATCH /api/v1/shops/{shop}")), "{}", beside.out);
    says(&beside, 1, &["not well: attention"]);
    let resume = serving.call(reqwest::Method::PATCH, &format!("/api/v1/shops/{shop}")).json(&json!({"paused": false}));
    assert_eq!(resume.send().await.unwrap().status(), 200);
    serving.idle(std::time::Duration::from_secs(60)).await;
    folder.run(&["status"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_asked_is_named_with_the_remedy() {
    let market = market().await;
    let (folder, _) = registered(&market);
    let serving = folder.serve();
    let mut other = Folder::bare();
    let ask = |folder: &Folder, address: &str| folder.run(&["status", "--server", address]);
    says(&ask(&other, &serving.base), 2, &["needs an API key", "WAYBILL_API_KEY", "--key-file FILE"]);
    says(&other.run(&["status", "--server", &serving.base, "--key-file", "-"]), 2, &["standard input has no API key"]);
    other.set("WAYBILL_API_KEY", "not-a-key-of-this-server");
    says(&ask(&other, &serving.base), 1, &["does not accept the API key from WAYBILL_API_KEY", "--key-file"]);
    says(&ask(&other, &serving.base.replace("http", "https")), 1, &["no TLS connection", "plain HTTP", "http://"]);
    says(&ask(&other, &market.base), 1, &["not a Waybill server", "`waybill serve` says it listens on"]);
    says(&ask(&other, "http://waybill.example"), 2, &["clear text", "ssh -L"]);
    says(&ask(&other, "waybill"), 2, &["is not an address"]);
    let base = serving.base.clone();
    assert_eq!(serving.terminate().0, Some(0));
    says(&ask(&other, &base), 1, &["cannot be reached", "see whether `waybill serve` runs there"]);
}

/// Answers `/livez` as Waybill does, and the rest with this status, type, and body.
async fn imposter(status: u16, kind: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let live =
        warp::path("livez").map(|| warp::http::Response::builder().body("{\"status\":\"ok\"}".to_owned()).unwrap());
    let rest = warp::any().map(move || {
        let answer = warp::http::Response::builder().status(status).header("content-type", kind);
        answer.header("location", "https://elsewhere.example/").body(body.to_owned()).unwrap()
    });
    tokio::spawn(warp::serve(live.or(rest)).incoming(listener).run());
    base
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_status_is_said_to_be_none() {
    let mut folder = Folder::bare();
    folder.set("WAYBILL_API_KEY", "a-key-of-somewhere-else");
    let problem = "application/problem+json";
    for (status, kind, body, parts) in [
        (403, problem, "{\"detail\":\"no\"}", &["may not read the status", "scope read"][..]),
        (429, problem, "{\"detail\":\"slowly\"}", &["too many requests", "try again later"]),
        (503, problem, "{\"detail\":\"the store \\u001b[2Jfailed\"}", &["503", "the store ·[2Jfailed"]),
        (302, "text/html", "", &["redirects to https://elsewhere.example/", "--server"]),
        (401, "text/html", "<p>Login</p>", &["not a Waybill server"]),
        (200, "text/html", "<p>Welcome</p>", &["not a Waybill server"]),
        (200, "application/json", "{\"items\":[]}", &["cannot be read", "of the server's version"]),
        // A host that repeats the key must not bring it into a log of cron.
        (503, problem, "{\"detail\":\"YS1rZXktb2Ytc29tZXdoZXJlLWVsc2U\"}", &["it repeats the API key"]),
        (200, "application/json", "{\"health\":{\"a\":\"a-key-of-somewhere-else\"}}", &["it repeats the API key"]),
        (503, problem, "{\"detail\":\"no a-key-of-somew\"}", &["503", "no [redacted]"]),
        (401, "text/a-key-of-somewhere-else", "", &["not a Waybill server", "401 Unauthorized, text/[redacted]"]),
    ] {
        let base = imposter(status, kind, body).await;
        let ended = folder.run(&["status", "--server", &base]);
        says(&ended, 1, parts);
        assert!(!ended.err.contains("a-key-of-som") && !ended.err.contains("YS1rZXkt"), "{}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_admin_key_beside_the_data_directory_is_enough() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut folder = Folder::bare();
    folder.set("WAYBILL_HTTP_LISTEN", "127.0.0.1:0");
    let serving = folder.serve();
    assert!(folder.run(&["status"]).expect(0).out.contains("no shops yet"));
    std::fs::remove_file(folder.path("data.admin-key")).unwrap();
    let address: SocketAddr = serving.base.trim_start_matches("http://").parse().unwrap();
    let alone = folder.run(&["status"]);
    says(
        &alone,
        1,
        &[&format!("`waybill serve` (process {})", serving.pid()), &address.to_string(), "WAYBILL_API_KEY"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_holds_the_data_directory_is_named_with_its_process() {
    let market = market().await;
    let (folder, _) = registered(&market);
    market.sandbox.set_latency(std::time::Duration::from_secs(30));
    let syncing = folder.spawn(&["sync"]);
    let holder = format!("`waybill sync` (process {})", syncing.pid());
    // A command that looks would hold the directory itself, and turn the pass away.
    let lock = folder.path("data/lock");
    let pid = format!("\"pid\":{}", syncing.pid());
    let noted = async || std::fs::read_to_string(&lock).ok().filter(|note| note.contains(&pid));
    eventually("the pass to hold the data directory", noted).await;
    let ended = folder.run(&["shops", "list"]);
    says(&ended, 1, &["is already in use by", &holder, "wait until it ends, or stop it"]);
    assert!(!ended.err.contains("curl"), "no server runs: {}", ended.err);
    says(&folder.run(&["status"]), 1, &[&holder]);
    says(&folder.run(&["serve"]), 1, &[&holder]);
    syncing.kill();
    // The note of one that was killed counts as none.
    folder.run(&["shops", "list"]).expect(0);
}
