//! The embedded archive as a sink: the same listing, filters and order as MySQL, over the store.
//!
//! Documents are stored encrypted. An index leads to those that a filter or a time may find, and each of them is opened and
//! compared; a search with `q` alone opens all. This suits one machine and a few hundred thousand documents; use MySQL for
//! more, or for SQL.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::scan::{Ahead, Progress, Scan};
use super::{Item, ListQuery, SinkError, SinkErrorClass};
use crate::catalog::Definition;
use crate::catalog::definition::{Column, ColumnKind, Place};
use crate::catalog::extract::{Cell, Extract, extract};
use crate::catalog::filter::equals;
use crate::domain::datetime::sql_datetime;
use crate::domain::{Json, ShopId, StoredVersion};
use crate::store::{ArchivePage, Archived, Candidates, IndexCondition, IndexQuery, Lookup, Store, StoreError};
use crate::supervisor::describe_join_error;

/// Time of one slice of a listing, after which other readers have their turn.
const SLICE_TIME: Duration = Duration::from_millis(8);
/// Documents decrypted before checking whether the page is full, or the time of the slice is over.
const SCANNED_AT_ONCE: usize = 64;
/// Documents that one look into the index finds, and how many of them are decrypted before that check.
const FOUND_AT_ONCE: usize = 4096;
const OPENED_AT_ONCE: usize = 16;

/// The embedded archive.
#[derive(Clone)]
pub struct Archive {
    store: Store,
    definitions: Vec<Arc<Definition>>,
}

impl Archive {
    /// The archive of a store.
    pub fn new(store: Store, definitions: Vec<Arc<Definition>>) -> Archive {
        store.set_indexed(&definitions);
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
        let (begun, conditions) = (Instant::now(), conditions(definition, &scan.query));
        while let Some(shop) = self.shop_at(definition, scan, !conditions.is_empty())? {
            if begun.elapsed() > SLICE_TIME {
                return Ok(Progress::More);
            }
            let read = match &shop {
                Some(shop) => self.look_up(definition, scan, shop, &conditions)?,
                None => None,
            };
            let read = match read {
                Some(read) => read,
                None => self.read_on(definition, scan, shop.as_ref())?,
            };
            for document in read.documents {
                let (item, cells) = open(definition, document)?;
                if matches(definition, &scan.query, &item, &cells) && !scan.found.take(item, scan.query.limit) {
                    return Ok(Progress::Done);
                }
            }
            if let Some(last) = read.last {
                scan.reached(last);
            }
            match shop {
                _ if read.more => {}
                Some(shop) => scan.finished = Some(shop),
                None => return Ok(Progress::Done),
            }
        }
        Ok(Progress::Done)
    }

    /// The shop whose documents come next, or all of them at once (`Some(None)`); None: nothing is left.
    fn shop_at(
        &self,
        definition: &Definition,
        scan: &Scan,
        has_conditions: bool,
    ) -> Result<Option<Option<ShopId>>, SinkError> {
        let reached = scan.query.after.as_ref().map(|(shop, _)| shop);
        let is_left = |shop: &&ShopId| {
            scan.finished.as_ref().is_none_or(|finished| *shop > finished)
                && reached.is_none_or(|reached| *shop >= reached)
        };
        if let Some(wanted) = &scan.query.shops {
            return Ok(wanted.iter().filter(is_left).min().cloned().map(Some));
        }
        if !has_conditions || !self.store.is_indexed(&definition.name).map_err(broken)? {
            return Ok(Some(None));
        }
        let from = match (&scan.finished, reached) {
            (Some(finished), _) => Bound::Excluded(finished),
            (None, Some(reached)) => Bound::Included(reached),
            (None, None) => Bound::Unbounded,
        };
        Ok(self.store.next_archived_shop(&definition.name, from).map_err(broken)?.map(Some))
    }

    /// The next documents of a shop that the index finds. None: it has to be read document by document.
    fn look_up(
        &self,
        definition: &Definition,
        scan: &mut Scan,
        shop: &ShopId,
        conditions: &[IndexCondition],
    ) -> Result<Option<ArchivePage>, SinkError> {
        if scan.ahead.shop.as_ref() != Some(shop) || (scan.ahead.ids.is_empty() && scan.ahead.more.is_some()) {
            let after = scan.query.after.as_ref().filter(|(of, _)| of == shop).map(|(_, id)| id.as_str());
            let query = IndexQuery { resource: &definition.name, shop, conditions, after, count: FOUND_AT_ONCE };
            match self.store.archive_candidates(query).map_err(broken)? {
                Lookup::Found(Candidates { ids, more }) => {
                    scan.ahead = Ahead { shop: Some(shop.clone()), ids: ids.into(), more };
                }
                // As when all documents are read.
                Lookup::NoKey if scan.query.shops.is_none() => return Ok(Some(ArchivePage::default())),
                Lookup::NoKey | Lookup::NoIndex => {
                    scan.ahead = Ahead::default();
                    return Ok(None);
                }
            }
        }
        let mut page = ArchivePage::default();
        for _ in 0..OPENED_AT_ONCE {
            let Some(id) = scan.ahead.ids.pop_front() else { break };
            page.documents.extend(self.store.archived_one(&definition.name, shop, &id).map_err(broken)?);
            page.last = Some((shop.clone(), id));
        }
        if scan.ahead.ids.is_empty()
            && let Some(last) = &scan.ahead.more
        {
            page.last = Some((shop.clone(), last.clone()));
        }
        page.more = !scan.ahead.ids.is_empty() || scan.ahead.more.is_some();
        Ok(Some(page))
    }

    /// The next documents of a shop, or of all.
    fn read_on(&self, definition: &Definition, scan: &Scan, shop: Option<&ShopId>) -> Result<ArchivePage, SinkError> {
        let from = scan.query.after.as_ref().map(|(shop, id)| (shop.as_str(), id.as_str()));
        self.store.archived(&definition.name, shop.map(ShopId::as_str), from, SCANNED_AT_ONCE).map_err(broken)
    }
}

/// What the index can tell of the documents that a query looks for.
fn conditions(definition: &Definition, query: &ListQuery) -> Vec<IndexCondition> {
    let layout = &definition.facets;
    let filters = query.filters.iter().filter_map(|(place, text)| layout.of_filter(place, text));
    let mut conditions: Vec<IndexCondition> = filters.map(IndexCondition::Has).collect();
    if layout.has_time() && (query.from.is_some() || query.to.is_some()) {
        conditions.push(IndexCondition::Between(query.from, query.to));
    }
    conditions
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
