//! A transaction: reads over what is stored and what it changed itself, and collects its changes.
//!
//! Run by the committer, which applies the changes of a whole group at once. A scan merges three layers: the
//! transaction's own changes, those of the group before it, and the engine.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use crate::domain::ShopId;
use crate::store::engine::kv::{self, Kv, Pair};
use crate::store::error::StoreError;
use crate::store::texts::ShopKeys;
use crate::store::tx::counters::{COUNTERS_KEY, Counter, CounterChanges, StoredCounters};
use crate::store::tx::notify::{Changed, Signal};

pub(crate) type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A transaction in progress.
pub struct Tx<'a> {
    kv: &'a dyn Kv,
    group: &'a Overlay,
    /// They seal the texts of its records.
    pub(crate) keys: &'a dyn ShopKeys,
    pub(crate) own: Overlay,
    pub(crate) counts: CounterChanges,
    pub(crate) raised: BTreeSet<Signal>,
    pub(crate) bytes: usize,
    pub(crate) refused: bool,
    /// Shops with newly parked records.
    pub(crate) parked: BTreeSet<ShopId>,
    /// Shops that it paused for a broken invariant; their runs end in later transactions.
    pub(crate) breached: BTreeSet<ShopId>,
    /// The outbox record that takes further entries of this transaction, and its size.
    pub(crate) open_record: Option<(u64, usize)>,
}

impl<'a> Tx<'a> {
    /// Over what is on the disk and what the group committed before.
    pub(crate) fn over(kv: &'a dyn Kv, group: &'a Overlay, keys: &'a dyn ShopKeys) -> Tx<'a> {
        let (own, counts, raised) = (Overlay::new(), CounterChanges::new(), BTreeSet::new());
        let (parked, breached) = (BTreeSet::new(), BTreeSet::new());
        Tx { kv, group, keys, own, counts, raised, bytes: 0, refused: false, parked, breached, open_record: None }
    }
}

impl Tx<'_> {
    /// The value of a key, own changes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.own.get(key).or_else(|| self.group.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.kv.get(key),
        }
    }

    /// Checks the engine for damage while nothing is written.
    pub(crate) fn look(&self, from: &[u8], limit: usize) -> Result<kv::LookFrom, StoreError> {
        self.kv.look(from, limit)
    }

    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.raised.extend(Changed::by(&key).map(Signal::Changed));
        self.own.insert(key, Some(value));
    }

    /// Adds to the value that this transaction has set; false when it has set none.
    pub(crate) fn extend(&mut self, key: &[u8], more: &[u8]) -> bool {
        let Some(Some(value)) = self.own.get_mut(key) else { return false };
        value.extend_from_slice(more);
        self.bytes += more.len();
        true
    }

    /// Bytes of its changes.
    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// Changes a counter together with what it counts.
    pub(crate) fn count(&mut self, counter: Counter, by: i64) {
        *self.counts.entry(counter).or_default() += by;
    }

    /// What a counter was before the group.
    pub(crate) fn counted_before(&self, counter: Counter) -> Result<u64, StoreError> {
        Ok(StoredCounters::read(self.get(COUNTERS_KEY)?)?.count(counter))
    }

    /// Removes a key, present or not.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.raised.extend(Changed::by(&key).map(Signal::Changed));
        self.own.insert(key, None);
    }

    /// The first `limit` pairs from `from` on with `prefix`, own changes included.
    pub fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.pairs(prefix, from).take(limit).collect()
    }

    /// The pairs from `from` on with `prefix`, own changes included, read one by one.
    pub fn pairs<'s>(&'s self, prefix: &'s [u8], from: &'s [u8]) -> impl Iterator<Item = Result<Pair, StoreError>> {
        let start = from.max(prefix);
        let own = layer(&self.own, prefix, start);
        let group = layer(self.group, prefix, start);
        let mut fresh = Merged { upper: own.peekable(), lower: group.peekable() }.peekable();
        let mut below = self.kv.scan(prefix, start).peekable();
        std::iter::from_fn(move || {
            loop {
                let order = match (fresh.peek(), below.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) | (Some(_), Some(Err(_))) => Ordering::Greater,
                    (Some((key, _)), Some(Ok((under, _)))) => key.as_slice().cmp(under),
                };
                if order == Ordering::Greater {
                    return below.next();
                }
                if order == Ordering::Equal {
                    below.next();
                }
                if let Some((key, Some(value))) = fresh.next() {
                    return Some(Ok((key.clone(), value.clone())));
                }
            }
        })
    }

    /// Raises a signal once the transaction is durable.
    pub fn raise(&mut self, signal: Signal) {
        self.raised.insert(signal);
    }
}

pub(crate) type Layered<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

pub(crate) fn layer<'a>(overlay: &'a Overlay, prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = Layered<'a>> {
    overlay.range(start.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix))
}

/// Two layers in the order of keys; the upper one wins.
pub(crate) struct Merged<U: Iterator, L: Iterator> {
    upper: Peekable<U>,
    lower: Peekable<L>,
}

impl<'a, U: Iterator<Item = Layered<'a>>, L: Iterator<Item = Layered<'a>>> Iterator for Merged<U, L> {
    type Item = Layered<'a>;

    fn next(&mut self) -> Option<Layered<'a>> {
        let (Some((above, _)), Some((under, _))) = (self.upper.peek(), self.lower.peek()) else {
            return self.upper.next().or_else(|| self.lower.next());
        };
        match above.cmp(under) {
            Ordering::Greater => self.lower.next(),
            Ordering::Equal => {
                self.lower.next();
                self.upper.next()
            }
            Ordering::Less => self.upper.next(),
        }
    }
}
