//! One attempt of one job: at most one call, and its result as a value.
//!
//! Called by a lane with a leased job. An attempt reads the store and never writes it: all that it found out is in its
//! [`AttemptResult`], which the lane commits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::domain::clock::Millis;
use crate::domain::retry::ATTEMPTS_OF_WRONG_ANSWERS;
use crate::domain::{Cause, Disposition, Effects, JobKind, Lease, Mode, Next, RetryPolicy, Shop, StreamId};
use crate::source::pages::{self, Answer, ParsedPage};
use crate::source::{Outcome, Position, SourceError, Walk, news_since};
use crate::store::{Failure, Settlement, StoreError, WalkRule};

/// Result of one attempt.
pub(super) struct AttemptResult {
    pub(super) settlement: Settlement,
    /// None: no call was needed; the slot is unused.
    pub(super) outcome: Option<Outcome>,
    /// When the call's response ended.
    pub(super) at: Instant,
    /// How long the call took, including its waits.
    pub(super) took: Duration,
    pub(super) pause: Option<LeasePause>,
    /// What no column takes of the documents that were read, to be counted.
    pub(super) drift: Vec<FieldDrift>,
}

impl AttemptResult {
    fn without_call(settlement: Settlement) -> AttemptResult {
        let (at, took) = (Instant::now(), Duration::ZERO);
        AttemptResult { settlement, outcome: None, at, took, pause: None, drift: Vec::new() }
    }
}

/// How long to lease no jobs: of the whole lane, or of the job's shop.
pub(super) enum LeasePause {
    Lane(Duration),
    Shop(Duration),
}

/// The request a job resolves to.
enum Request {
    Page(Position),
    Detail(String),
    /// No call is needed.
    None(Effects),
}

/// What an answer was parsed into.
struct Parsed {
    effects: Effects,
    drift: Vec<FieldDrift>,
}

/// Runs one leased job.
///
/// Cancel safety: when dropped, a call may have left; the lane then counts its slot as lost.
pub(super) async fn run(inner: Arc<Inner>, shop: Arc<Shop>, lease: Lease) -> AttemptResult {
    let Some(definition) = inner.definition(&lease.job.resource) else {
        let reason = format!("resource `{}` is no longer configured", lease.job.resource);
        let failure = Failure::Park { reason: reason.into(), may_pass: false, next: None };
        return AttemptResult::without_call(Settlement::Failed(failure));
    };
    Attempt { inner: &inner, definition, shop: &shop, lease: &lease }.run().await
}

/// Settles the job of an attempt that panicked. That is a bug of ours, and the same answer may cause it again: the job
/// is retried as usual and parked in the end.
pub(super) fn panicked(policy: &RetryPolicy, lease: &Lease) -> Settlement {
    let error = "a bug in Waybill: the attempt panicked; see the log".into();
    Settlement::Failed(retry_or_park(policy, lease, policy.attempts_max, None, error))
}

struct Attempt<'a> {
    inner: &'a Inner,
    definition: &'a Definition,
    shop: &'a Shop,
    lease: &'a Lease,
}

impl Attempt<'_> {
    async fn run(&self) -> AttemptResult {
        let request = match self.request() {
            Ok(request) => request,
            Err(error) => {
                let (failure, pause) = self.failure(&error);
                return AttemptResult { pause, ..AttemptResult::without_call(Settlement::Failed(failure)) };
            }
        };
        let call = match &request {
            Request::Page(position) => {
                let combination = self.lease.job.stream().combination;
                Some(pages::list_call(self.definition, &combination, position, self.now()))
            }
            Request::Detail(id) => pages::detail_call(self.definition, id),
            Request::None(_) => None,
        };
        let Some(call) = call else {
            let effects = if let Request::None(effects) = request { effects } else { Effects::Local };
            return AttemptResult::without_call(self.done(effects));
        };
        let credentials = match self.inner.credentials(self.shop) {
            Ok(credentials) => credentials,
            Err(error) => {
                let reason = format!("the shop's credentials cannot be read: {error}");
                let failure = Failure::StopShop { reason, read_at: self.shop.updated_at };
                return AttemptResult::without_call(Settlement::Failed(failure));
            }
        };
        let begun = Instant::now();
        let outcome = self.inner.deps.source.get(&credentials, &call).await;
        let at = Instant::now();
        let parsed = match &outcome.result {
            Ok(body) => {
                let next_link = outcome.next_link.as_deref();
                self.parse(&request, Answer { body, next_link, previous: self.previous_digest() })
            }
            Err(error) => self.parse_error(&request, error),
        };
        let (settlement, pause, drift) = match parsed {
            Ok(Parsed { effects, drift }) => (self.done(effects), None, drift),
            Err(error) => {
                let (failure, pause) = self.failure(&error);
                (Settlement::Failed(self.pass_over(failure, &request, &error)), pause, Vec::new())
            }
        };
        AttemptResult { settlement, outcome: Some(outcome), at, took: at - begun, pause, drift }
    }

    fn now(&self) -> Millis {
        self.inner.deps.store.clock().now()
    }

    fn done(&self, effects: Effects) -> Settlement {
        let list = &self.definition.list;
        let rule = WalkRule {
            newest_first: self.definition.newest_first(&self.lease.job.stream().combination),
            overlap_ms: i64::try_from(list.overlap.as_millis()).unwrap_or(i64::MAX),
            news_are_partial: list.windows.is_some() || list.recent.is_some(),
        };
        Settlement::Done { effects, rule }
    }

    fn request(&self) -> Result<Request, SourceError> {
        let reached = |position: Position| Request::Page(position.reached(self.definition, self.now()));
        Ok(match &self.lease.job.kind {
            JobKind::Sweep { .. } => Request::None(Effects::Local),
            JobKind::FetchDetail { id, .. } => Request::Detail(id.clone()),
            JobKind::ListPage { run, page: 1, cursor: None, .. } => match self.first_position(*run)? {
                Some(position) => reached(position),
                // Without a parent there is no list.
                None => {
                    let (rows, rejected) = (Vec::new(), Vec::new());
                    Request::None(Effects::Page { rows, rejected, digest: String::new(), next: Next::End, doubt: None })
                }
            },
            JobKind::ListPage { page, cursor, .. } => reached(Position::read(*page, cursor.as_deref())?),
        })
    }

    /// The first position of a walk; none: there are no parents. The same at each attempt: it depends only on the run's
    /// start and what was known then.
    fn first_position(&self, run: u64) -> Result<Option<Position>, SourceError> {
        let parent = match &self.definition.parent {
            Some(_) => match self.parent_after(None).map_err(unreadable)? {
                Some(parent) => Some(parent),
                None => return Ok(None),
            },
            None => None,
        };
        let (store, now) = (&self.inner.deps.store, self.now());
        let run = store.run(run).map_err(unreadable)?;
        let walked = store.checkpoint(&self.lease.job.stream()).map_err(unreadable)?.until(now);
        let (mode, started_at) = run.map_or((Mode::Full, now), |run| (run.mode, run.started_at));
        let since = news_since(self.definition, &walked, started_at);
        Ok(Some(Position::begin(self.definition, Walk { mode, started_at, since, parent })))
    }

    /// The parent after one, in the order of ids.
    fn parent_after(&self, id: Option<&str>) -> Result<Option<String>, StoreError> {
        let parent = self.definition.parent.as_deref().and_then(|parent| self.inner.definition(parent));
        let Some(parent) = parent else { return Ok(None) };
        let streams: Vec<StreamId> = parent.streams(&self.lease.job.shop).collect();
        self.inner.deps.store.next_listed(&streams, id)
    }

    /// The same for the page parser, which takes no errors: they are left in `failed`.
    fn next_parent(&self, id: &str, failed: &mut Option<SourceError>) -> Option<String> {
        self.parent_after(Some(id)).unwrap_or_else(|error| {
            *failed = Some(unreadable(error));
            None
        })
    }

    /// Digest of the page before a list page.
    fn previous_digest(&self) -> Option<&str> {
        match &self.lease.job.kind {
            JobKind::ListPage { previous, .. } => previous.as_deref(),
            JobKind::Sweep { .. } | JobKind::FetchDetail { .. } => None,
        }
    }

    fn parse(&self, request: &Request, answer: Answer<'_>) -> Result<Parsed, SourceError> {
        match request {
            Request::Detail(id) => {
                let store = &self.inner.deps.store;
                let first_seen = || store.first_listed_at(&self.lease.job.stream(), id).ok().flatten();
                let read = pages::detail(self.definition, id, answer.body, first_seen, self.now())?;
                let (body, hash, refresh_after_ms) = (read.body, read.hash, read.refresh_after_ms);
                Ok(Parsed { effects: Effects::Detail { body, hash, refresh_after_ms }, drift: read.left })
            }
            Request::Page(position) => {
                let mut failed = None;
                let next = |id: &str| self.next_parent(id, &mut failed);
                let page = pages::page(self.definition, position, answer, next)?;
                self.page(page, failed)
            }
            Request::None(_) => Ok(Parsed { effects: Effects::Local, drift: Vec::new() }),
        }
    }

    /// Maps errors that are answers: a document that is gone, a list that has ended.
    fn parse_error(&self, request: &Request, error: &SourceError) -> Result<Parsed, SourceError> {
        let is_unknown = matches!(error, SourceError::NotFound { .. });
        match request {
            Request::Page(position) => {
                let is_of_unknown_parent = is_unknown && position.parent.is_some() && position.is_first();
                let mut failed = None;
                let next = |id: &str| self.next_parent(id, &mut failed);
                let page = if is_of_unknown_parent {
                    Some(pages::no_list(self.definition, position, next))
                } else {
                    pages::end_by_status(self.definition, position, error, next)
                };
                self.page(page.ok_or_else(|| error.clone())?, failed)
            }
            Request::Detail(_) | Request::None(_) if is_unknown => {
                Ok(Parsed { effects: Effects::Gone, drift: Vec::new() })
            }
            Request::Detail(_) | Request::None(_) => Err(error.clone()),
        }
    }

    /// A parsed page as effects. A store that `failed` to read the next parent must not end the walk.
    fn page(&self, page: ParsedPage, failed: Option<SourceError>) -> Result<Parsed, SourceError> {
        if let Some(error) = failed {
            return Err(error);
        }
        // Another answer may prove the end.
        if let Some(doubt) = page.doubt.as_ref().filter(|_| self.lease.attempt < self.attempts_of_wrong_answers()) {
            return Err(SourceError::Shape { detail: doubt.clone() });
        }
        let ParsedPage { rows, rejected, digest, next, doubt, left } = page;
        Ok(Parsed { effects: Effects::Page { rows, rejected, digest, next, doubt }, drift: left })
    }

    /// What becomes of the failed job, and the pause of its lane or shop.
    fn failure(&self, error: &SourceError) -> (Failure, Option<LeasePause>) {
        let retry = |most, hint| retry_or_park(&self.inner.deps.retry, self.lease, most, hint, error.cause());
        let (failure, pause) = match error.disposition() {
            Disposition::Retry { after } => (retry(self.inner.deps.retry.attempts_max, after), None),
            Disposition::RetryOnce => (retry(self.attempts_of_wrong_answers(), None), None),
            Disposition::Postpone { after } => {
                // Tokens are per shop.
                let is_of_shop = matches!(error, SourceError::LoginUnavailable { .. });
                let pause = if is_of_shop { LeasePause::Shop(after) } else { LeasePause::Lane(after) };
                (Failure::Postpone { error: error.cause() }, Some(pause))
            }
            Disposition::Park { may_pass } => (Failure::Park { reason: error.cause(), may_pass, next: None }, None),
            Disposition::StopShop => {
                (Failure::StopShop { reason: error.to_string(), read_at: self.shop.updated_at }, None)
            }
        };
        let job = &self.lease.job;
        tracing::debug!(
            shop.id = job.shop, job.id = job.seq, job.attempt = self.lease.attempt, %error, ?failure, "attempt failed"
        );
        (failure, pause)
    }

    /// Lets the walk continue after a parked page, where the pages after it can be requested.
    fn pass_over(&self, failure: Failure, request: &Request, error: &SourceError) -> Failure {
        match (failure, request) {
            (Failure::Park { reason, may_pass, .. }, Request::Page(position)) => {
                let next = pages::page_behind(self.definition, position, error, || self.is_only_this_list());
                Failure::Park { reason, may_pass, next }
            }
            (failure, _) => failure,
        }
    }

    /// Whether the API answered other calls of the shop while this list failed.
    fn is_only_this_list(&self) -> bool {
        let status = self.inner.deps.store.stream_status(&self.lease.job.stream()).ok();
        let trouble = status.and_then(|status| status.list_trouble);
        trouble.is_some_and(|trouble| self.inner.last_success.is_after(&self.lease.job.shop, trouble.since))
    }

    fn attempts_of_wrong_answers(&self) -> u32 {
        ATTEMPTS_OF_WRONG_ANSWERS.min(self.inner.deps.retry.attempts_max)
    }
}

fn unreadable(error: StoreError) -> SourceError {
    SourceError::Interrupted(format!("the store cannot be read: {error}"))
}

/// Another attempt after a pause, unless that was the last of `most`.
fn retry_or_park(policy: &RetryPolicy, lease: &Lease, most: u32, hint: Option<Duration>, error: Cause) -> Failure {
    if lease.attempt >= most {
        let reason = Cause::new(error.class, format!("{error} (after {} attempts)", lease.attempt));
        return Failure::Park { reason, may_pass: true, next: None };
    }
    Failure::Retry { after: policy.delay(lease.attempt, hint, fastrand::f64()), error }
}
