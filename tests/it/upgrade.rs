//! A data directory and a MySQL schema that an earlier build made open, show what they held, and go on.
//!
//! `tests/it/upgrade/` holds them. `WAYBILL_UPGRADE_MAKE=1` with `WAYBILL_RIG_BINARY` naming the earlier build makes them
//! again: work that was killed on its way, and documents that wait for a database that is away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use reqwest::Method;
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::mariadb::Database;
use crate::support::no_limits;
use crate::support::program::{Folder, Market, Serving};

const RESOURCES: [&str; 2] = ["shipments", "returns"];
/// Nothing listens there, so what is stored does not change.
const NOWHERE: &str = "http://127.0.0.1:9";
const NO_DATABASE: &str = "mysql://root@127.0.0.1:9/none";

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upgrade").join(name)
}

fn is_to_make() -> bool {
    std::env::var_os("WAYBILL_UPGRADE_MAKE").is_some()
}

async fn market() -> Market {
    let shop = |name: &str| ShopOptions {
        client_id: name.into(),
        client_secret: format!("secret-of-{name}"),
        fbr: 12,
        fbb: 4,
    };
    let shops = vec![shop("first"), shop("second"), shop("third")];
    Market::open(Options { seed: 7, shops, limits: no_limits(), ..Options::default() }).await
}

/// Configures the folder for a marketplace, with its rules lifted, and for a database.
fn configure(folder: &Folder, market: &str, mysql: Option<&str>) {
    let lifted: Vec<String> = no_limits().keys().map(|rule| format!("\"{rule}\" = \"none\"")).collect();
    let mysql = mysql.map(|url| format!("[mysql]\nurl = \"{url}\"\n")).unwrap_or_default();
    let text = format!(
        "resources = {RESOURCES:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[source]\nbase_url = \"{market}\"\n\
         token_url = \"{market}/token\"\n[source.limits]\n{}\n[schedule]\nsync = \"0 0 0 1 1 *\"\n\
         reconcile = \"0 0 0 1 1 *\"\n{mysql}",
        lifted.join("\n")
    );
    folder.write("waybill.toml", &text);
}

/// What the build shows of what it holds.
async fn shown(serving: &Serving) -> Value {
    let mut shown = BTreeMap::new();
    for resource in RESOURCES {
        shown.insert(resource.to_owned(), Value::from(serving.all(&format!("/api/v1/{resource}")).await));
    }
    let mut shops = serving.all("/api/v1/shops").await;
    for shop in &mut shops {
        shop.as_object_mut().unwrap().remove("resources_health");
    }
    shown.insert("shops".to_owned(), Value::from(shops));
    let mut keys = serving.get("/api/v1/keys").await["items"].as_array().unwrap().clone();
    for key in &mut keys {
        key.as_object_mut().unwrap().remove("last_used_at");
    }
    shown.insert("keys".to_owned(), Value::from(keys));
    json!(shown)
}

/// A marketplace that is away changes nothing that is stored.
fn be_away(market: &Market, away: bool) {
    let refusal = FaultKind::Status { code: 503, body: FaultBody::Json, headers: BTreeMap::new() };
    market.sandbox.set_faults(if away { vec![Fault::always("/", refusal)] } else { Vec::new() });
}

fn archive_of(folder: &Folder, name: &str) {
    let kept = ["-C", folder.dir.path().to_str().unwrap(), "data", "data.key"];
    let status = Command::new("tar").arg("-czf").arg(place(name)).args(kept).status().unwrap();
    assert!(status.success());
}

fn unpacked(name: &str) -> Folder {
    let folder = Folder::at(NOWHERE, "");
    let status = Command::new("tar").arg("-xzf").arg(place(name)).arg("-C").arg(folder.dir.path()).status().unwrap();
    assert!(status.success());
    folder
}

/// Registers shops, syncs, and leaves one paused, one removed, and a walk under way.
async fn work(folder: &Folder, market: &Market) {
    for name in ["first", "second", "third"] {
        let secret = format!("secret-of-{name}");
        folder.feed(&["shops", "add", "--name", name, "--client-id", name], &secret).expect(0);
    }
    folder.run(&["sync", "--quiet"]).expect(0);
    folder.run(&["keys", "create", "--name", "reader"]).expect(0);
    let serving = folder.serve();
    let id = |shops: &[Value], name: &str| {
        let shop = shops.iter().find(|shop| shop["name"] == name).unwrap();
        shop["id"].as_str().unwrap().to_owned()
    };
    let shops = serving.all("/api/v1/shops").await;
    let path = format!("/api/v1/shops/{}", id(&shops, "second"));
    let paused = serving.call(Method::PATCH, &path).json(&json!({"paused": true})).send().await.unwrap();
    assert_eq!(paused.status(), 200);
    let path = format!("/api/v1/shops/{}?purge=true", id(&shops, "third"));
    assert!(serving.call(Method::DELETE, &path).send().await.unwrap().status().is_success());
    serving.idle(Duration::from_secs(60)).await;
    // Each call takes a while from here on, so the walk is under way when the process is killed.
    market.sandbox.set_latency(Duration::from_millis(200));
    let path = format!("/api/v1/shops/{}/sync", id(&shops, "first"));
    let asked = serving.call(Method::POST, &path).json(&json!({"mode": "full"})).send().await.unwrap();
    assert_eq!(asked.status(), 202);
    serving.kill();
    market.sandbox.set_latency(Duration::ZERO);
}

fn write(folder: &Folder, name: &str, shown: &Value) {
    archive_of(folder, &format!("{name}.tar.gz"));
    fs::write(place(&format!("{name}.json")), serde_json::to_string(shown).unwrap()).unwrap();
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&fs::read(place(&format!("{name}.json"))).unwrap()).unwrap()
}

/// What a folder shows that is configured for a marketplace.
async fn shows(folder: &Folder, market: &str, mysql: Option<&str>) -> Value {
    configure(folder, market, mysql);
    let serving = folder.serve();
    let shown = shown(&serving).await;
    assert_eq!(serving.terminate().0, Some(0));
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_an_earlier_build_opens_and_goes_on() {
    let market = market().await;
    if is_to_make() {
        let folder = Folder::at(NOWHERE, "");
        configure(&folder, &market.base, None);
        work(&folder, &market).await;
        be_away(&market, true);
        let shown = shows(&folder, &market.base, None).await;
        be_away(&market, false);
        write(&folder, "archive", &shown);
    }
    let folder = unpacked("archive.tar.gz");
    assert_eq!(shows(&folder, NOWHERE, None).await, expected("archive"));
    // It belongs to the first source that it is opened with.
    configure(&folder, &market.base, None);
    folder.run(&["sync", "--full", "--quiet"]).expect(2);
    let folder = unpacked("archive.tar.gz");
    configure(&folder, &market.base, None);
    folder.run(&["sync", "--full", "--quiet"]).expect(0);
    folder.run(&["verify", "--quiet"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_and_an_outbox_of_an_earlier_build_open_and_go_on() {
    let market = market().await;
    if is_to_make() {
        let database = Database::fresh().await;
        let folder = Folder::at(NOWHERE, "");
        configure(&folder, &market.base, Some(&database.url()));
        work(&folder, &market).await;
        be_away(&market, true);
        let mut shown = shows(&folder, &market.base, Some(&database.url())).await;
        be_away(&market, false);
        dump(&database.url(), &place("mysql.sql"));
        // Read while the database is away, these wait in the outbox. No later marketplace has them.
        let added = market.sandbox.add_shipments("first", sandbox::Method::Fbr, 3).unwrap();
        shown["waiting"] = json!(added);
        configure(&folder, &market.base, Some(NO_DATABASE));
        folder.run(&["sync", "--quiet", "--at-most", "5s"]).expect(1);
        write(&folder, "mysql", &shown);
    }
    let database = Database::fresh().await;
    database.conn().await.query_drop(fs::read_to_string(place("mysql.sql")).unwrap()).await.unwrap();
    let folder = unpacked("mysql.tar.gz");
    configure(&folder, &market.base, Some(&database.url()));
    folder.run(&["sync", "--full", "--quiet"]).expect(0);
    folder.run(&["verify", "--quiet"]).expect(0);
    let (now, before) = (shows(&folder, &market.base, Some(&database.url())).await, expected("mysql"));
    for list in ["shops", "keys"] {
        assert_eq!(now[list], before[list]);
    }
    let ids = |list: &Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|document| document["id"].as_str().unwrap().to_owned()).collect()
    };
    let waiting: BTreeSet<String> = serde_json::from_value(before["waiting"].clone()).unwrap();
    assert!(ids(&now["shipments"]).is_superset(&waiting), "what waited in the outbox is not in the database");
    for resource in RESOURCES {
        assert!(ids(&now[resource]).is_superset(&ids(&before[resource])), "{resource}");
    }
}

/// A database as statements, without what only one kind of server reads.
fn dump(url: &str, to: &Path) {
    let (user_and_host, name) = url.rsplit_once('/').unwrap();
    let (host, port) = user_and_host.rsplit_once('@').unwrap().1.rsplit_once(':').unwrap();
    let flags = ["-h", host, "-P", port, "-u", "root", "--skip-comments", "--skip-add-locks", name];
    let dumped = Command::new("mariadb-dump").args(flags).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    fs::write(to, dumped.stdout).unwrap();
}
