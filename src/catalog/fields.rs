//! A table of a definition, read key by key: what is missing, of the wrong kind or unknown is a problem with
//! its place, and reading goes on, so that one look shows all of them.
//!
//! Called by the readers of definitions.

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::{Table, Value};

/// The problems of one definition.
#[derive(Default)]
pub(super) struct Problems(RefCell<Vec<String>>);

impl Problems {
    /// `at` is the dotted key that it is about. What was told is not told again.
    pub(super) fn add(&self, at: &str, what: impl Display) {
        let problem = format!("{at}: {what}");
        let mut told = self.0.borrow_mut();
        if !told.contains(&problem) {
            told.push(problem);
        }
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// Keys that people write one table too high or too low, and the table of the resource that they belong to.
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

/// A table, the key it stands under, and the keys that were asked for.
pub(super) struct Fields<'a> {
    at: String,
    table: &'a Table,
    asked: RefCell<Vec<&'static str>>,
    /// What must be there and is not, with the mend. Told at the end, as it may be there under a misspelt key.
    missing: RefCell<Vec<(&'static str, String)>>,
    pub(super) problems: &'a Problems,
}

impl<'a> Fields<'a> {
    pub(super) fn new(at: impl Into<String>, table: &'a Table, problems: &'a Problems) -> Fields<'a> {
        Fields { at: at.into(), table, asked: RefCell::default(), missing: RefCell::default(), problems }
    }

    /// The dotted key of one of its keys.
    pub(super) fn at(&self, key: &str) -> String {
        if key.is_empty() { self.at.clone() } else { format!("{}.{key}", self.at) }
    }

    pub(super) fn problem(&self, key: &str, what: impl Display) {
        self.problems.add(&self.at(key), what);
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

    /// Whether the key is there, whatever it holds.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// What somebody must have written; [`Fields::end`] tells what was not.
    pub(super) fn needed<T>(&self, key: &'static str, found: Option<T>, mend: &str) -> Option<T> {
        if found.is_none() && !self.has(key) {
            self.missing.borrow_mut().push((key, mend.to_owned()));
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

    /// The same where none would mean nothing.
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
                    // It counts as a value, so that nothing else is told of it.
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
        let read = super::reader::parse_duration(&text);
        if read.is_none() {
            self.problem(key, format!("`{text}` is no duration; write it like \"90s\", \"15min\", \"24h\" or \"30d\""));
        }
        read
    }

    /// The name of a time zone.
    pub(super) fn zone(&self, key: &'static str) -> Option<TimeZone> {
        let name = self.text(key)?;
        let zone = TimeZone::get(&name).ok();
        if zone.is_none() {
            self.problem(key, format!("`{name}` is no time zone; write it like \"UTC\" or \"Europe/Amsterdam\""));
        }
        zone
    }

    /// A JSON pointer, or the empty one where that makes sense.
    pub(super) fn pointer(&self, key: &'static str, may_be_empty: bool) -> Option<String> {
        let pointer = self.text(key)?;
        self.is_pointer(key, &pointer, may_be_empty);
        Some(pointer)
    }

    pub(super) fn is_pointer(&self, key: &str, pointer: &str, may_be_empty: bool) {
        if !(pointer.starts_with('/') || pointer.is_empty() && may_be_empty) {
            self.problem(key, format!("`{pointer}` is no JSON pointer; it must begin with /, like /order/orderId"));
        }
    }

    /// A pointer to one value; `*` would be many.
    pub(super) fn pointer_to_one(&self, key: &'static str, may_be_empty: bool) -> Option<String> {
        let pointer = self.pointer(key, may_be_empty)?;
        self.is_to_one(key, &pointer);
        Some(pointer)
    }

    pub(super) fn is_to_one(&self, key: &str, pointer: &str) {
        if pointer.split('/').any(|token| token == "*") {
            let mend =
                "name one element (/items/0/ean, or /items/-1/ean for the last), or make a child table of the array";
            self.problem(key, format!("`{pointer}` would be many values: `*` has no meaning here; {mend}"));
        }
    }

    /// A table under a key.
    pub(super) fn table(&self, key: &'static str) -> Option<Fields<'a>> {
        match self.get(key)? {
            Value::Table(table) => Some(Fields::new(self.at(key), table, self.problems)),
            other => {
                self.wrong(key, "a table", other);
                None
            }
        }
    }

    /// A table whose keys are names that people chose; each with what stands under it.
    pub(super) fn named(&self, key: &'static str) -> Vec<(String, &'a Value)> {
        let Some(fields) = self.table(key) else { return Vec::new() };
        fields.table.iter().map(|(name, value)| (name.clone(), value)).collect()
    }

    /// The same where each is a table; none: it is not, and that was told.
    pub(super) fn named_tables(&self, key: &'static str) -> Vec<(String, Option<Fields<'a>>)> {
        let mut found = Vec::new();
        for (name, value) in self.named(key) {
            let at = format!("{key}.{name}");
            let inner = match value {
                Value::Table(table) => Some(Fields::new(self.at(&at), table, self.problems)),
                other => {
                    self.wrong(&at, "a table", other);
                    None
                }
            };
            found.push((name, inner));
        }
        found
    }

    /// The same where each is a text, or a list of texts.
    pub(super) fn named_texts(&self, key: &'static str) -> Vec<(String, Vec<String>)> {
        let texts = |(name, value): (String, &Value)| {
            let texts = self.texts_of(&format!("{key}.{name}"), value);
            (name, texts)
        };
        self.named(key).into_iter().map(texts).collect()
    }

    /// Whatever nobody asked for is a mistake, and so is what is not there.
    pub(super) fn end(&self) {
        let known = self.asked.borrow();
        let mut meant = Vec::new();
        for key in self.table.keys().filter(|key| !known.contains(&key.as_str())) {
            let free = known.iter().copied().filter(|known| !self.has(known));
            let near = nearest(key, free);
            meant.extend(near);
            // What is there may have come from the catalog.
            let near = near.or_else(|| nearest(key, known.iter().copied()));
            let home = self.home(key).map(|home| format!("in [{home}]"));
            self.problem(key, unknown_key(near, home, &known));
        }
        for (key, mend) in self.missing.borrow().iter().filter(|(key, _)| !meant.contains(key)) {
            self.problem("", format!("`{key}` is missing; {mend}"));
        }
    }

    /// The table that a key belongs to that stands here by mistake.
    fn home(&self, key: &str) -> Option<String> {
        let (_, section) = HOMES.iter().find(|(known, _)| *known == key)?;
        let name = self.at.strip_prefix("resource.")?.split('.').next()?;
        Some(format!("resource.{name}.{section}")).filter(|home| *home != self.at)
    }
}

/// What a value is, for people.
fn kind(value: &Value) -> String {
    match value {
        Value::String(_) => "a text".to_owned(),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// The name that one most likely meant; none when it resembles none.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = known.into_iter().map(|name| (strsim::osa_distance(wrong, name), name));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (wrong.chars().count() / 3).max(1) && distance < near.chars().count()).then_some(near)
}

/// What is told of an unknown key: the known one that it resembles, else where it belongs, if anywhere.
pub fn unknown_key(near: Option<&str>, home: Option<String>, known: &[&str]) -> String {
    let hint = match (near, home) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, Some(home)) => format!("; it belongs {home}."),
        (None, None) => ".".to_owned(),
    };
    format!("unknown key{hint} Known here: {}", known.join(", "))
}

/// `; did you mean `x`?`, when a known name resembles it; else the sentence just ends.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map_or_else(|| ".".to_owned(), |near| format!("; did you mean `{near}`?"))
}
