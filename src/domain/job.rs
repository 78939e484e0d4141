//! Jobs, attempts, leases, and the effects of a finished step.
//!
//! A step reads the API and returns [`Effects`]; the store commits them in one transaction. Nothing else
//! changes the queue.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::Millis;
use super::stream::{ListParams, StreamId};

/// Priority of a job: new before changed before history before routine re-reads.
/// The number is part of the queue's keys; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// List pages; they find everything else.
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

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobKind {
    /// Read one page of a stream.
    ListPage {
        run: u64,
        combination: ListParams,
        /// Number of the page, from 1; counts up in every page style.
        page: u64,
        /// Position of the page, where the number alone is not enough.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
        /// Digest of the previous page, to detect an API that ignores the page parameter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<String>,
        /// Digest of the last page whose number is a power of two, to detect a list that loops.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<String>,
    },
    /// Record which rows a full walk did not see. Makes no call.
    Sweep {
        run: u64,
        combination: ListParams,
        /// The last id looked at; empty at the start.
        after: String,
    },
    /// Read one detail.
    FetchDetail {
        /// None for re-reads by the refresh rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<u64>,
        combination: ListParams,
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
    /// How often it was parked and automatically retried.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub revived: u32,
}

impl Job {
    /// A job without attempts.
    pub fn new(seq: u64, shop: &str, resource: &str, class: Class, kind: JobKind) -> Job {
        let (shop, resource) = (shop.to_owned(), resource.to_owned());
        Job { seq, shop, resource, class, kind, attempts: 0, last_error: None, revived: 0 }
    }

    /// The id of the document that it reads; none for pages and sweeps.
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
    /// The store's record that contains the job, with others of its kind.
    pub record: u64,
}

/// One row of a list page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    /// Change digest, independent of key order, white space and, where a detail has the content, of the order within
    /// arrays.
    pub hash: u64,
    /// The change digest of earlier versions, where it differs.
    pub legacy: Option<u64>,
    /// The row's own time, where the definition names one and the row has it.
    pub time: Option<Millis>,
    /// The row as received; only of resources whose row is the document.
    pub body: Option<Bytes>,
}

/// A row of a list page that cannot be stored: it has no usable id, or cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The id as far as there is one, truncated and without control characters.
    pub id: Option<String>,
    pub reason: String,
    /// Digest of a row without an id, to distinguish it from others: it may be any of the known rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<u64>,
}

impl Rejected {
    /// A row that can be parsed, but whose id cannot be used.
    pub fn new(id: Option<String>, reason: String) -> Rejected {
        Rejected { id, reason, unreadable: None }
    }

    /// Distinguishes rejected rows of one list.
    pub fn mark(&self) -> String {
        let id = self.id.as_deref().unwrap_or_default();
        match self.unreadable {
            Some(digest) => format!("{id}|{digest:016x}|{}", self.reason),
            None => format!("{id}|{}", self.reason),
        }
    }
}

/// Result of a successful step, to be committed by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effects {
    /// A list page was read.
    Page {
        rows: Vec<Row>,
        /// Rows that cannot be stored; to be parked, so that people see them.
        rejected: Vec<Rejected>,
        /// Digest of the whole page.
        digest: String,
        /// Where the next page begins.
        next: Next,
        /// Why the list may have more rows although this is its last page.
        doubt: Option<String>,
    },
    /// A document was read.
    Detail {
        body: Bytes,
        /// Digest of the document, independent of key order and white space.
        hash: u64,
        /// When the refresh rule reads it again; none: final, or no rule.
        refresh_after_ms: Option<i64>,
    },
    /// The API does not (or no longer) know the id. What the sink has stays.
    Gone,
    /// A job without a call; the store does all of its work.
    Local,
}

/// Where the list continues after a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This was the last page.
    End,
    /// There may be another page; `cursor` where its number is not enough.
    More { cursor: Option<String> },
}
