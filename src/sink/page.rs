//! Documents as a sink returns them, page by page.

use bytes::Bytes;

use crate::catalog::definition::Place;
use crate::catalog::extract::Cell;
use crate::domain::{ShopId, Timestamp};

/// A page ends once its documents reach this many bytes, because the whole page is in memory.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A query for one page of documents. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only these shops; None: all.
    pub shops: Option<Vec<ShopId>>,
    /// Columns that must equal a text, byte by byte. Times are RFC 3339, booleans `true` and `false`. A text that is
    /// not a value of the column's type matches nothing.
    pub filters: Vec<(Place, String)>,
    /// Earliest time, inclusive: of the table's time column, or of `fetched_at` where it has none.
    pub from: Option<Timestamp>,
    /// Latest time, exclusive.
    pub to: Option<Timestamp>,
    /// Case-insensitive substring, looked for in the searchable columns of the table.
    pub q: Option<String>,
    /// Items per page; 0 counts as 1.
    pub limit: usize,
    /// Where the previous page ended: `(shop_id, id)`.
    pub after: Option<(ShopId, String)>,
}

/// One stored document.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub shop_id: ShopId,
    pub id: String,
    pub fetched_at: Timestamp,
    pub version: u64,
    pub first_listed_at: Timestamp,
    /// None while the API lists it.
    pub no_longer_listed_at: Option<Timestamp>,
    /// The JSON text.
    pub document: Bytes,
    /// The typed columns in the definition's order, extracted from the document by [`crate::catalog::extract`], so
    /// that all sinks return the same values.
    pub columns: Vec<(String, Cell)>,
}

/// A page, ordered by the bytes of `(shop_id, id)`. May hold fewer items than requested if documents are large.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemPage {
    pub items: Vec<Item>,
    /// `after` of the next page; None on the last page.
    pub next: Option<(ShopId, String)>,
}

/// Collects items until the page is full.
#[derive(Default)]
pub(super) struct PageBuilder {
    pub(super) page: ItemPage,
    bytes: usize,
}

impl PageBuilder {
    /// Adds an item; false if the page already has `limit` items or enough bytes.
    pub(super) fn take(&mut self, item: Item, limit: usize) -> bool {
        if self.page.items.len() >= limit.max(1) || self.bytes >= PAGE_BYTES_MAX {
            self.page.next = self.page.items.last().map(|item| (item.shop_id.clone(), item.id.clone()));
            return false;
        }
        self.bytes = self.bytes.saturating_add(item.document.len());
        self.page.items.push(item);
        true
    }
}
