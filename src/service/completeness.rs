//! Completeness: compares listed documents with the sink. What is missing is repaired by `repair`.
//!
//! Used by the HTTP API and `waybill verify`. Sync continues meanwhile, so one comparison may miss a document that is
//! moving between two places: a gap is what two consecutive comparisons both miss.

use std::collections::{BTreeMap, BTreeSet};

use super::error::RETRY_AFTER;
use super::{Service, ServiceError};
use crate::catalog::Definition;
use crate::domain::completeness::GAPS_MAX;
use crate::domain::{Completeness, Gap, GapReason, ListParams, LostDocument, Shop, StoredVersion, StreamId, Timestamp};
use crate::sink::mysql::Range;
use crate::sink::{SinkError, SinkErrorClass};
use crate::store::{LedgerState, Listed, Store, StoreError, UnderWay, blocking};

/// Ids compared per batch.
const COMPARED_AT_ONCE: usize = 1_000;
/// Error of a comparison.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompareError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl From<CompareError> for ServiceError {
    fn from(error: CompareError) -> ServiceError {
        match error {
            CompareError::Store(error) => error.into(),
            CompareError::Sink(error) => error.into(),
        }
    }
}

/// Result of a comparison; each gap with the list parameters of a stream that lists it.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) counts: Completeness,
    pub(super) gaps: BTreeMap<Gap, ListParams>,
    /// There are more gaps than are named.
    pub(super) truncated: bool,
    /// How many of what is missing cannot be read again.
    pub(super) hopeless: u64,
}

impl Service {
    /// The completeness of each resource of a shop. None: no such shop.
    ///
    /// # Errors
    /// `Unavailable` when the sink cannot be read.
    pub async fn completeness(&self, shop_id: &str) -> Result<Option<Vec<Completeness>>, ServiceError> {
        let Some(shop) = self.store.shop(shop_id)? else { return Ok(None) };
        let _one = self.completeness_lock.lock().await;
        let mut found = Vec::new();
        for definition in self.definitions_of(&shop) {
            match self.compare_twice(&shop, definition).await {
                Ok(compared) => found.push(compared.counts),
                // Its tables are made by the service that moves them.
                Err(CompareError::Sink(error))
                    if self.is_moving_archive() && error.class == SinkErrorClass::Operator =>
                {
                    let detail = "the documents are in the embedded archive, and MySQL cannot be read yet: they move to it \
                                  while `waybill serve` or `waybill sync` runs; `waybill check` names what MySQL lacks";
                    return Err(ServiceError::Unavailable { detail: detail.into(), retry_after: RETRY_AFTER });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(found))
    }

    pub(super) async fn compare_twice(&self, shop: &Shop, definition: &Definition) -> Result<Comparison, CompareError> {
        let first = self.compare_once(shop, definition).await?;
        if first.gaps.is_empty() {
            return Ok(first);
        }
        let mut second = self.compare_once(shop, definition).await?;
        let before: BTreeSet<&str> = first.gaps.keys().map(|gap| gap.id.as_str()).collect();
        let named = second.gaps.len() as u64;
        second.truncated |= first.truncated;
        second.gaps.retain(|gap, _| before.contains(gap.id.as_str()));
        // Gaps of the second comparison only are documents in progress.
        let passing = named - second.gaps.len() as u64;
        second.counts.missing -= passing;
        second.counts.pending += passing;
        second.counts.gaps = second.gaps.keys().cloned().collect();
        Ok(second)
    }

    async fn compare_once(&self, shop: &Shop, definition: &Definition) -> Result<Comparison, CompareError> {
        // Reads what is in progress first: what reaches the sink meanwhile is then counted there.
        let (store, shop_id, resource) = (self.store.clone(), shop.id.clone(), definition.name.clone());
        // Documents that still move from the archive to MySQL are on their way too.
        let is_moving = self.is_moving_archive();
        let under_way = blocking(move || {
            let mut under_way = store.under_way(&shop_id, &resource)?;
            if is_moving {
                under_way.pending.extend(store.archived_ids(&shop_id, &resource)?);
            }
            Ok::<_, StoreError>(under_way)
        })
        .await?;
        self.compare_with(shop, definition, &under_way).await
    }

    /// Compares the listed documents with the sink, given what is in progress.
    pub(super) async fn compare_with(
        &self,
        shop: &Shop,
        definition: &Definition,
        under_way: &UnderWay,
    ) -> Result<Comparison, CompareError> {
        let streams: Vec<StreamId> = definition.streams(&shop.id).collect();
        let mut found = Comparison::default();
        found.counts.resource.clone_from(&definition.name);
        found.counts.full_walk_at = full_walk_at(&self.store, &streams)?;
        found.counts.unproved = unproved(&self.store, &streams)?;
        let unusable = self.store.unusable_rows(&streams)?;
        found.counts.listed += unusable.parked + unusable.to_read;
        found.counts.parked += unusable.parked;
        found.counts.pending += unusable.to_read;
        let mut after = String::new();
        loop {
            let (store, streams, from) = (self.store.clone(), streams.clone(), after.clone());
            let listed = blocking(move || store.listed(&streams, &from, COMPARED_AT_ONCE)).await?;
            let last = (listed.len() == COMPARED_AT_ONCE).then(|| listed.last().map(|one| one.id.clone())).flatten();
            let held = self.held(&definition.name, &shop.id, &after, last.as_deref()).await?;
            let range = Range { shop: &shop.id, after: &after, last: last.as_deref() };
            let torn = self.sink.wrong_children(&definition.name, range).await?;
            found.add(listed, InSink { held, torn }, under_way, definition.detail.is_some());
            let Some(last) = last else { break };
            after = last;
        }
        found.counts.gaps = found.gaps.keys().cloned().collect();
        Ok(found)
    }

    /// The documents in the sink with ids above `after` and up to `last`; without `last`, to the end.
    async fn held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        last: Option<&str>,
    ) -> Result<BTreeMap<String, StoredVersion>, SinkError> {
        let mut held = BTreeMap::new();
        let mut from = after.to_owned();
        loop {
            let page = self.sink.held(resource, shop, &from, COMPARED_AT_ONCE).await?;
            let is_last = page.len() < COMPARED_AT_ONCE;
            let end = page.last().map(|(id, _)| id.clone());
            held.extend(page.into_iter().filter(|(id, _)| last.is_none_or(|last| id.as_str() <= last)));
            match end {
                Some(end) if !is_last && last.is_none_or(|last| end.as_str() < last) => from = end,
                _ => return Ok(held),
            }
        }
    }
}

/// A batch of documents as the sink holds it.
struct InSink {
    held: BTreeMap<String, StoredVersion>,
    /// Those with wrong child rows.
    torn: BTreeSet<String>,
}

impl Comparison {
    /// Adds a batch.
    fn add(&mut self, listed: Vec<Listed>, InSink { mut held, torn }: InSink, under_way: &UnderWay, has_detail: bool) {
        let counts = &mut self.counts;
        for Listed { id, combination, is_listed, known } in listed {
            counts.listed += 1;
            counts.stored += u64::from(matches!(known, LedgerState::Read { .. }));
            let reason = match (known, held.remove(&id)) {
                (LedgerState::Read { version, .. }, Some(held)) if held.version < version => GapReason::OlderInSink,
                (LedgerState::Read { .. }, Some(held)) if held.is_listed != is_listed => GapReason::ListingInSink,
                (LedgerState::Read { .. }, Some(_)) if torn.contains(&id) => GapReason::ChildrenInSink,
                (LedgerState::Read { .. }, Some(_)) => {
                    counts.in_sink += 1;
                    continue;
                }
                (LedgerState::Gone, Some(held)) if held.is_listed && !is_listed => GapReason::ListingInSink,
                (LedgerState::Gone, None) if under_way.pending.contains(&id) => GapReason::NeverRead,
                (LedgerState::Gone, _) => {
                    counts.gone += 1;
                    counts.gone_but_listed += u64::from(is_listed);
                    continue;
                }
                // The next full walk re-reads its row.
                (LedgerState::Read { is_lost: true, .. }, None) if !has_detail && is_listed => {
                    counts.pending += 1;
                    continue;
                }
                (LedgerState::Read { accepted_at: Some(accepted_at), .. }, None)
                    if !under_way.pending.contains(&id) =>
                {
                    counts.gone += 1;
                    counts.lost += 1;
                    if counts.lost_documents.len() < GAPS_MAX {
                        counts.lost_documents.push(LostDocument { id, accepted_at });
                    }
                    continue;
                }
                (LedgerState::Read { is_unknown: true, .. }, None) => GapReason::Unrecoverable,
                (LedgerState::Read { .. }, None) if !has_detail && !is_listed => GapReason::Unrecoverable,
                (LedgerState::Read { .. }, None) => GapReason::NotInSink,
                (LedgerState::Unread, _) => GapReason::NeverRead,
            };
            if under_way.pending.contains(&id) {
                counts.pending += 1;
            } else if under_way.parked.contains(&id) {
                counts.parked += 1;
            } else {
                counts.missing += 1;
                self.hopeless += u64::from(reason == GapReason::Unrecoverable);
                if self.gaps.len() < GAPS_MAX {
                    self.gaps.insert(Gap { id, reason }, combination);
                } else {
                    self.truncated = true;
                }
            }
        }
        counts.only_in_sink += held.len() as u64;
    }
}

/// Why the last walk of a stream could not prove that it read the whole list; none: each could, or there was none.
fn unproved(store: &Store, streams: &[StreamId]) -> Result<Option<String>, StoreError> {
    for stream in streams {
        if let Some(doubt) = store.unproved(stream)? {
            return Ok(Some(doubt.reason));
        }
    }
    Ok(None)
}

/// The oldest among the last full walks of the streams; none: some stream had no full walk.
pub(super) fn full_walk_at(store: &Store, streams: &[StreamId]) -> Result<Option<Timestamp>, StoreError> {
    let walks = streams.iter().map(|stream| Ok(store.checkpoint(stream)?.full_walk_at));
    // `min`: None is less than any time.
    Ok(walks.collect::<Result<Vec<_>, StoreError>>()?.into_iter().min().flatten())
}
