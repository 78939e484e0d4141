//! Field drift: how documents deviate from their definition, by place and kind, never by value.

use serde::{Deserialize, Serialize};

use crate::domain::Json;
use crate::domain::datetime::Written;
use crate::domain::json::{PathPart, Tolerance, Tolerated};

/// The kind of a time without an offset, when no zone is configured.
pub const WITHOUT_OFFSET: &str = "time_without_offset";
/// The fix for it.
pub const WITHOUT_OFFSET_HINT: &str =
    "its times have no offset; name their time zone, like zone = \"UTC\" or zone = \"Europe/Amsterdam\"";

/// A kind of JSON values, the name of a [`Tolerance`], or [`WITHOUT_OFFSET`]. An alias, because serde would try to borrow
/// a `&'static str` from its input.
pub(super) type KindName = &'static str;

/// One way in which a document deviates from its definition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldDrift {
    /// No column takes the value.
    Unmapped {
        path: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
    /// The value does not fit the type of its column.
    #[serde(rename = "misfit")]
    TypeMismatch {
        table: String,
        column: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
    /// Accepted although a strict JSON parser refuses it, or parsers disagree about it.
    Tolerated {
        path: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
    /// The value at the definition's `time` pointer is not a time.
    Untimed {
        path: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
}

const VALUE_KINDS: [&str; 6] = ["null", "boolean", "number", "text", "array", "object"];

fn known_kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<KindName, D::Error> {
    let text = String::deserialize(deserializer)?;
    let tolerances = Tolerance::ALL.iter().map(|what| what.name());
    let known = VALUE_KINDS.into_iter().chain(tolerances).chain([WITHOUT_OFFSET]).find(|kind| *kind == text);
    known.ok_or_else(|| serde::de::Error::custom("not a known kind"))
}

/// Longer keys are treated as data, not as names.
const NAME_CHARS_MAX: usize = 64;
/// Placeholder for keys that may be data.
const NO_NAME: &str = "{key}";

/// The kind of a JSON value.
pub fn kind(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::Text(_) => "text",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

/// The kind of a value that should be a time but is not.
pub fn kind_for_time(value: &Json<'_>) -> &'static str {
    let lacks_offset = |text| Written::parse(text).is_some_and(|written| written.lacks_offset());
    if value.as_str().is_some_and(lacks_offset) { WITHOUT_OFFSET } else { kind(value) }
}

/// What was tolerated in a document or row. Never contains a value, nor a key that may be data.
pub fn tolerated(noted: Vec<Tolerated>) -> impl Iterator<Item = FieldDrift> {
    noted.into_iter().map(|Tolerated { what, path }| {
        let mut text = String::new();
        for part in &path {
            text.push('/');
            match part {
                PathPart::Member(key) => text.push_str(shown(key)),
                PathPart::Element => text.push('*'),
            }
        }
        FieldDrift::Tolerated { path: text, kind: what.name() }
    })
}

/// A key as it may be shown: itself, or a placeholder if it may be data.
pub fn shown(key: &str) -> &str {
    if is_name(key) { key } else { NO_NAME }
}

/// Whether a key looks like a name. Such keys never need escaping in a pointer.
pub(super) fn is_name(key: &str) -> bool {
    let mut letters = key.chars();
    letters.next().is_some_and(|first| first.is_alphabetic() || matches!(first, '_' | '$'))
        && letters.all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '$'))
        && key.len() <= NAME_CHARS_MAX
}
