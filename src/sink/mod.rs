//! Where documents go: MySQL, or the archive.
//!
//! The writer hands batches of [`crate::domain::Entry`] to a sink and acknowledges them after its commit; the HTTP
//! side reads pages of documents from it. No sink deletes a document because a list did not show it.

pub mod archive;
mod error;
pub mod mysql;
mod page;
mod scan;
mod turns;
pub mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;

use tracing::Instrument as _;

use crate::domain::StoredVersion;
use crate::supervisor::describe_join_error;

pub use archive::Archive;
pub use error::{ReadError, SinkError, SinkErrorClass};
pub use mysql::Mysql;
pub use page::{Item, ItemPage, ListQuery};
pub use turns::{Late, Read, ReadLimits, ReadTurns, TooManyReads};
pub use writer::SinkHealth;

use scan::{Progress, Scan};

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

    /// Slices of listings that run at the same time. A slice of the archive takes a processor; in MySQL, one that takes
    /// long must not stop the others.
    pub fn places(&self) -> usize {
        match self {
            Sink::Mysql(_) => 2,
            Sink::Archive(_) => 1,
        }
    }

    /// How many times as long as it read too much a key rests while documents are synced. What a slice of MySQL takes, the
    /// server takes again, from the sync that writes to it.
    pub fn rests(&self) -> u32 {
        match self {
            Sink::Mysql(_) => 19,
            Sink::Archive(_) => 9,
        }
    }

    /// Reads one page of documents, in turns with other readers.
    ///
    /// # Errors
    /// The sink cannot be read now, or the time of the read is over.
    pub async fn list(&self, resource: &str, query: &ListQuery, read: &mut Read) -> Result<ItemPage, ReadError> {
        let mut scan = Scan::new(query);
        loop {
            let turn = read.turn().await?;
            let (sink, resource) = (self.clone(), resource.to_owned());
            // A slice runs to its end although its caller goes away: its place is not free before that.
            let slice = async move {
                let sliced = sink.slice(&resource, scan).await;
                drop(turn);
                sliced
            };
            let sliced = tokio::spawn(slice.in_current_span()).await.unwrap_or_else(|error| {
                let text = format!("reading documents: {}", describe_join_error(&error));
                Err(SinkError::new(SinkErrorClass::Unknown, text))
            });
            match sliced {
                Ok((scan, Progress::Done)) => return Ok(scan.page()),
                Ok((goes_on, Progress::More)) => scan = goes_on,
                // The server stops a statement that takes longer than a read may.
                Err(_) if read.is_late() => return Err(ReadError::Late),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn slice(&self, resource: &str, mut scan: Scan) -> Result<(Scan, Progress), SinkError> {
        match self {
            Sink::Mysql(mysql) => {
                let progress = mysql.slice(resource, &mut scan).await?;
                Ok((scan, progress))
            }
            Sink::Archive(archive) => archive.slice(resource, scan).await,
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
