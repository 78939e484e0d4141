//! The commands as a person or a script meets them: what they print, where, and how they end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use reqwest::Method;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::json;

use crate::support::mariadb::Database;
use crate::support::program::{ADMIN_KEY, Ended, Folder, Market, Serving, says};

const SECRET: &str = "secret-of-first";
const COMMANDS: [&str; 8] = ["serve", "sync", "demo", "sandbox", "check", "schema", "keys", "shops"];
/// The sandbox's own limits are minutes long.
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";

async fn market() -> Market {
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 60, fbb: 10 };
    Market::open(Options {
        shops: vec![shop],
        limits: limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect(),
        ..Options::default()
    })
    .await
}

/// A folder that has the market's shop; and the shop's id.
fn registered(market: &Market, more: &str) -> (Folder, String) {
    let folder = Folder::at(&market.base, &format!("{more}\n{LIFTED}"));
    let added = folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], SECRET).expect(0);
    (folder, added.out.trim().to_owned())
}

/// What went wrong is on standard error, and nothing else is said.
#[track_caller]
fn refused(ended: Ended, code: i32, parts: &[&str]) {
    let ended = ended.expect(code);
    assert_eq!(ended.out, "");
    says(&ended.err, parts);
}

#[test]
fn every_command_says_what_it_does() {
    let folder = Folder::bare();
    says(&folder.run(&["--help"]).expect(0).out, &COMMANDS);
    for command in COMMANDS {
        let help = folder.run(&[command, "--help"]).expect(0);
        says(&help.out, &["Usage: waybill", "Examples:", "Exit codes: 0 done, 1 failed, 2 wrong usage"]);
        let reads_none = ["demo", "sandbox"].contains(&command);
        assert_eq!(help.out.contains("--config"), !reads_none, "{command}: {}", help.out);
        assert_eq!(help.err, "");
    }
    assert!(folder.run(&["version"]).expect(0).out.starts_with("waybill "));
    assert_eq!(fs::read_dir(folder.dir.path()).unwrap().count(), 3, "help writes no files of its own");
}

#[test]
fn wrong_usage_ends_with_two_and_the_fix() {
    let folder = Folder::bare();
    refused(folder.run(&[]), 2, &["Usage: waybill"]);
    refused(folder.run(&["snyc"]), 2, &["snyc", "sync"]);
    refused(folder.run(&["sync", "--at-most", "soon"]), 2, &["write it like 90s, 30min or 2h"]);
    refused(folder.run(&["sync", "--resource", "nothing"]), 2, &["--resource nothing", "configured: shipments"]);
    refused(folder.run(&["sandbox", "--listen", "0.0.0.0:1"]), 2, &["loopback"]);
    refused(folder.run(&["demo", "--config", "x.toml"]), 2, &["leave it out"]);
    refused(folder.run(&["--config", "x.toml", "demo"]), 2, &["leave it out"]);
    refused(folder.run(&["serve", "--listen", "foo"]), 2, &["--listen: ", "is not an address with a port"]);
    refused(folder.run(&["shops", "add", "--name", "A", "--client-id", "a b"]), 2, &["--client-id"]);
    refused(folder.feed(&["shops", "add", "--name", "A", "--client-id", "a"], ""), 2, &["no client secret"]);
    refused(folder.run(&["shops", "pause", "unknown"]), 2, &["no such shop", "waybill shops list"]);
    refused(folder.run(&["keys", "revoke", "nothing"]), 2, &["no such key", "waybill keys list"]);
    refused(folder.run(&["keys", "create", "--name", "k", "--shop", "unknown"]), 2, &["--shop unknown"]);
    let long = "a".repeat(129);
    let account = ["shops", "add", "--name", "A", "--client-id", "a", "--account", &long];
    refused(folder.feed(&account, SECRET), 2, &["--account must have 1 to 128 letters"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_takes_no_more_than_the_api() {
    let market = market().await;
    let (folder, shop) = registered(&market, "");
    let verified = folder.run(&["verify"]).expect(1);
    says(&verified.out, &["no: its whole list has not been read yet"]);
    says(&verified.err, &["1 of 1 resources are incomplete"]);
    let create = |more: &[&str]| folder.run(&[&["keys", "create", "--name", "k"], more].concat());
    refused(create(&["--scope", "admin", "--shop", &shop]), 2, &["`shops`", "an admin key is for all shops"]);
    refused(create(&["--shop", &shop, "--shop", &shop]), 2, &["`shops[1]` is given twice"]);
    let twice =
        ["shops", "add", "--name", "A", "--client-id", "a", "--resource", "shipments", "--resource", "shipments"];
    refused(folder.feed(&twice, SECRET), 2, &["`resources[1]` is given twice"]);
    let long = "s".repeat(257);
    refused(folder.feed(&["shops", "rotate", &shop], &long), 2, &["`client_secret` must have 1 to 256"]);
    assert!(!folder.run(&["keys", "list"]).expect(0).out.contains("admin"), "nothing was made");
}

#[test]
fn problems_that_only_parts_find_are_reported_before_they_begin() {
    let mut folder = Folder::bare();
    folder.set("WAYBILL_MYSQL_URL", "mysql://root:canary-password@127.0.0.1:1/waybill?pool_size=many");
    let ended = folder.run(&["serve"]);
    assert!(!ended.err.contains("canary-password"), "{}", ended.err);
    refused(ended, 2, &["1 problem in the configuration", "WAYBILL_MYSQL_URL: ", "pool_size"]);
    folder.set("WAYBILL_MYSQL_URL", "");
    folder.set("WAYBILL_LOG_LEVEL", "info,[waybill=debug");
    refused(folder.run(&["serve"]), 2, &["log.level: `info,[waybill=debug`"]);
    assert!(!folder.path("data").exists());
}

#[test]
fn what_only_looks_begins_nothing() {
    let folder = Folder::bare();
    let none = &["no shops yet", "waybill shops add"][..];
    for command in [&["plan"][..], &["verify"], &["verify", "--mend"], &["state"], &["shops", "list"]] {
        says(&folder.run(command).expect(0).out, none);
    }
    says(&folder.run(&["check"]).expect(0).out, &["shops: none yet", "is created at the first start"]);
    says(&folder.run(&["keys", "list"]).expect(0).out, &["no API keys yet"]);
    let state: serde_json::Value = serde_json::from_str(&folder.run(&["state", "--json"]).expect(0).out).unwrap();
    assert_eq!((&state["shops"], &state["bytes"]), (&json!([]), &json!(0)));
    refused(folder.run(&["preview", "shipments"]), 1, none);
    let infer = ["schema", "infer", "sales", "--path", "/retailer/orders", "--limit", "20/min"];
    refused(folder.run(&infer), 1, none);
    for command in [&["state", "--shop", "x"][..], &["plan", "--shop", "x"], &["verify", "--shop", "x"]] {
        refused(folder.run(command), 2, &["--shop x: there is no such shop"]);
    }
    refused(folder.run(&["shops", "pause", "x"]), 2, &["no such shop"]);
    refused(folder.run(&["keys", "revoke", "x"]), 2, &["no such key"]);
    let made: Vec<_> = fs::read_dir(folder.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(made.iter().all(|name| !name.to_string_lossy().starts_with("data")), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_an_admin_key_that_works_makes_one_and_says_when_one_ends() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut folder = Folder::bare();
    folder.set("WAYBILL_HTTP_LISTEN", "127.0.0.1:0");
    folder.run(&["keys", "create", "--name", "reader"]).expect(0);
    folder.run(&["keys", "create", "--name", "short", "--scope", "admin", "--expires-days", "1"]).expect(0);
    let serving = folder.serve();
    assert_eq!(serving.terminate().0, Some(0));
    says(&folder.said(), &["an admin API key expires soon", "short"]);
    assert!(!folder.path("data.admin-key").exists());
    let keys = folder.run(&["keys", "list"]).expect(0).out;
    let short = keys.lines().find(|line| line.contains("short")).unwrap();
    folder.run(&["keys", "revoke", short.split_whitespace().next().unwrap()]).expect(0);
    let serving = folder.serve();
    says(&folder.said(), &["created an admin API key, as there was none; it is in ", "data.admin-key"]);
    let works = async |folder: &Folder, serving: &Serving| {
        let key = fs::read_to_string(folder.path("data.admin-key")).unwrap();
        let request = reqwest::Client::new().get(format!("{}/api/v1/keys", serving.base)).bearer_auth(key.trim());
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    works(&folder, &serving).await;
    assert_eq!(serving.terminate().0, Some(0));

    // One that ended between the creation of its key and its output; and someone let all read the file.
    folder.write("data.admin-key", "not made yet\n");
    fs::set_permissions(folder.path("data.admin-key"), Permissions::from_mode(0o644)).unwrap();
    let serving = folder.serve();
    says(&folder.said(), &["interrupted before it could show its key", "data.admin-key"]);
    works(&folder, &serving).await;
    assert_eq!(fs::metadata(folder.path("data.admin-key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_json_has_numbers_as_numbers_and_says_who_did_what() {
    let market = market().await;
    let mut folder = Folder::at(&market.base, LIFTED);
    folder.set("WAYBILL_LOG_FORMAT", "json");
    folder.set("WAYBILL_LOG_LEVEL", "debug");
    let serving = folder.serve();
    let shop = json!({"name": "First shop", "client_id": "first", "client_secret": SECRET});
    assert_eq!(serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap().status(), 201);
    let stranger = reqwest::Client::new().get(format!("{}/api/v1/shops", serving.base)).bearer_auth("unknown");
    assert_eq!(stranger.send().await.unwrap().status(), 401);
    assert_eq!(serving.terminate().0, Some(0));
    let said = folder.said();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let lines: Vec<_> = lines.collect();
    let line = |message: &str| lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{said}"));
    let answered = line("handled a request");
    assert!(answered["elapsed_ms"].is_u64() && answered["spans"][0]["request.id"].is_string(), "{answered}");
    assert!(answered.get("span").is_none(), "{answered}");
    assert_eq!(line("registered a shop")["key.id"], "config");
    assert_eq!(line("request with an unknown, expired or revoked api key")["peer"], "127.0.0.1");
}

#[test]
fn a_wrong_configuration_does_not_start_and_names_every_problem() {
    let mut folder = Folder::bare();
    for command in [&["serve"][..], &["sync"], &["check"], &["keys", "list"], &["shops", "list"]] {
        let mut arguments = command.to_vec();
        arguments.extend(["--config", "absent.toml"]);
        refused(folder.run(&arguments), 2, &["absent.toml: cannot read the configuration file"]);
    }
    folder.write(
        "waybill.toml",
        "[http]\nlistne = \"127.0.0.1:1\"\n[mysql]\nurl = \"postgres://user:canary-password@h/d\"\n\
         [schedule]\nsync = \"whenever\"\n[limits]\nattempts_max = 0\n",
    );
    folder.set("WAYBILL_HTTP_LISTEN", "0.0.0.0:8080");
    folder.set("WAYBILL_MASTER_KEY", "c2hvcnQ=");
    let parts = [
        "waybill.toml:2: ",
        "listen",
        "waybill.toml:4: ",
        "mysql://",
        "waybill.toml:6: ",
        "waybill.toml:8: ",
        "WAYBILL_HTTP_LISTEN: ",
        "http.behind_proxy",
        "WAYBILL_MASTER_KEY: ",
        "head -c 32 /dev/urandom | base64",
    ];
    let ended = folder.run(&["serve"]);
    assert!(!ended.err.contains("canary-password"), "{}", ended.err);
    refused(ended, 2, &parts);
    folder.write("waybill.toml", "[mysql]\nurl = \"mysql://user:canary-password\nlisten\n");
    let ended = folder.run(&["serve"]);
    assert!(!ended.err.contains("canary-password"), "{}", ended.err);
    refused(ended, 2, &["waybill.toml:2: not TOML"]);
    assert!(!folder.path("data").exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_ends_with_zero_when_all_is_there() {
    let market = market().await;
    let (folder, shop) = registered(&market, "");
    let ended = folder.run(&["sync"]).expect(0);
    says(&ended.out, &["First shop", "fulfilment-method=FBR", "fulfilment-method=FBB", "done"]);
    assert!(ended.err.lines().last().unwrap().starts_with("0 of 2 runs open"), "{}", ended.err);
    let quiet = folder.run(&["sync", "--quiet", "--full", "--shop", &shop, "--resource", "shipments"]).expect(0);
    assert_eq!(quiet.err, "");
    market.sandbox.reset_audit();
    for _ in 0..5 {
        // A stop that waits for nothing warns of calls that were cut off.
        assert_eq!(folder.run(&["sync", "--quiet"]).expect(0).err, "");
    }
    assert_eq!(market.sandbox.audit().details_read, 0, "nothing had changed");
    let new = market.sandbox.add_shipments("first", sandbox::Method::Fbr, 3).unwrap();
    folder.run(&["sync", "--quiet"]).expect(0);
    assert_eq!(market.sandbox.audit().details_read, new.len() as u64);
    refused(folder.run(&["sync", "--shop", "unknown"]), 2, &["there is no such shop"]);
    let verified = folder.run(&["verify"]).expect(0);
    says(&verified.out, &["in sink", "First shop", "shipments", "complete", "yes"]);
    folder.run(&["verify", "--quiet", "--mend", "--shop", &shop]).expect(0);
    refused(folder.run(&["verify", "--shop", "unknown"]), 2, &["there is no such shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_ends_with_one_and_the_reason_when_something_is_left() {
    let market = market().await;
    let empty = Folder::at(&market.base, LIFTED);
    refused(empty.run(&["sync"]), 1, &["no shop is registered", "waybill shops add"]);
    let (mut folder, shop) = registered(&market, "");
    folder.run(&["sync", "--quiet"]).expect(0);
    // Two new documents that cannot be read.
    let new = market.sandbox.add_shipments("first", sandbox::Method::Fbr, 2).unwrap();
    let broken = |id: &String| {
        let kind = FaultKind::Status { code: 500, body: FaultBody::Html, headers: Default::default() };
        Fault::always(&format!("/retailer/shipments/{id}"), kind)
    };
    market.sandbox.set_faults(new.iter().map(broken).collect());
    folder.set("WAYBILL_LIMITS_ATTEMPTS_MAX", "1");
    let ended = folder.run(&["sync", "--quiet"]).expect(1);
    folder.set("WAYBILL_LIMITS_ATTEMPTS_MAX", "");
    says(&ended.err, &["2 pages or documents", "/api/v1/parked"]);
    market.sandbox.set_faults(vec![]);
    market.sandbox.set_latency(std::time::Duration::from_secs(20));
    folder.set("WAYBILL_LIMITS_DRAIN", "6s");
    let ended = folder.run(&["sync", "--quiet", "--full", "--at-most", "100ms"]).expect(1);
    says(&ended.err, &["left to do; the rest resumes at the next start"]);
    market.sandbox.set_latency(std::time::Duration::ZERO);
    market.sandbox.set_secret("first", "another").unwrap();
    market.sandbox.kill_tokens();
    let ended = folder.run(&["sync", "--quiet"]).expect(1);
    says(&ended.err, &["First shop", &format!("waybill shops rotate {shop}")]);
    refused(folder.run(&["sync", "--quiet"]), 1, &["First shop", "waybill shops rotate"]);
    folder.feed(&["shops", "rotate", &shop], "another").expect(0);
    // What is parked is a problem until it is retried.
    let ended = folder.run(&["sync", "--quiet"]).expect(1);
    says(&ended.err, &["First shop", "2 pages or documents"]);
    assert!(!ended.err.contains("rotate"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_and_names_the_call_over_http() {
    let market = market().await;
    let (folder, shop) = registered(&market, "");
    let serving = folder.serve();
    for (arguments, call) in [
        (&["serve"][..], "-X GET"),
        (&["sync"], "/api/v1/shops/<id>/sync"),
        (&["shops", "list"], "-X GET"),
        (&["shops", "pause", &shop], "-X PATCH"),
        (&["keys", "create", "--name", "k"], "-X POST"),
        (&["keys", "revoke", "k"], "/api/v1/keys/<id>"),
        (&["keys", "create", "--name", "k", "--scope", "admin"], "\"scope\": \"admin\""),
        (&["shops", "remove", &shop, "--purge"], "?purge=true"),
        (&["sync", "--full"], "{\"mode\": \"full\"}"),
        (&["verify"], "-X GET"),
        (&["verify", "--mend"], "-X POST"),
    ] {
        refused(folder.run(arguments), 1, &["is already in use", "curl -X", "Authorization: Bearer $KEY", call]);
    }
    let check = folder.run(&["check"]).expect(0);
    says(&check.out, &["ok    shops: not checked: a running waybill uses the store"]);
    assert_eq!(serving.get("/api/v1/status").await["shops"]["active"], 1);
    // The port of a running server, with data of another.
    let mut other = Folder::at(&market.base, "");
    other.set("WAYBILL_HTTP_LISTEN", serving.base.strip_prefix("http://").unwrap());
    let taken = ["http.listen: cannot listen on 127.0.0.1:", "another program uses port", "ss -ltnp", "http.listen"];
    refused(other.run(&["serve"]), 1, &taken);
    assert!(!other.path("data").exists(), "no engine was started");
    let check = other.run(&["check", "--offline"]).expect(1).out;
    says(&check, &["FAIL  port: 127.0.0.1:", "is in use by another program"]);
    // The port of the server that holds the data.
    let mut same = folder;
    same.set("WAYBILL_HTTP_LISTEN", serving.base.strip_prefix("http://").unwrap());
    refused(same.run(&["serve"]), 1, &["is already in use by `waybill serve` (process ", "curl -X GET"]);
    let holder = format!("is in use by `waybill serve` (process {})", serving.pid());
    says(&same.run(&["check", "--offline"]).expect(0).out, &["ok    port: 127.0.0.1:", &holder]);
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_shown_once_and_revoked() {
    let market = market().await;
    let (folder, shop) = registered(&market, "");
    let made = folder.run(&["keys", "create", "--name", "bi \u{1b}[31m", "--shop", &shop]);
    refused(made, 2, &["--name"]);
    let made = folder.run(&["keys", "create", "--name", "bi", "--shop", &shop, "--expires-days", "9"]).expect(0);
    let key = made.out.trim().to_owned();
    assert_eq!(made.out.lines().count(), 1, "only the key, for scripts");
    let id = made.err.split_whitespace().nth(1).unwrap().to_owned();
    let list = folder.run(&["keys", "list"]).expect(0).out;
    says(&list, &[&id, "bi", "read", &shop]);
    assert!(!list.contains(&key), "the list shows no key");
    let serving = folder.serve();
    let ask = |method: Method, path: &str| {
        let request = serving.call(method, path).build().unwrap();
        reqwest::Client::new().request(request.method().clone(), request.url().clone()).bearer_auth(&key)
    };
    assert_eq!(ask(Method::GET, "/api/v1/shipments").send().await.unwrap().status(), 200);
    let body = json!({"mode": "full"});
    let sync = ask(Method::POST, &format!("/api/v1/shops/{shop}/sync")).json(&body).send().await.unwrap();
    assert_eq!(sync.status(), 403, "it may only read");
    assert_eq!(serving.terminate().0, Some(0));
    says(&folder.run(&["keys", "revoke", &id]).expect(0).err, &[&id, "is revoked"]);
    assert!(!folder.run(&["keys", "list"]).expect(0).out.contains(&id));
    let serving = folder.serve();
    let request = reqwest::Client::new().get(format!("{}/api/v1/shipments", serving.base)).bearer_auth(&key);
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn shops_are_added_paused_resumed_and_removed() {
    let market = market().await;
    let folder = Folder::at(&market.base, LIFTED);
    let add = ["shops", "add", "--name", "First shop", "--client-id", "first"];
    refused(folder.feed(&add, "wrong"), 1, &["refused"]);
    folder.write("secret.txt", &format!("{SECRET}\n"));
    let from_file: Vec<&str> = add.iter().copied().chain(["--secret-file", "secret.txt"]).collect();
    let shop = folder.run(&from_file).expect(0).out.trim().to_owned();
    refused(folder.feed(&add, SECRET), 1, &["registered already"]);
    let unknown: Vec<&str> = from_file.iter().copied().chain(["--resource", "nothing"]).collect();
    refused(folder.run(&unknown), 2, &["`nothing` is not configured"]);
    says(&folder.run(&["shops", "list"]).expect(0).out, &[&shop, "First shop", "active", "first", "shipments"]);
    says(&folder.run(&["shops", "pause", &shop]).expect(0).err, &["is paused"]);
    market.sandbox.reset_audit();
    refused(folder.run(&["sync"]), 1, &["no active shop to sync"]);
    assert_eq!(market.sandbox.audit().calls, 0, "a paused shop is left alone");
    says(&folder.run(&["shops", "resume", &shop]).expect(0).err, &["is active"]);
    folder.run(&["sync", "--quiet"]).expect(0);
    says(&folder.run(&["shops", "remove", &shop, "--purge"]).expect(0).err, &["its rows are deleted too"]);
    assert!(!folder.run(&["shops", "list"]).expect(0).out.contains(&shop));
    let serving = folder.serve();
    serving.idle(std::time::Duration::from_secs(30)).await;
    assert!(serving.all("/api/v1/shipments").await.is_empty(), "purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_each_broken_thing_and_its_fix() {
    let market = market().await;
    let database = Database::fresh().await;
    let (mut folder, shop) = registered(&market, "");
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    let check = |folder: &Folder, code: i32, parts: &[&str]| says(&folder.run(&["check"]).expect(code).out, parts);
    let well = folder.run(&["check"]).expect(0);
    says(&well.out, &["shop First shop: token", "50 rows on the first page", "mysql: rights", "clock"]);
    assert_eq!(database.rows::<String>("SHOW TABLES").await.len(), 0, "a check changes nothing");

    folder.set("WAYBILL_MYSQL_URL", "mysql://root@127.0.0.1:1/waybill");
    check(&folder, 1, &["FAIL  mysql"]);
    folder.set("WAYBILL_MYSQL_URL", "mysql://unknown:canary-password@127.0.0.1:1/waybill");
    let ended = folder.run(&["check"]).expect(1);
    assert!(!format!("{}{}", ended.out, ended.err).contains("canary-password"));
    folder.set("WAYBILL_MYSQL_URL", &database.url());

    market.sandbox.set_secret("first", "another").unwrap();
    check(&folder, 1, &["FAIL  shop First shop: token"]);
    market.sandbox.set_secret("first", SECRET).unwrap();
    market.sandbox.set_faults(vec![Fault::always("/retailer/shipments", FaultKind::Garbage)]);
    check(&folder, 1, &["FAIL  shop First shop: page"]);
    market.sandbox.set_faults(vec![]);

    fs::set_permissions(folder.path("data.key"), Permissions::from_mode(0o644)).unwrap();
    check(&folder, 1, &["FAIL  master key", "chmod 600"]);
    fs::set_permissions(folder.path("data.key"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(folder.path("data"), Permissions::from_mode(0o755)).unwrap();
    check(&folder, 1, &["FAIL  data directory", "chmod 700"]);
    fs::set_permissions(folder.path("data"), Permissions::from_mode(0o700)).unwrap();
    fs::rename(folder.path("data.key"), folder.path("lost.key")).unwrap();
    check(&folder, 1, &["FAIL  store", "restore the file"]);
    fs::rename(folder.path("lost.key"), folder.path("data.key")).unwrap();
    folder.run(&["check"]).expect(0);

    folder.run(&["shops", "pause", &shop]).expect(0);
    market.sandbox.reset_audit();
    check(&folder, 0, &["shop First shop: paused"]);
    assert_eq!((market.sandbox.audit().calls, market.sandbox.audit().token_requests), (0, 0), "no call asks for it");
    folder.run(&["shops", "resume", &shop]).expect(0);

    market.sandbox.set_login_blocked(true);
    check(&folder, 1, &["FAIL  shop First shop: token"]);
    market.sandbox.set_login_blocked(false);
    let logins = market.sandbox.audit().token_requests;
    // Ten minutes without a login, whoever asks: else the block would last.
    check(&folder, 1, &["FAIL  shop First shop: token", "no login for 59"]);
    assert_eq!(market.sandbox.audit().token_requests, logins);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_uses_the_budget_and_the_next_start_knows_it() {
    let market = market().await;
    let tight = LIFTED.replacen("none", "2/3s", 1);
    let limits = toml::from_str::<toml::Table>(&tight).unwrap()["source"]["limits"].clone();
    market.sandbox.set_limits(&limits.try_into().unwrap()).unwrap();
    let folder = Folder::at(&market.base, &tight);
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], SECRET).expect(0);
    for _ in 0..3 {
        folder.run(&["check"]).expect(0);
    }
    folder.run(&["sync", "--quiet"]).expect(0);
    let audit = market.sandbox.audit();
    assert_eq!((audit.breaches(), audit.refused_429), (vec![], 0), "{:?}", audit.statuses);
}

#[test]
fn the_demo_runs_to_its_rows_and_minds_its_folder() {
    let mut folder = Folder::bare();
    // Nothing of the user's reaches it.
    folder.set("WAYBILL_MYSQL_URL", "mysql://root@127.0.0.1:1/waybill");
    folder.set("WAYBILL_ADMIN_KEY", ADMIN_KEY);
    let demo = folder.run(&["demo", "--rows", "60"]).expect(0);
    says(&demo.out, &["60 documents", "shipment_id", "0 refused for their rate, 0 budgets exceeded", "waybill serve"]);
    folder.run(&["demo", "--rows", "2"]).expect(0);
    fs::create_dir(folder.path("mine")).unwrap();
    folder.write("mine/thesis.txt", "years of work");
    refused(folder.run(&["demo", "--dir", "mine"]), 2, &["not empty", "name another folder"]);
    assert!(folder.path("mine/thesis.txt").exists());
}

#[test]
fn of_two_first_starts_at_once_one_makes_the_key() {
    for _ in 0..8 {
        let folder = Folder::bare();
        let create = |name| folder.command(&["keys", "create", "--name", name]).stdout(Stdio::null()).spawn().unwrap();
        assert!(["a", "b"].map(create).map(|mut one| one.wait().unwrap().success()).contains(&true));
        // The key file is the one that the store was made with.
        says(&folder.run(&["keys", "list"]).expect(0).out, &["read"]);
    }
}
