//! Typed cells: converts values of a document to the type of their column. Pure.
//!
//! A value that does not fit becomes `Null`, which [`super::coverage`] reports.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use super::columns::ColumnKind;
use crate::domain::datetime::{self, Written};
use crate::domain::{Json, Timestamp};

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

/// The cell of a text from outside the document: a list parameter, a parent's id, a filter. None: it does not fit the
/// type.
pub fn text_cell(kind: ColumnKind, text: &str) -> Option<Cell> {
    match (kind, text) {
        (ColumnKind::Boolean, "true") => Some(Cell::Boolean(true)),
        (ColumnKind::Boolean, "false") => Some(Cell::Boolean(false)),
        _ => cell(kind, None, &Json::Text(text.into())),
    }
}

/// Whether a value fits a column of this type.
pub(super) fn fits(kind: ColumnKind, zone: Option<&TimeZone>, value: &Json<'_>) -> bool {
    // Runs for each value of each document, so it avoids building a cell where it can.
    match (kind, value) {
        (ColumnKind::Json, _) => true,
        (ColumnKind::Text(length), Json::Text(text)) => text_fits(length, text),
        (ColumnKind::Datetime, _) => utc_of(zone, value).is_some(),
        (ColumnKind::Date, Json::Text(text)) => Written::parse(text).is_some(),
        (ColumnKind::Decimal { digits, scale }, Json::Text(text)) => decimal_fits(text, digits, scale),
        _ => cell(kind, zone, value).is_some(),
    }
}

fn text_fits(length: Option<u16>, text: &str) -> bool {
    match length {
        Some(length) => text.len() <= usize::from(length) || text.chars().count() <= usize::from(length),
        None => text.len() <= 65_535,
    }
}

/// None: the value does not fit the type.
pub(super) fn cell(kind: ColumnKind, zone: Option<&TimeZone>, value: &Json<'_>) -> Option<Cell> {
    match kind {
        ColumnKind::Text(length) => {
            let text = match value {
                Json::Text(text) => text.clone().into_owned(),
                Json::Number(number) => number.plain()?.into_owned(),
                _ => return None,
            };
            text_fits(length, &text).then_some(Cell::Text(text))
        }
        ColumnKind::Datetime => utc_of(zone, value).map(|utc| Cell::Datetime(datetime::sql_text(utc))),
        ColumnKind::Date => Written::parse(value.as_str()?).map(|written| Cell::Date(written.date.to_string())),
        ColumnKind::Integer => match value {
            Json::Number(number) => number.whole().map(Cell::Integer),
            Json::Text(text) => text.parse().ok().map(Cell::Integer),
            _ => None,
        },
        ColumnKind::Decimal { digits, scale } => {
            let text = match value {
                Json::Number(number) => number.plain()?.into_owned(),
                Json::Text(text) => text.clone().into_owned(),
                _ => return None,
            };
            decimal_fits(&text, digits, scale).then_some(Cell::Decimal(text))
        }
        ColumnKind::Boolean => match value {
            Json::Bool(flag) => Some(Cell::Boolean(*flag)),
            _ => None,
        },
        ColumnKind::Json => serde_json::to_string(value).ok().map(Cell::Json),
    }
}

/// None: the value is no point in time.
fn utc_of(zone: Option<&TimeZone>, value: &Json<'_>) -> Option<DateTime> {
    match value {
        Json::Text(text) => Written::parse(text)?.utc(zone),
        Json::Number(number) => datetime::civil(since_epoch(number.whole()?)?),
        _ => None,
    }
}

/// The point in time of seconds or milliseconds since 1970; values from 1e11 on are milliseconds, as that many
/// seconds are three thousand years.
fn since_epoch(number: i64) -> Option<Timestamp> {
    const SECONDS_MAX: u64 = 100_000_000_000;
    let millis = if number.unsigned_abs() < SECONDS_MAX { number.checked_mul(1000)? } else { number };
    Some(Timestamp::from_millis(millis))
}

/// The point in time of a value that fits a datetime column.
pub fn timestamp_of(zone: Option<&TimeZone>, value: &Json<'_>) -> Option<Timestamp> {
    match value {
        Json::Text(text) => Written::parse(text)?.utc(zone).map(datetime::timestamp),
        Json::Number(number) => number.whole().and_then(since_epoch),
        _ => None,
    }
}

/// Whether a text is a plain numeral (no exponent) with at most `scale` digits after the point, and the rest of `digits`
/// before it. Zeros at either end do not count.
fn decimal_fits(text: &str, digits: u8, scale: u8) -> bool {
    let (whole, scale) = (usize::from(digits - scale), usize::from(scale));
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (before, after) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let numeral = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let fits = before.trim_start_matches('0').len() <= whole && after.trim_end_matches('0').len() <= scale;
    numeral(before) && numeral(after) && fits
}

impl Cell {
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

/// The form of the HTTP API: times in RFC 3339, decimals as text to avoid rounding, JSON as it is.
impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Null => serializer.serialize_none(),
            Cell::Text(text) | Cell::Decimal(text) | Cell::Date(text) => serializer.serialize_str(text),
            Cell::Integer(number) => serializer.serialize_i64(*number),
            Cell::Boolean(flag) => serializer.serialize_bool(*flag),
            Cell::Datetime(text) => serializer.serialize_str(&format!("{}Z", text.replacen(' ', "T", 1))),
            Cell::Json(text) => {
                let raw: &RawValue = serde_json::from_str(text).map_err(S::Error::custom)?;
                raw.serialize(serializer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{cell, fits};
    use crate::catalog::columns::ColumnKind;
    use crate::domain::Json;

    #[test]
    fn a_value_fits_if_it_has_a_cell() {
        let texts =
            ["", "a", "12.50", "-1", "2026-06-30", "2026-06-30T22:30:00Z", "2026-06-30T22:30:00", "1e3", "true"];
        let texts = texts.map(|text| format!("\"{text}\""));
        let others = ["null", "true", "12", "12.50", "1e3", "1e300", "1540000000", "{}", "[]"].map(str::to_owned);
        let zone = jiff::tz::TimeZone::get("Europe/Amsterdam").unwrap();
        let decimal = |digits, scale| ColumnKind::Decimal { digits, scale };
        for kind in [
            ColumnKind::Text(Some(3)),
            ColumnKind::Text(None),
            ColumnKind::Datetime,
            ColumnKind::Date,
            ColumnKind::Integer,
            decimal(4, 2),
            decimal(3, 0),
            ColumnKind::Boolean,
            ColumnKind::Json,
        ] {
            for (text, zone) in texts.iter().chain(&others).flat_map(|text| [(text, None), (text, Some(&zone))]) {
                let value = Json::parse(text.as_bytes()).unwrap();
                assert_eq!(fits(kind, zone, &value), cell(kind, zone, &value).is_some(), "{text} in {kind}");
            }
        }
    }
}
