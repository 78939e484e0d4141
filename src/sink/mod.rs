//! Where documents go: the types that every sink shares.
//!
//! The writer hands batches of [`crate::domain::Entry`] to a sink and acknowledges them after its commit; the HTTP
//! side reads pages of documents from it. [`SinkErrorClass`] is all that the writer needs to know about a failure. No
//! sink deletes a document because a list did not show it.

pub mod archive;
pub(crate) mod filter;
pub mod mysql;
pub mod writer;

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::catalog::definition::Place;
use crate::catalog::extract::Cell;
use crate::domain::StoredVersion;
use crate::domain::clock::Millis;

pub use archive::Archive;
pub use mysql::Mysql;
pub use writer::Health;

/// What a sink's failure means for the batch that was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkErrorClass {
    /// Lost a race (deadlock, lock wait): repeat the same transaction after a short pause.
    Repeat,
    /// The connection or the server is gone: reconnect, then repeat. The batch may or may not have been applied.
    Disconnected,
    /// No connection could be made, or the server refuses all work for now: nothing was applied, and no document is
    /// the cause. Retry with backoff.
    Unavailable,
    /// Every row was accepted, but the answer to COMMIT never arrived: like `Disconnected`, and no document is the
    /// cause.
    Unconfirmed,
    /// The server is out of disk space or memory: report it, wait, retry.
    NoRoom,
    /// Rights, names or settings need an operator: pause writing and report it.
    Operator,
    /// A document is refused. Bisect the batch and park that document.
    Poison,
    /// Anything else: retry like `Repeat`, then bisect; the retries are bounded.
    Unknown,
}

/// A failure of a sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SinkError {
    pub class: SinkErrorClass,
    /// For people: what failed, where, and the remedy if one is known. Contains no password and no value of a
    /// document.
    pub text: String,
}

impl SinkError {
    /// Creates a failure of this class.
    pub fn new(class: SinkErrorClass, text: impl Into<String>) -> SinkError {
        SinkError { class, text: text.into() }
    }

    /// Reclassifies a failure that occurred before any document was sent: it never blames a document, however often it
    /// repeats.
    fn before_documents(self) -> SinkError {
        let class = match self.class {
            SinkErrorClass::Disconnected => SinkErrorClass::Unavailable,
            SinkErrorClass::Repeat | SinkErrorClass::Poison | SinkErrorClass::Unknown => SinkErrorClass::Operator,
            class => class,
        };
        SinkError { class, ..self }
    }
}

/// A query for one page of documents. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The shops that the caller may see; None: all.
    pub shops: Option<Vec<String>>,
    /// Only this shop.
    pub shop: Option<String>,
    /// Columns that must equal a text, byte by byte. Times are RFC 3339, booleans `true` and `false`. A text that is
    /// not a value of the column's type matches nothing.
    pub filters: Vec<(Place, String)>,
    /// Earliest time, inclusive: of the table's time column, or of `fetched_at` where it has none.
    pub from: Option<Millis>,
    /// Latest time, exclusive.
    pub to: Option<Millis>,
    /// Case-insensitive substring, looked for in the searchable columns of the table.
    pub q: Option<String>,
    /// Items per page; 0 counts as 1.
    pub limit: usize,
    /// Where the previous page ended: `(shop_id, id)`.
    pub after: Option<(String, String)>,
}

/// One stored document.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub shop_id: String,
    pub id: String,
    pub fetched_at: Millis,
    pub version: u64,
    pub first_listed_at: Millis,
    /// None while the API lists it.
    pub no_longer_listed_at: Option<Millis>,
    /// The JSON text.
    pub document: Bytes,
    /// The typed columns in the definition's order, extracted from the document by [`crate::catalog::extract`], so
    /// that all sinks return the same values.
    pub columns: Vec<(String, Cell)>,
}

/// A page ends once its documents reach this many bytes, because the whole page is in memory.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A page, ordered by the bytes of `(shop_id, id)`. May hold fewer items than requested if documents are large.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemPage {
    pub items: Vec<Item>,
    /// `after` of the next page; None on the last page.
    pub next: Option<(String, String)>,
}

/// Collects items until the page is full.
#[derive(Default)]
struct PageBuilder {
    page: ItemPage,
    bytes: usize,
}

impl PageBuilder {
    /// Adds an item; false if the page already has `limit` items or enough bytes.
    fn take(&mut self, item: Item, limit: usize) -> bool {
        if self.page.items.len() >= limit.max(1) || self.bytes >= PAGE_BYTES_MAX {
            self.page.next = self.page.items.last().map(|item| (item.shop_id.clone(), item.id.clone()));
            return false;
        }
        self.bytes = self.bytes.saturating_add(item.document.len());
        self.page.items.push(item);
        true
    }
}

/// A sink: MySQL or the embedded archive.
#[derive(Clone)]
pub enum Sink {
    Mysql(std::sync::Arc<Mysql>),
    Archive(Archive),
}

impl Sink {
    /// Returns `mysql` or `archive`.
    pub fn kind(&self) -> &'static str {
        match self {
            Sink::Mysql(_) => "mysql",
            Sink::Archive(_) => "archive",
        }
    }

    /// Reads one page of documents.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn list(&self, resource: &str, query: &ListQuery) -> Result<ItemPage, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.list(resource, query).await,
            Sink::Archive(archive) => archive.list(resource, query).await,
        }
    }

    /// Reads one document; None if there is no such document.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn get(&self, resource: &str, shop: &str, id: &str) -> Result<Option<Item>, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.get(resource, shop, id).await,
            Sink::Archive(archive) => archive.get(resource, shop, id).await,
        }
    }

    /// Reads which versions of one shop's documents are stored, with ids above `after`, ascending by bytes, at most
    /// `limit`.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, StoredVersion)>, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.held(resource, shop, after, limit).await,
            Sink::Archive(archive) => archive.held(resource, shop, after, limit).await,
        }
    }
}

impl Sink {
    /// Finds the documents in a range whose child rows differ from the stored document. The archive has no child
    /// tables.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn wrong_children(&self, resource: &str, range: mysql::Range<'_>) -> Result<BTreeSet<String>, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.wrong_children(resource, range).await,
            Sink::Archive(_) => Ok(BTreeSet::new()),
        }
    }

    /// Rewrites the child rows of these documents from the stored documents; returns how many documents were found.
    ///
    /// # Errors
    /// The sink's; rows written before the failure stay.
    pub async fn rewrite_children(&self, resource: &str, shop: &str, ids: &[String]) -> Result<u64, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.rewrite_children(resource, shop, ids).await,
            Sink::Archive(_) => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SinkError;
    use super::SinkErrorClass::{Disconnected, NoRoom, Operator, Poison, Repeat, Unavailable, Unconfirmed, Unknown};

    #[test]
    fn a_failure_before_any_document_is_sent_blames_no_document() {
        let before = |class| SinkError::new(class, "why").before_documents();
        for class in [Repeat, Disconnected, Unavailable, Unconfirmed, NoRoom, Operator, Poison, Unknown] {
            let SinkError { class, text } = before(class);
            assert!(!matches!(class, Repeat | Disconnected | Poison | Unknown), "{class:?}");
            assert_eq!(text, "why");
        }
        assert_eq!((before(NoRoom).class, before(Unconfirmed).class), (NoRoom, Unconfirmed));
    }
}
