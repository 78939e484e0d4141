//! What a step returns: the leased job, and all that the store is to commit for it, as one value.
//!
//! `sync::attempt` makes it and `store::ops::settle` commits it, in one transaction. Each variant holds the lease of the
//! kind of job that it is a result of, so no result can be given for another job. The bodies of documents have a type of
//! their own, `B`, since they are sealed on the way.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cause::Cause;
use super::detail_proof::NotFound;
use super::facet::Facets;
use super::job::{FetchDetail, JobKind, Lease, ListPage, Sweep};
use super::timestamp::Timestamp;

/// Result of a step, to be committed by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepOutput<B = Bytes> {
    /// A list page was read.
    Page { lease: Lease<ListPage>, page: Page<B>, rule: WalkRule },
    /// A list page is given up and parked; the walk continues behind it.
    PageSkipped { lease: Lease<ListPage>, reason: Cause, transient: bool, next: Next },
    /// The store does all the work of a sweep.
    Sweep(Lease<Sweep>),
    /// A document was read, by the call with this digest.
    Document { lease: Lease<FetchDetail>, document: FetchedDocument<B>, endpoint: u64 },
    /// The API does not (or no longer) know the document, or the call is wrong. What the sink has stays.
    NotFound { lease: Lease<FetchDetail>, answer: NotFound },
    /// The resource has no details any more: its run no longer asks for the document.
    Obsolete(Lease<FetchDetail>),
    /// The attempt failed.
    Failed { lease: Lease, failure: Failure },
}

/// One list page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<B = Bytes> {
    /// In the order of the page.
    pub rows: Vec<Row<B>>,
    /// Rows that cannot be stored; to be parked, so that people see them.
    pub rejected: Vec<Rejected>,
    /// Of all rows in their order, independent of white space and key order.
    pub digest: String,
    /// Where the next page begins.
    pub next: Next,
    /// Why the list may have more rows although this is its last page.
    pub doubt: Option<String>,
}

/// One row of a list page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<B = Bytes> {
    pub id: String,
    /// Change digest, independent of key order, white space and, where a detail has the content, of the order within
    /// arrays.
    pub hash: u64,
    /// The change digest of earlier versions, where it differs.
    pub legacy: Option<u64>,
    /// The row's own time, where the definition names one and the row has it.
    pub time: Option<Timestamp>,
    /// The row itself; only of resources whose row is the document.
    pub body: Option<B>,
    pub facets: Facets,
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

/// Where the list continues after a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This was the last page.
    End,
    /// There may be another page; `cursor` where its number is not enough.
    More { cursor: Option<String> },
}

/// One document as fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedDocument<B = Bytes> {
    /// The document as received, but without a byte order mark, unpaired surrogates and all but the last of duplicate
    /// keys, which databases reject or read differently.
    pub body: B,
    /// Independent of white space and key order.
    pub hash: u64,
    /// When the refresh rule reads it again; none: final, too old, or no rule.
    pub refresh_after: Option<Duration>,
    pub facets: Facets,
}

/// The parts of a resource's definition that decide how its pages are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkRule {
    /// Rows come newest first, so an incremental walk may stop early.
    pub newest_first: bool,
    /// How old a page must be before the walk may stop at it.
    pub overlap: Duration,
    /// A walk for news asks for a part of the list only: for the last days, or what changed in the last minutes.
    pub news_are_partial: bool,
    /// Digest of the detail call; none: its rows are the documents.
    pub endpoint: Option<u64>,
}

/// What happens to a job whose attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Retry that long after the commit; a duration, since the clock may be set meanwhile.
    Retry { after: Duration, error: Cause },
    /// Ready again at once and the attempt not counted; the lane itself waits.
    Postpone { error: Cause },
    /// Given up; a page fails its run. `transient`: it may succeed later without a change, and is retried when the API
    /// answers for its list.
    Park { reason: Cause, transient: bool },
    /// The credentials that the shop had at its change of `read_at` are refused: it stops, the job stays.
    StopShop { reason: String, read_at: Timestamp },
}

impl<B> StepOutput<B> {
    /// The lease, whatever the kind of its job.
    pub fn lease(&self) -> Lease {
        match self {
            StepOutput::Page { lease, .. } | StepOutput::PageSkipped { lease, .. } => lease.clone().any_kind(),
            StepOutput::Sweep(lease) => lease.clone().any_kind(),
            StepOutput::Document { lease, .. } | StepOutput::NotFound { lease, .. } | StepOutput::Obsolete(lease) => {
                lease.clone().any_kind()
            }
            StepOutput::Failed { lease, .. } => lease.clone(),
        }
    }

    /// The same with the bodies and facets of its documents converted; `convert` gets the document's id and both.
    ///
    /// # Errors
    /// Those of `convert`.
    pub fn convert_bodies<C, E>(
        self,
        mut convert: impl FnMut(&str, B, Facets) -> Result<(C, Facets), E>,
    ) -> Result<StepOutput<C>, E> {
        Ok(match self {
            StepOutput::Page { lease, page, rule } => {
                StepOutput::Page { lease, page: page.convert_bodies(convert)?, rule }
            }
            StepOutput::Document { lease, document, endpoint } => {
                let FetchedDocument { body, hash, refresh_after, facets } = document;
                let (body, facets) = convert(&lease.job.kind.id, body, facets)?;
                let document = FetchedDocument { body, hash, refresh_after, facets };
                StepOutput::Document { lease, document, endpoint }
            }
            StepOutput::PageSkipped { lease, reason, transient, next } => {
                StepOutput::PageSkipped { lease, reason, transient, next }
            }
            StepOutput::Sweep(lease) => StepOutput::Sweep(lease),
            StepOutput::NotFound { lease, answer } => StepOutput::NotFound { lease, answer },
            StepOutput::Obsolete(lease) => StepOutput::Obsolete(lease),
            StepOutput::Failed { lease, failure } => StepOutput::Failed { lease, failure },
        })
    }
}

impl<K: Into<JobKind>> Lease<K> {
    /// The output of an attempt that failed.
    pub fn failed<B>(self, failure: Failure) -> StepOutput<B> {
        StepOutput::Failed { lease: self.any_kind(), failure }
    }
}

impl<B> Page<B> {
    /// A page without rows.
    pub fn empty(next: Next) -> Page<B> {
        Page { rows: Vec::new(), rejected: Vec::new(), digest: String::new(), next, doubt: None }
    }

    fn convert_bodies<C, E>(
        self,
        mut convert: impl FnMut(&str, B, Facets) -> Result<(C, Facets), E>,
    ) -> Result<Page<C>, E> {
        let Page { rows, rejected, digest, next, doubt } = self;
        let row = |Row { id, hash, legacy, time, body, facets }: Row<B>| {
            let (body, facets) = match body {
                Some(body) => convert(&id, body, facets).map(|(body, facets)| (Some(body), facets))?,
                None => (None, Facets::Unknown),
            };
            Ok(Row { id, hash, legacy, time, body, facets })
        };
        let rows = rows.into_iter().map(row).collect::<Result<_, E>>()?;
        Ok(Page { rows, rejected, digest, next, doubt })
    }
}

impl Rejected {
    /// A row that can be parsed, but whose id cannot be used.
    pub fn new(id: Option<String>, reason: String) -> Rejected {
        Rejected { id, reason, unreadable: None }
    }

    /// Distinguishes rejected rows of one list.
    pub fn fingerprint(&self) -> String {
        let id = self.id.as_deref().unwrap_or_default();
        match self.unreadable {
            Some(digest) => format!("{id}|{digest:016x}|{}", self.reason),
            None => format!("{id}|{}", self.reason),
        }
    }
}
