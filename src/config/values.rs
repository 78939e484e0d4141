//! Converts parsed TOML values to plain ones, for the `[resource.*]` tables.
//!
//! Called by [`super::settings`]. TOML allows integers of any length, plain values hold 64 bits: the keys of integers
//! that do not fit are returned, and everything else is still read.

use toml::Value;
use toml::de::{DeInteger, DeTable, DeValue};

/// A table as plain values, and the dotted keys under `path` whose integers are too large; those read as 0.
pub(super) fn plain(path: &str, table: &DeTable<'_>) -> (toml::Table, Vec<String>) {
    let mut too_large = Vec::new();
    (plain_table(path, table, &mut too_large), too_large)
}

/// An integer, if it fits 64 bits.
fn integer(digits: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(&digits.as_str().replace('_', ""), digits.radix()).ok()
}

fn plain_table(path: &str, table: &DeTable<'_>, too_large: &mut Vec<String>) -> toml::Table {
    let pairs = table.iter().map(|(key, value)| {
        let at = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        (key.get_ref().to_string(), plain_value(&at, value.get_ref(), too_large))
    });
    pairs.collect()
}

fn plain_value(path: &str, value: &DeValue<'_>, too_large: &mut Vec<String>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => Value::Integer(integer(digits).unwrap_or_else(|| {
            too_large.push(path.to_owned());
            0
        })),
        // The parser has checked that it is a number, `inf` or `nan`.
        DeValue::Float(digits) => Value::Float(digits.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| plain_value(path, item.get_ref(), too_large)).collect())
        }
        DeValue::Table(table) => Value::Table(plain_table(path, table, too_large)),
    }
}
