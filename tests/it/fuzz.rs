//! The HTTP API against its own description: Schemathesis makes requests from `/openapi.json`, good and
//! bad ones, and holds every answer against it (statuses, headers, bodies, authentication, no 5xx).
//!
//! Needs the `schemathesis` command (`WAYBILL_TEST_SCHEMATHESIS`); skips without it, and says so.

use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use sandbox::{Options, ShopOptions};

use crate::support::is_full;
use crate::support::program::{ADMIN_KEY, Folder, Market, lossy};

const SECRET: &str = "secret-of-first";
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_the_description_says() {
    let program = std::env::var_os("WAYBILL_TEST_SCHEMATHESIS").filter(|path| !path.is_empty());
    let Some(program) = program else {
        eprintln!("SKIPPED: needs Schemathesis (WAYBILL_TEST_SCHEMATHESIS)");
        return;
    };
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 60, fbb: 10 };
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    let market = Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await;
    let folder = Folder::at(&market.base, LIFTED);
    folder.feed(&["shops", "add", "--name", "First shop", "--client-id", "first"], SECRET).expect(0);
    let mut serving = folder.serve();
    serving.idle(Duration::from_secs(60)).await;
    let (seconds, examples) = if is_full() { ("600", "2000") } else { ("35", "25") };
    let seed = if is_full() { fastrand::u32(..) } else { 1 }.to_string();
    println!("seed {seed}");
    let mut run = Command::new(program);
    run.args(["run", &format!("{}/openapi.json", serving.base), "-H", &format!("Authorization: Bearer {ADMIN_KEY}")])
        // A cursor and a client secret are right or wrong in ways that no schema can say.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
        // As often as a key may write; else most answers were 429.
        .args([
            "--rate-limit",
            "18/s",
            "--max-time",
            seconds,
            "--max-examples",
            examples,
            "--seed",
            &seed,
            "--no-shrink",
        ])
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
        .current_dir(folder.dir.path())
        .stdin(Stdio::null());
    let ran = tokio::task::spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let reported = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{reported}{}", String::from_utf8_lossy(&ran.stderr));
    // Shown with --nocapture.
    println!("{}", reported.lines().find(|line| line.contains("generated")).unwrap_or("no count"));
    assert!(serving.is_alive());
    let log = lossy(&folder.path("serve.stderr"));
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    assert_eq!(serving.call(Method::GET, "/readyz").send().await.unwrap().status(), 200);
    assert_eq!(serving.terminate().0, Some(0));
}
