//! Jobs, and leases on them for one attempt each.
//!
//! An attempt returns a [`super::StepOutput`], which the store commits in one transaction. Nothing else changes the queue.

use serde::{Deserialize, Serialize};

use super::cause::ErrorClass;
use super::job_seq::JobSeq;
use super::run_id::RunId;
use super::shop_id::ShopId;
use super::stream::{ListParams, StreamId};
use super::variants::with_all;

/// Priority of a job: new before changed before history before routine re-reads.
/// The number is part of the queue's keys; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
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

/// Reads one page of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPage {
    pub run: RunId,
    pub combination: ListParams,
    /// Number of the page, from 1; counts up in every page style.
    pub page: u64,
    /// Position of the page, where the number alone is not enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Digest of the previous page, to detect an API that ignores the page parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Digest of the last page whose number is a power of two, to detect a list that loops.
    #[serde(default, rename = "mark", skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
}

/// Records which rows a full walk did not see. Makes no call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    pub run: RunId,
    pub combination: ListParams,
    /// The last id looked at; empty at the start.
    pub after: String,
}

/// Reads one detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchDetail {
    /// None for re-reads by the refresh rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    pub combination: ListParams,
    pub id: String,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobKind {
    ListPage(ListPage),
    Sweep(Sweep),
    FetchDetail(FetchDetail),
}

with_all! {
    /// Which of a resource's two calls a job makes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum CallKind {
        /// Sweeps belong to it too, which make none.
        List,
        Detail,
    }
}

/// A try of a job; the first is 1.
pub type Attempt = u32;

/// A unit of durable work. `K` is what it does: [`JobKind`], or the one kind that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job<K = JobKind> {
    pub seq: JobSeq,
    pub shop: ShopId,
    pub resource: String,
    #[serde(rename = "class")]
    pub priority: Priority,
    #[serde(flatten)]
    pub kind: K,
    /// Tries so far, the running one included.
    #[serde(default)]
    pub attempts: Attempt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// Why it failed last. Versions up to 0.1 stored a text, which is read as [`ErrorClass::Other`].
    pub last_error: Option<ErrorClass>,
    /// How often it was parked and automatically retried.
    #[serde(default, rename = "revived", skip_serializing_if = "super::is_default")]
    pub auto_retries: u32,
}

/// The right of one attempt to a job. Only the current lease of a job may commit; a late one is fenced off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease<K = JobKind> {
    pub job: Job<K>,
    pub attempt: Attempt,
    /// Distinguishes it from other leases of the job. Unique within one process; shared by the jobs that were leased together.
    pub fencing_token: u64,
    /// The store's record that contains the job, with others of its kind.
    pub record: u64,
}

/// A lease by the kind of its job.
pub enum LeaseByKind {
    ListPage(Lease<ListPage>),
    Sweep(Lease<Sweep>),
    FetchDetail(Lease<FetchDetail>),
}

impl JobKind {
    /// The call that it makes, or that it belongs to.
    pub fn call(&self) -> CallKind {
        match self {
            JobKind::ListPage(_) | JobKind::Sweep(_) => CallKind::List,
            JobKind::FetchDetail(_) => CallKind::Detail,
        }
    }
}

impl Job {
    /// A job without attempts.
    pub fn new(seq: JobSeq, shop: &ShopId, resource: &str, priority: Priority, kind: JobKind) -> Job {
        let (shop, resource) = (shop.clone(), resource.to_owned());
        Job { seq, shop, resource, priority, kind, attempts: 0, last_error: None, auto_retries: 0 }
    }

    /// The id of the document that it reads; none for pages and sweeps.
    pub fn document(&self) -> Option<&str> {
        match &self.kind {
            JobKind::FetchDetail(detail) => Some(&detail.id),
            JobKind::ListPage(_) | JobKind::Sweep(_) => None,
        }
    }

    /// The run that asked for it.
    pub fn run(&self) -> Option<RunId> {
        match &self.kind {
            JobKind::ListPage(page) => Some(page.run),
            JobKind::Sweep(sweep) => Some(sweep.run),
            JobKind::FetchDetail(detail) => detail.run,
        }
    }

    /// The run whose walk it is a part of; none for details.
    pub fn walk(&self) -> Option<RunId> {
        self.run().filter(|_| self.document().is_none())
    }
}

impl<K: AsRef<ListParams>> Job<K> {
    /// The stream this job belongs to.
    pub fn stream(&self) -> StreamId {
        StreamId { shop: self.shop.clone(), resource: self.resource.clone(), combination: self.kind.as_ref().clone() }
    }
}

impl<K> Job<K> {
    fn split(self) -> (K, Job<()>) {
        let Job { seq, shop, resource, priority, kind, attempts, last_error, auto_retries } = self;
        (kind, Job { seq, shop, resource, priority, kind: (), attempts, last_error, auto_retries })
    }
}

impl Job<()> {
    fn with_kind<K>(self, kind: K) -> Job<K> {
        let Job { seq, shop, resource, priority, kind: (), attempts, last_error, auto_retries } = self;
        Job { seq, shop, resource, priority, kind, attempts, last_error, auto_retries }
    }
}

impl<K: Into<JobKind>> Job<K> {
    /// The same, of any kind.
    pub fn any_kind(self) -> Job {
        let (kind, job) = self.split();
        job.with_kind(kind.into())
    }
}

impl<K: Into<JobKind>> Lease<K> {
    /// The same, on a job of any kind.
    pub fn any_kind(self) -> Lease {
        let Lease { job, attempt, fencing_token, record } = self;
        Lease { job: job.any_kind(), attempt, fencing_token, record }
    }
}

impl Lease {
    /// The same by the kind of its job.
    pub fn by_kind(self) -> LeaseByKind {
        let Lease { job, attempt, fencing_token, record } = self;
        match job.split() {
            (JobKind::ListPage(kind), job) => {
                LeaseByKind::ListPage(Lease { job: job.with_kind(kind), attempt, fencing_token, record })
            }
            (JobKind::Sweep(kind), job) => {
                LeaseByKind::Sweep(Lease { job: job.with_kind(kind), attempt, fencing_token, record })
            }
            (JobKind::FetchDetail(kind), job) => {
                LeaseByKind::FetchDetail(Lease { job: job.with_kind(kind), attempt, fencing_token, record })
            }
        }
    }
}

macro_rules! kinds {
    ($($kind:ident),+) => {
        $(impl From<$kind> for JobKind {
            fn from(kind: $kind) -> JobKind {
                JobKind::$kind(kind)
            }
        }

        impl AsRef<ListParams> for $kind {
            fn as_ref(&self) -> &ListParams {
                &self.combination
            }
        })+

        impl AsRef<ListParams> for JobKind {
            fn as_ref(&self) -> &ListParams {
                match self {
                    $(JobKind::$kind(kind) => &kind.combination),+
                }
            }
        }
    };
}
kinds!(ListPage, Sweep, FetchDetail);
