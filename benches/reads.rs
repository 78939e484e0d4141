//! The measurement behind `scripts/bench-reads`: what one API key that asks for all it may costs another key and the sync.
//! Both sinks; the sandbox and the rate rules of the shops are lifted; sandbox, service and database share the machine.

#![allow(
    clippy::print_stdout,
    clippy::large_futures,
    clippy::let_underscore_must_use,
    reason = "a script, not a service"
)]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sandbox::{Clock, Options, Sandbox, ShopOptions};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use support::{Killed, database_name, drop_database, fresh_database};

const KEY: &str = "reads-admin-key-4c1f7b92e0d5a83b6f";
const SECRET: &str = "reads-secret";
/// Something that takes longer is a fault, not a figure.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Requests of each kind that the greedy key has under way.
const GREEDY: usize = 40;
/// Their machines, since one may have fifty connections; and that of the other key.
const GREEDY_AT: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 3), Ipv4Addr::new(127, 0, 0, 4)];
const MODEST_AT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long each part without a sync takes.
const PART: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [binary, mysql, documents, synced] = arguments.as_slice() else {
        bail!("usage: reads BINARY mysql://user@host:port DOCUMENTS SYNCED");
    };
    let (documents, synced) = (documents.parse().context("DOCUMENTS")?, synced.parse().context("SYNCED")?);
    for (sink, mysql) in [("archive", None), ("MySQL", Some(mysql.as_str()))] {
        measure(binary, sink, mysql, (documents, synced)).await?;
        if let Some(server) = mysql {
            drop_database(server, &database_name("reads")).await?;
        }
    }
    Ok(())
}

async fn measure(
    binary: &str,
    sink: &str,
    mysql: Option<&str>,
    (documents, synced): (usize, usize),
) -> anyhow::Result<()> {
    let api = sandbox(&[("base", documents), ("alone", synced), ("read", synced), ("again", synced)]).await?;
    let service = Arc::new(Service::start(binary, &api, mysql).await?);
    let first = service.sync("base", documents).await?;
    println!("{sink:<8} {documents} documents synced at {first:.0}/s");
    let (greedy, modest) = (service.key("greedy").await?, service.key("modest").await?);
    service.indexed(&modest).await?;
    let quiet = modest_reads(&service, &modest, None, PART).await?;
    println!("{sink:<8} another key, alone:                    {}", quiet.line());
    let attack = Attack::start(&service, &greedy)?;
    let disturbed = modest_reads(&service, &modest, None, PART).await?;
    println!("{sink:<8} another key, {GREEDY} x q and {GREEDY} x limit=500: {}", disturbed.line());
    println!("{sink:<8} the greedy key's answers:              {}", attack.stop().await);
    let alone = service.sync("alone", synced).await?;
    let attack = Attack::start(&service, &greedy)?;
    let done = Arc::new(AtomicBool::new(false));
    let reads = modest_reads(&service, &modest, Some(Arc::clone(&done)), PATIENCE);
    let both = async {
        let pace = service.sync("read", synced).await;
        done.store(true, Ordering::Relaxed);
        pace
    };
    let (reads, under) = tokio::join!(reads, both);
    let (reads, under) = (reads?, under?);
    println!("{sink:<8} another key, during a sync:            {}", reads.line());
    println!("{sink:<8} the greedy key's answers:              {}", attack.stop().await);
    let again = service.sync("again", synced).await?;
    let unread = f64::midpoint(alone, again);
    println!(
        "{sink:<8} sync of {synced}: {alone:.0}/s, with these reads {under:.0}/s, without again {again:.0}/s: {:.0} %",
        under / unread * 100.0
    );
    Arc::try_unwrap(service).ok().context("the service is in use")?.remove()
}

/// Times of reads, in milliseconds, by kind.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    fn line(mut self) -> String {
        let mut all: Vec<f64> = self.0.values().flatten().copied().collect();
        let mut parts = vec![figures("all", &mut all)];
        parts.extend(self.0.iter_mut().map(|(kind, times)| figures(kind, times)));
        parts.join("; ")
    }
}

fn figures(kind: &str, times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let last = times.len().saturating_sub(1);
    let at = |part: f64| times.get(((times.len() as f64 * part) as usize).min(last)).copied().unwrap_or(0.0);
    format!("{kind} {} p50 {:.0} p99 {:.0} max {:.0} ms", times.len(), at(0.5), at(0.99), at(1.0))
}

/// Reads of an ordinary client, one after another, for a time or until something is done.
async fn modest_reads(
    service: &Service,
    key: &str,
    done: Option<Arc<AtomicBool>>,
    time: Duration,
) -> anyhow::Result<Times> {
    let client = client_at(MODEST_AT)?;
    let first: Value = service.ask(&client, "/api/v1/shipments?limit=50", key).await?.json().await?;
    let items = first["items"].as_array().context("items")?.clone();
    let (mut times, begun) = (Times::default(), Instant::now());
    'reading: loop {
        for item in &items {
            let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
            let day = text("shipment_date_time").chars().take(10).collect::<String>();
            for (kind, path) in [
                ("page", "/api/v1/shipments?limit=50".to_owned()),
                ("filter", format!("/api/v1/shipments?order_id={}", text("order_id"))),
                ("time", format!("/api/v1/shipments?limit=50&from={day}T00:00:00Z&to={day}T01:00:00Z")),
                ("one", format!("/api/v1/shipments/{}/{}", text("shop_id"), text("id"))),
            ] {
                if begun.elapsed() > time || done.as_ref().is_some_and(|done| done.load(Ordering::Relaxed)) {
                    break 'reading;
                }
                let asked = Instant::now();
                let answer = service.ask(&client, &path, key).await?;
                if !answer.status().is_success() {
                    bail!("{path}: {}", answer.text().await?);
                }
                answer.bytes().await?;
                times.0.entry(kind).or_default().push(asked.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    }
    Ok(times)
}

/// A key that always has as many requests under way as it was given connections.
struct Attack {
    tasks: JoinSet<()>,
    answers: Arc<Mutex<BTreeMap<u16, usize>>>,
}

impl Attack {
    fn start(service: &Arc<Service>, key: &str) -> anyhow::Result<Attack> {
        let (mut tasks, answers) = (JoinSet::new(), Arc::new(Mutex::new(BTreeMap::new())));
        let clients = [client_at(GREEDY_AT[0])?, client_at(GREEDY_AT[1])?];
        for n in 0..GREEDY * 2 {
            let path = if n < GREEDY { "/api/v1/shipments?q=zzzz" } else { "/api/v1/shipments?limit=500" };
            let (service, key, answers) = (Arc::clone(service), key.to_owned(), Arc::clone(&answers));
            let client = clients[n % 2].clone();
            tasks.spawn(async move {
                loop {
                    let Ok(answer) = service.ask(&client, path, &key).await else { return };
                    let status = answer.status().as_u16();
                    let after = answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.parse().ok());
                    answer.bytes().await.ok();
                    *answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_insert(0) += 1;
                    // As HTTP libraries do.
                    if status == 429 {
                        tokio::time::sleep(Duration::from_secs(after.unwrap_or(1))).await;
                    }
                }
            });
        }
        Ok(Attack { tasks, answers })
    }

    async fn stop(mut self) -> String {
        self.tasks.shutdown().await;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().map(|(status, count)| format!("{count} x {status}")).collect::<Vec<_>>().join(", ")
    }
}

/// The address of a sandbox, with its rate rules lifted.
async fn sandbox(shops: &[(&str, usize)]) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let api = format!("http://{}", listener.local_addr()?);
    let rules = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = rules.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    let shop = |(name, documents): &(&str, usize)| ShopOptions {
        client_id: (*name).to_owned(),
        client_secret: SECRET.into(),
        fbr: documents / 2,
        fbb: documents - documents / 2,
    };
    let shops = shops.iter().map(shop).collect();
    let sandbox = Sandbox::new(Options { shops, limits, ..Options::default() }, Clock::system())?;
    tokio::spawn(sandbox.serve(listener, std::future::pending()));
    Ok(api)
}

/// A client on a machine of its own.
fn client_at(address: Ipv4Addr) -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().local_address(Some(IpAddr::V4(address))).build()?)
}

/// The service as a process of its own.
struct Service {
    child: Killed,
    directory: PathBuf,
    base: String,
    client: reqwest::Client,
}

impl Service {
    async fn start(binary: &str, api: &str, mysql: Option<&str>) -> anyhow::Result<Service> {
        let directory = std::env::temp_dir().join(format!("waybill-reads-{}", std::process::id()));
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let mut config = format!(
            "data_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[schedule]\nsync = \"0 0 0 1 1 *\"\n\
             [source]\nbase_url = \"{api}\"\ntoken_url = \"{api}/token\"\n\
             [source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n",
            directory.join("data").display()
        );
        if let Some(server) = mysql {
            config
                .push_str(&format!("[mysql]\nurl = \"{}\"\n", fresh_database(server, &database_name("reads")).await?));
        }
        std::fs::write(directory.join("waybill.toml"), config)?;
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(directory.join("waybill.toml"))
            .env("WAYBILL_ADMIN_KEY", KEY)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting waybill")?;
        let base = format!("http://127.0.0.1:{port}");
        let service = Service { child: Killed(child), directory, base, client: reqwest::Client::new() };
        let begun = Instant::now();
        while service.get("/healthz", KEY).await.is_err() {
            if begun.elapsed() > PATIENCE {
                bail!("waybill does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(service)
    }

    async fn get(&self, path: &str, key: &str) -> anyhow::Result<reqwest::Response> {
        self.ask(&self.client, path, key).await
    }

    async fn ask(&self, client: &reqwest::Client, path: &str, key: &str) -> anyhow::Result<reqwest::Response> {
        Ok(client.get(format!("{}{path}", self.base)).bearer_auth(key).send().await?)
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let made = self.client.post(format!("{}{path}", self.base)).bearer_auth(KEY).json(body).send().await?;
        if !made.status().is_success() {
            bail!("{path}: {}", made.text().await?);
        }
        Ok(made.json().await?)
    }

    async fn key(&self, name: &str) -> anyhow::Result<String> {
        let made = self.post("/api/v1/keys", &serde_json::json!({ "name": name, "scope": "read" })).await?;
        Ok(made["key"].as_str().context("the key")?.to_owned())
    }

    /// Documents per second of one shop, from its registration until all are in the sink.
    async fn sync(&self, name: &str, documents: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let shop = serde_json::json!({ "name": name, "client_id": name, "client_secret": SECRET });
        self.post("/api/v1/shops", &shop).await?;
        loop {
            let status: Value = self.get("/api/v1/status", KEY).await?.json().await?;
            if status["idle"] == true {
                return Ok(documents as f64 / begun.elapsed().as_secs_f64());
            }
            if begun.elapsed() > PATIENCE {
                bail!("not done in time: {status}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a filter answers at once.
    async fn indexed(&self, key: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let asked = Instant::now();
            self.get("/api/v1/shipments?order_id=none", key).await?.bytes().await?;
            if asked.elapsed() < Duration::from_millis(300) || begun.elapsed() > Duration::from_secs(60) {
                return Ok(());
            }
        }
    }

    fn remove(self) -> anyhow::Result<()> {
        drop(self.child);
        Ok(std::fs::remove_dir_all(&self.directory)?)
    }
}
