//! The merged shape of many JSON values, and the column type that holds them all.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::super::cell::fits;
use super::super::columns::ColumnKind;
use super::super::field_drift::{WITHOUT_OFFSET, kind_for_time};
use crate::domain::Json;

/// An object with more members than this is a map, not a record.
const MEMBERS_MAX: usize = 100;
/// Length of text columns, unless all values are codes; longer values become free text.
const LENGTH: usize = 255;
/// Lengths of columns of codes.
const CODE_LENGTHS: [usize; 3] = [32, 64, 128];
/// Factor for the length: later values may be longer than those of the sample.
const GENEROSITY: usize = 2;
/// Types for numbers with a fraction, or with more digits than an integer holds; the first that holds all is used.
const DECIMALS: [ColumnKind; 3] = [
    ColumnKind::Decimal { digits: 14, scale: 4 },
    ColumnKind::Decimal { digits: 30, scale: 10 },
    ColumnKind::Decimal { digits: 60, scale: 30 },
];

/// The values seen at one place.
#[derive(Clone, Debug, Default)]
pub(in crate::catalog) struct Shape {
    texts: usize,
    /// Of them, those that look like an id or a word of an enumeration, not like a name or a sentence.
    codes: usize,
    datetimes: usize,
    /// Of them, those without an offset.
    unzoned: usize,
    dates: usize,
    /// Length of the longest text or number.
    chars: usize,
    numbers: usize,
    integers: usize,
    /// How many numbers each of [`DECIMALS`] holds.
    decimals: [usize; DECIMALS.len()],
    flags: usize,
    pub(super) objects: usize,
    arrays: usize,
    pub(super) members: BTreeMap<String, Shape>,
    pub(super) elements: Option<Box<Shape>>,
}

/// What a place becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::catalog) enum Form {
    /// It never had a value: left out.
    Nothing,
    /// A column of this type.
    Value(String),
    /// Its members are columns of the same table.
    Object,
    /// A child table.
    Array,
}

impl Shape {
    pub(super) fn of<'a, 'b: 'a>(values: impl IntoIterator<Item = &'a Json<'b>>) -> Shape {
        let mut shape = Shape::default();
        values.into_iter().for_each(|value| shape.add(value));
        shape
    }

    pub(in crate::catalog) fn add(&mut self, value: &Json<'_>) {
        let count = |kind| usize::from(fits(kind, Some(&TimeZone::UTC), value));
        match value {
            Json::Null => {}
            Json::Bool(_) => self.flags += 1,
            Json::Number(number) => {
                self.numbers += 1;
                self.integers += count(ColumnKind::Integer);
                DECIMALS.iter().zip(&mut self.decimals).for_each(|(kind, decimals)| *decimals += count(*kind));
                self.chars = self.chars.max(number.digits().len());
            }
            Json::Text(text) => {
                self.texts += 1;
                self.codes += usize::from(is_code(text));
                self.datetimes += count(ColumnKind::Datetime);
                self.unzoned += usize::from(kind_for_time(value) == WITHOUT_OFFSET);
                // A date column would also accept a datetime.
                self.dates += if text.len() == "2026-11-25".len() { count(ColumnKind::Date) } else { 0 };
                self.chars = self.chars.max(text.chars().count());
            }
            Json::Array(elements) => {
                self.arrays += 1;
                let shape = self.elements.get_or_insert_default();
                elements.iter().for_each(|element| shape.add(element));
            }
            Json::Object(members) => {
                self.objects += 1;
                for (name, value) in members {
                    self.members.entry(name.clone().into_owned()).or_default().add(value);
                }
            }
        }
    }

    pub(in crate::catalog) fn form(&self) -> Form {
        let scalars = self.texts + self.numbers + self.flags;
        match (scalars > 0, self.objects > 0, self.arrays > 0) {
            (false, false, false) => Form::Nothing,
            (true, false, false) => Form::Value(self.scalar()),
            (false, true, false) if (1..=MEMBERS_MAX).contains(&self.members.len()) => Form::Object,
            (false, false, true) => Form::Array,
            _ => Form::Value("json".to_owned()),
        }
    }

    /// The type that holds all the scalars.
    fn scalar(&self) -> String {
        let text = || {
            let wanted = self.chars.saturating_mul(GENEROSITY);
            let lengths = if self.codes == self.texts { CODE_LENGTHS.as_slice() } else { &[] };
            let length = lengths.iter().chain([&LENGTH]).find(|length| **length >= wanted);
            length.map_or_else(|| "text".to_owned(), |length| format!("text({length})"))
        };
        match (self.texts > 0, self.numbers > 0, self.flags > 0) {
            (false, false, _) => "boolean".to_owned(),
            (_, _, true) => "json".to_owned(),
            (true, false, _) if self.datetimes == self.texts => "datetime".to_owned(),
            (true, false, _) if self.dates == self.texts => "date".to_owned(),
            (false, _, _) if self.integers == self.numbers => "integer".to_owned(),
            (false, _, _) => {
                let mut decimals = DECIMALS.iter().zip(self.decimals);
                let decimal = decimals.find(|(_, decimals)| *decimals == self.numbers);
                decimal.map_or_else(text, |(kind, _)| kind.to_string())
            }
            _ => text(),
        }
    }

    /// Whether a datetime without an offset was seen here or below.
    pub(super) fn is_unzoned(&self) -> bool {
        let is_datetime = matches!(self.form(), Form::Value(kind) if kind == "datetime");
        let mut below = self.members.values().chain(self.elements.as_deref());
        is_datetime && self.unzoned > 0 || below.any(Shape::is_unzoned)
    }

    /// Whether every object seen has this member as a text or whole number.
    pub(super) fn is_in_all(&self, member: &str) -> bool {
        let found = self.members.get(member).map_or(0, |shape| shape.texts + shape.integers);
        self.objects > 0 && found >= self.objects
    }
}

/// Whether a text looks like an id or a word of an enumeration: `FBR`, `A2K81000H`, `07dfa475-3387`, `0000344883475`.
/// Anything with a lower-case word in it may be a name, of which a sample does not show the longest.
fn is_code(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'));
    let has_digit = || text.bytes().any(|byte| byte.is_ascii_digit());
    let has_lower_case = || text.bytes().any(|byte| byte.is_ascii_lowercase());
    is_plain && !text.is_empty() && (!has_lower_case() || text.len() >= 8 && has_digit())
}

#[cfg(test)]
mod tests {
    use super::{Form, Shape};
    use crate::domain::Json;

    fn kind(texts: &[&str]) -> String {
        let values: Vec<Json<'_>> = texts.iter().map(|text| Json::Text((*text).into())).collect();
        let Form::Value(kind) = Shape::of(&values).form() else { panic!("no column for {texts:?}") };
        kind
    }

    #[test]
    fn only_ids_and_enumerated_words_get_narrow_columns() {
        for (texts, expected) in [
            (["FBR", "FBB"], "text(32)"),
            (["4123456880", "A2K81000H"], "text(32)"),
            (["07dfa475-3387-4d43-8a64-0abda06359ef", "17dfa475-3387-4d43-8a64-0abda06359ef"], "text(128)"),
            // Later names are longer than those of a sample.
            (["Anne", "Bo"], "text(255)"),
            (["MALE", "not known"], "text(255)"),
            (["", "fr"], "text(255)"),
        ] {
            assert_eq!(kind(&texts), expected, "{texts:?}");
        }
        let long = "a sentence ".repeat(20);
        assert_eq!(kind(&[&long]), "text", "free text");
    }
}
