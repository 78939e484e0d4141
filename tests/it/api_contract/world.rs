//! A small installation for the tests of the API: three shops, a few documents, runs and parked jobs, all made by the
//! program itself from a scripted marketplace. Each test has its own copy of the data directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Notify, OnceCell};
use warp::Filter as _;
use warp::http::StatusCode;
use warp::reply::Response;
use waybill::app::App;
use waybill::config::Config;
use waybill::domain::Clock;
use waybill::domain::clock::rfc3339;
use waybill::service::{NewKey, NewShop, RunFilter, Scope, Service};

/// The admin key of the configuration.
pub(crate) const ADMIN: &str = "an-admin-key-for-tests-0123456789abcdef";
/// Placeholder of a key that sees all shops.
pub(crate) const READ: &str = "{read}";
/// Placeholder of a key that sees the shop `one` only.
pub(crate) const BOUND: &str = "{bound}";

const DAY: Duration = Duration::from_secs(86_400);
const LIFTED: &str = "none";

/// An installation, and the names by which tests call what it made: `{one}`, `{run_two}`, `{parked_one}`.
pub(crate) struct World {
    pub(crate) service: Service,
    app: Option<App>,
    names: BTreeMap<String, String>,
    _folder: TempDir,
}

impl World {
    /// An installation with nothing but a read key. No job runs in it.
    pub(crate) async fn empty() -> World {
        let folder = folder();
        let app = App::at_rest(config(folder.path(), LIFTED)).await.unwrap();
        let names = BTreeMap::from([(READ.to_owned(), create_key(app.service(), None).await)]);
        World { service: app.service().clone(), app: Some(app), names, _folder: folder }
    }

    /// Three shops that were synced. No job runs any more.
    pub(crate) async fn synced() -> World {
        let (folder, names) = copy().await;
        let app = App::at_rest(config(folder.path(), LIFTED)).await.unwrap();
        World { service: app.service().clone(), app: Some(app), names, _folder: folder }
    }

    /// Three shops that were synced, and an engine that runs their next jobs, with this limit of list calls.
    pub(crate) async fn running(limit: &str) -> World {
        let (folder, names) = copy().await;
        let app = App::start(config(folder.path(), limit)).await.unwrap();
        World { service: app.service().clone(), app: Some(app), names, _folder: folder }
    }

    /// Replaces the names in a text by what they stand for.
    pub(crate) fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, of)| text.replace(name, of))
    }

    /// Stops the installation; its service still answers.
    pub(crate) async fn stop(&mut self) {
        self.app.take().unwrap().stop().await.unwrap();
    }
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("waybill-api-").tempdir().unwrap()
}

fn config(folder: &Path, list_limit: &str) -> Config {
    let market = market();
    let file = folder.join("waybill.toml");
    let text = format!(
        "data_dir = \"{data}\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [schedule]\nsync = \"0 0 0 1 1 *\"\nreconcile = \"0 0 0 1 1 *\"\n\
         [source]\nbase_url = \"{address}\"\ntoken_url = \"{address}/token\"\n\
         [source.limits]\n\"GET /retailer/shipments\" = \"{list_limit}\"\n\"GET /retailer/shipments/*\" = \"none\"\n",
        data = folder.join("data").display(),
        address = market.address,
    );
    fs::write(&file, text).unwrap();
    let variables = [("ADMIN_KEY", ADMIN.to_owned()), ("MASTER_KEY", STANDARD.encode([7; 32]))];
    let environment = variables.map(|(name, value)| (format!("WAYBILL_{name}"), value)).into();
    Config::load(Some(&file), &environment).unwrap()
}

async fn create_key(service: &Service, shops: Option<Vec<String>>) -> String {
    let key = NewKey { name: "reads".to_owned(), scope: Scope::Read, shops, expires_days: None };
    service.create_key(key).await.unwrap().text.expose_secret().to_owned()
}

/// A copy of the synced installation.
async fn copy() -> (TempDir, BTreeMap<String, String>) {
    static SYNCED: OnceCell<(TempDir, BTreeMap<String, String>)> = OnceCell::const_new();
    let (from, names) = SYNCED.get_or_init(sync).await;
    let to = folder();
    copy_files(&from.path().join("data"), &to.path().join("data"));
    (to, names.clone())
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy_files(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Registers the shops and syncs them: `one` has eight documents and `two` has seven, each has one that is parked, and
/// `three` has none.
async fn sync() -> (TempDir, BTreeMap<String, String>) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = folder();
    let app = App::start(config(folder.path(), LIFTED)).await.unwrap();
    let service = app.service().clone();
    let mut names = BTreeMap::new();
    for name in ["one", "two", "three"] {
        let new = NewShop {
            name: format!("Shop {name}"),
            client_id: format!("client-{name}"),
            client_secret: "a-secret".into(),
            account: None,
            resources: vec!["shipments".to_owned()],
        };
        let shop = service.create_shop(new).await.unwrap();
        names.insert(format!("{{{name}}}"), shop.id.to_string());
    }
    tokio::time::timeout(Duration::from_secs(60), app.idle()).await.unwrap();
    let name_of = |shop: &str| names.iter().find(|(_, id)| *id == shop).unwrap().0.trim_matches(['{', '}']).to_owned();
    let runs = service.runs(RunFilter::default(), None, 100).await.unwrap();
    let parked = service.parked(None, None, 100).await.unwrap();
    let runs = runs.iter().map(|view| (format!("{{run_{}}}", name_of(&view.run.stream.shop)), view.run.id.to_string()));
    let parked = parked.iter().map(|job| (format!("{{parked_{}}}", name_of(&job.shop_id)), job.id.to_string()));
    let mut found: BTreeMap<String, String> = runs.chain(parked).collect();
    found.insert(READ.to_owned(), create_key(&service, None).await);
    found.insert(BOUND.to_owned(), create_key(&service, Some(vec![names["{one}"].clone()])).await);
    names.append(&mut found);
    drop(service);
    app.stop().await.unwrap();
    (folder, names)
}

/// The marketplace and its login host, for all tests of the process.
pub(crate) struct Market {
    address: String,
    /// Client id -> the secret of its last login.
    secrets: Mutex<BTreeMap<String, String>>,
    /// A login with [`SLOW_SECRET`] has begun, and may go on.
    pub(crate) begun: Notify,
    pub(crate) go_on: Notify,
}

/// A login with it is answered when the test says so.
pub(crate) const SLOW_SECRET: &str = "slow-secret";

/// Its server runs in a thread of its own, since each test has its own runtime.
pub(crate) fn market() -> &'static Market {
    static MARKET: LazyLock<Arc<Market>> = LazyLock::new(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (secrets, begun, go_on) = (Mutex::default(), Notify::new(), Notify::new());
        let market = Arc::new(Market { address, secrets, begun, go_on });
        let serving = Arc::clone(&market);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serving.serve(listener));
        });
        market
    });
    &MARKET
}

impl Market {
    /// The secret of a client's last login.
    pub(crate) fn secret(&self, client_id: &str) -> Option<String> {
        self.secrets().get(client_id).cloned()
    }

    fn secrets(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Market>, listener: std::net::TcpListener) {
        let listener = TcpListener::from_std(listener).unwrap();
        let answer = move |path: warp::path::FullPath, query: String, authorization: String| {
            let market = Arc::clone(&self);
            async move { Ok::<_, std::convert::Infallible>(market.answer(path.as_str(), &query, &authorization).await) }
        };
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        let routes = warp::path::full().and(query).and(warp::header("authorization")).and_then(answer);
        warp::serve(routes).incoming(listener).run().await;
    }

    async fn answer(&self, path: &str, query: &str, authorization: &str) -> Response {
        let (status, body) = match path {
            "/token" => self.login(authorization).await,
            "/retailer/shipments" => (200, list(authorization, query)),
            path => detail(path),
        };
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }

    async fn login(&self, authorization: &str) -> (u16, String) {
        let pair = STANDARD.decode(authorization.trim_start_matches("Basic ")).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let (client, secret) = pair.split_once(':').unwrap();
        self.secrets().insert(client.to_owned(), secret.to_owned());
        if secret == SLOW_SECRET {
            self.begun.notify_one();
            self.go_on.notified().await;
        }
        match client {
            "refused" => (401, r#"{"error":"invalid_client"}"#.to_owned()),
            "unreachable" => (503, "{}".to_owned()),
            client => (200, format!(r#"{{"access_token":"{client}","token_type":"Bearer","expires_in":3600}}"#)),
        }
    }
}

/// The ids that a list has. Only one of the two methods has any.
fn list(authorization: &str, query: &str) -> String {
    let is_first_of_fbr = query.contains("FBR") && !query.contains("page=2");
    let ids = || (0..7).map(|number| format!("id-{number}")).chain(["rejected".to_owned()]);
    let ids: Vec<String> = match authorization {
        "Bearer client-one" if is_first_of_fbr => ids().chain(["a/b é😀".to_owned()]).collect(),
        "Bearer client-two" if is_first_of_fbr => ids().collect(),
        _ => Vec::new(),
    };
    let at = rfc3339(Clock::system().now().round_down(DAY) - DAY);
    let row = |id: &String| format!(r#"{{"shipmentId":"{id}","shipmentDateTime":"{at}"}}"#);
    let rows: Vec<String> = ids.iter().map(row).collect();
    if rows.is_empty() { "{}".to_owned() } else { format!(r#"{{"shipments":[{}]}}"#, rows.join(",")) }
}

/// A document with a number that no double holds: shown as received.
fn detail(path: &str) -> (u16, String) {
    let id = path.rsplit('/').next().unwrap_or_default();
    let id = if id.contains('%') { "a/b é😀" } else { id };
    if id == "rejected" {
        return (400, r#"{"title":"of a test"}"#.to_owned());
    }
    let body = r#""order":{"orderId":"o-1"},"big": 12345678901234567890123, "a":2}"#;
    (200, format!(r#"{{"shipmentId":"{id}",{body}"#))
}
