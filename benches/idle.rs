//! The measurement behind `scripts/bench-idle`: what the service costs the machine while nothing is due, and what it writes
//! while shops are walked again and again. The sandbox and the shops' rate rules are lifted; each part ends by itself.

#![allow(clippy::print_stdout, clippy::large_futures, reason = "a script, not a service")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sandbox::{Clock, Method, Options, Sandbox, ShopOptions};
use tokio::net::TcpListener;

use support::{Killed, database_name, drop_database, fresh_database};

const KEY: &str = "rest-admin-key-4c1f7b92e0d5a83b6f";
const SECRET: &str = "rest-secret";
/// Something that takes longer is a fault, not a figure.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// After the last work, before a minute at rest is measured: the system writes back what it still holds.
const SETTLE: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);
/// Shops of the churn, and documents that each begins with.
const SHOPS: usize = 40;
const DOCUMENTS: usize = 100;
/// Between two rounds of the churn; the schedule of the walks.
const ROUND: Duration = Duration::from_secs(10);
const EACH_ROUND: &str = "*/10 * * * * *";
const NEVER: &str = "0 0 0 1 1 *";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok();
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [binary, mysql, documents, rounds] = arguments.as_slice() else {
        bail!("usage: idle BINARY mysql://user@host:port DOCUMENTS ROUNDS");
    };
    let documents: usize = documents.parse().context("DOCUMENTS")?;
    let rounds: usize = rounds.parse().context("ROUNDS")?;
    for (sink, mysql) in [("archive", None), ("MySQL", Some(mysql.as_str()))] {
        if documents > 0 {
            at_rest(binary, sink, mysql, documents).await?;
        }
        if rounds > 0 {
            churn(binary, sink, mysql, rounds).await?;
        }
        if let (Some(server), true) = (mysql, documents + rounds > 0) {
            drop_database(server, &database_name("rest")).await?;
        }
    }
    Ok(())
}

/// A minute with nothing due, before and after a restart.
async fn at_rest(binary: &str, sink: &str, mysql: Option<&str>, documents: usize) -> anyhow::Result<()> {
    let sandbox = Stand::start(&[("rest".to_owned(), documents)]).await?;
    let mut service = Service::start(binary, &sandbox.api, mysql, NEVER).await?;
    service.register("rest").await?;
    service.idle().await?;
    for state in ["after a walk", "after a start"] {
        tokio::time::sleep(SETTLE).await;
        let (before, log) = (service.figures()?, service.log_bytes()?);
        tokio::time::sleep(MINUTE).await;
        let after = service.figures()?;
        let seconds = MINUTE.as_secs_f64();
        println!(
            "{sink:<8} {documents} documents, a minute {state}: {} bytes made dirty, {} on the device, {:.2} % of a core, {:.1} wake-ups/s, log {} -> {} bytes",
            after.written - before.written,
            after.device - before.device,
            (after.cpu - before.cpu).as_secs_f64() * 100.0 / seconds,
            (after.wakeups - before.wakeups) as f64 / seconds,
            log,
            service.log_bytes()?,
        );
        service.restart().await?;
    }
    service.remove()
}

/// Shops that are walked each ten seconds, of which some documents change and some are new each time.
async fn churn(binary: &str, sink: &str, mysql: Option<&str>, rounds: usize) -> anyhow::Result<()> {
    let names: Vec<(String, usize)> = (0..SHOPS).map(|shop| (format!("churn-{shop}"), DOCUMENTS)).collect();
    let sandbox = Stand::start(&names).await?;
    let service = Service::start(binary, &sandbox.api, mysql, EACH_ROUND).await?;
    for (name, _) in &names {
        service.register(name).await?;
    }
    service.idle().await?;
    let (before, read) = (service.figures()?, sandbox.sandbox.audit().details_read);
    let commits = service.commits()?;
    let begun = Instant::now();
    let mut logs = Vec::new();
    for round in 1..=rounds {
        for (name, _) in &names {
            sandbox.sandbox.add_shipments(name, Method::Fbr, 1)?;
            for (_, id, _) in sandbox.sandbox.truth(name).iter().step_by(40) {
                sandbox.sandbox.change_row(name, id)?;
            }
        }
        let next = begun + ROUND * u32::try_from(round)?;
        tokio::time::sleep_until(next.into()).await;
        logs.push(service.log_bytes()? / 1024);
    }
    service.idle().await?;
    let after = service.figures()?;
    let documents = sandbox.sandbox.audit().details_read - read;
    let (written, passed) = (after.written - before.written, after.passed - before.passed);
    let device = after.device - before.device;
    let each = documents.max(1);
    println!(
        "{sink:<8} churn of {rounds} rounds: {documents} documents, {:.2} commits a document, {} bytes passed to the system, {} made dirty and {} on the device a document, \
         {:.0} us of CPU a document, log in KiB {logs:?}",
        (service.commits()? - commits) as f64 / each as f64,
        passed / each,
        written / each,
        device / each,
        (after.cpu - before.cpu).as_secs_f64() * 1e6 / documents.max(1) as f64,
    );
    service.remove()
}

/// The sandbox, with its rate rules lifted.
struct Stand {
    sandbox: Sandbox,
    api: String,
}

impl Stand {
    async fn start(shops: &[(String, usize)]) -> anyhow::Result<Stand> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = format!("http://{}", listener.local_addr()?);
        let rules = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
        let limits: BTreeMap<String, String> =
            rules.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
        let shop = |(name, documents): &(String, usize)| ShopOptions {
            client_id: name.clone(),
            client_secret: SECRET.into(),
            fbr: documents / 2,
            fbb: documents - documents / 2,
        };
        let shops = shops.iter().map(shop).collect();
        let sandbox = Sandbox::new(Options { shops, limits, ..Options::default() }, Clock::system())?;
        let serving = sandbox.clone();
        tokio::spawn(serving.serve(listener, std::future::pending()));
        Ok(Stand { sandbox, api })
    }
}

/// The service as a process of its own.
struct Service {
    binary: String,
    child: Killed,
    directory: PathBuf,
    base: String,
    client: reqwest::Client,
}

/// What a process has used so far.
struct Figures {
    /// Pages made dirty, whole ones, as the system counts them.
    written: u64,
    /// Bytes of system calls that write, sockets included.
    passed: u64,
    /// Bytes written to the device below the data directory, by whomever.
    device: u64,
    cpu: Duration,
    wakeups: u64,
}

impl Service {
    async fn start(binary: &str, api: &str, mysql: Option<&str>, sync: &str) -> anyhow::Result<Service> {
        let directory = std::env::temp_dir().join(format!("waybill-rest-{}", std::process::id()));
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory)?;
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let mut config = format!(
            "data_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[schedule]\nsync = \"{sync}\"\nreconcile = \"{NEVER}\"\n\
             [source]\nbase_url = \"{api}\"\ntoken_url = \"{api}/token\"\n\
             [source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n",
            directory.join("data").display()
        );
        if let Some(server) = mysql {
            config.push_str(&format!("[mysql]\nurl = \"{}\"\n", fresh_database(server, &database_name("rest")).await?));
        }
        std::fs::write(directory.join("waybill.toml"), config)?;
        let child = serve(binary, &directory)?;
        let base = format!("http://127.0.0.1:{port}");
        let service = Service { binary: binary.to_owned(), child, directory, base, client: reqwest::Client::new() };
        service.answers().await?;
        Ok(service)
    }

    async fn restart(&mut self) -> anyhow::Result<()> {
        let stop = Command::new("kill").arg(self.child.0.id().to_string()).status()?;
        if !stop.success() {
            bail!("waybill could not be stopped");
        }
        self.child.0.wait()?;
        self.child = serve(&self.binary, &self.directory)?;
        self.answers().await
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.client.get(format!("{}/healthz", self.base)).send().await.is_err() {
            if begun.elapsed() > PATIENCE {
                bail!("waybill does not answer");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn register(&self, name: &str) -> anyhow::Result<()> {
        let shop = serde_json::json!({ "name": name, "client_id": name, "client_secret": SECRET });
        let made = self.client.post(format!("{}/api/v1/shops", self.base)).bearer_auth(KEY).json(&shop).send().await?;
        if !made.status().is_success() {
            bail!("registering: {}", made.text().await?);
        }
        Ok(())
    }

    async fn idle(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.client.get(format!("{}/api/v1/status", self.base)).bearer_auth(KEY).send().await?;
            let status: serde_json::Value = status.json().await?;
            if status["idle"] == true {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("not done in time: {status}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        let process = PathBuf::from(format!("/proc/{}", self.child.0.id()));
        let mut wakeups = 0;
        for task in std::fs::read_dir(process.join("task"))? {
            wakeups += field(&task?.path().join("status"), "voluntary_ctxt_switches:")?;
        }
        let stat = std::fs::read_to_string(process.join("stat"))?;
        let rest = stat.rsplit_once(')').context("stat")?.1;
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let written = field(&process.join("io"), "write_bytes:")?;
        let passed = field(&process.join("io"), "wchar:")?;
        Ok(Figures {
            written,
            passed,
            device: device_bytes(&self.directory)?,
            cpu: Duration::from_millis(ticks * 10),
            wakeups,
        })
    }

    /// Commits of the store so far.
    fn commits(&self) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(self.directory.join("data/made-by-waybill"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("commits ")).context("the commits")?;
        Ok(line.split(',').next().context("their number")?.parse()?)
    }

    fn log_bytes(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(self.directory.join("data/sled/db"))?.len())
    }

    fn remove(self) -> anyhow::Result<()> {
        drop(self.child);
        Ok(std::fs::remove_dir_all(&self.directory)?)
    }
}

fn serve(binary: &str, directory: &Path) -> anyhow::Result<Killed> {
    let child = Command::new(binary)
        .args(["serve", "--config"])
        .arg(directory.join("waybill.toml"))
        .env("WAYBILL_ADMIN_KEY", KEY)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting waybill")?;
    Ok(Killed(child))
}

/// What the device of a folder has written since it was started. 0 where the system does not say.
fn device_bytes(directory: &Path) -> anyhow::Result<u64> {
    let device = std::fs::metadata(directory)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(stat) = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) else { return Ok(0) };
    Ok(stat.split_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok()).unwrap_or(0) * 512)
}

/// The number behind a name in a file of /proc.
fn field(path: &Path, name: &str) -> anyhow::Result<u64> {
    // Of a process that cannot be traced only root may read all.
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: run as root", path.display()))?;
    let line = text.lines().find(|line| line.starts_with(name)).context("a field of /proc")?;
    Ok(line.split_whitespace().nth(1).context("a number of /proc")?.parse()?)
}
