//! What documents hold beside what a definition takes of them, as it is counted and shown: by place and kind, never by
//! value.

use serde::{Deserialize, Serialize};

use crate::domain::Json;
use crate::domain::datetime::Written;
use crate::domain::json::{Part, Tolerance, Tolerated};

/// The kind of a time whose clock is not named.
pub const WITHOUT_OFFSET: &str = "time_without_offset";
/// What to do about one.
pub const WITHOUT_OFFSET_HINT: &str =
    "its times have no offset; say whose clock they are of, like zone = \"UTC\" or zone = \"Europe/Amsterdam\"";

/// One of [`KINDS`]. By another name, because serde would want to borrow it from what it reads.
pub(super) type KindName = &'static str;

/// A part of a document that no column has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// No column takes it.
    Unmapped {
        path: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
    /// The column that takes it is of another type.
    Misfit {
        table: String,
        column: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
    /// Was taken although strict readers refuse it, or readers differ about it.
    Tolerated {
        path: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
    /// The definition's own `time` is there, where no time can be read.
    Untimed {
        path: String,
        #[serde(deserialize_with = "known_kind")]
        kind: KindName,
    },
}

/// Of JSON values, and of what is tolerated in them.
const KINDS: [&str; 10] = [
    "null",
    "boolean",
    "number",
    "text",
    "array",
    "object",
    "half_surrogate",
    "duplicate_key",
    "byte_order_mark",
    WITHOUT_OFFSET,
];

fn known_kind<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<KindName, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = KINDS.into_iter().find(|kind| *kind == text);
    known.ok_or_else(|| serde::de::Error::custom("not a known kind"))
}

/// Longer keys are hardly names.
const NAME_CHARS_MAX: usize = 64;
/// Placeholder for keys that are no names.
const NO_NAME: &str = "{key}";

/// The kind of a JSON value, for people.
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

/// The kind of a value where a time was looked for and none can be read.
pub fn kind_for_time(value: &Json<'_>) -> &'static str {
    let lacks_offset = |text| Written::parse(text).is_some_and(|written| written.lacks_offset());
    if value.as_str().is_some_and(lacks_offset) { WITHOUT_OFFSET } else { kind(value) }
}

/// What was tolerated of a document or row, for people: never a value, nor a key that may be one.
pub fn tolerated(noted: Vec<Tolerated>) -> impl Iterator<Item = Left> {
    noted.into_iter().map(|Tolerated { what, path }| {
        let mut text = String::new();
        for part in &path {
            text.push('/');
            match part {
                Part::Member(key) => text.push_str(shown(key)),
                Part::Element => text.push('*'),
            }
        }
        let kind = match what {
            Tolerance::HalfSurrogate => "half_surrogate",
            Tolerance::DuplicateKey => "duplicate_key",
            Tolerance::ByteOrderMark => "byte_order_mark",
        };
        Left::Tolerated { path: text, kind }
    })
}

/// A key as it may be shown: as it is, or the placeholder for keys that may be data.
pub fn shown(key: &str) -> &str {
    if is_name(key) { key } else { NO_NAME }
}

/// A key that looks like a chosen name. Never one that must be escaped in a path.
pub(super) fn is_name(key: &str) -> bool {
    let mut letters = key.chars();
    letters.next().is_some_and(|first| first.is_alphabetic() || matches!(first, '_' | '$'))
        && letters.all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':' | '$'))
        && key.len() <= NAME_CHARS_MAX
}
