//! The embedded archive as a sink: the same listing, filters and order as MySQL, over the store.
//!
//! Documents are stored encrypted, so a filter has to open each one. This suits one machine and a few hundred thousand
//! documents; use MySQL for more, or for SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::filter::equals;
use super::scan::{Progress, Scan};
use super::{Item, ListQuery, SinkError, SinkErrorClass};
use crate::catalog::Definition;
use crate::catalog::definition::{Column, ColumnKind, Place};
use crate::catalog::extract::{Cell, Extract, extract};
use crate::domain::datetime::sql_datetime;
use crate::domain::{Json, ShopId, StoredVersion};
use crate::store::{Archived, Store, StoreError};
use crate::supervisor::describe_join_error;

/// Time of one slice of a listing, after which other readers have their turn.
const SLICE_TIME: Duration = Duration::from_millis(8);
/// Documents decrypted before checking whether the page is full, or the time of the slice is over.
const SCANNED_AT_ONCE: usize = 64;

/// The embedded archive.
#[derive(Clone)]
pub struct Archive {
    store: Store,
    definitions: Vec<Arc<Definition>>,
}

impl Archive {
    /// The archive of a store.
    pub fn new(store: Store, definitions: Vec<Arc<Definition>>) -> Archive {
        Archive { store, definitions }
    }

    /// Reads some more documents of a page, in the order of `(shop_id, id)` by bytes, on a blocking thread.
    ///
    /// # Errors
    /// Unknown resource, or the store's read errors.
    pub(super) async fn slice(&self, resource: &str, mut scan: Scan) -> Result<(Scan, Progress), SinkError> {
        let (archive, definition) = (self.clone(), self.definition(resource)?);
        blocking(move || {
            let progress = archive.collect(&definition, &mut scan)?;
            Ok((scan, progress))
        })
        .await
    }

    /// Reads one document; None if there is no such document.
    ///
    /// # Errors
    /// Unknown resource, or the store's read errors.
    pub async fn get(&self, resource: &str, shop: &str, id: &str) -> Result<Option<Item>, SinkError> {
        let (archive, definition) = (self.clone(), self.definition(resource)?);
        let (shop, id) = (shop.to_owned(), id.to_owned());
        blocking(move || {
            let found = archive.store.archived_one(&definition.name, &shop, &id).map_err(broken)?;
            found.map(|document| open(&definition, document).map(|(item, _)| item)).transpose()
        })
        .await
    }

    /// Reads which versions of one shop's documents are stored.
    ///
    /// # Errors
    /// As [`Archive::get`].
    pub async fn held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, StoredVersion)>, SinkError> {
        let (archive, resource) = (self.clone(), resource.to_owned());
        let (shop, after) = (shop.to_owned(), after.to_owned());
        blocking(move || archive.store.archive_held(&resource, &shop, &after, limit).map_err(broken)).await
    }

    fn definition(&self, resource: &str) -> Result<Arc<Definition>, SinkError> {
        let found = self.definitions.iter().find(|definition| definition.name == resource);
        found
            .cloned()
            .ok_or_else(|| SinkError::new(SinkErrorClass::Operator, format!("resource `{resource}` is not configured")))
    }

    fn collect(&self, definition: &Definition, scan: &mut Scan) -> Result<Progress, SinkError> {
        let begun = Instant::now();
        for shop in shops(&scan.query) {
            loop {
                if begun.elapsed() > SLICE_TIME {
                    return Ok(Progress::More);
                }
                let from = scan.query.after.as_ref().map(|(shop, id)| (shop.as_str(), id.as_str()));
                let read = self.store.archived(&definition.name, shop.as_deref(), from, SCANNED_AT_ONCE);
                let read = read.map_err(broken)?;
                let Some(last) = read.last else { break };
                for document in read.documents {
                    let (item, cells) = open(definition, document)?;
                    if matches(definition, &scan.query, &item, &cells) && !scan.found.take(item, scan.query.limit) {
                        return Ok(Progress::Done);
                    }
                }
                scan.reached(last);
                if !read.more {
                    break;
                }
            }
        }
        Ok(Progress::Done)
    }
}

/// The key ranges to scan: one per shop, or everything. Shops before the cursor are done.
fn shops(query: &ListQuery) -> Vec<Option<ShopId>> {
    let Some(mut wanted) = query.shops.clone() else { return vec![None] };
    wanted.sort();
    wanted.dedup();
    if let Some((shop, _)) = &query.after {
        wanted.retain(|wanted| wanted >= shop);
    }
    wanted.into_iter().map(Some).collect()
}

fn open(definition: &Definition, document: Archived) -> Result<(Item, Extract), SinkError> {
    let value = Json::parse(&document.body).map_err(|error| {
        SinkError::new(SinkErrorClass::Poison, format!("an archived document is not JSON: {error}"))
    })?;
    let cells = extract(definition, &document.id, &value, &document.combination);
    let names = definition.table.columns.iter().map(|column| column.name.clone());
    let columns = names.zip(cells.cells.iter().cloned()).collect();
    let item = Item {
        shop_id: document.shop_id,
        id: document.id,
        fetched_at: document.fetched_at,
        version: document.version,
        first_listed_at: document.first_listed_at,
        no_longer_listed_at: document.no_longer_listed_at,
        document: Bytes::from(document.body),
        columns,
    };
    Ok((item, cells))
}

fn matches(definition: &Definition, query: &ListQuery, item: &Item, cells: &Extract) -> bool {
    let filtered = query
        .filters
        .iter()
        .all(|(place, wanted)| any_at(definition, place, item, cells, &mut |kind, text| equals(kind, text, wanted)));
    filtered && in_time(definition, query, item, cells) && contains(definition, query, item, cells)
}

/// Whether a value in the column satisfies the predicate; null never does.
fn any_at(
    definition: &Definition,
    place: &Place,
    item: &Item,
    cells: &Extract,
    passes: &mut dyn FnMut(ColumnKind, &str) -> bool,
) -> bool {
    let table = &definition.table;
    let mut passes_at = |columns: &[Column], row: &[Cell], name: &str| {
        let found = columns.iter().zip(row).find(|(column, _)| column.name == name);
        found.is_some_and(|(column, cell)| cell.as_text().is_some_and(|text| passes(column.kind, &text)))
    };
    match place {
        Place::Id => passes(ColumnKind::Text(None), &item.id),
        Place::Column(name) => passes_at(&table.columns, &cells.cells, name),
        Place::Child { table: child, column } => {
            let found = table.children.iter().zip(&cells.children).find(|(known, _)| known.name == *child);
            found.is_some_and(|(child, rows)| rows.iter().any(|row| passes_at(&child.columns, row, column)))
        }
    }
}

fn in_time(definition: &Definition, query: &ListQuery, item: &Item, cells: &Extract) -> bool {
    if query.from.is_none() && query.to.is_none() {
        return true;
    }
    let at = match &definition.table.time {
        None => Some(sql_datetime(item.fetched_at)),
        Some(name) => {
            let mut columns = definition.table.columns.iter().zip(&cells.cells);
            columns.find(|(column, _)| column.name == *name).and_then(|(_, cell)| moment(cell))
        }
    };
    // Both are `YYYY-MM-DD HH:MM:SS.ffffff` in UTC, so comparing the texts compares the times.
    at.is_some_and(|at| {
        query.from.is_none_or(|from| at >= sql_datetime(from)) && query.to.is_none_or(|to| at < sql_datetime(to))
    })
}

/// A date counts as its first moment.
fn moment(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Date(date) => Some(format!("{date} 00:00:00.000000")),
        cell => cell.as_text(),
    }
}

fn contains(definition: &Definition, query: &ListQuery, item: &Item, cells: &Extract) -> bool {
    let Some(wanted) = query.q.as_ref().map(|q| q.to_lowercase()) else { return true };
    let mut holds = |_, text: &str| text.to_lowercase().contains(&wanted);
    definition.table.search.iter().any(|place| any_at(definition, place, item, cells, &mut holds))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    let failed = |error: tokio::task::JoinError| {
        SinkError::new(SinkErrorClass::Unknown, format!("reading the archive: {}", describe_join_error(&error)))
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn broken(error: StoreError) -> SinkError {
    SinkError::new(SinkErrorClass::Unknown, error.to_string())
}
