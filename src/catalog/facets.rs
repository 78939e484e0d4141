//! Which values of a document the archive is searched by: those of the listing's filters, and its time. Pure.
//!
//! An index over them may find too many documents, never too few: each one that is found is compared again.

use jiff::civil::{Date, DateTime, Time};
use sha2::{Digest, Sha256};

use super::cell::{Cell, timestamp_of};
use super::columns::{ChildTable, Column, ColumnKind, ColumnSource, Place, Table};
use super::filter::held;
use super::values::{Within, cell_of, child_rows, value_of};
use crate::domain::datetime::timestamp;
use crate::domain::{Facet, FacetValue, Json, ListParams, Timestamp};

/// The number of the time.
pub const TIME: u8 = 0;
/// Most filters with an index; those behind are compared document by document.
const FILTERS_MAX: u8 = 200;

/// What is indexed of a resource's documents.
#[derive(Clone, Debug, PartialEq)]
pub struct FacetLayout {
    /// Digest of everything that decides which facets a document has.
    pub digest: u64,
    filters: Vec<Filter>,
    time: Option<TimeOf>,
}

/// One filter of the listing.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    number: u8,
    place: Place,
    kind: ColumnKind,
    of: ValueOf,
}

#[derive(Clone, Debug, PartialEq)]
enum ValueOf {
    Id,
    Column(Column),
    /// With that one column only.
    Child(ChildTable),
}

#[derive(Clone, Debug, PartialEq)]
enum TimeOf {
    FetchedAt,
    Column(Column),
}

impl FacetLayout {
    /// The layout of a table.
    pub(super) fn new(table: &Table) -> FacetLayout {
        let mut filters: Vec<Filter> = Vec::new();
        for ((_, place), number) in table.filters.iter().zip(1..=FILTERS_MAX) {
            let Some((kind, of)) = source_of(table, place) else { continue };
            if filters.iter().all(|known| known.place != *place) {
                filters.push(Filter { number, place: place.clone(), kind, of });
            }
        }
        let time = match &table.time {
            None => Some(TimeOf::FetchedAt),
            Some(name) => {
                let column = table.columns.iter().find(|column| column.name == *name);
                let is_time = |column: &&Column| matches!(column.kind, ColumnKind::Datetime | ColumnKind::Date);
                column.filter(is_time).map(|column| TimeOf::Column(column.clone()))
            }
        };
        let digest = Sha256::digest(format!("1 {filters:?} {time:?}"));
        let digest = digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        FacetLayout { digest, filters, time }
    }

    /// Whether times are indexed.
    pub fn has_time(&self) -> bool {
        self.time.is_some()
    }

    /// The facet of the documents that a filter finds; None: it has no index.
    pub fn of_filter(&self, place: &Place, text: &str) -> Option<Facet> {
        let filter = self.filters.iter().find(|known| known.place == *place)?;
        let value = FacetValue::Text(held(filter.kind, text)?);
        Some(Facet { place: filter.number, value })
    }

    /// The facets of a document, but for those of [`FacetLayout::of_stream`].
    pub fn of_document(&self, id: &str, parent: Option<&str>, document: &Json<'_>) -> Vec<Facet> {
        let nothing = ListParams::default();
        let within = Within { value: document, above: &[], combination: &nothing, parent };
        let mut facets = Vec::with_capacity(self.filters.len() + 1);
        match &self.time {
            Some(TimeOf::FetchedAt) => facets.push(Facet { place: TIME, value: FacetValue::FetchedAt }),
            Some(TimeOf::Column(column)) => {
                let at = time_of(column, within).map(FacetValue::Time);
                facets.extend(at.map(|value| Facet { place: TIME, value }));
            }
            None => {}
        }
        for filter in &self.filters {
            match &filter.of {
                ValueOf::Id => facets.extend(filter.facet(Cell::Text(id.to_owned()))),
                ValueOf::Column(column) => facets.extend(filter.facet(cell_of(column, within))),
                ValueOf::Child(child) => {
                    let mut rows = Vec::new();
                    child_rows(child, &child.from, within, &mut rows);
                    facets.extend(rows.into_iter().flatten().filter_map(|cell| filter.facet(cell)));
                }
            }
        }
        facets
    }

    /// The facets that all documents of a stream have.
    pub fn of_stream(&self, combination: &ListParams) -> Vec<Facet> {
        let within = Within { value: &Json::Null, above: &[], combination, parent: None };
        let of_filter = |filter: &Filter| match &filter.of {
            ValueOf::Column(column) if matches!(column.source, ColumnSource::Stream(_)) => {
                filter.facet(cell_of(column, within))
            }
            _ => None,
        };
        self.filters.iter().filter_map(of_filter).collect()
    }
}

impl Filter {
    fn facet(&self, cell: Cell) -> Option<Facet> {
        let text = match cell {
            Cell::Text(text) => text,
            Cell::Decimal(text) => held(self.kind, &text)?,
            cell => cell.as_text()?,
        };
        Some(Facet { place: self.number, value: FacetValue::Text(text) })
    }
}

/// Where the value of a filter comes from; None: it has no index.
fn source_of(table: &Table, place: &Place) -> Option<(ColumnKind, ValueOf)> {
    match place {
        Place::Id => Some((ColumnKind::Text(None), ValueOf::Id)),
        Place::Column(name) => {
            let column = table.columns.iter().find(|column| column.name == *name)?;
            Some((column.kind, ValueOf::Column(column.clone())))
        }
        Place::Child { table: child, column } => {
            let child = table.children.iter().find(|known| known.name == *child)?;
            let column = child.columns.iter().find(|known| known.name == *column)?;
            let of = ChildTable { columns: vec![column.clone()], ..child.clone() };
            (!is_of_stream(&of)).then_some((column.kind, ValueOf::Child(of)))
        }
    }
}

/// Whether a column of the rows is that of the stream, whatever the rows are.
fn is_of_stream(child: &ChildTable) -> bool {
    child.columns.iter().any(|column| matches!(column.source, ColumnSource::Stream(_)))
}

/// The time in a column. A date counts as its first moment.
fn time_of(column: &Column, within: Within<'_>) -> Option<Timestamp> {
    match (column.kind, value_of(column, within)) {
        // Not by way of the cell, which is a text.
        (ColumnKind::Datetime, Some(value)) => timestamp_of(column.zone.as_ref(), value),
        _ => match cell_of(column, within) {
            Cell::Datetime(text) => text.parse::<DateTime>().ok().map(timestamp),
            Cell::Date(text) => text.parse::<Date>().ok().map(|date| timestamp(date.to_datetime(Time::midnight()))),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::TIME;
    use crate::catalog::definition::Place;
    use crate::domain::{Facet, FacetValue, Json, ListParams, Timestamp};

    #[test]
    fn a_document_has_the_facets_that_its_filters_look_for() {
        let text = r#"
            id = "/id"
            list = { path = "/things", items = "/rows", pages = { style = "none" }, parameters = { kind = ["a", "b"] } }
            [table]
            time = "at"
            filters = { order = "order", price = "price", ean = "parts.ean", kind = "kind" }
            [table.columns]
            at    = { from = "/at", type = "datetime" }
            order = { from = "/order", type = "text" }
            price = { from = "/price", type = "decimal(9,2)" }
            kind  = { stream = "kind", type = "text" }
            [table.children.parts]
            from = "/parts"
            columns = { ean = { from = "/ean", type = "text" }, n = { from = "/n", type = "integer" } }
        "#;
        let definition = crate::catalog::reader::read("things", &toml::from_str(text).unwrap()).unwrap();
        let document = br#"{"id":"1","at":"1970-01-01T00:00:01.5Z","order":"o","price":"012.50",
            "parts":[{"ean":"x","n":1},{"ean":"y"},{"n":2}]}"#;
        let layout = &definition.facets;
        let mut facets = layout.of_document("1", None, &Json::parse(document).unwrap());
        let combination = ListParams(vec![("kind".to_owned(), "a".to_owned())]);
        facets.extend(layout.of_stream(&combination));
        let column = |name: &str| Place::Column(name.to_owned());
        let ean = || Place::Child { table: "parts".to_owned(), column: "ean".to_owned() };
        let wanted =
            [(column("order"), "o"), (column("price"), "12.5"), (ean(), "x"), (ean(), "y"), (column("kind"), "a")];
        for (place, text) in wanted {
            let facet = layout.of_filter(&place, text).unwrap();
            assert!(facets.contains(&facet), "{facet:?} in {facets:?}");
        }
        for (place, text) in [(column("order"), "O"), (column("price"), "12.6"), (ean(), "z"), (column("kind"), "b")] {
            let facet = layout.of_filter(&place, text).unwrap();
            assert!(!facets.contains(&facet), "{facet:?}");
        }
        let time = Facet { place: TIME, value: FacetValue::Time(Timestamp::from_millis(1500)) };
        assert!(facets.contains(&time), "{facets:?}");
    }
}
