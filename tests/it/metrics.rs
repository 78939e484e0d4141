//! The page of metrics: its form by Prometheus' own tool, its numbers, and who may read it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use sandbox::{Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::no_limits;
use crate::support::program::{Folder, Market};

fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("promtool")).find(|file| file.exists())
}

/// Counters of what has not happened.
const ZEROS: [&str; 11] = [
    "waybill_runs_total{resource=\"shipments\",result=\"failed\"} 0",
    "waybill_panics_total{part=\"the writer\"} 0",
    "waybill_panics_total{part=\"a request\"} 0",
    "waybill_invariant_breaches_total 0",
    "waybill_gaps_total 0",
    "waybill_log_lines_lost_total 0",
    "waybill_unreadable_total{resource=\"shipments\"} 0",
    "waybill_tolerated_total{resource=\"shipments\",kind=\"duplicate_key\"} 0",
    "waybill_misfits_total{resource=\"shipments\",column=\"shipments.shipment_date_time\"} 0",
    "waybill_calls_total{rule=\"GET /retailer/shipments\",status=\"5xx\"} 0",
    "waybill_refused_429_total{rule=\"login\"} 0",
];

fn unmapped(page: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.strip_prefix("waybill_unmapped_fields{resource=\"shipments\"} "));
    line?.parse().ok()
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_passes_promtool_and_is_open_on_its_own_listener_alone() {
    let shop = ShopOptions { client_id: "client-of-one".into(), client_secret: "s3cret".into(), fbr: 30, fbb: 0 };
    let market = Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await;
    let mut folder = Folder::at(&market.base, "");
    let port = free_port();
    folder.set("WAYBILL_HTTP_METRICS_LISTEN", &format!("127.0.0.1:{port}"));
    let serving = folder.serve();
    let body = json!({"name": "A \"shop\" of J. Jansen", "client_id": "client-of-one", "client_secret": "s3cret"});
    let made = serving.call(Method::POST, "/api/v1/shops").json(&body).send().await.unwrap();
    let id = made.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    serving.idle(Duration::from_secs(60)).await;

    let own = format!("http://127.0.0.1:{port}");
    let open = reqwest::get(format!("{own}/metrics")).await.unwrap();
    assert_eq!(open.status(), 200);
    let page = open.text().await.unwrap();
    for (path, status) in
        [("/livez", 200), ("/readyz", 200), ("/healthz", 404), ("/api/v1/status", 404), ("/", 404), ("/metrics/", 404)]
    {
        assert_eq!(reqwest::get(format!("{own}{path}")).await.unwrap().status(), status, "{path}");
    }
    let word = reqwest::get(format!("{own}/readyz")).await.unwrap().text().await.unwrap();
    assert_eq!(word, r#"{"status":"ready"}"#);
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(reqwest::Client::new().post(format!("{own}{path}")).send().await.unwrap().status(), 405, "{path}");
    }
    let closed = reqwest::get(format!("{}/metrics", serving.base)).await.unwrap();
    assert_eq!(closed.status(), 401);
    let with_key = serving.call(Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(with_key.status(), 200);
    assert_eq!(serving.terminate().0, Some(0));
    assert!(reqwest::get(format!("{own}/livez")).await.is_err(), "it ends with the process");
    // The sandbox has fields of which the store keeps that no column takes them.
    assert!(unmapped(&page) > Some(0), "{page}");
    let again = folder.serve();
    let second = again.call(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert_eq!(unmapped(&second), unmapped(&page), "{second}");
    assert_eq!(again.terminate().0, Some(0));

    let happened = [
        "waybill_health_level 0",
        "waybill_shops{state=\"fresh\"} 1",
        "waybill_shops{state=\"refused\"} 0",
        "waybill_runs_total{resource=\"shipments\",result=\"done\"} 2",
        "waybill_documents_written_total{resource=\"shipments\"} 30",
        "waybill_sink_healthy 1",
    ];
    for line in happened.iter().chain(&ZEROS) {
        assert!(page.lines().any(|found| found == *line), "{line}:\n{page}");
    }
    assert!(page.contains(&format!("waybill_stream_age_seconds{{shop=\"{id}\",resource=\"shipments\"}} ")), "{page}");
    assert!(page.contains("waybill_build_info{version=\""), "{page}");
    let mut values = page.lines().filter(|line| !line.starts_with('#'));
    let personal = values.find(|line| line.contains("Jansen") || line.contains("client-of-one"));
    assert_eq!(personal, None, "labels hold ids and words of ours");
    let families: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    for family in &families {
        let name = family.split(' ').next().unwrap();
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help");
    }

    let Some(tool) = promtool() else {
        eprintln!("SKIPPED: promtool check metrics, it is not installed (Debian package `prometheus`)");
        return;
    };
    let mut child =
        Command::new(tool).args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = child.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}\n{page}", String::from_utf8_lossy(&checked.stderr));
}

/// The names that the macros of the `metrics` crate are called with in the sources.
fn used(below: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            used(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for call in ["counter!(", "gauge!(", "histogram!("] {
                let arguments = text.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
                found.extend(arguments.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
}

/// Every `waybill_...` name of a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("waybill_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_described_and_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut used_names = BTreeSet::new();
    used(&root.join("src"), &mut used_names);
    assert!(used_names.len() > 10, "{used_names:?}");
    let described = names(&std::fs::read_to_string(root.join("src/service/metrics.rs")).unwrap());
    let undescribed: Vec<&String> = used_names.difference(&described).collect();
    assert!(undescribed.is_empty(), "without HELP, add them in src/service/metrics.rs: {undescribed:?}");
    let page = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let documented = names(&page);
    assert_eq!(described, documented, "src/service/metrics.rs against docs/operations.md");
}
