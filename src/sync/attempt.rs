//! One attempt of one job: at most one call, and its result as a value.
//!
//! Called by a lane with a leased job. An attempt reads the store and never writes it: all that it found out is in its
//! [`AttemptResult`], whose [`StepOutput`] the lane commits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::domain::retry::ATTEMPTS_OF_WRONG_ANSWERS;
use crate::domain::{
    Attempt, Cause, Disposition, Failure, FetchDetail, FetchedDocument, JobKind, Lease, LeaseByKind, ListPage,
    ListParams, Mode, Next, NotFound, Page, RetryPolicy, Shop, StepOutput, StreamId, Timestamp, WalkRule,
};
use crate::source::pages::{self, ListResponse, Parsed};
use crate::source::{Call, Outcome, Position, SourceError, Walk, news_since};
use crate::store::StoreError;

/// Result of one attempt.
pub(super) struct AttemptResult {
    pub(super) output: StepOutput,
    /// None: no call was needed; the slot is unused.
    pub(super) call: Option<CallMade>,
    pub(super) pause: Option<LeasePause>,
    /// What no column takes of the documents that were read, to be counted.
    pub(super) drift: Vec<FieldDrift>,
}

/// A call, and how it went.
pub(super) struct CallMade {
    pub(super) outcome: Outcome,
    /// When its response ended.
    pub(super) at: Instant,
    /// How long it took, including its waits.
    pub(super) took: Duration,
}

impl AttemptResult {
    fn without_call(output: StepOutput) -> AttemptResult {
        AttemptResult { output, call: None, pause: None, drift: Vec::new() }
    }
}

/// How long to lease no jobs: of the whole lane, or of the job's shop.
pub(super) enum LeasePause {
    Lane(Duration),
    Shop(Duration),
}

/// Runs one leased job.
///
/// Cancel safety: when dropped, a call may have left; the lane then counts its slot as lost.
pub(super) async fn run(inner: Arc<Inner>, shop: Arc<Shop>, lease: Lease) -> AttemptResult {
    let Some(definition) = inner.definition(&lease.job.resource) else {
        let reason = format!("resource `{}` is no longer configured", lease.job.resource);
        return AttemptResult::without_call(lease.failed(Failure::Park { reason: reason.into(), transient: false }));
    };
    let step = Step { inner: &inner, definition, shop: &shop, attempt: lease.attempt };
    match lease.by_kind() {
        LeaseByKind::ListPage(lease) => step.list_page(lease).await,
        LeaseByKind::FetchDetail(lease) => step.fetch_detail(lease).await,
        LeaseByKind::Sweep(lease) => AttemptResult::without_call(StepOutput::Sweep(lease)),
    }
}

/// Settles the job of an attempt that panicked. That is a bug of ours, and the same answer may cause it again: the job
/// is retried as usual and parked in the end.
pub(super) fn panicked(policy: &RetryPolicy, lease: Lease) -> StepOutput {
    let error = "a bug in Waybill: the attempt panicked; see the log".into();
    let failure = retry_or_park(policy, lease.attempt, policy.attempts_max, None, error);
    lease.failed(failure)
}

/// What an attempt needs, whatever the kind of its job.
struct Step<'a> {
    inner: &'a Inner,
    definition: &'a Definition,
    shop: &'a Shop,
    attempt: Attempt,
}

impl Step<'_> {
    async fn list_page(&self, lease: Lease<ListPage>) -> AttemptResult {
        let rule = self.rule(&lease.job.kind.combination);
        let position = match self.position(&lease) {
            Ok(Some(position)) => position,
            // Without a parent there is no list.
            Ok(None) => {
                let page = Page::empty(Next::End);
                return AttemptResult::without_call(StepOutput::Page { lease, page, rule });
            }
            Err(error) => return self.failed(lease, None, &error),
        };
        let call = pages::list_call(self.definition, &lease.job.kind.combination, &position, self.now());
        let made = match self.call(&call).await {
            Ok(made) => made,
            Err(failure) => return AttemptResult::without_call(lease.failed(failure)),
        };
        match self.parse_page(&lease, &position, &made.outcome) {
            Ok(Parsed { value: page, drift }) => {
                let output = StepOutput::Page { lease, page, rule };
                AttemptResult { output, call: Some(made), pause: None, drift }
            }
            Err(error) => self.failed_page(lease, &position, made, &self.redacted(error)),
        }
    }

    async fn fetch_detail(&self, lease: Lease<FetchDetail>) -> AttemptResult {
        let call = pages::detail_call(self.definition, &lease.job.kind.id);
        let Some((call, detail)) = call.zip(self.definition.detail.as_ref()) else {
            return AttemptResult::without_call(StepOutput::Obsolete(lease));
        };
        let made = match self.call(&call).await {
            Ok(made) => made,
            Err(failure) => return AttemptResult::without_call(lease.failed(failure)),
        };
        match self.parse_detail(&lease, &made.outcome) {
            Ok(Parsed { value: document, drift }) => {
                let output = StepOutput::Document { lease, document, endpoint: detail.endpoint_digest };
                AttemptResult { output, call: Some(made), pause: None, drift }
            }
            Err(SourceError::NotFound { status, .. }) => {
                let output = StepOutput::NotFound { lease, answer: NotFound { endpoint: detail.endpoint(), status } };
                AttemptResult { output, call: Some(made), pause: None, drift: Vec::new() }
            }
            Err(error) => self.failed(lease, Some(made), &self.redacted(error)),
        }
    }

    /// An error about the content of an answer, without the shop's credentials.
    fn redacted(&self, error: SourceError) -> SourceError {
        match self.inner.credentials(self.shop) {
            Ok(credentials) => self.inner.deps.source.redacted(&credentials, error),
            // Without credentials there was no call.
            Err(_) => error,
        }
    }

    async fn call(&self, call: &Call) -> Result<CallMade, Failure> {
        let credentials = self.inner.credentials(self.shop).map_err(|error| {
            let reason = format!("the shop's credentials cannot be read: {error}");
            Failure::StopShop { reason, read_at: self.shop.updated_at }
        })?;
        let begun = Instant::now();
        let outcome = self.inner.deps.source.get(&credentials, call).await;
        let at = Instant::now();
        Ok(CallMade { outcome, at, took: at - begun })
    }

    fn now(&self) -> Timestamp {
        self.inner.deps.store.clock().now()
    }

    fn rule(&self, combination: &ListParams) -> WalkRule {
        let list = &self.definition.list;
        WalkRule {
            newest_first: self.definition.newest_first(combination),
            overlap: list.overlap,
            news_are_partial: list.windows.is_some() || list.recent.is_some(),
            endpoint: self.definition.detail.as_ref().map(|detail| detail.endpoint_digest),
        }
    }

    /// Where a page begins; none: it is the first of a list that has no parents.
    fn position(&self, lease: &Lease<ListPage>) -> Result<Option<Position>, SourceError> {
        let position = match &lease.job.kind {
            ListPage { page: 1, cursor: None, .. } => self.first_position(lease)?,
            ListPage { page, cursor, .. } => Some(Position::read(*page, cursor.as_deref())?),
        };
        Ok(position.map(|position| position.reached(self.definition, self.now())))
    }

    /// The first position of a walk. The same at each attempt: it depends only on the run's start and what was known
    /// then.
    fn first_position(&self, lease: &Lease<ListPage>) -> Result<Option<Position>, SourceError> {
        let parent = match &self.definition.parent {
            Some(_) => match self.parent_after(None).map_err(unreadable)? {
                Some(parent) => Some(parent),
                None => return Ok(None),
            },
            None => None,
        };
        let (store, now) = (&self.inner.deps.store, self.now());
        let run = store.run(lease.job.kind.run).map_err(unreadable)?;
        let walked = store.checkpoint(&lease.job.stream()).map_err(unreadable)?.until(now);
        let (mode, started_at) = run.map_or((Mode::Full, now), |run| (run.mode, run.started_at));
        let since = news_since(self.definition, &walked, started_at);
        Ok(Some(Position::begin(self.definition, Walk { mode, started_at, since, parent })))
    }

    /// The parent after one, in the order of ids.
    fn parent_after(&self, id: Option<&str>) -> Result<Option<String>, StoreError> {
        let parent = self.definition.parent.as_deref().and_then(|parent| self.inner.definition(parent));
        let Some(parent) = parent else { return Ok(None) };
        let streams: Vec<StreamId> = parent.streams(&self.shop.id).collect();
        self.inner.deps.store.next_listed(&streams, id)
    }

    /// A page, or the end of a list that an error means.
    fn parse_page(
        &self,
        lease: &Lease<ListPage>,
        position: &Position,
        outcome: &Outcome,
    ) -> Result<Parsed<Page>, SourceError> {
        // The parser takes no errors. A store that cannot be read must not end the walk.
        let mut failed = None;
        let next_parent = |id: &str| {
            self.parent_after(Some(id)).unwrap_or_else(|error| {
                failed = Some(unreadable(error));
                None
            })
        };
        let parsed = match &outcome.result {
            Ok(body) => {
                let previous = lease.job.kind.previous.as_deref();
                let answer = ListResponse { body, next_link: outcome.next_link.as_deref(), previous };
                pages::page(self.definition, position, answer, next_parent)?
            }
            Err(SourceError::NotFound { .. }) if position.parent.is_some() && position.is_first() => {
                pages::no_list(self.definition, position, next_parent)
            }
            Err(error) => {
                pages::end_by_status(self.definition, position, error, next_parent).ok_or_else(|| error.clone())?
            }
        };
        if let Some(error) = failed {
            return Err(error);
        }
        match &parsed.value.doubt {
            // Another answer may prove the end.
            Some(doubt) if self.attempt < self.attempts_of_wrong_answers() => {
                Err(SourceError::Shape { detail: doubt.clone() })
            }
            _ => Ok(parsed),
        }
    }

    fn parse_detail(
        &self,
        lease: &Lease<FetchDetail>,
        outcome: &Outcome,
    ) -> Result<Parsed<FetchedDocument>, SourceError> {
        let body = outcome.result.as_ref().map_err(SourceError::clone)?;
        let id = &lease.job.kind.id;
        let first_seen = || self.inner.deps.store.first_listed_at(&lease.job.stream(), id).ok().flatten();
        pages::detail(self.definition, id, body, first_seen, self.now())
    }

    /// A page that failed. If it is given up, the walk continues behind it where the pages after it can be requested.
    fn failed_page(
        &self,
        lease: Lease<ListPage>,
        position: &Position,
        made: CallMade,
        error: &SourceError,
    ) -> AttemptResult {
        let stream = lease.job.stream();
        let mut failed = self.failed(lease.clone(), Some(made), error);
        if let StepOutput::Failed { failure: Failure::Park { reason, transient }, .. } = &failed.output
            && let Some(next) = pages::page_behind(self.definition, position, error, || self.is_only_this_list(&stream))
        {
            failed.output = StepOutput::PageSkipped { lease, reason: reason.clone(), transient: *transient, next };
        }
        failed
    }

    /// What becomes of a failed job, and the pause of its lane or shop.
    fn failed<K: Into<JobKind>>(&self, lease: Lease<K>, call: Option<CallMade>, error: &SourceError) -> AttemptResult {
        let retry = |most, hint| retry_or_park(&self.inner.deps.retry, self.attempt, most, hint, error.cause());
        let (failure, pause) = match error.disposition() {
            Disposition::Retry { after } => (retry(self.inner.deps.retry.attempts_max, after), None),
            Disposition::RetryOnce => (retry(self.attempts_of_wrong_answers(), None), None),
            Disposition::Postpone { after } => {
                // Tokens are per shop.
                let is_of_shop = matches!(error, SourceError::LoginUnavailable { .. });
                let pause = if is_of_shop { LeasePause::Shop(after) } else { LeasePause::Lane(after) };
                (Failure::Postpone { error: error.cause() }, Some(pause))
            }
            Disposition::Park { transient } => (Failure::Park { reason: error.cause(), transient }, None),
            Disposition::StopShop => {
                (Failure::StopShop { reason: error.to_string(), read_at: self.shop.updated_at }, None)
            }
        };
        let job = &lease.job;
        tracing::debug!(
            shop.id = job.shop.as_str(), job.id = job.seq.number(), job.attempt = self.attempt, %error, ?failure, "attempt failed"
        );
        AttemptResult { output: lease.failed(failure), call, pause, drift: Vec::new() }
    }

    /// Whether the API answered other calls of the shop while this list failed.
    fn is_only_this_list(&self, stream: &StreamId) -> bool {
        let status = self.inner.deps.store.stream_status(stream).ok();
        let trouble = status.and_then(|status| status.list_trouble);
        trouble.is_some_and(|trouble| self.inner.last_success.is_after(&stream.shop, trouble.since))
    }

    fn attempts_of_wrong_answers(&self) -> u32 {
        ATTEMPTS_OF_WRONG_ANSWERS.min(self.inner.deps.retry.attempts_max)
    }
}

fn unreadable(error: StoreError) -> SourceError {
    SourceError::Interrupted(format!("the store cannot be read: {error}"))
}

/// Another attempt after a pause, unless `attempt` was the last of `most`.
fn retry_or_park(policy: &RetryPolicy, attempt: Attempt, most: u32, hint: Option<Duration>, error: Cause) -> Failure {
    if attempt >= most {
        let reason = Cause::new(error.class, format!("{error} (after {attempt} attempts)"));
        return Failure::Park { reason, transient: true };
    }
    Failure::Retry { after: policy.delay(attempt, hint, fastrand::f64()), error }
}
