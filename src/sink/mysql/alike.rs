//! Compares a column's value with the value in the document. Pure.
//!
//! The column may have another type than was asked for, as long as it holds as much; and MySQL normalises JSON (sorted
//! keys, numbers as 64-bit floats, so `1.50` becomes `1.5`). Neither counts as a difference.

use std::cmp::Ordering;

use mysql_async::Value;
use serde_json::Value as Tree;

use crate::catalog::definition::ColumnKind;
use crate::catalog::extract::Cell;

use super::value::cell_value;

/// Whether the server's value of a column equals the document's cell.
pub(super) fn alike(cell: &Cell, kind: ColumnKind, there: &Value) -> bool {
    let asked = cell_value(cell.clone(), kind);
    match (cell, there) {
        (Cell::Null, _) => *there == Value::NULL,
        (_, Value::NULL) => false,
        (Cell::Datetime(text) | Cell::Date(text), Value::Date(..)) => same_time(text, there),
        (Cell::Json(text), Value::Bytes(bytes)) => text.as_bytes() == bytes || same_json(text, bytes),
        _ => match (text(&asked), text(there)) {
            (Some(asked), Some(there)) => asked == there || same_number(&asked, &there),
            _ => false,
        },
    }
}

/// The text of a value; CHAR columns drop trailing spaces.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(|text| text.trim_end_matches(' ').to_owned()),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Accepts `2026-11-22` and `2026-11-22 10:00:00.000000` as the server sends them.
fn same_time(text: &str, there: &Value) -> bool {
    let Value::Date(year, month, day, hour, minute, second, micros) = *there else { return false };
    let there = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}");
    there == text || there.strip_suffix(" 00:00:00.000000") == Some(text)
}

fn same_number(one: &str, other: &str) -> bool {
    let number = |text: &str| {
        let is_numeral = text.starts_with(|first: char| first.is_ascii_digit() || first == '-');
        text.parse::<f64>().ok().filter(|number| is_numeral && number.is_finite())
    };
    // By ordering: exact equality of floats is intended here, and this form passes the lint.
    number(one).zip(number(other)).is_some_and(|(one, other)| one.partial_cmp(&other) == Some(Ordering::Equal))
}

fn same_json(one: &str, other: &[u8]) -> bool {
    let read = |text: &[u8]| serde_json::from_slice::<Tree>(text).ok();
    match (read(one.as_bytes()), read(other)) {
        (Some(one), Some(other)) => same_tree(&one, &other),
        _ => false,
    }
}

fn same_tree(one: &Tree, other: &Tree) -> bool {
    match (one, other) {
        (Tree::Number(one), Tree::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Tree::Array(one), Tree::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_tree(one, other))
        }
        (Tree::Object(one), Tree::Object(other)) => {
            let same = |(key, value): (&String, &Tree)| other.get(key).is_some_and(|other| same_tree(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::Value;

    use super::alike;
    use crate::catalog::definition::ColumnKind::{self, Boolean, Date, Datetime, Integer, Json, Text};
    use crate::catalog::extract::Cell;

    const MONEY: ColumnKind = ColumnKind::Decimal { digits: 14, scale: 2 };

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    #[test]
    fn an_equal_value_in_another_type_is_no_difference() {
        let (at, midnight) = ("2026-11-22 10:00:00.250000", "2026-11-22 00:00:00.000000");
        for (cell, kind, there) in [
            (Cell::Null, Integer, Value::NULL),
            (Cell::Text("a b".into()), Text(None), bytes("a b")),
            (Cell::Text("9".into()), Text(Some(4)), Value::Int(9)),
            (Cell::Text("1.50".into()), Text(Some(4)), bytes("1.5")),
            (Cell::Text("9400110200881234567890".into()), Text(Some(40)), bytes("9.400110200881235e21")),
            (Cell::Integer(-7), Integer, Value::Int(-7)),
            (Cell::Integer(7), Integer, bytes("7.0000")),
            (Cell::Integer(7), Integer, Value::UInt(7)),
            (Cell::Boolean(true), Boolean, Value::Int(1)),
            (Cell::Decimal("12.999".into()), MONEY, bytes("12.99")),
            (Cell::Decimal("12".into()), MONEY, bytes("12.00")),
            (Cell::Decimal("-0".into()), MONEY, bytes("0.00")),
            (Cell::Datetime(at.into()), Datetime, Value::Date(2026, 11, 22, 10, 0, 0, 250_000)),
            (Cell::Datetime(midnight.into()), Datetime, Value::Date(2026, 11, 22, 0, 0, 0, 0)),
            (Cell::Date("2026-11-22".into()), Date, Value::Date(2026, 11, 22, 0, 0, 0, 0)),
            (Cell::Json(r#"{"b":1.50,"a":[true]}"#.into()), Json, bytes(r#"{"a": [true], "b": 1.5}"#)),
        ] {
            assert!(alike(&cell, kind, &there), "{cell:?} and {there:?}");
        }
    }

    #[test]
    fn a_changed_value_is_a_difference() {
        for (cell, kind, there) in [
            (Cell::Null, Integer, Value::Int(0)),
            (Cell::Integer(0), Integer, Value::NULL),
            (Cell::Text("a".into()), Text(None), bytes("A")),
            (Cell::Text("nan".into()), Text(None), bytes("NaN")),
            (Cell::Text("a".into()), Text(None), Value::Bytes(vec![0xff])),
            (Cell::Integer(7), Integer, Value::Int(8)),
            (Cell::Boolean(true), Boolean, Value::Int(0)),
            (Cell::Decimal("12.99".into()), MONEY, bytes("12.98")),
            (Cell::Datetime("2026-11-22 10:00:00.250000".into()), Datetime, Value::Date(2026, 11, 22, 10, 0, 0, 0)),
            (Cell::Date("2026-11-22".into()), Date, Value::Date(2026, 11, 22, 1, 0, 0, 0)),
            (Cell::Json("[1,2]".into()), Json, bytes("[2,1]")),
            (Cell::Json(r#"{"a":1}"#.into()), Json, bytes(r#"{"a":1,"b":null}"#)),
        ] {
            assert!(!alike(&cell, kind, &there), "{cell:?} and {there:?}");
        }
    }
}
