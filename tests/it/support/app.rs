//! The whole program in a test: an app on its own data directory, its HTTP API on a loopback port,
//! and a sandbox in the marketplace's place.
//!
//! Every test ends with [`TestApp::finish`], which looks for lost work: a lease, a live job, an entry
//! in the outbox, a run that never ended, a budget overdrawn. A test that forgets it fails.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may stop, and prints its seed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use sandbox::{Clock, Options, Sandbox, ShopOptions};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waybill::app::App;
use waybill::config::Config;
use waybill::http;
use waybill::service::NewShop;
use waybill::service::plan::{Ask, Plan};

/// The longest that anything here may take; a test that waits longer waits for nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const ADMIN_KEY: &str = "an-admin-key-for-tests-0123456789abcdef";
/// How often a condition that only the API shows is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A tick that no test meets; those that want ticks say so.
const NEVER: &str = "0 0 0 1 1 *";

/// Lifts both rules.
pub(crate) const LIFTED: [&str; 2] = ["none", "none"];

/// A sandbox that listens. Outlives the apps that call it.
pub(crate) struct Stand {
    pub(crate) sandbox: Sandbox,
    address: String,
    server: JoinHandle<()>,
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What a [`TestApp`] is made of.
pub(crate) struct Builder {
    options: Options,
    limits: [&'static str; 2],
    mysql: Option<String>,
    schedule: &'static str,
    extra: String,
    more_limits: String,
    source: Option<String>,
    resources: Option<String>,
    stand: Option<Arc<Stand>>,
    unregistered: bool,
}

/// What a test may leave behind; all else is a failure.
#[derive(Default)]
struct Expected {
    parked: u64,
    failed_runs: usize,
    refused_429: bool,
}

/// A running app. Ends with [`TestApp::finish`].
pub(crate) struct TestApp {
    pub(crate) stand: Arc<Stand>,
    /// Client id -> shop id.
    pub(crate) shops: BTreeMap<String, String>,
    folder: TempDir,
    running: Option<Running>,
    http: Client,
    expected: Expected,
    finished: bool,
}

struct Running {
    app: App,
    base: String,
    stop_api: CancellationToken,
    api: JoinHandle<()>,
}

impl Builder {
    /// A shop with that many shipments per method. Its secret is `secret-of-<client id>`.
    pub(crate) fn shop(mut self, client_id: &str, fbr: usize, fbb: usize) -> Builder {
        self.options.shops.push(ShopOptions {
            client_id: client_id.to_owned(),
            client_secret: secret(client_id),
            fbr,
            fbb,
        });
        self
    }

    /// The limits of lists and of details, of sandbox and app alike.
    pub(crate) fn limits(mut self, limits: [&'static str; 2]) -> Builder {
        self.limits = limits;
        self
    }

    pub(crate) fn options(mut self, edit: impl FnOnce(&mut Options)) -> Builder {
        edit(&mut self.options);
        self
    }

    /// The address of a database; without it the app has the embedded archive.
    pub(crate) fn mysql(mut self, url: String) -> Builder {
        self.mysql = Some(url);
        self
    }

    /// When incremental runs start.
    pub(crate) fn sync_at(mut self, schedule: &'static str) -> Builder {
        self.schedule = schedule;
        self
    }

    /// Another API than the sandbox: the keys of `[source]`.
    pub(crate) fn source(mut self, text: &str) -> Builder {
        self.source = Some(text.to_owned());
        self
    }

    /// What is synced; without it what the program syncs of itself.
    pub(crate) fn resources(mut self, names: &[&str]) -> Builder {
        self.resources = Some(format!("resources = {names:?}\n"));
        self
    }

    /// More lines of `[source.limits]`.
    pub(crate) fn limits_too(mut self, text: &str) -> Builder {
        self.more_limits = text.to_owned();
        self
    }

    /// More tables of the configuration file.
    pub(crate) fn toml(mut self, text: &str) -> Builder {
        self.extra.push_str(text);
        self.extra.push('\n');
        self
    }

    /// Calls a sandbox that is there already; its shops are registered.
    pub(crate) fn on(mut self, stand: &Arc<Stand>) -> Builder {
        self.stand = Some(Arc::clone(stand));
        self
    }

    /// Leaves it to the test to register the shops.
    pub(crate) fn unregistered(mut self) -> Builder {
        self.unregistered = true;
        self
    }

    /// Starts sandbox and app and registers all shops; their first runs have started then.
    pub(crate) async fn start(mut self) -> TestApp {
        drop(rustls::crypto::ring::default_provider().install_default());
        let clients: Vec<String> = self.options.shops.iter().map(|shop| shop.client_id.clone()).collect();
        let rules = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
        let limits: BTreeMap<String, String> =
            rules.iter().zip(self.limits).map(|(rule, limit)| ((*rule).to_owned(), limit.to_owned())).collect();
        self.options.limits.extend(limits.clone());
        println!("seed {}", self.options.seed);
        let stand = match self.stand.take() {
            Some(stand) => stand,
            None => Arc::new(stand(self.options).await),
        };
        let folder = tempfile::Builder::new().prefix("waybill-app-").tempdir().unwrap();
        let of_sandbox = format!("base_url = \"{address}\"\ntoken_url = \"{address}/token\"", address = stand.address);
        let mut text = format!(
            "data_dir = \"{}\"\n{}[http]\nlisten = \"127.0.0.1:0\"\n[schedule]\nsync = \"{}\"\nreconcile = \"{NEVER}\"\n\
             [source]\n{}\n",
            folder.path().join("data").display(),
            self.resources.unwrap_or_default(),
            self.schedule,
            self.source.as_ref().unwrap_or(&of_sandbox),
        );
        if self.source.is_none() {
            text.push_str("[source.limits]\n");
            for (rule, limit) in &limits {
                writeln!(text, "\"{rule}\" = \"{limit}\"").unwrap();
            }
            writeln!(text, "{}", self.more_limits).unwrap();
        }
        if let Some(url) = &self.mysql {
            writeln!(text, "[mysql]\nurl = \"{url}\"").unwrap();
        }
        text.push_str(&self.extra);
        std::fs::write(folder.path().join("waybill.toml"), text).unwrap();
        let http = Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(60)).build().unwrap();
        let mut test = TestApp {
            stand,
            shops: BTreeMap::new(),
            folder,
            running: None,
            http,
            expected: Expected::default(),
            finished: false,
        };
        test.begin().await;
        if !self.unregistered {
            for client in clients {
                test.register(&client).await;
            }
        }
        test
    }
}

/// What the sandbox takes for a client's secret.
pub(crate) fn secret(client_id: &str) -> String {
    format!("secret-of-{client_id}")
}

async fn stand(options: Options) -> Stand {
    let sandbox = Sandbox::new(options, Clock::system()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
    Stand { sandbox, address, server }
}

impl TestApp {
    /// Limits lifted, the embedded archive, no ticks, odd documents.
    pub(crate) fn builder() -> Builder {
        Builder {
            options: Options::default(),
            limits: LIFTED,
            mysql: None,
            schedule: NEVER,
            extra: String::new(),
            more_limits: String::new(),
            source: None,
            resources: None,
            stand: None,
            unregistered: false,
        }
    }

    async fn begin(&mut self) {
        let file: PathBuf = self.folder.path().join("waybill.toml");
        let environment = BTreeMap::from([("WAYBILL_ADMIN_KEY".to_owned(), ADMIN_KEY.to_owned())]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let start = async || match App::start(Config::load(Some(&file), &environment).unwrap()).await {
            Ok(app) => Some(app),
            // The engine of an app before this one may still be closing its files.
            Err(error) if error.to_string().contains("already in use") => None,
            Err(error) => panic!("the app does not start: {error:#}"),
        };
        let app = eventually("the data directory to be let go", start).await;
        let stop_api = CancellationToken::new();
        let stopped = stop_api.clone().cancelled_owned();
        let (limits, proxies) = (http::ServerLimits::default(), http::TrustedProxies::default());
        let api = tokio::spawn(http::serve(listener, app.service().clone(), limits, proxies, stopped));
        self.running = Some(Running { app, base, stop_api, api });
    }

    /// Stops the app as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        let Running { app, stop_api, api, .. } = self.running.take().unwrap();
        stop_api.cancel();
        api.await.unwrap();
        app.stop().await.unwrap();
    }

    /// Stops the app and starts it on the same data directory.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.begin().await;
    }

    /// Stops the app, does something to its folder (the data directory is `data`), and starts it.
    pub(crate) async fn restart_after(&mut self, change: impl FnOnce(&Path)) {
        self.stop().await;
        // Its engine may still be closing its files.
        let lock = self.folder.path().join("data/lock");
        let closed = async || std::fs::File::open(&lock).ok()?.try_lock().ok();
        eventually("the data directory to be let go", closed).await;
        change(self.folder.path());
        self.begin().await;
    }

    /// What the next walks cost.
    pub(crate) fn plan(&self, ask: &Ask) -> Plan {
        self.running.as_ref().unwrap().app.service().plan(ask).unwrap()
    }

    /// What the first walks cost in another installation that has the same configuration and has walked nothing.
    pub(crate) async fn plan_first(&self, client_id: &str, ask: &Ask) -> Plan {
        let folder = tempfile::Builder::new().prefix("waybill-app-").tempdir().unwrap();
        let file = folder.path().join("waybill.toml");
        let text = std::fs::read_to_string(self.folder.path().join("waybill.toml")).unwrap();
        let [own, other] = [&self.folder, &folder].map(|folder| folder.path().display().to_string());
        std::fs::write(&file, text.replace(&own, &other)).unwrap();
        let app = App::at_rest(Config::load(Some(&file), &BTreeMap::new()).unwrap()).await.unwrap();
        let shop = NewShop {
            name: client_id.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: secret(client_id).into(),
            account: None,
            resources: Vec::new(),
        };
        app.service().create_shop(shop).await.unwrap();
        let plan = app.service().plan(ask).unwrap();
        app.stop().await.unwrap();
        plan
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.stand.sandbox
    }

    /// One call of the HTTP API: status and body (null when it is empty).
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_by(ADMIN_KEY, method, path, body).await
    }

    /// The same with another key.
    pub(crate) async fn call_by(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request_by(key, method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        (status, body)
    }

    /// One call with a body, and the whole answer.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Value) -> reqwest::Response {
        self.request(method, path).json(&body).send().await.unwrap()
    }

    /// A call that is not sent yet.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request_by(ADMIN_KEY, method, path)
    }

    pub(crate) fn request_by(&self, key: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.running.as_ref().unwrap().base);
        self.http.request(method, url).bearer_auth(key)
    }

    /// An app that has synced these resources of another API, which takes a key: its shop is `shop`.
    pub(crate) async fn synced_from(address: &str, resources: &[&str], definitions: &str) -> TestApp {
        let mut app = TestApp::builder()
            .source(&format!("base_url = \"{address}\"\nauth = \"api-key\"\napi_key_header = \"X-Key\""))
            .resources(resources)
            .toml(definitions)
            .unregistered()
            .start()
            .await;
        app.register("shop").await;
        app.run_until_idle().await;
        app
    }

    /// Waits until nothing is left to do now.
    pub(crate) async fn run_until_idle(&self) {
        self.run_until_idle_within(PATIENCE).await;
    }

    pub(crate) async fn run_until_idle_within(&self, patience: Duration) {
        let idle = self.running.as_ref().unwrap().app.idle();
        if tokio::time::timeout(patience, idle).await.is_err() {
            panic!("not idle after {} s: {}", patience.as_secs(), self.status().await);
        }
    }

    /// The end of every test: nothing may be left over but what the test said.
    pub(crate) async fn finish(mut self) {
        // The first runs may need a moment more, and ticks may start others, also between two looks: wait for a quiet one.
        let quiet = async || {
            let status = self.status().await;
            let busy = ["open_runs", "pending_jobs", "leased_jobs", "outbox", "outbox_bytes"];
            let runs = self.pages("/api/v1/runs?limit=500").await;
            let is_quiet = status["idle"] == true && busy.iter().all(|name| status[*name] == 0);
            (is_quiet && runs.iter().all(|run| !run["ended_at"].is_null())).then_some((status, runs))
        };
        let (status, runs) = eventually("no lease, no live job, an empty outbox, no open run", quiet).await;
        assert_eq!(status["parked"], self.expected.parked, "parked: {}", self.get("/api/v1/parked").await);
        let failed: Vec<&Value> = runs.iter().filter(|run| run["state"] == "failed").collect();
        assert_eq!(failed.len(), self.expected.failed_runs, "failed runs: {failed:?}");
        for run in &runs {
            let count = |name: &str| run[name].as_u64().unwrap();
            let ended = count("fetched") + count("gone") + count("parked") - count("refused");
            assert_eq!(count("to_fetch"), ended + count("pending"), "{run}");
            assert!(count("pending") == 0 || run["state"] == "canceled" || run["state"] == "stopped", "{run}");
        }
        let audit = self.sandbox().audit();
        assert!(audit.breaches().is_empty(), "overdrawn: {:?}", audit.breaches());
        assert_eq!((audit.unrecorded, audit.unknown_parameters), (0, 0));
        if !self.expected.refused_429 {
            assert_eq!((audit.refused_429, &status["refused_429"]), (0, &json!(0)));
        }
        self.stop().await;
        self.finished = true;
    }

    /// [`TestApp::finish`] shall find that many parked.
    pub(crate) fn expect_parked(&mut self, count: u64) {
        self.expected.parked = count;
    }

    /// [`TestApp::finish`] shall find that many failed runs.
    pub(crate) fn expect_failed_runs(&mut self, count: usize) {
        self.expected.failed_runs = count;
    }

    /// The test itself makes the sandbox answer 429.
    pub(crate) fn expect_429(&mut self) {
        self.expected.refused_429 = true;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("the test did not end with finish(), so lost work was not looked for");
        }
    }
}

/// Looks again and again until there is a result; for what no signal shows.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(LOOK);
    loop {
        pace.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {} s in vain for {what}", PATIENCE.as_secs());
    }
}
