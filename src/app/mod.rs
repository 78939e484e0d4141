//! The composition root: builds, connects, starts, supervises and stops all components. Only `cli` calls it.
//!
//! | file | holds |
//! | --- | --- |
//! | `open_store` | opens the store with its master key |
//! | `mode` | what an app is opened for: its store, its sink and the ownership of the schema |
//! | `owner` | one owner: of any number of processes on one MySQL schema, one calls and writes |
//! | `machine` | checks and raises the system's resource limits |
//! | `master_key` | reads the key file, creates it at the first start |
//! | `parts` | the parts of the program, made from the configuration |
//! | `private_files` | closes the data directory to other users |
//! | `secret_file` | files that only their owner can read |
//! | `source_check` | opens the sink; refuses a data directory or a schema of another source |
//! | `start_and_stop`, `story` | log lines about the start and the stop, and about runs that end |
//! | `token_store` | tokens sealed in the store |
//!
//! Bodies of commands that need no running service:
//!
//! | file | command |
//! | --- | --- |
//! | `check` | `waybill check`: tokens, first pages |
//! | `check_mysql` | its part about MySQL |
//! | `finding` | what they find |
//! | `infer` | `waybill schema infer` |
//! | `preview` | `waybill preview` |
//! | `schema` | `waybill schema`: tables, replay |
//! | `single_call` | single API calls of such commands, within the budget |
//! | `state` | `waybill state` |

mod check;
mod check_columns;
mod check_mysql;
mod finding;
pub mod infer;
pub mod machine;
mod master_key;
mod mode;
mod open_store;
mod owner;
mod parts;
pub mod preview;
mod private_files;
pub mod schema;
pub(crate) mod secret_file;
mod single_call;
mod source_check;
mod start_and_stop;
pub mod state;
mod story;
mod token_store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Definition;
use crate::config::Config;
use crate::domain::health::Means;
use crate::domain::schedule::Timetable;
use crate::domain::{Clock, RetryPolicy, Timestamp};
use crate::gate::Gate;
use crate::http;
use crate::service::{self, HealthBook, Service, ServiceDeps};
use crate::sink::mysql::{Inspection, Severity};
use crate::sink::{Sink, SinkHealth, writer};
use crate::source::{Source, SourceConfig};
use crate::store::{Counters, Store};
use crate::supervisor::OWNERSHIP;
use crate::sync::schedule::{Work, run_jobs};
use crate::sync::{Engine, EngineDeps};
use master_key::KeyFiles;
use mode::{Mode, open_owned};
use open_store::OpenedStore;
use owner::{Opened, Opening, Owner};
use parts::{definitions_for, digest, http_limits, source_config};
use source_check::SourceRule;
use token_store::PersistentTokens;

pub(crate) use master_key::is_made as is_master_key_made;
pub(crate) use open_store::holder;
pub(crate) use owner::{Entry, standby_of};

pub use crate::store::Holder;
pub use crate::sync::Selection;
pub use finding::{CheckLevel, Finding};
pub use open_store::is_initialized;

/// Most attempts of one lane that are prepared or in flight: a window of most rules, and a fraction of all in-flight
/// calls.
const LANE_WIDTH: u32 = 64;
/// Lanes with leased jobs at once, per call that may be in flight: while some call, others commit.
const LANES_PER_CALL: usize = 2;
/// Poll interval of [`App::idle`] in case no notification arrives.
const IDLE_LOOK: Duration = Duration::from_millis(500);
/// Interval of persisting the drift report.
const DRIFT_PAUSE: Duration = Duration::from_secs(60);
/// Time for the writer to finish its transaction during shutdown.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);

/// The running program without its HTTP side.
pub struct App {
    service: Service,
    store: Store,
    engine: Engine,
    sink: Sink,
    sink_health: SinkHealth,
    /// None: there is no MySQL, or this app is at rest.
    owner: Option<Owner>,
    definitions: Arc<[Arc<Definition>]>,
    timetable: Timetable,
    http: http::ServerLimits,
    proxies: http::TrustedProxies,
    data_dir: PathBuf,
    /// What the last process left.
    found: Counters,
    drain: Duration,
    /// A rotation of the master key was cut off.
    is_rotating: bool,
    /// Shutdown has begun: not ready any more, no new connections.
    closing: CancellationToken,
    /// The writer and the background tasks must end.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Opens the store and starts the engine, the schedule and the writer. Opens no port, and succeeds even if the
    /// marketplace or MySQL is down.
    ///
    /// # Errors
    /// The store does not open, the master key is wrong, a URL is unusable, or another process works on the MySQL schema.
    pub async fn start(config: Config) -> anyhow::Result<App> {
        App::start_as(config, Entry::Serve { command: "serve".to_owned() }).await
    }

    /// As [`App::start`]; `entry`: how it becomes the owner of the MySQL schema.
    pub(crate) async fn start_as(config: Config, entry: Entry) -> anyhow::Result<App> {
        let app = App::start_with(config, Means::Api, Selection::default(), entry).await?;
        app.spawn_schedule();
        Ok(app)
    }

    /// As [`App::start`], for a command that ends and serves no API: no schedule starts walks, only the chosen streams are
    /// worked on, and remedies name commands instead of endpoints.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_pass(config: Config, only: Selection) -> anyhow::Result<App> {
        let entry = Entry::Serve { command: "sync".to_owned() };
        App::start_with(config, Means::Commands, only, entry).await
    }

    async fn start_with(config: Config, means: Means, only: Selection, entry: Entry) -> anyhow::Result<App> {
        let mode = Mode { runs: Some(only), entry: Some(entry), means, rule: SourceRule::Same };
        let app = Box::pin(App::open(config, mode)).await?;
        app.service.expect_sink_check();
        app.service.retry_after_changed_definitions().await?;
        if let Err(error) = app.service.restore().await {
            let restoring = app.service.clone().restore_later(app.stop.clone(), error);
            app.spawn("restore from MySQL", restoring);
        }
        app.spawn_tasks();
        Ok(app)
    }

    /// Opens everything without running it, for commands that read or change the store: no job runs, nothing is written
    /// to the sink, and the marketplace is called only to verify credentials.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn at_rest(config: Config) -> anyhow::Result<App> {
        App::at_rest_as(config, None).await
    }

    /// As [`App::at_rest`], for a command that changes what the owner of the MySQL schema relies on: it is the owner while
    /// it runs.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn at_rest_owning(config: Config, command: &str) -> anyhow::Result<App> {
        App::at_rest_as(config, Some(Entry::Serve { command: command.to_owned() })).await
    }

    async fn at_rest_as(config: Config, entry: Option<Entry>) -> anyhow::Result<App> {
        let mode = Mode { runs: None, entry, means: Means::Commands, rule: SourceRule::Same };
        let app = Box::pin(App::open(config, mode)).await?;
        if let Err(error) = app.service.restore().await {
            tracing::warn!(%error, "failed to restore from MySQL; shops of an earlier data directory, if any, are not known yet");
        }
        Ok(app)
    }

    /// As [`App::at_rest_owning`], for `waybill source move`: whatever source the data directory and the schema belong to.
    /// Nothing is restored.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn for_source_move(config: Config) -> anyhow::Result<App> {
        let entry = Some(Entry::Serve { command: "source move".to_owned() });
        let mode = Mode { runs: None, entry, means: Means::Commands, rule: SourceRule::Moves };
        Box::pin(App::open(config, mode)).await
    }

    async fn open(config: Config, Mode { runs, entry, means, rule }: Mode) -> anyhow::Result<App> {
        // Before any part starts and counts.
        let metrics = service::recorder();
        let (timetable, clock) = (config.schedule.clone(), Clock::system());
        private_files::close(&config.data_dir)?;
        let opening = Opening { config: &config, clock: &clock, rule };
        let (opened, sink) = open_owned(opening, entry.as_ref()).await?;
        let Opened { opened: OpenedStore { store, is_rotating, .. }, owner, handed } = opened;
        store.bound_parked(config.limits.parked_max);
        let found = store.counters()?;
        store.reseal_credentials().await?;
        let tokens = Arc::new(PersistentTokens::new(store.clone()));
        let open_files = machine::OpenFileBudget::for_calls(config.source.in_flight_max);
        let gate = owner.as_ref().map_or_else(Gate::opened, Owner::gate);
        let source_config = SourceConfig { in_flight_max: open_files.calls, gate, ..source_config(&config.source) };
        let source = Arc::new(Source::new(source_config, tokens, clock.clone())?);
        let deps = EngineDeps {
            store: store.clone(),
            source: Arc::<Source>::clone(&source),
            definitions: definitions_for(&sink, &config),
            rules: config.rules.clone(),
            retry: RetryPolicy { attempts_max: config.limits.attempts_max, ..RetryPolicy::default() },
            outbox_bytes_max: config.limits.outbox_max_bytes,
            lane_width: LANE_WIDTH,
            lanes_at_once: LANES_PER_CALL * open_files.calls,
            handed,
            only: runs.clone().unwrap_or_default(),
        };
        let (definitions, sync) = (Arc::from(config.definitions.as_slice()), timetable.sync.clone());
        let health_book = HealthBook::new(store.clone(), Arc::clone(&definitions), sync, config.stale_after, means);
        if runs.is_some() {
            health_book.look_first()?;
        }
        let engine = if runs.is_some() { Engine::start(deps).await? } else { Engine::at_rest(deps) };
        let (sink_health, closing) = (SinkHealth::default(), CancellationToken::new());
        let service = Service::new(ServiceDeps {
            store: store.clone(),
            engine: engine.clone(),
            source,
            sink: sink.clone(),
            sink_health: sink_health.clone(),
            definitions: Arc::clone(&definitions),
            admin_key: config.admin_key.as_ref().map(digest),
            metrics,
            outbox_bytes_max: config.limits.outbox_max_bytes,
            closing: closing.clone(),
            health_book,
            key_files: Arc::new(KeyFiles::of(&config.master_key, &config.data_dir)),
        });
        service.look_at_archive()?;
        let app = App {
            service,
            store,
            engine,
            sink,
            sink_health,
            owner,
            definitions,
            timetable,
            http: http_limits(&config, open_files.connections),
            proxies: http::TrustedProxies::new(config.trusted_proxies),
            data_dir: config.data_dir,
            found,
            drain: config.limits.drain,
            is_rotating,
            closing,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        Ok(app.keeping_ownership())
    }

    fn keeping_ownership(self) -> App {
        if let Some(owner) = self.owner.clone() {
            self.spawn(OWNERSHIP, owner.keep(self.store.clone(), self.sink_health.clone(), self.stop.clone()));
        }
        self
    }

    /// Checks once whether MySQL responds and its tables can be written to, for the health of an app without a writer.
    pub async fn look_at_sink(&self) {
        let Sink::Mysql(mysql) = &self.sink else { return };
        let error = match mysql.inspect().await {
            Ok(Inspection { faults, .. }) => faults.into_iter().find(|fault| fault.severity == Severity::Corrupts),
            Err(error) => return self.sink_health.note(Some(error.text)),
        };
        self.sink_health.note(error.map(|fault| fault.text));
    }

    /// The time of the store's clock.
    pub fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    /// Answers the HTTP API and the commands.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Serves the HTTP API until [`App::stop`] or until a component fails. If the returned future is dropped, the API
    /// goes on; [`App::stop`] drains its open requests.
    ///
    /// # Errors
    /// The store or another component failed: the process must be restarted.
    pub async fn serve(&self, listener: TcpListener) -> anyhow::Result<()> {
        let closing = self.closing.clone().cancelled_owned();
        let mut failed = self.store.failed();
        let serving = http::serve(listener, self.service.clone(), self.http, self.proxies.clone(), closing);
        let served = self.spawn("the HTTP API", serving);
        tokio::select! {
            served = served => served?,
            _ = failed.wait_for(|failed| *failed) => {}
        }
        self.failure()
    }

    /// Serves `/metrics` without a key, on a listener of its own, until [`App::stop`].
    pub fn serve_metrics(&self, listener: TcpListener) {
        let closing = self.closing.clone().cancelled_owned();
        let serving = http::serve_metrics(listener, self.service.clone(), self.http, self.proxies.clone(), closing);
        self.spawn("the metrics listener", serving);
    }

    /// Whether an essential component failed.
    ///
    /// # Errors
    /// Names the component; the process must be restarted.
    pub fn failure(&self) -> anyhow::Result<()> {
        if !*self.store.failed().borrow() {
            return Ok(());
        }
        if let Some(lost) = self.owner.as_ref().and_then(Owner::lost) {
            anyhow::bail!("{lost}");
        }
        if self.store.supervisor().failed_part() == Some(OWNERSHIP) {
            anyhow::bail!("another process has taken the MySQL schema over; this one wrote nothing since, and ends");
        }
        if let Some(part) = self.store.supervisor().failed_part() {
            anyhow::bail!(
                "internal error: {part} failed; see the log, and restart: the next start continues where this one stopped"
            );
        }
        anyhow::bail!(
            "the store in {} failed; see the log, and restart. If it fails again, move the directory aside and start \
             again: with MySQL everything is restored from it; without MySQL the shops must be registered again and all \
             their data is read again",
            self.data_dir.display()
        )
    }

    /// Waits until there is nothing to do now: no open run, no job due or in retry, an empty outbox. Also returns on
    /// [`App::failure`]. Cancel safe.
    pub async fn idle(&self) {
        let failed = self.store.failed();
        loop {
            // Subscribed before the check, so that no notification is missed.
            let progress = self.store.signals().progress.notified();
            if *failed.borrow() || self.service.is_idle().unwrap_or(false) {
                return;
            }
            // On a timeout it checks again too.
            drop(tokio::time::timeout(IDLE_LOOK, progress).await);
        }
    }

    /// Stops accepting requests and leasing jobs; waits for open requests, calls in flight and the writer's
    /// transaction, each for a bounded time. Unfinished work is durable and continues at the next start.
    ///
    /// # Errors
    /// None at present.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.closing.cancel();
        self.engine.stop(self.drain.saturating_sub(WRITER_PATIENCE)).await;
        persist_drift(&self.engine).await;
        self.service.store_key_usage(Duration::ZERO).await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(WRITER_PATIENCE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                "aborted open requests or the writer's transaction at the shutdown deadline; unfinished work is repeated"
            );
        }
        if let Some(owner) = &self.owner {
            owner.end(&self.store, self.engine.slots_left()).await;
        }
        if let Sink::Mysql(mysql) = &self.sink
            && let Ok(Err(error)) = tokio::time::timeout(WRITER_PATIENCE, mysql.disconnect()).await
        {
            tracing::debug!(%error, "failed to close the connections to MySQL");
        }
        Ok(())
    }

    fn spawn_tasks(&self) {
        let (store, stop) = (&self.store, || self.stop.clone());
        match &self.sink {
            Sink::Archive(_) => self.spawn("the writer", writer::run_archive(store.clone(), stop())),
            Sink::Mysql(mysql) => {
                let health = self.sink_health.clone();
                let sink_checked = self.service.first_sink_check();
                let writing = writer::run_mysql(store.clone(), Arc::clone(mysql), health, sink_checked, stop());
                self.spawn("the writer", writing)
            }
        };
        let service = || self.service.clone();
        self.spawn("the scrub", store.clone().scrub(stop()));
        if self.is_rotating {
            self.spawn("the rotation of the master key", service().finish_rotation_later(stop()));
        }
        self.spawn("the health", service().watch_health(stop()));
        self.spawn("old runs", store.clone().trim_runs(stop()));
        self.spawn("overdue walks", service().watch_overdue(stop()));
        self.spawn("the move of the archive", service().move_archive(stop()));
        self.spawn("the check of the sink", service().watch_sink(stop()));
        self.spawn("completeness", service().repair_after_walks(stop()));
        self.spawn("drift", persist_drift_periodically(self.engine.clone(), stop()));
        if let Some(ended) = store.take_ended_runs() {
            self.spawn("the log of runs", story::log_runs(store.clone(), ended, stop()));
        }
    }

    /// Starts walks on schedule, and the periodic cleanup.
    fn spawn_schedule(&self) {
        let due = Arc::new(Notify::new());
        let cleaning = self.service.clone().run_housekeeping(Arc::clone(&due), self.stop.clone());
        self.spawn("housekeeping", cleaning);
        let (engine, store, timetable) = (self.engine.clone(), self.store.clone(), self.timetable.clone());
        // The scheduler drops its jobs late, so this one holds nothing but the signal.
        let housekeeping: Work = Box::new(move || {
            due.notify_one();
            Box::pin(std::future::ready(()))
        });
        self.spawn("the schedule", async move {
            if let Err(error) = run_jobs(engine, timetable, housekeeping).await {
                tracing::error!(%error, "the schedule stopped");
                store.supervisor().part_failed("the schedule");
            }
        });
    }

    /// Spawns a supervised task that runs as long as the process.
    fn spawn(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.tasks.spawn(self.store.supervisor().supervise(part, work))
    }
}

async fn persist_drift_periodically(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(DRIFT_PAUSE) => persist_drift(&engine).await,
        }
    }
}

async fn persist_drift(engine: &Engine) {
    if let Err(error) = engine.save_drift().await {
        error.warn("failed to persist the drift report; trying again later");
    }
}

/// The shop id given to a command does not exist.
#[derive(Debug, thiserror::Error)]
#[error("--shop {0}: there is no such shop; `waybill shops list` shows the ids")]
pub(crate) struct NoSuchShop(pub(crate) String);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::App;
    use crate::config::Config;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_in_a_task_ends_serve_and_idle() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, value: String| (format!("WAYBILL_{name}"), value);
        let dir = folder.path().join("data").display().to_string();
        let config = Config::load(None, &BTreeMap::from([set("DATA_DIR", dir)])).unwrap();
        let app = App::start(config).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(app.failure().is_ok() && app.service.readiness(None).unready.is_empty());
        app.spawn("a test task", async { panic!("secret payload") });
        let ended = app.serve(listener).await.unwrap_err().to_string();
        assert!(ended.contains("a test task failed") && !ended.contains("secret payload"), "{ended}");
        assert!(!app.service.readiness(None).unready.is_empty());
        app.idle().await;
        app.stop().await.unwrap();
    }
}
