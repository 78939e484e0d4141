//! Where documents go: MySQL, or the archive.
//!
//! The writer hands batches of [`crate::domain::Entry`] to a sink and acknowledges them after its commit; the HTTP
//! side reads pages of documents from it. No sink deletes a document because a list did not show it.

pub mod archive;
mod error;
pub(crate) mod filter;
pub mod mysql;
mod page;
pub mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::domain::StoredVersion;

pub use archive::Archive;
pub use error::{SinkError, SinkErrorClass};
pub use mysql::Mysql;
pub use page::{Item, ItemPage, ListQuery};
pub use writer::SinkHealth;

/// A sink: MySQL or the embedded archive.
#[derive(Clone)]
pub enum Sink {
    Mysql(Arc<Mysql>),
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
