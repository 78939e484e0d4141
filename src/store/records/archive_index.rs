//! The index of the archive: postings, which lead from a value to the documents that may have it.
//!
//! A posting is a term (the number of a filter and a digest of the value, or a time) and a document's id. Digests are
//! made with the shop's data key, so that the index shows no value, and nothing of a shop whose key was destroyed; times
//! are in clear, in order. Every commit that archives documents adds one record with the changes of their postings for each
//! shop (a record costs the engine much the same whatever its size); `ops::merge_index` sorts them into blocks later. The
//! last change of a posting counts, and changes count before blocks, so a merge may stop and repeat at any point.
//!
//! An archived document keeps its postings in its head. The index of a resource is complete when each of its documents has
//! those of the state's generation; otherwise the archive is scanned.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::catalog::facets::TIME;
use crate::domain::{Facet, FacetValue, ShopId, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::crypto::SealKey;
use crate::store::engine::kv::Kv;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// A filter's number and a digest, or [`TIME`] and a time: terms are in the order of time.
pub(crate) type Term = [u8; TERM_BYTES];
pub(crate) const TERM_BYTES: usize = 9;

/// Number of the term of documents that cannot be read: whatever is looked for, they are looked at.
const UNREADABLE: u8 = 255;
/// Represents the time of the reading until that is known.
const FETCHED_AT: Term = [254, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) const UNREADABLE_TERM: Term = [UNREADABLE, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether a resource is indexed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexState {
    /// Of the layout that the postings follow.
    pub(crate) digest: u64,
    /// Rises with each new beginning: postings of an earlier one are gone.
    pub(crate) generation: u64,
    pub(crate) phase: IndexPhase,
    /// The last document that the building looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<(ShopId, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IndexPhase {
    /// The postings of the generation before are being removed.
    Clearing,
    /// Documents that were archived earlier are being indexed.
    Building,
    Complete,
}

/// How the state of a resource's index is stored.
pub(crate) fn state(kv: &dyn Kv, resource: &str) -> Result<Option<IndexState>, StoreError> {
    kv.get(&keyspace::archive_index_state(resource))?.map(|bytes| decode("an index", &bytes)).transpose()
}

pub(crate) fn state_in(tx: &Tx<'_>, resource: &str) -> Result<Option<IndexState>, StoreError> {
    tx.get(&keyspace::archive_index_state(resource))?.map(|bytes| decode("an index", &bytes)).transpose()
}

pub(crate) fn put_state(tx: &mut Tx<'_>, resource: &str, state: &IndexState) -> Result<(), StoreError> {
    tx.put(keyspace::archive_index_state(resource), encode("an index", state)?);
    Ok(())
}

/// The terms of one document, each once, and what decides their meaning: the layout's digest on the way to the archive,
/// the generation in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Postings {
    pub(crate) of: u64,
    /// In order.
    pub(crate) terms: Vec<Term>,
}

impl Postings {
    /// The terms of facets.
    pub(crate) fn new(of: u64, key: &SealKey, facets: &[Facet]) -> Postings {
        let mut terms: Vec<Term> = facets.iter().map(|facet| term(key, facet)).collect();
        terms.sort_unstable();
        terms.dedup();
        Postings { of, terms }
    }

    /// Of a document that cannot be read.
    pub(crate) fn unreadable(of: u64) -> Postings {
        Postings { of, terms: vec![UNREADABLE_TERM] }
    }

    /// The same for a document read at that time. None: it is none of ours.
    pub(crate) fn read(text: &str, fetched_at: Timestamp) -> Option<Postings> {
        let bytes = STANDARD_NO_PAD.decode(text).ok()?;
        let (of, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut terms = Vec::with_capacity(rest.len() / TERM_BYTES);
        while let Some((term, behind)) = rest.split_first_chunk::<TERM_BYTES>() {
            terms.push(if *term == FETCHED_AT { time_term(fetched_at) } else { *term });
            rest = behind;
        }
        terms.sort_unstable();
        rest.is_empty().then(|| Postings { of: u64::from_be_bytes(*of), terms })
    }

    /// As heads keep it.
    pub(crate) fn text(&self) -> String {
        let mut bytes = Vec::with_capacity(8 + self.terms.len() * TERM_BYTES);
        bytes.extend(self.of.to_be_bytes());
        self.terms.iter().for_each(|term| bytes.extend(term));
        STANDARD_NO_PAD.encode(bytes)
    }
}

/// The term of a facet.
pub(crate) fn term(key: &SealKey, facet: &Facet) -> Term {
    match &facet.value {
        FacetValue::FetchedAt => FETCHED_AT,
        FacetValue::Time(at) => time_term(*at),
        FacetValue::Text(text) => term_of(facet.place, key.index_digest(facet.place, text)),
    }
}

/// The term of a time.
pub(crate) fn time_term(at: Timestamp) -> Term {
    // Negative numbers come first.
    term_of(TIME, (at.as_millis() as u64) ^ (1 << 63))
}

fn term_of(number: u8, value: u64) -> Term {
    let mut term = [number; TERM_BYTES];
    if let Some(rest) = term.last_chunk_mut::<8>() {
        *rest = value.to_be_bytes();
    }
    term
}

/// Appends a posting: its term, the length of the id, the id.
pub(crate) fn write_posting(out: &mut Vec<u8>, term: &Term, id: &[u8]) {
    out.extend(term);
    // Ids have at most 128 characters.
    out.extend(u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(id);
}

/// Takes a posting from the front of a record; None: it is cut off.
pub(crate) fn split_posting<'a>(record: &mut &'a [u8]) -> Option<(&'a Term, &'a [u8])> {
    let (term, rest) = record.split_first_chunk::<TERM_BYTES>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (id, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *record = rest;
    Some((term, id))
}

/// Calls `each` for the postings of a block.
pub(crate) fn each_posting<'a>(
    mut block: &'a [u8],
    mut each: impl FnMut(&'a Term, &'a [u8]),
) -> Result<(), StoreError> {
    while !block.is_empty() {
        let (term, id) = split_posting(&mut block).ok_or_else(cut)?;
        each(term, id);
    }
    Ok(())
}

/// Calls `each` for the changes of a record, in their order: whether the posting was added, and the posting.
pub(crate) fn each_change<'a>(
    mut record: &'a [u8],
    mut each: impl FnMut(bool, &'a Term, &'a [u8]),
) -> Result<(), StoreError> {
    while let Some((is_added, rest)) = record.split_first() {
        record = rest;
        let (term, id) = split_posting(&mut record).ok_or_else(cut)?;
        each(*is_added == 1, term, id);
    }
    Ok(())
}

fn cut() -> StoreError {
    StoreError::Record { what: "an index".to_owned(), detail: "cut off".to_owned() }
}

/// A document that is archived.
#[derive(Clone, Copy)]
pub(crate) struct IndexedDocument<'a> {
    pub(crate) resource: &'a str,
    pub(crate) shop: &'a str,
    pub(crate) id: &'a str,
}

/// What one transaction changes of the index.
#[derive(Default)]
pub(crate) struct IndexChanges {
    states: HashMap<String, Option<IndexState>>,
    /// By resource and shop.
    records: BTreeMap<(String, String), Vec<u8>>,
}

impl IndexChanges {
    /// A document is archived in place of one that had the postings `before`; `after` are its own. Returns what its head
    /// keeps. Without postings of the present layout, the index is completed later.
    pub(crate) fn update(
        &mut self,
        tx: &mut Tx<'_>,
        document: IndexedDocument<'_>,
        before: Option<&str>,
        after: Option<&Postings>,
    ) -> Result<Option<String>, StoreError> {
        let Some(state) = self.state(tx, document.resource)? else { return Ok(None) };
        if state.phase == IndexPhase::Clearing {
            return Ok(None);
        }
        let before = before.and_then(|text| Postings::read(text, Timestamp::EPOCH));
        let before = before.filter(|before| before.of == state.generation);
        let after = after.filter(|after| after.of == state.digest);
        let (old, new) = (
            before.as_ref().map_or(&[][..], |of| of.terms.as_slice()),
            after.map_or(&[][..], |of| of.terms.as_slice()),
        );
        let at = (document.resource.to_owned(), document.shop.to_owned());
        let record = self.records.entry(at).or_default();
        for (terms, others, is_added) in [(old, new, 0), (new, old, 1)] {
            for term in terms.iter().filter(|term| others.binary_search(term).is_err()) {
                record.push(is_added);
                write_posting(record, term, document.id.as_bytes());
            }
        }
        match after {
            Some(after) => Ok(Some(Postings { of: state.generation, terms: after.terms.clone() }.text())),
            None => {
                let again = IndexState { phase: IndexPhase::Building, after: None, ..state };
                put_state(tx, document.resource, &again)?;
                tx.raise(Signal::Unindexed);
                self.states.insert(document.resource.to_owned(), Some(again));
                Ok(None)
            }
        }
    }

    fn state(&mut self, tx: &Tx<'_>, resource: &str) -> Result<Option<IndexState>, StoreError> {
        if let Some(known) = self.states.get(resource) {
            return Ok(known.clone());
        }
        let state = state_in(tx, resource)?;
        self.states.insert(resource.to_owned(), state.clone());
        Ok(state)
    }

    /// Forgets the changes of a shop whose documents are removed.
    pub(crate) fn forget(&mut self, shop: &str) {
        self.records.retain(|(_, of), _| of != shop);
    }

    /// Adds the changes to the transaction.
    pub(crate) fn write(self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
        let mut records = self.records.into_iter().filter(|(_, record)| !record.is_empty()).peekable();
        if records.peek().is_none() {
            return Ok(());
        }
        // Later than those of all commits before.
        let number = tx.next_version(now)?;
        for ((resource, shop), record) in records {
            let index = keyspace::archive_index_of_shop(&resource, &shop);
            tx.put(keyspace::index_change(&index, number), record);
            tx.raise(Signal::Indexed(resource, shop.into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{FETCHED_AT, Postings, term, time_term};
    use crate::domain::{Facet, FacetValue, Timestamp};
    use crate::store::crypto::SealKey;

    #[test]
    fn times_are_in_order_and_values_show_only_whether_they_are_equal() {
        let at = |millis| time_term(Timestamp::from_millis(millis));
        assert!(at(i64::MIN) < at(-1) && at(-1) < at(0) && at(0) < at(1) && at(1) < at(i64::MAX));
        let key = SealKey::new(&[7; 32]);
        let of = |key: &SealKey, place, text: &str| term(key, &Facet { place, value: FacetValue::Text(text.into()) });
        assert_eq!(of(&key, 1, "a"), of(&key, 1, "a"));
        assert_ne!(of(&key, 1, "a"), of(&key, 1, "b"));
        assert_ne!(of(&key, 1, "a")[1..], of(&key, 2, "a")[1..]);
        assert_ne!(of(&key, 1, "a"), of(&SealKey::new(&[8; 32]), 1, "a"), "each shop has its own");
    }

    #[test]
    fn postings_come_back_with_the_time_of_the_reading() {
        let key = SealKey::new(&[7; 32]);
        let facets = [
            Facet { place: 0, value: FacetValue::FetchedAt },
            Facet { place: 1, value: FacetValue::Text("a".to_owned()) },
        ];
        let postings = Postings::new(9, &key, &facets);
        assert!(postings.terms.contains(&FETCHED_AT));
        let read = Postings::read(&postings.text(), Timestamp::from_millis(5)).unwrap();
        let wanted = vec![time_term(Timestamp::from_millis(5)), term(&key, &facets[1])];
        assert_eq!((read.of, read.terms), (9, wanted));
        for bad in ["", "x", "AAAAAAAAAAAA"] {
            assert_eq!(Postings::read(bad, Timestamp::EPOCH), None, "{bad}");
        }
    }
}
