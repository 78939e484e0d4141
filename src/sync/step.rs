//! One job, one attempt: at most one call, and its effects as a value.
//!
//! Called by a lane with a leased job. A step reads; it never writes the store.

use std::sync::Arc;

use tokio::time::Instant;

use super::Inner;
use crate::catalog::Definition;
use crate::domain::{Disposition, Effects, JobKind, Lease, Shop};
use crate::source::{Outcome, SourceError, pages};
use crate::store::{Failure, Settlement, WalkRule};

/// What an attempt came to.
pub(super) struct Done {
    pub(super) lease: Lease,
    pub(super) settlement: Settlement,
    /// None: no call was due; the slot is unused.
    pub(super) outcome: Option<Outcome>,
    /// When the call's response ended.
    pub(super) at: Instant,
    /// How long the call took, with what it waited for.
    pub(super) took: std::time::Duration,
    /// The lane shall wait this long before it leases again.
    pub(super) pause: Option<std::time::Duration>,
}

/// Runs one leased job.
///
/// Cancel safety: when dropped, a call may have left; the lane then counts its slot as lost.
pub(super) async fn run(inner: Arc<Inner>, shop: Arc<Shop>, lease: Lease) -> Done {
    let Some(definition) = inner.definition(&lease.job.resource).cloned() else {
        let reason = format!("resource `{}` is not configured any more", lease.job.resource);
        return without_call(lease, Settlement::Failed(Failure::Park { reason }));
    };
    let rule = WalkRule {
        newest_first: definition.list.order == crate::catalog::definition::Order::NewestFirst,
        overlap_ms: i64::try_from(definition.list.overlap.as_millis()).unwrap_or(i64::MAX),
    };
    let call = match &lease.job.kind {
        JobKind::Sweep { .. } => None,
        JobKind::ListPage { combination, page, cursor, .. } => {
            Some(pages::list_call(&definition, combination, *page, cursor.as_deref()))
        }
        JobKind::FetchDetail { id, .. } => pages::detail_call(&definition, id),
    };
    let Some(call) = call else {
        return without_call(lease, Settlement::Done { effects: Effects::Local, rule });
    };
    let credentials = match inner.credentials(&shop) {
        Ok(credentials) => credentials,
        Err(error) => {
            let reason = format!("the shop's credentials cannot be read: {error}");
            return without_call(lease, Settlement::Failed(Failure::StopShop { reason }));
        }
    };
    let begun = Instant::now();
    let outcome = inner.parts.source.get(&credentials, &call).await;
    let at = Instant::now();
    let effects = match &outcome.result {
        Ok(body) => read(&inner, &definition, &lease, body),
        Err(SourceError::NotFound { .. }) if matches!(lease.job.kind, JobKind::FetchDetail { .. }) => Ok(Effects::Gone),
        Err(error) => Err(error.clone()),
    };
    let (settlement, pause) = match effects {
        Ok(effects) => (Settlement::Done { effects, rule }, None),
        Err(error) => failed(&inner, &lease, &error),
    };
    Done { lease, settlement, outcome: Some(outcome), at, took: at - begun, pause }
}

fn without_call(lease: Lease, settlement: Settlement) -> Done {
    Done { lease, settlement, outcome: None, at: Instant::now(), took: std::time::Duration::ZERO, pause: None }
}

/// From a body to effects.
fn read(inner: &Inner, definition: &Definition, lease: &Lease, body: &bytes::Bytes) -> Result<Effects, SourceError> {
    match &lease.job.kind {
        JobKind::FetchDetail { id, .. } => {
            let store = &inner.parts.store;
            let first_seen = || store.first_listed_at(&lease.job.stream(), id).ok().flatten();
            let read = pages::detail(definition, id, body, first_seen, store.clock().now())?;
            Ok(Effects::Detail { body: body.clone(), hash: read.hash, refresh_after_ms: read.refresh_after_ms })
        }
        JobKind::ListPage { .. } | JobKind::Sweep { .. } => {
            let page = pages::page(definition, body)?;
            Ok(Effects::Page { rows: page.rows, rejected: page.rejected, digest: page.digest, next: page.next })
        }
    }
}

/// What becomes of the job, and how long its lane waits.
fn failed(inner: &Inner, lease: &Lease, error: &SourceError) -> (Settlement, Option<std::time::Duration>) {
    let (failure, pause) = match error.disposition() {
        Disposition::Retry { after } => (again(inner, lease, after, error.to_string()), None),
        Disposition::Postpone { after } => (Failure::Postpone, Some(after)),
        Disposition::Park => (Failure::Park { reason: error.to_string() }, None),
        Disposition::StopShop => (Failure::StopShop { reason: error.to_string() }, None),
    };
    tracing::debug!(
        shop.id = lease.job.shop, job.id = lease.job.seq, job.attempt = lease.attempt, %error, ?failure, "attempt failed"
    );
    (Settlement::Failed(failure), pause)
}

/// What becomes of the job of a step that panicked. That is a fault of ours, and it may well come again with the
/// same answer: the job keeps the pace of retries and is parked in the end.
pub(super) fn panicked(inner: &Inner, lease: &Lease) -> Settlement {
    Settlement::Failed(again(inner, lease, None, "a fault of Waybill: the step panicked; see the log".to_owned()))
}

/// Another attempt after a pause, unless it was the last.
fn again(inner: &Inner, lease: &Lease, hint: Option<std::time::Duration>, error: String) -> Failure {
    let policy = &inner.parts.retry;
    if lease.attempt >= policy.attempts_max {
        return Failure::Park { reason: format!("{error} (after {} attempts)", lease.attempt) };
    }
    let after = policy.delay(lease.attempt, hint, fastrand::f64());
    Failure::Retry { after, error }
}
