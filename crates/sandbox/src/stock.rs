//! One seller's shipments: generated from the seed, listed newest first, changed on request and over time.
//!
//! Bodies are built on first use and kept. Arrivals and growth are applied on access, from the clock alone, so no
//! background task is needed and a manual clock works too. `state` calls [`Stock::settle`] before every access.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Millis;
use crate::content::{self, Spec};
use crate::document::Method;
use crate::values;

const DAY_MS: Millis = 24 * 3_600_000;
/// The initial content lies within the three months that the list shows.
const SPREAD_MS: Millis = 88 * DAY_MS;
/// How long a shipment is listed: "up to 3 months old", says bol.com of the list.
const LISTED_MS: Millis = 92 * DAY_MS;
pub(crate) const PAGE_SIZE: usize = 50;
/// Minimum number of open orders per method.
const OPEN: usize = 3;
/// How many minutes ago the first of them were placed.
const FIRST_OPEN: [Millis; OPEN] = [3, 2, 1];
const MINUTE_MS: Millis = 60_000;
/// Maximum changes applied per access; a clock that jumped a year is caught up over several accesses.
const SETTLE_MAX: u64 = 1_000;

/// One shipment with its bodies.
#[derive(Debug)]
pub(crate) struct Shipment {
    pub(crate) id: String,
    pub(crate) spec: Spec,
    row: OnceLock<Bytes>,
    detail: OnceLock<Bytes>,
}

impl Shipment {
    fn new(spec: Spec) -> Shipment {
        let id = values::shipment_id(spec.method, spec.index, spec.odd);
        Shipment { id, spec, row: OnceLock::new(), detail: OnceLock::new() }
    }

    /// A shipment with exactly these bodies.
    fn verbatim(spec: Spec, id: String, row: Bytes, detail: Bytes) -> Shipment {
        Shipment { id, spec, row: OnceLock::from(row), detail: OnceLock::from(detail) }
    }

    pub(crate) fn row(&self) -> &Bytes {
        self.row.get_or_init(|| content::row_json(&self.spec).into())
    }

    pub(crate) fn detail(&self) -> &Bytes {
        self.detail.get_or_init(|| content::detail_json(&self.spec).into())
    }

    /// Whether its transport has more events to come.
    fn growing(&self) -> bool {
        self.spec.has_transport() && self.spec.events.len() < self.spec.journey().len()
    }
}

/// How a shop changes over time by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    pub(crate) arrivals: Option<Duration>,
    pub(crate) growth: Option<Duration>,
}

/// A control's change of an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OrderChange {
    pub(crate) at: Millis,
    pub(crate) times: u32,
}

/// All shipments of one shop.
#[derive(Debug)]
pub(crate) struct Stock {
    seed: u64,
    odd: bool,
    born: Millis,
    by_id: HashMap<String, Arc<Shipment>>,
    /// Per method, oldest first, by ascending index and non-descending time.
    lists: [Vec<Arc<Shipment>>; 2],
    /// Per method, the initial number of shipments.
    first: [u64; 2],
    /// Per method, the next index.
    next: [u64; 2],
    /// Per method, when the orders of the next indices were placed: these are open.
    open: [VecDeque<Millis>; 2],
    /// By method and first index.
    changed_orders: [HashMap<u64, OrderChange>; 2],
    arrived: u64,
    grown: u64,
}

impl Stock {
    /// A shop with this many shipments per method, spread over the last three months before `now`.
    pub(crate) fn new(seed: u64, odd: bool, counts: [usize; 2], now: Millis) -> Stock {
        let mut stock = Stock {
            seed,
            odd,
            born: now,
            by_id: HashMap::with_capacity(counts[0] + counts[1]),
            lists: [Vec::with_capacity(counts[0]), Vec::with_capacity(counts[1])],
            first: counts.map(|count| count as u64),
            next: [0, 0],
            open: [VecDeque::new(), VecDeque::new()],
            changed_orders: [HashMap::new(), HashMap::new()],
            arrived: 0,
            grown: 0,
        };
        for (method, count) in [Method::Fbr, Method::Fbb].into_iter().zip(counts) {
            let gap = SPREAD_MS / Millis::try_from(count.max(1)).unwrap_or(Millis::MAX);
            let mut at = now - SPREAD_MS;
            for _ in 0..count {
                stock.push(method, at, now);
                at += gap;
            }
            stock.open[method as usize] =
                FIRST_OPEN.map(|ago| now - now.rem_euclid(MINUTE_MS) - ago * MINUTE_MS).into();
        }
        stock
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// When the shop was created.
    pub(crate) fn born(&self) -> Millis {
        self.born
    }

    /// The initial shipments that still exist, FBR first, newest first.
    pub(crate) fn first(&self) -> Vec<Spec> {
        let first = self.all().filter(|shipment| shipment.spec.index < self.first[shipment.spec.method as usize]);
        first.map(|shipment| shipment.spec.clone()).collect()
    }

    /// Adds a shipment at the head of its list. Some have the same time as their predecessor.
    pub(crate) fn push(&mut self, method: Method, at: Millis, now: Millis) -> String {
        let slot = method as usize;
        let index = self.next[slot];
        self.next[slot] += 1;
        let waited = self.open[slot].pop_front();
        if waited.is_some() && self.open[slot].len() < OPEN {
            self.open[slot].push_back(now - now.rem_euclid(1000));
        }
        let fraction = match (self.odd, index % 13) {
            (true, 3) => 120,
            (true, 6) => 235,
            (true, 9) => 347,
            _ => 0,
        };
        let fresh = at - at.rem_euclid(1000) + fraction;
        let before = self.lists[slot].last().map(|shipment| (shipment.spec.at, shipment.spec.placed));
        let at = match before {
            Some((before, _)) if index % 11 == 4 && waited.is_none_or(|placed| placed <= before) => before,
            Some((before, _)) => fresh.max(before),
            None => fresh,
        };
        let mut spec =
            Spec { seed: self.seed, odd: self.odd, method, index, at, placed: at, events: Vec::new(), revision: 0 };
        let own = at - at.rem_euclid(1000) - DAY_MS - Millis::try_from(index % 86_400).unwrap_or_default() * 1000;
        spec.placed = before.filter(|_| spec.shares_order()).map_or(waited.unwrap_or(own), |(_, placed)| placed);
        spec.events = spec.events_until(now);
        let shipment = Arc::new(Shipment::new(spec));
        let id = shipment.id.clone();
        self.by_id.insert(id.clone(), Arc::clone(&shipment));
        self.lists[slot].push(shipment);
        id
    }

    /// Applies the arrivals and events since the last access.
    pub(crate) fn settle(&mut self, pace: Pace, now: Millis) {
        let due = |every: Option<Duration>| {
            let every = every.map_or(0, |every| every.as_millis().max(1));
            let age = u128::try_from(now - self.born).unwrap_or_default();
            age.checked_div(every).map_or(0, |due| u64::try_from(due).unwrap_or(u64::MAX))
        };
        let (arrivals, growth) = (due(pace.arrivals), due(pace.growth));
        for _ in 0..arrivals.saturating_sub(self.arrived).min(SETTLE_MAX) {
            self.arrived += 1;
            let method = if self.arrived.is_multiple_of(4) { Method::Fbb } else { Method::Fbr };
            self.push(method, now, now);
        }
        let steps = growth.saturating_sub(self.grown).min(SETTLE_MAX);
        if steps > 0 {
            self.grown += steps;
            self.grow_some(usize::try_from(steps).unwrap_or(usize::MAX), now);
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Shipment>> {
        self.by_id.get(id).map(Arc::clone)
    }

    /// The listed shipments of one method, newest first.
    pub(crate) fn listed(&self, method: Method, now: Millis) -> impl Iterator<Item = &Arc<Shipment>> {
        self.lists[method as usize].iter().rev().take_while(move |shipment| shipment.spec.at >= now - LISTED_MS)
    }

    /// All shipments, FBR first, newest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Shipment>> {
        self.lists.iter().flat_map(|list| list.iter().rev())
    }

    /// The shipments of one method between two times, both included, oldest first.
    pub(crate) fn between(&self, method: Method, from: Millis, until: Millis) -> &[Arc<Shipment>] {
        let list = &self.lists[method as usize];
        let first = list.partition_point(|shipment| shipment.spec.at < from);
        let end = list.partition_point(|shipment| shipment.spec.at <= until);
        list.get(first..end).unwrap_or_default()
    }

    /// The shipment of that index, if the list shows it.
    pub(crate) fn shown(&self, method: Method, index: u64, now: Millis) -> Option<&Arc<Shipment>> {
        let list = &self.lists[method as usize];
        let place = list.binary_search_by_key(&index, |shipment| shipment.spec.index).ok()?;
        list.get(place).filter(|shipment| shipment.spec.at >= now - LISTED_MS)
    }

    /// The indices of future shipments whose orders are open.
    pub(crate) fn open(&self, method: Method) -> std::ops::Range<u64> {
        let next = self.next[method as usize];
        next..next + self.open[method as usize].len() as u64
    }

    /// A future shipment: its order is still open.
    pub(crate) fn upcoming(&self, method: Method, index: u64) -> Option<Spec> {
        let slot = method as usize;
        let ahead = usize::try_from(index.checked_sub(self.next[slot])?).ok()?;
        let placed = *self.open[slot].get(ahead)?;
        let events = Vec::new();
        Some(Spec { seed: self.seed, odd: self.odd, method, index, at: placed, placed, events, revision: 0 })
    }

    /// Places an open order; returns the index of its shipment.
    pub(crate) fn place_order(&mut self, method: Method, now: Millis) -> u64 {
        loop {
            let index = self.open(method).end;
            self.open[method as usize].push_back(now - now.rem_euclid(1000));
            // This one would belong to the previous order.
            if self.upcoming(method, index).is_some_and(|spec| !spec.shares_order()) {
                return index;
            }
        }
    }

    /// The control's change of the order whose first shipment has that index.
    pub(crate) fn order_change(&self, method: Method, index: u64) -> Option<OrderChange> {
        self.changed_orders[method as usize].get(&index).copied()
    }

    /// The first indices of all changed orders.
    pub(crate) fn changed_orders(&self, method: Method) -> impl Iterator<Item = u64> {
        self.changed_orders[method as usize].keys().copied()
    }

    /// Changes an order now; each change has a distinct time.
    pub(crate) fn change_order(&mut self, method: Method, index: u64, now: Millis) {
        let change = self.changed_orders[method as usize].entry(index).or_insert(OrderChange { at: 0, times: 0 });
        *change = OrderChange { at: now.max(change.at + 1), times: change.times + 1 };
    }

    /// Adds the next transport event; false if the id is unknown or its last event has happened.
    pub(crate) fn grow(&mut self, id: &str, now: Millis) -> bool {
        let Some(shipment) = self.get(id).filter(|shipment| shipment.growing()) else { return false };
        let mut spec = shipment.spec.clone();
        let last = spec.events.last().copied().unwrap_or(spec.at);
        spec.events.push(last.max(now - now.rem_euclid(1000)));
        self.replace(spec);
        true
    }

    /// Adds an event to each of the newest `count` shipments in transit; returns their ids.
    pub(crate) fn grow_some(&mut self, count: usize, now: Millis) -> Vec<String> {
        let ids: Vec<String> =
            self.all().filter(|shipment| shipment.growing()).take(count).map(|shipment| shipment.id.clone()).collect();
        for id in &ids {
            self.grow(id, now);
        }
        ids
    }

    /// Changes the list row (and the detail with it); false if the id is unknown.
    pub(crate) fn change_row(&mut self, id: &str) -> bool {
        let Some(shipment) = self.get(id) else { return false };
        let mut spec = shipment.spec.clone();
        spec.revision += 1;
        self.replace(spec);
        true
    }

    /// Puts a shipment with exactly these bodies: replaces the one with its id, or adds it at the head of the list.
    pub(crate) fn put(&mut self, method: Method, id: &str, [row, detail]: [Bytes; 2], now: Millis) {
        let known = self.get(id).map_or_else(|| self.push(method, now, now), |shipment| shipment.id.clone());
        let Some(shipment) = self.by_id.remove(&known) else { return };
        let spec = shipment.spec.clone();
        let list = &mut self.lists[spec.method as usize];
        if let Ok(place) = list.binary_search_by_key(&spec.index, |other| other.spec.index) {
            let shipment = Arc::new(Shipment::verbatim(spec, id.to_owned(), row, detail));
            self.by_id.insert(id.to_owned(), Arc::clone(&shipment));
            list[place] = shipment;
        }
    }

    /// Removes a shipment from list and detail; false if the id is unknown.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let Some(shipment) = self.by_id.remove(id) else { return false };
        let list = &mut self.lists[shipment.spec.method as usize];
        if let Ok(place) = list.binary_search_by_key(&shipment.spec.index, |other| other.spec.index) {
            list.remove(place);
        }
        true
    }

    fn replace(&mut self, spec: Spec) {
        let list = &mut self.lists[spec.method as usize];
        if let Ok(place) = list.binary_search_by_key(&spec.index, |other| other.spec.index) {
            let shipment = Arc::new(Shipment::new(spec));
            self.by_id.insert(shipment.id.clone(), Arc::clone(&shipment));
            list[place] = shipment;
        }
    }
}
