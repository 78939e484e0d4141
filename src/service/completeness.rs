//! Completeness: compares listed documents with the sink, and repairs what is missing.
//!
//! Used by the HTTP API and `waybill verify`. Sync continues meanwhile, so one comparison may miss a document that is
//! moving between two places: a gap is what two consecutive comparisons both miss. After each full walk except the
//! first, resources are repaired automatically, for example after a restore of the database from a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Service, ServiceError};
use crate::catalog::Definition;
use crate::domain::clock::Millis;
use crate::domain::completeness::GAPS_MAX;
use crate::domain::{
    Completeness, Gap, GapReason, ListParams, LossStage, Mode, Shop, ShopState, SinkLoss, StoredVersion, StreamId,
    Trigger,
};
use crate::sink::mysql::Range;
use crate::sink::{Sink, SinkError};
use crate::store::{LedgerState, Listed, Store, StoreError, UnderWay, blocking};

/// Ids compared per batch.
const COMPARED_AT_ONCE: usize = 1_000;
/// Interval of checking for finished full walks.
const CHECK_PAUSE: Duration = Duration::from_secs(5);
/// The interval after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(60);
/// Interval of comparing the shop records in MySQL.
const MIRROR_PAUSE: Duration = Duration::from_secs(20);

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
    gaps: BTreeMap<Gap, ListParams>,
    /// There are more gaps than are named.
    truncated: bool,
}

/// What a repair did.
#[derive(Default)]
pub(super) struct Repaired {
    /// Sent to the sink again.
    resent: u64,
    /// Queued to be re-read.
    queued: u64,
    /// There are more gaps.
    truncated: bool,
    /// Some document cannot be re-read.
    is_hopeless: bool,
}

impl Repaired {
    /// Documents that were sent to the sink again, or will be re-read.
    pub(super) fn count(&self) -> u64 {
        self.resent + self.queued
    }
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
            found.push(self.compare_twice(&shop, definition).await?.counts);
        }
        Ok(Some(found))
    }

    /// Repairs a shop on request: queues what is missing in the sink to be sent again or re-read; returns how many
    /// documents. None: no such shop.
    ///
    /// # Errors
    /// As [`Service::completeness`].
    pub async fn repair(&self, shop_id: &str) -> Result<Option<u64>, ServiceError> {
        let Some(shop) = self.store.shop(shop_id)? else { return Ok(None) };
        let _one = self.completeness_lock.lock().await;
        let mut queued = 0;
        for definition in self.definitions_of(&shop) {
            let repaired = self.repair_resource(&shop, definition, true).await?;
            self.follow_repair(&shop, definition, &repaired).await?;
            queued += repaired.count();
        }
        // What was missing for good may be back.
        self.check_sink_soon();
        Ok(Some(queued))
    }

    /// Repairs a resource. `asks_again`: re-reads even documents that the API did not know when it was last asked.
    pub(super) async fn repair_resource(
        &self,
        shop: &Shop,
        definition: &Definition,
        asks_again: bool,
    ) -> Result<Repaired, CompareError> {
        let (mut all, mut rewritten) = (Repaired::default(), BTreeSet::new());
        // A comparison names a bounded number of gaps; repaired ones are not in the next.
        loop {
            let some = self.repair_once(shop, definition, &mut rewritten, asks_again).await?;
            all.resent += some.resent;
            all.queued += some.queued;
            all.is_hopeless |= some.is_hopeless;
            if !some.truncated || some.count() == 0 {
                break;
            }
        }
        if definition.detail.is_none() && all.queued > 0 {
            self.engine.walk(shop, Some(&definition.name), Mode::Full, Trigger::Schedule).await?;
        }
        Ok(all)
    }

    /// Has it checked, once the repair is over, whether something is still missing.
    async fn follow_repair(
        &self,
        shop: &Shop,
        definition: &Definition,
        repaired: &Repaired,
    ) -> Result<(), CompareError> {
        let known = self.store.sink_loss(&shop.id, &definition.name)?;
        if repaired.count() > 0 || (repaired.is_hopeless && known.is_none()) {
            let loss = known.unwrap_or_else(|| SinkLoss::suspected(self.store.clock().now()));
            let loss = SinkLoss { stage: LossStage::Repairing, ..loss };
            self.store.save_sink_loss(&shop.id, &definition.name, Some(loss)).await?;
        }
        Ok(())
    }

    /// Repairs what one comparison names. Rewrites the child rows of a document at most once (`rewritten`): a trigger
    /// in the database may change them each time.
    async fn repair_once(
        &self,
        shop: &Shop,
        definition: &Definition,
        rewritten: &mut BTreeSet<String>,
        asks_again: bool,
    ) -> Result<Repaired, CompareError> {
        // Most shops have no gaps, and finding what is in progress reads the jobs and the outbox of all shops.
        if self.compare_with(shop, definition, &UnderWay::default()).await?.gaps.is_empty() {
            return Ok(Repaired::default());
        }
        let Comparison { gaps, truncated, .. } = self.compare_twice(shop, definition).await?;
        let (torn, gaps): (Vec<_>, Vec<_>) =
            gaps.into_iter().partition(|(gap, _)| gap.reason == GapReason::ChildrenInSink);
        let torn: Vec<String> =
            torn.into_iter().map(|(gap, _)| gap.id).filter(|id| rewritten.insert(id.clone())).collect();
        let restored = self.sink.rewrite_children(&definition.name, &shop.id, &torn).await?;
        let (stale_listing, missing): (Vec<_>, Vec<_>) =
            gaps.into_iter().partition(|(gap, _)| gap.reason == GapReason::ListingInSink);
        let named = |gaps: Vec<(Gap, ListParams)>| gaps.into_iter().map(|(gap, of)| (gap.id, of)).collect::<Vec<_>>();
        let resent = self.store.resend_listing(&shop.id, &definition.name, named(stale_listing)).await?;
        let is_hopeless = |(gap, _): &(Gap, ListParams)| gap.reason == GapReason::Unrecoverable;
        let (hopeless, mut missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_hopeless);
        let is_any_hopeless = !hopeless.is_empty();
        if asks_again && definition.detail.is_some() {
            missing.extend(hopeless);
        }
        let count = missing.len() as u64;
        let queued = match &definition.detail {
            Some(_) => {
                self.store.reread_documents(&shop.id, &definition.name, named(missing)).await?;
                count
            }
            // The next full walk takes the rows as changed.
            None => self.store.reread_rows(&shop.id, &definition.name, named(missing)).await?,
        };
        Ok(Repaired { resent: resent + restored, queued, truncated, is_hopeless: is_any_hopeless })
    }

    /// Repairs resources after full walks, until the process ends.
    pub(crate) async fn repair_after_walks(self, stop: CancellationToken) {
        let mut mirror_due = Instant::now();
        while !stop.is_cancelled() {
            let mut pause = CHECK_PAUSE;
            // Subscribed first: a walk may end during the check or the pause.
            let progress = self.store.signals().progress.notified();
            let repaired = match self.repair_walked().await {
                Ok(true) if Instant::now() >= mirror_due => {
                    mirror_due = Instant::now() + MIRROR_PAUSE;
                    self.repair_mirror().await
                }
                checked => checked.map(drop),
            };
            if let Err(error) = repaired {
                tracing::warn!(%error, "failed to check the completeness of shops; trying again");
                pause = FAILED_PAUSE;
            }
            let due = async {
                tokio::time::sleep(pause).await;
                progress.await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = due => {}
            }
        }
    }

    /// Repairs resources with a new full walk; returns whether there was one.
    async fn repair_walked(&self) -> Result<bool, CompareError> {
        let mut checked = false;
        for shop in self.store.shops()?.into_iter().filter(|shop| shop.state == ShopState::Active) {
            for definition in self.definitions_of(&shop) {
                let streams: Vec<StreamId> = definition.streams(&shop.id).collect();
                let Some(walked) = full_walk_at(&self.store, &streams)? else { continue };
                let known = self.store.repaired_at(&shop.id, &definition.name)?;
                // Compared for equality, since the clock may have been set back.
                if known == Some(walked) {
                    continue;
                }
                // The documents of the first walk are still being written.
                if known.is_some() {
                    let _one = self.completeness_lock.lock().await;
                    let repaired = self.repair_resource(&shop, definition, false).await?;
                    self.follow_repair(&shop, definition, &repaired).await?;
                    self.check_sink_soon();
                    report_repaired(&shop, definition, repaired.count());
                }
                self.store.store_repaired_at(&shop.id, &definition.name, walked).await?;
                checked = true;
            }
        }
        Ok(checked)
    }

    /// Re-sends shop records that MySQL lost, for example after a restore from a backup.
    pub(super) async fn repair_mirror(&self) -> Result<(), CompareError> {
        let Sink::Mysql(mysql) = &self.sink else { return Ok(()) };
        let resent = self.store.repair_mirror(mysql.mirrored_shops().await?).await?;
        if resent > 0 {
            tracing::warn!(
                shops = resent,
                "MySQL lost shop records, as after a restore from a backup; sending them again"
            );
        }
        Ok(())
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
    async fn compare_with(
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
        let rejected = self.store.rejected(&streams)?;
        found.counts.listed += rejected;
        found.counts.parked += rejected;
        let mut after = String::new();
        loop {
            let (store, streams, from) = (self.store.clone(), streams.clone(), after.clone());
            let listed = blocking(move || store.listed(&streams, &from, COMPARED_AT_ONCE)).await?;
            let last = (listed.len() == COMPARED_AT_ONCE).then(|| listed.last().map(|one| one.id.clone())).flatten();
            let held = self.held(&definition.name, &shop.id, &after, last.as_deref()).await?;
            let range = Range { shop: &shop.id, after: &after, last: last.as_deref() };
            let torn = self.sink.wrong_children(&definition.name, range).await?;
            found.add(listed, (held, torn), under_way, definition.detail.is_some());
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

/// Counts and logs what a repair without request sends again or re-reads, if that is anything.
pub(super) fn report_repaired(shop: &Shop, definition: &Definition, documents: u64) {
    if documents == 0 {
        return;
    }
    metrics::counter!("waybill_gaps_total").increment(documents);
    tracing::warn!(
        shop.id = %shop.id,
        resource = definition.name,
        documents,
        "documents were missing in the sink; sending or fetching them again"
    );
}

impl Comparison {
    /// Adds a batch. The pair: the documents in the sink, and those of them with wrong child rows.
    fn add(
        &mut self,
        listed: Vec<Listed>,
        (mut held, torn): (BTreeMap<String, StoredVersion>, BTreeSet<String>),
        under_way: &UnderWay,
        has_detail: bool,
    ) {
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
fn full_walk_at(store: &Store, streams: &[StreamId]) -> Result<Option<Millis>, StoreError> {
    let walks = streams.iter().map(|stream| Ok(store.checkpoint(stream)?.full_walk_at));
    // `min`: None is less than any time.
    Ok(walks.collect::<Result<Vec<_>, StoreError>>()?.into_iter().min().flatten())
}
