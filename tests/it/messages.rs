//! What commands say when they could not do all of it: what they waited for, the last error, and what to do.

use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::Value;

use crate::support::mariadb::Database;
use crate::support::program::{self, Ended, Folder, Market};

const SECRET: &str = "secret-of-first";
const ADD: [&str; 6] = ["shops", "add", "--name", "First shop", "--client-id", "first"];

async fn market() -> Market {
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 12, fbb: 3 };
    Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await
}

/// Without a shop.
fn folder(market: &Market) -> Folder {
    let limits = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    Folder::at(&market.base, limits)
}

#[track_caller]
fn says(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    let all = format!("{}{}", ended.out, ended.err);
    program::says(&all, parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_whose_time_ran_out_says_what_it_waited_for_and_the_last_error() {
    let market = market().await;
    let mut folder = folder(&market);
    folder.feed(&ADD, SECRET).expect(0);
    let away = FaultKind::Status { code: 503, body: FaultBody::Html, headers: Default::default() };
    market.sandbox.set_faults(vec![Fault::always("/retailer/shipments?", away)]);
    for quiet in [&["sync", "--at-most", "2s"][..], &["sync", "--at-most", "2s", "--quiet"]] {
        let ended = folder.run(quiet);
        let parts = ["the time ran out, with 2 open runs", "Last error of First shop (", "503", "Remedy: "];
        says(&ended, 1, &parts);
        assert!(!ended.err.contains("/api/v1"), "no server runs: {}", ended.err);
    }
    market.sandbox.set_faults(Vec::new());
    // The documents wait for a database that does not run.
    folder.set("WAYBILL_MYSQL_URL", "mysql://waybill:none@127.0.0.1:1/waybill");
    let ended = folder.run(&["sync", "--at-most", "3s"]);
    let parts = ["the time ran out", "entries for the sink left to do", "MySQL takes no documents", "`waybill check`"];
    says(&ended, 1, &parts);
    assert!(!ended.err.contains("none@"), "{}", ended.err);
    assert_eq!(ended.err.matches("MySQL does not accept rows: ").count(), 1, "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_table_is_named_with_the_statement_that_repairs_it() {
    let market = market().await;
    let mut folder = folder(&market);
    let database = Database::fresh().await;
    database.run("CREATE TABLE shipments (shop_id VARCHAR(64), shipment_id VARCHAR(128))").await;
    folder.feed(&ADD, SECRET).expect(0);
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    let parts = ["no primary key", "ALTER TABLE `shipments` ADD PRIMARY KEY"];
    let ended = folder.run(&["sync", "--at-most", "3s"]);
    says(&ended, 1, &[&["the time ran out", "Last error: MySQL takes no documents"][..], &parts].concat());
    // At rest too, where nothing has tried to write.
    says(&folder.run(&["status"]), 1, &[&["health: failing", "sink_unavailable"][..], &parts].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_shop_each_command_says_how_to_register_one() {
    let market = market().await;
    let folder = folder(&market);
    let commands = [&["plan"][..], &["status"], &["state"], &["verify"], &["shops", "list"]];
    for command in commands {
        says(&folder.run(command), 0, &["no shops yet", "`waybill shops add`"]);
    }
    // A data directory that a service has begun.
    assert_eq!(folder.serve().terminate().0, Some(0));
    for command in commands {
        says(&folder.run(command), 0, &["no shops yet", "`waybill shops add`"]);
        let read: Value = serde_json::from_str(&folder.run(&[command, &["--json"]].concat()).expect(0).out).unwrap();
        assert!(read.is_object());
    }
    says(&folder.run(&["sync"]), 1, &["no shop is registered", "waybill shops add"]);
    let id = folder.feed(&ADD, SECRET).expect(0).out.trim().to_owned();
    folder.run(&["shops", "pause", &id]).expect(0);
    says(&folder.run(&["plan"]), 0, &["no active shop syncs any of this", "`waybill shops list`"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_beside_a_server_says_what_to_do_instead() {
    let market = market().await;
    let folder = folder(&market);
    folder.feed(&ADD, SECRET).expect(0);
    let serving = folder.serve();
    let held = format!("`waybill serve` (process {})", serving.pid());
    says(&folder.run(&["plan"]), 1, &[&held, "no call for a plan", "GET /api/v1/runs", "stop the server"]);
    says(&folder.run(&["preview", "shipments"]), 1, &[&held, "stop it, run this command"]);
    says(&folder.run(&["state"]), 1, &[&held, &format!("{}/api/v1/status", serving.base)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_cannot_be_registered_is_answered_with_the_remedy() {
    let market = market().await;
    let folder = folder(&market);
    says(&folder.feed(&ADD, ""), 2, &["standard input has no client secret", "first line"]);
    folder.write("secret.txt", "");
    let from_file = folder.run(&[&ADD[..], &["--secret-file", "secret.txt"]].concat());
    says(&from_file, 2, &["--secret-file secret.txt has no client secret"]);
    says(&folder.feed(&ADD, "two words"), 2, &["visible ASCII characters", "right file"]);
    says(
        &folder.feed(&ADD, "wrong-secret"),
        1,
        &["the login host refused the credentials", "Check the client id and the secret"],
    );
    let id = folder.feed(&ADD, SECRET).expect(0).out.trim().to_owned();
    says(&folder.feed(&ADD, SECRET), 1, &["registered already, as shop", &format!("waybill shops rotate {id}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_when_a_schedule_comes_next() {
    let market = market().await;
    let mut folder = folder(&market);
    for (written, next) in [("30 4 1 1 *", "-01-01T04:30:00Z"), ("15 30 4 1 1 *", "-01-01T04:30:15Z")] {
        folder.set("WAYBILL_SCHEDULE_SYNC", written);
        folder.set("WAYBILL_SCHEDULE_TIMEZONE", "UTC");
        let six = if written.starts_with("30") { "0 30 4 1 1 *" } else { written };
        let said = folder.run(&["check", "--offline"]);
        says(
            &said,
            0,
            &[&format!("sync \"{six}\" next at "), next, "second minute hour", "with five fields there is no second"],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_finds_nothing_says_where_it_looked() {
    let folder = Folder::bare();
    for command in [&["shops", "list"][..], &["plan"], &["state"], &["verify"], &["status"], &["keys", "list"]] {
        says(&folder.run(command), 0, &["data (no waybill.toml here: defaults)"]);
    }
    let market = market().await;
    let configured = self::folder(&market);
    says(&configured.run(&["shops", "list"]), 0, &["no shops yet in ", "/data (by waybill.toml)"]);
    says(&configured.run(&["sync"]), 1, &["no shop is registered in ", "/data (by waybill.toml)"]);
    says(&configured.run(&["keys", "list"]), 0, &["no API keys yet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_reached_is_named_with_its_key() {
    let market = market().await;
    let mut folder = folder(&market);
    folder.set("WAYBILL_SOURCE_TOKEN_URL", "http://127.0.0.1:1/token");
    let ended = folder.feed(&ADD, SECRET);
    says(&ended, 1, &["the login host 127.0.0.1:1 (source.token_url) cannot be reached", "Connection refused"]);
    assert!(!ended.err.contains("next login"), "nothing tries it again: {}", ended.err);
    // Nothing belongs to that source yet, so another one can be named.
    folder.set("WAYBILL_SOURCE_TOKEN_URL", &format!("{}/token", market.base));
    folder.set("WAYBILL_SOURCE_BASE_URL", "http://127.0.0.1:1");
    folder.feed(&ADD, SECRET).expect(0);
    says(
        &folder.run(&["check"]),
        1,
        &["the API cannot be reached: Connection refused", "(127.0.0.1:1, source.base_url)"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_given_rows_of_a_plan_count_for_each_stream() {
    let market = market().await;
    let folder = folder(&market);
    folder.feed(&ADD, SECRET).expect(0);
    says(&folder.run(&["plan", "--rows", "120"]), 0, &["The given rows count for each stream: shipments has 2."]);
}

#[test]
fn a_missing_data_directory_is_reported_with_what_creates_it() {
    let mut folder = Folder::bare();
    folder.set("WAYBILL_DATA_DIR", &folder.path("a/b/data").display().to_string());
    says(
        &folder.run(&["check", "--offline"]),
        0,
        &["a/b/data is created at the first start, and the folders above it"],
    );
    folder.set("WAYBILL_MASTER_KEY", "abc");
    says(&folder.run(&["check", "--offline"]), 2, &["give the key that the data directory was made with"]);
}
