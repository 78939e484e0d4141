//! An installation has one source: no secret and no token reaches a host that it was not proved at, whatever `[source]`
//! says, and `waybill source move` is the way to another one.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandbox::{Fault, FaultKind, Options, ShopOptions};
use serde_json::Value;

use crate::support::first_form::seal_rows_as_before;
use crate::support::mariadb::Database;
use crate::support::no_limits;
use crate::support::program::{Ended, Folder, Market, lossy};

const CLIENTS: [&str; 3] = ["first", "second", "third"];

/// A host that counts who comes, and answers no one.
struct Trap {
    base: String,
    seen: Arc<AtomicUsize>,
}

impl Trap {
    async fn open() -> Trap {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Trap { base, seen }
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(self.seen.load(Ordering::SeqCst), 0, "connections");
    }
}

async fn market() -> Market {
    let shop = |name: &&str| ShopOptions {
        client_id: (*name).into(),
        client_secret: format!("secret-of-{name}"),
        fbr: 12,
        fbb: 4,
    };
    Market::open(Options {
        seed: 5,
        shops: CLIENTS.iter().map(shop).collect(),
        limits: no_limits(),
        ..Options::default()
    })
    .await
}

fn at(market: &Market, more: &str) -> Folder {
    let rules = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    Folder::at(&market.base, &format!("{rules}{more}"))
}

fn add(folder: &Folder, client: &str) {
    let secret = format!("secret-of-{client}");
    folder.feed(&["shops", "add", "--name", client, "--client-id", client], &secret).expect(0);
}

/// An installation that has synced these shops, so that it holds their tokens.
fn worked(folder: &Folder, clients: &[&str]) {
    for client in clients {
        add(folder, client);
    }
    folder.run(&["sync", "--quiet"]).expect(0);
}

fn name_source(folder: &mut Folder, base: &str, login: &str) {
    folder.set("WAYBILL_SOURCE_BASE_URL", base);
    folder.set("WAYBILL_SOURCE_TOKEN_URL", &format!("{login}/token"));
}

fn shops(folder: &Folder) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&folder.run(&["shops", "list", "--json"]).expect(0).out).unwrap();
    listed["items"].as_array().unwrap().clone()
}

#[track_caller]
fn says(ended: &Ended, words: &[&str]) {
    let said = format!("{}{}", ended.out, ended.err).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

/// Each command that could call the source ends as a wrong configuration, with both sources and the remedies.
#[track_caller]
fn is_refused(folder: &Folder, words: &[&str]) {
    for command in
        [&["serve"][..], &["sync"], &["shops", "list"], &["shops", "rotate", "x", "--secret-file", "secret.txt"]]
    {
        says(&folder.run(command).expect(2), words);
    }
    says(&folder.run(&["check"]).expect(1), words);
}

/// Calls of the data, and logins, that a marketplace has seen.
fn seen(market: &Market) -> (u64, u64) {
    let audit = market.sandbox.audit();
    (audit.calls, audit.token_requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_source_over_a_data_directory_gets_no_token_and_no_secret() {
    let (market, trap) = (market().await, Trap::open().await);
    let mut folder = at(&market, "");
    folder.write("secret.txt", "secret-of-first");
    worked(&folder, &["first"]);
    market.sandbox.reset_audit();
    let shown = |base: &str, login: &str| format!("API {base}, login {login}/token");
    for (base, login) in [(&trap.base, &trap.base), (&trap.base, &market.base), (&market.base, &trap.base)] {
        name_source(&mut folder, base, login);
        let (ours, theirs) = (shown(&market.base, &market.base), shown(base, login));
        says(&folder.run(&["preview", "shipments"]).expect(2), &[&ours, &theirs]);
        is_refused(
            &folder,
            &["data belongs to another source", &ours, &theirs, "waybill source move", "source.base_url"],
        );
    }
    // Where each call carries the secret, the login host has another part in it.
    folder.set("WAYBILL_SOURCE_AUTH", "basic");
    name_source(&mut folder, &market.base, &market.base);
    is_refused(&folder, &["no login host"]);
    trap.is_untouched();
    assert_eq!(seen(&market), (0, 0));
    // The same source, spelled in another way.
    folder.set("WAYBILL_SOURCE_AUTH", "client-credentials");
    let spelled = market.base.replace("http://127.0.0.1", "HTTP://127.1");
    name_source(&mut folder, &format!("{spelled}/"), &spelled);
    folder.run(&["sync", "--quiet"]).expect(0);
    let (calls, logins) = seen(&market);
    assert!(calls > 0 && logins == 0, "its token is still good: {calls} calls, {logins} logins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_source_over_a_schema_takes_no_shop_over() {
    let (market, trap) = (market().await, Trap::open().await);
    let database = Database::fresh().await;
    let mysql = format!("[mysql]\nurl = \"{}\"\n", database.url());
    let first = at(&market, &mysql);
    worked(&first, &["first", "second"]);
    market.sandbox.reset_audit();
    let mut second = at(&market, &mysql);
    second.write("secret.txt", "secret-of-first");
    fs::copy(first.path("data.key"), second.path("data.key")).unwrap();
    name_source(&mut second, &trap.base, &trap.base);
    is_refused(
        &second,
        &["the MySQL schema", "belongs to another source", &market.base, &trap.base, "waybill source move"],
    );
    trap.is_untouched();
    // A schema of an earlier release says nothing, and neither does an empty data directory.
    database.run("DELETE FROM waybill_installation").await;
    seal_rows_as_before(&database, &first.path("data.key")).await;
    is_refused(&second, &["has shops of an earlier release", &trap.base, "waybill source move"]);
    trap.is_untouched();
    assert_eq!(seen(&market), (0, 0));
    // The directory of the schema knows.
    first.run(&["sync", "--quiet"]).expect(0);
    let recorded: Vec<(String, String)> = database.rows("SELECT api, login FROM waybill_installation").await;
    assert_eq!(recorded, [(market.base.clone(), format!("{}/token", market.base))]);
    // A directory that is lost comes back by the source of the schema, without a question.
    name_source(&mut second, &market.base, &market.base);
    second.run(&["sync", "--quiet"]).expect(0);
    assert_eq!(shops(&second).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_proves_each_shop_and_stops_the_one_that_is_refused() {
    let (old, new) = (market().await, market().await);
    new.sandbox.set_secret("third", "another-secret").unwrap();
    let mut folder = at(&old, "");
    worked(&folder, &CLIENTS);
    old.sandbox.reset_audit();
    says(&folder.run(&["source", "move"]).expect(0), &["the source is", &old.base]);
    assert_eq!(seen(&old), (0, 0), "there was nothing to move");

    name_source(&mut folder, &new.base, &new.base);
    says(&folder.run(&["source", "move"]).expect(2), &[&old.base, &new.base, "3 shops", "add --yes"]);
    assert_eq!((seen(&old), seen(&new)), ((0, 0), (0, 0)), "nothing without consent");

    let moved = folder.run(&["source", "move", "--yes", "--json"]).expect(1);
    let report: Value = serde_json::from_str(&moved.out).unwrap();
    let of = |shops: &[Value], key: &str, name: &str| -> Value {
        let shop = shops.iter().find(|shop| shop["name"] == name).unwrap();
        shop[key].clone()
    };
    let known = shops(&folder);
    let ids = CLIENTS.map(|client| of(&known, "id", client).as_str().unwrap().to_owned());
    let accepted = ids.clone().map(|id| {
        let shop = report["shops"].as_array().unwrap().iter().find(|shop| shop["id"] == id.as_str()).unwrap();
        shop["accepted"].as_bool().unwrap()
    });
    assert_eq!(accepted, [true, true, false], "{report}");
    assert_eq!(CLIENTS.map(|client| of(&known, "state", client)), ["active", "active", "refused"]);
    assert_eq!((seen(&new), seen(&old)), ((0, 3), (0, 0)), "one login each, and no call");

    says(&folder.run(&["sync", "--quiet"]).expect(1), &["third", "invalid_client"]);
    says(&folder.run(&["status"]).expect(1), &["third", "refused"]);
    let calls = new.sandbox.calls();
    assert!(calls.iter().any(|call| call.client_id == "first" && !call.token && call.status == 200));
    assert!(!calls.iter().any(|call| call.client_id == "third" && !call.token), "no data of the refused shop");
    assert_eq!(new.sandbox.audit().token_requests, 3, "tokens of the proofs serve the calls");

    // The secret was accepted by another source, so resuming the shop does not send it to this one.
    let resumed = folder.run(&["shops", "resume", &ids[2]]).expect(1);
    says(&resumed, &["was not accepted by this source", &format!("waybill shops rotate {}", ids[2])]);
    assert_eq!(new.sandbox.audit().token_requests, 3);
    folder.feed(&["shops", "rotate", &ids[2]], "another-secret").expect(0);
    folder.run(&["sync", "--quiet"]).expect(0);
    name_source(&mut folder, &old.base, &old.base);
    folder.write("secret.txt", "secret-of-first");
    is_refused(&folder, &["belongs to another source", &new.base]);
    assert_eq!(seen(&old), (0, 0), "the former source is not called again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_killed_calls_no_source_until_it_was_finished() {
    let (old, new) = (market().await, market().await);
    let database = Database::fresh().await;
    let mut folder = at(&old, &format!("[mysql]\nurl = \"{}\"\n", database.url()));
    folder.write("secret.txt", "secret-of-first");
    worked(&folder, &CLIENTS);
    old.sandbox.reset_audit();
    name_source(&mut folder, &new.base, &new.base);
    // The second login waits for an answer when the process is killed.
    let slow = Fault { skip: 1, ..Fault::always("/token", FaultKind::Slow { ms: 60_000 }) };
    new.sandbox.set_faults(vec![slow]);
    let moving = folder.spawn(&["source", "move", "--yes"]);
    let begun = std::time::Instant::now();
    while !lossy(&folder.path("serve.stderr")).contains("accepted") || new.sandbox.audit().token_requests < 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", folder.said());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    moving.kill();
    new.sandbox.set_faults(Vec::new());
    new.sandbox.reset_audit();
    is_refused(&folder, &["is not finished", "waybill source move"]);
    name_source(&mut folder, &old.base, &old.base);
    is_refused(&folder, &["belongs to another source", &new.base]);
    // An empty directory finds the schema at its new source.
    let lost = at(&old, &format!("[mysql]\nurl = \"{}\"\n", database.url()));
    fs::copy(folder.path("data.key"), lost.path("data.key")).unwrap();
    says(&lost.run(&["sync"]).expect(2), &["the MySQL schema", &new.base]);
    assert_eq!((seen(&old), seen(&new)), ((0, 0), (0, 0)));

    name_source(&mut folder, &new.base, &new.base);
    says(&folder.run(&["source", "move"]).expect(0), &["2 shops were accepted, 0 refused"]);
    assert_eq!(seen(&new), (0, 2), "the shop that was proved is not proved again");
    folder.run(&["sync", "--quiet"]).expect(0);
    assert!(shops(&folder).iter().all(|shop| shop["state"] == "active"));
    let recorded: Vec<String> = database.rows("SELECT api FROM waybill_installation ORDER BY number").await;
    assert_eq!((recorded, seen(&old)), (vec![old.base.clone(), new.base.clone()], (0, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_an_unknown_source_is_taken_over_by_a_move() {
    let (old, new) = (market().await, market().await);
    new.sandbox.set_secret("second", "another-secret").unwrap();
    let database = Database::fresh().await;
    let mysql = format!("[mysql]\nurl = \"{}\"\n", database.url());
    let first = at(&old, &mysql);
    worked(&first, &["first", "second"]);
    database.run("DELETE FROM waybill_installation").await;
    seal_rows_as_before(&database, &first.path("data.key")).await;
    old.sandbox.reset_audit();
    let second = at(&new, &mysql);
    // Another key opens nothing, so nothing moves.
    says(&second.run(&["source", "move", "--yes"]).expect(1), &["another master key"]);
    fs::remove_dir_all(second.path("data")).unwrap();
    fs::copy(first.path("data.key"), second.path("data.key")).unwrap();
    says(&second.run(&["source", "move"]).expect(2), &["not recorded", &new.base, "2 shops"]);
    says(&second.run(&["source", "move", "--yes"]).expect(1), &["1 shop was accepted, 1 refused"]);
    assert_eq!((seen(&new), seen(&old)), ((0, 2), (0, 0)));
    second.run(&["sync", "--quiet"]).expect(1);
    // Lost before its schema knows: what was refused is still not called.
    fs::remove_dir_all(second.path("data")).unwrap();
    new.sandbox.reset_audit();
    second.run(&["sync", "--quiet"]).expect(1);
    let of_second = new.sandbox.calls().into_iter().filter(|call| call.client_id == "second").count();
    assert_eq!((of_second, shops(&second).len()), (0, 2));
    says(&first.run(&["sync"]).expect(2), &["the MySQL schema", &new.base]);
    assert_eq!(seen(&old), (0, 0));
}
