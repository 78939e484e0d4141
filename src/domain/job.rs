//! Jobs, attempts, leases, and the effects of a finished step.
//!
//! A step reads the API and returns [`Effects`]; the store commits them in one act. Nothing else
//! changes the queue.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::Millis;
use super::stream::{Combination, StreamId};

/// How urgent a job is: new before changed before history before routine re-reads.
/// The number is part of the queue's keys; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Pages; they find everything else.
    List = 0,
    /// Rows that an incremental run found.
    New = 1,
    /// Known rows whose content changed.
    Changed = 2,
    /// Rows of a first or full walk.
    History = 3,
    /// Re-reads asked for by the refresh rule.
    Refresh = 4,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobKind {
    /// Read one page of a stream.
    ListPage {
        run: u64,
        combination: Combination,
        /// Number of the page, from 1; counts up in every page style.
        page: u64,
        /// Where the page style says the next page begins (cursor or link), if it says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Digest of the page before, to notice an API that ignores the page parameter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<String>,
        /// Digest of the last page whose number is a power of two, to notice a list that leads in a circle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<String>,
    },
    /// Note which rows a full walk did not see. Makes no call.
    Sweep {
        run: u64,
        combination: Combination,
        /// The last id looked at; empty at the start.
        after: String,
    },
    /// Read one detail.
    FetchDetail {
        /// None for re-reads that the refresh rule asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<u64>,
        combination: Combination,
        id: String,
    },
}

/// A try of a job; the first is 1.
pub type Attempt = u32;

/// A unit of durable work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Unique within one data directory; orders jobs of one class.
    pub seq: u64,
    pub shop: String,
    pub resource: String,
    pub class: Class,
    #[serde(flatten)]
    pub kind: JobKind,
    /// Tries so far, the running one included.
    #[serde(default)]
    pub attempts: Attempt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Times that it was parked and put back unasked.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub revived: u32,
}

impl Job {
    /// A job that nobody has tried yet.
    pub fn new(seq: u64, shop: &str, resource: &str, class: Class, kind: JobKind) -> Job {
        let (shop, resource) = (shop.to_owned(), resource.to_owned());
        Job { seq, shop, resource, class, kind, attempts: 0, last_error: None, revived: 0 }
    }

    /// The document that it reads; none for pages and sweeps.
    pub fn document(&self) -> Option<&str> {
        match &self.kind {
            JobKind::FetchDetail { id, .. } => Some(id),
            JobKind::ListPage { .. } | JobKind::Sweep { .. } => None,
        }
    }

    /// The stream this job belongs to.
    pub fn stream(&self) -> StreamId {
        let combination = match &self.kind {
            JobKind::ListPage { combination, .. }
            | JobKind::Sweep { combination, .. }
            | JobKind::FetchDetail { combination, .. } => combination.clone(),
        };
        StreamId { shop: self.shop.clone(), resource: self.resource.clone(), combination }
    }

    /// The run that asked for it.
    pub fn run(&self) -> Option<u64> {
        match &self.kind {
            JobKind::ListPage { run, .. } | JobKind::Sweep { run, .. } => Some(*run),
            JobKind::FetchDetail { run, .. } => *run,
        }
    }
}

/// A claim on a job for one attempt. Only the current claim may commit; a late one is fenced off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub job: Job,
    pub attempt: Attempt,
    /// Unique within one process; shared by the jobs that were leased together.
    pub claim: u64,
    /// The store's record that the job stands in, with others of its kind.
    pub record: u64,
}

/// One row of a list page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    /// Digest of what distinguishes a changed row from a known one, independent of key order, white space and, where a detail
    /// holds the content, of the order within arrays.
    pub hash: u64,
    /// The digest by which earlier versions knew the same row, where it is another.
    pub legacy: Option<u64>,
    /// The row's own time, where the definition names one and the row has it.
    pub time: Option<Millis>,
    /// The row as received; kept only for resources whose row is the document.
    pub body: Option<Bytes>,
}

/// A row of a list page that cannot be kept: it has no usable id, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The id as far as there is one, cut and without control characters.
    pub id: Option<String>,
    pub reason: String,
    /// A digest of a row without an id, which distinguishes it from others: it may be any of those that are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<u64>,
}

impl Rejected {
    /// A row that can be read, and whose id cannot be used.
    pub fn new(id: Option<String>, reason: String) -> Rejected {
        Rejected { id, reason, unreadable: None }
    }

    /// Tells rows of one list apart.
    pub fn mark(&self) -> String {
        let id = self.id.as_deref().unwrap_or_default();
        match self.unreadable {
            Some(digest) => format!("{id}|{digest:016x}|{}", self.reason),
            None => format!("{id}|{}", self.reason),
        }
    }
}

/// What a finished step wants changed, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effects {
    /// A page came.
    Page {
        rows: Vec<Row>,
        /// Rows that cannot be kept; to be parked, so that people see them.
        rejected: Vec<Rejected>,
        /// Digest of the whole page.
        digest: String,
        /// Where the next page begins.
        next: Next,
        /// Why the list may have more rows although this is its last page.
        doubt: Option<String>,
    },
    /// A detail came.
    Detail {
        body: Bytes,
        /// Digest of the document, independent of key order and white space.
        hash: u64,
        /// When the refresh rule wants it read again; none: final, or no rule.
        refresh_after_ms: Option<i64>,
    },
    /// The API does not know the id (any more). What the sink holds stays.
    Gone,
    /// A job without a call; the store does all of it.
    Local,
}

/// What the page style says about the page after this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This was the last page.
    End,
    /// There may be another; `cursor` where the style has one.
    More { cursor: Option<String> },
}
