//! Dead-letter records: what was given up on, with the reason, until it is retried (`ops::retry`).
//!
//! Also how many there are, by shop (`y`) and by resource (`Y`), and which of them a walk retries automatically (`h`).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use crate::domain::{Job, Mode, Parked, ShopId, Timestamp};
use crate::store::codec::{decode, number};
use crate::store::entry::EntryHead;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::texts::{self, Texts};
use crate::store::tx::counters::Counter;
use crate::store::tx::handle::Store;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// The sequence that gives parked records their ids.
pub(crate) const SEQUENCE: &str = "parked";

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    pub(crate) parked: Parked,
    pub(crate) what: What,
}

/// What a retry requeues.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum What {
    Job {
        job: Job,
    },
    Entry {
        head: EntryHead,
        sealed: String,
    },
    /// A list row without a usable id; a retry forgets it, so that the next walk looks again.
    Row {
        key: String,
    },
}

impl Texts for DeadLetter {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.parked.each_text(visit);
    }

    fn has_texts(&self) -> bool {
        self.parked.has_texts()
    }
}

pub(crate) fn put(tx: &mut Tx<'_>, record: &DeadLetter) -> Result<(), StoreError> {
    let bytes = texts::encode(tx.keys, &record.parked.shop_id, "a parked record", record)?;
    tx.put(keyspace::parked(record.parked.id), bytes);
    count(tx, &record.parked.shop_id, &record.parked.resource, 1)?;
    tx.parked.insert(record.parked.shop_id.clone());
    tx.raise(Signal::Progress);
    Ok(())
}

/// Counts what is parked, of a shop's resource, of the shop and of all.
pub(crate) fn count(tx: &mut Tx<'_>, shop: &str, resource: &str, by: i64) -> Result<(), StoreError> {
    for key in [keyspace::parked_of_shop(shop), keyspace::parked_of_resource(shop, resource)] {
        match number(tx.get(&key)?).saturating_add_signed(by) {
            0 => tx.delete(key),
            some => tx.put(key, some.to_be_bytes().to_vec()),
        }
    }
    tx.count(Counter::Parked, by);
    Ok(())
}

/// Recounts by shop when the stored counts do not add up: an older program did not keep them. Part of the opening.
pub(crate) fn recount(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    let total = tx.counted_before(Counter::Parked)?;
    let mut noted = Vec::new();
    let mut adds_up = true;
    for prefix in [keyspace::PARKED_BY_SHOP, keyspace::PARKED_BY_RESOURCE] {
        let mut sum = 0;
        for pair in tx.pairs(prefix, prefix) {
            let (key, parked) = pair?;
            sum += number(Some(parked));
            noted.push(key);
        }
        adds_up &= sum == total;
    }
    if adds_up {
        return Ok(());
    }
    let mut parked: BTreeMap<(ShopId, String), i64> = BTreeMap::new();
    for pair in tx.pairs(keyspace::PARKED, keyspace::PARKED) {
        let Parked { shop_id, resource, .. } = decode::<DeadLetter>("a parked record", &pair?.1)?.parked;
        *parked.entry((shop_id, resource)).or_default() += 1;
    }
    noted.into_iter().for_each(|key| tx.delete(key));
    tx.count(Counter::Parked, 0_i64.saturating_sub_unsigned(total));
    parked.into_iter().try_for_each(|((shop, resource), parked)| count(tx, &shop, &resource, parked))
}

/// Dead letters that a later successful walk resolves: a read that may succeed by now, a page that it has read again.
#[derive(Serialize, Deserialize)]
pub(crate) struct AutoRetry {
    pub(crate) parked: u64,
    pub(crate) not_before: Timestamp,
    /// Of a page or a sweep: how far its walk was to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) page_of: Option<Mode>,
    /// Of a document that is "not found" by a call that is not proved to work.
    #[serde(default, skip_serializing_if = "crate::domain::is_default")]
    pub(crate) doubted: bool,
}

/// Deletes a resolved dead letter.
pub(crate) fn forget(tx: &mut Tx<'_>, id: u64) -> Result<(), StoreError> {
    let key = keyspace::parked(id);
    let Some(bytes) = tx.get(&key)? else { return Ok(()) };
    let record: DeadLetter = decode("a parked record", &bytes)?;
    tx.delete(key);
    count(tx, &record.parked.shop_id, &record.parked.resource, -1)
}

impl Store {
    /// Sets the number of parked records at which a shop is paused.
    pub fn bound_parked(&self, parked_max: u64) {
        self.0.parked_max.store(parked_max, Ordering::Relaxed);
    }

    pub(crate) fn parked_max(&self) -> u64 {
        self.0.parked_max.load(Ordering::Relaxed)
    }

    /// How much of a shop is parked.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_of(&self, shop: &str) -> Result<u64, StoreError> {
        Ok(number(self.0.kv.get(&keyspace::parked_of_shop(shop))?))
    }

    /// Parked records above the id `after`, oldest first, of shops that are wanted. Their texts are sealed when `wanted`
    /// looks at them.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked(
        &self,
        after: Option<u64>,
        limit: usize,
        wanted: impl Fn(&Parked) -> bool,
    ) -> Result<Vec<Parked>, StoreError> {
        let from = after.map_or_else(|| keyspace::PARKED.to_vec(), |after| keyspace::parked(after.saturating_add(1)));
        let mut found = Vec::new();
        for pair in self.0.kv.scan(keyspace::PARKED, &from) {
            if found.len() == limit {
                break;
            }
            let record: DeadLetter = decode("a parked record", &pair?.1)?;
            if wanted(&record.parked) {
                found.push(self.open_parked(record.parked)?);
            }
        }
        Ok(found)
    }

    /// One parked record.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_one(&self, id: u64) -> Result<Option<Parked>, StoreError> {
        let bytes = self.0.kv.get(&keyspace::parked(id))?;
        let record = bytes.map(|bytes| decode::<DeadLetter>("a parked record", &bytes)).transpose()?;
        record.map(|record| self.open_parked(record.parked)).transpose()
    }

    fn open_parked(&self, parked: Parked) -> Result<Parked, StoreError> {
        let shop = parked.shop_id.clone();
        texts::open(&*self.0.keys, &shop, parked)
    }
}

impl Store {
    /// How much is parked of a resource of a shop.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_of_resource(&self, shop: &str, resource: &str) -> Result<u64, StoreError> {
        Ok(number(self.0.kv.get(&keyspace::parked_of_resource(shop, resource))?))
    }

    /// How much is parked of each resource of each shop; those without anything are left out.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn parked_by_resource(&self) -> Result<HashMap<(ShopId, String), u64>, StoreError> {
        let mut found = HashMap::new();
        for pair in self.0.kv.scan(keyspace::PARKED_BY_RESOURCE, keyspace::PARKED_BY_RESOURCE) {
            let (key, bytes) = pair?;
            let mut parts = key.get(1..).unwrap_or_default().split(|byte| *byte == 0);
            let mut part = || String::from_utf8_lossy(parts.next().unwrap_or_default());
            found.insert((part().into(), part().into_owned()), number(Some(bytes)));
        }
        Ok(found)
    }
}
