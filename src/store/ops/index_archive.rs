//! Keeps the index of the archive: begins it, and builds it for documents that were archived without it.
//!
//! Building goes in steps, each one commit that notes where it is, beside all other work; until it is complete, the archive
//! is scanned. Documents that were archived meanwhile have their postings from the start.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::catalog::Definition;
use crate::domain::{Json, ShopId};
use crate::store::codec::{decode_with, encode_with};
use crate::store::crypto::document_context;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::archive::{self, ArchiveHead};
use crate::store::records::archive_index::{
    self, IndexChanges, IndexPhase, IndexState, IndexedDocument, Postings, put_state, state_in,
};
use crate::store::tx::handle::{Store, blocking};
use crate::store::tx::transaction::Tx;

/// Documents that one step looks at, and how many stored bytes, roughly.
const BUILT_MAX: usize = 64;
const BUILT_BYTES_MAX: usize = 512 * 1024;
/// Documents that one step of the check looks at.
const CHECKED_MAX: usize = 512;
/// Postings that one step removes.
const CLEARED_MAX: usize = 1000;

/// Where the check of the indexes goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexCheck {
    resource: String,
    after: Vec<u8>,
}

/// A document that gets its postings.
struct Unindexed {
    key: Vec<u8>,
    shop: ShopId,
    id: String,
    version: u64,
    postings: Postings,
}

impl Store {
    /// The resources whose documents are indexed when they are archived.
    pub fn set_indexed(&self, definitions: &[Arc<Definition>]) {
        let named = definitions.iter().map(|definition| (definition.name.clone(), Arc::clone(definition)));
        *self.0.indexed.write().unwrap_or_else(PoisonError::into_inner) = named.collect();
    }

    /// From now on what is archived is indexed. What is archived already is indexed by [`Store::index_some`].
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn begin_index(&self) -> Result<(), StoreError> {
        let indexed = self.0.indexed.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.transact(move |tx| {
            indexed.values().try_for_each(|definition| begin(tx, &definition.name, definition.facets.digest))
        })
        .await
    }

    /// The resources with archived documents that are not indexed yet, by name. Empty where no archive is kept.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn unindexed_resources(&self) -> Result<Vec<String>, StoreError> {
        let indexed = self.0.indexed.read().unwrap_or_else(PoisonError::into_inner);
        let resources: BTreeSet<String> = indexed.keys().cloned().collect();
        drop(indexed);
        let is_unindexed = |resource: &String| {
            let state = archive_index::state(&*self.0.kv, resource)?;
            Ok(state.is_some_and(|state| state.phase != IndexPhase::Complete))
        };
        let unindexed = resources.into_iter().filter_map(|resource| match is_unindexed(&resource) {
            Ok(is_unindexed) => is_unindexed.then_some(Ok(resource)),
            Err(error) => Some(Err(error)),
        });
        unindexed.collect()
    }

    /// Indexes some documents that are not indexed yet. False: all are.
    ///
    /// # Errors
    /// The engine's errors; the next call goes on.
    pub async fn index_some(&self) -> Result<bool, StoreError> {
        let Some(resource) = self.unindexed_resources()?.into_iter().next() else { return Ok(false) };
        let Some(state) = archive_index::state(&*self.0.kv, &resource)? else { return Ok(false) };
        if state.phase == IndexPhase::Clearing {
            self.transact(move |tx| clear(tx, &resource, state)).await?;
            return Ok(true);
        }
        let (store, of, from) = (self.clone(), resource.clone(), state.clone());
        let (documents, next) = blocking(move || store.unindexed(&of, &from)).await?;
        let now = self.now();
        self.transact(move |tx| {
            // A document without postings was archived meanwhile, so it begins again.
            if state_in(tx, &resource)?.as_ref() != Some(&state) {
                return Ok(());
            }
            let mut changes = IndexChanges::default();
            for document in &documents {
                add(tx, &mut changes, &resource, document)?;
            }
            changes.write(tx, now)?;
            put_state(tx, &resource, &next)
        })
        .await?;
        Ok(true)
    }

    /// Looks for documents without postings in indexes that count as complete: an earlier build that ran in between has
    /// archived some. Reads on from `from`; returns where to go on.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn check_index(&self, from: IndexCheck) -> Result<Option<IndexCheck>, StoreError> {
        let resources = self.0.indexed.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let resources: BTreeSet<String> = resources;
        let Some(resource) = resources.range(from.resource.clone()..).next().cloned() else { return Ok(None) };
        let begins = IndexCheck { after: Vec::new(), resource: resource.clone() };
        let (store, from) = (self.clone(), if resource == from.resource { from } else { begins });
        let behind = IndexCheck { resource: format!("{resource}\0"), after: Vec::new() };
        let Some(state) = archive_index::state(&*self.0.kv, &resource)? else { return Ok(Some(behind)) };
        if state.phase != IndexPhase::Complete {
            return Ok(Some(behind));
        }
        let generation = state.generation;
        let (is_whole, next) = blocking(move || store.look_at_heads(from, generation)).await?;
        if !is_whole {
            tracing::warn!(resource, "the archive has documents of an earlier build that are not indexed");
            self.transact(move |tx| {
                let Some(state) = state_in(tx, &resource)? else { return Ok(()) };
                put_state(tx, &resource, &IndexState { phase: IndexPhase::Building, after: None, ..state })
            })
            .await?;
            return Ok(Some(behind));
        }
        Ok(Some(next.unwrap_or(behind)))
    }

    /// Whether some documents have postings of a generation, and where to go on.
    fn look_at_heads(&self, from: IndexCheck, generation: u64) -> Result<(bool, Option<IndexCheck>), StoreError> {
        let prefix = keyspace::archive_of(&from.resource);
        for (looked, pair) in self.0.kv.scan(&prefix, &from.after).enumerate() {
            let (key, record) = pair?;
            if looked == CHECKED_MAX {
                return Ok((true, Some(IndexCheck { after: key, ..from })));
            }
            let (head, _): (ArchiveHead, _) = decode_with("an archived document", &record)?;
            let known = head.index.as_deref().and_then(|index| Postings::read(index, head.fetched_at));
            if known.is_none_or(|known| known.of != generation) {
                return Ok((false, None));
            }
        }
        Ok((true, None))
    }

    /// The next documents without postings of this generation, and the state after them.
    fn unindexed(&self, resource: &str, state: &IndexState) -> Result<(Vec<Unindexed>, IndexState), StoreError> {
        let of_resource = keyspace::archive_of(resource);
        let mut from = of_resource.clone();
        if let Some((shop, id)) = &state.after {
            from = keyspace::archived(resource, shop, id);
            from.push(0);
        }
        let mut next = IndexState { phase: IndexPhase::Complete, ..state.clone() };
        let (mut documents, mut bytes) = (Vec::new(), 0);
        for (looked, pair) in self.0.kv.scan(&of_resource, &from).enumerate() {
            // Those that have their postings cost little.
            if documents.len() >= BUILT_MAX || looked >= BUILT_MAX * 16 || bytes >= BUILT_BYTES_MAX {
                next.phase = IndexPhase::Building;
                break;
            }
            let (key, record) = pair?;
            let (head, sealed): (ArchiveHead, _) = decode_with("an archived document", &record)?;
            let Some((shop, id)) = archive::place(resource, &key) else { continue };
            next.after = Some((shop.clone(), id.clone()));
            let known = head.index.as_deref().and_then(|index| Postings::read(index, head.fetched_at));
            if known.is_none_or(|known| known.of != state.generation) {
                bytes += record.len();
                let version = head.version;
                let place = IndexedDocument { resource, shop: &shop, id: &id };
                let postings = self.postings(place, &head, &sealed);
                let postings = postings.unwrap_or_else(|| Postings::unreadable(state.digest));
                documents.push(Unindexed { key, shop, id, version, postings });
            }
        }
        if next.phase == IndexPhase::Complete {
            next.after = None;
        }
        Ok((documents, next))
    }

    /// None: the document cannot be read.
    fn postings(&self, place: IndexedDocument<'_>, head: &ArchiveHead, sealed: &[u8]) -> Option<Postings> {
        let IndexedDocument { resource, shop, id } = place;
        let definition = self.0.indexed.read().unwrap_or_else(PoisonError::into_inner).get(resource).map(Arc::clone)?;
        let key = self.shop_key(shop).ok()?;
        let body = key.open_document(&document_context(shop, resource, id), sealed).ok()?;
        let mut facets = definition.facets_of(id, &Json::parse(&body).ok()?);
        facets.extend(definition.facets.of_stream(&head.combination));
        let postings = Postings::new(definition.facets.digest, &key, &facets);
        Postings::read(&postings.text(), head.fetched_at)
    }
}

/// Notes that a resource is indexed from now on.
fn begin(tx: &mut Tx<'_>, resource: &str, digest: u64) -> Result<(), StoreError> {
    let known = state_in(tx, resource)?;
    if known.as_ref().is_some_and(|state| state.digest == digest) {
        return Ok(());
    }
    let archive = keyspace::archive_of(resource);
    let is_empty = tx.pairs(&archive, &archive).next().transpose()?.is_none();
    let generation = known.map_or(1, |state| state.generation + 1);
    let phase = if is_empty && generation == 1 { IndexPhase::Complete } else { IndexPhase::Clearing };
    put_state(tx, resource, &IndexState { digest, generation, phase, after: None })
}

/// Removes some postings of the generation before.
fn clear(tx: &mut Tx<'_>, resource: &str, state: IndexState) -> Result<(), StoreError> {
    let index = keyspace::archive_index_of(resource);
    let found = tx.scan(&index, &index, CLEARED_MAX)?;
    let is_last = found.len() < CLEARED_MAX;
    found.into_iter().for_each(|(key, _)| tx.delete(key));
    if is_last {
        put_state(tx, resource, &IndexState { phase: IndexPhase::Building, ..state })?;
    }
    Ok(())
}

/// Gives a document its postings, unless another version was archived meanwhile.
fn add(tx: &mut Tx<'_>, changes: &mut IndexChanges, resource: &str, document: &Unindexed) -> Result<(), StoreError> {
    let Some(record) = tx.get(&document.key)? else { return Ok(()) };
    let (mut head, sealed): (ArchiveHead, _) = decode_with("an archived document", &record)?;
    if head.version != document.version {
        return Ok(());
    }
    let place = IndexedDocument { resource, shop: &document.shop, id: &document.id };
    head.index = changes.update(tx, place, head.index.as_deref(), Some(&document.postings))?;
    tx.put(document.key.clone(), encode_with("an archived document", &head, &sealed)?);
    Ok(())
}
