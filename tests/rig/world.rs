//! The world of one run: a sandbox with shops, the service in its own folder, a sink, and what the service has
//! acknowledged so far.
//!
//! Tests act on it (start, kill, register, change documents) and hand it to the oracle at their end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Method;
use sandbox::{Options, Sandbox, ShopOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::mariadb::Database;
use crate::network::{MARKET_HOST, Network};
use crate::program::{Folder, Market, Serving};
use crate::run::Run;

/// A start must answer within this.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// A pause between requests, because a key's requests are limited.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Streams of a shop: one per fulfilment method.
const STREAMS: usize = 2;
/// Full walks are due every twenty seconds; the current one may have begun too early.
const CLOCK_WALKS_WITHIN: Duration = Duration::from_secs(90);
/// How often documents change while the marketplace is active.
const STIR_EVERY: Duration = Duration::from_millis(250);

/// Waits until an expression is true, which may call the API: `until!(world, "what", at_most, expression)`.
macro_rules! until {
    ($world:expr, $what:expr, $at_most:expr, $holds:expr) => {{
        let begun = std::time::Instant::now();
        while !$holds {
            assert!(begun.elapsed() < $at_most, "not after {:?}: {}\n{}", $at_most, $what, $world.tail());
            tokio::time::sleep(crate::world::LOOK_EVERY).await;
        }
    }};
}
pub(crate) use until;

/// A rate rule as both sides know it: calls per number of seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) calls: u32,
    pub(crate) seconds: u32,
}

/// The initial state of a world.
pub(crate) struct Plan {
    pub(crate) shops: usize,
    /// Shipments of each shop, by fulfilment.
    pub(crate) rows: [usize; 2],
    pub(crate) list: Limit,
    pub(crate) detail: Limit,
    pub(crate) mysql: Option<Database>,
    /// More of the configuration file.
    pub(crate) toml: &'static str,
    pub(crate) options: fn(&mut Options),
    /// The service and the marketplace are in namespaces of their own.
    pub(crate) network: Option<Network>,
}

impl Plan {
    /// An archive, and budgets wide enough for a short run, and narrow enough to matter.
    pub(crate) fn of(shops: usize, rows: [usize; 2]) -> Plan {
        Plan {
            shops,
            rows,
            list: Limit { calls: 20, seconds: 1 },
            detail: Limit { calls: 50, seconds: 1 },
            mysql: None,
            toml: "",
            options: |_| {},
            network: None,
        }
    }

    /// The rules with their names.
    fn limits(&self) -> BTreeMap<String, Limit> {
        BTreeMap::from([
            ("GET /retailer/shipments".to_owned(), self.list),
            ("GET /retailer/shipments/*".to_owned(), self.detail),
        ])
    }
}

pub(crate) struct World {
    pub(crate) run: Run,
    pub(crate) market: Market,
    pub(crate) folder: Folder,
    pub(crate) database: Option<Database>,
    pub(crate) data_dir: PathBuf,
    pub(crate) limits: BTreeMap<String, Limit>,
    /// Every client id known to the sandbox.
    pub(crate) clients: Vec<String>,
    /// Shops acknowledged by the service: client id -> shop id.
    pub(crate) shops: BTreeMap<String, String>,
    /// Documents listed from the beginning on, by client id.
    pub(crate) from_the_start: BTreeMap<String, Vec<String>>,
    /// Answers of the API that are its own faults.
    pub(crate) server_errors: Mutex<Vec<String>>,
    /// Walks are scheduled, and often.
    pub(crate) walks_often: bool,
    pub(crate) network: Option<Network>,
}

impl World {
    pub(crate) async fn open(run: &Run, plan: Plan) -> World {
        let clients: Vec<String> = (0..plan.shops).map(|number| format!("client-{number}")).collect();
        let limits = plan.limits();
        let written = limits.iter().map(|(rule, limit)| (rule.clone(), format!("{}/{}s", limit.calls, limit.seconds)));
        let written: BTreeMap<String, String> = written.collect();
        let shop = |client_id: &String| ShopOptions {
            client_id: client_id.clone(),
            client_secret: secret(client_id),
            fbr: plan.rows[0],
            fbb: plan.rows[1],
        };
        let mut options = Options {
            seed: run.seed,
            shops: clients.iter().map(shop).collect(),
            limits: written.clone(),
            latency: Duration::from_millis(2),
            ..Options::default()
        };
        (plan.options)(&mut options);
        let market = match &plan.network {
            Some(network) => Market::at(network.listen(), MARKET_HOST, options),
            None => Market::open(options).await,
        };
        let rules: String = written.iter().map(|(rule, limit)| format!("\"{rule}\" = \"{limit}\"\n")).collect();
        let mut folder = Folder::at(&market.base, &format!("[source.limits]\n{rules}{}", plan.toml));
        if let Some(network) = &plan.network {
            let command = network.command(&folder.path("hosts"));
            folder.run_under(&command.iter().map(String::as_str).collect::<Vec<_>>());
        }
        if let Some(database) = &plan.mysql {
            folder.set("WAYBILL_MYSQL_URL", &database.url());
        }
        let ids = |client: &String| -> Vec<String> {
            market.sandbox.truth(client).into_iter().map(|(_, id, _)| id).collect()
        };
        let from_the_start = clients.iter().map(|client| (client.clone(), ids(client))).collect();
        let data_dir = folder.path("data");
        let shops = BTreeMap::new();
        World {
            run: run.clone(),
            market,
            folder,
            database: plan.mysql,
            data_dir,
            limits,
            clients,
            shops,
            from_the_start,
            server_errors: Mutex::default(),
            walks_often: false,
            network: plan.network,
        }
    }

    /// Frequent incremental and full walks by schedule, with quiet moments in between also on a slow machine.
    pub(crate) fn walk_often(&mut self) {
        self.folder.set("WAYBILL_SCHEDULE_SYNC", "*/5 * * * * *");
        self.folder.set("WAYBILL_SCHEDULE_RECONCILE", "*/20 * * * * *");
        self.walks_often = true;
    }

    /// Waits until the schedule alone has walked every stream in full, from now on.
    pub(crate) async fn walked_by_the_clock(&self, serving: &Serving) {
        let newest = serving.get("/api/v1/runs?limit=1").await;
        let before = newest["items"][0]["id"].as_u64().unwrap_or(0);
        until!(self, "a whole walk of every stream by the clock", CLOCK_WALKS_WITHIN, {
            let mut walked = BTreeSet::new();
            for run in runs_after(serving, before).await {
                if run["mode"] == "full" && run["state"] == "done" {
                    walked.insert((run["shop_id"].to_string(), run["parameters"].to_string()));
                }
            }
            let of = |shop: &String| walked.iter().filter(|(id, _)| *id == format!("\"{shop}\"")).count();
            self.shops.values().all(|shop| of(shop) == STREAMS)
        });
    }

    /// Moves the marketplace to another port of loopback, from the next start on.
    pub(crate) fn reach_market_at(&mut self, port: u16) {
        let base = format!("http://127.0.0.1:{port}");
        self.folder.set("WAYBILL_SOURCE_BASE_URL", &base);
        self.folder.set("WAYBILL_SOURCE_TOKEN_URL", &format!("{base}/token"));
    }

    /// Moves the data directory, from the next start on.
    pub(crate) fn move_data(&mut self, to: PathBuf) {
        self.folder.set("WAYBILL_DATA_DIR", &to.display().to_string());
        self.data_dir = to;
    }

    /// Starts the service and waits until it answers, which must be quick.
    pub(crate) async fn start(&self) -> Serving {
        let begun = Instant::now();
        let mut serving = self.folder.spawn_serve();
        tokio::task::block_in_place(|| serving.listening());
        let answer = serving.call(Method::GET, "/healthz").send().await;
        let took = begun.elapsed();
        let status = match answer {
            Ok(answer) => answer.status(),
            Err(error) => {
                let alive = serving.is_alive();
                panic!("no answer {took:?} after a start; alive: {alive}: {error:?}\n{}", self.tail());
            }
        };
        self.run.score.recovered(took);
        assert_eq!(status, 200, "/healthz after a start");
        assert!(took <= READY_WITHIN, "ready only {took:?} after its start");
        serving
    }

    /// kill -9.
    pub(crate) fn kill(&self, mut serving: Serving) {
        assert!(serving.is_alive(), "it ended by itself:\n{}", self.tail());
        tokio::task::block_in_place(|| serving.kill());
        self.run.score.kills.add(1);
    }

    /// One call of the API; None if no answer came.
    pub(crate) async fn ask(
        &self,
        serving: &Serving,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        let mut call = serving.call(method, path);
        if let Some(body) = body {
            call = call.json(&body);
        }
        let answer = call.send().await.ok()?;
        let status = answer.status().as_u16();
        // 502 is about the login host, 503 and 507 about a passing state; others are our own faults.
        if status >= 500 && !matches!(status, 502 | 503 | 507) {
            self.run.score.server_errors.add(1);
            self.server_errors.lock().unwrap().push(format!("the API answered {status} to {path}"));
        }
        Some((status, answer.json().await.unwrap_or(Value::Null)))
    }

    /// Repeats the request while it is rate limited.
    pub(crate) async fn insist(
        &self,
        serving: &Serving,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        loop {
            let (status, answer) = self.ask(serving, method.clone(), path, body.clone()).await.unwrap();
            if status != 429 {
                return (status, answer);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Registers a shop. True if that was acknowledged, now or (409) before.
    pub(crate) async fn register(&mut self, serving: &Serving, client_id: &str) -> bool {
        let body = json!({"name": client_id, "client_id": client_id, "client_secret": secret(client_id)});
        let asked = loop {
            match self.ask(serving, Method::POST, "/api/v1/shops", Some(body.clone())).await {
                Some((429, _)) => tokio::time::sleep(Duration::from_millis(200)).await,
                asked => break asked,
            }
        };
        let Some((status, shop)) = asked else {
            return false;
        };
        let id = match status {
            201 => shop["id"].as_str().map(str::to_owned),
            409 => self.shop_id(serving, client_id).await,
            _ => None,
        };
        self.run.note(format!("register {client_id}: {status}"));
        let Some(id) = id else { return false };
        self.shops.insert(client_id.to_owned(), id);
        true
    }

    async fn shop_id(&self, serving: &Serving, client_id: &str) -> Option<String> {
        let (_, shops) = self.ask(serving, Method::GET, "/api/v1/shops?limit=500", None).await?;
        let shop = shops["items"].as_array()?.iter().find(|shop| shop["client_id"] == client_id)?;
        shop["id"].as_str().map(str::to_owned)
    }

    /// Registers all shops not registered yet, each of which must be acknowledged.
    pub(crate) async fn register_all(&mut self, serving: &Serving) {
        for client in self.clients.clone() {
            if !self.shops.contains_key(&client) {
                assert!(self.register(serving, &client).await, "{client} was not taken:\n{}", self.tail());
            }
        }
    }

    /// Requests a full walk of every shop.
    pub(crate) async fn walk_all(&self, serving: &Serving) {
        for client_id in self.shops.keys() {
            let (status, answer) = self.walk(serving, client_id).await;
            assert_eq!(status, 202, "{answer}");
        }
    }

    /// Requests a full walk of one shop.
    pub(crate) async fn walk(&self, serving: &Serving, client_id: &str) -> (u16, Value) {
        let path = format!("/api/v1/shops/{}/sync", self.shops[client_id]);
        self.insist(serving, Method::POST, &path, Some(json!({"mode": "full"}))).await
    }

    /// Requests a change of one shop.
    pub(crate) async fn change(&self, serving: &Serving, client_id: &str, change: Value) -> (u16, Value) {
        let path = format!("/api/v1/shops/{}", self.shops[client_id]);
        self.insist(serving, Method::PATCH, &path, Some(change)).await
    }

    /// Requeues everything parked.
    pub(crate) async fn retry_parked(&self, serving: &Serving) {
        for one in serving.all("/api/v1/parked").await {
            let path = format!("/api/v1/parked/{}/retry", one["id"]);
            let (status, answer) = self.insist(serving, Method::POST, &path, None).await;
            assert!((200..300).contains(&status), "{path}: {status} {answer}");
        }
    }

    /// A shop as the API shows it.
    pub(crate) async fn shop(&self, serving: &Serving, client_id: &str) -> Value {
        let path = format!("/api/v1/shops/{}", self.shops[client_id]);
        let (status, shop) = self.insist(serving, Method::GET, &path, None).await;
        assert_eq!(status, 200, "{shop}");
        shop
    }

    /// Changes `share` of all documents per second and adds some, until the value is dropped.
    pub(crate) fn stir(&self, share: f64) -> Stirring {
        let sandbox = self.market.sandbox.clone();
        let ids = self.from_the_start.clone().into_iter();
        let ids: Vec<(String, String)> =
            ids.flat_map(|(client, ids)| ids.into_iter().map(move |id| (client.clone(), id))).collect();
        let mut random = self.run.random.clone();
        let each = (ids.len() as f64 * share * STIR_EVERY.as_secs_f64()).ceil() as usize;
        Stirring(tokio::spawn(async move {
            let mut pace = tokio::time::interval(STIR_EVERY);
            loop {
                pace.tick().await;
                stir_once(&sandbox, &ids, each, &mut random);
            }
        }))
    }

    /// The end of the service's output.
    pub(crate) fn tail(&self) -> String {
        let said = self.folder.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// The runs that began after that one, newest first.
async fn runs_after(serving: &Serving, before: u64) -> Vec<Value> {
    let (mut runs, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = serving.get(&format!("/api/v1/runs?limit=500{cursor}")).await;
        let items = page["items"].as_array().unwrap();
        let new = items.iter().take_while(|run| run["id"].as_u64() > Some(before));
        runs.extend(new.cloned());
        let is_last = items.last().is_none_or(|run| run["id"].as_u64() <= Some(before));
        match page["next_cursor"].as_str().filter(|_| !is_last) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return runs,
        }
    }
}

fn stir_once(sandbox: &Sandbox, ids: &[(String, String)], each: usize, random: &mut fastrand::Rng) {
    for _ in 0..each {
        let (client, id) = &ids[random.usize(..ids.len())];
        sandbox.change_row(client, id).unwrap();
    }
    if random.u8(..4) == 0 {
        let (client, _) = &ids[random.usize(..ids.len())];
        let method = if random.bool() { sandbox::Method::Fbr } else { sandbox::Method::Fbb };
        sandbox.add_shipments(client, method, random.usize(1..4)).unwrap();
    }
}

/// A marketplace that changes.
pub(crate) struct Stirring(JoinHandle<()>);

impl Drop for Stirring {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the sandbox takes for a client's secret; a canary.
pub(crate) fn secret(client_id: &str) -> String {
    format!("canary-secret-of-{client_id}-5e1f0c77")
}
