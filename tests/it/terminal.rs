//! What the commands show on a real terminal of 60, 80 and 160 columns: every column that has a value, every id whole,
//! colours that say no more than the words; and the same as JSON, with the fields of the HTTP API.

use std::collections::BTreeSet;

use sandbox::{Fault, FaultBody, FaultKind, Options, ShopOptions};
use serde_json::{Value, json};

use crate::support::program::{Folder, Market};
use crate::support::terminal::{self, Shown};

const WIDTHS: [u16; 3] = [60, 80, 160];
const SECRET: &str = "secret-of-first";

async fn market() -> Market {
    let limits = ["GET /retailer/shipments", "GET /retailer/shipments/*"];
    let shop = ShopOptions { client_id: "first".into(), client_secret: SECRET.into(), fbr: 12, fbb: 3 };
    let limits = limits.iter().map(|rule| ((*rule).to_owned(), "none".to_owned())).collect();
    Market::open(Options { shops: vec![shop], limits, ..Options::default() }).await
}

/// A folder with the market's shop; and the shop's id.
fn registered(market: &Market) -> (Folder, String) {
    let limits = "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";
    let folder = Folder::at(&market.base, limits);
    let add = ["shops", "add", "--name", "A shop with quite a long name", "--client-id", "first"];
    let id = folder.feed(&add, SECRET).expect(0).out.trim().to_owned();
    (folder, id)
}

/// Two documents cannot be read.
fn break_two(market: &Market) {
    let new = market.sandbox.add_shipments("first", sandbox::Method::Fbr, 2).unwrap();
    let kind = || FaultKind::Status { code: 500, body: FaultBody::Html, headers: Default::default() };
    let faults = new.iter().map(|id| Fault::always(&format!("/retailer/shipments/{id}"), kind()));
    market.sandbox.set_faults(faults.collect());
}

fn shown(folder: &Folder, arguments: &[&str], width: u16) -> Shown {
    terminal::run(folder.command(arguments), width, "")
}

/// A table as a script gets it: its heads, and the cells of its rows.
struct Plain {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Plain {
    /// The tables of a command without a terminal.
    fn of(out: &str) -> Vec<Plain> {
        let lines: Vec<Vec<char>> = out.lines().map(|line| line.chars().collect()).collect();
        let is_rule = |line: &&Vec<char>| !line.is_empty() && line.iter().all(|letter| ['-', ' '].contains(letter));
        let rules = lines.iter().enumerate().filter(|(_, line)| is_rule(line));
        let table = |(at, rule): (usize, &Vec<char>)| {
            let widths: Vec<usize> = rule.split(|letter| *letter == ' ').map(<[char]>::len).collect();
            let cells = |line: &Vec<char>| {
                let mut from = 0;
                let cell = |width: &usize| {
                    let text: String = line.iter().skip(from).take(*width).collect();
                    from += width + 1;
                    text.trim().to_owned()
                };
                widths.iter().map(cell).collect::<Vec<_>>()
            };
            // An empty line or another table's head ends it.
            let rows = lines[at + 1..].iter().take_while(|line| line.len() > widths[0]);
            Plain { heads: cells(&lines[at - 1]), rows: rows.map(cells).collect() }
        };
        rules.map(table).collect()
    }

    /// The columns in which some row has more than nothing.
    fn filled(&self) -> Vec<&str> {
        let has_value = |at: &usize| self.rows.iter().any(|row| !["", "0", "-"].contains(&row[*at].as_str()));
        (0..self.heads.len()).filter(has_value).map(|at| self.heads[at].as_str()).collect()
    }
}

/// Whether the text has a table with this head; else it is one of blocks.
fn has_head(shown: &Shown, head: &str) -> bool {
    let rules = shown.lines.iter().enumerate().filter(|(_, line)| line.starts_with("---"));
    // A head may wrap, over two lines at most.
    let mut above = rules.map(|(at, _)| shown.lines[at.saturating_sub(2)..at].join(" "));
    above.any(|line| head.split(' ').all(|word| line.split_whitespace().any(|at| at == word)))
}

/// Every column that has a value in any row is there, as a head of the table or of a block, and in a table the others
/// too; and no line is wider than the terminal.
#[track_caller]
fn has_columns(shown: &Shown, heads: &[&str], filled: &[&str], width: u16) {
    let text = shown.text();
    assert!(shown.lines.iter().all(|line| line.chars().count() <= usize::from(width)), "{width}: {text}");
    let in_block = |head: &str| shown.lines.iter().any(|line| line.starts_with(&format!("{head}:")));
    let needed = if has_head(shown, heads[0]) { heads } else { filled };
    for head in needed {
        assert!(in_block(head) || has_head(shown, head), "{head} is not shown at {width} columns:\n{text}");
    }
}

/// A command shows at this width what it shows without a terminal, but for columns of blocks that have nothing.
#[track_caller]
fn shows(folder: &Folder, arguments: &[&str], tables: &[&[&str]], width: u16) -> Shown {
    let plain = Plain::of(&folder.run(arguments).out);
    let heads: Vec<&[String]> = plain.iter().map(|table| table.heads.as_slice()).collect();
    assert_eq!(heads, tables, "{arguments:?}");
    let shown = shown(folder, arguments, width);
    for (table, heads) in plain.iter().zip(tables) {
        assert!(!table.rows.is_empty() && !table.filled().is_empty(), "{arguments:?}");
        has_columns(&shown, heads, &table.filled(), width);
        let is_nothing = |line: &String| {
            let (head, value) = line.split_once(':').unwrap_or((line, "some"));
            heads.contains(&head) && ["", "0", "-"].contains(&value.trim())
        };
        assert!(!shown.lines.iter().any(is_nothing), "{width}:\n{}", shown.text());
        let values = table.rows.iter().flatten().filter(|value| !["", "0", "-"].contains(&value.as_str()));
        for word in values.flat_map(|value| value.split(' ')) {
            assert!(shown.text().contains(word), "{word} at {width} columns:\n{}", shown.text());
        }
    }
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_and_no_id_is_hidden_at_any_width() {
    let market = market().await;
    let (mut folder, shop) = registered(&market);
    let key = folder.run(&["keys", "create", "--name", "for the bookkeeper", "--json"]).expect(0).out;
    let key: Value = serde_json::from_str(&key).unwrap();
    folder.set("WAYBILL_LIMITS_ATTEMPTS_MAX", "1");
    folder.run(&["sync", "--quiet"]).expect(0);
    for width in WIDTHS {
        let preview = shown(&folder, &["preview", "shipments", "--rows", "2"], width);
        let table = folder.run(&["preview", "shipments", "--rows", "1", "--json"]).expect(0).out;
        let table: Value = serde_json::from_str(&table).unwrap();
        let columns: Vec<&str> = table["rows"][0].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(columns.len() > 10);
        // The columns of the second table are those of the documents.
        let columns = [&columns[..], &["column", "type", "from", "value"]].concat();
        has_columns(&preview, &columns, &columns, width);
    }
    for width in WIDTHS {
        break_two(&market);
        let sync = shown(&folder, &["sync", "--full"], width);
        let heads = [
            "run", "shop", "stream", "state", "pages", "listed", "new", "changed", "fetched", "gone", "written",
            "parked", "error",
        ];
        has_columns(&sync, &heads, &["run", "shop", "stream", "state", "pages", "listed", "parked"], width);
        assert!(sync.text().contains("fulfilment-method=FBR"), "{}", sync.text());
        let heads = [
            "shop", "name", "resource", "listed", "read", "in sink", "pending", "parked", "gone", "missing", "complete",
        ];
        let verify = shows(&folder, &["verify"], &[&heads], width);
        assert!(verify.code == Some(1) && verify.text().contains(&shop), "{}", verify.text());
        // What the text refers to is there in each form, for each row.
        let named = verify.text().matches("complete:").count() + usize::from(has_head(&verify, "complete"));
        has_text(&verify, "incomplete (see `complete`)", width);
        assert_eq!(named, 1, "{}", verify.text());
        let heads = ["id", "name", "state", "client id", "resources", "created", "reason"];
        let list = shows(&folder, &["shops", "list"], &[&heads], width);
        assert!(list.text().contains(&shop), "{}", list.text());
        let heads = ["id", "name", "scope", "shops", "created", "expires", "last used"];
        let keys = shows(&folder, &["keys", "list"], &[&heads], width);
        assert!(keys.text().contains(key["id"].as_str().unwrap()), "{}", keys.text());
        let streams = ["shop", "name", "stream", "walk", "lists", "details", "by"];
        shows(&folder, &["plan", "--full"], &[&streams, &["account", "rule", "limit", "calls", "takes"]], width);
        let streams = ["shop", "name", "state", "stream", "walked", "walked whole", "newest"];
        let budgets = ["account", "rule", "limit", "occupied", "pause s"];
        shows(&folder, &["state"], &[&streams, &budgets], width);
        says_all(&folder, &shop, width);
    }
}

/// The status and `check` show each of their texts whole.
#[track_caller]
fn says_all(folder: &Folder, shop: &str, width: u16) {
    let status = shown(folder, &["status"], width);
    let heads = ["shop", "name", "resource", "state", "last success", "last error"];
    has_columns(&status, &heads, &heads, width);
    assert!(status.code == Some(1) && status.text().contains(shop), "{}", status.text());
    let parts: Value = serde_json::from_str(&folder.run(&["status", "--json"]).expect(1).out).unwrap();
    for reason in parts["health"]["reasons"].as_array().unwrap() {
        has_text(&status, reason["text"].as_str().unwrap(), width);
        has_text(&status, reason["remedy"].as_str().unwrap(), width);
    }
    let check = shown(folder, &["check", "--offline"], width);
    let parts: Value = serde_json::from_str(&folder.run(&["check", "--offline", "--json"]).expect(0).out).unwrap();
    for finding in parts["checks"].as_array().unwrap() {
        has_text(&check, finding["subject"].as_str().unwrap(), width);
        has_text(&check, finding["text"].as_str().unwrap(), width);
    }
}

/// The text is there whole, over as many lines as it needs, and none of its words is cut.
#[track_caller]
fn has_text(shown: &Shown, text: &str, width: u16) {
    let of = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(of(&shown.text()).contains(&of(text)), "`{text}` at {width} columns:\n{}", shown.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_the_demo_have_every_column_at_any_width() {
    let folder = Folder::bare();
    let demo = ["demo", "--rows", "5"];
    let plain = folder.run(&demo).expect(0).out;
    let lines: Vec<&str> = plain.lines().collect();
    let rule = lines.iter().position(|line| line.starts_with("---")).unwrap();
    let heads: Vec<&str> = lines[rule - 1].split_whitespace().collect();
    let ids: Vec<&str> = lines[rule + 1..rule + 6].iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(heads.len() > 2 && ids.len() == 5, "{plain}");
    for width in WIDTHS {
        let shown = shown(&folder, &demo, width);
        // Rows that are blocks of lines are long: there are fewer.
        let rows = if shown.text().contains("shipment_id:") { 3 } else { 5 };
        let title = format!("The first {rows} rows of shipments");
        assert!(shown.code == Some(0) && shown.text().contains(&title), "{}", shown.text());
        has_columns(&shown, &heads, &heads, width);
        for id in &ids[..rows] {
            assert!(shown.text().contains(id), "{id} at {width} columns:\n{}", shown.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_a_row_is_one_whole_line() {
    let market = market().await;
    let (folder, shop) = registered(&market);
    let list = folder.run(&["shops", "list"]).expect(0).out;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(lines[2].starts_with(&shop) && lines[2].contains("A shop with quite a long name"), "{list}");
    assert!(!list.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_unless_wished_otherwise() {
    let market = market().await;
    let (mut folder, _) = registered(&market);
    let red = "\u{1b}[31m";
    let is_colored = |text: &str| text.contains("\u{1b}[3");
    market.sandbox.set_secret("first", "another").unwrap();
    let synced = shown(&folder, &["sync"], 160);
    assert!(synced.code == Some(1), "{}", synced.text());
    let list = shown(&folder, &["shops", "list"], 160);
    assert!(is_colored(&list.raw) && list.text().contains("refused"), "{:?}", list.raw);
    let check = shown(&folder, &["check"], 160);
    assert!(check.raw.contains(&format!("{red}FAIL")), "{:?}", check.raw);
    for arguments in [&["shops", "list", "--color", "never"][..], &["--color=never", "check"]] {
        assert!(!is_colored(&shown(&folder, arguments, 160).raw), "{arguments:?}");
    }
    assert!(is_colored(&folder.run(&["shops", "list", "--color", "always"]).expect(0).out));
    assert!(!is_colored(&folder.run(&["shops", "list"]).expect(0).out));
    folder.set("CLICOLOR_FORCE", "1");
    assert!(is_colored(&folder.run(&["shops", "list"]).expect(0).out));
    folder.set("NO_COLOR", "1");
    assert!(!is_colored(&folder.run(&["shops", "list"]).expect(0).out));
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_is_quiet_until_something_is_wrong() {
    let market = market().await;
    let (mut folder, shop) = registered(&market);
    let silent =
        |ended: crate::support::program::Ended| assert_eq!((ended.out, ended.err), (String::new(), String::new()));
    for _ in 0..2 {
        silent(folder.run(&["sync", "--quiet"]).expect(0));
    }
    silent(folder.run(&["sync", "--quiet", "--full"]).expect(0));
    silent(folder.run(&["verify", "--quiet"]).expect(0));
    let on_terminal = shown(&folder, &["sync", "--quiet"], 80);
    assert_eq!(on_terminal.raw, "");
    folder.set("WAYBILL_LIMITS_ATTEMPTS_MAX", "1");
    break_two(&market);
    let ended = folder.run(&["sync", "--quiet"]).expect(1);
    assert!(ended.out.is_empty() && ended.err.contains("2 pages or documents"), "{}", ended.err);
    let ended = folder.run(&["verify", "--quiet"]).expect(1);
    assert!(ended.out.is_empty() && ended.err.contains("shipments: 2 parked"), "{}", ended.err);
    // Nothing is missing that could be read: no --mend.
    assert!(!ended.err.contains("--mend") && ended.err.contains("/api/v1/parked"), "{}", ended.err);
    let list = FaultKind::Status { code: 403, body: FaultBody::Json, headers: Default::default() };
    market.sandbox.set_faults(vec![Fault::always("/retailer/shipments?", list)]);
    let ended = folder.run(&["sync", "--quiet", "--full"]).expect(1);
    assert!(ended.out.is_empty(), "{}", ended.out);
    assert!(
        ended.err.contains(&format!("A shop with quite a long name ({shop}), shipments: its last run failed: ")),
        "{}",
        ended.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_document_with_the_fields_of_the_api() {
    let market = market().await;
    let (folder, shop) = registered(&market);
    let read = |arguments: &[&str]| -> Value {
        let out = folder.run(arguments).expect(0).out;
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    };
    let sync = read(&["sync", "--json"]);
    assert_eq!(sync["items"].as_array().unwrap().len(), 2);
    let by_command = [
        (sync["items"][0].clone(), "/api/v1/runs"),
        (read(&["shops", "list", "--json"])["items"][0].clone(), "/api/v1/shops"),
        (read(&["keys", "create", "--name", "k", "--json"]), ""),
        (read(&["keys", "list", "--json"])["items"][0].clone(), "/api/v1/keys"),
        (read(&["verify", "--json"])["shops"][0].clone(), "/completeness"),
    ];
    assert_eq!(read(&["verify", "--json", "--quiet"])["complete"], true);
    let plan = read(&["plan", "--full", "--json"]);
    assert_eq!(
        (&plan["streams"][0]["shop_id"], &plan["streams"][0]["parameters"]),
        (&json!(shop), &json!({"fulfilment-method": "FBR"}))
    );
    assert_eq!(plan["budgets"][0]["rule"], "GET /retailer/shipments");
    assert_eq!(read(&["state", "--json"])["shops"][0]["id"], json!(shop));
    assert_eq!(read(&["preview", "shipments", "--rows", "2", "--json"])["rows"].as_array().unwrap().len(), 2);
    let check = read(&["check", "--json"]);
    assert!(
        check["ok"] == true && check["checks"].as_array().unwrap().iter().all(|check| check["level"] == "ok"),
        "{check}"
    );
    let paused = read(&["shops", "pause", &shop, "--json"]);
    assert_eq!((&paused["id"], &paused["state"]), (&json!(shop), &json!("paused")));
    let serving = folder.serve();
    for (value, path) in by_command {
        let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let there = match path {
            "" => continue,
            "/completeness" => serving.get(&format!("/api/v1/shops/{shop}/completeness")).await,
            path => serving.get(path).await["items"][0].clone(),
        };
        assert_eq!(fields(&value), fields(&there), "{path}");
    }
    let empty = Folder::bare();
    for arguments in [&["shops", "list"][..], &["keys", "list"], &["plan"], &["verify"], &["state"], &["check"]] {
        let out = empty.run(&[arguments, &["--json"]].concat()).expect(0).out;
        assert!(serde_json::from_str::<Value>(&out).is_ok(), "{arguments:?}: {out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_is_confirmed_on_a_terminal() {
    let market = market().await;
    let (folder, shop) = registered(&market);
    let purge = ["shops", "remove", &shop, "--purge"];
    for answer in ["n\n", "\n"] {
        let asked = terminal::run(folder.command(&purge), 80, answer);
        assert!(asked.code == Some(1) && asked.text().contains("nothing was removed"), "{}", asked.text());
        assert!(asked.text().contains(&shop) && asked.text().contains("[y/N]"), "{}", asked.text());
    }
    assert!(folder.run(&["shops", "list"]).expect(0).out.contains(&shop));
    let asked = terminal::run(folder.command(&purge), 80, "y\n");
    assert!(asked.code == Some(0) && asked.text().contains("its rows are deleted too"), "{}", asked.text());
    assert!(!folder.run(&["shops", "list"]).expect(0).out.contains(&shop));
    // A script is taken at its word, and so is --yes.
    let (folder, shop) = registered(&market);
    folder.run(&["shops", "remove", &shop, "--purge"]).expect(0);
    let (folder, shop) = registered(&market);
    let sure = terminal::run(folder.command(&["shops", "remove", &shop, "--purge", "--yes"]), 80, "");
    assert!(sure.code == Some(0) && !sure.text().contains("[y/N]"), "{}", sure.text());
}

/// The lines that are bars: the label, the bar, and what it says.
fn bars(shown: &Shown) -> Vec<&String> {
    shown.lines.iter().filter(|line| line.contains("] ") && line.contains(" [")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_fit_the_terminal_and_leave_no_frame_behind() {
    let market = market().await;
    market.sandbox.set_latency(std::time::Duration::from_millis(60));
    for (from, to) in [(60, 60), (80, 80), (160, 160), (160, 60), (60, 160)] {
        let (folder, _) = registered(&market);
        let synced = terminal::run_resized(folder.command(&["sync"]), (from, to), "");
        assert_eq!(synced.code, Some(0), "{}", synced.text());
        // One a stream, of the last state.
        let bars = bars(&synced);
        assert_eq!(bars.len(), 2, "{from} to {to}:\n{}", synced.text());
        assert!(bars.iter().all(|bar| bar.contains("FBR") || bar.contains("FBB")), "{bars:?}");
        assert!(bars.iter().all(|bar| bar.contains("done: ") && bar.contains("=]")), "{bars:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_has_a_red_bar_that_is_not_full() {
    let market = market().await;
    let (folder, _) = registered(&market);
    // The first walk of a new shop starts by itself, and one that fails at once would be followed by that of the pass.
    folder.run(&["sync", "--quiet"]).expect(0);
    let list = FaultKind::Status { code: 403, body: FaultBody::Json, headers: Default::default() };
    market.sandbox.set_faults(vec![Fault::always("/retailer/shipments?", list)]);
    let synced = shown(&folder, &["sync"], 80);
    let bars = bars(&synced);
    assert!(
        bars.len() == 2 && bars.iter().all(|bar| bar.contains("failed: ") && !bar.contains('=')),
        "{}",
        synced.text()
    );
    assert!(!bars[0].contains("0/0") && synced.raw.contains("\u{1b}[31m"), "{bars:?}");
}

#[test]
fn completions_and_man_pages_know_the_commands() {
    let folder = Folder::bare();
    for shell in ["bash", "zsh", "fish"] {
        let text = folder.run(&["generate", "completions", shell]).expect(0).out;
        assert!(["sync", "verify", "shops", "json"].iter().all(|word| text.contains(word)), "{shell}");
    }
    folder.run(&["generate", "man", "man/man1"]).expect(0);
    for (page, part) in [("waybill.1", "sync"), ("waybill-sync.1", "at\\-most"), ("waybill-shops-remove.1", "purge")] {
        let text = std::fs::read_to_string(folder.path("man/man1").join(page)).unwrap();
        assert!(text.contains(part), "{page}: {text}");
    }
    assert!(!folder.run(&["--help"]).expect(0).out.contains("generate"), "it is for packages");
    folder.run(&["generate", "man", "/dev/null/x"]).expect(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_for_the_secret_and_does_not_show_it() {
    let market = market().await;
    let folder = Folder::at(&market.base, "");
    let add = folder.command(&["shops", "add", "--name", "First shop", "--client-id", "first"]);
    let asks = "Client secret (it is not shown):";
    let answer = format!("{SECRET}\n");
    let shown = terminal::run_asked(add, 80, asks, &answer);
    assert!(shown.code == Some(0) && shown.text().contains(asks), "{}", shown.text());
    assert!(!shown.raw.contains(SECRET), "{}", shown.raw);
    let id = folder.run(&["shops", "list", "--json"]).expect(0).out;
    let shops: Value = serde_json::from_str(&id).unwrap();
    let id = shops["items"][0]["id"].as_str().unwrap().to_owned();
    let rotated = terminal::run_asked(folder.command(&["shops", "rotate", &id]), 80, asks, &answer);
    assert_eq!(rotated.code, Some(0), "{}", rotated.text());
    let nothing = terminal::run_asked(folder.command(&["shops", "rotate", &id]), 80, asks, "\n");
    assert!(nothing.code == Some(2) && nothing.text().contains("has no client secret"), "{}", nothing.text());
}
