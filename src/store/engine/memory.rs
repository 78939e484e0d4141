//! Tests: the engine in memory, for rules that need no disk and for the simulation.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::store::StoreError;
use crate::store::engine::kv::{Change, Kv, LookFrom, Pairs};
use crate::store::record_forms;

/// An engine in memory, for the conformance test and for rules that need no disk.
#[derive(Default)]
pub(crate) struct MemoryKv {
    pairs: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Takes records of known forms only.
    is_strict: bool,
}

impl MemoryKv {
    /// One that takes records of known forms only.
    pub(crate) fn strict() -> MemoryKv {
        MemoryKv { is_strict: true, ..MemoryKv::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.pairs.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read().get(key).cloned())
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        let prefix = prefix.to_vec();
        let mut next = Bound::Included(if from > prefix.as_slice() { from.to_vec() } else { prefix.clone() });
        Box::new(std::iter::from_fn(move || {
            let map = self.read();
            let after = next.as_ref().map(Vec::as_slice);
            let (key, value) = map.range::<[u8], _>((after, Bound::Unbounded)).next()?;
            if !key.starts_with(&prefix) {
                return None;
            }
            let pair = (key.clone(), value.clone());
            next = Bound::Excluded(key.clone());
            Some(Ok(pair))
        }))
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        let (prefix, mut end) = (prefix.to_vec(), before.to_vec());
        Box::new(std::iter::from_fn(move || {
            let map = self.read();
            let (key, value) = map.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(end.as_slice()))).next_back()?;
            let pair = key.starts_with(&prefix).then(|| Ok((key.clone(), value.clone())));
            end.clone_from(key);
            pair
        }))
    }

    fn reserve(&self, _: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.is_strict {
            let values = changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
            values.for_each(|(key, value)| record_forms::check(key, value));
        }
        let mut map = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    fn look(&self, _: &[u8], _: usize) -> Result<LookFrom, StoreError> {
        Ok(None)
    }

    fn size(&self) -> u64 {
        0
    }
}
