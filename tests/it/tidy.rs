//! The rules of the layout, kept by a machine: who may import whom, where words belong, how long a
//! file may be. A rule that is broken names the file and the line.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imports::{Room, in_circles};

#[path = "document_names.rs"]
mod document_names;
#[path = "imports.rs"]
mod imports;

const LINES_MAX: usize = 500;

/// A name, and the only places below `src` where it may stand.
const ONLY_IN: [(&str, &[&str]); 11] = [
    ("sled::", &["store/engine"]),
    ("reqwest::", &["source", "cli/server.rs"]),
    ("mysql_async::", &["sink/mysql"]),
    ("use nix::", &["gate/watchdog.rs"]),
    ("warp::", &["http"]),
    ("hyper::", &["http"]),
    ("hyper_util::", &["http"]),
    ("sandbox::", &["cli"]),
    ("std::env::", &["config", "main.rs", "cli", "sync/simulation", "store/record_forms.rs"]),
    ("tokio_cron_scheduler::", &["sync"]),
    ("process::exit", &["main.rs"]),
];

/// What a part may import of ours, beside itself. The arrows of the design.
const MAY_IMPORT: [(&str, &[&str]); 11] = [
    ("domain", &[]),
    ("catalog", &["domain"]),
    ("config", &["catalog", "domain"]),
    ("source", &["catalog", "domain"]),
    ("store", &["catalog", "domain"]),
    ("sync", &["source", "store", "catalog", "domain"]),
    ("sink", &["store", "catalog", "domain"]),
    ("service", &["sync", "sink", "source", "store", "catalog", "domain"]),
    ("http", &["service", "catalog", "domain"]),
    ("app", &["http", "service", "sync", "sink", "source", "store", "config", "catalog", "domain"]),
    ("cli", &["app", "http", "service", "source", "config", "catalog", "domain"]),
];

/// The layers of the store, from the bottom. A file imports from its own layer and from those below it; files beside the
/// layers are below all of them.
const STORE_LAYERS: [&str; 4] = ["engine", "tx", "records", "ops"];

/// Words of one marketplace, and the places that may know them.
const MARKET_WORDS: [&str; 5] = ["shipment", "fbr", "fbb", "bol.com", "bol_"];
const MARKET_PLACES: [&str; 3] = ["catalog", "cli/sandbox.rs", "sandbox"];

/// Where our programs are: `crates` has those that `src` depends on, each in a folder of its name.
const PROGRAMS: [&str; 2] = ["src", "crates"];

/// Words of a private language, for which the field has better ones; and how often they may be there in all.
const PRIVATE_WORDS: [&str; 12] = [
    "told",
    "tells",
    "mend",
    "mends",
    "mended",
    "nobody",
    "somebody",
    "stands",
    "anew",
    "of before",
    "comes to",
    "so many",
];
const PRIVATE_WORDS_MAX: usize = 40;

/// Names that say nothing.
const EMPTY_NAMES: [&str; 6] = ["manager", "helper", "util", "handler_", "process_", "do_"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of that ending below a folder, with their path in it and their text.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let top = root().join(folder);
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![top.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

/// The lines before the file's own tests, numbered from 1.
fn program(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line)).take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Whether a file is a place, or lies in it.
fn lies_in(file: &str, places: &[&str]) -> bool {
    places.iter().any(|place| file == *place || file.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')))
}

/// `store/queue.rs` and `store.rs` belong to `store`.
fn part(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// Whether the word begins in the line, and not in the middle of another.
fn begins(line: &str, word: &str) -> bool {
    let joins = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| line.get(..at).is_some_and(|before| !before.ends_with(joins)))
}

/// Gathers what is wrong in every line of the programs. A file is named by its path below `src` or `crates`.
fn offences(wrong: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for folder in PROGRAMS {
        for (file, text) in files(folder, ".rs") {
            for (number, line) in program(&text) {
                if let Some(what) = wrong(&file, line) {
                    found.push(format!("{folder}/{file}:{number}: {what}: {}", line.trim()));
                }
            }
        }
    }
    found
}

fn assert_none(offences: &[String]) {
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn outside_crates_stay_in_their_place() {
    assert_none(&offences(|file, line| {
        let stray = ONLY_IN.iter().find(|(name, places)| line.contains(name) && !lies_in(file, places));
        stray.filter(|_| !is_comment(line)).map(|(name, places)| format!("{name} belongs to {}", places.join(", ")))
    }));
}

#[test]
fn imports_point_one_way() {
    assert_none(&offences(|file, line| {
        let own = part(file);
        let (_, allowed) = MAY_IMPORT.iter().find(|(name, _)| *name == own)?;
        let rest = line.split("crate::").nth(1).filter(|_| !is_comment(line))?;
        if rest.starts_with('{') {
            return Some("one part a line, so that this test can read it".to_owned());
        }
        let imported = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
        let is_ours = MAY_IMPORT.iter().any(|(name, _)| *name == imported);
        (is_ours && imported != own && !allowed.contains(&imported)).then(|| format!("{own} may not know {imported}"))
    }));
}

#[test]
fn the_sandbox_knows_nothing_of_the_program_that_it_judges() {
    let manifest = fs::read_to_string(root().join("crates/sandbox/Cargo.toml")).unwrap();
    let is_ours = |line: &&str| line.contains("waybill") || line.contains("path =") || line.contains("path=");
    assert_eq!(manifest.lines().find(is_ours), None, "a dependency of crates/sandbox");
    assert_none(&offences(|file, line| {
        let is_named = part(file) == "sandbox" && !is_comment(line) && line.contains("waybill::");
        is_named.then(|| "the sandbox shares no code with waybill".to_owned())
    }));
}

#[test]
fn files_of_a_room_import_in_no_circle() {
    let rooms = MAY_IMPORT.iter().map(|(room, _)| *room);
    let circles = |folder: String, room: Option<&str>| -> Vec<String> {
        let found = in_circles(&Room::read(&folder, room).imports());
        found.into_iter().map(|one| format!("{folder}/{one}")).collect()
    };
    let mut found: Vec<String> = rooms.flat_map(|room| circles(format!("src/{room}"), Some(room))).collect();
    found.extend(circles("crates/sandbox/src".to_owned(), None));
    assert_none(&found);
}

fn store_layer(file: &str) -> usize {
    match STORE_LAYERS.iter().position(|layer| file.split('/').next() == Some(*layer)) {
        Some(at) => at + 1,
        None if file == "mod.rs" => STORE_LAYERS.len() + 1,
        None => 0,
    }
}

#[test]
fn files_of_the_store_import_downwards() {
    let mut found = Vec::new();
    for (file, imported) in &Room::read("src/store", Some("store")).imports() {
        let upwards = imported.iter().filter(|other| store_layer(other) > store_layer(file));
        found.extend(upwards.map(|other| format!("src/store/{file} is below {other} and imports it")));
        let is_sibling = |other: &&&str| file.starts_with("records/") && other.starts_with("records/");
        found.extend(
            imported.iter().filter(is_sibling).map(|other| format!("src/store/{file} imports its sibling {other}")),
        );
    }
    assert_none(&found);
}

#[test]
fn prefixes_of_keys_stand_in_the_table_of_keys_only() {
    let mut found = Vec::new();
    let room = Room::read("src/store", Some("store"));
    for (file, code) in room.modules.values().filter(|(file, _)| file != "keyspace.rs" && !file.starts_with("engine/"))
    {
        for line in code.lines() {
            let is_prefix = |(at, _): (usize, &str)| {
                let (before, rest) = line.split_at(at);
                let rest = rest.get(2..).unwrap_or_default();
                let letters = rest.chars().take_while(char::is_ascii_alphabetic).count();
                let is_closed = rest.get(letters..).is_some_and(|end| end.starts_with(['\'', '"']));
                before.ends_with(['(', '[', '&']) && (1..=2).contains(&letters) && is_closed
            };
            if line.match_indices("b'").chain(line.match_indices("b\"")).any(is_prefix) {
                found.push(format!("src/store/{file}: a prefix belongs to keyspace.rs: {}", line.trim()));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn each_prefix_of_keys_is_in_the_table_of_keys() {
    let text = fs::read_to_string(root().join("src/store/keyspace.rs")).unwrap();
    let (table, code): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| is_comment(line));
    let rows = table.iter().filter_map(|line| line.strip_prefix("//! | `")?.split_once('`'));
    let rows: BTreeSet<&str> = rows.map(|(prefix, _)| prefix).collect();
    let code = code.join("\n");
    let mut made = BTreeSet::from(["m"]);
    for quote in ["'", "\""] {
        for (at, begin) in code.match_indices(&format!("b{quote}")) {
            let literal = code.get(at + begin.len()..).unwrap_or_default().split(quote).next();
            made.extend(literal.filter(|literal| literal.chars().all(char::is_alphabetic)));
        }
    }
    // Parts within keys: the kind of a queue's jobs. Not a prefix of its own: what the two indexes of runs begin with.
    let parts = ["L", "U"];
    let missing: Vec<&str> = made.iter().copied().filter(|one| !rows.contains(one) && !parts.contains(one)).collect();
    let stale: Vec<&&str> = rows.difference(&made).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not in the table: {missing:?}; in no code: {stale:?}");
}

#[test]
fn the_engine_has_never_heard_of_a_marketplace() {
    assert_none(&offences(|file, line| {
        let lower = line.to_lowercase();
        let word = MARKET_WORDS.iter().find(|word| begins(&lower, word) && !lies_in(file, &MARKET_PLACES))?;
        Some(format!("`{word}` belongs to the catalog"))
    }));
}

/// How often a word is in a text, whole.
fn count(text: &str, word: &str) -> usize {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '_';
    let is_whole = |(at, _): &(usize, &str)| {
        let before = text.get(..*at).is_some_and(|before| before.ends_with(is_letter));
        let after = text.get(at + word.len()..).is_some_and(|after| after.starts_with(is_letter));
        !before && !after
    };
    text.match_indices(word).filter(is_whole).count()
}

#[test]
fn the_words_are_those_of_the_field() {
    let below = |folder: &str, endings: &[&str]| -> Vec<(String, String)> {
        let all = endings.iter().flat_map(|ending| files(folder, ending));
        all.map(|(file, text)| (format!("{folder}/{file}"), text)).collect()
    };
    let of_root = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Cargo.toml", "config.example.toml"];
    let mut texts: Vec<(String, String)> =
        of_root.map(|file| (file.to_owned(), fs::read_to_string(root().join(file)).unwrap())).into();
    texts.extend(below("src", &[".rs", ".toml", ".html", ".js", ".css"]));
    for (folder, ending) in [("crates", ".rs"), ("tests", ".rs"), ("docs", ".md"), ("sql", ".sql"), ("scripts", "")] {
        texts.extend(below(folder, &[ending]));
    }
    texts.retain(|(file, _)| file != "tests/it/tidy.rs");
    let of = |(file, text): &(String, String)| {
        let text = text.to_lowercase();
        let found: usize = PRIVATE_WORDS.iter().map(|word| count(&text, word)).sum();
        (found > 0).then(|| format!("{file}: {found}"))
    };
    let places: Vec<String> = texts.iter().filter_map(of).collect();
    let sum: usize = places.iter().filter_map(|place| place.rsplit_once(": ")?.1.parse::<usize>().ok()).sum();
    assert!(sum <= PRIVATE_WORDS_MAX, "{sum} private words, {PRIVATE_WORDS_MAX} are allowed:\n{}", places.join("\n"));
    assert_eq!(count("he told it, untold; told_at", "told"), 1);
    let is_private = |name: &str| name.split('_').any(|word| PRIVATE_WORDS.contains(&word));
    let names = texts.iter().flat_map(|(file, text)| {
        let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
        names.filter(|name| is_private(name)).map(move |name| format!("{file}: fn {name}: say it in plain words"))
    });
    assert_none(&names.collect::<Vec<_>>());
}

#[test]
fn names_say_something() {
    assert_none(&offences(|_, line| {
        let line = line.trim_start().trim_start_matches("pub ").trim_start_matches("async ");
        let name =
            ["fn ", "struct ", "enum ", "trait ", "mod ", "const "].iter().find_map(|kind| line.strip_prefix(kind))?;
        let name = name.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?.to_lowercase();
        let empty = EMPTY_NAMES
            .iter()
            .find(|empty| if empty.ends_with('_') { name.starts_with(*empty) } else { name.contains(*empty) })?;
        Some(format!("`{empty}` says nothing"))
    }));
}

/// The parameters of each function in a text, by its name.
fn parameters(code: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    for text in code.split("fn ").skip(1) {
        let (mut depth, mut begin, mut list) = (0, None, Vec::new());
        for (at, letter) in text.char_indices() {
            let is_arrow = letter == '>' && text.get(..at).is_some_and(|before| before.ends_with('-'));
            let is_split = matches!(letter, '(' | ',' | ')') && depth == usize::from(letter != '(');
            if is_split && let Some(begin) = begin {
                list.push(text.get(begin..at).unwrap_or_default().trim());
            }
            if is_split && (begin.is_some() || letter == '(') {
                begin = Some(at + 1);
            }
            match letter {
                '(' | '[' | '{' | '<' => depth += 1,
                ')' | ']' | '}' | '>' if !is_arrow => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && begin.is_some() || letter == ';' {
                break;
            }
        }
        let name = text.split(['(', '<']).next().unwrap_or_default();
        found.push((name, list));
    }
    found
}

#[test]
fn arguments_have_names_of_their_own() {
    let mut found = Vec::new();
    for (file, text) in files("src", ".rs") {
        let code: Vec<&str> = text.lines().filter(|line| !is_comment(line)).collect();
        for (name, parameters) in parameters(&code.join("\n")) {
            // A conversion takes what it converts.
            let is_tuple = |parameter: &&&str| parameter.starts_with('(') && **parameter != "(): ()" && name != "from";
            let tuples = parameters.iter().filter(is_tuple);
            found.extend(tuples.map(|tuple| format!("src/{file}: fn {name}: {tuple}: use a struct, or two arguments")));
        }
    }
    assert_none(&found);
    let code = "fn a(b: u8, (c, d): (u8, u8)) {} fn e<F: Fn(u8) -> u8>(self, f: &[(u8, u8)]) -> u8 {}";
    assert_eq!(parameters(code), [("a", vec!["b: u8", "(c, d): (u8, u8)"]), ("e", vec!["self", "f: &[(u8, u8)]"])]);
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "XXX", "unimplemented!", "todo!"];
    assert_none(&offences(|_, line| {
        marks.iter().find(|mark| begins(line, mark)).map(|mark| format!("{mark} belongs to the tracker"))
    }));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut found = Vec::new();
    for folder in ["src", "crates", "tests"] {
        for (file, text) in files(folder, ".rs") {
            let lines = text.lines().count();
            if lines > LINES_MAX {
                found.push(format!("{folder}/{file}: {lines} lines, {LINES_MAX} are allowed"));
            }
            let folder_of_module = root().join(folder).join(file.trim_end_matches(".rs"));
            if folder == "src" && folder_of_module.is_dir() {
                found.push(format!("src/{file}: a module with files of its own is a mod.rs in its folder"));
            }
            if !text.starts_with("//!") {
                found.push(format!("{folder}/{file}: does not begin with //! and what it is"));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn scripts_can_be_run_and_stop_at_the_first_error() {
    let named = fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path());
    let scripts = named.filter(|path| path.extension().is_none()).chain([root().join(".ci/run")]);
    let mut found = Vec::new();
    for path in scripts {
        let (text, mode) = (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode());
        if mode & 0o111 != 0o111 {
            found.push(format!("{}: cannot be run; chmod +x", path.display()));
        }
        if !text.starts_with("#!/usr/bin/env bash\n") || !text.contains("\nset -euo pipefail\n") {
            found.push(format!("{}: must begin as a bash script with set -euo pipefail", path.display()));
        }
    }
    assert_none(&found);
}

#[test]
fn faults_of_the_mutation_test_fit_their_sources() {
    let checked = Command::new(root().join("scripts/plant")).arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn commands_that_are_named_exist() {
    let read = |page: &str| (page.to_owned(), fs::read_to_string(root().join(page)).unwrap());
    let help = read("tests/it/golden/help.snap").1;
    // The help lists no command that only `scripts/install` needs.
    let exists = |command: &str| {
        help.contains(&format!("\nUsage: waybill {command} ")) || ["generate", "help"].contains(&command)
    };
    let pages = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "config.example.toml"].map(read).to_vec();
    let mut found = Vec::new();
    for (file, text) in [pages, files("docs", ".md"), files("examples", ".toml"), files("src", ".rs")].concat() {
        for (number, line) in program(&text) {
            for rest in line.split("`waybill ").skip(1) {
                let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && !" -".contains(letter));
                let mut words = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().split(' ');
                let command = words.next().unwrap_or_default();
                let inner =
                    words.next().filter(|_| help.contains(&format!("\nUsage: waybill {command} [OPTIONS] <COMMAND>")));
                let is_option = |word: &&str| word.is_empty() || word.starts_with('-');
                let named = inner.filter(|word| !is_option(word)).map(|inner| format!("{command} {inner}"));
                let named = named.unwrap_or_else(|| command.to_owned());
                if !is_option(&command) && !exists(&named) {
                    found.push(format!("{file}:{number}: there is no command `waybill {named}`"));
                }
            }
        }
    }
    assert_none(&found);
}

#[test]
fn the_rules_see_what_they_should() {
    assert!(begins("a shipment", "shipment") && begins("(bol_x)", "bol_"));
    assert!(!begins("a symbol_table", "bol_") && !begins("transshipment", "shipment"));
    assert!(lies_in("sink/mysql/write.rs", &["sink/mysql"]) && !lies_in("sink/mysqlx.rs", &["sink/mysql"]));
    assert_eq!(part("config/keys.rs"), "config");
}
