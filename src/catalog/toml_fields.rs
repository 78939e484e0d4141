//! Reads a TOML table of a definition key by key, collecting problems: missing, unknown and mistyped keys.
//!
//! Reading continues after a problem, so that all are reported at once. Called by the readers of definitions.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::{Table, Value};

use super::DefinitionProblem;
use crate::domain::parse_duration;

/// Collects the problems of one definition.
#[derive(Default)]
pub(super) struct ProblemCollector(RefCell<Vec<DefinitionProblem>>);

impl ProblemCollector {
    /// Adds a problem with a dotted key, unless it is already there.
    pub(super) fn add(&self, key: String, what: impl Display) {
        let problem = DefinitionProblem::new(key, what);
        let mut problems = self.0.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(super) fn into_inner(self) -> Vec<DefinitionProblem> {
        self.0.into_inner()
    }
}

/// Keys that are often written one table too high or too low, and the table they belong in.
const HOMES: [(&str, &str); 23] = [
    ("path", "list"),
    ("items", "list"),
    ("pages", "list"),
    ("parameters", "list"),
    ("order", "list"),
    ("unordered_when", "list"),
    ("overlap", "list"),
    ("changed_by", "list"),
    ("history", "list"),
    ("harmless", "list"),
    ("windows", "list"),
    ("recent", "list"),
    ("end", "list"),
    ("style", "list.pages"),
    ("total", "list.pages"),
    ("more", "list.pages"),
    ("document", "detail"),
    ("refresh", "detail"),
    ("columns", "table"),
    ("children", "table"),
    ("filters", "table"),
    ("search", "table"),
    ("indexes", "table"),
];

/// A table, its dotted key, and the keys read so far.
pub(super) struct TomlFields<'a> {
    at: String,
    table: &'a Table,
    asked: RefCell<Vec<&'static str>>,
    /// Missing required keys, each with a hint. Reported at the end, as the key may be there under a misspelt name.
    missing: RefCell<Vec<(&'static str, String)>>,
    pub(super) problems: &'a ProblemCollector,
}

impl<'a> TomlFields<'a> {
    pub(super) fn new(at: impl Into<String>, table: &'a Table, problems: &'a ProblemCollector) -> TomlFields<'a> {
        TomlFields { at: at.into(), table, asked: RefCell::default(), missing: RefCell::default(), problems }
    }

    /// The dotted key of one of its keys.
    pub(super) fn at(&self, key: &str) -> String {
        if key.is_empty() { self.at.clone() } else { format!("{}.{key}", self.at) }
    }

    pub(super) fn problem(&self, key: &str, what: impl Display) {
        self.problems.add(self.at(key), what);
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.table.get(key)
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) {
        self.problem(key, format!("must be {wanted}, not {}", kind(found)));
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Marks a key as required: [`TomlFields::end`] reports it if it is missing.
    pub(super) fn needed<T>(&self, key: &'static str, found: Option<T>, hint: &str) -> Option<T> {
        if found.is_none() && !self.has(key) {
            self.missing.borrow_mut().push((key, hint.to_owned()));
        }
        found
    }

    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.wrong(key, "a text", other);
                None
            }
        }
    }

    /// A text, or several.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.get(key).map(|value| self.texts_of(key, value))
    }

    /// Like [`TomlFields::texts`], but the list must not be empty.
    pub(super) fn some_texts(&self, key: &'static str) -> Option<Vec<String>> {
        let texts = self.texts(key)?;
        if matches!(self.table.get(key), Some(Value::Array(elements)) if elements.is_empty()) {
            self.problem(key, "is empty; name at least one");
        }
        Some(texts)
    }

    fn texts_of(&self, key: &str, value: &Value) -> Vec<String> {
        let elements = match value {
            Value::Array(elements) => elements.as_slice(),
            other => std::slice::from_ref(other),
        };
        let mut texts = Vec::with_capacity(elements.len());
        for element in elements {
            match element {
                Value::String(text) => texts.push(text.clone()),
                other => {
                    self.wrong(key, "a text or a list of texts", other);
                    // Counts as a value, so that it causes no further problem.
                    texts.push(other.to_string());
                }
            }
        }
        texts
    }

    pub(super) fn number(&self, key: &'static str) -> Option<u64> {
        match self.get(key)? {
            Value::Integer(number) if *number >= 0 => u64::try_from(*number).ok(),
            other => {
                self.wrong(key, "a whole number, 0 or more", other);
                None
            }
        }
    }

    /// A whole number, or several.
    pub(super) fn numbers(&self, key: &'static str) -> Option<Vec<u64>> {
        let value = self.get(key)?;
        let elements = match value {
            Value::Array(elements) => elements.as_slice(),
            other => std::slice::from_ref(other),
        };
        let number = |element: &Value| {
            let number = element.as_integer().and_then(|number| u64::try_from(number).ok());
            if number.is_none() {
                self.wrong(key, "a whole number or a list of whole numbers", element);
            }
            number
        };
        Some(elements.iter().filter_map(number).collect())
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        match self.get(key)? {
            Value::Boolean(flag) => Some(*flag),
            other => {
                self.wrong(key, "true or false", other);
                None
            }
        }
    }

    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        let text = self.text(key)?;
        let duration = parse_duration(&text);
        if duration.is_none() {
            let examples = "write it like \"90s\", \"15min\", \"24h\" or \"30d\"";
            self.problem(key, format!("`{text}` is not a duration; {examples}"));
        }
        duration
    }

    /// The name of a time zone.
    pub(super) fn zone(&self, key: &'static str) -> Option<TimeZone> {
        let name = self.text(key)?;
        let zone = TimeZone::get(&name).ok();
        if zone.is_none() {
            self.problem(key, format!("`{name}` is not a time zone; write it like \"UTC\" or \"Europe/Amsterdam\""));
        }
        zone
    }

    /// A JSON pointer; `may_be_empty` allows the empty one.
    pub(super) fn pointer(&self, key: &'static str, may_be_empty: bool) -> Option<String> {
        let pointer = self.text(key)?;
        self.is_pointer(key, &pointer, may_be_empty);
        Some(pointer)
    }

    pub(super) fn is_pointer(&self, key: &str, pointer: &str, may_be_empty: bool) {
        if !(pointer.starts_with('/') || pointer.is_empty() && may_be_empty) {
            self.problem(key, format!("`{pointer}` is not a JSON pointer; it must begin with /, like /order/orderId"));
        }
    }

    /// A JSON pointer to one value: without `*`.
    pub(super) fn pointer_to_one(&self, key: &'static str, may_be_empty: bool) -> Option<String> {
        let pointer = self.pointer(key, may_be_empty)?;
        self.is_to_one(key, &pointer);
        Some(pointer)
    }

    pub(super) fn is_to_one(&self, key: &str, pointer: &str) {
        if pointer.split('/').any(|token| token == "*") {
            let hint =
                "name one element (/items/0/ean, or /items/-1/ean for the last), or make a child table of the array";
            self.problem(key, format!("`{pointer}` selects many values, but `*` is not allowed here; {hint}"));
        }
    }

    /// A table under a key.
    pub(super) fn table(&self, key: &'static str) -> Option<TomlFields<'a>> {
        match self.get(key)? {
            Value::Table(table) => Some(TomlFields::new(self.at(key), table, self.problems)),
            other => {
                self.wrong(key, "a table", other);
                None
            }
        }
    }

    /// The entries of a table whose keys are free names.
    pub(super) fn named(&self, key: &'static str) -> Vec<(String, &'a Value)> {
        let Some(fields) = self.table(key) else { return Vec::new() };
        fields.table.iter().map(|(name, value)| (name.clone(), value)).collect()
    }

    /// Like [`TomlFields::named`], for tables. None: the value is not a table, which was reported.
    pub(super) fn named_tables(&self, key: &'static str) -> Vec<(String, Option<TomlFields<'a>>)> {
        let mut found = Vec::new();
        for (name, value) in self.named(key) {
            let at = format!("{key}.{name}");
            let inner = match value {
                Value::Table(table) => Some(TomlFields::new(self.at(&at), table, self.problems)),
                other => {
                    self.wrong(&at, "a table", other);
                    None
                }
            };
            found.push((name, inner));
        }
        found
    }

    /// Like [`TomlFields::named`], for texts or lists of texts.
    pub(super) fn named_texts(&self, key: &'static str) -> Vec<(String, Vec<String>)> {
        let texts = |(name, value): (String, &Value)| {
            let texts = self.texts_of(&format!("{key}.{name}"), value);
            (name, texts)
        };
        self.named(key).into_iter().map(texts).collect()
    }

    /// Reports unknown keys and missing required ones. Call it after all keys were read.
    pub(super) fn end(&self) {
        let known = self.asked.borrow();
        let mut meant = Vec::new();
        for key in self.table.keys().filter(|key| !known.contains(&key.as_str())) {
            let free = known.iter().copied().filter(|known| !self.has(known));
            let near = nearest(key, free);
            meant.extend(near);
            // A known key that is already set may come from the catalog.
            let near = near.or_else(|| nearest(key, known.iter().copied()));
            let home = self.home(key).map(|home| format!("in [{home}]"));
            self.problem(key, unknown_key(near, home, &known));
        }
        for (key, hint) in self.missing.borrow().iter().filter(|(key, _)| !meant.contains(key)) {
            self.problem("", format!("`{key}` is missing; {hint}"));
        }
    }

    /// The table in which a misplaced key belongs.
    fn home(&self, key: &str) -> Option<String> {
        let (_, section) = HOMES.iter().find(|(known, _)| *known == key)?;
        let name = self.at.strip_prefix("resource.")?.split('.').next()?;
        Some(format!("resource.{name}.{section}")).filter(|home| *home != self.at)
    }
}

/// The kind of a value, for messages.
fn kind(value: &Value) -> String {
    match value {
        Value::String(_) => "a text".to_owned(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// The known name most similar to a misspelt one, if any is similar enough.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = known.into_iter().map(|name| (strsim::osa_distance(wrong, name), name));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (wrong.chars().count() / 3).max(1) && distance < near.chars().count()).then_some(near)
}

/// The message for an unknown key: the similar known one, or the table where it belongs.
pub fn unknown_key(near: Option<&str>, home: Option<String>, known: &[&str]) -> String {
    let hint = match (near, home) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, Some(home)) => format!("; it belongs {home}."),
        (None, None) => ".".to_owned(),
    };
    format!("unknown key{hint} Known here: {}", known.join(", "))
}

/// `; did you mean `x`?` if a known name is similar; otherwise a full stop.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map_or_else(|| ".".to_owned(), |near| format!("; did you mean `{near}`?"))
}
