//! Keeping streams current: when walks start, which jobs run when, and what each step does.
//!
//! | file | holds |
//! | --- | --- |
//! | [`schedule`] | cron expressions, right over both changes of summer time; missed ticks collapse |
//! | [`lane`] | one loop per budget: free slots -> leases -> steps -> settlements |
//! | `lanes` | which lanes exist; a lane lives only while it has jobs |
//! | [`step`] | one job: one call, its effects as a value |
//! | `answers` | when the API last answered a call of a shop |
//! | `troubles` | calls that failed and are made again, in the log |
//! | `simulation` | tests: all of this on a paused clock, in worlds made from a seed |
//!
//! The engine has never heard of a marketplace's words: what it does with a resource stands in its
//! definition. A step never writes the store; the lane hands its effects to one commit.

mod answers;
pub mod drift;
pub mod lane;
mod lanes;
pub mod schedule;
#[cfg(test)]
mod simulation;
pub mod step;
mod troubles;
mod walks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use lanes::{LaneKey, LaneView};

use crate::catalog::{Definition, RuleTable};
use crate::domain::{RetryPolicy, Shop, ShopState};
use crate::source::{Credentials, Upstream};
use crate::store::{Store, StoreError};
use answers::Answers;
use drift::{Drift, Drifts};
use lanes::Lanes;
use troubles::Troubles;

/// Streams started by one transaction, so that a tick over thousands of shops does not hold up others.
const STARTED_AT_ONCE: usize = 64;
/// The longest sleep of the timer; the wall clock may be set forward meanwhile.
const TIMER_SLEEP_MAX: Duration = Duration::from_secs(30);
/// A start waits so long for its first look at what is missing; with thousands of new shops it goes on beside the work.
const TAKE_UP_PATIENCE: Duration = Duration::from_secs(2);
/// After a store error the loops try again at this pace; the store's own failure ends the process.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What the engine works with.
pub struct Parts {
    pub store: Store,
    pub source: Arc<dyn Upstream>,
    pub definitions: Vec<Arc<Definition>>,
    pub rules: RuleTable,
    pub retry: RetryPolicy,
    /// Fetching pauses while the outbox holds more, in bytes.
    pub outbox_bytes_max: u64,
    /// Calls of one lane that may be prepared or in flight.
    pub lane_width: u32,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) parts: Parts,
    lanes: Lanes,
    credentials: Mutex<HashMap<String, (i64, Arc<Credentials>)>>,
    troubles: Troubles,
    answers: Answers,
    drifts: Drifts,
    pub(crate) stop: CancellationToken,
    tasks: TaskTracker,
}

impl Engine {
    /// Builds the engine and starts its tasks: lanes for all work found, the timer of waiting jobs.
    ///
    /// # Errors
    /// The store's errors while looking for work.
    pub async fn start(parts: Parts) -> Result<Engine, StoreError> {
        let queues = parts.store.take_queue_signals();
        let engine = Engine::new(parts);
        let inner = &engine.0;
        let (tell, told) = oneshot::channel();
        inner.spawn("what the last process left", take_up(engine.clone(), tell));
        match tokio::time::timeout(TAKE_UP_PATIENCE, told).await {
            // There is much to take up, or no room for it: what is under way and reading need not wait for that.
            Err(_) | Ok(Ok(Err(StoreError::Full))) => {}
            Ok(Ok(taken)) => taken?,
            Ok(Err(_)) => {
                return Err(StoreError::Engine("what the last process left: looking at it panicked".to_owned()));
            }
        }
        lanes::wake_all(inner)?;
        if let Some(queues) = queues {
            inner.spawn("new work", lanes::listen(Arc::clone(inner), queues));
        }
        inner.spawn("waiting jobs", promote_waiting(Arc::clone(inner)));
        inner.spawn("troubles", report_troubles(Arc::clone(inner)));
        inner.spawn("idle budgets", lanes::forget_idle_budgets(Arc::clone(inner)));
        Ok(engine)
    }

    /// An engine that runs nothing: what is asked of it waits in the store for one that does.
    pub fn at_rest(parts: Parts) -> Engine {
        let engine = Engine::new(parts);
        engine.0.stop.cancel();
        engine
    }

    fn new(parts: Parts) -> Engine {
        let drifts = Drifts::load(&parts.store, &parts.definitions);
        Engine(Arc::new(Inner {
            parts,
            lanes: Lanes::default(),
            credentials: Mutex::default(),
            troubles: Troubles::default(),
            answers: Answers::default(),
            drifts,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Goes on with what the last process left half done, and with what the configuration added.
    async fn take_up(&self) -> Result<(), StoreError> {
        let store = &self.0.parts.store;
        store.resume_deletions().await?;
        let shops = store.shops()?;
        for shop in shops.iter().filter(|shop| shop.state != ShopState::Active) {
            store.stop_runs(&shop.id).await?;
        }
        self.start_missing_runs(&shops).await
    }

    /// Looks for work of a shop again: it was resumed, or its resources changed, or its account, which was `account`
    /// before.
    ///
    /// # Errors
    /// The store's read errors.
    pub fn wake_shop(&self, shop: &Shop, account: &str) -> Result<(), StoreError> {
        self.0.lock_credentials().remove(&shop.id);
        self.0.parts.source.forget(&shop.client_id);
        lanes::wake_shop(&self.0, shop, account)
    }

    /// What documents of a resource held and its tables do not.
    pub fn drift(&self, resource: &str) -> Drift {
        self.0.drifts.of(resource)
    }

    /// Puts what was counted of that into the store; nothing to do, nothing written.
    ///
    /// # Errors
    /// The store's errors; it is put there by a later call then.
    pub async fn keep_drift(&self) -> Result<(), StoreError> {
        self.0.drifts.keep(&self.0.parts.store).await
    }

    /// The rate rules in force.
    pub fn rules(&self) -> &RuleTable {
        &self.0.parts.rules
    }

    /// The budgets in use, by account and rule.
    pub fn lanes(&self) -> Vec<LaneView> {
        self.0.lanes.view()
    }

    /// Leases no more, lets no more call leave, and waits for the calls in flight, at most `patience`. What is cut off
    /// then runs again at the next start.
    pub async fn stop(&self, patience: Duration) {
        self.0.stop.cancel();
        self.0.parts.source.close();
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("calls in flight were cut off; they run again at the next start");
        }
        if let Err(error) = self.0.parts.store.keep_calls().await {
            error.warn("the last calls could not be counted");
        }
    }
}

/// Logs each minute which calls failed, and at the end.
async fn report_troubles(inner: Arc<Inner>) {
    while !inner.stop.is_cancelled() {
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = tokio::time::sleep(troubles::EVERY) => {}
        }
        inner.troubles.report();
    }
}

impl Inner {
    /// Starts a part that works for as long as the engine does.
    fn spawn(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.parts.store.watched(part, work));
    }

    pub(crate) fn definition(&self, resource: &str) -> Option<&Arc<Definition>> {
        self.parts.definitions.iter().find(|definition| definition.name == resource)
    }

    /// A shop's opened credentials, cached until the shop changes.
    pub(crate) fn credentials(&self, shop: &Shop) -> Result<Arc<Credentials>, StoreError> {
        if let Some((as_of, known)) = self.lock_credentials().get(&shop.id)
            && *as_of == shop.updated_at
        {
            return Ok(Arc::clone(known));
        }
        let secrets = self.parts.store.secrets(&shop.id)?;
        let opened = Arc::new(Credentials { client_id: secrets.client_id, client_secret: secrets.client_secret });
        self.lock_credentials().insert(shop.id.clone(), (shop.updated_at, Arc::clone(&opened)));
        Ok(opened)
    }

    fn lock_credentials(&self) -> std::sync::MutexGuard<'_, HashMap<String, (i64, Arc<Credentials>)>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes up what the last process left, again and again until it worked; `tell` hears of the first try.
async fn take_up(engine: Engine, tell: oneshot::Sender<Result<(), StoreError>>) {
    let mut taken = engine.take_up().await;
    // Nobody may listen any more.
    drop(tell.send(taken.clone()));
    while let Err(error) = taken {
        error.warn("what the last process left could not be taken up; trying again");
        tokio::select! {
            () = engine.0.stop.cancelled() => return,
            () = tokio::time::sleep(STORE_PAUSE) => {}
        }
        taken = engine.take_up().await;
    }
}

/// Makes waiting jobs ready when their time has come.
async fn promote_waiting(inner: Arc<Inner>) {
    let store = &inner.parts.store;
    let mut seen = i64::MAX;
    while !inner.stop.is_cancelled() {
        let pause = match promote(store, &mut seen).await {
            Ok(Some(due)) => {
                let left = u64::try_from(due - store.clock().now()).unwrap_or(0);
                Duration::from_millis(left).min(TIMER_SLEEP_MAX)
            }
            Ok(None) => TIMER_SLEEP_MAX,
            Err(error) => {
                error.warn("waiting jobs could not be made ready; trying again");
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

/// Makes ready what is due. `seen` is the wall clock of the call before: when it was set back since, and at the
/// start, where nobody knows, the retries' waits are mended first.
async fn promote(store: &Store, seen: &mut i64) -> Result<Option<i64>, StoreError> {
    let now = store.clock().now();
    if now < *seen {
        store.mend_waits().await?;
    }
    *seen = now;
    store.promote().await
}
