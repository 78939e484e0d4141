//! Everything that reads what others wrote, on broken forms of good texts: pages, documents, headers, cron lines,
//! definitions, configurations. None panics, none hangs, and what is taken means something.
//!
//! `WAYBILL_FUZZ_RUNS` makes more of them; `WAYBILL_TEST_SEED` repeats a run.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panic, and says what it did")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use waybill::catalog::definition::Definition;
use waybill::catalog::{self, Limit, RuleTable, extract, reader};
use waybill::config::Config;
use waybill::domain::json::Json;
use waybill::domain::schedule::Schedule;
use waybill::domain::{ListParams, Timestamp};
use waybill::source::headers::retry_after;
use waybill::source::{Position, Quota, pages};

const RUNS: usize = 3_000;
/// A text that takes longer than this hangs; it is no measure of speed.
const HANGS: Duration = Duration::from_secs(10);
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

const PAGE: &str = r#"{"shipments":[{"shipmentId":"914587795","shipmentDateTime":"2026-11-24T20:10:19+01:00",
"order":{"orderId":"7616222250"},"shipmentItems":[{"orderItemId":"6107434013","ean":"8712626055143"}],
"transport":{"transportId":358612589}},{"shipmentId":"2","shipmentDateTime":"2026-11-24T20:10:19+01:00"}]}"#;
const DOCUMENT: &str = r#"{"shipmentId":"914587795","shipmentDateTime":"2026-11-24T20:10:19+01:00","pickupPoint":true,
"order":{"orderId":"7616222250","orderPlacedDateTime":"2026-11-23T12:27:50+01:00"},
"shipmentDetails":{"salutation":"MALE","firstName":"Jan","zipCode":"1234 AB"},
"shipmentItems":[{"orderItemId":"6107434013","fulfilment":{"method":"FBR"},"quantity":10,"unitPrice":12.99,
"commission":1e2,"offer":{"offerId":"6ff736b5-cdd0-4150-8c67-78269ee986f5"},"product":{"ean":"0000007740404"}}],
"transport":{"transportId":358612589,"transportEvents":[{"eventCode":"DELIVERED","eventDateTime":"2026-11-25T10:00:00Z"}]}}"#;
const HEADERS: [&str; 8] =
    ["30", "0", "Wed, 25 Nov 2026 03:00:00 GMT", "-1", "1e9", "99999999999999999999", "1.5", " 7 "];
const CRONS: [&str; 5] = ["*/15 * * * *", "0 30 2 * * *", "0 0 0 1 1 *", "0 */5 8-18 * * MON-FRI", "0 0 29 2 *"];
const LIMITS: [&str; 6] = ["25/s", "7/min", "7/3min", "none", "20/12s", "500/h"];
const CONFIGURATION: &str = include_str!("../../config.example.toml");
const DEFINITION: &str = include_str!("../../src/catalog/shipments.toml");

/// What breaks readers: ends, signs, and the words of the formats.
const TOKENS: [&str; 28] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "NaN",
    "-",
    "1e999",
    "0.1",
    "true",
    "\0",
    "\u{feff}",
    "\n",
    "#",
    "=",
    "\"\"\"",
    "/",
    "*",
    "\u{1F600}",
    "é",
    "18446744073709551616",
    "                ",
];

/// One to eight changes of a text, which may leave it no text any more.
fn broken(text: &str, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.usize(1..9) {
        let at = random.usize(..=bytes.len());
        let to = (at + random.usize(..20)).min(bytes.len());
        match random.u8(..6) {
            0 => drop(bytes.splice(at..at, random.choice(TOKENS).unwrap().bytes())),
            1 => drop(bytes.splice(at..to, random.choice(TOKENS).unwrap().bytes())),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let part = bytes.get(at..to).unwrap_or_default().to_vec();
                bytes.splice(at..at, part);
            }
            4 => bytes.truncate(at.max(1)),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.u8(..8);
                }
            }
        }
    }
    bytes
}

/// Gives broken forms of the texts to a reader; how many it took for good.
fn read_all(name: &str, texts: &[&str], mut takes: impl FnMut(&[u8]) -> bool) {
    let seed: u64 = std::env::var("WAYBILL_TEST_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("repeat with WAYBILL_TEST_SEED={seed}");
    let runs = std::env::var("WAYBILL_FUZZ_RUNS").map_or(RUNS, |text| text.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    for text in texts {
        assert!(takes(text.as_bytes()) || HEADERS.contains(text), "{name} is refused:\n{text}");
    }
    let mut taken = 0;
    for _ in 0..runs {
        let text = broken(random.choice(texts).unwrap(), &mut random);
        let begun = Instant::now();
        let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| takes(&text)));
        let shown = String::from_utf8_lossy(&text);
        let Ok(took) = took else { panic!("{name} panics on:\n{shown}") };
        assert!(begun.elapsed() < HANGS, "{name} hangs on:\n{shown}");
        taken += usize::from(took);
    }
    println!("{name}: {taken} of {runs} broken texts are good nevertheless");
}

fn shipments() -> Arc<Definition> {
    let rules = RuleTable::build([&catalog::source_defaults().unwrap().limits]).unwrap();
    catalog::resources(&["shipments".to_owned()], &toml::Table::new(), &rules).unwrap().remove(0)
}

#[test]
fn pages() {
    let definition = shipments();
    read_all("a page", &[PAGE, r#"{"shipments":[]}"#, "{}"], |text| {
        let body = Bytes::copy_from_slice(text);
        let answer = pages::ListResponse { body: &body, next_link: None, previous: None };
        let Ok(page) = pages::page(&definition, &Position::default(), answer, |_| None) else { return false };
        let rows = page.value.rows;
        assert!(rows.iter().all(|row| !row.id.is_empty() && row.id.trim() == row.id), "{rows:?}");
        true
    });
}

#[test]
fn documents() {
    let definition = shipments();
    let combination = ListParams(vec![("fulfilment-method".into(), "FBR".into())]);
    read_all("a document", &[DOCUMENT], |text| {
        let body = Bytes::copy_from_slice(text);
        let Ok(read) = pages::detail(&definition, "914587795", &body, || None, NOW) else { return false };
        // What is taken can be written, and says the same.
        let document = Json::parse(text).unwrap();
        let written = Bytes::from(serde_json::to_vec(&document).unwrap());
        let again = pages::detail(&definition, "914587795", &written, || None, NOW).unwrap();
        assert_eq!(again.value.hash, read.value.hash);
        extract::extract(&definition, "914587795", &document, &combination);
        true
    });
}

#[test]
fn headers() {
    let names = ["retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "date"];
    read_all("a header", &HEADERS, |text| {
        let Ok(value) = HeaderValue::from_bytes(text) else { return false };
        let headers: HeaderMap = names.iter().map(|name| (HeaderName::from_static(name), value.clone())).collect();
        Quota::read(&headers, NOW);
        let pause = retry_after(&headers, NOW);
        assert!(pause.is_none_or(|pause| pause <= Duration::from_secs(3600)), "{pause:?}");
        pause.is_some()
    });
}

#[test]
fn cron_lines() {
    read_all("a cron line", &CRONS, |text| {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let Ok(schedule) = Schedule::parse(text, chrono_tz::Europe::Amsterdam) else { return false };
        assert!(schedule.next(NOW).is_none_or(|next| next > NOW));
        true
    });
}

#[test]
fn limits() {
    read_all("a limit", &LIMITS, |text| {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let Ok(limit) = Limit::parse(text) else { return false };
        assert!(limit.is_none_or(|limit| limit.calls > 0 && !limit.window.is_zero()), "{text}: {limit:?}");
        true
    });
}

#[test]
fn definitions() {
    read_all("a definition", &[DEFINITION], |text| {
        let Ok(text) = std::str::from_utf8(text) else { return false };
        let Ok(table) = text.parse::<toml::Table>() else { return false };
        let of = |name: &str| table.get("resource")?.get(name)?.as_table();
        let Some(table) = of("shipments") else { return false };
        match reader::read("shipments", table) {
            Ok(_) => true,
            Err(problems) => {
                assert!(!problems.0.is_empty() && problems.0.iter().all(|problem| !problem.what.is_empty()));
                false
            }
        }
    });
}

#[test]
fn configurations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("waybill.toml");
    read_all("a configuration", &[CONFIGURATION], |text| {
        std::fs::write(&path, text).unwrap();
        match Config::load(Some(&path), &BTreeMap::new()) {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("waybill.toml"), "it says where: {error}");
                false
            }
        }
    });
}
