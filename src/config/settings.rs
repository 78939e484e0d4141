//! Reads file and environment into plain settings, each with the place it came from.
//!
//! Only the form is checked here: unknown names, wrong types, broken TOML. Reading continues after a problem, so that
//! all are reported at once (serde would stop at the first).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Kind, PREFIX, VARIABLES_ONLY, variable};
use super::problem::ConfigProblem;
use super::raw::{Raw, from_file, from_variable};
use super::values;
use crate::catalog::{self, did_you_mean, nearest, unknown_key};

/// Cap on reported TOML syntax errors; most follow from the first.
const SYNTAX_PROBLEMS_MAX: usize = 5;

struct Setting {
    raw: Raw,
    place: String,
    line: Option<usize>,
}

/// The line of each key of a file. `Debug` hides them: they are not part of the configuration.
#[derive(Clone, Default)]
pub(crate) struct KeyLines(BTreeMap<String, usize>);

impl KeyLines {
    /// The line of a dotted key, or of the nearest enclosing table in the file.
    pub(super) fn of(&self, key: &str) -> Option<usize> {
        let around = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(outer, _)| outer));
        around.filter_map(|key| self.0.get(key).copied()).next()
    }
}

impl fmt::Debug for KeyLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLines")
    }
}

/// All values that were set, by key. The environment overrides the file.
#[derive(Default)]
pub(super) struct Settings {
    file: String,
    /// The file that was read; empty: none.
    pub(super) path: PathBuf,
    /// Base of relative paths in the file.
    pub(super) folder: PathBuf,
    /// The user's home folder.
    pub(super) home: Option<String>,
    values: BTreeMap<&'static str, Setting>,
    /// Line of each key of the file, `[resource.*]` and limits included.
    pub(super) lines: KeyLines,
    /// The `[resource.*]` tables, unchecked.
    pub(super) resources: toml::Table,
    pub(super) problems: Vec<ConfigProblem>,
    /// Other users can read a secret in the file, and this user can close it.
    pub(super) exposed: Option<ConfigProblem>,
}

impl Settings {
    /// Reads the file's bytes. `file` is its name in messages.
    pub(super) fn read_file(&mut self, file: &str, bytes: &[u8]) {
        self.file = file.to_owned();
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let what = "contains characters that are not UTF-8; save the file as UTF-8".to_owned();
                self.problems.push(self.at_line(line, what));
                return;
            }
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors {
                let line = line_of(text, &error.span().unwrap_or(0..0));
                // Only the message: the full form quotes the line, which may contain a password.
                let problem = self.at_line(line, format!("not TOML: {}", error.message().replace('\n', ", ")));
                // One mistake may be reported many times.
                if !self.problems.contains(&problem) && self.problems.len() < SYNTAX_PROBLEMS_MAX {
                    self.problems.push(problem);
                }
            }
            return;
        }
        self.note_lines(text, "", document.get_ref());
        self.walk("", document.get_ref());
        if let Some(DeValue::Table(resources)) = document.get_ref().get("resource").map(toml::Spanned::get_ref) {
            let (resources, too_large) = values::plain("resource", resources);
            self.resources = resources;
            let what = "is too large a number; the maximum is 9223372036854775807";
            too_large.iter().for_each(|key| self.unfit(key, what));
        }
    }

    /// Reads the variables that begin with `WAYBILL_`. An empty one counts as unset.
    pub(super) fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        self.home = environment.get("HOME").cloned();
        let known: BTreeMap<String, (&'static str, Kind)> =
            KEYS.iter().map(|(key, kind)| (variable(key), (*key, *kind))).collect();
        let ours = environment.iter().filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty());
        for (name, value) in ours {
            // Test rigs set these for themselves and their children.
            if VARIABLES_ONLY.contains(&name.as_str()) || name.starts_with("WAYBILL_TEST_") {
                continue;
            }
            let Some((key, kind)) = known.get(name) else {
                let all = known.keys().map(String::as_str).chain(VARIABLES_ONLY);
                self.problem(name.clone(), format!("there is no such variable{}", did_you_mean(name, all)));
                continue;
            };
            match from_variable(*kind, value) {
                Ok(raw) => {
                    self.values.insert(key, Setting { raw, place: name.clone(), line: None });
                }
                Err(what) => self.problem(name.clone(), what),
            }
        }
    }

    pub(super) fn problem(&mut self, place: String, what: String) {
        self.problems.push(ConfigProblem { place, line: None, what });
    }

    /// All problems: those of the file in line order, then the others.
    pub(super) fn sorted_problems(mut self) -> Vec<ConfigProblem> {
        self.problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        self.problems
    }

    /// Adds a problem with the value of a key, at the place the value came from.
    pub(super) fn problem_at(&mut self, key: &str, what: impl fmt::Display) {
        let problem = self.problem_with(key, what);
        self.problems.push(problem);
    }

    /// The same problem, without adding it.
    pub(super) fn problem_with(&self, key: &str, what: impl fmt::Display) -> ConfigProblem {
        match self.values.get(key) {
            Some(setting) => {
                let what = if from_environment(setting) { what.to_string() } else { format!("{key}: {what}") };
                ConfigProblem { place: setting.place.clone(), line: setting.line, what }
            }
            None => self.placed(key, format!("{key}: {what}")),
        }
    }

    /// Adds a problem of the catalog.
    pub(super) fn catalog_problem(&mut self, problem: catalog::DefinitionProblem) {
        let catalog::DefinitionProblem { key, what } = problem;
        let Some(pattern) = key.strip_prefix("source.limits.") else { return self.problem_at(&key, what) };
        // A pattern has spaces and slashes, so it is a quoted key.
        if self.is_from_environment("source.limits") {
            self.problem_at("source.limits", format!("\"{pattern}\": {what}"));
        } else {
            let problem = self.placed(&key, format!("source.limits.\"{pattern}\": {what}"));
            self.problems.push(problem);
        }
    }

    /// Places a problem at the line of the key, or of the nearest enclosing table in the file.
    fn placed(&self, key: &str, what: String) -> ConfigProblem {
        match self.lines.of(key) {
            Some(line) => self.at_line(line, what),
            None => ConfigProblem { place: "built-in".to_owned(), line: None, what },
        }
    }

    fn at_line(&self, line: usize, what: String) -> ConfigProblem {
        ConfigProblem { place: format!("{}:{line}", self.file), line: Some(line), what }
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn is_from_environment(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(from_environment)
    }

    pub(super) fn text(&self, key: &str, default: &str) -> String {
        match self.values.get(key).map(|setting| &setting.raw) {
            Some(Raw::Text(text)) => text.clone(),
            _ => default.to_owned(),
        }
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        match self.values.get(key).map(|setting| &setting.raw) {
            Some(Raw::Flag(flag)) => *flag,
            _ => default,
        }
    }

    pub(super) fn number(&self, key: &str, default: u64) -> u64 {
        match self.values.get(key).map(|setting| &setting.raw) {
            Some(Raw::Number(number)) => *number,
            _ => default,
        }
    }

    /// A text that `read` accepts; what it refuses is a problem.
    pub(super) fn parsed<T>(
        &mut self,
        key: &str,
        default: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = read(&self.text(key, default));
        value.map_err(|what| self.problem_at(key, what)).ok()
    }

    /// A number, if it is within bounds; otherwise that is a problem.
    pub(super) fn bounded(&mut self, key: &str, default: u64, bounds: RangeInclusive<u64>) -> Option<u64> {
        let number = self.number(key, default);
        if bounds.contains(&number) {
            return Some(number);
        }
        self.problem_at(key, format!("{number} is out of range; use {} to {}", bounds.start(), bounds.end()));
        None
    }

    pub(super) fn list(&self, key: &str, default: &[&str]) -> Vec<String> {
        match self.values.get(key).map(|setting| &setting.raw) {
            Some(Raw::List(list)) => list.clone(),
            _ => default.iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn map(&self, key: &str) -> BTreeMap<String, String> {
        match self.values.get(key).map(|setting| &setting.raw) {
            Some(Raw::Map(map)) => map.clone(),
            _ => BTreeMap::new(),
        }
    }

    fn note_lines(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            self.lines.0.insert(path.clone(), line_of(text, &key.span()));
            if let DeValue::Table(inner) = value.get_ref() {
                self.note_lines(text, &path, inner);
            }
        }
    }

    fn walk(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            let found = KEYS.iter().find(|(known, _)| *known == path);
            let is_section = KEYS.iter().any(|(known, _)| known.starts_with(&format!("{path}."))) || path == "resource";
            match (found, value.get_ref()) {
                (Some((key, kind)), value) => match from_file(*kind, value) {
                    Ok(raw) => {
                        let ConfigProblem { place, line, .. } = self.placed(&path, String::new());
                        self.values.insert(key, Setting { raw, place, line });
                    }
                    Err(_) if path == "resources" && matches!(value, DeValue::Table(_)) => {
                        self.unfit(&path, "is the list of resources to sync; a definition goes under [resource.NAME]");
                    }
                    Err(what) => self.unfit(&path, &format!("{what}{}", example(&path, value))),
                },
                (None, DeValue::Table(_)) if path == "resource" => {}
                (None, DeValue::Table(inner)) if is_section => self.walk(&path, inner),
                (None, _) if path == "resource" => {
                    self.unfit(&path, "is a section, [resource.NAME]; to choose what to sync, use `resources`");
                }
                (None, _) if is_section => self.unfit(&path, &format!("is a section; write it as [{path}]")),
                (None, _) => self.unknown(prefix, &path, key.get_ref()),
            }
        }
    }

    fn unfit(&mut self, path: &str, what: &str) {
        let problem = self.placed(path, format!("{path}: {what}"));
        self.problems.push(problem);
    }

    fn unknown(&mut self, prefix: &str, path: &str, name: &str) {
        let dot = if prefix.is_empty() { String::new() } else { format!("{prefix}.") };
        let mut known: Vec<&str> = KEYS
            .iter()
            .filter_map(|(key, _)| key.strip_prefix(&dot))
            .map(|rest| rest.split_once('.').map_or(rest, |(section, _)| section))
            .collect();
        if prefix.is_empty() {
            known.push("resource");
        }
        known.dedup();
        let home = home(name).map(|section| match section {
            "" => "at the top of the file, before the first [section]".to_owned(),
            section => format!("in [{section}]"),
        });
        let what = unknown_key(nearest(name, known.iter().copied()), home, &known);
        // If key and value were swapped, the key may contain a password.
        let shown = if name.contains('@') { prefix } else { path };
        self.unfit(shown, &what);
    }
}

/// How to write a bare number as the text that a key needs; empty: the message says enough.
fn example(key: &str, value: &DeValue<'_>) -> String {
    let DeValue::Integer(digits) = value else { return String::new() };
    let digits = digits.as_str();
    match key {
        "limits.drain" => format!("; write it like \"{digits}s\""),
        "alerts.stale_after" => format!("; write it like \"{digits}h\""),
        "http.listen" | "http.metrics_listen" => format!("; write it like \"127.0.0.1:{digits}\""),
        "schedule.sync" | "schedule.reconcile" => "; write it like \"0 */15 * * * *\" (seconds first)".to_owned(),
        _ => String::new(),
    }
}

/// The section of a key (empty: the top of the file); None: no section has it, or more than one.
fn home(name: &str) -> Option<&'static str> {
    let mut homes = KEYS.iter().filter_map(|(key, _)| match key.rsplit_once('.') {
        Some((section, last)) => (last == name).then_some(section),
        None => (*key == name).then_some(""),
    });
    homes.next().filter(|_| homes.next().is_none())
}

fn from_environment(setting: &Setting) -> bool {
    setting.place.starts_with(PREFIX)
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::{KEYS, variable};

    #[test]
    fn every_key_is_in_the_example_and_has_its_own_variable() {
        let example = include_str!("../../config.example.toml");
        let mut variables: Vec<String> = KEYS.iter().map(|(key, _)| variable(key)).collect();
        for (key, _) in KEYS {
            let name = key.rsplit('.').next().unwrap();
            let found = example.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{name} = ")) || line == format!("[{key}]")
            });
            assert!(found, "{key} is not in config.example.toml");
        }
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), KEYS.len());
    }
}
