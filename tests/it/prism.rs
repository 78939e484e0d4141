//! Against a mock that others made: Prism, from the official OpenAPI of the marketplace. Every request of
//! ours must be valid by that description, and its lists, which never end, must not hold us for ever.
//!
//! Needs Prism (`WAYBILL_TEST_PRISM`, else `prism` on the path) and the description (in
//! `WAYBILL_SHARED`, else in `../shared` beside the project). Skips without them, and says so.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panic, and says when it skips")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::{MEDIA_TYPE, Options, ShopOptions};
use serde_json::Value;

use crate::support::program::{Folder, Market, lossy};

const STARTS_WITHIN: Duration = Duration::from_secs(40);
const SECRET: &str = "secret-of-first";

/// The resource that the README adds by configuration.
fn readme_resource() -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let block: Vec<&str> = readme
        .lines()
        .skip_while(|line| !line.starts_with("    resources = "))
        .take_while(|line| line.is_empty() || line.starts_with("    "))
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    assert!(block.len() > 6, "the README shows no resource");
    block.join("\n")
}

fn description() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("WAYBILL_SHARED").map_or_else(beside, PathBuf::from);
    let file = shared.join("bol/retailer-v10.openapi.json");
    file.exists().then_some(file)
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("WAYBILL_TEST_PRISM").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&path).map(|folder| folder.join("prism")).find(|file| file.exists()))
}

/// The catalog's resources that the description knows; offers have moved to its next version.
const DESCRIBED: [(&str, &str); 9] = [
    ("shipments", "/retailer/shipments "),
    ("orders", "/retailer/orders "),
    ("returns", "/retailer/returns "),
    ("replenishments", "/retailer/replenishments "),
    ("inventory", "/retailer/inventory "),
    ("invoices", "/retailer/invoices "),
    ("invoice_requests", "/retailer/shipments/invoices/requests "),
    ("promotions", "/retailer/promotions "),
    ("promotion_products", "/retailer/promotions/"),
];

/// A login host, a folder and the mock. None: what they need is not there.
async fn staged() -> Option<(Market, Folder, Prism)> {
    let (Some(program), Some(description)) = (program(), description()) else {
        eprintln!("SKIPPED: needs Prism (WAYBILL_TEST_PRISM) and the official description (WAYBILL_SHARED)");
        return None;
    };
    // Prism has no login: the sandbox gives the tokens, and serves nothing else here.
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 0, fbb: 0 };
    let login = Market::open(Options { shops: vec![shop], ..Options::default() }).await;
    let folder = Folder::bare();
    let prism = Prism::start(&program, &description, folder.path("prism.log"));
    Some((login, folder, prism))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_the_catalog_is_valid_by_the_official_description() {
    let Some((login, mut folder, prism)) = staged().await else { return };
    let names = DESCRIBED.map(|(name, _)| name);
    let free: Vec<String> = ["orders", "returns", "returns/*", "replenishments", "inventory", "invoices", "promotions"]
        .iter()
        .map(|path| format!("\"GET /retailer/{path}\" = \"none\""))
        .collect();
    folder.write(
        "waybill.toml",
        &format!(
            "resources = {names:?}\n[source]\nbase_url = \"{}\"\n[source.limits]\n{}\n",
            prism.base,
            free.join("\n")
        ),
    );
    folder.set("WAYBILL_SOURCE_TOKEN_URL", &format!("{}/token", login.base));
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], SECRET).expect(0);
    folder.set("WAYBILL_LIMITS_ATTEMPTS_MAX", "1");
    // Lists that repeat their page end with that reason; those without pages end.
    folder.run(&["sync", "--quiet"]).expect(1);
    // Of these two the description's own examples break its rules; what we ask for does not.
    let own = [
        "/retailer/invoices?period-start-date=2026-10-01&period-end-date=2026-10-31",
        "/retailer/promotions/1/products?page=1",
    ];
    for path in own {
        let asked =
            reqwest::Client::new().get(format!("{}{path}", prism.base)).bearer_auth("x").header("accept", MEDIA_TYPE);
        let reported: Value = asked.send().await.unwrap().json().await.unwrap();
        let places: Vec<&Value> =
            reported["validation"].as_array().unwrap().iter().map(|one| &one["location"][0]).collect();
        assert!(places.iter().all(|place| *place == "response"), "{reported}");
    }
    let mut wrong = prism.violations();
    wrong.retain(|line| !line.contains("get /retailer/invoices ") && !line.contains("/products "));
    assert_eq!(wrong, Vec::<String>::new());
    let said = prism.said();
    for (name, path) in DESCRIBED {
        assert!(said.contains(&format!("get {path}")), "{name} was not asked for:\n{said}");
    }
}

/// A running mock.
struct Prism {
    child: Child,
    log: PathBuf,
    base: String,
}

impl Prism {
    fn start(program: &Path, description: &Path, log: PathBuf) -> Prism {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let out = File::create(&log).unwrap();
        let child = Command::new(program)
            .args(["mock", "--host", "127.0.0.1", "--errors", "--port", &port.to_string()])
            .arg(description)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut prism = Prism { child, log, base: format!("http://127.0.0.1:{port}") };
        let begun = Instant::now();
        while !prism.said().contains("Prism is listening") {
            let is_gone = prism.child.try_wait().unwrap().is_some();
            assert!(!is_gone && begun.elapsed() < STARTS_WITHIN, "prism does not start:\n{}", prism.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        prism
    }

    fn said(&self) -> String {
        lossy(&self.log)
    }

    /// What it found wrong with requests.
    fn violations(&self) -> Vec<String> {
        // By their marks: its list of addresses is made of random words.
        let is_wrong = |line: &&str| line.contains('\u{2716}') || line.contains('\u{26a0}');
        self.said().lines().filter(is_wrong).map(str::to_owned).collect()
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_requests_are_valid_by_the_official_description_and_endless_lists_end() {
    let Some((login, mut folder, prism)) = staged().await else { return };
    folder.write("waybill.toml", &format!("{}\n[source]\nbase_url = \"{}\"\n", readme_resource(), prism.base));
    folder.set("WAYBILL_SOURCE_TOKEN_URL", &format!("{}/token", login.base));
    let add = ["shops", "add", "--name", "First shop", "--client-id", "first"];
    folder.feed(&add, SECRET).expect(0);

    let ended = folder.run(&["sync"]).expect(1);
    let runs: Vec<&str> = ended.out.lines().filter(|line| line.contains("First shop")).collect();
    assert!(runs.len() >= 3, "two streams and one:\n{}", ended.out);
    for run in &runs {
        assert!(run.contains("failed") && run.contains("ignore the page parameter"), "{run}");
    }
    assert_eq!(prism.violations(), Vec::<String>::new());
    let said = prism.said();
    for path in ["/retailer/shipments ", "/retailer/shipments/541757635 ", "/retailer/orders ", "/retailer/orders/"] {
        assert!(said.contains(&format!("get {path}")), "{path} was not asked for:\n{said}");
    }
    let calls = said.matches("Request received").count();
    assert!(calls <= 4 * runs.len(), "{calls} calls for {} runs", runs.len());
    assert_eq!(login.sandbox.audit().calls, 0, "the login host gets logins only");

    // The documents of the failed walks are kept all the same.
    folder.set("WAYBILL_HTTP_LISTEN", "127.0.0.1:0");
    folder.set("WAYBILL_ADMIN_KEY", crate::support::program::ADMIN_KEY);
    folder.set("WAYBILL_SCHEDULE_SYNC", "0 0 0 1 1 *");
    let serving = folder.serve();
    for (resource, id) in [("shipments", "/shipmentId"), ("sales", "/orderId")] {
        let items = serving.all(&format!("/api/v1/{resource}")).await;
        assert!(items.iter().all(|item| item["document"].pointer(id).is_some_and(|id: &Value| !id.is_null())));
        assert!(!items.is_empty(), "{resource}");
    }

    // The proof that the log shows what is wrong.
    let wrong = format!("{}/retailer/shipments?page=1&fulfilment-method=ALL", prism.base);
    let answer = reqwest::Client::new().get(wrong).bearer_auth("x").header("accept", MEDIA_TYPE).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(!prism.violations().is_empty());
}
