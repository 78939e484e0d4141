//! The sync engine: starts walks on schedule and runs their jobs within the rate rules.
//!
//! | file | holds |
//! | --- | --- |
//! | [`schedule`] | the jobs of the cron scheduler; missed ticks collapse into one |
//! | `selection` | which streams an engine works on |
//! | `start_runs` | which streams are walked, and in which order |
//! | [`lane`], `lane_loop` | one loop per budget: free slots -> leases -> attempts -> one commit |
//! | `lane_registry`, `wake` | the lanes that exist; a lane lives only while it has jobs |
//! | `turns` | how many lanes may have leased jobs at once, which bounds the memory when thousands of shops are due |
//! | `inner` | what the tasks of the engine share |
//! | `attempt` | one attempt of one job: at most one call, its result as a value |
//! | [`drift`] | fields of documents that no column takes |
//! | `last_success` | time of the last successful call per shop |
//! | `reads` | documents that were read, by run, for the report of a pass |
//! | `failure_log` | log of failed calls that are retried |
//! | `simulation` | tests: the whole engine on a paused clock, in worlds made from a seed |
//!
//! The engine does not know a marketplace's words: what it does with a resource is in its
//! definition. An attempt never writes the store; the lane commits its result.

mod attempt;
pub mod drift;
mod failure_log;
mod inner;
pub mod lane;
mod lane_loop;
mod lane_registry;
mod last_success;
mod reads;
pub mod schedule;
mod selection;
#[cfg(test)]
mod simulation;
mod start_runs;
mod turns;
mod wake;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

pub use inner::{EngineDeps, HandedBudgets};
pub use lane::LaneKey;
pub use lane_registry::LaneView;
pub use selection::Selection;

use crate::catalog::RuleTable;
use crate::domain::{RunId, Shop, ShopState, Timestamp};
use crate::source::SlotsLeft;
use crate::store::{Store, StoreError};
use drift::Drift;
use inner::{Inner, STORE_PAUSE};

/// Streams started per transaction, so that a tick over thousands of shops does not delay others.
const STARTED_AT_ONCE: usize = 64;
/// The longest sleep of the timer; the wall clock may be set forward meanwhile.
const TIMER_SLEEP_MAX: Duration = Duration::from_secs(30);
/// How long a start waits for interrupted work to be resumed; with thousands of new shops that continues in the background.
const RESUME_PATIENCE: Duration = Duration::from_secs(2);

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl Engine {
    /// Builds the engine and starts its tasks: lanes for all jobs found, the timer of delayed jobs.
    ///
    /// # Errors
    /// The store's errors while looking for work.
    pub async fn start(deps: EngineDeps) -> Result<Engine, StoreError> {
        let queues = deps.store.take_queue_signals();
        let engine = Engine::new(deps);
        let inner = &engine.0;
        let (tx, rx) = oneshot::channel();
        inner.spawn("resuming interrupted work", resume_until_done(engine.clone(), tx));
        match tokio::time::timeout(RESUME_PATIENCE, rx).await {
            // There is much to resume, or no room for it: open runs and reading need not wait for that.
            Err(_) | Ok(Ok(Err(StoreError::Full))) => {}
            Ok(Ok(resumed)) => resumed?,
            Ok(Err(_)) => {
                return Err(StoreError::Engine("resuming interrupted work panicked".to_owned()));
            }
        }
        wake::wake_all(inner)?;
        if let Some(queues) = queues {
            inner.spawn("new work", wake::listen(Arc::clone(inner), queues));
        }
        inner.spawn("delayed jobs", promote_delayed(Arc::clone(inner)));
        inner.spawn("the failure log", report_failures(Arc::clone(inner)));
        inner.spawn("idle budgets", wake::drop_idle_budgets(Arc::clone(inner)));
        Ok(engine)
    }

    /// An engine that runs no jobs: what is requested of it waits in the store for one that does.
    pub fn at_rest(deps: EngineDeps) -> Engine {
        let engine = Engine::new(deps);
        engine.0.stop.cancel();
        engine
    }

    fn new(deps: EngineDeps) -> Engine {
        Engine(Arc::new(Inner::new(deps)))
    }

    /// Finishes deletions that the last process began, ends the runs of inactive shops, and starts the runs that are
    /// missing. Attempts that a crash cut off are counted when the store opens.
    async fn finish_deletions_and_start_missing_runs(&self) -> Result<(), StoreError> {
        let store = &self.0.deps.store;
        store.resume_deletions().await?;
        let shops = store.shops()?;
        for shop in shops.iter().filter(|shop| shop.state != ShopState::Active) {
            store.stop_runs(&shop.id).await?;
        }
        self.start_missing_runs(&shops).await
    }

    /// Looks for jobs of a shop again after it was resumed, or its resources or its account changed; `account` is the
    /// previous one.
    ///
    /// # Errors
    /// The store's read errors.
    pub fn wake_shop(&self, shop: &Shop, account: &str) -> Result<(), StoreError> {
        self.forget_credentials(shop);
        wake::wake_shop(&self.0, shop, account)
    }

    /// Drops the secret and the token of a shop from memory: they changed, or the shop is gone.
    pub fn forget_credentials(&self, shop: &Shop) {
        self.0.lock_credentials().remove(&shop.id);
        self.0.deps.source.forget(&shop.client_id);
    }

    /// Schema drift of a resource: fields of documents that no column takes.
    pub fn drift(&self, resource: &str) -> Drift {
        self.0.drifts.of(resource)
    }

    /// Saves the drift counted since the last save; writes only changes.
    ///
    /// # Errors
    /// The store's errors; a later call saves it then.
    pub async fn save_drift(&self) -> Result<(), StoreError> {
        self.0.drifts.save(&self.0.deps.store).await
    }

    /// The streams that it works on.
    pub(crate) fn only(&self) -> &Selection {
        &self.0.deps.only
    }

    /// Logs the failed calls of a shop's resource that were not logged yet, before the line about its recovery.
    pub fn log_failures(&self, shop: &str, resource: &str) {
        self.0.failures.flush(shop, resource);
    }

    /// The rate rules in force.
    pub fn rules(&self) -> &RuleTable {
        &self.0.deps.rules
    }

    /// Documents that this process has read, by the run that listed them; None: re-read outside of runs.
    pub fn documents_read(&self) -> BTreeMap<Option<RunId>, u64> {
        self.0.reads.counts()
    }

    /// The budgets in use, by account and rule.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.0.lanes.view()
    }

    /// The used slots of the budgets, as time left; to be asked after [`Engine::stop`].
    pub fn slots_left(&self) -> HashMap<LaneKey, SlotsLeft> {
        self.0.lanes.slots_left()
    }

    /// Stops leasing and calling, and waits at most `patience` for the calls in flight. Later ones end with the
    /// process; the next start counts them as attempts and repeats them.
    pub async fn stop(&self, patience: Duration) {
        self.0.stop.cancel();
        self.0.deps.source.close();
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(
                "calls in flight did not end in time; those that the exit cuts off run again at the next start"
            );
        }
        if let Err(error) = self.0.deps.store.save_calls().await {
            error.warn("failed to save the counts of the last calls");
        }
    }
}

/// Logs failed calls every minute, and at the end.
async fn report_failures(inner: Arc<Inner>) {
    while !inner.stop.is_cancelled() {
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = tokio::time::sleep(failure_log::EVERY) => {}
        }
        inner.failures.report();
    }
}

/// Resumes interrupted work, and retries until that succeeds; sends the result of the first try.
async fn resume_until_done(engine: Engine, first: oneshot::Sender<Result<(), StoreError>>) {
    let mut resumed = engine.finish_deletions_and_start_missing_runs().await;
    // The receiver may have timed out.
    drop(first.send(resumed.clone()));
    while let Err(error) = resumed {
        error.warn("failed to resume interrupted work; retrying");
        tokio::select! {
            () = engine.0.stop.cancelled() => return,
            () = tokio::time::sleep(STORE_PAUSE) => {}
        }
        resumed = engine.finish_deletions_and_start_missing_runs().await;
    }
}

/// Makes delayed jobs ready when they are due.
async fn promote_delayed(inner: Arc<Inner>) {
    let store = &inner.deps.store;
    let mut seen = Timestamp::MAX;
    while !inner.stop.is_cancelled() {
        let pause = match promote(store, &mut seen).await {
            Ok(Some(due)) => due.since(store.clock().now()).min(TIMER_SLEEP_MAX),
            Ok(None) => TIMER_SLEEP_MAX,
            Err(error) => {
                error.warn("failed to make delayed jobs ready; retrying");
                STORE_PAUSE
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = store.signals().timer.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Makes due jobs ready. `seen` is the wall clock of the previous call: when it was set back since, or at the
/// start, the delays of retries are repaired first.
async fn promote(store: &Store, seen: &mut Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let now = store.clock().now();
    if now < *seen {
        store.repair_delays().await?;
    }
    *seen = now;
    store.promote().await
}
