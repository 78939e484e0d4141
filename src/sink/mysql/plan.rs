//! Turns a batch of entries into the work of one transaction. Pure.
//!
//! Keeps the order within a batch where it matters: the purge of a shop cancels what precedes it, only the newest
//! reading of a document is written, and listing notes follow the documents (they carry a version, so an older note
//! loses against a newer document).

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::catalog::definition::ChildTable;
use crate::catalog::extract::{Cell, Extract, extract};
use crate::domain::document::{Document, Entry};
use crate::domain::shop::Shop;
use crate::domain::stream::{Checkpoint, ListParams, StreamId};
use crate::domain::{Json, Timestamp};
use crate::sink::{SinkError, SinkErrorClass};

use super::layout::{ID_CHARS_MAX, Layout, SHOP_CHARS_MAX};
use super::value::{RowBuffer, cell_value, datetime_value, text_value};
use mysql_async::Value;

/// The work of a batch.
#[derive(Default)]
pub(super) struct BatchPlan<'a> {
    /// Shops whose rows are deleted before everything else.
    pub purges: Vec<&'a str>,
    /// Per layout: the newest reading of each document, by primary key.
    pub documents: Vec<BTreeMap<(&'a str, &'a str), BatchDocument<'a>>>,
    pub listings: Vec<Listing<'a>>,
    pub mirror: Vec<Mirror<'a>>,
}

/// A document with the earliest listing time of its readings in the batch.
pub(super) struct BatchDocument<'a> {
    pub document: &'a Document,
    pub first_listed_at: Timestamp,
}

pub(super) struct Listing<'a> {
    /// Index of its layout.
    pub layout: usize,
    pub shop: &'a str,
    pub id: &'a str,
    pub version: u64,
    pub no_longer_listed_at: Option<Timestamp>,
}

/// A change of the tables that mirror the embedded store.
pub(super) enum Mirror<'a> {
    Checkpoint { stream: &'a StreamId, checkpoint: &'a Checkpoint },
    Shop { shop: &'a Shop, sealed: &'a [u8] },
    ShopDeleted { shop: &'a str },
}

impl<'a> BatchPlan<'a> {
    /// The greatest version of the batch; 0 if it has none.
    pub(super) fn high_version(&self) -> u64 {
        let documents = self.documents.iter().flat_map(BTreeMap::values).map(|reading| reading.document.version);
        documents.chain(self.listings.iter().map(|listing| listing.version)).max().unwrap_or_default()
    }

    /// # Errors
    /// Class `Poison`, naming the entry: an unconfigured resource, or an id that cannot be a key.
    pub(super) fn new<E: Borrow<Entry>>(entries: &'a [E], layouts: &[Layout]) -> Result<BatchPlan<'a>, SinkError> {
        let mut plan = BatchPlan::default();
        plan.documents.resize_with(layouts.len(), BTreeMap::new);
        for entry in entries {
            match entry.borrow() {
                Entry::Document(document) => {
                    let layout = place(layouts, &document.resource, &document.shop, &document.id)?;
                    if document.combination.to_string().chars().count() > ListParams::CHARS_MAX {
                        return Err(poison(document, "its list parameters are longer than 255 characters"));
                    }
                    if let Some(documents) = plan.documents.get_mut(layout) {
                        keep_newest(documents, document);
                    }
                }
                Entry::Listing { shop, resource, id, version, no_longer_listed_at } => {
                    let layout = place(layouts, resource, shop, id)?;
                    let (version, no_longer_listed_at) = (*version, *no_longer_listed_at);
                    plan.listings.push(Listing { layout, shop, id, version, no_longer_listed_at });
                }
                Entry::Checkpoint { stream, checkpoint } => plan.mirror.push(Mirror::Checkpoint { stream, checkpoint }),
                Entry::Shop { shop, sealed } => plan.mirror.push(Mirror::Shop { shop, sealed }),
                Entry::ShopDeleted { shop, purge } => {
                    if *purge {
                        plan.forget(shop);
                    }
                    plan.mirror.push(Mirror::ShopDeleted { shop });
                }
            }
        }
        Ok(plan)
    }

    fn forget(&mut self, shop: &'a str) {
        for documents in &mut self.documents {
            documents.retain(|(of, _), _| *of != shop);
        }
        self.listings.retain(|listing| listing.shop != shop);
        self.purges.push(shop);
    }
}

/// A newer or equal version replaces; the earliest listing time is kept.
fn keep_newest<'a>(documents: &mut BTreeMap<(&'a str, &'a str), BatchDocument<'a>>, document: &'a Document) {
    let key = (document.shop.as_str(), document.id.as_str());
    let fresh = BatchDocument { document, first_listed_at: document.first_listed_at };
    let kept = documents.entry(key).or_insert(fresh);
    kept.first_listed_at = kept.first_listed_at.min(document.first_listed_at);
    if document.version >= kept.document.version {
        kept.document = document;
    }
}

/// Finds the layout of a resource and checks the keys. MySQL's `utf8mb4_bin` ignores trailing spaces, so such an id
/// would collide with another.
fn place(layouts: &[Layout], resource: &str, shop: &str, id: &str) -> Result<usize, SinkError> {
    let refuse = |what: &str| {
        SinkError::new(SinkErrorClass::Poison, format!("{resource} of shop {shop}, id {}: {what}", short(id)))
    };
    if id.is_empty() || id.ends_with(' ') || id.chars().count() > ID_CHARS_MAX {
        return Err(refuse("an id must have 1 to 128 characters and no space at its end"));
    }
    if shop.is_empty() || shop.ends_with(' ') || shop.chars().count() > SHOP_CHARS_MAX {
        return Err(refuse("a shop's id must have 1 to 64 characters and no space at its end"));
    }
    layouts
        .iter()
        .position(|layout| layout.definition.name == resource)
        .ok_or_else(|| refuse("the resource is not configured; name it under `resources` and retry"))
}

fn poison(document: &Document, what: &str) -> SinkError {
    let Document { resource, shop, id, .. } = document;
    SinkError::new(SinkErrorClass::Poison, format!("{resource} of shop {shop}, id {}: {what}", short(id)))
}

/// An id shortened for a log line.
fn short(id: &str) -> String {
    id.chars().map(|c| if c.is_control() { '?' } else { c }).take(ID_CHARS_MAX).collect()
}

/// The rows of some documents, ready to write.
pub(super) struct LaidOutRows<'a> {
    /// One per document, in the order of `documents`.
    pub parent: RowBuffer,
    pub children: Vec<ChildRows>,
    pub documents: Vec<DocumentKey<'a>>,
}

/// Identifies a document and this version of it.
#[derive(Clone, Copy)]
pub(super) struct DocumentKey<'a> {
    pub shop: &'a str,
    pub id: &'a str,
    pub version: u64,
}

/// The rows of some documents in one child table.
pub(super) struct ChildRows {
    pub rows: RowBuffer,
    /// For each row, the index of its document and its position within it.
    pub places: Vec<ChildPlace>,
    /// Rows per document.
    pub counts: Vec<u64>,
}

pub(super) struct ChildPlace {
    pub document: usize,
    pub position: u64,
}

impl ChildRows {
    pub(super) fn new(width: usize) -> ChildRows {
        ChildRows { rows: RowBuffer::new(width), places: Vec::new(), counts: Vec::new() }
    }

    /// Adds the rows of one document; returns the bytes of the largest.
    pub(super) fn push(
        &mut self,
        place: usize,
        document: DocumentKey<'_>,
        child: &ChildTable,
        rows: Vec<Vec<Cell>>,
    ) -> usize {
        let mut bytes = 0;
        self.counts.push(rows.len() as u64);
        for (position, cells) in (0u64..).zip(rows) {
            let key = [text_value(document.shop), text_value(document.id), Value::UInt(position)];
            let own = cells.into_iter().zip(&child.columns).map(|(cell, column)| cell_value(cell, column.kind));
            bytes = bytes.max(self.rows.push(key.into_iter().chain(own).chain([Value::UInt(document.version)])));
            self.places.push(ChildPlace { document: place, position });
        }
        bytes
    }
}

impl<'a> LaidOutRows<'a> {
    pub(super) fn new(layout: &Layout) -> LaidOutRows<'a> {
        LaidOutRows {
            parent: RowBuffer::new(layout.parent.width),
            children: layout.children.iter().map(|child| ChildRows::new(child.width)).collect(),
            documents: Vec::new(),
        }
    }

    /// Lays out one document, in the order of the layout's columns.
    ///
    /// # Errors
    /// Class `Poison` if it is not JSON, or if one of its rows is larger than `packet` bytes.
    pub(super) fn push(
        &mut self,
        layout: &Layout,
        reading: &BatchDocument<'a>,
        packet: usize,
    ) -> Result<(), SinkError> {
        let document = reading.document;
        let value = Json::parse(&document.body).map_err(|error| poison(document, &format!("invalid JSON: {error}")))?;
        let laid_out = extract(&layout.definition, &document.id, &value, &document.combination);
        self.push_extract(layout, reading, laid_out, packet)
    }

    /// Adds the rows of one document.
    ///
    /// # Errors
    /// Class `Poison` if one of its rows is larger than `packet` bytes.
    pub(super) fn push_extract(
        &mut self,
        layout: &Layout,
        reading: &BatchDocument<'a>,
        laid_out: Extract,
        packet: usize,
    ) -> Result<(), SinkError> {
        let (document, table) = (reading.document, &layout.definition.table);
        let key = || [text_value(&document.shop), text_value(&document.id)];

        let own = laid_out.cells.into_iter().zip(&table.columns).map(|(cell, column)| cell_value(cell, column.kind));
        let parent = key().into_iter().chain([Value::Bytes(document.combination.to_string().into_bytes())]);
        let mut bytes = self.parent.push(parent.chain(own).chain([
            Value::Bytes(document.body.to_vec()),
            datetime_value(document.fetched_at),
            datetime_value(reading.first_listed_at),
            Value::UInt(document.row_hash),
            Value::UInt(document.document_hash),
            Value::UInt(document.version),
        ]));
        let place = self.documents.len();
        for ((rows, child), of_child) in laid_out.children.into_iter().zip(&table.children).zip(&mut self.children) {
            let key = DocumentKey { shop: &document.shop, id: &document.id, version: document.version };
            bytes = bytes.max(of_child.push(place, key, child, rows));
        }
        if bytes > packet {
            return Err(poison(
                document,
                &format!("a row of {bytes} bytes exceeds the server's limit; raise max_allowed_packet and retry"),
            ));
        }
        self.documents.push(DocumentKey { shop: &document.shop, id: &document.id, version: document.version });
        Ok(())
    }
}
