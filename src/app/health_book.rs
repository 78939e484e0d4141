//! The health of all shops, kept current by what changed: a look reads the records of shops of which something was
//! recorded since the last one, or of which something has become late; never all of them again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::catalog::Definition;
use crate::domain::clock::Millis;
use crate::domain::health::{
    self, Code, Facts, Fault, Health, Means, OpenRun, ResourceFacts, ShopFacts, ShopFound, StreamFacts, Ticks,
};
use crate::domain::{Run, Shop, StreamId};
use crate::store::{Changed, Changes, Store, StoreError};
use crate::sync::schedule::Schedule;

/// What the health of shops is computed from, and what is remembered of it.
pub(super) struct HealthBook {
    store: Store,
    definitions: Vec<Arc<Definition>>,
    schedule: Schedule,
    stale_after: Option<Millis>,
    /// What remedies may name.
    means: Means,
    /// None: nobody has looked yet.
    pages: Mutex<Option<Pages>>,
    /// What was found before any work began, until it is logged.
    first: Mutex<Option<Arc<Health>>>,
    /// When each fault of the installation was first seen.
    since: Mutex<BTreeMap<Code, Millis>>,
}

/// What was found at the last look.
struct Pages {
    at: Millis,
    ticks: Ticks,
    faults: Vec<Fault>,
    open: OpenRuns,
    found: BTreeMap<String, Arc<ShopFound>>,
    /// When something of a shop changes by time alone.
    due: BTreeSet<(Millis, String)>,
    health: Arc<Health>,
}

/// The runs that are walking or fetching.
#[derive(Default)]
struct OpenRuns {
    by_shop: HashMap<String, BTreeMap<u64, Run>>,
    shops: HashMap<u64, String>,
}

impl OpenRuns {
    /// Notes how a run is now; none: it is gone. The shop that it is of, or was.
    fn note(&mut self, id: u64, run: Option<Run>) -> Option<String> {
        let before = self.shops.remove(&id);
        if let Some(runs) = before.as_ref().and_then(|shop| self.by_shop.get_mut(shop)) {
            runs.remove(&id);
        }
        let Some(run) = run else { return before };
        let shop = run.stream.shop.clone();
        if run.is_open() {
            self.shops.insert(id, shop.clone());
            self.by_shop.entry(shop.clone()).or_default().insert(id, run);
        } else if self.by_shop.get(&shop).is_some_and(BTreeMap::is_empty) {
            self.by_shop.remove(&shop);
        }
        Some(shop)
    }

    fn of(&self, shop: &str) -> impl Iterator<Item = &Run> {
        self.by_shop.get(shop).into_iter().flat_map(BTreeMap::values)
    }
}

impl HealthBook {
    pub(super) fn new(
        store: Store,
        definitions: Vec<Arc<Definition>>,
        schedule: Schedule,
        (stale_after, means): (Option<Millis>, Means),
    ) -> HealthBook {
        let (pages, first, since) = (Mutex::default(), Mutex::default(), Mutex::default());
        HealthBook { store, definitions, schedule, stale_after, means, pages, first, since }
    }

    /// Notes how the shops are before any work begins.
    pub(super) fn look_first(&self) -> Result<(), StoreError> {
        let found = self.look(Vec::new())?;
        self.first.lock().unwrap_or_else(PoisonError::into_inner).replace(found);
        Ok(())
    }

    /// What was noted then, once.
    pub(super) fn take_first(&self) -> Option<Arc<Health>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How everything is now, from what is durable. `faults`: what is wrong with the installation as a whole.
    pub(super) fn look(&self, faults: Vec<Fault>) -> Result<Arc<Health>, StoreError> {
        self.looked(faults, |pages| Arc::clone(&pages.health))
    }

    /// How some shops are, by the same look. `said`: how the faults are told.
    pub(super) fn look_at(
        &self,
        of: &HashSet<String>,
        faults: Vec<Fault>,
        said: &[Fault],
    ) -> Result<Health, StoreError> {
        self.looked(faults, |pages| {
            let every = |name: &str| self.definitions.iter().find(|one| one.name == name).and_then(|one| every(one));
            let due = |name: &str, success| pages.ticks.due_after(success, every(name));
            let found = pages.found.iter().filter(|(shop, _)| of.contains(*shop));
            let found: Vec<ShopFound> = found.map(|(_, found)| found.shown(pages.at, said, due)).collect();
            health::whole(self.means, said, found.iter())
        })
    }

    fn looked<R>(&self, faults: Vec<Fault>, then: impl FnOnce(&Pages) -> R) -> Result<R, StoreError> {
        let now = self.store.clock().now();
        let mut pages = self.pages();
        // Before anything is read: what changes meanwhile is read again at the next look.
        let changes = self.store.signals().take_changes();
        let looked = match pages.take() {
            Some(known) if !changes.all && known.is_good(now, &faults) => self.look_again(known, changes, faults, now),
            _ => self.look_at_all(faults, now),
        };
        // After an error everything is read again.
        Ok(then(pages.insert(looked?)))
    }

    /// When something changes next by time alone.
    pub(super) fn next_change(&self) -> Option<Millis> {
        self.pages().as_ref().and_then(|pages| pages.due.first().map(|(at, _)| *at))
    }

    /// Since when each of these faults is known.
    pub(super) fn note_since(&self, faults: &mut [Fault], now: Millis) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|code, _| faults.iter().any(|fault| fault.code == *code));
        for fault in faults {
            let seen = *since.entry(fault.code).or_insert(now);
            fault.since = Some(fault.since.map_or(seen, |known| known.min(seen)));
        }
    }

    fn look_at_all(&self, faults: Vec<Fault>, now: Millis) -> Result<Pages, StoreError> {
        let mut pages = Pages {
            at: now,
            ticks: self.ticks(now),
            faults,
            open: OpenRuns::default(),
            found: BTreeMap::new(),
            due: BTreeSet::new(),
            health: Arc::default(),
        };
        for run in self.store.open_runs()? {
            pages.open.note(run.id, Some(run));
        }
        for shop in self.store.shops()? {
            self.read(&mut pages, &shop.id.clone(), Some(shop), now)?;
        }
        pages.compose(self.means);
        Ok(pages)
    }

    fn look_again(
        &self,
        mut pages: Pages,
        changes: Changes,
        faults: Vec<Fault>,
        now: Millis,
    ) -> Result<Pages, StoreError> {
        let mut shops = BTreeSet::new();
        for changed in changes.what {
            match changed {
                Changed::Shop(shop) => drop(shops.insert(shop)),
                Changed::Run(id) => shops.extend(pages.open.note(id, self.store.run(id)?)),
            }
        }
        let is_late = |(at, _): &(Millis, String)| *at <= now;
        shops.extend(pages.due.iter().take_while(|due| is_late(due)).map(|(_, shop)| shop.clone()));
        let is_same = shops.is_empty() && pages.faults == faults;
        (pages.at, pages.faults) = (now, faults);
        if !pages.ticks.is_current(now) {
            pages.ticks = self.ticks(now);
        }
        if is_same {
            return Ok(pages);
        }
        for shop in shops {
            let record = self.store.shop(&shop)?;
            self.read(&mut pages, &shop, record, now)?;
        }
        pages.compose(self.means);
        Ok(pages)
    }

    /// Reads one shop anew; none: it is gone.
    fn read(&self, pages: &mut Pages, id: &str, shop: Option<Shop>, now: Millis) -> Result<(), StoreError> {
        if let Some(before) = pages.found.remove(id)
            && let Some(at) = before.changes_at
        {
            pages.due.remove(&(at, id.to_owned()));
        }
        let Some(shop) = shop else { return Ok(()) };
        let facts =
            Facts { now, means: self.means, stale_after: self.stale_after, ticks: &pages.ticks, faults: &pages.faults };
        let found = health::assess_shop(&facts, &self.facts_of(shop, &pages.open)?);
        pages.due.extend(found.changes_at.map(|at| (at, id.to_owned())));
        pages.found.insert(id.to_owned(), Arc::new(found));
        Ok(())
    }

    fn facts_of(&self, shop: Shop, open: &OpenRuns) -> Result<ShopFacts, StoreError> {
        let mut runs: HashMap<&StreamId, Vec<OpenRun>> = HashMap::new();
        for run in open.of(&shop.id) {
            let open = OpenRun { started_at: run.started_at, pending: run.pending() };
            runs.entry(&run.stream).or_default().push(open);
        }
        let mut resources = Vec::new();
        for definition in self.definitions.iter().filter(|definition| shop.takes(&definition.name)) {
            let streams = definition.streams(&shop.id).map(|stream| {
                let (status, unproved) = (self.store.stream_status(&stream)?, self.store.unproved(&stream)?);
                Ok(StreamFacts { status, unproved, open: runs.remove(&stream).unwrap_or_default() })
            });
            let streams = streams.collect::<Result<Vec<_>, StoreError>>()?;
            let every = every(definition);
            let parked = self.store.parked_of_resource(&shop.id, &definition.name)?;
            resources.push(ResourceFacts { name: definition.name.clone(), every, streams, parked });
        }
        Ok(ShopFacts { shop, resources })
    }

    fn ticks(&self, now: Millis) -> Ticks {
        let schedule = self.schedule.clone();
        Ticks::at(now, move |after| schedule.next(after))
    }

    fn pages(&self) -> MutexGuard<'_, Option<Pages>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Walks of a resource for news follow each other no sooner.
fn every(definition: &Definition) -> Option<Millis> {
    definition.list.every.map(|every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX))
}

impl Pages {
    /// Whether only what changed must be read. A clock that was set back changes what counts as late; a fault that keeps
    /// every document from where people look for it concerns all shops.
    fn is_good(&self, now: Millis, faults: &[Fault]) -> bool {
        self.at <= now && health::blocking(&self.faults) == health::blocking(faults)
    }

    fn compose(&mut self, means: Means) {
        self.health = Arc::new(health::whole(means, &self.faults, self.found.values().map(AsRef::as_ref)));
    }
}
