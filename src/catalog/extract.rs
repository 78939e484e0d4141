//! Extracts typed cells from a document, as its definition maps it. Pure.
//!
//! A value that does not fit its column becomes `Null`, which [`super::coverage`] reports; the whole document is stored
//! beside the columns. The listing and both sinks use the same cells, so they agree.

pub use super::cell::{Cell, text_cell, timestamp_of};
use super::definition::Definition;
use super::values::{Within, cells, child_rows};
use crate::domain::{Json, ListParams};

/// The typed form of one document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extract {
    /// In the order of `table.columns`.
    pub cells: Vec<Cell>,
    /// For each child table in order: its rows, each in the order of its columns.
    pub children: Vec<Vec<Vec<Cell>>>,
}

/// Extracts the cells of a document; `id` is its stored id.
pub fn extract(definition: &Definition, id: &str, document: &Json<'_>, combination: &ListParams) -> Extract {
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

#[cfg(test)]
mod tests {
    use super::{Cell, extract, text_cell};
    use crate::catalog::definition::ColumnKind;
    use crate::domain::{Json, ListParams, Timestamp};

    fn read(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn cell(kind: ColumnKind, value: &Json<'_>) -> Option<Cell> {
        crate::catalog::cell::cell(kind, None, value)
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
        assert_eq!(super::timestamp_of(None, &read("1540000000")), Some(Timestamp::from_millis(1_540_000_000_000)));
        let there = jiff::tz::TimeZone::get("Europe/Amsterdam").unwrap();
        let local = Json::Text("2026-06-30T22:30:00".into());
        assert_eq!(
            crate::catalog::cell::cell(ColumnKind::Datetime, Some(&there), &local),
            utc("2026-06-30 20:30:00.000000")
        );
        assert_eq!(super::timestamp_of(Some(&there), &local), Some(Timestamp::from_millis(1_782_851_400_000)));
        assert_eq!(cell(ColumnKind::Date, &read("\"2026-06-30T22:30:00Z\"")), Some(Cell::Date("2026-06-30".into())));
    }

    #[test]
    fn values_that_do_not_fit_become_null() {
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
    fn texts_from_outside_the_document_are_typed_like_its_values() {
        assert_eq!(text_cell(ColumnKind::Boolean, "false"), Some(Cell::Boolean(false)));
        assert_eq!(text_cell(ColumnKind::Integer, "7"), Some(Cell::Integer(7)));
        assert_eq!(text_cell(ColumnKind::Text(Some(3)), "abcd"), None);
        assert_eq!(text_cell(ColumnKind::Boolean, "FBR"), None);
    }

    #[test]
    fn child_tables_reach_any_depth_and_their_ancestors() {
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
        let found = extract(&definition, "S:1", &Json::parse(document).unwrap(), &ListParams::default());
        let text = |text: &str| Cell::Text(text.to_owned());
        assert_eq!(found.cells, [text("S")]);
        let children = &definition.table.children;
        let of = |name: &str| &found.children[children.iter().position(|child| child.name == name).unwrap()];
        assert_eq!(*of("tags"), [[text("n"), text("x")], [text("n"), text("y")]]);
        let part = |name: &str, number| vec![text(name), text("n"), Cell::Integer(number)];
        assert_eq!(*of("parts"), [part("A", 1), part("A", 2), part("C", 3)]);
    }
}
