//! kill -9 at random moments, again and again: nothing is lost, nothing is there twice, and no budget is
//! overdrawn. `WAYBILL_TEST_SEED` repeats a run.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panic, and says what it did")]

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use reqwest::Method;
use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::mariadb::Database;
use crate::support::program::{Folder, Market, Serving};

const KILLS: usize = 10;
/// As many detail calls of a shop as its budget lets be in flight at a kill.
const WIDTH: u64 = 50;
const ROWS: [usize; 2] = [220, 80];
const LIMITS: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"20/s\"\n\"GET /retailer/shipments/*\" = \"50/s\"\n";
const CLIENTS: [&str; 2] = ["first", "second"];
const IDLE_WITHIN: Duration = Duration::from_secs(120);

/// When the next kill comes.
#[derive(Debug)]
enum Moment {
    /// So long after the start of the process; it may not even listen.
    AfterStart(Duration),
    /// When the marketplace has seen that many more calls: in the middle of the work.
    AfterCalls(usize),
}

fn moments(random: &mut fastrand::Rng) -> Vec<Moment> {
    let mut moments: Vec<Moment> = (0..KILLS)
        .map(|kill| match kill {
            0..3 => Moment::AfterStart(Duration::from_millis(random.u64(0..100))),
            3..6 => Moment::AfterStart(Duration::from_millis(random.u64(100..1500))),
            _ => Moment::AfterCalls(random.usize(1..120)),
        })
        .collect();
    random.shuffle(&mut moments);
    moments
}

fn seed() -> u64 {
    let seed = match std::env::var("WAYBILL_TEST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    };
    println!("repeat with WAYBILL_TEST_SEED={seed}");
    seed
}

async fn market(seed: u64) -> Market {
    let shop = |client_id: &&str| ShopOptions {
        client_id: (*client_id).into(),
        client_secret: format!("secret-of-{client_id}"),
        fbr: ROWS[0],
        fbb: ROWS[1],
    };
    let limits: toml::Table = toml::from_str(LIMITS).unwrap();
    let limits: BTreeMap<String, String> = limits["source"]["limits"].clone().try_into().unwrap();
    Market::open(Options {
        seed,
        shops: CLIENTS.iter().map(shop).collect(),
        limits,
        latency: Duration::from_millis(5),
        ..Options::default()
    })
    .await
}

/// Registers a shop and kills the service as soon as it has said yes.
async fn register_and_kill(folder: &Folder, client_id: &str) -> String {
    let serving = folder.serve();
    let body = json!({"name": client_id, "client_id": client_id, "client_secret": format!("secret-of-{client_id}")});
    let answer = serving.call(Method::POST, "/api/v1/shops").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let shop: Value = answer.json().await.unwrap();
    serving.kill();
    shop["id"].as_str().unwrap().to_owned()
}

async fn is_well(serving: &Serving) {
    let answer = serving.call(Method::GET, "/healthz").send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

async fn kill_at(folder: &Folder, market: &Market, moment: &Moment) {
    let mut serving = folder.spawn_serve();
    match moment {
        // The moment is the test's input; nothing is waited for.
        Moment::AfterStart(after) => tokio::time::sleep(*after).await,
        Moment::AfterCalls(calls) => {
            serving.listening();
            is_well(&serving).await;
            let target = market.sandbox.calls().len() + calls;
            let reached = async {
                while market.sandbox.calls().len() < target {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            // That many calls may not be left.
            tokio::select! {
                () = reached => {}
                _ = serving.idle(IDLE_WITHIN) => {}
            }
        }
    }
    assert!(serving.is_alive(), "{moment:?}: it ended by itself:\n{}", folder.said());
    serving.kill();
}

/// What the shops hold, by the id that waybill gave the shop and the document's.
fn truth(market: &Market, shops: &[String]) -> HashMap<(String, String), Value> {
    let of = |(client_id, shop): (&&str, &String)| {
        let rows = market.sandbox.truth(client_id).into_iter();
        rows.map(|(_, id, document)| ((shop.clone(), id), document)).collect::<Vec<_>>()
    };
    CLIENTS.iter().zip(shops).flat_map(of).collect()
}

fn assert_equal(found: Vec<((String, String), Value)>, truth: &HashMap<(String, String), Value>) {
    assert_eq!(found.len(), truth.len(), "rows");
    for (key, document) in found {
        assert_eq!(Some(&document), truth.get(&key), "{key:?}");
    }
}

/// The whole story; the service is idle at its end.
async fn survive(folder: &Folder, market: &Market, seed: u64) -> (Serving, Vec<String>) {
    let mut shops = Vec::new();
    for client_id in CLIENTS {
        shops.push(register_and_kill(folder, client_id).await);
    }
    for moment in moments(&mut fastrand::Rng::with_seed(seed)) {
        kill_at(folder, market, &moment).await;
    }
    let serving = folder.serve();
    is_well(&serving).await;
    let status = serving.idle(IDLE_WITHIN).await;
    assert_eq!((&status["parked"], &status["outbox"]), (&json!(0), &json!(0)), "{status:#}");
    for run in serving.all("/api/v1/runs").await {
        assert_eq!(run["state"], "done", "{run:#}");
    }
    let audit = market.sandbox.audit();
    assert!(audit.breaches().is_empty(), "{:#?}", audit.breaches());
    assert_eq!((audit.refused_429, audit.refused_401, audit.unrecorded), (0, 0, 0), "{:?}", audit.statuses);
    let kills = KILLS as u64 + 2;
    println!(
        "{kills} kills: {} details read, {} of them again, {} pages, {} logins",
        audit.details_read, audit.details_reread, audit.list_pages, audit.token_requests
    );
    assert!(audit.details_reread <= kills * WIDTH * 2, "{} read again", audit.details_reread);
    (serving, shops)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_loses_nothing_on_the_way_to_mysql() {
    let seed = seed();
    let database = Database::fresh().await;
    let market = market(seed).await;
    let folder = Folder::at(&market.base, &format!("[mysql]\nurl = \"{}\"\n{LIMITS}", database.url()));
    let (serving, shops) = survive(&folder, &market, seed).await;
    let rows: Vec<(String, String, Vec<u8>)> =
        database.rows("SELECT shop_id, shipment_id, document FROM shipments").await;
    let rows = rows.into_iter().map(|(shop, id, document)| ((shop, id), serde_json::from_slice(&document).unwrap()));
    let truth = truth(&market, &shops);
    assert_equal(rows.collect(), &truth);
    let items: usize = truth.values().map(|document| document["shipmentItems"].as_array().map_or(0, Vec::len)).sum();
    let counted: Vec<usize> = database.rows("SELECT COUNT(*) FROM shipment_items").await;
    assert_eq!(counted, [items], "child rows");
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_loses_nothing_in_the_archive() {
    let seed = seed();
    let market = market(seed).await;
    let folder = Folder::at(&market.base, LIMITS);
    let (serving, shops) = survive(&folder, &market, seed).await;
    let items = serving.all("/api/v1/shipments").await.into_iter().map(|item| {
        let key = (item["shop_id"].as_str().unwrap().to_owned(), item["id"].as_str().unwrap().to_owned());
        (key, item["document"].clone())
    });
    assert_equal(items.collect(), &truth(&market, &shops));
    assert_eq!(serving.terminate().0, Some(0));
}
