//! What the tasks of the engine share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, select_all};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::drift::Drifts;
use super::failure_log::FailureLog;
use super::lane::LaneKey;
use super::lane_registry::LaneRegistry;
use super::last_success::LastSuccess;
use super::reads::Reads;
use super::selection::Selection;
use super::turns::{Turn, Turns};
use crate::catalog::{Definition, RuleTable};
use crate::domain::{RetryPolicy, Shop, ShopId, Timestamp};
use crate::source::{Credentials, SlotsLeft, Upstream};
use crate::store::{Secrets, Store, StoreError};

/// Pause of the loops after a store error; the store's own failure ends the process.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Dependencies and settings of the engine.
pub struct EngineDeps {
    pub store: Store,
    pub source: Arc<dyn Upstream>,
    pub definitions: Vec<Arc<Definition>>,
    pub rules: RuleTable,
    pub retry: RetryPolicy,
    /// Fetching pauses while the outbox holds more, in bytes.
    pub outbox_bytes_max: u64,
    /// Most attempts of one lane at once.
    pub lane_width: u32,
    /// Most lanes with leased jobs at once.
    pub lanes_at_once: usize,
    /// Budgets of the process that this one goes on for.
    pub handed: Option<HandedBudgets>,
    /// Other streams are left alone: their work waits for the next engine.
    pub only: Selection,
}

/// Budgets that another process handed over, as time left.
#[derive(Clone, Debug)]
pub struct HandedBudgets {
    pub budgets: HashMap<LaneKey, SlotsLeft>,
    /// When they arrived; never earlier than they were left.
    pub received: Instant,
}

/// What the tasks of the engine share.
pub(crate) struct Inner {
    pub(crate) deps: EngineDeps,
    pub(super) lanes: LaneRegistry,
    pub(super) credentials: Mutex<HashMap<ShopId, (Timestamp, Arc<Credentials>)>>,
    pub(super) failures: FailureLog,
    pub(super) last_success: LastSuccess,
    pub(super) reads: Reads,
    pub(super) drifts: Drifts,
    pub(super) turns: Turns,
    pub(crate) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Inner {
    pub(super) fn new(deps: EngineDeps) -> Inner {
        let drifts = Drifts::load(&deps.store, &deps.definitions);
        let turns = Turns::new(deps.lanes_at_once);
        Inner {
            deps,
            lanes: LaneRegistry::default(),
            credentials: Mutex::default(),
            failures: FailureLog::default(),
            last_success: LastSuccess::default(),
            reads: Reads::default(),
            drifts,
            turns,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Starts a task that runs as long as the engine does.
    pub(super) fn spawn(&self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.deps.store.supervisor().supervise(part, work));
    }

    pub(crate) fn definition(&self, resource: &str) -> Option<&Arc<Definition>> {
        self.deps.definitions.iter().find(|definition| definition.name == resource)
    }

    /// A shop's decrypted credentials, cached until the shop changes.
    pub(crate) fn credentials(&self, shop: &Shop) -> Result<Arc<Credentials>, StoreError> {
        if let Some((as_of, known)) = self.lock_credentials().get(&shop.id)
            && *as_of == shop.updated_at
        {
            return Ok(Arc::clone(known));
        }
        let Secrets { client_id, client_secret, proved_at } = self.deps.store.secrets(&shop.id)?;
        let opened = Arc::new(Credentials::new(client_id, client_secret, proved_at));
        self.lock_credentials().insert(shop.id.clone(), (shop.updated_at, Arc::clone(&opened)));
        Ok(opened)
    }

    /// The logins that all calls of these shops would wait for; it ends with the first of them. None: some calls can be
    /// made now, or fail without a login.
    pub(super) fn login_of<'a>(&self, shops: impl Iterator<Item = &'a Shop>) -> Option<BoxFuture<'static, ()>> {
        // An attempt reports credentials that cannot be read.
        let login = |shop: &Shop| self.deps.source.login(&*self.credentials(shop).ok()?);
        let logins = shops.map(login).collect::<Option<Vec<_>>>().filter(|logins| !logins.is_empty())?;
        Some(Box::pin(async { drop(select_all(logins).await) }))
    }

    /// Waits for a turn, after a login. None: the engine stops.
    pub(super) async fn turn_after(&self, login: Option<BoxFuture<'static, ()>>) -> Option<Turn> {
        let turn = async {
            if let Some(login) = login {
                login.await;
            }
            self.turns.take().await
        };
        tokio::select! {
            () = self.stop.cancelled() => None,
            turn = turn => turn,
        }
    }

    pub(super) fn lock_credentials(&self) -> std::sync::MutexGuard<'_, HashMap<ShopId, (Timestamp, Arc<Credentials>)>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
