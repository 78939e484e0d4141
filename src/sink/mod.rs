//! Where documents go: the words that every sink shares.
//!
//! The writer hands batches of [`crate::domain::Entry`] to a sink and acknowledges them after its
//! commit; the HTTP side asks it for pages of documents. [`SinkErrorClass`] is all that the writer
//! needs to know about a failure. No sink deletes a document because a list did not show it.

pub mod archive;
pub(crate) mod filter;
pub mod mysql;
pub mod writer;

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::catalog::definition::Place;
use crate::catalog::extract::Cell;
use crate::domain::Held;
use crate::domain::clock::Millis;

pub use archive::Archive;
pub use mysql::Mysql;
pub use writer::Health;

/// What a failure of a sink means for the batch that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkErrorClass {
    /// Lost a race (deadlock, lock wait): the same transaction again, after a short pause.
    Repeat,
    /// The connection or the server is gone: reconnect, then repeat. Whether the batch was applied is
    /// not known.
    Disconnected,
    /// No connection came about, or the server itself says that it takes nothing now: nothing was applied, and no
    /// document can be to blame. Try again, ever less often.
    Unavailable,
    /// Every row was taken, but the commit's answer did not come: as `Disconnected`, and no document
    /// can be to blame.
    Unconfirmed,
    /// The server is out of space or memory: wait, say so, try again.
    NoRoom,
    /// Somebody must mend rights, names or settings: pause writing and say so.
    Operator,
    /// A document is refused. Bisect the batch and park the one.
    Poison,
    /// Anything else: like `Repeat`, then bisect; never endless.
    Unknown,
}

/// A failure of a sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SinkError {
    pub class: SinkErrorClass,
    /// For people: what and where, and the mend if there is one. Holds no password and no value of
    /// a document.
    pub text: String,
}

impl SinkError {
    /// A failure of this class.
    pub fn new(class: SinkErrorClass, text: impl Into<String>) -> SinkError {
        SinkError { class, text: text.into() }
    }

    /// The same failure, met before any document was sent: none can be to blame for it, however often it
    /// comes again.
    fn before_documents(self) -> SinkError {
        let class = match self.class {
            SinkErrorClass::Disconnected => SinkErrorClass::Unavailable,
            SinkErrorClass::Repeat | SinkErrorClass::Poison | SinkErrorClass::Unknown => SinkErrorClass::Operator,
            class => class,
        };
        SinkError { class, ..self }
    }
}

/// What a page of documents is asked for. All conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The shops that the caller may see; None: all.
    pub shops: Option<Vec<String>>,
    /// Only this one.
    pub shop: Option<String>,
    /// Places that must equal a text, by bytes. Times in RFC 3339, booleans `true` and `false`.
    /// A text that is no value of the column's type finds nothing.
    pub filters: Vec<(Place, String)>,
    /// Earliest time, inclusive: of the table's time column, or of `fetched_at` where it has none.
    pub from: Option<Millis>,
    /// Latest time, exclusive.
    pub to: Option<Millis>,
    /// A text that one of the places of the table's search contains, whatever its case.
    pub q: Option<String>,
    /// Items per page; 0 counts as 1.
    pub limit: usize,
    /// Where the page before ended: `(shop_id, id)`.
    pub after: Option<(String, String)>,
}

/// One document as the sink holds it.
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
    /// The typed columns in the definition's order, laid out from the document by
    /// [`crate::catalog::extract`], so that all sinks answer alike.
    pub columns: Vec<(String, Cell)>,
}

/// Bytes of documents from which on a page takes no more: all of it is in memory at once.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A page, in the order of `(shop_id, id)` by bytes. Pages of large documents hold fewer than were asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemPage {
    pub items: Vec<Item>,
    /// `after` of the next page; None: this was the last.
    pub next: Option<(String, String)>,
}

/// A page that takes items until it is full.
#[derive(Default)]
struct Filling {
    page: ItemPage,
    bytes: usize,
}

impl Filling {
    /// False: the page has `limit` items or bytes enough, and this one belongs to the next.
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

/// Where documents go.
#[derive(Clone)]
pub enum Sink {
    Mysql(std::sync::Arc<Mysql>),
    Archive(Archive),
}

impl Sink {
    /// `mysql` or `archive`.
    pub fn kind(&self) -> &'static str {
        match self {
            Sink::Mysql(_) => "mysql",
            Sink::Archive(_) => "archive",
        }
    }

    /// A page of documents.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn list(&self, resource: &str, query: &ListQuery) -> Result<ItemPage, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.list(resource, query).await,
            Sink::Archive(archive) => archive.list(resource, query).await,
        }
    }

    /// One document; None: no such document.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn get(&self, resource: &str, shop: &str, id: &str) -> Result<Option<Item>, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.get(resource, shop, id).await,
            Sink::Archive(archive) => archive.get(resource, shop, id).await,
        }
    }

    /// What is held of one shop's documents, by id, above the id `after`, ascending by bytes, at most `limit`.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Held)>, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.held(resource, shop, after, limit).await,
            Sink::Archive(archive) => archive.held(resource, shop, after, limit).await,
        }
    }
}

impl Sink {
    /// The documents in a range whose rows in child tables are not those of the stored document. The archive has no
    /// such tables.
    ///
    /// # Errors
    /// The sink cannot be read now.
    pub async fn wrong_children(&self, resource: &str, range: mysql::Range<'_>) -> Result<BTreeSet<String>, SinkError> {
        match self {
            Sink::Mysql(mysql) => mysql.wrong_children(resource, range).await,
            Sink::Archive(_) => Ok(BTreeSet::new()),
        }
    }

    /// Writes the rows of documents in child tables again, from the stored documents. How many documents there were.
    ///
    /// # Errors
    /// The sink's; what was written by then stays.
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
    fn nothing_met_before_the_documents_blames_one() {
        let before = |class| SinkError::new(class, "why").before_documents();
        for class in [Repeat, Disconnected, Unavailable, Unconfirmed, NoRoom, Operator, Poison, Unknown] {
            let SinkError { class, text } = before(class);
            assert!(!matches!(class, Repeat | Disconnected | Poison | Unknown), "{class:?}");
            assert_eq!(text, "why");
        }
        assert_eq!((before(NoRoom).class, before(Unconfirmed).class), (NoRoom, Unconfirmed));
    }
}
