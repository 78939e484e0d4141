//! One attempt of one job: at most one call, and its result as a value.
//!
//! Called by a lane with a leased job. A step reads; it never writes the store.

use std::sync::Arc;

use tokio::time::Instant;

use super::Inner;
use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::domain::clock::Millis;
use crate::domain::retry::ATTEMPTS_OF_WRONG_ANSWERS;
use crate::domain::{Cause, Disposition, Effects, JobKind, Lease, Mode, Next, Shop, StreamId};
use crate::source::pages::{self, ParsedPage};
use crate::source::{Outcome, Position, SourceError, Walk, news_since};
use crate::store::{Failure, Settlement, StoreError, WalkRule};

/// Result of one attempt.
pub(super) struct AttemptResult {
    pub(super) lease: Lease,
    pub(super) settlement: Settlement,
    /// None: no call was needed; the slot is unused.
    pub(super) outcome: Option<Outcome>,
    /// When the call's response ended.
    pub(super) at: Instant,
    /// How long the call took, including its waits.
    pub(super) took: std::time::Duration,
    pub(super) backoff: Option<Backoff>,
}

/// How long to lease no jobs: of the whole lane, or of the job's shop.
pub(super) enum Backoff {
    Lane(std::time::Duration),
    Shop(std::time::Duration),
}

/// Runs one leased job.
///
/// Cancel safety: when dropped, a call may have left; the lane then counts its slot as lost.
pub(super) async fn run(inner: Arc<Inner>, shop: Arc<Shop>, lease: Lease) -> AttemptResult {
    let Some(definition) = inner.definition(&lease.job.resource).cloned() else {
        let reason = format!("resource `{}` is no longer configured", lease.job.resource);
        return without_call(
            lease,
            Settlement::Failed(Failure::Park { reason: reason.into(), may_pass: false, next: None }),
        );
    };
    let stream = lease.job.stream();
    let rule = WalkRule {
        newest_first: definition.newest_first(&stream.combination),
        overlap_ms: i64::try_from(definition.list.overlap.as_millis()).unwrap_or(i64::MAX),
        news_are_partial: definition.list.windows.is_some() || definition.list.recent.is_some(),
    };
    let request = match request(&inner, &definition, &lease) {
        Ok(request) => request,
        Err(error) => {
            let (settlement, backoff) = failed(&inner, &lease, shop.updated_at, &error);
            return AttemptResult { backoff, ..without_call(lease, settlement) };
        }
    };
    let call = match &request {
        Request::Page(position) => {
            Some(pages::list_call(&definition, &stream.combination, position, inner.deps.store.clock().now()))
        }
        Request::Detail(id) => pages::detail_call(&definition, id),
        Request::None(_) => None,
    };
    let Some(call) = call else {
        let effects = if let Request::None(effects) = request { effects } else { Effects::Local };
        return without_call(lease, Settlement::Done { effects, rule });
    };
    let credentials = match inner.credentials(&shop) {
        Ok(credentials) => credentials,
        Err(error) => {
            let reason = format!("the shop's credentials cannot be read: {error}");
            return without_call(lease, Settlement::Failed(Failure::StopShop { reason, read_at: shop.updated_at }));
        }
    };
    let begun = Instant::now();
    let outcome = inner.deps.source.get(&credentials, &call).await;
    let at = Instant::now();
    let effects = match &outcome.result {
        Ok(body) => {
            let previous =
                if let JobKind::ListPage { previous, .. } = &lease.job.kind { previous.as_deref() } else { None };
            let answer = pages::Answer { body, next_link: outcome.next_link.as_deref(), previous };
            read(&inner, &definition, &lease, &request, answer)
        }
        Err(error) => absent(&inner, &definition, &lease, &request, error),
    };
    let (settlement, backoff) = match effects {
        Ok(effects) => (Settlement::Done { effects, rule }, None),
        Err(error) => {
            let (settlement, backoff) = failed(&inner, &lease, shop.updated_at, &error);
            (going_on(settlement, &inner, &lease, (&definition, &request, &error)), backoff)
        }
    };
    AttemptResult { lease, settlement, outcome: Some(outcome), at, took: at - begun, backoff }
}

fn without_call(lease: Lease, settlement: Settlement) -> AttemptResult {
    AttemptResult {
        lease,
        settlement,
        outcome: None,
        at: Instant::now(),
        took: std::time::Duration::ZERO,
        backoff: None,
    }
}

/// The request a job resolves to.
enum Request {
    Page(Position),
    Detail(String),
    /// No call is needed.
    None(Effects),
}

fn request(inner: &Inner, definition: &Definition, lease: &Lease) -> Result<Request, SourceError> {
    let now = inner.deps.store.clock().now();
    Ok(match &lease.job.kind {
        JobKind::Sweep { .. } => Request::None(Effects::Local),
        JobKind::FetchDetail { id, .. } => Request::Detail(id.clone()),
        JobKind::ListPage { run, page: 1, cursor: None, .. } => match first_position(inner, definition, lease, *run)? {
            Some(position) => Request::Page(position.reached(definition, now)),
            // Without a parent there is no list.
            None => {
                let (rows, rejected) = (Vec::new(), Vec::new());
                Request::None(Effects::Page { rows, rejected, digest: String::new(), next: Next::End, doubt: None })
            }
        },
        JobKind::ListPage { page, cursor, .. } => {
            Request::Page(Position::read(*page, cursor.as_deref())?.reached(definition, now))
        }
    })
}

/// The first position of a walk. The same at each attempt: it depends only on the run's start and what was known then.
fn first_position(
    inner: &Inner,
    definition: &Definition,
    lease: &Lease,
    run: u64,
) -> Result<Option<Position>, SourceError> {
    let store = &inner.deps.store;
    let unreadable = |error: StoreError| SourceError::Interrupted(format!("the store cannot be read: {error}"));
    let parent = match &definition.parent {
        Some(_) => match next_parent(inner, definition, &lease.job.shop, None).map_err(unreadable)? {
            Some(parent) => Some(parent),
            None => return Ok(None),
        },
        None => None,
    };
    let run = store.run(run).map_err(unreadable)?;
    let now = store.clock().now();
    let walked = store.checkpoint(&lease.job.stream()).map_err(unreadable)?.until(now);
    let (mode, started_at) = run.map_or((Mode::Full, now), |run| (run.mode, run.started_at));
    Ok(Some(Position::begin(
        definition,
        Walk { mode, started_at, since: news_since(definition, &walked, started_at), parent },
    )))
}

/// The parent after one, in the order of ids.
fn next_parent(
    inner: &Inner,
    definition: &Definition,
    shop: &str,
    after: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let parent = definition.parent.as_deref().and_then(|parent| inner.definition(parent));
    let Some(parent) = parent else { return Ok(None) };
    let streams: Vec<StreamId> = parent.streams(shop).collect();
    inner.deps.store.next_listed(&streams, after)
}

/// Parses an answer.
fn read(
    inner: &Inner,
    definition: &Definition,
    lease: &Lease,
    request: &Request,
    answer: pages::Answer<'_>,
) -> Result<Effects, SourceError> {
    match request {
        Request::Detail(id) => {
            let store = &inner.deps.store;
            let first_seen = || store.first_listed_at(&lease.job.stream(), id).ok().flatten();
            let read = pages::detail(definition, id, answer.body, first_seen, store.clock().now())?;
            note_drift(inner, definition, read.left);
            Ok(Effects::Detail { body: read.body, hash: read.hash, refresh_after_ms: read.refresh_after_ms })
        }
        Request::Page(position) => {
            turned(inner, definition, lease, |next| pages::page(definition, position, answer, next))
        }
        Request::None(_) => Ok(Effects::Local),
    }
}

/// Counts fields that no column takes.
fn note_drift(inner: &Inner, definition: &Definition, left: Vec<FieldDrift>) {
    let now = inner.deps.store.clock().now();
    if let Some(drift) = inner.drifts.note(&definition.name, left, now) {
        let (store, resource) = (inner.deps.store.clone(), definition.name.clone());
        inner.spawn("drift", async move {
            if let Err(error) = store.keep_drift(&resource, &drift).await {
                error.warn("failed to persist the drift report");
            }
        });
    }
}

/// A parked page does not end its walk where the pages after it can be requested.
fn going_on(
    settlement: Settlement,
    inner: &Inner,
    lease: &Lease,
    (definition, request, error): (&Definition, &Request, &SourceError),
) -> Settlement {
    match (settlement, request) {
        (Settlement::Failed(Failure::Park { reason, may_pass, .. }), Request::Page(position)) => {
            let next = pages::page_behind(definition, position, error, || is_alone(inner, lease));
            Settlement::Failed(Failure::Park { reason, may_pass, next })
        }
        (settlement, _) => settlement,
    }
}

/// Whether the API answered other calls of the shop while this list failed.
fn is_alone(inner: &Inner, lease: &Lease) -> bool {
    let status = inner.deps.store.stream_status(&lease.job.stream()).ok();
    let trouble = status.and_then(|status| status.list_trouble);
    trouble.is_some_and(|trouble| inner.last_success.is_after(&lease.job.shop, trouble.since))
}

/// Maps errors that are answers: a document that is gone, a list that has ended.
fn absent(
    inner: &Inner,
    definition: &Definition,
    lease: &Lease,
    request: &Request,
    error: &SourceError,
) -> Result<Effects, SourceError> {
    let is_unknown = matches!(error, SourceError::NotFound { .. });
    match request {
        Request::Page(position) if is_unknown && position.parent.is_some() && position.is_first() => {
            turned(inner, definition, lease, |next| Ok(pages::no_list(definition, position, next)))
        }
        Request::Page(position) => turned(inner, definition, lease, |next| {
            pages::end_by_status(definition, position, error, next).ok_or_else(|| error.clone())
        }),
        Request::Detail(_) | Request::None(_) if is_unknown => Ok(Effects::Gone),
        Request::Detail(_) | Request::None(_) => Err(error.clone()),
    }
}

/// A page's effects. A store that fails to read the next parent must not end the walk.
fn turned(
    inner: &Inner,
    definition: &Definition,
    lease: &Lease,
    page: impl FnOnce(&mut dyn FnMut(&str) -> Option<String>) -> Result<ParsedPage, SourceError>,
) -> Result<Effects, SourceError> {
    let mut unreadable = None;
    let page = page(&mut |after| {
        next_parent(inner, definition, &lease.job.shop, Some(after)).unwrap_or_else(|error| {
            unreadable = Some(SourceError::Interrupted(format!("the store cannot be read: {error}")));
            None
        })
    })?;
    if let Some(error) = unreadable {
        return Err(error);
    }
    // Retry once: another answer may prove the end.
    if let Some(doubt) = page.doubt.as_ref().filter(|_| lease.attempt < attempts_of_wrong_answers(inner)) {
        return Err(SourceError::Shape { detail: doubt.clone() });
    }
    note_drift(inner, definition, page.left);
    let ParsedPage { rows, rejected, digest, next, doubt, .. } = page;
    Ok(Effects::Page { rows, rejected, digest, next, doubt })
}

/// What becomes of a failed job, and the backoff of its lane or shop.
fn failed(inner: &Inner, lease: &Lease, read_at: Millis, error: &SourceError) -> (Settlement, Option<Backoff>) {
    let (failure, backoff) = match error.disposition() {
        Disposition::Retry { after } => {
            (again(inner, lease, inner.deps.retry.attempts_max, after, error.cause()), None)
        }
        Disposition::RetryOnce => (again(inner, lease, attempts_of_wrong_answers(inner), None, error.cause()), None),
        Disposition::Postpone { after } => {
            // Tokens are per shop.
            let is_of_shop = matches!(error, SourceError::LoginUnavailable { .. });
            let backoff = if is_of_shop { Backoff::Shop(after) } else { Backoff::Lane(after) };
            (Failure::Postpone { error: error.cause() }, Some(backoff))
        }
        Disposition::Park { may_pass } => (Failure::Park { reason: error.cause(), may_pass, next: None }, None),
        Disposition::StopShop => (Failure::StopShop { reason: error.to_string(), read_at }, None),
    };
    tracing::debug!(
        shop.id = lease.job.shop, job.id = lease.job.seq, job.attempt = lease.attempt, %error, ?failure, "attempt failed"
    );
    (Settlement::Failed(failure), backoff)
}

fn attempts_of_wrong_answers(inner: &Inner) -> u32 {
    ATTEMPTS_OF_WRONG_ANSWERS.min(inner.deps.retry.attempts_max)
}

/// Settles the job of an attempt that panicked. That is a bug of ours, and the same answer may cause it again: the job
/// is retried as usual and parked in the end.
pub(super) fn panicked(inner: &Inner, lease: &Lease) -> Settlement {
    let most = inner.deps.retry.attempts_max;
    Settlement::Failed(again(inner, lease, most, None, "a bug in Waybill: the attempt panicked; see the log".into()))
}

/// Another attempt after a pause, unless that was the last of `most`.
fn again(inner: &Inner, lease: &Lease, most: u32, hint: Option<std::time::Duration>, error: Cause) -> Failure {
    let policy = &inner.deps.retry;
    if lease.attempt >= most {
        let reason = Cause::new(error.class, format!("{error} (after {} attempts)", lease.attempt));
        return Failure::Park { reason, may_pass: true, next: None };
    }
    let after = policy.delay(lease.attempt, hint, fastrand::f64());
    Failure::Retry { after, error }
}
