//! Looks archived documents up by their index.
//!
//! Reads no transaction: the changes first and the blocks after them, and both again if a merge removed changes meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use crate::catalog::Definition;
use crate::domain::{Facet, Facets, ListParams, ShopId, Timestamp};
use crate::store::crypto::SealKey;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::archive_index::{
    self, IndexPhase, Postings, TERM_BYTES, Term, UNREADABLE_TERM, each_change, each_posting, term, time_term,
};
use crate::store::tx::handle::Store;

/// A condition that the index knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexCondition {
    /// The document has the facet.
    Has(Facet),
    /// Its time is not before the first, and before the second.
    Between(Option<Timestamp>, Option<Timestamp>),
}

/// What is looked up: documents of one shop above the id `after`, about `count` of them.
#[derive(Clone, Copy, Debug)]
pub struct IndexQuery<'a> {
    pub resource: &'a str,
    pub shop: &'a str,
    pub conditions: &'a [IndexCondition],
    pub after: Option<&'a str>,
    pub count: usize,
}

/// Documents of one shop that may satisfy all conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// In the order of their bytes.
    pub ids: Vec<String>,
    /// There may be more, above this id.
    pub more: Option<String>,
}

/// What the index knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Candidates),
    /// Not all documents are indexed, or nothing that is looked for.
    NoIndex,
    /// The shop has no key that opens its documents.
    NoKey,
}

/// What the present process indexes of a resource.
pub(crate) struct IndexLayout(Arc<Definition>);

impl IndexLayout {
    /// The postings of a document that was read, as the archive gets them.
    pub(crate) fn index_of(&self, key: &SealKey, facets: Facets, combination: &ListParams) -> Option<String> {
        let layout = &self.0.facets;
        match facets {
            Facets::Known(mut facets) => {
                facets.extend(layout.of_stream(combination));
                Some(Postings::new(layout.digest, key, &facets).text())
            }
            Facets::Hashed(index) => Some(index),
            Facets::Unknown => None,
        }
    }
}

impl Store {
    /// None: no archive is kept.
    pub(crate) fn index_layout(&self, resource: &str) -> Option<IndexLayout> {
        let indexed = self.0.indexed.read().unwrap_or_else(PoisonError::into_inner);
        indexed.get(resource).map(|definition| IndexLayout(Arc::clone(definition)))
    }

    /// Whether all archived documents of a resource are indexed.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn is_indexed(&self, resource: &str) -> Result<bool, StoreError> {
        let Some(IndexLayout(definition)) = self.index_layout(resource) else { return Ok(false) };
        let state = archive_index::state(&*self.0.kv, resource)?;
        Ok(state.is_some_and(|state| state.phase == IndexPhase::Complete && state.digest == definition.facets.digest))
    }

    /// The first shop with archived documents of a resource: of all, from one on, or behind one.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn next_archived_shop(&self, resource: &str, from: Bound<&ShopId>) -> Result<Option<ShopId>, StoreError> {
        let of_resource = keyspace::archive_of(resource);
        let from = match from {
            Bound::Unbounded => of_resource.clone(),
            Bound::Included(shop) => keyspace::archive_of_shop(resource, shop),
            Bound::Excluded(shop) => keyspace::after(&keyspace::archive_of_shop(resource, shop)),
        };
        let next = self.0.kv.scan(&of_resource, &from).next().transpose()?;
        Ok(next.and_then(|(key, _)| super::archive::place(resource, &key)).map(|(shop, _)| shop))
    }

    /// The first documents of a shop that may satisfy all conditions.
    ///
    /// # Errors
    /// The engine's read errors, and a damaged index.
    pub fn archive_candidates(&self, query: IndexQuery<'_>) -> Result<Lookup, StoreError> {
        let IndexQuery { resource, shop, conditions, after, count } = query;
        if conditions.is_empty() || !self.is_indexed(resource)? {
            return Ok(Lookup::NoIndex);
        }
        let key = match self.shop_key(shop) {
            Ok(key) => key,
            Err(StoreError::Absent { .. } | StoreError::Sealed { .. }) => return Ok(Lookup::NoKey),
            Err(error) => return Err(error),
        };
        let index = keyspace::archive_index_of_shop(resource, shop);
        loop {
            let merges = self.0.kv.get(&keyspace::index_blocks_count(&index))?;
            let mut found: Vec<Matches<'_>> =
                conditions.iter().map(|condition| Matches::new(&key, condition, after, count)).collect();
            self.read_changes(&index, &mut found)?;
            for matches in &mut found {
                self.read_blocks(&index, matches)?;
            }
            // Else changes may have gone to blocks that were read before, or their last ones were not seen.
            if self.0.kv.get(&keyspace::index_blocks_count(&index))? == merges {
                return Ok(Lookup::Found(all_of(found)));
            }
        }
    }

    fn read_changes(&self, index: &[u8], found: &mut [Matches<'_>]) -> Result<(), StoreError> {
        let prefix = keyspace::index_changes(index);
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let (_, record) = pair?;
            each_change(&record, |is_added, term, id| {
                found.iter_mut().for_each(|matches| matches.note_change(is_added, term, id));
            })?;
        }
        Ok(())
    }

    fn read_blocks(&self, index: &[u8], matches: &mut Matches<'_>) -> Result<(), StoreError> {
        let blocks = keyspace::index_block(index, &[]);
        for (first, last) in matches.ranges {
            // The block that may begin before the first term that is wanted.
            let mut behind = keyspace::index_block(index, &first);
            behind.push(0);
            let from =
                self.0.kv.scan_back(&blocks, &behind).next().transpose()?.map_or_else(|| blocks.clone(), |pair| pair.0);
            for pair in self.0.kv.scan(&blocks, &from) {
                let (key, block) = pair?;
                if key
                    .get(blocks.len()..)
                    .and_then(|first| first.get(..TERM_BYTES))
                    .is_some_and(|first| first > &last[..])
                {
                    break;
                }
                each_posting(&block, |term, id| matches.note_posting(term, id))?;
            }
        }
        matches.take_changes();
        Ok(())
    }

    /// Number of postings in the blocks of an index, and of records with changes.
    #[cfg(test)]
    pub(crate) fn count_postings(&self, resource: &str, shop: &str) -> (usize, usize) {
        let index = keyspace::archive_index_of_shop(resource, shop);
        let (blocks, changes) = (keyspace::index_block(&index, &[]), keyspace::index_changes(&index));
        let mut postings = 0;
        for pair in self.0.kv.scan(&blocks, &blocks) {
            each_posting(&pair.unwrap().1, |_, _| postings += 1).unwrap();
        }
        (postings, self.0.kv.scan(&changes, &changes).count())
    }
}

/// The first documents that satisfy one condition.
struct Matches<'a> {
    /// The terms of the condition, and the term of documents that cannot be read.
    ranges: [(Term, Term); 2],
    after: Option<&'a [u8]>,
    count: usize,
    /// The last change of each posting.
    changes: BTreeMap<(Term, Vec<u8>), bool>,
    ids: BTreeSet<Vec<u8>>,
    /// Further ones were left out.
    is_cut: bool,
}

impl<'a> Matches<'a> {
    fn new(key: &SealKey, condition: &IndexCondition, after: Option<&'a str>, count: usize) -> Matches<'a> {
        let range = match condition {
            IndexCondition::Has(facet) => (term(key, facet), term(key, facet)),
            IndexCondition::Between(from, to) => {
                let last = to.map_or(Timestamp::MAX, |to| Timestamp::from_millis(to.as_millis().saturating_sub(1)));
                (time_term(from.unwrap_or(Timestamp::MIN)), time_term(last))
            }
        };
        Matches {
            ranges: [range, (UNREADABLE_TERM, UNREADABLE_TERM)],
            after: after.map(str::as_bytes),
            count: count.max(1),
            changes: BTreeMap::new(),
            ids: BTreeSet::new(),
            is_cut: false,
        }
    }

    fn is_wanted(&self, term: &Term, id: &[u8]) -> bool {
        self.ranges.iter().any(|(first, last)| first <= term && term <= last)
            && self.after.is_none_or(|after| id > after)
    }

    fn note_change(&mut self, is_added: bool, term: &Term, id: &[u8]) {
        if self.is_wanted(term, id) {
            self.changes.insert((*term, id.to_vec()), is_added);
        }
    }

    fn note_posting(&mut self, term: &Term, id: &[u8]) {
        if self.is_wanted(term, id) && (self.changes.is_empty() || !self.changes.contains_key(&(*term, id.to_vec()))) {
            self.add(id);
        }
    }

    /// Adds the documents of the changes, once the blocks were read.
    fn take_changes(&mut self) {
        for ((_, id), is_added) in std::mem::take(&mut self.changes) {
            if is_added {
                self.add(&id);
            }
        }
    }

    fn add(&mut self, id: &[u8]) {
        if self.ids.len() >= self.count {
            self.is_cut |= !self.ids.contains(id);
            if self.ids.last().is_some_and(|last| id >= last.as_slice()) {
                return;
            }
            if self.ids.insert(id.to_vec()) {
                self.ids.pop_last();
            }
            return;
        }
        self.ids.insert(id.to_vec());
    }
}

/// The documents that satisfy all conditions, as far as all of them are known.
fn all_of(found: Vec<Matches<'_>>) -> Candidates {
    let cut = found.iter().filter(|matches| matches.is_cut);
    let known_to: Option<Vec<u8>> = cut.filter_map(|matches| matches.ids.last()).min().cloned();
    let mut sets = found.into_iter().map(|matches| matches.ids);
    let mut ids = sets.next().unwrap_or_default();
    sets.for_each(|set| ids.retain(|id| set.contains(id)));
    if let Some(last) = &known_to {
        ids.retain(|id| id <= last);
    }
    let text = |id: Vec<u8>| String::from_utf8_lossy(&id).into_owned();
    Candidates { ids: ids.into_iter().map(text).collect(), more: known_to.map(text) }
}
