//! The loop that runs the jobs of a lane.
//!
//! The loop waits for a token and its turn, takes the budget's free slots, leases that many jobs (one durable commit that
//! also records the slots as occupied), starts their attempts, and commits the results in batches. It
//! sleeps until the next slot is free, a call ends, or work arrives, and ends when it has no jobs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use super::attempt::{self, AttemptResult, CallMade, LeasePause};
use super::drift::Drift;
use super::failure_log::CallSite;
use super::inner::{Inner, STORE_PAUSE};
use super::lane::{Lane, LaneKey};
use super::reads::Reads;
use super::turns::Turn;
use crate::catalog::coverage::FieldDrift;
use crate::domain::{Failure, Lease, LogThrottle, Shop, ShopId, StepOutput};
use crate::source::SourceError;
use crate::store::{OccupiedSlots, Queue, StoreError};
use crate::supervisor::{count_panic, describe_join_error};

/// Upper bound of a lane's sleep: some wake-up conditions have no notification.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Poll interval while the outbox is full. Thousands of lanes may wait for it.
const OUTBOX_PAUSE: Duration = Duration::from_secs(1);
/// Poll interval while another process may be the one that calls.
const GATE_PAUSE: Duration = Duration::from_secs(1);
/// Calls up to this long may use the whole width of a lane; slower ones a part of it, so that
/// shops with slow answers do not hold the permits that all shops share.
const QUICK: Duration = Duration::from_secs(1);
/// Smallest width, however slow the calls. Until the first call has ended it is one: at a start thousands of lanes wait
/// for the shared permits, and each waiting attempt takes memory.
const WIDTH_MIN: u32 = 2;
/// Longest time that one call counts for: the wait for a login may be longer.
const TOOK_MAX: Duration = Duration::from_secs(30);
/// Without a rate rule a lane leases at least a quarter of its width at once, so that a commit serves many jobs.
const LEASED_AT_ONCE: u32 = 4;

/// Runs a lane until it has no jobs or the engine stops.
pub(super) async fn run(inner: Arc<Inner>, lane: Arc<Lane>) {
    let Some(turn) = first_turn(&inner, &lane).await else { return };
    // Boxed, so that the thousands of lanes that wait for their first turn are small.
    Box::pin(work(inner, lane, turn)).await;
}

/// None: the engine stops.
async fn first_turn(inner: &Inner, lane: &Lane) -> Option<Turn> {
    let shops = lane.queues().into_iter().map(|queue| queue.shop);
    // A shop that cannot be read is reported by the loop.
    let shops = shops.map(|shop| inner.deps.store.shop(&shop).ok().flatten());
    let logins = shops.collect::<Option<Vec<Shop>>>().and_then(|shops| inner.login_of(shops.iter()));
    inner.turn_after(logins).await
}

async fn work(inner: Arc<Inner>, lane: Arc<Lane>, turn: Turn) {
    let mut state = Loop {
        inner,
        lane,
        calls: JoinSet::new(),
        running: HashMap::new(),
        finished: Batch::default(),
        settling: JoinSet::new(),
        paused_until: Instant::now(),
        throttled: LogThrottle::new(),
        shops_paused: HashMap::new(),
        took: None,
        first: 0,
        turn: Some(turn),
    };
    loop {
        let stopping = state.inner.stop.is_cancelled();
        let next = if stopping { Next::Wait(None) } else { state.fill().await };
        if stopping && state.is_settled() {
            return;
        }
        match next {
            Next::Ended => return,
            Next::Wait(until) => state.wait(until, stopping).await,
            Next::Turn(login) => {
                state.rest();
                state.turn = state.inner.turn_after(login).await;
            }
        }
    }
}

enum Next {
    /// Until an event, or the instant.
    Wait(Option<Instant>),
    /// Until the lane has its turn; before that, until a login ends that its calls need.
    Turn(Option<BoxFuture<'static, ()>>),
    /// The lane had no jobs and has left the registry.
    Ended,
}

/// Finished attempts, and what their answers leave to store.
#[derive(Default)]
struct Batch {
    outputs: Vec<StepOutput>,
    /// A longer pause of the lane that the API asked for.
    pause: Option<Duration>,
    /// Drift that was logged, by resource.
    drift: BTreeMap<String, Drift>,
}

struct Loop {
    inner: Arc<Inner>,
    lane: Arc<Lane>,
    calls: JoinSet<AttemptResult>,
    /// The leases of the running attempts, to settle them should one panic.
    running: HashMap<Id, Lease>,
    /// Finished attempts, collected while the previous batch is being committed.
    finished: Batch,
    /// At most one batch.
    settling: JoinSet<()>,
    paused_until: Instant,
    throttled: LogThrottle,
    /// Shops whose login has just failed: until the pause is over they take no slots from others that share the account.
    shops_paused: HashMap<ShopId, Instant>,
    /// Moving average of how long calls take; none: none has ended.
    took: Option<Duration>,
    /// Index of the queue that comes first; rotates, so that each shop of an account does.
    first: usize,
    /// Held from before the first lease until all are settled.
    turn: Option<Turn>,
}

impl Loop {
    /// Leases and starts as many jobs as the budget allows.
    async fn fill(&mut self) -> Next {
        let now = Instant::now();
        if self.paused_until > now {
            return Next::Wait(Some(self.paused_until));
        }
        let room = self.width().saturating_sub(u32::try_from(self.calls.len()).unwrap_or(u32::MAX));
        if room == 0 {
            return Next::Wait(None);
        }
        match self.lease(room, now).await {
            Ok(next) => next,
            Err(error) => {
                error.warn("a lane could not lease jobs; retrying");
                self.paused_until = Instant::now() + STORE_PAUSE;
                Next::Wait(Some(self.paused_until))
            }
        }
    }

    async fn lease(&mut self, room: u32, now: Instant) -> Result<Next, StoreError> {
        // Before anything is read: without a rate rule this is asked after each call.
        if !self.is_worth_it(room, now) {
            return Ok(Next::Wait(None));
        }
        let store = self.inner.deps.store.clone();
        if self.lane.has_queues() && store.outbox_bytes()? > self.inner.deps.outbox_bytes_max {
            return Ok(Next::Wait(Some(now + OUTBOX_PAUSE)));
        }
        if !self.inner.deps.source.may_call() {
            return Ok(Next::Wait(Some(now + GATE_PAUSE)));
        }
        let mut queues = self.open_queues()?;
        if queues.is_empty() {
            return Ok(self.end_or_wait());
        }
        self.shops_paused.retain(|_, until| *until > now);
        queues.retain(|(queue, _)| !self.shops_paused.contains_key(&queue.shop));
        if queues.is_empty() {
            return Ok(Next::Wait(self.shops_paused.values().min().copied()));
        }
        let taken = {
            let mut budget = self.lane.budget();
            let want = budget.free(now).min(room);
            if want == 0 {
                return Ok(Next::Wait(Some(budget.next_free(now).unwrap_or(now + SLEEP_MAX))));
            }
            if self.turn.as_ref().is_none_or(|turn| turn.is_over(now)) {
                let settled = self.is_settled();
                return Ok(if settled {
                    Next::Turn(self.inner.login_of(queues.iter().map(|(_, shop)| &**shop)))
                } else {
                    Next::Wait(None)
                });
            }
            budget.take(want, now).map(|()| (want, budget.occupied(now)))
        };
        let (want, occupied) = match taken {
            Ok(taken) => taken,
            Err(overdrawn) => {
                let what = format!("{}: {overdrawn}", self.lane.key.rule);
                let shops = queues.into_iter().map(|(queue, _)| queue.shop).collect();
                store.pause_for_breach(shops, what).await?;
                return Ok(Next::Wait(None));
            }
        };
        let shops: HashMap<ShopId, Arc<Shop>> =
            queues.iter().map(|(queue, shop)| (queue.shop.clone(), Arc::clone(shop))).collect();
        let names: Vec<Queue> = queues.into_iter().map(|(queue, _)| queue).collect();
        let LaneKey { account, rule } = self.lane.key.clone();
        let slots = OccupiedSlots { account, rule, occupied };
        let leased = store.lease(names.clone(), want as usize, Some(slots)).await;
        let count = leased.as_ref().map_or(0, |leases| u32::try_from(leases.len()).unwrap_or(want));
        self.lane.budget().give_back(want - count);
        for lease in leased? {
            let Some(shop) = shops.get(&lease.job.shop) else { continue };
            let attempt = attempt::run(Arc::clone(&self.inner), Arc::clone(shop), lease.clone());
            let id = self.calls.spawn(attempt).id();
            self.running.insert(id, lease);
        }
        if count == want {
            // There may be more jobs; look again as soon as slots allow.
            return Ok(Next::Wait(Some(Instant::now())).only_if(self.calls.len() < self.width() as usize));
        }
        // A single queue holds the jobs of the calls under way.
        if names.len() > 1 || self.calls.is_empty() {
            self.lane.close_empty(&store, &names)?;
        }
        Ok(Next::Wait(self.shops_paused.values().min().copied()))
    }

    /// Whether to lease now. Without a rate rule there is no hurry while calls are under way.
    fn is_worth_it(&self, room: u32, now: Instant) -> bool {
        let free = self.lane.budget().free(now);
        free < u32::MAX || room >= self.width() / LEASED_AT_ONCE || self.calls.is_empty()
    }

    /// How many attempts may run at once.
    fn width(&self) -> u32 {
        width(self.inner.deps.lane_width, self.took)
    }

    /// The lane's queues whose shops are active, starting with another one each time.
    fn open_queues(&mut self) -> Result<Vec<(Queue, Arc<Shop>)>, StoreError> {
        let store = &self.inner.deps.store;
        let mut open = Vec::new();
        for queue in self.lane.queues() {
            match store.shop(&queue.shop)? {
                Some(shop) if self.lane.is_for(&shop, &queue) => open.push((queue, Arc::new(shop))),
                // Its jobs stay; waking the shop adds the queue again, here or to another lane.
                _ => self.lane.close(store, &queue)?,
            }
        }
        if !open.is_empty() {
            self.first = (self.first + 1) % open.len();
            open.rotate_left(self.first);
        }
        Ok(open)
    }

    /// Gives up the turn, and the memory that only leased jobs need: thousands of lanes may wait.
    fn rest(&mut self) {
        self.turn = None;
        self.running = HashMap::new();
    }

    /// Whether no job is leased.
    fn is_settled(&self) -> bool {
        self.calls.is_empty() && self.settling.is_empty() && self.finished.outputs.is_empty()
    }

    fn end_or_wait(&self) -> Next {
        if self.is_settled() && self.inner.lanes.remove_if_empty(&self.lane) { Next::Ended } else { Next::Wait(None) }
    }

    /// Waits for the next event, and settles finished attempts. `stopping` is the state that the loop
    /// acted on: a stop since then must end this wait.
    async fn wait(&mut self, until: Option<Instant>, stopping: bool) {
        if self.is_settled() {
            self.rest();
        }
        let sleep = tokio::time::sleep_until(until.unwrap_or_else(|| Instant::now() + SLEEP_MAX));
        let stop = self.inner.stop.clone();
        tokio::select! {
            biased;
            Some(done) = self.calls.join_next_with_id() => self.finished(done),
            Some(_) = self.settling.join_next() => self.settle_finished(),
            () = stop.cancelled(), if !stopping => {}
            () = self.lane.wake.notified() => {}
            () = sleep => {}
        }
    }

    /// Collects all attempts that are finished, and commits them together.
    fn finished(&mut self, first: Result<(Id, AttemptResult), tokio::task::JoinError>) {
        let mut next = Some(first);
        while let Some(done) = next {
            match done {
                Ok((id, done)) => {
                    // There since its start.
                    if let Some(lease) = self.running.remove(&id) {
                        self.account(&lease, &done);
                        self.note_drift(&lease, done.drift);
                        self.finished.outputs.push(done.output);
                    }
                }
                Err(error) => self.panicked(&error),
            }
            next = self.calls.try_join_next_with_id();
        }
        self.settle_finished();
    }

    /// Starts to commit what is finished, unless a batch is being committed: its end calls this again.
    fn settle_finished(&mut self) {
        if self.settling.is_empty() && !self.finished.outputs.is_empty() {
            let batch = std::mem::take(&mut self.finished);
            // A panic would leave its leases open, so it ends the process.
            let settling = commit(Arc::clone(&self.inner), self.lane.key.clone(), batch);
            self.settling.spawn(self.inner.deps.store.supervisor().supervise("finished attempts", settling));
        }
    }

    /// Settles the slot in the budget, and updates pauses and metrics.
    fn account(&mut self, lease: &Lease, done: &AttemptResult) {
        let at = done.call.as_ref().map_or_else(Instant::now, |call| call.at);
        match done.pause {
            Some(LeasePause::Lane(pause)) => self.paused_until = self.paused_until.max(at + pause),
            Some(LeasePause::Shop(pause)) => drop(self.shops_paused.insert(lease.job.shop.clone(), at + pause)),
            None => {}
        }
        self.log_failure(lease, done);
        let mut budget = self.lane.budget();
        let Some(CallMade { outcome, took, .. }) = &done.call else {
            budget.give_back(1);
            return;
        };
        self.finished.pause = self.finished.pause.max(outcome.settle(&mut budget, at));
        drop(budget);
        if outcome.sent() {
            let took = (*took).min(TOOK_MAX);
            self.took = Some(self.took.map_or(took, |before| (before * 3 + took) / 4));
        }
        if outcome.result.is_ok() {
            let sent_at = self.inner.deps.store.clock().now() - at.elapsed().saturating_add(*took);
            self.inner.last_success.note(&lease.job.shop, sent_at);
        }
        if let Some(status) = outcome.call_status() {
            self.inner.deps.store.count_call(&self.lane.key.rule, status);
        }
        if matches!(outcome.result, Err(SourceError::Throttled { .. }))
            && let Some(suppressed) = self.throttled.allow(at.into_std())
        {
            let (account, rule) = (&self.lane.key.account, &self.lane.key.rule);
            tracing::warn!(account, rule, suppressed, "the API answered 429: too many calls");
        }
    }

    /// Logs a failure that is retried. A 429 has a line of its own.
    fn log_failure(&self, lease: &Lease, done: &AttemptResult) {
        let StepOutput::Failed { failure, .. } = &done.output else { return };
        let error = match (failure, done.call.as_ref().map(|call| &call.outcome.result)) {
            (Failure::Retry { error, .. }, _) => error.text.clone(),
            (Failure::Postpone { .. }, Some(Err(error))) => match error {
                SourceError::Throttled { .. } | SourceError::Stopping | SourceError::NotOwner => return,
                error => error.to_string(),
            },
            _ => return,
        };
        let (shop, resource) = (lease.job.shop.clone(), lease.job.resource.clone());
        self.inner.failures.note(CallSite { shop, resource, rule: self.lane.key.rule.clone() }, &error);
    }

    /// Counts what no column takes; a report that was logged is saved with the batch.
    fn note_drift(&mut self, lease: &Lease, left: Vec<FieldDrift>) {
        let (resource, now) = (&lease.job.resource, self.inner.deps.store.clock().now());
        if let Some(report) = self.inner.drifts.note(resource, left, now) {
            self.finished.drift.insert(resource.clone(), report);
        }
    }

    /// Settles an attempt that panicked: its slot counts as used, the attempt as failed.
    fn panicked(&mut self, error: &tokio::task::JoinError) {
        tracing::error!(error = describe_join_error(error), "an attempt panicked");
        if error.is_panic() {
            count_panic("an attempt");
        }
        self.lane.budget().lost(Instant::now());
        if let Some(lease) = self.running.remove(&error.id()) {
            self.finished.outputs.push(attempt::panicked(&self.inner.deps.retry, lease));
        }
    }
}

/// How many attempts of a lane may run at once, at most `most`, when its calls take this long on average.
fn width(most: u32, took: Option<Duration>) -> u32 {
    let Some(took) = took else { return 1 };
    let times_slower = (took.as_secs_f64() / QUICK.as_secs_f64()).max(1.0);
    // Between 0 and `most`.
    ((f64::from(most) / times_slower) as u32).max(WIDTH_MIN.min(most))
}

impl Next {
    /// Waits for an event instead when there is no room.
    fn only_if(self, room: bool) -> Next {
        if room { self } else { Next::Wait(None) }
    }
}

/// Commits a batch, and stores the pause and the drift of its answers.
async fn commit(inner: Arc<Inner>, LaneKey { account, rule }: LaneKey, batch: Batch) {
    let store = &inner.deps.store;
    if let Some(length) = batch.pause
        && let Err(error) = store.save_pause(&account, &rule, length).await
    {
        error.warn("failed to store a pause that the API asked for; it holds until this process ends");
    }
    let read = Reads::of(&batch.outputs);
    match store.settle(batch.outputs).await {
        Ok(settled) => inner.reads.note(read, &settled),
        Err(error) => error.warn("failed to commit finished attempts; they run again"),
    }
    for (resource, drift) in batch.drift {
        if let Err(error) = store.save_drift(&resource, &drift).await {
            error.warn("failed to persist the drift report");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::width;
    use std::time::Duration;

    #[test]
    fn the_slower_the_calls_the_fewer_run_at_once() {
        let after = |ms| width(64, Some(Duration::from_millis(ms)));
        assert_eq!(width(64, None), 1, "no call has ended yet");
        assert_eq!([after(0), after(200), after(1_000), after(2_000)], [64, 64, 64, 32]);
        assert_eq!([after(20_000), after(30_000), after(90_000)], [3, 2, 2]);
        assert_eq!(width(1, Some(Duration::ZERO)), 1);
    }
}
