//! The benchmark behind `scripts/bench`: a whole sync through the release binary against the sandbox and
//! a real MySQL, with all rate rules lifted; and the floors under it, a bare fetch loop and a bare upsert
//! loop. Sandbox, server and database share the machine, so read ratios before absolute numbers.

#![allow(
    clippy::print_stdout,
    clippy::large_futures,
    clippy::let_underscore_must_use,
    reason = "a script, not a service"
)]

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mysql_async::prelude::Queryable as _;
use sandbox::{Clock, MEDIA_TYPE, Options, Sandbox, ShopOptions};
use tokio::net::TcpListener;

const CLIENT: &str = "bench-client";
const SECRET: &str = "bench-secret";
const KEY: &str = "bench-admin-key-4c1f7b92e0d5a83b6f";
const IN_FLIGHT: usize = 64;
const BATCH: usize = 256;
/// A run that takes longer is a fault, not a figure.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(binary), Some(mysql)) = (arguments.next(), arguments.next()) else {
        bail!("usage: sync BINARY mysql://user@host:port [DOCUMENTS]");
    };
    let documents: usize = arguments.next().as_deref().unwrap_or("20000").parse().context("DOCUMENTS")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let api = format!("http://{}", listener.local_addr()?);
    let lifted = [("GET /retailer/shipments", "none"), ("GET /retailer/shipments/*", "none")];
    let limits: BTreeMap<String, String> =
        lifted.iter().map(|(rule, limit)| (rule.to_string(), limit.to_string())).collect();
    let shop = ShopOptions {
        client_id: CLIENT.into(),
        client_secret: SECRET.into(),
        fbr: documents / 2,
        fbb: documents - documents / 2,
    };
    let sandbox = Sandbox::new(Options { shops: vec![shop], limits, ..Options::default() }, Clock::system())?;
    tokio::spawn(sandbox.serve(listener, std::future::pending()));

    println!("{documents} documents; rate rules lifted; sandbox, waybill and MySQL on the same cores\n");
    println!("{:<28} {:>12} {:>14} {:>12} {:>14}", "", "documents/s", "CPU us/doc", "peak MB", "first row s");
    let whole = whole_sync(&binary, &api, Some(&mysql), documents).await?;
    row("sync into MySQL", documents, &whole);
    let archive = whole_sync(&binary, &api, None, documents).await?;
    row("sync into the archive", documents, &archive);
    let (fetch, bodies) = bare_fetch(&api).await?;
    println!("{:<28} {:>12.0}", "floor: bare fetch loop", rate(bodies.len(), fetch));
    let upsert = bare_upsert(&mysql, &bodies).await?;
    println!("{:<28} {:>12.0}", "floor: bare upsert loop", rate(bodies.len(), upsert));
    Ok(())
}

fn rate(documents: usize, time: Duration) -> f64 {
    documents as f64 / time.as_secs_f64()
}

fn row(name: &str, documents: usize, figures: &Figures) {
    let cpu = figures.cpu.as_secs_f64() * 1e6 / documents as f64;
    let first = figures.first_row.map_or("-".to_owned(), |first| format!("{:.2}", first.as_secs_f64()));
    println!("{name:<28} {:>12.0} {cpu:>14.0} {:>12.0} {first:>14}", rate(documents, figures.took), figures.peak_mb);
}

struct Figures {
    took: Duration,
    /// User and system time of the waybill process over the run.
    cpu: Duration,
    peak_mb: f64,
    first_row: Option<Duration>,
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// One shop from its registration to idleness.
async fn whole_sync(binary: &str, api: &str, mysql: Option<&str>, documents: usize) -> anyhow::Result<Figures> {
    let directory = std::env::temp_dir().join(format!("waybill-bench-{}", std::process::id()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let database = match mysql {
        Some(server) => Some(fresh_database(server).await?),
        None => None,
    };
    let mut config = format!(
        "data_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[source]\nbase_url = \"{api}\"\ntoken_url = \"{api}/token\"\n\
         [source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n",
        directory.join("data").display()
    );
    if let Some(database) = &database {
        config.push_str(&format!("[mysql]\nurl = \"{database}\"\n"));
    }
    let file = directory.join("waybill.toml");
    std::fs::write(&file, config)?;
    let child = Command::new(binary)
        .args(["serve", "--config"])
        .arg(&file)
        .env("WAYBILL_ADMIN_KEY", KEY)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting waybill")?;
    let child = Killed(child);
    let base = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::new();
    let ready = Instant::now();
    while client.get(format!("{base}/healthz")).send().await.is_err() {
        if ready.elapsed() > PATIENCE {
            bail!("waybill does not answer");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = cpu(child.0.id())?;
    let begun = Instant::now();
    let shop = serde_json::json!({ "name": "Bench", "client_id": CLIENT, "client_secret": SECRET });
    let made = client.post(format!("{base}/api/v1/shops")).bearer_auth(KEY).json(&shop).send().await?;
    if !made.status().is_success() {
        bail!("registering: {}", made.text().await?);
    }
    let first_row = match &database {
        Some(database) => Some(first_row(database, begun).await?),
        None => None,
    };
    loop {
        let status: serde_json::Value =
            client.get(format!("{base}/api/v1/status")).bearer_auth(KEY).send().await?.json().await?;
        if status["idle"] == true {
            if status["parked"] != 0 {
                bail!("documents were parked: {status}");
            }
            break;
        }
        if begun.elapsed() > PATIENCE {
            bail!("not done in time: {status}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed();
    let figures = Figures { took, cpu: cpu(child.0.id())? - before, peak_mb: peak_mb(child.0.id())?, first_row };
    if let Some(database) = &database {
        let mut conn = mysql_async::Conn::from_url(database).await?;
        let count: usize = conn.query_first("SELECT COUNT(*) FROM shipments").await?.unwrap_or(0);
        conn.disconnect().await?;
        if count != documents {
            bail!("{count} rows of {documents}");
        }
    }
    drop(child);
    std::fs::remove_dir_all(&directory)?;
    Ok(figures)
}

async fn fresh_database(server: &str) -> anyhow::Result<String> {
    let mut conn = mysql_async::Conn::from_url(server).await?;
    conn.query_drop("DROP DATABASE IF EXISTS waybill_bench").await?;
    conn.query_drop("CREATE DATABASE waybill_bench CHARACTER SET utf8mb4").await?;
    conn.disconnect().await?;
    Ok(format!("{}/waybill_bench", server.trim_end_matches('/')))
}

async fn first_row(database: &str, begun: Instant) -> anyhow::Result<Duration> {
    let mut conn = mysql_async::Conn::from_url(database).await?;
    loop {
        let found: Result<Option<u8>, _> = conn.query_first("SELECT 1 FROM shipments LIMIT 1").await;
        if matches!(found, Ok(Some(_))) {
            conn.disconnect().await?;
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > PATIENCE {
            bail!("no row came");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// User and system time from /proc, in ticks of 10 ms.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("stat")?.1;
    let fields: Vec<u64> = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Ok(Duration::from_millis(fields.iter().sum::<u64>() * 10))
}

fn peak_mb(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("VmHWM")?;
    let kb: f64 = line.split_whitespace().nth(1).context("VmHWM")?.parse()?;
    Ok(kb / 1024.0)
}

/// The least that anybody must do: a token, the pages, every detail, into memory.
async fn bare_fetch(api: &str) -> anyhow::Result<(Duration, Vec<(String, bytes::Bytes)>)> {
    let client = reqwest::Client::new();
    let token: serde_json::Value = client
        .post(format!("{api}/token"))
        .basic_auth(CLIENT, Some(SECRET))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await?
        .json()
        .await?;
    let token = Arc::new(token["access_token"].as_str().context("token")?.to_owned());
    let begun = Instant::now();
    let mut ids = Vec::new();
    for method in ["FBR", "FBB"] {
        for page in 1.. {
            let url = format!("{api}/retailer/shipments?page={page}&fulfilment-method={method}");
            let answer = client.get(url).bearer_auth(&token).header("accept", MEDIA_TYPE).send().await?;
            let answer: serde_json::Value = answer.json().await?;
            let Some(rows) = answer["shipments"].as_array().filter(|rows| !rows.is_empty()) else { break };
            ids.extend(rows.iter().filter_map(|row| row["shipmentId"].as_str().map(str::to_owned)));
        }
    }
    let (ids, next) = (Arc::new(ids), Arc::new(AtomicUsize::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, api, token) = (client.clone(), api.to_owned(), Arc::clone(&token));
        let (ids, next) = (Arc::clone(&ids), Arc::clone(&next));
        workers.spawn(async move {
            let mut bodies = Vec::new();
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                let url = format!("{api}/retailer/shipments/{id}");
                let answer = client.get(url).bearer_auth(&token).header("accept", MEDIA_TYPE).send().await?;
                bodies.push((id.clone(), answer.bytes().await?));
            }
            anyhow::Ok(bodies)
        });
    }
    let mut bodies = Vec::new();
    while let Some(done) = workers.join_next().await {
        bodies.extend(done??);
    }
    Ok((begun.elapsed(), bodies))
}

/// The least that a database asks: id and document, many rows a statement, prepared.
async fn bare_upsert(mysql: &str, bodies: &[(String, bytes::Bytes)]) -> anyhow::Result<Duration> {
    let database = fresh_database(mysql).await?;
    let mut conn = mysql_async::Conn::from_url(database.as_str()).await?;
    conn.query_drop("CREATE TABLE floor (id VARCHAR(128) PRIMARY KEY, version BIGINT, document JSON)").await?;
    let begun = Instant::now();
    for batch in bodies.chunks(BATCH) {
        let marks = vec!["(?,?,?)"; batch.len()].join(",");
        let text = format!(
            "INSERT INTO floor VALUES {marks} ON DUPLICATE KEY UPDATE \
             document = IF(VALUES(version) >= version, VALUES(document), document), version = GREATEST(version, VALUES(version))"
        );
        let values: Vec<mysql_async::Value> =
            batch.iter().flat_map(|(id, body)| [id.as_str().into(), 1u64.into(), body.to_vec().into()]).collect();
        conn.exec_drop(text, values).await?;
    }
    let took = begun.elapsed();
    conn.query_drop("DROP DATABASE waybill_bench").await?;
    conn.disconnect().await?;
    Ok(took)
}
