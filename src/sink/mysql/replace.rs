//! Replaces documents and their children, by version.
//!
//! First the transaction locks the existing rows of its documents and reads their versions. Existing rows are
//! replaced, others are inserted, and an insert never overwrites. So what was new is known, not inferred from counts
//! of affected rows, which triggers, system versioning and client flags change. A document that is newer in the table
//! than in the batch keeps its columns and its children.

use std::collections::HashMap;

use mysql_async::prelude::FromRow;
use mysql_async::{Transaction, Value};

use crate::sink::{SinkError, SinkErrorClass};

use super::execute::Bounds;
use super::layout::{ID_CHARS_MAX, Layout, SHOP_CHARS_MAX, SqlTable};
use super::plan::{ChildRows, DocumentKey, LaidOutRows};
use super::statements::Sized;
use super::value::{RowBuffer, There, text_value};

/// What the server returned for documents, by shop and id.
struct ByDocument<T>(HashMap<String, HashMap<String, T>>);

impl<T> ByDocument<T> {
    fn new(found: impl Iterator<Item = (String, String, T)>) -> ByDocument<T> {
        let mut by_shop: HashMap<String, HashMap<String, T>> = HashMap::new();
        for (shop, id, value) in found {
            by_shop.entry(shop).or_default().insert(id, value);
        }
        ByDocument(by_shop)
    }

    fn get(&self, document: &DocumentKey<'_>) -> Option<&T> {
        self.0.get(document.shop)?.get(document.id)
    }
}

/// Maximum bytes of a document's key in a statement.
const KEY_BYTES_MAX: usize = 4 * (SHOP_CHARS_MAX + ID_CHARS_MAX) + 64;

/// A child table with the statements that count and delete the rows of documents.
struct ChildStatements<'a> {
    table: &'a SqlTable,
    counts: &'a [Sized],
    surpluses: &'a [Sized],
}

/// Writes documents and their children, in primary key order so that concurrent writers do not deadlock.
pub(super) async fn replace(
    transaction: &mut Transaction<'_>,
    layout: &Layout,
    rows: LaidOutRows<'_>,
    bounds: Bounds,
) -> Result<(), SinkError> {
    let LaidOutRows { parent, children, documents } = rows;
    if documents.is_empty() {
        return Ok(());
    }
    let there = versions(transaction, layout, &documents, bounds).await?;
    // A newer existing document is written too, but only its first listing time changes, to the earlier of both.
    let known = |place: usize| match there.get(place) {
        Some(There::New) => There::New,
        _ => There::Known,
    };
    let (new, known) = parent.divide(known);
    send(transaction, new, &layout.parent.inserts, bounds).await?;
    send(transaction, known, &layout.parent.upserts, bounds).await?;
    let is_ours = |place: &usize| there.get(*place).is_some_and(|there| *there != There::Newer);
    let ours: Vec<usize> = (0..documents.len()).filter(is_ours).collect();
    replace_all_children(transaction, layout, children, Locked { documents: &documents, ours: &ours }, bounds).await
}

/// Documents whose own rows are locked, and the indices of those whose child rows are replaced.
#[derive(Clone, Copy)]
pub(super) struct Locked<'a> {
    pub documents: &'a [DocumentKey<'a>],
    pub ours: &'a [usize],
}

/// Replaces the child rows, in all tables.
pub(super) async fn replace_all_children(
    transaction: &mut Transaction<'_>,
    layout: &Layout,
    children: Vec<ChildRows>,
    of: Locked<'_>,
    bounds: Bounds,
) -> Result<(), SinkError> {
    let statements = layout.child_counts.iter().zip(&layout.surpluses);
    for (of_child, (table, (counts, surpluses))) in children.into_iter().zip(layout.children.iter().zip(statements)) {
        replace_children(transaction, &ChildStatements { table, counts, surpluses }, of_child, of, bounds).await?;
    }
    Ok(())
}

/// Locks the existing documents, and compares their versions with ours.
async fn versions(
    transaction: &mut Transaction<'_>,
    layout: &Layout,
    documents: &[DocumentKey<'_>],
    bounds: Bounds,
) -> Result<Vec<There>, SinkError> {
    let found: Vec<(String, String, u64)> =
        read_by_key(transaction, &layout.versions, documents.iter(), bounds).await?;
    let count = found.len();
    let found = ByDocument::new(found.into_iter());
    let mut matched = 0;
    let there = documents.iter().map(|document| {
        let stored = found.get(document);
        matched += usize::from(stored.is_some());
        match stored {
            None => There::New,
            Some(version) if *version > document.version => There::Newer,
            Some(_) => There::Known,
        }
    });
    let there = there.collect();
    // The server returned rows with other ids than were asked for.
    if matched < count {
        let (table, id) = (&layout.parent.name, &layout.definition.table.id_column);
        let text = format!(
            "table `{table}`: the server treats different ids as equal, because `shop_id` or `{id}` does not compare by bytes; \
             run `waybill check` for the statement that repairs it"
        );
        return Err(SinkError::new(SinkErrorClass::Operator, text));
    }
    Ok(there)
}

/// Replaces the rows of these documents in a child table. A row that keeps its position is updated, not deleted:
/// columns that people added keep their values.
async fn replace_children(
    transaction: &mut Transaction<'_>,
    child: &ChildStatements<'_>,
    of_child: ChildRows,
    of: Locked<'_>,
    bounds: Bounds,
) -> Result<(), SinkError> {
    let ChildRows { rows, places, counts } = of_child;
    let Locked { documents, ours } = of;
    let ours_of = || ours.iter().filter_map(|place| Some((*place, documents.get(*place)?)));
    let keys = ours_of().map(|(_, document)| document);
    let found: Vec<(String, String, u64, u64)> = read_by_key(transaction, child.counts, keys, bounds).await?;
    let found = ByDocument::new(found.into_iter().map(|(shop, id, count, last)| (shop, id, (count, last))));
    // How many leading rows of each document exist and stay; None if its children are not ours.
    let mut kept: Vec<Option<u64>> = vec![None; documents.len()];
    let mut surpluses = RowBuffer::new(3);
    for (place, document) in ours_of() {
        let (count, last) = found.get(document).copied().unwrap_or_default();
        // With gaps between them, left by manual deletes, it is unknown which exist.
        let is_whole = last < count;
        let wanted = counts.get(place).copied().unwrap_or(0);
        let stays = if is_whole { count.min(wanted) } else { 0 };
        if stays < count {
            let key = [text_value(document.shop), text_value(document.id), Value::UInt(stays)];
            surpluses.push(key.into_iter());
        }
        if let Some(kept) = kept.get_mut(place) {
            *kept = Some(stays);
        }
    }
    let there = |row: usize| {
        let place = places.get(row);
        match place.and_then(|place| Some((place.position, kept.get(place.document).copied()??))) {
            None => There::Newer,
            Some((position, kept)) if position < kept => There::Known,
            Some(_) => There::New,
        }
    };
    let (new, known) = rows.divide(there);
    send(transaction, surpluses, child.surpluses, bounds).await?;
    send(transaction, known, &child.table.upserts, bounds).await?;
    send(transaction, new, &child.table.inserts, bounds).await
}

/// Sends rows in statements of the given sizes.
pub(super) async fn send(
    transaction: &mut Transaction<'_>,
    rows: RowBuffer,
    statements: &[Sized],
    bounds: Bounds,
) -> Result<(), SinkError> {
    for (text, values) in rows.cut(statements, bounds.bytes) {
        bounds.execute(transaction, text, values).await?;
    }
    Ok(())
}

/// Runs a statement for documents in as few round trips as possible: the last call repeats its last document to fill
/// the statement, which finds it once.
async fn read_by_key<'a, R: FromRow + Send + 'static>(
    transaction: &mut Transaction<'_>,
    statements: &[Sized],
    documents: impl Iterator<Item = &'a DocumentKey<'a>>,
    bounds: Bounds,
) -> Result<Vec<R>, SinkError> {
    let documents: Vec<&DocumentKey<'_>> = documents.collect();
    let largest = statements.iter().find(|sized| sized.rows * KEY_BYTES_MAX <= bounds.bytes);
    let rows_max = largest.map_or(1, |largest| largest.rows);
    let mut found = Vec::new();
    for some in documents.chunks(rows_max) {
        let fitting = statements.iter().rev().find(|sized| sized.rows >= some.len());
        let Some(statement) = fitting else { continue };
        let padded = some.iter().chain(std::iter::repeat_n(some.last(), statement.rows - some.len()).flatten());
        let values = padded.flat_map(|document| [text_value(document.shop), text_value(document.id)]).collect();
        found.extend(bounds.read(transaction, &statement.text, values).await?);
    }
    Ok(found)
}
