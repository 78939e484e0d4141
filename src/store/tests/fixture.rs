//! A store in memory with one shop and one stream, and what a test does with its jobs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;

use crate::domain::{
    Auth, CallKind, Clock, DetailEndpoint, Entry, Facets, Failure, FetchedDocument, Lease, LeaseByKind, ListParams,
    Mode, Next, NotFound, Page, Row, RunId, SourceOrigin, SourceUrl, StepOutput, StreamId, Timestamp, Trigger,
    WalkRule,
};
use crate::store::engine::kv::Kv;
use crate::store::engine::memory::MemoryKv;
use crate::store::{NewShop, Queue, SealKey, Settled, Store, StoreError, Token};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub(super) const RULE: WalkRule =
    WalkRule { newest_first: true, overlap: DAY, news_are_partial: false, endpoint: Some(0) };

pub(super) struct Fixture {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) kv: Arc<dyn Kv>,
    pub(super) stream: StreamId,
}

pub(super) async fn fixture() -> Fixture {
    let kv: Arc<dyn Kv> = Arc::new(MemoryKv::strict());
    let clock = Clock::manual(NOW);
    let store = Store::over(Arc::clone(&kv), SealKey::new(&[1; 32]), clock.clone(), Path::new("memory")).unwrap();
    let shop = store.create_shop(new_shop("client-1")).await.unwrap();
    let combination = ListParams(vec![("kind".into(), "a".into())]);
    let stream = StreamId { shop: shop.id, resource: "things".into(), combination };
    Fixture { store, clock, kv, stream }
}

pub(super) fn new_shop(client_id: &str) -> NewShop {
    NewShop {
        name: "Shop".into(),
        client_id: client_id.into(),
        client_secret: SecretString::from("canary-secret"),
        account: None,
        resources: vec!["things".into()],
    }
}

/// A source of this name.
pub(super) fn origin(name: &str) -> SourceOrigin {
    let url = |host: &str| SourceUrl::parse(&format!("https://{host}.{name}.example"), "").unwrap();
    SourceOrigin::new(&url("api"), &url("login"), &Auth::ClientCredentials)
}

/// A token that the source `old` issued.
pub(super) fn token(text: &str, expires_at: Timestamp) -> Token {
    Token { token: SecretString::from(text), expires_at, origin: origin("old") }
}

pub(super) fn document_id(lease: &Lease) -> String {
    lease.job.document().unwrap().to_owned()
}

impl Fixture {
    pub(super) fn queue(&self, kind: CallKind) -> Queue {
        Queue { shop: self.stream.shop.clone(), resource: "things".into(), kind }
    }

    pub(super) async fn start(&self, mode: Mode) -> RunId {
        self.store.start_runs(vec![self.stream.clone()], mode, Trigger::Schedule).await.unwrap()[0].run()
    }

    pub(super) async fn lease(&self, kind: CallKind, want: usize) -> Vec<Lease> {
        self.store.lease(vec![self.queue(kind)], want, None).await.unwrap()
    }

    pub(super) async fn settle(&self, lease: Lease, answer: impl Answer) -> Settled {
        self.store.settle(vec![answer.to(lease)]).await.unwrap()[0]
    }

    /// Reads the next page with these rows: (id, hash, age in days).
    pub(super) async fn page(&self, rows: &[(&str, u64, i64)], next: Next) {
        let lease = self.lease(CallKind::List, 1).await.remove(0);
        self.settle(lease, page(rows, next)).await;
    }

    pub(super) async fn read_details(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for lease in self.lease(CallKind::Detail, 1000).await {
            let id = document_id(&lease);
            self.settle(lease, detail(&id, None)).await;
            ids.push(id);
        }
        ids
    }

    pub(super) async fn drain(&self) -> Vec<Entry> {
        let batch = self.store.outbox_batch(None, 1000, usize::MAX).unwrap();
        self.store.acknowledge(batch.iter().map(|item| item.position).collect()).await.unwrap();
        batch.into_iter().filter_map(|item| item.entry).collect()
    }

    pub(super) async fn sweep(&self) {
        self.store.settle(self.lease(CallKind::List, 1).await.into_iter().map(sweep).collect()).await.unwrap();
    }
}

/// What a test answers a leased job with.
pub(super) trait Answer {
    fn to(self, lease: Lease) -> StepOutput;
}

impl Answer for Page {
    fn to(self, lease: Lease) -> StepOutput {
        let LeaseByKind::ListPage(lease) = lease.by_kind() else { panic!("not a page") };
        StepOutput::Page { lease, page: self, rule: RULE }
    }
}

impl Answer for FetchedDocument {
    fn to(self, lease: Lease) -> StepOutput {
        let LeaseByKind::FetchDetail(lease) = lease.by_kind() else { panic!("not a detail") };
        StepOutput::Document { lease, document: self, endpoint: 0 }
    }
}

impl Answer for Failure {
    fn to(self, lease: Lease) -> StepOutput {
        lease.failed(self)
    }
}

/// The API does not know the document.
pub(super) struct Gone;

impl Answer for Gone {
    fn to(self, lease: Lease) -> StepOutput {
        let LeaseByKind::FetchDetail(lease) = lease.by_kind() else { panic!("not a detail") };
        let endpoint = DetailEndpoint { digest: 0, path: "/things/{id}".into() };
        StepOutput::NotFound { lease, answer: NotFound { endpoint, status: 404 } }
    }
}

pub(super) fn page(rows: &[(&str, u64, i64)], next: Next) -> Page {
    let rows: Vec<Row> = rows
        .iter()
        .map(|(id, hash, days)| Row {
            id: (*id).into(),
            hash: *hash,
            legacy: None,
            time: Some(Timestamp::from_millis(NOW.as_millis() - days * 86_400_000)),
            body: None,
            facets: Facets::Unknown,
        })
        .collect();
    let digest = format!("{rows:?}");
    Page { rows, rejected: Vec::new(), digest, next, doubt: None }
}

pub(super) fn detail(id: &str, refresh_after: Option<Duration>) -> FetchedDocument {
    let body = format!("{{\"id\":\"{id}\",\"name\":\"canary-name\"}}");
    FetchedDocument { body: Bytes::from(body), hash: 7, refresh_after, facets: Facets::Unknown }
}

pub(super) const MORE: Next = Next::More { cursor: None };

pub(super) fn sweep(lease: Lease) -> StepOutput {
    let LeaseByKind::Sweep(lease) = lease.by_kind() else { panic!("not a sweep") };
    StepOutput::Sweep(lease)
}

/// The committer's thread lets go of the lock a moment after the last handle is dropped.
pub(super) async fn reopen(open: impl Fn() -> Result<Store, StoreError>) -> Store {
    reopened(open).await.unwrap()
}

pub(super) async fn reopened(open: impl Fn() -> Result<Store, StoreError>) -> Result<Store, StoreError> {
    loop {
        match open() {
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            other => return other,
        }
    }
}
