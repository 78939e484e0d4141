//! What other software depends on, held against files: the texts of `--help`, the OpenAPI document, the tables, the
//! names of metrics and of problems. A change that is meant is accepted with `INSTA_UPDATE=always`, and is part of the
//! CHANGELOG.
//!
//! The forms of stored records have a list of their own: `src/store/record_forms.txt`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use insta::{Settings, assert_snapshot};
use serde_json::Value;

use crate::support::CATALOG;
use crate::support::program::Folder;

fn golden() -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// The names below `Commands:` in a text of help.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The continuation of a text is indented further.
    let name = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(first_word);
    listed.filter_map(name).filter(|name| name != "help").collect()
}

fn first_word(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

fn help(folder: &Folder, path: &[String], texts: &mut String) {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = folder.run(&arguments).expect(0).out;
    texts.push_str(&format!("$ waybill {}\n{help}\n", arguments.join(" ")));
    for command in commands(&help) {
        self::help(folder, &[path, &[command]].concat(), texts);
    }
}

#[test]
fn the_texts_of_help_are_as_they_were() {
    let mut texts = String::new();
    help(&Folder::bare(), &[], &mut texts);
    assert!(texts.matches("Usage: waybill").count() > 15, "{texts}");
    golden().bind(|| assert_snapshot!("help", texts));
}

#[test]
fn the_tables_are_as_they_were() {
    let resources = format!("resources = {CATALOG:?}\n[mysql]\nurl = \"mysql://nowhere@127.0.0.1:9/none\"");
    let folder = Folder::bare();
    folder.write("waybill.toml", &resources);
    let tables = folder.run(&["schema", "print"]).expect(0).out;
    let views = folder.run(&["schema", "print", "--views"]).expect(0).out;
    golden().bind(|| assert_snapshot!("tables", format!("{tables}\n{views}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_is_as_it_was() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = Folder::at("http://127.0.0.1:9", "");
    let configuration = fs::read_to_string(folder.path("waybill.toml")).unwrap();
    folder.write("waybill.toml", &format!("resources = {CATALOG:?}\n{configuration}"));
    let serving = folder.serve();
    let document: Value = serving.get("/openapi.json").await;
    assert_eq!(serving.terminate().0, Some(0));
    golden().bind(|| assert_snapshot!("openapi", serde_json::to_string_pretty(&document).unwrap()));
}

/// All files of the program, as text.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
}

fn program() -> String {
    let mut found = Vec::new();
    sources(&PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
    found.concat()
}

/// The texts in quotes that begin so and go on with these letters alone.
fn quoted(text: &str, begin: &str, goes_on: impl Fn(char) -> bool) -> BTreeSet<String> {
    let begins = format!("\"{begin}");
    let after = text.split(&begins).skip(1);
    let name = |rest: &str| {
        let end = rest.find(|letter| !goes_on(letter))?;
        (end > 0 && rest.get(end..)?.starts_with('"'))
            .then(|| format!("{begin}{}", rest.get(..end).unwrap_or_default()))
    };
    after.filter_map(name).collect()
}

#[test]
fn the_names_of_metrics_and_tables_are_as_they_were() {
    let names = quoted(&program(), "waybill_", |letter| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
    });
    assert!(names.len() > 20, "{names:?}");
    golden().bind(|| assert_snapshot!("names", names.into_iter().collect::<Vec<_>>().join("\n")));
}

#[test]
fn the_types_of_problems_are_as_they_were() {
    let text = program();
    // `(404, "not-found", ` in the table of problems.
    let types: BTreeSet<String> = text
        .split('(')
        .filter_map(|rest| {
            let (status, rest) = rest.split_once(", \"")?;
            let (name, _) = rest.split_once("\", ")?;
            let is_status = status.len() == 3 && status.parse::<u16>().is_ok_and(|status| status >= 400);
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            (is_status && is_name).then(|| format!("{status} {name}"))
        })
        .collect();
    assert!(types.len() > 15, "{types:?}");
    golden().bind(|| assert_snapshot!("problems", types.into_iter().collect::<Vec<_>>().join("\n")));
}
