//! Incrementally updated health of all shops: each update reads only shops that changed or became overdue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::catalog::Definition;
use crate::domain::health::{
    self, Code, Facts, Fault, Health, Means, OpenRun, ResourceFacts, ShopFacts, ShopFound, StreamFacts, Ticks,
};
use crate::domain::schedule::Schedule;
use crate::domain::{Run, RunId, Shop, ShopId, StreamId, Timestamp};
use crate::store::{Changed, Changes, Store, StoreError};

/// Inputs of the health computation, and its last result.
pub(crate) struct HealthBook {
    store: Store,
    definitions: Arc<[Arc<Definition>]>,
    schedule: Schedule,
    stale_after: Option<Duration>,
    /// Whether remedies name endpoints or commands.
    means: Means,
    /// None before the first computation.
    snapshot: Mutex<Option<Snapshot>>,
    /// The health at the start, until it is logged.
    first: Mutex<Option<Arc<Health>>>,
    /// When each fault of the installation was first seen.
    since: Mutex<BTreeMap<Code, Timestamp>>,
}

/// Result of the last computation.
struct Snapshot {
    at: Timestamp,
    ticks: Ticks,
    faults: Vec<Fault>,
    open: OpenRuns,
    found: BTreeMap<ShopId, Arc<ShopFound>>,
    /// When the health of a shop changes by time alone.
    due: BTreeSet<(Timestamp, ShopId)>,
    health: Arc<Health>,
}

/// The runs that are walking or fetching.
#[derive(Default)]
struct OpenRuns {
    /// Boxed: a node of the map has room for eleven values, and a shop mostly has one or two runs.
    by_shop: HashMap<ShopId, BTreeMap<RunId, Box<Run>>>,
    shops: HashMap<RunId, ShopId>,
}

impl OpenRuns {
    /// Updates a run; `None`: it was deleted. Returns its shop.
    fn note(&mut self, id: RunId, run: Option<Run>) -> Option<ShopId> {
        let before = self.shops.remove(&id);
        if let Some(runs) = before.as_ref().and_then(|shop| self.by_shop.get_mut(shop)) {
            runs.remove(&id);
        }
        let Some(run) = run else { return before };
        let shop = run.stream.shop.clone();
        if run.is_open() {
            self.shops.insert(id, shop.clone());
            self.by_shop.entry(shop.clone()).or_default().insert(id, Box::new(run));
        } else if self.by_shop.get(&shop).is_some_and(BTreeMap::is_empty) {
            self.by_shop.remove(&shop);
        }
        Some(shop)
    }

    fn of(&self, shop: &str) -> impl Iterator<Item = &Run> {
        self.by_shop.get(shop).into_iter().flat_map(BTreeMap::values).map(Box::as_ref)
    }
}

impl HealthBook {
    pub(crate) fn new(
        store: Store,
        definitions: Arc<[Arc<Definition>]>,
        schedule: Schedule,
        stale_after: Option<Duration>,
        means: Means,
    ) -> HealthBook {
        let (snapshot, first, since) = (Mutex::default(), Mutex::default(), Mutex::default());
        HealthBook { store, definitions, schedule, stale_after, means, snapshot, first, since }
    }

    /// Records the health before any work begins.
    pub(crate) fn look_first(&self) -> Result<(), StoreError> {
        let found = self.look(Vec::new())?;
        self.first.lock().unwrap_or_else(PoisonError::into_inner).replace(found);
        Ok(())
    }

    /// Returns that health once.
    pub(super) fn take_first(&self) -> Option<Arc<Health>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The current health, from durable state. `faults`: of the installation as a whole.
    pub(super) fn look(&self, faults: Vec<Fault>) -> Result<Arc<Health>, StoreError> {
        self.looked(faults, |snapshot| Arc::clone(&snapshot.health))
    }

    /// Like [`HealthBook::look`], but reads all shops. What a commit changed can be read shortly before it is among the
    /// changes, so a verdict that is given once would miss the last commits.
    pub(super) fn look_whole(&self, faults: Vec<Fault>) -> Result<Arc<Health>, StoreError> {
        *self.snapshot() = None;
        self.look(faults)
    }

    /// The health of some shops. `said`: the faults as they are shown.
    pub(super) fn look_at(
        &self,
        of: &HashSet<ShopId>,
        faults: Vec<Fault>,
        said: &[Fault],
    ) -> Result<Health, StoreError> {
        self.looked(faults, |snapshot| {
            let every =
                |name: &str| self.definitions.iter().find(|one| one.name == name).and_then(|one| one.list.every);
            let due = |name: &str, success| snapshot.ticks.due_after(success, every(name));
            let found = snapshot.found.iter().filter(|(shop, _)| of.contains(*shop));
            let found: Vec<ShopFound> = found.map(|(_, found)| found.shown(snapshot.at, said, due)).collect();
            health::whole(self.means, said, found.iter())
        })
    }

    fn looked<R>(&self, faults: Vec<Fault>, then: impl FnOnce(&Snapshot) -> R) -> Result<R, StoreError> {
        let now = self.store.clock().now();
        let mut snapshot = self.snapshot();
        // Taken before reading: later changes are read next time.
        let changes = self.store.signals().take_changes();
        let looked = match snapshot.take() {
            Some(known) if !changes.all && known.is_good(now, &faults) => self.look_again(known, changes, faults, now),
            _ => self.look_at_all(faults, now),
        };
        // After an error the next call reads everything.
        Ok(then(snapshot.insert(looked?)))
    }

    /// When the health changes next by time alone.
    pub(super) fn next_change(&self) -> Option<Timestamp> {
        self.snapshot().as_ref().and_then(|snapshot| snapshot.due.first().map(|(at, _)| *at))
    }

    /// Sets since when each of these faults is known.
    pub(super) fn note_since(&self, faults: &mut [Fault], now: Timestamp) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|code, _| faults.iter().any(|fault| fault.code == *code));
        for fault in faults {
            let seen = *since.entry(fault.code).or_insert(now);
            fault.since = Some(fault.since.map_or(seen, |known| known.min(seen)));
        }
    }

    fn look_at_all(&self, faults: Vec<Fault>, now: Timestamp) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot {
            at: now,
            ticks: self.ticks(now),
            faults,
            open: OpenRuns::default(),
            found: BTreeMap::new(),
            due: BTreeSet::new(),
            health: Arc::default(),
        };
        for run in self.store.open_runs()? {
            snapshot.open.note(run.id, Some(run));
        }
        for shop in self.store.shops()? {
            self.read(&mut snapshot, &shop.id.clone(), Some(shop), now)?;
        }
        snapshot.compose(self.means);
        Ok(snapshot)
    }

    fn look_again(
        &self,
        mut snapshot: Snapshot,
        changes: Changes,
        faults: Vec<Fault>,
        now: Timestamp,
    ) -> Result<Snapshot, StoreError> {
        let mut shops = BTreeSet::new();
        for changed in changes.what {
            match changed {
                Changed::Shop(shop) => drop(shops.insert(shop)),
                Changed::Run(id) => shops.extend(snapshot.open.note(id, self.store.run(id)?)),
            }
        }
        let is_late = |(at, _): &(Timestamp, ShopId)| *at <= now;
        shops.extend(snapshot.due.iter().take_while(|due| is_late(due)).map(|(_, shop)| shop.clone()));
        let is_same = shops.is_empty() && snapshot.faults == faults;
        (snapshot.at, snapshot.faults) = (now, faults);
        if !snapshot.ticks.is_current(now) {
            snapshot.ticks = self.ticks(now);
        }
        if is_same {
            return Ok(snapshot);
        }
        for shop in shops {
            let record = self.store.shop(&shop)?;
            self.read(&mut snapshot, &shop, record, now)?;
        }
        snapshot.compose(self.means);
        Ok(snapshot)
    }

    /// Recomputes one shop; `None`: it was deleted.
    fn read(&self, snapshot: &mut Snapshot, id: &ShopId, shop: Option<Shop>, now: Timestamp) -> Result<(), StoreError> {
        if let Some(before) = snapshot.found.remove(id)
            && let Some(at) = before.changes_at
        {
            snapshot.due.remove(&(at, id.clone()));
        }
        let Some(shop) = shop else { return Ok(()) };
        let facts = Facts {
            now,
            means: self.means,
            stale_after: self.stale_after,
            ticks: &snapshot.ticks,
            faults: &snapshot.faults,
        };
        let found = health::assess_shop(&facts, &self.facts_of(shop, &snapshot.open)?);
        snapshot.due.extend(found.changes_at.map(|at| (at, id.clone())));
        snapshot.found.insert(id.clone(), Arc::new(found));
        Ok(())
    }

    fn facts_of(&self, shop: Shop, open: &OpenRuns) -> Result<ShopFacts, StoreError> {
        let mut runs: HashMap<&StreamId, Vec<OpenRun>> = HashMap::new();
        for run in open.of(&shop.id) {
            let open = OpenRun { started_at: run.started_at, pending: run.pending() };
            runs.entry(&run.stream).or_default().push(open);
        }
        let mut resources = Vec::new();
        for definition in self.definitions.iter().filter(|definition| shop.syncs(&definition.name)) {
            let streams = definition.streams(&shop.id).map(|stream| {
                let (status, unproved) = (self.store.stream_status(&stream)?, self.store.unproved(&stream)?);
                Ok(StreamFacts { status, unproved, open: runs.remove(&stream).unwrap_or_default() })
            });
            let streams = streams.collect::<Result<Vec<_>, StoreError>>()?;
            let every = definition.list.every;
            let parked = self.store.parked_of_resource(&shop.id, &definition.name)?;
            let loss = self.store.sink_loss(&shop.id, &definition.name)?;
            resources.push(ResourceFacts { name: definition.name.clone(), every, streams, parked, loss });
        }
        Ok(ShopFacts { shop, resources })
    }

    fn ticks(&self, now: Timestamp) -> Ticks {
        let schedule = self.schedule.clone();
        Ticks::at(now, move |after| schedule.next(after))
    }

    fn snapshot(&self) -> MutexGuard<'_, Option<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// Whether an incremental update suffices: not after the clock was set back, nor when a fault that affects all
    /// shops appeared or ended.
    fn is_good(&self, now: Timestamp, faults: &[Fault]) -> bool {
        self.at <= now && health::blocking(&self.faults) == health::blocking(faults)
    }

    fn compose(&mut self, means: Means) {
        self.health = Arc::new(health::whole(means, &self.faults, self.found.values().map(AsRef::as_ref)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use secrecy::SecretString;

    use super::HealthBook;
    use crate::domain::Clock;
    use crate::domain::health::Means;
    use crate::domain::schedule::Schedule;
    use crate::store::{Memory, NewShop, Store};

    #[tokio::test]
    async fn a_commit_that_is_not_reported_yet_is_in_the_whole_health() {
        let store = Store::simulated(&Memory::default(), Clock::system()).unwrap();
        let schedule = Schedule::parse("0 */5 * * * *", "UTC".parse().unwrap()).unwrap();
        let book = HealthBook::new(store.clone(), Arc::new([]), schedule, None, Means::default());
        let new = |client: &str| NewShop {
            name: client.to_owned(),
            client_id: client.to_owned(),
            client_secret: SecretString::from("secret"),
            account: None,
            resources: Vec::new(),
        };
        store.create_shop(new("a")).await.unwrap();
        assert_eq!(book.look(Vec::new()).unwrap().shops.len(), 1);
        store.create_shop(new("b")).await.unwrap();
        // As if the committer had not raised its signal yet.
        drop(store.signals().take_changes());
        assert_eq!(book.look(Vec::new()).unwrap().shops.len(), 1, "nothing is read that is not among the changes");
        assert_eq!(book.look_whole(Vec::new()).unwrap().shops.len(), 2);
    }
}
