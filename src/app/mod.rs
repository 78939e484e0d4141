//! The composition root: builds every part, joins them, starts and stops them. The only module that
//! sees all of them; nothing but `cli` calls it.
//!
//! | file | holds |
//! | --- | --- |
//! | `backend` | the HTTP API's questions, answered by store, sink and engine |
//! | `completeness` | what was listed against what the sink holds, and the closing of gaps |
//! | `forecast` | when a run will be done |
//! | `health` | how all is, for every surface; its changes in the log |
//! | `health_book` | the health of all shops, kept current by what changed |
//! | `keeper` | tokens kept, sealed, in the store |
//! | `master_key` | the key file, made at the first start |
//! | `metrics` | what each metric means, and their page |
//! | `overdue` | the alarm before rows fall out of the API's reach |
//! | `probe` | what `waybill check` asks of the outside |
//! | `ready` | whether it can do its work, and what is missing |
//! | `restore` | an empty data directory heals from MySQL |
//! | `story` | the log's lines about the start and about runs that end |
//! | `uses` | when each API key was last used |
//! | `waits` | what open runs wait for |

mod backend;
mod call;
mod completeness;
mod forecast;
mod health;
mod health_book;
pub mod infer;
mod keeper;
pub mod machine;
mod master_key;
mod metrics;
mod overdue;
pub mod plan;
pub mod preview;
pub(crate) mod private;
mod probe;
mod ready;
mod restore;
pub mod schema;
pub mod state;
mod story;
mod uses;
mod view;
mod waits;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Definition;
use crate::config::{self, Config, SourceSettings};
use crate::domain::health::Means;
use crate::domain::{Clock, RetryPolicy};
use crate::http::{self, backend::Backend};
use crate::sink::mysql::{Inspection, Severity};
use crate::sink::{Archive, Health, Mysql, Sink, writer};
use crate::source::{Auth, Source, SourceConfig};
use crate::store::{self, Store, StoreError};
use crate::sync::schedule::{Schedule, Timetable, tick};
use crate::sync::{Engine, EngineDeps};
use keeper::StoreKeeper;

pub(crate) use master_key::is_made as is_master_key_made;

pub use crate::store::Holder;
pub use probe::{CheckLevel, Finding};

/// Attempts of one lane that may be prepared or in flight: a window of most rules, and not all of the
/// places that the shops share.
const LANE_WIDTH: u32 = 64;
/// After a rest the logins of so many seconds may leave at once.
const LOGIN_BURST_S: u32 = 2;
/// How often somebody who waits for idleness looks, should no signal come.
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// Between two times that what no column takes is put into the store.
const DRIFT_PAUSE: Duration = Duration::from_secs(60);
/// How long the writer may take to end its transaction at a stop.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);

/// The running program without its HTTP side.
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    engine: Engine,
    source: Arc<Source>,
    sink: Sink,
    health: Health,
    definitions: Vec<Arc<Definition>>,
    /// SHA-256 of the admin key of the configuration.
    admin_key: Option<[u8; 32]>,
    metrics: PrometheusHandle,
    started_at: i64,
    http: http::Limits,
    data_dir: PathBuf,
    /// Held by who looks at the completeness of a shop.
    looks: tokio::sync::Mutex<()>,
    uses: uses::Uses,
    health_book: health_book::HealthBook,
    timetable: Timetable,
    /// Why the mirror in MySQL was not taken over yet, if that is to be done.
    unrestored: std::sync::Mutex<Option<String>>,
    overdue: std::sync::Mutex<Vec<http::backend::Overdue>>,
    /// Fetching pauses while the outbox holds more.
    outbox_bytes_max: u64,
    drain: Duration,
    /// A stop was asked for: not ready any more, no new connections.
    closing: CancellationToken,
    /// The writer shall end after its transaction.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Opens the store and starts the engine, the schedule and the writer. No port is opened, and
    /// neither the marketplace nor MySQL needs to be there.
    ///
    /// # Errors
    /// The store does not open, the master key does not fit, or an address is unusable.
    pub async fn start(config: Config) -> anyhow::Result<App> {
        App::working(config, Means::Api).await
    }

    /// The same for a command that ends and serves no API: remedies name commands.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_pass(config: Config) -> anyhow::Result<App> {
        App::working(config, Means::Commands).await
    }

    async fn working(config: Config, means: Means) -> anyhow::Result<App> {
        let app = App::open(config, true, means).await?;
        if let Err(error) = app.inner.restore().await {
            app.inner.spawn("the taking over from MySQL", Arc::clone(&app.inner).restore_later(error));
        }
        app.inner.spawn_tasks();
        Ok(app)
    }

    /// The same at rest, for commands that look at the books or change them: no job runs, nothing is written to
    /// the sink, and the marketplace is called only to prove credentials.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn at_rest(config: Config) -> anyhow::Result<App> {
        let app = App::open(config, false, Means::Commands).await?;
        if let Err(error) = app.inner.restore().await {
            tracing::warn!(%error, "the shops of an earlier data directory, if there are any, are not taken over yet");
        }
        Ok(app)
    }

    async fn open(config: Config, works: bool, means: Means) -> anyhow::Result<App> {
        let timetable = timetable(&config)?;
        let clock = Clock::system();
        let master = master_key::obtain(&config.master_key, &config.data_dir)?;
        let store = open_store(&config, &master, &clock)?;
        store.bound_parked(config.limits.parked_max);
        let keeper = Arc::new(StoreKeeper::new(store.clone()));
        let room = machine::Room::for_calls(config.source.in_flight_max);
        let source_config = SourceConfig { in_flight_max: room.calls, ..source_config(&config.source) };
        let source = Arc::new(Source::new(source_config, keeper, clock.clone())?);
        let deps = EngineDeps {
            store: store.clone(),
            source: Arc::<Source>::clone(&source),
            definitions: config.definitions.clone(),
            rules: config.rules.clone(),
            retry: RetryPolicy { attempts_max: config.limits.attempts_max, ..RetryPolicy::default() },
            outbox_bytes_max: config.limits.outbox_max_bytes,
            lane_width: LANE_WIDTH,
        };
        let stale_after = config.stale_after.map(|limit| i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        let (definitions, sync) = (config.definitions.clone(), timetable.sync.clone());
        let health_book = health_book::HealthBook::new(store.clone(), definitions, sync, (stale_after, means));
        if works {
            health_book.look_first()?;
        }
        let engine = if works { Engine::start(deps).await? } else { Engine::at_rest(deps) };
        let sink = match &config.mysql_url {
            Some(url) => {
                Sink::Mysql(Arc::new(Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone())?))
            }
            None => Sink::Archive(Archive::new(store.clone(), config.definitions.clone())),
        };
        let inner = Arc::new(Inner {
            store,
            engine,
            source,
            sink,
            health: Health::default(),
            definitions: config.definitions,
            admin_key: config.admin_key.as_ref().map(digest),
            metrics: metrics::recorder(),
            started_at: clock.now(),
            http: http_limits(config.behind_proxy, room.connections),
            data_dir: config.data_dir,
            looks: tokio::sync::Mutex::default(),
            uses: uses::Uses::default(),
            health_book,
            timetable,
            unrestored: std::sync::Mutex::default(),
            overdue: std::sync::Mutex::default(),
            outbox_bytes_max: config.limits.outbox_max_bytes,
            drain: config.limits.drain,
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        Ok(App { inner })
    }

    /// Asks MySQL once whether it answers and its tables can be written to, for the health of an app at rest, which has
    /// no writer.
    pub async fn look_at_sink(&self) {
        let Sink::Mysql(mysql) = &self.inner.sink else { return };
        let error = match mysql.inspect().await {
            Ok(Inspection { faults, .. }) => faults.into_iter().find(|fault| fault.severity == Severity::Corrupts),
            Err(error) => return self.inner.health.note(Some(error.text)),
        };
        self.inner.health.note(error.map(|fault| fault.text));
    }

    /// The time by the clock that records carry.
    pub fn now(&self) -> i64 {
        self.inner.store.clock().now()
    }

    /// What the HTTP API and the commands ask.
    pub fn backend(&self) -> Arc<dyn Backend> {
        Arc::<Inner>::clone(&self.inner)
    }

    /// Serves the HTTP API until [`App::stop`] or until the store fails. When the returned future is
    /// dropped the API goes on; [`App::stop`] lets its open requests end.
    ///
    /// # Errors
    /// The store or another part failed: the process must end, so that the next start opens it anew.
    pub async fn serve(&self, listener: TcpListener) -> anyhow::Result<()> {
        let closing = self.inner.closing.clone().cancelled_owned();
        let mut failed = self.inner.store.failed();
        let serving = http::serve(listener, self.backend(), self.inner.http, closing);
        let served = self.inner.spawn("the HTTP API", serving);
        tokio::select! {
            served = served => served?,
            _ = failed.wait_for(|failed| *failed) => {}
        }
        self.failure()
    }

    /// Serves `/metrics` alone, without a key, on a listener of its own, until [`App::stop`].
    pub fn serve_metrics(&self, listener: TcpListener) {
        let closing = self.inner.closing.clone().cancelled_owned();
        let serving = http::serve_metrics(listener, self.backend(), self.inner.http, closing);
        self.inner.spawn("the metrics listener", serving);
    }

    /// Whether a part failed that nothing can go on without.
    ///
    /// # Errors
    /// Which one: the process must end, so that the next start opens it anew.
    pub fn failure(&self) -> anyhow::Result<()> {
        if !*self.inner.store.failed().borrow() {
            return Ok(());
        }
        if let Some(part) = self.inner.store.failed_part() {
            anyhow::bail!("a fault of Waybill: a part of it failed ({part}); see the log. The next start goes on");
        }
        anyhow::bail!(
            "the store in {} failed; see the log. The next start opens it anew; if it fails again, move the \
             directory aside and start again: with MySQL everything comes back from it, without it shops must be \
             registered anew and everything is read again",
            self.inner.data_dir.display()
        )
    }

    /// Returns when nothing is left to do now: no open run, no job due or in retry, nothing in the
    /// outbox. Returns too when there is a [`App::failure`]. Cancel safe.
    pub async fn idle(&self) {
        let failed = self.inner.store.failed();
        loop {
            // Listened for from before the look.
            let progress = self.inner.store.signals().progress.notified();
            if *failed.borrow() || self.inner.is_idle().unwrap_or(false) {
                return;
            }
            // The answer does not matter: either way it looks again.
            drop(tokio::time::timeout(IDLE_LOOK, progress).await);
        }
    }

    /// Takes no more requests and leases no more jobs; waits for open requests, for calls in flight and
    /// for the writer's transaction, each within bounds. What is left is durable and goes on at the next
    /// start.
    ///
    /// # Errors
    /// None at present; callers must be ready for some.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.inner.closing.cancel();
        self.inner.engine.stop(self.inner.drain.saturating_sub(WRITER_PATIENCE)).await;
        self.inner.keep_drift().await;
        self.inner.keep_uses(0).await;
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(WRITER_PATIENCE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("open requests or the writer's transaction were cut off; what was not durable is repeated");
        }
        if let Sink::Mysql(mysql) = &self.inner.sink
            && let Ok(Err(error)) = tokio::time::timeout(WRITER_PATIENCE, mysql.disconnect()).await
        {
            tracing::debug!(%error, "closing the connections to MySQL");
        }
        Ok(())
    }
}

impl Inner {
    fn spawn_tasks(self: &Arc<Inner>) {
        let (store, stop) = (self.store.clone(), self.stop.clone());
        match &self.sink {
            Sink::Archive(_) => self.spawn("the writer", writer::run_archive(store, stop)),
            Sink::Mysql(mysql) => {
                self.spawn("the writer", writer::run_mysql(store, Arc::clone(mysql), self.health.clone(), stop))
            }
        };
        self.spawn("the scrub", self.store.clone().scrub(self.stop.clone()));
        self.spawn("the health", Arc::clone(self).watch_health());
        self.spawn("old runs", self.store.clone().trim_runs(self.stop.clone()));
        self.spawn("overdue walks", Arc::clone(self).watch_overdue());
        self.spawn("completeness", Arc::clone(self).mend_after_walks());
        self.spawn("drift", Arc::clone(self).keep_drift_often());
        self.spawn("housekeeping", Arc::clone(self).keep_house());
        if let Some(ended) = self.store.take_ended_runs() {
            self.spawn("the log of runs", Arc::clone(self).log_runs(ended));
        }
        let (engine, store, timetable) = (self.engine.clone(), self.store.clone(), self.timetable.clone());
        self.spawn("the schedule", async move {
            if let Err(error) = tick(engine, timetable).await {
                tracing::error!(%error, "the schedule stopped");
                store.part_failed("the schedule");
            }
        });
    }

    /// Starts a part that works for as long as the process does.
    fn spawn(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.tasks.spawn(self.store.watched(part, work))
    }
}

impl Inner {
    async fn keep_drift_often(self: Arc<Inner>) {
        while !self.stop.is_cancelled() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(DRIFT_PAUSE) => self.keep_drift().await,
            }
        }
    }

    async fn keep_drift(&self) {
        if let Err(error) = self.engine.save_drift().await {
            error.warn("what no column takes could not be put into the store; trying again later");
        }
    }
}

/// A damaged store is moved aside where MySQL can fill a new one; else it is refused, with the mend.
fn open_store(config: &Config, master: &[u8; 32], clock: &Clock) -> Result<Store, StoreError> {
    match Store::open(&config.data_dir, master, clock.clone()) {
        Err(StoreError::Damaged { detail, .. }) if config.mysql_url.is_some() => {
            let aside = store::set_aside(&config.data_dir, clock.now())?;
            tracing::error!(
                detail,
                aside = %aside.display(),
                "the store is damaged; its files were moved aside, and a new one is filled from MySQL"
            );
            Store::open(&config.data_dir, master, clock.clone())
        }
        opened => opened,
    }
}

fn digest(key: &secrecy::SecretString) -> [u8; 32] {
    use secrecy::ExposeSecret as _;
    Sha256::digest(key.expose_secret().as_bytes()).into()
}

fn http_limits(behind_proxy: bool, connections: usize) -> http::Limits {
    let limits = http::Limits::default();
    let connections_max = limits.connections_max.min(connections);
    // All clients have the proxy's address then.
    let per_peer_max = if behind_proxy { connections_max } else { limits.connections_per_peer_max };
    http::Limits { connections_max, connections_per_peer_max: per_peer_max, ..limits }
}

fn source_config(settings: &SourceSettings) -> SourceConfig {
    let mut config = SourceConfig::new(settings.base_url.as_str(), settings.token_url.as_str());
    config.auth = match &settings.auth {
        config::Auth::ClientCredentials => Auth::ClientCredentials,
        config::Auth::Basic => Auth::Basic,
        config::Auth::Bearer => Auth::Bearer,
        config::Auth::ApiKey(header) => Auth::ApiKey(header.clone()),
    };
    config.in_flight_max = settings.in_flight_max;
    config.calls_per_second = settings.calls_per_second;
    config.logins_per_second = settings.logins_per_second;
    config.login_burst = settings.logins_per_second.saturating_mul(LOGIN_BURST_S);
    config
}

fn timetable(config: &Config) -> anyhow::Result<Timetable> {
    let read = |key: &str, text: &str| {
        Schedule::parse(text, &config.schedule.timezone).map_err(|what| anyhow::anyhow!("schedule.{key}: {what}"))
    };
    Ok(Timetable {
        sync: read("sync", &config.schedule.sync)?,
        reconcile: read("reconcile", &config.schedule.reconcile)?,
    })
}

/// Whether there is anything in the data directory. A command that only looks must not begin one; what cannot be read
/// counts as there, so that whoever opens it tells why.
pub fn is_begun(data_dir: &Path) -> bool {
    match std::fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// A command named a shop by an id that none has.
#[derive(Debug, thiserror::Error)]
#[error("--shop {0}: there is no such shop; `waybill shops list` shows the ids")]
pub(crate) struct NoSuchShop(pub(crate) String);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::App;
    use crate::config::Config;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_that_panics_ends_the_service_and_whoever_waits() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, value: String| (format!("WAYBILL_{name}"), value);
        let dir = folder.path().join("data").display().to_string();
        let config = Config::load(None, &BTreeMap::from([set("DATA_DIR", dir)])).unwrap();
        let app = App::start(config).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(app.failure().is_ok() && app.inner.readiness(None).unready.is_empty());
        app.inner.spawn("of a test", async { panic!("said to nobody") });
        let ended = app.serve(listener).await.unwrap_err().to_string();
        assert!(ended.contains("(of a test)") && !ended.contains("said to nobody"), "{ended}");
        assert!(!app.inner.readiness(None).unready.is_empty());
        app.idle().await;
        app.stop().await.unwrap();
    }
}
