//! From a document to typed cells, as a definition lays it out. Pure.
//!
//! A value that does not fit its column becomes `Null` and is counted; the document itself is always
//! kept whole beside the columns. The listing and both sinks use the same cells, so they agree.

use serde_json::Value;

use super::definition::{Column, ColumnKind, ColumnSource, Definition};
use crate::domain::{Combination, Json};

/// One typed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A plain decimal numeral, like `1234.50`.
    Decimal(String),
    /// `YYYY-MM-DD HH:MM:SS.ffffff`, UTC.
    Datetime(String),
    /// `YYYY-MM-DD`.
    Date(String),
    /// JSON text.
    Json(String),
}

/// The typed form of one document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extract {
    /// In the order of `table.columns`.
    pub cells: Vec<Cell>,
    /// For each child table in order: its rows, each in the order of its columns.
    pub children: Vec<Vec<Vec<Cell>>>,
    /// Values that did not fit their column.
    pub misfits: u32,
}

/// Lays a document out.
pub fn extract(definition: &Definition, document: &Json<'_>, combination: &Combination) -> Extract {
    let mut out = Extract::default();
    out.cells = cells(&definition.table.columns, document, combination, &mut out.misfits);
    for child in &definition.table.children {
        let rows = match document.pointer(&child.from) {
            Some(Json::Array(elements)) => {
                elements.iter().map(|element| cells(&child.columns, element, combination, &mut out.misfits)).collect()
            }
            Some(Json::Null) | None => Vec::new(),
            Some(_) => {
                out.misfits += 1;
                Vec::new()
            }
        };
        out.children.push(rows);
    }
    out
}

fn cells(columns: &[Column], from: &Json<'_>, combination: &Combination, misfits: &mut u32) -> Vec<Cell> {
    columns
        .iter()
        .map(|column| match &column.source {
            ColumnSource::Stream(parameter) => {
                combination.get(parameter).map_or(Cell::Null, |value| Cell::Text(value.to_owned()))
            }
            ColumnSource::Pointer(pointer) => match from.pointer(pointer) {
                None | Some(Json::Null) => Cell::Null,
                Some(value) => cell(column.kind, value).unwrap_or_else(|| {
                    *misfits += 1;
                    Cell::Null
                }),
            },
        })
        .collect()
}

/// None: the value does not fit the type.
fn cell(kind: ColumnKind, value: &Json<'_>) -> Option<Cell> {
    match kind {
        ColumnKind::Text(length) => {
            let text = match value {
                Json::Text(text) => text.clone().into_owned(),
                Json::Number(number) => number.to_string(),
                _ => return None,
            };
            let fits = match length {
                Some(length) => text.chars().count() <= usize::from(length),
                None => text.len() <= 65_535,
            };
            fits.then_some(Cell::Text(text))
        }
        ColumnKind::Datetime => value.as_str().and_then(parse_datetime).map(Cell::Datetime),
        ColumnKind::Date => {
            let date: jiff::civil::Date = value.as_str()?.parse().ok()?;
            (0..=9999).contains(&date.year()).then(|| Cell::Date(date.to_string()))
        }
        ColumnKind::Integer => match value {
            Json::Number(number) => number.as_i64().map(Cell::Integer),
            Json::Text(text) => text.parse().ok().map(Cell::Integer),
            _ => None,
        },
        ColumnKind::Decimal { digits, scale } => {
            let text = match value {
                Json::Number(number) => number.to_string(),
                Json::Text(text) => text.clone().into_owned(),
                _ => return None,
            };
            decimal_fits(&text, usize::from(digits - scale)).then_some(Cell::Decimal(text))
        }
        ColumnKind::Boolean => match value {
            Json::Bool(flag) => Some(Cell::Boolean(*flag)),
            _ => None,
        },
        ColumnKind::Json => serde_json::to_string(value).ok().map(Cell::Json),
    }
}

/// ISO 8601 with an offset, to UTC with microseconds. Finer fractions are cut, as MySQL would round
/// them into another second.
fn parse_datetime(text: &str) -> Option<String> {
    let at = jiff::tz::Offset::UTC.to_datetime(text.parse().ok()?);
    (0..=9999).contains(&at.year()).then(|| {
        let (date, time) = (at.date(), at.time());
        format!(
            "{date} {:02}:{:02}:{:02}.{:06}",
            time.hour(),
            time.minute(),
            time.second(),
            time.subsec_nanosecond() / 1000
        )
    })
}

/// Milliseconds since 1970 of an ISO 8601 time with an offset.
pub fn parse_millis(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// A plain numeral (no exponent) whose part before the point has at most `whole` digits.
fn decimal_fits(text: &str, whole: usize) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (before, after) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let numeral = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    numeral(before) && numeral(after) && before.trim_start_matches('0').len() <= whole
}

impl Cell {
    /// The cell as the HTTP API shows it: times in RFC 3339, decimals as text so that nothing is
    /// rounded.
    pub fn to_json(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Text(text) | Cell::Decimal(text) | Cell::Date(text) => Value::String(text.clone()),
            Cell::Integer(number) => Value::from(*number),
            Cell::Boolean(flag) => Value::Bool(*flag),
            Cell::Datetime(text) => Value::String(format!("{}Z", text.replacen(' ', "T", 1))),
            Cell::Json(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        }
    }

    /// The cell as text, for comparing with a filter; None for null.
    pub fn as_text(&self) -> Option<String> {
        match self {
            Cell::Null => None,
            Cell::Text(text) | Cell::Decimal(text) | Cell::Date(text) | Cell::Datetime(text) | Cell::Json(text) => {
                Some(text.clone())
            }
            Cell::Integer(number) => Some(number.to_string()),
            Cell::Boolean(flag) => Some(flag.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, cell, parse_datetime};
    use crate::catalog::definition::ColumnKind;
    use crate::domain::Json;

    fn read(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn times_become_utc_with_microseconds() {
        assert_eq!(parse_datetime("2026-03-29T03:30:00+02:00").unwrap(), "2026-03-29 01:30:00.000000");
        assert_eq!(parse_datetime("2026-01-01T00:00:00.123456789+01:00").unwrap(), "2025-12-31 23:00:00.123456");
        assert_eq!(parse_datetime("2026-01-01"), None);
        assert_eq!(parse_datetime("gisteren"), None);
    }

    #[test]
    fn values_that_do_not_fit_are_misfits_not_errors() {
        let decimal = ColumnKind::Decimal { digits: 14, scale: 4 };
        assert_eq!(cell(decimal, &read("1234.5")), Some(Cell::Decimal("1234.5".into())));
        assert_eq!(cell(decimal, &read("1e30")), None);
        assert_eq!(cell(decimal, &read(r#""12.99""#)), Some(Cell::Decimal("12.99".into())));
        assert_eq!(cell(decimal, &read(r#""1; DROP""#)), None);
        assert_eq!(cell(ColumnKind::Text(Some(3)), &read(r#""😀😀😀""#)), Some(Cell::Text("😀😀😀".into())));
        assert_eq!(cell(ColumnKind::Text(Some(3)), &read(r#""abcd""#)), None);
        assert_eq!(cell(ColumnKind::Integer, &read("1.5")), None);
        assert_eq!(cell(ColumnKind::Boolean, &read(r#""yes""#)), None);
    }
}
