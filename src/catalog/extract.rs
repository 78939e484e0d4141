//! From a document to typed cells, as a definition lays it out. Pure.
//!
//! A value that does not fit its column becomes `Null`, which [`super::coverage`] counts; the document itself is always
//! kept whole beside the columns. The listing and both sinks use the same cells, so they agree.

use jiff::tz::TimeZone;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

use super::definition::{ChildTable, Column, ColumnKind, ColumnSource, Definition};
use crate::domain::datetime::{self, Written};
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
}

/// What a document's columns are taken from.
#[derive(Clone, Copy)]
struct Within<'a> {
    /// The document, or the element of a child table.
    value: &'a Json<'a>,
    /// What holds it: the document first, the nearest last.
    above: &'a [&'a Json<'a>],
    combination: &'a Combination,
    parent: Option<&'a str>,
}

/// Lays a document out; `id` is the one that it is kept under.
pub fn extract(definition: &Definition, id: &str, document: &Json<'_>, combination: &Combination) -> Extract {
    let mut out = Extract::default();
    let (parent, _) = definition.split_id(id);
    let whole = Within { value: document, above: &[], combination, parent: parent.as_deref() };
    out.cells = cells(&definition.table.columns, whole);
    for child in &definition.table.children {
        let mut rows = Vec::new();
        child_rows(child, &child.from, whole, &mut rows);
        out.children.push(rows);
    }
    out
}

/// Adds the rows of the arrays at `path` within a value, in the order of the document.
fn child_rows(child: &ChildTable, path: &str, within: Within<'_>, rows: &mut Vec<Vec<Cell>>) {
    let (head, rest) = path.split_once("/*").map_or((path, None), |(head, rest)| (head, Some(rest)));
    let Some(Json::Array(elements)) = within.value.pointer(head) else { return };
    let above: Vec<&Json<'_>> = within.above.iter().copied().chain([within.value]).collect();
    for value in elements {
        let element = Within { value, above: &above, ..within };
        match rest {
            Some(rest) => child_rows(child, rest, element, rows),
            None => rows.push(cells(&child.columns, element)),
        }
    }
}

fn cells(columns: &[Column], from: Within<'_>) -> Vec<Cell> {
    columns
        .iter()
        .map(|column| {
            let found = match &column.source {
                ColumnSource::Stream(parameter) => return known(column.kind, from.combination.get(parameter)),
                ColumnSource::Parent => return known(column.kind, from.parent),
                ColumnSource::Pointer(pointer) => from.value.pointer(pointer),
                ColumnSource::Above { pointer, up } => {
                    from.above.iter().rev().nth(up.saturating_sub(1)).and_then(|holder| holder.pointer(pointer))
                }
            };
            match found {
                None | Some(Json::Null) => Cell::Null,
                Some(value) => cell(column.kind, column.zone.as_ref(), value).unwrap_or(Cell::Null),
            }
        })
        .collect()
}

fn known(kind: ColumnKind, text: Option<&str>) -> Cell {
    text.and_then(|text| text_cell(kind, text)).unwrap_or(Cell::Null)
}

/// The cell of what is not in a document, and known as a text: a list parameter, a parent's id, a filter. None: it does
/// not fit the type.
pub fn text_cell(kind: ColumnKind, text: &str) -> Option<Cell> {
    match (kind, text) {
        (ColumnKind::Boolean, "true") => Some(Cell::Boolean(true)),
        (ColumnKind::Boolean, "false") => Some(Cell::Boolean(false)),
        _ => cell(kind, None, &Json::Text(text.into())),
    }
}

/// Whether a value can stand in a column of this type.
pub(super) fn fits(kind: ColumnKind, zone: Option<&TimeZone>, value: &Json<'_>) -> bool {
    // Asked for each value of each document: where no cell is needed to tell, none is made.
    match (kind, value) {
        (ColumnKind::Json, _) => true,
        (ColumnKind::Text(length), Json::Text(text)) => text_fits(length, text),
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
fn cell(kind: ColumnKind, zone: Option<&TimeZone>, value: &Json<'_>) -> Option<Cell> {
    match kind {
        ColumnKind::Text(length) => {
            let text = match value {
                Json::Text(text) => text.clone().into_owned(),
                Json::Number(number) => number.plain()?.into_owned(),
                _ => return None,
            };
            text_fits(length, &text).then_some(Cell::Text(text))
        }
        ColumnKind::Datetime => {
            let utc = match value {
                Json::Text(text) => Written::parse(text)?.utc(zone),
                Json::Number(number) => datetime::civil(epoch_millis(number.whole()?)?),
                _ => None,
            };
            utc.map(|utc| Cell::Datetime(datetime::sql_text(utc)))
        }
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
            decimal_fits(&text, usize::from(digits - scale), usize::from(scale)).then_some(Cell::Decimal(text))
        }
        ColumnKind::Boolean => match value {
            Json::Bool(flag) => Some(Cell::Boolean(*flag)),
            _ => None,
        },
        ColumnKind::Json => serde_json::to_string(value).ok().map(Cell::Json),
    }
}

/// Seconds or milliseconds since 1970, whichever gives a time near ours: a hundred thousand million seconds
/// are three thousand years.
fn epoch_millis(number: i64) -> Option<i64> {
    const SECONDS_MAX: u64 = 100_000_000_000;
    if number.unsigned_abs() < SECONDS_MAX { number.checked_mul(1000) } else { Some(number) }
}

/// Milliseconds since 1970 of what a datetime column takes.
pub fn millis_of(zone: Option<&TimeZone>, value: &Json<'_>) -> Option<i64> {
    match value {
        Json::Text(text) => Written::parse(text)?.utc(zone).map(datetime::millis),
        Json::Number(number) => number.whole().and_then(epoch_millis),
        _ => None,
    }
}

/// Whether a text is a plain numeral (no exponent) of at most the given number of digits before and behind its point. Zeros at
/// either end do not count.
fn decimal_fits(text: &str, whole: usize, scale: usize) -> bool {
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

/// As the HTTP API shows it: times in RFC 3339, decimals as text so that nothing is rounded, JSON as it is.
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
    use super::{Cell, extract, text_cell};
    use crate::catalog::definition::ColumnKind;
    use crate::domain::{Combination, Json};

    fn read(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn cell(kind: ColumnKind, value: &Json<'_>) -> Option<Cell> {
        super::cell(kind, None, value)
    }

    #[test]
    fn times_become_utc_with_microseconds() {
        let text = |text: &str| cell(ColumnKind::Datetime, &Json::Text(text.into()));
        let utc = |text: &str| Some(Cell::Datetime(text.to_owned()));
        assert_eq!(text("2026-03-29T03:30:00+02:00"), utc("2026-03-29 01:30:00.000000"));
        assert_eq!(text("2026-01-01T00:00:00.123456789+01:00"), utc("2025-12-31 23:00:00.123456"));
        assert_eq!((text("2026-01-01"), text("2026-01-01T00:00:00"), text("gisteren")), (None, None, None));
        let epoch = |number: i64| cell(ColumnKind::Datetime, &read(&number.to_string()));
        assert_eq!(epoch(1_540_000_000), utc("2018-10-20 01:46:40.000000"));
        assert_eq!(epoch(1_540_000_000_123), utc("2018-10-20 01:46:40.123000"));
        assert_eq!((epoch(i64::MAX), epoch(i64::MIN)), (None, None));
        assert_eq!(super::millis_of(None, &read("1540000000")), Some(1_540_000_000_000));
        let there = jiff::tz::TimeZone::get("Europe/Amsterdam").unwrap();
        let local = Json::Text("2026-06-30T22:30:00".into());
        assert_eq!(super::cell(ColumnKind::Datetime, Some(&there), &local), utc("2026-06-30 20:30:00.000000"));
        assert_eq!(super::millis_of(Some(&there), &local), Some(1_782_851_400_000));
        assert_eq!(cell(ColumnKind::Date, &read("\"2026-06-30T22:30:00Z\"")), Some(Cell::Date("2026-06-30".into())));
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
        assert_eq!(cell(ColumnKind::Integer, &read("10.0")), Some(Cell::Integer(10)));
        assert_eq!(cell(ColumnKind::Integer, &read("1e300")), None);
        assert_eq!(cell(decimal, &read("0.00010")), Some(Cell::Decimal("0.00010".into())));
        assert_eq!(cell(decimal, &read("1.5e2")), Some(Cell::Decimal("150".into())));
        assert_eq!(cell(decimal, &read("0.00001")), None, "it would be another number");
        assert_eq!(cell(ColumnKind::Text(None), &read("1e16")), Some(Cell::Text("10000000000000000".into())));
        assert_eq!(cell(ColumnKind::Boolean, &read(r#""yes""#)), None);
    }

    #[test]
    fn digits_beyond_64_bits_are_kept_or_refused_and_never_changed() {
        let tracking = "9400110200881234567890";
        for (kind, sent, want) in [
            (ColumnKind::Text(Some(40)), tracking, Some(Cell::Text(tracking.into()))),
            (ColumnKind::Decimal { digits: 30, scale: 0 }, tracking, Some(Cell::Decimal(tracking.into()))),
            (ColumnKind::Json, tracking, Some(Cell::Json(tracking.into()))),
            (ColumnKind::Integer, tracking, None),
            (ColumnKind::Integer, "123456789012345678.9", None),
            (ColumnKind::Integer, "9007199254740993.0", Some(Cell::Integer(9_007_199_254_740_993))),
            (ColumnKind::Text(Some(21)), tracking, None),
            (ColumnKind::Text(None), "1.50", Some(Cell::Text("1.50".into()))),
            (
                ColumnKind::Decimal { digits: 30, scale: 20 },
                "0.1234567890123456789",
                Some(Cell::Decimal("0.1234567890123456789".into())),
            ),
        ] {
            assert_eq!(cell(kind, &read(sent)), want, "{sent} in {kind}");
        }
        assert_eq!(serde_json::to_string(&Cell::Json(format!("[{tracking}]"))).unwrap(), format!("[{tracking}]"));
    }

    #[test]
    fn what_is_known_as_a_text_is_typed_like_the_rest() {
        assert_eq!(text_cell(ColumnKind::Boolean, "false"), Some(Cell::Boolean(false)));
        assert_eq!(text_cell(ColumnKind::Integer, "7"), Some(Cell::Integer(7)));
        assert_eq!(text_cell(ColumnKind::Text(Some(3)), "abcd"), None);
        assert_eq!(text_cell(ColumnKind::Boolean, "FBR"), None);
    }

    #[test]
    fn child_tables_reach_any_depth_and_know_what_holds_them() {
        let text = r#"
            id = "/id"
            parent = "shelves"
            list = { path = "/shelves/{parent}", items = "/rows", pages = { style = "none" } }
            [table.columns]
            shelf = { parent = true, type = "text" }
            [table.children.tags]
            from = "/tags"
            columns = { tag = { from = "", type = "text" }, name = { above = "/name", type = "text" } }
            [table.children.parts]
            from = "/boxes/*/parts"
            [table.children.parts.columns]
            part = { from = "/n", type = "integer" }
            box  = { above = "/b", type = "text" }
            name = { above = "/name", up = 2, type = "text" }
        "#;
        let definition = crate::catalog::reader::read("things", &toml::from_str(text).unwrap()).unwrap();
        let document = br#"{"id":"1","name":"n","tags":["x","y"],"boxes":[
            {"b":"A","parts":[{"n":1},{"n":2}]}, {"b":"B"}, {"b":"C","parts":[{"n":3}]}, {"b":"D","parts":{}}]}"#;
        let found = extract(&definition, "S:1", &Json::parse(document).unwrap(), &Combination::default());
        let text = |text: &str| Cell::Text(text.to_owned());
        assert_eq!(found.cells, [text("S")]);
        let children = &definition.table.children;
        let of = |name: &str| &found.children[children.iter().position(|child| child.name == name).unwrap()];
        assert_eq!(*of("tags"), [[text("n"), text("x")], [text("n"), text("y")]]);
        let part = |name: &str, number| vec![text(name), text("n"), Cell::Integer(number)];
        assert_eq!(*of("parts"), [part("A", 1), part("A", 2), part("C", 3)]);
    }
}
