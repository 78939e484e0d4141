//! Health: pure functions from the stored records to the state that every surface shows.
//!
//! The API, the metrics, the log, the dashboard and `waybill status` show the result of [`assess_shop`] and [`whole`]
//! and compute nothing of their own.

mod changes;
mod code;
mod due;
mod facts;
mod level;
mod pass;
mod reason;
#[cfg(test)]
mod tests;
mod ticks;

use std::sync::Arc;

use super::cause::ErrorClass;
use super::completeness::{LossStage, SinkLoss};
use super::plural::counted;
use super::shop::{Shop, ShopState};
use super::shop_id::ShopId;
use super::stream_status::{StreamError, StreamStatus, Trouble, TroubleKind};
use crate::domain::timestamp::Timestamp;
use facts::{StreamVerdict, outage_after, past};

pub use changes::{HealthChange, Known};
pub use code::{Code, Means};
pub use facts::{Facts, Fault, OpenRun, ResourceFacts, ShopFacts, StreamFacts};
pub use level::{Level, State};
pub use pass::Problem;
pub use reason::{Reason, class_remedy};
pub use ticks::Ticks;

/// Reasons listed; with thousands of shops all of them would be megabytes.
pub const REASONS_MAX: usize = 200;

/// The health of the installation, as a whole and by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub level: Level,
    /// The worst first, at most [`REASONS_MAX`].
    pub reasons: Vec<Reason>,
    /// All reasons that are not the state of a stream, not cut to [`REASONS_MAX`].
    pub faults: Vec<Reason>,
    pub shops: Vec<Arc<ShopHealth>>,
}

/// The assessment of one shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShopFound {
    pub health: Arc<ShopHealth>,
    /// What was given up.
    parked: Vec<Reason>,
    /// When the assessment may change by time alone; None: never.
    pub changes_at: Option<Timestamp>,
}

impl ShopFound {
    /// The same assessment, shown at a later moment: ages, due times and the texts of `faults` are brought up to date.
    /// `due_after` gives when a resource is due after its last success.
    pub fn shown(
        &self,
        now: Timestamp,
        faults: &[Fault],
        due_after: impl Fn(&str, Option<Timestamp>) -> Option<Timestamp>,
    ) -> ShopFound {
        let blocking = blocking(faults);
        let mut health = ShopHealth::clone(&self.health);
        for resource in &mut health.resources {
            resource.age_seconds = age_seconds(resource.last_success_at, now);
            if resource.next_due_at.is_some() {
                resource.next_due_at = due_after(&resource.resource, resource.last_success_at);
            }
            let same = blocking.filter(|fault| resource.reason.as_ref().is_some_and(|own| own.code == fault.code));
            if let (Some(reason), Some(fault)) = (&mut resource.reason, same) {
                reason.text.clone_from(&fault.text);
            }
        }
        ShopFound { health: Arc::new(health), ..self.clone() }
    }
}

fn age_seconds(success: Option<Timestamp>, now: Timestamp) -> Option<u64> {
    success.map(|at| now.since(at).as_secs())
}

/// The health of a shop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShopHealth {
    pub shop_id: ShopId,
    /// The worst of its resources.
    pub state: State,
    pub created_at: Timestamp,
    pub resources: Vec<ResourceHealth>,
}

/// The health of a resource of a shop: that of the worst of its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceHealth {
    pub resource: String,
    pub state: State,
    /// When it entered this state, if known.
    pub since: Option<Timestamp>,
    /// Of the stream whose success is the oldest; None: some stream never had one.
    pub last_success_at: Option<Timestamp>,
    pub last_attempt_at: Option<Timestamp>,
    /// None: nothing is scheduled for it.
    pub next_due_at: Option<Timestamp>,
    /// Since the last success.
    pub age_seconds: Option<u64>,
    pub last_error: Option<StreamError>,
    /// Why it is not fresh.
    pub reason: Option<Reason>,
}

/// Combines the assessments of all shops into the health of the installation.
pub fn whole<'a>(means: Means, faults: &[Fault], found: impl Iterator<Item = &'a ShopFound>) -> Health {
    let code = blocking(faults).map(|fault| fault.code);
    let mut faults: Vec<Reason> = faults.iter().map(|fault| Reason::of_fault(fault, means)).collect();
    let (mut reasons, mut shops) = (Vec::new(), Vec::new());
    for ShopFound { health, parked, .. } in found {
        let own = health.resources.iter().filter_map(|one| one.reason.as_ref());
        reasons.extend(own.filter(|reason| code != Some(reason.code)).cloned());
        faults.extend(parked.iter().cloned());
        shops.push(Arc::clone(health));
    }
    reasons.extend(faults.iter().cloned());
    let level = reasons.iter().map(|reason| reason.code.level()).max().unwrap_or_default();
    reasons.sort_by(|a, b| {
        let rank = |reason: &Reason| (reason.code.level(), reason.code);
        rank(b).cmp(&rank(a)).then_with(|| (&a.shop_id, &a.resource).cmp(&(&b.shop_id, &b.resource)))
    });
    if reasons.len() > REASONS_MAX {
        let more = reasons.len() - (REASONS_MAX - 1);
        reasons.truncate(REASONS_MAX - 1);
        reasons.push(Reason::more(more, means));
    }
    Health { level, reasons, faults, shops }
}

/// The fault that keeps every document from reaching the sink, if there is one.
pub fn blocking(faults: &[Fault]) -> Option<&Fault> {
    faults.iter().filter(|fault| fault.code.blocks_all()).max_by_key(|fault| fault.code)
}

/// Assesses one shop.
pub fn assess_shop(facts: &Facts<'_>, of: &ShopFacts) -> ShopFound {
    let parked = of.resources.iter().filter(|resource| resource.parked > 0);
    let parked = parked.map(|resource| Reason::parked(&of.shop.id, resource, facts.means)).collect();
    ShopFound { health: Arc::new(shop(facts, of)), parked, changes_at: due::next_change(facts, of) }
}

fn shop(facts: &Facts<'_>, of: &ShopFacts) -> ShopHealth {
    let blocking = blocking(facts.faults);
    let resources: Vec<ResourceHealth> =
        of.resources.iter().map(|resource| resource_health(facts, &of.shop, resource, blocking)).collect();
    let own = match of.shop.state {
        ShopState::Active => State::Fresh,
        ShopState::Paused => State::Paused,
        ShopState::Refused => State::Refused,
    };
    let state = resources.iter().map(|one| one.state).max().unwrap_or_default().max(own);
    ShopHealth { shop_id: of.shop.id.clone(), state, created_at: of.shop.created_at, resources }
}

fn resource_health(facts: &Facts<'_>, shop: &Shop, of: &ResourceFacts, blocking: Option<&Fault>) -> ResourceHealth {
    let now = facts.now;
    let mut worst: Option<StreamVerdict> = None;
    let mut error: Option<&StreamError> = None;
    let (mut success, mut attempt, mut due) = (Some(Timestamp::MAX), None, None);
    for stream in &of.streams {
        // A run that ended well while the sink was blocked, or while each document failed, has not delivered anything yet.
        let blocked_at = blocking.and_then(|fault| fault.since);
        let failing_at = lasting(facts, &stream.status).map(|(_, trouble)| trouble.since);
        let cut_off = failing_at.chain(blocked_at).min().unwrap_or(Timestamp::MAX);
        let succeeded_at = past(stream.status.last_success_at, now).map(|at| at.min(cut_off));
        success = success.zip(succeeded_at).map(|(a, b): (Timestamp, Timestamp)| a.min(b));
        let started = stream.open.iter().map(|run| run.started_at).max();
        attempt = attempt.max(past(stream.status.last_attempt_at.or(succeeded_at), now)).max(past(started, now));
        if shop.state == ShopState::Active {
            let next = facts.ticks.due_after(succeeded_at, of.every);
            due = [due, next].into_iter().flatten().min();
        }
        let verdict = stream_verdict(facts, shop, of, stream, blocking);
        let is_worse = match (&verdict, &worst) {
            (Some(verdict), Some(known)) => verdict.state > known.state,
            (verdict, None) => verdict.is_some(),
            (None, Some(_)) => false,
        };
        let newest = stream.status.last_error.as_ref();
        if is_worse {
            (worst, error) = (verdict, newest.or(error));
        } else if worst.is_none() && newest.map(|one| one.at) > error.map(|one| one.at) {
            error = newest;
        }
    }
    let success = success.filter(|at| *at != Timestamp::MAX);
    let reason = worst.as_ref().map(|verdict| Reason::of_stream(shop, &of.name, verdict, facts.means));
    ResourceHealth {
        resource: of.name.clone(),
        state: worst.as_ref().map(|verdict| verdict.state).unwrap_or_default(),
        since: worst.and_then(|verdict| verdict.since),
        last_success_at: success,
        last_attempt_at: attempt,
        next_due_at: due,
        age_seconds: age_seconds(success, now),
        last_error: error.cloned(),
        reason,
    }
}

/// Why a stream is not fresh; None: it is.
fn stream_verdict(
    facts: &Facts<'_>,
    shop: &Shop,
    of: &ResourceFacts,
    stream: &StreamFacts,
    blocking: Option<&Fault>,
) -> Option<StreamVerdict> {
    match shop.state {
        ShopState::Refused => {
            return Some(of_shop(shop, State::Refused, Code::Refused, "the login host refused the credentials"));
        }
        ShopState::Paused => return Some(of_shop(shop, State::Paused, Code::Paused, "paused on request")),
        ShopState::Active => {}
    }
    if let Some(fault) = blocking {
        let (code, text) = (fault.code, fault.text.clone());
        let state = if code.level() == Level::Failing { State::Failing } else { State::Behind };
        return Some(StreamVerdict { state, since: fault.since, code, class: None, text });
    }
    failing(facts, &stream.status)
        .or_else(|| unproved(stream))
        .or_else(|| of.loss.as_ref().map(lost))
        .or_else(|| behind(facts, shop, of, stream))
}

fn of_shop(shop: &Shop, state: State, code: Code, text: &str) -> StreamVerdict {
    let text = shop.reason.clone().unwrap_or_else(|| text.to_owned());
    StreamVerdict { state, since: Some(shop.updated_at), code, class: None, text }
}

fn failing(facts: &Facts<'_>, status: &StreamStatus) -> Option<StreamVerdict> {
    if status.failures > 0 {
        let error = status.last_error.as_ref();
        let text = match (status.failures, error) {
            (1, Some(error)) => format!("its last run failed: {}", error.text),
            (runs, Some(error)) => format!("its last {runs} runs failed: {}", error.text),
            (runs, None) => format!("its last {runs} runs failed"),
        };
        let (since, class) = (status.failing_since, error.map(|error| error.class));
        return Some(StreamVerdict { state: State::Failing, since, code: Code::RunFailed, class, text });
    }
    let (kind, trouble) = lasting(facts, status).next()?;
    let (code, what) = match kind {
        TroubleKind::List => (Code::CallsFail, "its list calls fail"),
        TroubleKind::Detail => (Code::CallsFail, "its detail calls fail"),
        TroubleKind::Write => (Code::WritesFail, "the sink refuses its documents"),
    };
    Some(StreamVerdict {
        state: State::Failing,
        since: Some(trouble.since),
        code,
        class: Some(trouble.cause.class),
        text: format!("{what}: {}", trouble.cause.text),
    })
}

/// Troubles of a stream that are more than one bad answer.
fn lasting<'a>(
    facts: &Facts<'_>,
    status: &'a StreamStatus,
) -> impl Iterator<Item = (TroubleKind, &'a Trouble)> + use<'a> {
    let (patience, now) = (outage_after(facts), facts.now);
    status.troubles().filter(move |(kind, trouble)| {
        // A negative age means that the clock was set back: count it as lasting.
        kind.is_proved_by(trouble.cause.class) || now.checked_since(trouble.since).is_none_or(|age| age >= patience)
    })
}

fn unproved(stream: &StreamFacts) -> Option<StreamVerdict> {
    let unproved = stream.unproved.as_ref()?;
    Some(StreamVerdict {
        state: State::Unproved,
        since: Some(unproved.since),
        code: Code::Unproved,
        // Each needs another remedy.
        class: Some(match unproved.vanished_at {
            Some(_) => ErrorClass::Vanished,
            None => unproved.class.unwrap_or(ErrorClass::Unproved),
        }),
        text: unproved.reason.clone(),
    })
}

fn lost(loss: &SinkLoss) -> StreamVerdict {
    let (code, text) = match loss.stage {
        LossStage::Suspected => {
            let text = "the sink may lack documents that were written, as after a change of the sink or a restore from a backup: all \
                documents are compared with it";
            (Code::SinkChanged, text.to_owned())
        }
        LossStage::Repairing => {
            let text = "documents that the sink lacks are written or read again";
            (Code::SinkChanged, text.to_owned())
        }
        LossStage::Lasting => {
            let missing = counted(loss.missing, "document is", "documents are");
            let text = format!("{missing} missing in the sink, and a repair did not bring them back");
            (Code::DocumentsMissing, text)
        }
    };
    StreamVerdict { state: State::Behind, since: Some(loss.since), code, class: None, text }
}

fn behind(facts: &Facts<'_>, shop: &Shop, of: &ResourceFacts, stream: &StreamFacts) -> Option<StreamVerdict> {
    let verdict = |code, since, text| Some(StreamVerdict { state: State::Behind, since, code, class: None, text });
    let first_open = stream.open.iter().map(|run| run.started_at).min();
    let Some(success) = past(stream.status.last_success_at, facts.now) else {
        if stream.status.last_success_at.is_some() {
            let text = "its last success lies in the future: the clock was ahead when it was recorded".to_owned();
            return verdict(Code::ClockAhead, None, text);
        }
        let since = first_open.or(Some(shop.created_at));
        return match stream.open.iter().map(|run| run.pending).max() {
            Some(0) | None => verdict(Code::FirstWalk, since, "its first walk has not ended yet".to_owned()),
            Some(left) => {
                let left = counted(left, "document is", "documents are");
                let text = format!("its first walk has not ended yet: {left} still to be read");
                verdict(Code::FirstWalk, since, text)
            }
        };
    };
    let age = facts.now.since(success);
    if facts.stale_after.is_some_and(|limit| age > limit) {
        return verdict(Code::Stale, Some(success), "older than alerts.stale_after allows".to_owned());
    }
    let missed_three = |since| facts.ticks.three_missed_at(since, of.every).is_some_and(|at| at <= facts.now);
    if missed_three(success) {
        let text = match first_open {
            Some(_) => "no run has ended well for three schedules; one is open",
            None => "no run has ended well for three schedules",
        };
        return verdict(Code::Behind, Some(success), text.to_owned());
    }
    let lags = |run: &&OpenRun| run.pending > 0 && missed_three(run.started_at);
    let left: u64 = stream.open.iter().filter(lags).map(|run| run.pending).sum();
    if left > 0 {
        let left = counted(left, "document that it listed is", "documents that it listed are");
        return verdict(Code::Backlog, first_open, format!("{left} still to be read"));
    }
    None
}
