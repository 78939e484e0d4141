//! The values of columns within a document. Pure.

use super::cell::{Cell, cell, text_cell};
use super::columns::{ChildTable, Column, ColumnKind, ColumnSource};
use crate::domain::{Json, ListParams};

/// The source of a document's columns.
#[derive(Clone, Copy)]
pub(super) struct Within<'a> {
    /// The document, or the element of a child table.
    pub(super) value: &'a Json<'a>,
    /// Its ancestors: the document first, the nearest last.
    pub(super) above: &'a [&'a Json<'a>],
    pub(super) combination: &'a ListParams,
    pub(super) parent: Option<&'a str>,
}

/// Appends the rows of the arrays at `path` within a value, in document order.
pub(super) fn child_rows(child: &ChildTable, path: &str, within: Within<'_>, rows: &mut Vec<Vec<Cell>>) {
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

/// The values of the columns, in their order.
pub(super) fn cells(columns: &[Column], from: Within<'_>) -> Vec<Cell> {
    columns.iter().map(|column| cell_of(column, from)).collect()
}

/// The value of one column.
pub(super) fn cell_of(column: &Column, from: Within<'_>) -> Cell {
    match &column.source {
        ColumnSource::Stream(parameter) => known(column.kind, from.combination.get(parameter)),
        ColumnSource::Parent => known(column.kind, from.parent),
        ColumnSource::Pointer(_) | ColumnSource::Above { .. } => match value_of(column, from) {
            None | Some(Json::Null) => Cell::Null,
            Some(value) => cell(column.kind, column.zone.as_ref(), value).unwrap_or(Cell::Null),
        },
    }
}

/// The value in the document that a column shows.
pub(super) fn value_of<'a>(column: &Column, from: Within<'a>) -> Option<&'a Json<'a>> {
    match &column.source {
        ColumnSource::Stream(_) | ColumnSource::Parent => None,
        ColumnSource::Pointer(pointer) => from.value.pointer(pointer),
        ColumnSource::Above { pointer, up } => {
            from.above.iter().rev().nth(up.saturating_sub(1)).and_then(|holder| holder.pointer(pointer))
        }
    }
}

fn known(kind: ColumnKind, text: Option<&str>) -> Cell {
    text.and_then(|text| text_cell(kind, text)).unwrap_or(Cell::Null)
}
