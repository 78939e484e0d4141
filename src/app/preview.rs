//! `waybill preview`: shows the first rows of a resource as they would be stored, and the origin of each column.
//!
//! Calls the API within the rate budget; stores no documents.

use std::time::Duration;

use bytes::Bytes;

use super::single_call::{Caller, Identity, Read, document_error};
use crate::catalog::coverage::{FieldDrift, WITHOUT_OFFSET, WITHOUT_OFFSET_HINT, kind, kind_for_time};
use crate::catalog::definition::{Column, ColumnKind, ColumnSource, Definition};
use crate::catalog::extract::{Cell, extract};
use crate::config::Config;
use crate::domain::{Json, ListParams, Mode, Shop};
use crate::source::{Position, Walk};

/// Most list calls to find a first row: some windows and parameters have none.
const CALLS_MAX: usize = 10;
/// Most parents tried to find a first row: some have none.
const PARENTS_MAX: usize = 5;
const DAY: Duration = Duration::from_secs(86_400);

/// Result of the preview.
#[derive(Debug)]
pub struct Preview {
    pub shop: String,
    /// The id column and the columns of the table.
    pub names: Vec<String>,
    /// Rows: the id and the cells, as text.
    pub rows: Vec<Vec<String>>,
    /// Columns of the first row.
    pub columns: Vec<Got>,
    /// Child tables, and the number of their rows for the first row.
    pub children: Vec<(String, usize)>,
    /// Fields that no column covers.
    pub unmapped: Vec<String>,
}

/// Type, origin and value of one column.
#[derive(Debug)]
pub struct Got {
    pub column: String,
    pub kind: String,
    pub from: String,
    pub value: String,
}

/// Reads the first `rows` documents of a resource.
///
/// # Errors
/// No shop syncs it, the API fails, or it has no row.
pub async fn preview(
    config: &Config,
    definition: &Definition,
    shop: Option<&str>,
    rows: usize,
) -> anyhow::Result<Preview> {
    let caller = Caller::open(config)?;
    let shop = caller.shop(shop, Some(&definition.name))?;
    let credentials = caller.credentials(&shop)?;
    let identity = Identity { shop: &shop, credentials: &credentials };
    let (combination, found) = match &definition.parent {
        None => first_rows(&caller, identity, definition, None).await?,
        Some(parent) => {
            let parent = config.definitions.iter().find(|other| other.name == *parent);
            let parent = parent
                .ok_or_else(|| anyhow::anyhow!("its parent resource is not configured; add it to `resources`"))?;
            first_rows_of_parents(&caller, identity, definition, parent).await?
        }
    };
    let mut documents = Vec::new();
    for (id, body) in found.into_iter().take(rows) {
        let body = match body {
            Some(body) => body,
            None => {
                let Read { path, result } = caller.document(identity, definition, &id).await?;
                result.map_err(|error| anyhow::anyhow!(document_error(definition, &path, &error)))?
            }
        };
        documents.push((id, body));
    }
    Ok(lay_out(definition, &shop, &combination, &documents))
}

/// The rows of the first parent that has some.
async fn first_rows_of_parents(
    caller: &Caller<'_>,
    identity: Identity<'_>,
    definition: &Definition,
    parent: &Definition,
) -> anyhow::Result<(ListParams, Vec<PreviewRow>)> {
    let (_, parents) = first_rows(caller, identity, parent, None).await?;
    let mut last = Err(anyhow::anyhow!("{}: the list has no row", parent.name));
    for (id, _) in parents.into_iter().take(PARENTS_MAX) {
        last = first_rows(caller, identity, definition, Some(id)).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

type PreviewRow = (String, Option<Bytes>);

/// The rows of the first page that has some: the latest days first, with any list parameters.
async fn first_rows(
    caller: &Caller<'_>,
    identity: Identity<'_>,
    definition: &Definition,
    parent: Option<String>,
) -> anyhow::Result<(ListParams, Vec<PreviewRow>)> {
    let now = caller.store.clock().now();
    let mut calls = 0;
    for days in [0, 1, 3, 7, 30, 90] {
        for combination in &definition.list.combinations {
            let since = definition.list.windows.is_some().then_some(now - DAY * days);
            let mode = if since.is_some() { Mode::Incremental } else { Mode::Full };
            let walk = Walk { mode, started_at: now, since, parent: parent.clone() };
            let position = Position::begin(definition, walk);
            let page = caller.page(identity, definition, combination, &position).await?;
            calls += 1;
            if !page.rows.is_empty() {
                return Ok((combination.clone(), page.rows.into_iter().map(|row| (row.id, row.body)).collect()));
            }
            if calls >= CALLS_MAX {
                anyhow::bail!("{}: no row on the first {calls} pages", definition.name);
            }
        }
        if definition.list.windows.is_none() {
            break;
        }
    }
    anyhow::bail!("{}: the list has no row", definition.name)
}

fn lay_out(definition: &Definition, shop: &Shop, combination: &ListParams, documents: &[(String, Bytes)]) -> Preview {
    let table = &definition.table;
    let names = std::iter::once(&table.id_column).chain(table.columns.iter().map(|column| &column.name));
    let mut preview = Preview {
        shop: shop.name.clone(),
        names: names.cloned().collect(),
        rows: Vec::new(),
        columns: Vec::new(),
        children: Vec::new(),
        unmapped: Vec::new(),
    };
    for (index, (id, body)) in documents.iter().enumerate() {
        let Ok(document) = Json::parse(body) else { continue };
        let found = extract(definition, id, &document, combination);
        let cells = found.cells.iter().map(shown);
        preview.rows.push(std::iter::once(id.clone()).chain(cells).collect());
        for left in definition.coverage.drift(&document) {
            if let FieldDrift::Unmapped { path, kind } = left {
                preview.unmapped.push(format!("{path} ({kind})"));
            }
        }
        if index == 0 {
            let got = |(column, cell): (&Column, &Cell)| got(column, cell, &document);
            preview.columns = table.columns.iter().zip(&found.cells).map(got).collect();
            let counts = table.children.iter().zip(&found.children);
            preview.children = counts.map(|(child, rows)| (child.name.clone(), rows.len())).collect();
        }
    }
    preview.unmapped.sort_unstable();
    preview.unmapped.dedup();
    preview
}

fn shown(cell: &Cell) -> String {
    cell.as_text().unwrap_or_else(|| "NULL".to_owned())
}

fn got(column: &Column, cell: &Cell, document: &Json<'_>) -> Got {
    let (from, found) = match &column.source {
        ColumnSource::Pointer(pointer) => (pointer.clone(), document.pointer(pointer)),
        ColumnSource::Stream(parameter) => (format!("the list's {parameter}"), None),
        ColumnSource::Parent => ("the parent's id".to_owned(), None),
        ColumnSource::Above { pointer, .. } => (format!("above: {pointer}"), None),
    };
    let value = match (cell, found) {
        (Cell::Null, Some(value)) if *value != Json::Null => {
            let kind = if column.kind == ColumnKind::Datetime { kind_for_time(value) } else { kind(value) };
            if kind == WITHOUT_OFFSET {
                format!("NULL: {WITHOUT_OFFSET_HINT}")
            } else {
                format!("NULL: a value of type {kind} does not fit")
            }
        }
        (Cell::Null, None) => "NULL: the field is absent".to_owned(),
        (cell, _) => shown(cell),
    };
    Got { column: column.name.clone(), kind: column.kind.to_string(), from, value }
}
