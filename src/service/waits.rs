//! What open runs wait for: a rate limit, a pause that the API asked for, failing calls, or the sink.

use std::collections::HashMap;
use std::time::Duration;

use super::Service;
use crate::domain::{CallKind, Run, RunState, Timestamp, Wait, WaitReason};
use crate::store::{Queue, StoreError};
use crate::sync::{LaneKey, LaneView};

/// Delayed jobs that are looked at for the times of retries.
const RETRIES_MAX: usize = 1_000;

/// Snapshot of the budgets of all lanes, and whether the outbox has room.
pub(super) struct Waits {
    lanes: HashMap<LaneKey, LaneView>,
    now: Timestamp,
    outbox_has_room: bool,
    /// When failed calls are tried again.
    retries: HashMap<Queue, Timestamp>,
}

impl Service {
    pub(super) fn waits(&self) -> Result<Waits, StoreError> {
        Ok(Waits {
            lanes: self.engine.lanes().into_iter().map(|lane| (lane.key.clone(), lane)).collect(),
            now: self.store.clock().now(),
            outbox_has_room: self.store.outbox_bytes()? <= self.outbox_bytes_max,
            retries: match self.store.counters()?.retrying_jobs {
                0 => HashMap::new(),
                _ => self.store.next_retries(RETRIES_MAX)?,
            },
        })
    }

    /// What a run waits for; none: it is not open, or does not wait.
    pub(super) fn waits_for(&self, waits: &Waits, run: &Run, account: &str) -> Result<Option<Wait>, StoreError> {
        let Some(definition) = self.definitions.iter().find(|one| one.name == run.stream.resource) else {
            return Ok(None);
        };
        let is_walking = match run.state {
            RunState::Walking => true,
            RunState::Fetching => false,
            RunState::Done | RunState::Failed | RunState::Canceled | RunState::Unproved | RunState::Stopped => {
                return Ok(None);
            }
        };
        if !waits.outbox_has_room {
            return Ok(Some(wait(WaitReason::Sink, None, "the sink to take rows, as the outbox is full")));
        }
        let path = match (is_walking, &definition.detail) {
            (true, _) => &definition.list.path,
            (false, Some(detail)) => &detail.path,
            (false, None) => return Ok(None),
        };
        let status = self.store.stream_status(&run.stream)?;
        let trouble = if is_walking { status.list_trouble } else { status.detail_trouble };
        let rule = self.engine.rules().find("GET", path).map(|rule| rule.name.clone());
        let key = rule.map(|rule| LaneKey { account: account.to_owned(), rule });
        let lane = key.and_then(|key| waits.lanes.get(&key));
        let in_ms = |ms: u64| Some(waits.now + Duration::from_millis(ms));
        let blocked = lane.map(|lane| lane.budget.blocked_for_ms).filter(|ms| *ms > 0);
        Ok(if let Some(ms) = blocked {
            Some(wait(WaitReason::RetryAfter, in_ms(ms), "the API, which asked for a pause"))
        } else if let Some(trouble) = trouble {
            let kind = if is_walking { CallKind::List } else { CallKind::Detail };
            let queue = Queue { shop: run.stream.shop.clone(), resource: run.stream.resource.clone(), kind };
            let retry = waits.retries.get(&queue).copied();
            Some(wait(WaitReason::Api, retry, &format!("the API to answer again ({})", trouble.cause.text)))
        } else {
            let next = lane.and_then(|lane| lane.budget.next_free_ms);
            next.map(|ms| wait(WaitReason::RateLimit, in_ms(ms), "the rate limit"))
        })
    }
}

fn wait(reason: WaitReason, until: Option<Timestamp>, text: &str) -> Wait {
    Wait { reason, until, text: text.to_owned() }
}
