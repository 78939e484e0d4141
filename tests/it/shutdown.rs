//! A shutdown that nothing can delay, and a service that writes no secret to any log, at any level.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::app::eventually;
use crate::support::mariadb::Database;
use crate::support::program::{ADMIN_KEY, Folder, Market, Serving, lossy};

/// What a service manager may count on.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
const SECRET: &str = "canary-client-secret-51c0ffee";
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";

async fn market(latency: Duration) -> Market {
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 40, fbb: 10 };
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    Market::open(Options { shops: vec![shop], limits, latency, ..Options::default() }).await
}

fn register(folder: &Folder) -> String {
    let add = ["shops", "add", "--name", "First shop", "--client-id", "first"];
    folder.feed(&add, SECRET).expect(0).out.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_an_idle_service_at_once_whatever_its_clients_do() {
    let market = market(Duration::ZERO).await;
    let folder = Folder::at(&market.base, LIFTED);
    let serving = folder.serve();
    // Clients that say nothing, or half of something.
    let address = serving.base.strip_prefix("http://").unwrap().to_owned();
    let silent = TcpStream::connect(&address).await.unwrap();
    let mut half = TcpStream::connect(&address).await.unwrap();
    half.write_all(b"POST /api/v1/shops HTTP/1.1\r\nhost: x\r\ncontent-le").await.unwrap();
    let (code, took) = serving.terminate();
    assert_eq!(code, Some(0), "{}", folder.said());
    assert!(took < STOPS_WITHIN, "{took:?}");
    drop((silent, half));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_service_whose_calls_hang() {
    let market = market(Duration::ZERO).await;
    let folder = Folder::at(&market.base, LIFTED);
    register(&folder);
    // Not the logins: nothing is leased before a shop has a token.
    market.sandbox.set_faults(vec![Fault::always("/retailer", FaultKind::Slow { ms: 600_000 })]);
    let serving = folder.serve();
    // Its calls have left and get no answer; a status shows them as leased.
    while serving.get("/api/v1/status").await["leased_jobs"].as_u64().unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (code, took) = serving.terminate();
    assert_eq!(code, Some(0), "{}", folder.said());
    assert!(took < STOPS_WITHIN, "{took:?}");
    // What was cut off is done at the next start.
    market.sandbox.set_faults(Vec::new());
    let serving = folder.serve();
    serving.idle(Duration::from_secs(60)).await;
    assert_eq!(serving.all("/api/v1/shipments").await.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_service_whose_logins_hang() {
    let market = market(Duration::ZERO).await;
    let folder = Folder::at(&market.base, LIFTED);
    register(&folder);
    market.sandbox.set_latency(Duration::from_secs(600));
    let serving = folder.serve();
    // Its lanes wait for the login then, and lease nothing.
    while serving.get("/api/v1/status").await["open_runs"].as_u64().unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(serving.get("/api/v1/status").await["leased_jobs"], 0);
    let (code, took) = serving.terminate();
    assert_eq!(code, Some(0), "{}", folder.said());
    assert!(took < STOPS_WITHIN, "{took:?}");
}

/// A service in the worst state to be stopped in: documents that MySQL does not take, calls to the
/// marketplace without an answer, and clients that stop in the middle of a request.
struct Stuck {
    serving: Serving,
    /// Accepts connections and never says a word.
    _mysql: TcpListener,
    _clients: Vec<TcpStream>,
}

impl Stuck {
    async fn start(folder: &mut Folder, market: &Market) -> Stuck {
        let mysql = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Before: as long as MySQL cannot be asked which shops it knows, none is registered.
        let shop = register(folder);
        folder.set("WAYBILL_MYSQL_URL", &format!("mysql://w:w@{}/w", mysql.local_addr().unwrap()));
        let serving = folder.serve();
        let until = async |name: &'static str| {
            let seen = async || (serving.get("/api/v1/status").await[name].as_u64().unwrap() > 0).then_some(());
            eventually(name, seen).await;
        };
        until("outbox").await;
        market.sandbox.set_latency(Duration::from_secs(600));
        let sync = serving.call(Method::POST, &format!("/api/v1/shops/{shop}/sync"));
        assert_eq!(sync.json(&json!({"mode": "full"})).send().await.unwrap().status(), 202);
        until("leased_jobs").await;
        let address = serving.base.strip_prefix("http://").unwrap();
        let mut clients = Vec::new();
        // As many as one address may have, less the one that asks for the status.
        for number in 0..49 {
            let mut client = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "POST /api/v1/shops HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
                 Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"name\": "
            );
            // Some stop in the head, some in the body.
            let part = if number % 2 == 0 { head.len() } else { head.len() / 2 };
            client.write_all(&head.as_bytes()[..part]).await.unwrap();
            clients.push(client);
        }
        Stuck { serving, _mysql: mysql, _clients: clients }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_service_whatever_hangs() {
    let market = market(Duration::ZERO).await;
    let mut folder = Folder::at(&market.base, LIFTED);
    let stuck = Stuck::start(&mut folder, &market).await;
    let (code, took) = stuck.serving.terminate();
    assert_eq!(code, Some(0), "{}", folder.said());
    assert!(took < STOPS_WITHIN, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_leaves_after_a_stop_though_many_wait_for_their_turn() {
    let market = market(Duration::ZERO).await;
    let mut folder = Folder::at(&market.base, LIFTED);
    folder.set("WAYBILL_SOURCE_CALLS_PER_SECOND", "2");
    register(&folder);
    let serving = folder.serve();
    // Leased and in line: at two a second they would go on for many seconds.
    let many = async || (serving.get("/api/v1/status").await["leased_jobs"].as_u64().unwrap() >= 10).then_some(());
    eventually("calls that wait for their turn", many).await;
    serving.ask_to_end();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let calls = market.sandbox.calls().len();
    assert_eq!(serving.ended(), Some(0), "{}", folder.said());
    assert_eq!(market.sandbox.calls().len(), calls, "calls later than a second after the stop");
    folder.set("WAYBILL_SOURCE_CALLS_PER_SECOND", "50");
    let serving = folder.serve();
    serving.idle(Duration::from_secs(60)).await;
    assert_eq!(serving.all("/api/v1/shipments").await.len(), 50);
    assert_eq!(serving.all("/api/v1/parked").await.len(), 0);
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_first_start_that_waits_for_mysql() {
    let market = market(Duration::ZERO).await;
    let database = Database::fresh().await;
    // Another process changes the tables, for minutes.
    let mut other = mysql_async::Conn::from_url(database.url()).await.unwrap();
    other.query_drop("DO GET_LOCK(CONCAT('waybill.', SHA2(DATABASE(), 224)), 0)").await.unwrap();
    let mut folder = Folder::at(&market.base, LIFTED);
    folder.set("WAYBILL_MYSQL_URL", &database.url());
    let starting = folder.spawn_serve();
    let waits = format!(
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = '{}' AND INFO LIKE 'SELECT GET\\_LOCK%'",
        database.name
    );
    eventually("the start to wait", async || database.rows::<u8>(&waits).await.pop()).await;
    let (code, took) = starting.terminate();
    assert_eq!(code, Some(0), "{}", folder.said());
    assert!(took < STOPS_WITHIN, "{took:?}");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_a_service_at_once() {
    let market = market(Duration::ZERO).await;
    // By itself it would wait longer than any test does.
    let mut folder = Folder::at(&market.base, &format!("[limits]\ndrain = \"600s\"\n{LIFTED}"));
    let Stuck { serving, _mysql, _clients } = Stuck::start(&mut folder, &market).await;
    let address = serving.base.strip_prefix("http://").unwrap().to_owned();
    serving.ask_to_end();
    let deaf = async || TcpStream::connect(&address).await.is_err().then_some(());
    eventually("it not to listen any more", deaf).await;
    let (code, _) = serving.terminate();
    assert_eq!(code, Some(0), "{}", folder.said());
    assert!(folder.said().contains("stopped at once"), "{}", folder.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_file_descriptors_waits_for_some() {
    let market = market(Duration::ZERO).await;
    let folder = Folder::at(&market.base, LIFTED);
    let serving = folder.serve();
    // Lowered while it runs: a start with so few takes fewer connections.
    let pid = Pid::from_raw(i32::try_from(serving.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let address: std::net::SocketAddr = serving.base.strip_prefix("http://").unwrap().parse().unwrap();
    let mut clients = Vec::new();
    for own in ["127.0.0.1:0", "127.0.0.2:0"] {
        for _ in 0..49 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(own.parse().unwrap()).unwrap();
            clients.push(socket.connect(address).await.unwrap());
        }
    }
    let reported = async || folder.said().contains("failed to accept a connection").then_some(());
    eventually("it to have no descriptor left", reported).await;
    drop(clients);
    assert_eq!(serving.get("/api/v1/status").await["idle"], true);
    assert_eq!(folder.said().matches("failed to accept a connection").count(), 1, "{}", folder.said());
    assert_eq!(serving.terminate().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_few_file_descriptors_takes_fewer_connections_and_says_so() {
    let market = market(Duration::ZERO).await;
    let folder = Folder::at(&market.base, LIFTED);
    let mut serving = folder.spawn_serve_with_files(64);
    serving.listening();
    assert!(folder.said().contains("the limit of open files reduces"), "{}", folder.said());
    let address = serving.base.strip_prefix("http://").unwrap().to_owned();
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(TcpStream::connect(&address).await.unwrap());
    }
    let answered = async |status: u16| {
        serving.call(Method::GET, "/healthz").send().await.is_ok_and(|answer| answer.status() == status).then_some(())
    };
    eventually("one more client to be refused for want of room", async || answered(503).await).await;
    drop(clients);
    eventually("room for a client again", async || answered(200).await).await;
    assert_eq!(serving.get("/api/v1/status").await["idle"], true);
    assert!(!folder.said().contains("failed to accept a connection"), "{}", folder.said());
    assert_eq!(serving.terminate().0, Some(0));
}

#[test]
fn a_limit_of_the_machine_that_is_too_low_is_named() {
    for (limit, parts) in [
        ("ulimit -v 500000", ["the address space is limited to 488 MiB", "`ulimit -v`"]),
        ("ulimit -d 500000", ["the address space is limited to 488 MiB", "`ulimit -d`"]),
        ("ulimit -n 48", ["the limit of open files is 48", "`ulimit -n`"]),
    ] {
        let mut folder = Folder::bare();
        folder.run_under(&["sh", "-c", &format!("{limit} && exec \"$0\" \"$@\"")]);
        for command in [&["keys", "create", "--name", "k"][..], &["serve"]] {
            let ended = folder.run(command).expect(1);
            assert!(
                ended.out.is_empty() && parts.iter().all(|part| ended.err.contains(part)),
                "{limit}: {}",
                ended.err
            );
        }
        assert!(!folder.path("data").exists(), "nothing was begun");
        folder.run(&["version"]).expect(0);
    }
    // The soft limit is raised.
    let mut folder = Folder::bare();
    folder.run_under(&["sh", "-c", "ulimit -S -n 32 && exec \"$0\" \"$@\""]);
    assert!(folder.run(&["keys", "create", "--name", "k"]).expect(0).err.contains("it is shown only now"));
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn holds(bytes: &[u8], canary: &str) -> bool {
    bytes.windows(canary.len()).any(|window| window == canary.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_no_customer_is_in_any_output_or_file() {
    let database = Database::fresh().await;
    database.run("CREATE USER IF NOT EXISTS canary@'%' IDENTIFIED BY 'canary-mysql-password-9b1d'").await;
    database.run(&format!("GRANT ALL ON `{}`.* TO canary@'%'", database.name)).await;
    let market = market(Duration::ZERO).await;
    for url in [None, Some(database.url_of("canary:canary-mysql-password-9b1d"))] {
        let mut folder = Folder::at(&market.base, LIFTED);
        // As a list, so that nothing is left out.
        folder.set("WAYBILL_LOG_LEVEL", "trace,waybill=trace");
        if let Some(url) = &url {
            folder.set("WAYBILL_MYSQL_URL", url);
        }
        let shop = register(&folder);
        let minted = folder.run(&["keys", "create", "--name", "k", "--scope", "admin"]).expect(0);
        let key = minted.out.trim().to_owned();
        folder.run(&["check"]).expect(0);
        let serving = folder.serve();
        // Errors are talkative: break some answers, and some requests.
        let html = FaultKind::Status { code: 500, body: FaultBody::Html, headers: Default::default() };
        market.sandbox.set_faults(vec![
            Fault::times("/retailer/shipments/", html, 1),
            Fault::times("/retailer/shipments/", FaultKind::Garbage, 1),
            Fault::times("/retailer/shipments/", FaultKind::Cut { after: 300 }, 1),
        ]);
        market.sandbox.kill_tokens();
        let wrong = json!({"name": "x", "client_id": "first", "client_secret": SECRET, "oops": 1});
        for (path, body) in
            [("/api/v1/shops", &wrong), (&format!("/api/v1/shops/{shop}/sync"), &json!({"mode": "full"}))]
        {
            serving.call(Method::POST, path).json(body).send().await.unwrap();
        }
        serving.idle(Duration::from_secs(90)).await;
        assert_eq!(serving.all("/api/v1/shipments").await.len(), 50);
        let seen = format!(
            "{}{}{}",
            serving.call(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap(),
            serving.get("/api/v1/shops").await,
            serving.get("/api/v1/status").await
        );
        assert_eq!(serving.terminate().0, Some(0));

        let mut canaries = vec![SECRET.to_owned(), ADMIN_KEY.to_owned(), "canary-mysql-password-9b1d".to_owned()];
        canaries.push(base64_of(&format!("first:{SECRET}")));
        canaries.push(lossy(&folder.path("data.key")).trim().to_owned());
        // Access tokens are JWTs, known by more than three letters, which occur in sealed bytes by chance;
        // mail addresses stand for everything about a customer.
        canaries.extend(["eyJhbGciOi".to_owned(), "@verkopen.example".to_owned()]);
        // Asked for on purpose, once, by `keys create`.
        let said = folder.said().replacen(&key, "", 1);
        assert!(said.len() > 10_000, "the log was on");
        let texts = [("output", said.into_bytes()), ("answers", seen.into_bytes())].into_iter();
        let stored = files(&folder.path("data")).into_iter().map(|path| ("file", fs::read(path).unwrap()));
        for (place, bytes) in texts.chain(stored) {
            for canary in canaries.iter().chain([&key]) {
                if holds(&bytes, canary) {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let line = text.lines().find(|line| line.contains(canary.as_str())).unwrap_or_default();
                    panic!("`{canary}` is in an {place} ({url:?}): {line}");
                }
            }
        }
        market.sandbox.set_faults(vec![]);
    }
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_wait_is_obeyed_over_a_restart() {
    const WAIT: Duration = Duration::from_secs(4);
    let market = market(Duration::ZERO).await;
    let wait = BTreeMap::from([("retry-after".to_owned(), WAIT.as_secs().to_string())]);
    let busy = FaultKind::Status { code: 429, body: FaultBody::Json, headers: wait };
    market.sandbox.set_faults(vec![Fault::times("/retailer/shipments?", busy, 1)]);
    let folder = Folder::at(&market.base, LIFTED);
    let serving = folder.serve();
    let shop = json!({"name": "First shop", "client_id": "first", "client_secret": SECRET});
    let added = serving.call(Method::POST, "/api/v1/shops").json(&shop).send().await.unwrap();
    assert_eq!(added.status(), 201);
    let reported = async || {
        let status = serving.get("/api/v1/status").await;
        status["budgets"].as_array().unwrap().iter().any(|budget| budget["blocked_for_ms"] != 0).then_some(())
    };
    eventually("the wish to be heard", reported).await;
    // A clean stop, so that the wish is on disk.
    assert_eq!(serving.terminate().0, Some(0));
    let serving = folder.serve();
    serving.idle(Duration::from_secs(60)).await;
    let calls = market.sandbox.calls();
    let refused = calls.iter().find(|call| call.status == 429).unwrap();
    // What had left at the same moment could not know.
    let waiting = refused.at_us + 200_000..refused.at_us + WAIT.as_micros() as u64;
    let early = calls.iter().filter(|call| call.rule == refused.rule && waiting.contains(&call.at_us)).count();
    assert_eq!(early, 0, "calls in spite of a wish to wait");
    assert_eq!(serving.all("/api/v1/shipments").await.len(), 50);
}
