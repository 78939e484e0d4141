//! The faults: how each begins and ends, and the world in which it does.

use std::path::PathBuf;

use reqwest::Method;
use sandbox::{Fault as Rule, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::PATIENCE;
use super::disk::Disk;
use super::network::{Certificates, Line, Mode};
use super::parcels::{self, Parcels};
use super::surfaces::About;
use crate::support::app::eventually;
use crate::support::mariadb::Database;
use crate::support::no_limits;
use crate::support::program::{ADMIN_KEY, Folder, Market, Serving};

/// The shop that most faults are about; the other goes on.
const ILL: &str = "ill";
const WELL: &str = "well";
const EACH_SECOND: &str = "* * * * * *";
const NEVER: &str = "0 0 0 1 1 *";
const DB_PASSWORD: &str = "geheim";

/// A row of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    AccountOff,
    SecretRotated,
    Unauthorized,
    Forbidden,
    NotFound,
    DetailsNotFound,
    DetailsUnreadable,
    Throttled,
    ServerError,
    Html,
    Hanging,
    TlsRefused,
    DnsGone,
    Truncated,
    Emptied,
    MysqlAway,
    MysqlRights,
    WritesRefused,
    DiskFull,
    ClockAhead,
    ClockWrong,
}

impl Fault {
    pub(super) const ALL: [Fault; 21] = [
        Fault::AccountOff,
        Fault::SecretRotated,
        Fault::Unauthorized,
        Fault::Forbidden,
        Fault::NotFound,
        Fault::DetailsNotFound,
        Fault::DetailsUnreadable,
        Fault::Throttled,
        Fault::ServerError,
        Fault::Html,
        Fault::Hanging,
        Fault::TlsRefused,
        Fault::DnsGone,
        Fault::Truncated,
        Fault::Emptied,
        Fault::MysqlAway,
        Fault::MysqlRights,
        Fault::WritesRefused,
        Fault::DiskFull,
        Fault::ClockAhead,
        Fault::ClockWrong,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::AccountOff => "account off",
            Fault::SecretRotated => "secret rotated elsewhere",
            Fault::Unauthorized => "401 for ever",
            Fault::Forbidden => "403 on one resource",
            Fault::NotFound => "404 on a list",
            Fault::DetailsNotFound => "404 for each document",
            Fault::DetailsUnreadable => "HTML for each document",
            Fault::Throttled => "429 for ever",
            Fault::ServerError => "500",
            Fault::Html => "HTML instead of JSON",
            Fault::Hanging => "timeouts",
            Fault::TlsRefused => "TLS refused",
            Fault::DnsGone => "DNS gone",
            Fault::Truncated => "truncated list",
            Fault::Emptied => "empty list",
            Fault::MysqlAway => "MySQL away",
            Fault::MysqlRights => "MySQL rights gone",
            Fault::WritesRefused => "MySQL refuses each document",
            Fault::DiskFull => "disk full",
            Fault::ClockAhead => "clock was ahead",
            Fault::ClockWrong => "clock is wrong",
        }
    }

    /// The resource it is about, and words of which a reason has one.
    fn about(self) -> (Option<&'static str>, &'static [&'static str]) {
        match self {
            Fault::AccountOff | Fault::SecretRotated => (Some("shipments"), &["refused"]),
            Fault::Unauthorized => (Some("shipments"), &["access token"]),
            Fault::Forbidden => (Some("returns"), &["403"]),
            Fault::NotFound => (Some("shipments"), &["404"]),
            Fault::DetailsNotFound | Fault::DetailsUnreadable => (Some("shipments"), &["its detail calls fail"]),
            // Before MySQL has answered, only what is parked is known.
            Fault::WritesRefused => {
                (Some("shipments"), &["the sink refuses its documents", "could not be read or written"])
            }
            Fault::Throttled => (Some("shipments"), &["429", "too many calls"]),
            Fault::ServerError => (Some("shipments"), &["500"]),
            Fault::Html => (Some("shipments"), &["text/html"]),
            // Before a call is given up the stream falls behind.
            Fault::Hanging => (Some("shipments"), &["three schedules", "long"]),
            Fault::TlsRefused => (Some("shipments"), &["certificate"]),
            Fault::DnsGone => (Some("shipments"), &["dns", "resolve", "lookup"]),
            Fault::Truncated => (Some("parcels"), &["total"]),
            Fault::Emptied => (Some("shipments"), &["none of", "showed before"]),
            Fault::MysqlAway | Fault::MysqlRights => (None, &["MySQL"]),
            Fault::DiskFull => (None, &["no room", "full"]),
            Fault::ClockAhead => (Some("shipments"), &["clock"]),
            Fault::ClockWrong => (None, &["10 min behind"]),
        }
    }
}

/// One row's marketplace, network, folder and process.
pub(super) struct World {
    pub(super) fault: Fault,
    pub(super) folder: Folder,
    /// The page of metrics that needs no key.
    pub(super) metrics: String,
    pub(super) about: About,
    market: Market,
    /// To the marketplace, or to MySQL.
    line: Option<Line>,
    database: Option<Database>,
    /// Another API in the marketplace's place.
    parcels: Option<Parcels>,
    /// Of the data directory.
    disk: Option<Disk>,
    serving: Option<Serving>,
}

impl World {
    /// Starts the process and registers two shops.
    pub(super) async fn open(fault: Fault) -> World {
        let shops = [ILL, WELL].map(|client| ShopOptions {
            client_id: client.into(),
            client_secret: secret(client),
            fbr: 4,
            fbb: 1,
        });
        let market = Market::open(Options { shops: shops.into(), limits: no_limits(), ..Options::default() }).await;
        let (resource, words) = fault.about();
        // A wrong clock makes no stream old.
        let about = About { shop: String::new(), resource, words, all_fresh: fault == Fault::ClockWrong };
        let folder = Folder::bare();
        let mut world = World {
            fault,
            folder,
            metrics: String::new(),
            about,
            market,
            line: None,
            database: None,
            parcels: None,
            disk: None,
            serving: None,
        };
        world.configure().await;
        world.start();
        for client in [WELL, ILL] {
            let body = json!({"name": format!("Shop {client}"), "client_id": client, "client_secret": secret(client)});
            let answer = world.serving().call(Method::POST, "/api/v1/shops").json(&body).send().await.unwrap();
            let shop: Value = answer.json().await.unwrap();
            world.about.shop = shop["id"].as_str().unwrap_or_else(|| panic!("{shop}")).to_owned();
        }
        world
    }

    async fn configure(&mut self) {
        let mut base = self.market.base.clone();
        let server = base.replace("http://", "");
        match self.fault {
            Fault::Hanging => {
                let line = Line::open(&server, None).await;
                base = format!("http://127.0.0.1:{}", line.port);
                self.line = Some(line);
            }
            Fault::TlsRefused => {
                let certificates = Certificates::new();
                self.folder.write("authorities.pem", &certificates.authority);
                let file = self.folder.path("authorities.pem");
                self.folder.set("SSL_CERT_FILE", file.to_str().unwrap());
                self.folder.set("SSL_CERT_DIR", "");
                let line = Line::open(&server, Some(certificates)).await;
                base = format!("https://localhost:{}", line.port);
                self.line = Some(line);
            }
            Fault::MysqlAway | Fault::MysqlRights | Fault::WritesRefused => self.open_mysql().await,
            Fault::ClockAhead => {
                self.set_clock("+2d");
                // Else the clock would be wrong from the beginning.
                self.market.sandbox.set_dates_off(2 * 24 * 3600 * 1000);
            }
            Fault::DiskFull => {
                let disk = Disk::new(96, 5).unwrap();
                self.folder.set("WAYBILL_DATA_DIR", disk.path().join("data").to_str().unwrap());
                self.disk = Some(disk);
            }
            _ => {}
        }
        let mut resources = "[\"shipments\", \"returns\"]";
        let (mut auth, mut more) = ("", "");
        if self.fault == Fault::Truncated {
            let parcels = Parcels::open().await;
            base.clone_from(&parcels.base);
            self.parcels = Some(parcels);
            (resources, more) = ("[\"parcels\"]", parcels::DEFINITION);
            auth = "auth = \"api-key\"\napi_key_header = \"X-Key\"\n";
        }
        let login = if auth.is_empty() { format!("token_url = \"{base}/token\"\n") } else { auth.to_owned() };
        let limits = no_limits();
        let rules = limits.keys().map(|rule| format!("\"{rule}\" = \"none\"\n"));
        let rules: String =
            rules.chain(["/parcels", "/parcels/*"].map(|path| format!("\"GET {path}\" = \"none\"\n"))).collect();
        self.folder.write(
            "waybill.toml",
            &format!(
                "resources = {resources}\n\
                 [http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
                 [source]\nbase_url = \"{base}\"\n{login}[source.limits]\n{rules}\
                 [schedule]\nsync = \"{EACH_SECOND}\"\nreconcile = \"{NEVER}\"\n\
                 [limits]\nattempts_max = 2\ndrain = \"1s\"\n[log]\nformat = \"json\"\n{more}"
            ),
        );
        self.folder.set("WAYBILL_ADMIN_KEY", ADMIN_KEY);
    }

    async fn open_mysql(&mut self) {
        let database = Database::fresh().await;
        let url = database.url();
        let server = url.split('@').next_back().unwrap().split('/').next().unwrap().to_owned();
        let user = format!("u{}", database.name);
        database.run(&format!("CREATE USER `{user}`@'%' IDENTIFIED BY '{DB_PASSWORD}'")).await;
        database.run(&format!("GRANT ALL ON `{}`.* TO `{user}`@'%'", database.name)).await;
        let line = Line::open(&server, None).await;
        let url = format!("mysql://{user}:{DB_PASSWORD}@127.0.0.1:{}/{}", line.port, database.name);
        self.folder.set("WAYBILL_MYSQL_URL", &url);
        (self.line, self.database) = (Some(line), Some(database));
    }

    /// Processes from now on have a clock that is off by so much.
    fn set_clock(&mut self, offset: &str) {
        let library = if offset.is_empty() { PathBuf::new() } else { faketime().expect("libfaketime") };
        self.folder.set("LD_PRELOAD", library.to_str().unwrap());
        self.folder.set("FAKETIME", offset);
        self.folder.set("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    pub(super) fn serving(&self) -> &Serving {
        self.serving.as_ref().unwrap()
    }

    pub(super) fn start(&mut self) {
        let serving = block_in_place(|| self.folder.serve());
        let said = crate::support::program::lossy(&self.folder.path("serve.stdout"));
        let (_, address) = said.rsplit_once("metrics without a key: ").unwrap();
        self.metrics = address.split('"').next().unwrap().lines().next().unwrap().to_owned();
        self.serving = Some(serving);
    }

    pub(super) fn stop(&mut self) {
        let (code, _) = block_in_place(|| self.serving.take().unwrap().terminate());
        assert_eq!(code, Some(0), "{}\n{}", self.fault.name(), self.folder.said());
    }

    /// Reads the data from another address; the login host stays.
    fn move_source(&mut self, base: &str) {
        self.folder.set("WAYBILL_SOURCE_BASE_URL", base);
        self.stop();
        block_in_place(|| self.folder.run(&["source", "move", "--yes"])).expect(0);
        self.start();
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// The fault comes.
    pub(super) async fn begin(&mut self) {
        let sandbox = &self.market.sandbox;
        match self.fault {
            Fault::AccountOff => {
                sandbox.set_active(ILL, false).unwrap();
                sandbox.kill_tokens();
            }
            Fault::SecretRotated => {
                sandbox.set_secret(ILL, "another-secret").unwrap();
                sandbox.kill_tokens();
            }
            Fault::Unauthorized => self.answer("/retailer", 401, FaultBody::Json),
            Fault::Forbidden => self.answer("/retailer/returns", 403, FaultBody::Json),
            Fault::NotFound => self.answer("/retailer/shipments", 404, FaultBody::Json),
            Fault::DetailsNotFound => {
                self.answer("/retailer/shipments/", 404, FaultBody::Json);
                sandbox.add_shipments(ILL, sandbox::Method::Fbr, 8).unwrap();
            }
            Fault::DetailsUnreadable => {
                self.answer("/retailer/shipments/", 200, FaultBody::Html);
                sandbox.add_shipments(ILL, sandbox::Method::Fbr, 8).unwrap();
            }
            Fault::Throttled => self.answer("/retailer", 429, FaultBody::Json),
            Fault::ServerError => self.answer("/retailer", 500, FaultBody::Json),
            Fault::Html => self.answer("/retailer", 200, FaultBody::Html),
            Fault::Hanging => self.line().set(Mode::Hang),
            Fault::TlsRefused => self.line().set(Mode::Stranger),
            Fault::DnsGone => {
                self.move_source("https://gone.invalid");
            }
            Fault::Truncated => self.parcels.as_ref().unwrap().stop_short(true),
            Fault::Emptied => self.answer("/retailer/shipments?", 200, FaultBody::Text("{}".to_owned())),
            Fault::MysqlAway => self.line().set(Mode::Cut),
            Fault::MysqlRights => self.rights("REVOKE", "FROM").await,
            Fault::WritesRefused => {
                let refusal = format!(
                    "CREATE TRIGGER refusal BEFORE INSERT ON shipments FOR EACH ROW IF NEW.shop_id = '{}' THEN \
                     SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not today'; END IF",
                    self.about.shop
                );
                self.database.as_ref().unwrap().run(&refusal).await;
                sandbox.add_shipments(ILL, sandbox::Method::Fbr, 8).unwrap();
            }
            Fault::ClockWrong => sandbox.set_dates_off(10 * 60_000 + 30_000),
            Fault::DiskFull => block_in_place(|| self.disk.as_ref().unwrap().fill()),
            Fault::ClockAhead => {
                // No walk corrects the record by itself, nor does one that is open when the clock is set right.
                self.folder.set("WAYBILL_SCHEDULE_SYNC", NEVER);
                self.restart();
                self.serving().idle(PATIENCE).await;
                self.market.sandbox.set_dates_off(0);
                self.set_clock("");
                self.restart();
            }
        }
    }

    /// The fault goes, and what it needs is done.
    pub(super) async fn end(&mut self) {
        let sandbox = &self.market.sandbox;
        sandbox.set_faults(Vec::new());
        match self.fault {
            Fault::AccountOff => {
                sandbox.set_active(ILL, true).unwrap();
                self.give(&secret(ILL)).await;
            }
            Fault::SecretRotated => self.give("another-secret").await,
            // What is answered proves that the others can be read.
            Fault::DetailsNotFound => drop(sandbox.add_shipments(ILL, sandbox::Method::Fbr, 1).unwrap()),
            Fault::DetailsUnreadable => self.retry_parked().await,
            Fault::WritesRefused => {
                self.database.as_ref().unwrap().run("DROP TRIGGER refusal").await;
                self.retry_parked().await;
            }
            Fault::Hanging | Fault::TlsRefused | Fault::MysqlAway => self.line().set(Mode::Pass),
            Fault::DnsGone => {
                self.move_source(&self.market.base.clone());
            }
            Fault::Truncated => self.parcels.as_ref().unwrap().stop_short(false),
            Fault::MysqlRights => self.rights("GRANT", "TO").await,
            Fault::ClockWrong => sandbox.set_dates_off(0),
            Fault::DiskFull => self.disk.as_ref().unwrap().free(),
            Fault::ClockAhead => self.walk().await,
            _ => {}
        }
    }

    fn line(&self) -> &Line {
        self.line.as_ref().unwrap()
    }

    /// All calls of the ill shop below a path are answered so.
    fn answer(&self, path: &str, code: u16, body: FaultBody) {
        let kind = FaultKind::Status { code, body, headers: Default::default() };
        let rule = Rule { client_id: Some(ILL.to_owned()), ..Rule::always(path, kind) };
        self.market.sandbox.set_faults(vec![rule]);
    }

    async fn rights(&self, verb: &str, of: &str) {
        let database = self.database.as_ref().unwrap();
        database.run(&format!("{verb} ALL ON `{name}`.* {of} `u{name}`@'%'", name = database.name)).await;
        // Sessions keep the rights of their beginning.
        self.line().set(Mode::Cut);
        self.line().set(Mode::Pass);
    }

    async fn give(&self, secret: &str) {
        let request = self.serving().call(Method::PATCH, &format!("/api/v1/shops/{}", self.about.shop));
        let answer = request.json(&json!({"client_secret": secret})).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// Retries what was parked, until nothing is: an attempt under way may still be parked.
    async fn retry_parked(&self) {
        let path = format!("/api/v1/shops/{}/parked/retry", self.about.shop);
        let retried = async || {
            let answer = self.serving().call(Method::POST, &path).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.status());
            (self.serving().get("/api/v1/status").await["parked"] == 0).then_some(())
        };
        eventually("nothing is parked", retried).await;
    }

    async fn walk(&self) {
        for shop in self.serving().all("/api/v1/shops").await {
            let path = format!("/api/v1/shops/{}/sync", shop["id"].as_str().unwrap());
            let answer = self.serving().call(Method::POST, &path).json(&json!({"mode": "incremental"})).send().await;
            assert_eq!(answer.unwrap().status(), 202);
        }
    }
}

fn secret(client: &str) -> String {
    format!("secret-of-{client}")
}

/// The library that lies about the time.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

impl Fault {
    /// The schedule by which `waybill status` judges the data directory at rest: the service's own while the fault lasts.
    /// By that every stream would be behind seconds after it stopped well.
    pub(super) fn schedule_at_rest(is_over: bool) -> &'static str {
        if is_over { "*/15 * * * * *" } else { EACH_SECOND }
    }

    /// Runs that began after the fault and have ended, at which every surface must say so: the first one met it. What is
    /// not met by runs is said at once, but for the sink: the writer has its own pace.
    pub(super) fn seen_within(self) -> u64 {
        match self {
            Fault::MysqlAway | Fault::MysqlRights => 3,
            // Each is tried several times, with a pause, before it is given up.
            Fault::DetailsUnreadable | Fault::WritesRefused => 10,
            Fault::ClockAhead | Fault::DiskFull => 0,
            // Six answers, of which each run of the two shops brings one at least.
            Fault::ClockWrong => 3,
            _ => 1,
        }
    }

    /// Runs of each stream that began after the fault and ended well, at which every surface must say that it is over: the
    /// one that succeeds, and those in which what was given up before is read. A writer that must be helped asks each 15
    /// seconds, and one that lost its connection each 8 at least; a stream is walked once a second.
    pub(super) fn over_within(self) -> u64 {
        match self {
            Fault::MysqlAway => 12,
            Fault::MysqlRights => 20,
            _ => 3,
        }
    }

    /// Whether a process knows of it that has made no call yet.
    pub(super) fn is_recorded(self) -> bool {
        self != Fault::ClockWrong
    }

    /// Whether this machine has what the row needs.
    ///
    /// # Errors
    /// What is missing.
    pub(super) fn is_possible(self) -> Result<(), String> {
        match self {
            Fault::ClockAhead if faketime().is_none() => {
                Err("it needs libfaketime (Debian package `faketime`)".to_owned())
            }
            Fault::DiskFull => Disk::new(8, 5).map(drop),
            _ => Ok(()),
        }
    }
}
