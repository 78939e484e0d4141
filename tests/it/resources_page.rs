//! `docs/resources.md`: its walk-through works with the real binary, and its reference has every key.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/resources.md")).unwrap()
}

/// The fenced blocks under a heading: language and text.
fn blocks(document: &str, heading: &str) -> Vec<(String, String)> {
    let part = document.split_once(&format!("\n## {heading}\n")).unwrap().1;
    let part = part.split("\n## ").next().unwrap();
    let fenced = part.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_walk_through_works_as_written() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: no curl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A step that fails must not leave a server behind that holds our pipes.
    let mut script = String::from("set -eu -o pipefail\nset -m\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    let blocks = blocks(&document(), "A new resource in ten lines");
    assert_eq!(blocks.len(), 7, "{blocks:#?}");
    for (language, text) in &blocks {
        match language.as_str() {
            "toml" => writeln!(script, "cat >> waybill.toml <<'END'\n{text}END").unwrap(),
            "sh" => script.push_str(text),
            other => panic!("a block in {other}"),
        }
        if text.contains("waybill sandbox") {
            // A reader takes longer to the next block than it takes to start.
            script.push_str("curl -s --retry 60 --retry-delay 1 --retry-connrefused -o /dev/null http://127.0.0.1:8090/_sandbox/audit\n");
        }
        writeln!(script, "echo; echo '=== block'").unwrap();
    }
    script.push_str("kill %1 %2\nwait\n");
    let sandbox = free_port();
    let api = free_port();
    let script = script.replace("127.0.0.1:8090", &format!("127.0.0.1:{sandbox}"));
    let script = script.replace("127.0.0.1:8080", &format!("127.0.0.1:{api}"));
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_waybill"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let ours = std::env::vars_os().map(|(name, _)| name);
    let mut shell = Command::new("bash");
    // What the test itself is given is no configuration.
    for name in ours.filter(|name| name.to_string_lossy().starts_with("WAYBILL_")) {
        shell.env_remove(name);
    }
    let ran = shell
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("WAYBILL_HTTP_LISTEN", format!("127.0.0.1:{api}"))
        .env("WAYBILL_LOG_LEVEL", "warn")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let output = format!("{script}\n--- out\n{out}\n--- err\n{err}");
    let parts: Vec<&str> = out.split("=== block").collect();
    assert_eq!(parts.len(), 8, "{output}");
    assert!(parts[2].contains("ok    shop My shop: token") && parts[2].contains("done"), "{output}");
    let answer = |part: &str| -> serde_json::Value {
        let line = part.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{output}"));
        serde_json::from_str(line).unwrap()
    };
    assert!(parts[3].contains("[resource.sold]") && parts[3].contains("orderPlacedDateTime"), "{output}");
    let shown = answer(parts[4]);
    assert_eq!(shown["items"].as_array().map(Vec::len), Some(2), "{output}");
    assert!(shown["items"][0]["placed_at"].is_string() && shown["items"][0]["document"]["orderItems"].is_array());
    let sold = &answer(parts[6])["items"];
    let first = &shown["items"][0]["id"];
    assert!(sold.as_array().unwrap().iter().any(|order| order["id"] == *first), "{output}");
    assert!(ran.status.success() && !err.contains("panicked"), "{output}");
}

/// The keys of the tables of the reference.
#[test]
fn the_reference_has_every_key_of_the_reader() {
    let document = document();
    for (table, wrong) in [
        ("[resource.NAME]", ""),
        ("[resource.NAME.list]", ".list"),
        ("[resource.NAME.list.windows]", ".list.windows"),
        ("[resource.NAME.list.recent]", ".list.recent"),
        ("[resource.NAME.detail]", ".detail"),
        ("[resource.NAME.detail.refresh]", ".detail.refresh"),
        ("[resource.NAME.table]", ".table"),
    ] {
        let text = format!("[source.limits]\n[resource.things]\n[resource.things{wrong}]\nqqqqqqqq = 1");
        let text = if wrong.is_empty() { "[resource.things]\nqqqqqqqq = 1".to_owned() } else { text };
        let problems = crate::support::configuration::problems(&text);
        let problem = problems.iter().find_map(|problem| problem.split_once("qqqqqqqq: unknown key. Known here: "));
        let (_, known) = problem.unwrap_or_else(|| panic!("{table}: {problems:#?}"));
        let section = document.split_once(&format!("### `{table}`")).unwrap().1.split("\n### ").next().unwrap();
        for key in
            known.split(", ").filter(|key| !["list", "detail", "table", "windows", "recent", "refresh"].contains(key))
        {
            assert!(section.contains(&format!("`{key}`")), "{table}: `{key}` is not described");
        }
    }
}
