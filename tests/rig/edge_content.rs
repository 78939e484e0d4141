//! Unusual but legal content. Ids and texts that break SQL, HTML, a path, a log line or a spreadsheet unless they are
//! treated as text: in every field, in MySQL, in the API and in the log.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::mariadb::Database;
use crate::oracle::{self, Allowed};
use crate::program::{Serving, lossy};
use crate::run::Run;
use crate::world::{Limit, Plan, World};

const FREE: Limit = Limit { calls: 10_000, seconds: 1 };
const QUIET: Duration = Duration::from_secs(60);
/// Maximum length of an id, in characters.
const ID_MAX: usize = 128;

/// Texts that break careless readers.
pub(crate) const TEXTS: [&str; 84] = [
    "\u{1F600}\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{20BB7}",
    "\u{0634}\u{062D}\u{0646}\u{0629}",
    "\u{202E}gnp.exe",
    "\u{2066}bidi\u{2069}",
    "nul\u{0}inside",
    "\u{0}",
    "'",
    "''",
    "\"; DROP TABLE shipments; --",
    "'; DROP TABLE shipments; --",
    "' OR '1'='1",
    "`",
    "\\",
    "\\'",
    "\\0",
    "%",
    "_",
    "/*",
    "--",
    "#",
    "<script>alert('waybill')</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload=alert(1)>",
    "</textarea><iframe src=javascript:alert(1)>",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "{{7*7}}",
    "${7*7}",
    "<%= 7*7 %>",
    "%s%n%x",
    "{}",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(1)",
    "\r\nX-Injected: yes",
    "one\ntwo",
    "\t",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{7f}",
    "\u{85}",
    "\u{2028}line",
    "..",
    ".",
    "../",
    "../../etc/passwd",
    "a/b",
    "/",
    "a?b=c",
    "?",
    "a#b",
    "a;b",
    "a&b",
    "a+b",
    "a b",
    "%00",
    "%2e%2e%2f",
    "%2F",
    "%",
    "trailing space ",
    " leading space",
    "no-break\u{a0}",
    "caf\u{e9}",
    "cafe\u{301}",
    "A",
    "a",
    "\u{c4}",
    "A\u{308}",
    "\u{df}",
    "ss",
    "\u{1e9e}",
    "\u{130}",
    "i\u{307}",
    "\u{fb01}",
    "fi",
    "\u{212a}",
    "\u{feff}mark",
    "\u{200b}",
    "\u{fffd}",
    "\u{10ffff}",
    "NULL",
    "9223372036854775808",
    "1e400",
    "",
];

/// Numerals at and beyond the limits of common types; the last exceeds them all.
const NUMERALS: [&str; 11] = [
    "0",
    "-0",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "-9223372036854775808",
    "1e308",
    "5e-324",
    "0.1000",
    "1e400",
];

/// Every unusual text as an id and in all text fields, every numeral in all numbers.
pub(crate) async fn content(mut run: Run) {
    let json_log = run.random.bool();
    let toml = if json_log {
        "[limits]\nattempts_max = 2\n[log]\nformat = \"json\"\nlevel = \"waybill=trace,info\"\n"
    } else {
        "[limits]\nattempts_max = 2\n[log]\nlevel = \"waybill=trace,info\"\n"
    };
    let mysql = Some(Database::fresh().await);
    let mut world = World::open(&run, Plan { mysql, list: FREE, detail: FREE, toml, ..Plan::of(1, [30, 10]) }).await;
    let client = world.clients[0].clone();
    let unkept = fill(&world, &client);
    let serving = world.start().await;
    world.register_all(&serving).await;
    serving.idle(QUIET).await;
    parked(&serving, &unkept).await;
    served(&world, &serving, &client).await;
    names(&world, &serving, &client, &mut run.random).await;
    one_line_an_event(&world, json_log);
    // Those cannot be stored under their ids; the rest must be equal.
    for id in &unkept {
        world.market.sandbox.remove(&client, id).unwrap();
    }
    oracle::judge_allowing(world, serving, Allowed { parked: true, ..Allowed::default() }).await;
}

/// Adds the unusual documents to the marketplace; returns the ids that cannot be stored.
fn fill(world: &World, client: &str) -> BTreeSet<String> {
    let sandbox = &world.market.sandbox;
    let (_, model, detail) = sandbox.truth(client).swap_remove(3);
    let row = sandbox.row(client, &model).unwrap().unwrap();
    let mut unkept = BTreeSet::new();
    let put = |id: &str, texts: [String; 2]| sandbox.put(client, sandbox::Method::Fbr, id, texts).unwrap();
    let long = "\u{e9}".repeat(ID_MAX);
    let ids = TEXTS.iter().map(|text| (*text).to_owned()).chain([long.clone(), format!("{long}x")]);
    for id in ids.collect::<BTreeSet<_>>() {
        let with_id = |document: &Value| {
            Value::Object({
                let mut fields = document.as_object().unwrap().clone();
                fields.insert("shipmentId".to_owned(), json!(id));
                fields
            })
        };
        put(&id, [with_id(&row).to_string(), with_id(&detail).to_string()]);
        if !is_kept(&id) {
            unkept.insert(id);
        }
    }
    let huge = "A very long name, with \u{1F4E6}. ".repeat(65_536 / 27);
    for (number, text) in TEXTS.iter().copied().chain([huge.as_str()]).enumerate() {
        let id = format!("TEXT{number}");
        let odd = |document: &Value| with_texts(document, text, &id).to_string();
        put(&id, [odd(&row), odd(&detail)]);
    }
    for (number, numeral) in NUMERALS.iter().enumerate() {
        let id = format!("NUMBER{number}");
        // As texts first: no number type holds them all.
        let odd = with_numbers(&with_texts(&detail, "text", &id)).to_string().replace("\"a numeral\"", numeral);
        put(&id, [with_texts(&row, "text", &id).to_string(), odd]);
        if *numeral == "1e400" {
            unkept.insert(id);
        }
    }
    unkept
}

/// The rule for ids as documented.
fn is_kept(id: &str) -> bool {
    (1..=ID_MAX).contains(&id.chars().count())
        && !id.chars().any(char::is_control)
        && id.trim() == id
        && !matches!(id, "." | "..")
}

/// The document with one text in all its text fields but the id.
fn with_texts(document: &Value, text: &str, id: &str) -> Value {
    match document {
        Value::String(_) => json!(text),
        Value::Array(elements) => elements.iter().map(|element| with_texts(element, text, id)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let value = if name == "shipmentId" { json!(id) } else { with_texts(value, text, id) };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

/// The document with a mark in place of each number.
fn with_numbers(document: &Value) -> Value {
    match document {
        Value::Number(_) => json!("a numeral"),
        Value::Array(elements) => elements.iter().map(with_numbers).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), with_numbers(value))).collect())
        }
        other => other.clone(),
    }
}

/// Exactly the documents that cannot be stored are parked, each with a reason.
async fn parked(serving: &Serving, unkept: &BTreeSet<String>) {
    let parked = serving.all("/api/v1/parked").await;
    for id in unkept {
        // Shown as one line, without control characters for a terminal.
        let shown: String = id.chars().map(|c| if c.is_control() || c == '\u{2028}' { ' ' } else { c }).collect();
        let shown = shown.trim();
        let is_it =
            |one: &Value| one["document_id"].as_str().is_some_and(|id| id.starts_with(shown) || shown.starts_with(id));
        assert!(parked.iter().any(is_it), "{id:?} is not parked: {parked:#?}");
    }
    assert!(parked.len() <= unkept.len(), "{parked:#?}\nnot to be kept: {unkept:?}");
    for one in parked {
        let reason = one["reason"].as_str().unwrap();
        let about_the_id =
            ["id is empty", "id contains", "id begins", "id is longer", "id cannot be used", "is out of range"];
        assert!(about_the_id.iter().any(|words| reason.contains(words)), "{one}");
    }
}

/// Each document can be requested by its id, and its numerals come back digit by digit.
async fn served(world: &World, serving: &Serving, client: &str) {
    let shop = &world.shops[client];
    let mut seen = 0;
    for (_, id, document) in world.market.sandbox.truth(client) {
        if document.is_null() || !is_kept(&id) {
            continue;
        }
        let path = format!("/api/v1/shipments/{shop}/{}", escaped(&id));
        let (status, answer) = world.insist(serving, Method::GET, &path, None).await;
        assert_eq!(status, 200, "{id:?} at {path}: {answer}");
        assert_eq!((&answer["id"], &answer["document"]), (&json!(id), &document), "{id:?}");
        seen += 1;
    }
    world.run.note(format!("{seen} documents by their ids"));
    for (number, numeral) in NUMERALS.iter().enumerate().filter(|(_, numeral)| **numeral != "1e400") {
        let path = format!("/api/v1/shipments/{shop}/NUMBER{number}");
        let text = insist_on_text(serving, &path).await;
        assert!(text.contains(&format!("\"unitPrice\":{numeral}")), "{numeral}: {text}");
    }
}

/// The answer's text; retries while rate limited.
async fn insist_on_text(serving: &Serving, path: &str) -> String {
    loop {
        let answer = serving.call(Method::GET, path).send().await.unwrap();
        if answer.status() != 429 {
            return answer.text().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Every byte but letters and digits as `%XX`.
fn escaped(id: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    id.bytes().map(byte).collect()
}

/// Whether a text may be the name of a shop: one line, with something to see, and nothing that hides or turns letters.
pub(crate) fn is_name(text: &str) -> bool {
    let hides = |letter: char| {
        let marks =
            matches!(letter, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}');
        let lines = matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}');
        marks
            || lines
            || matches!(letter, '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
    };
    !text.trim().is_empty() && !text.chars().any(|letter| letter.is_control() || hides(letter))
}

/// Shop names may be such lines; anything else is refused as invalid.
async fn names(world: &World, serving: &Serving, client: &str, random: &mut fastrand::Rng) {
    for text in random.choose_multiple(TEXTS, 20) {
        let (status, answer) = world.change(serving, client, json!({"name": text})).await;
        let fits = is_name(text);
        assert_eq!(status, if fits { 200 } else { 422 }, "{text:?}: {answer}");
        if fits {
            assert_eq!(answer["name"], text);
            assert_eq!(world.shop(serving, client).await["name"], text);
        }
    }
}

/// The log has one line per event, and no control characters.
fn one_line_an_event(world: &World, json_log: bool) {
    let log = lossy(&world.folder.path("serve.stderr"));
    let mut lines = 0;
    for line in log.lines() {
        assert!(!line.chars().any(char::is_control), "control characters in the log: {line:?}");
        let whole = if json_log {
            serde_json::from_str::<Value>(line).is_ok()
        } else {
            let level = line.split_whitespace().nth(1).unwrap_or_default();
            line.starts_with("20") && ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level)
        };
        assert!(whole, "no event of its own: {line:?}");
        lines += 1;
    }
    world.run.note(format!("{lines} lines of log"));
    assert!(lines > 10, "nothing was logged");
}
