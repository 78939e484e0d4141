//! The completeness ledger: what was listed against what the sink holds, and the closing of gaps.
//!
//! Asked for by the HTTP API and by `waybill verify`. The work goes on meanwhile, so one look may meet a
//! document between two places: a gap is what two looks, one after the other, both miss. After each full walk but
//! the first, gaps are closed without being asked: a database that was set back heals by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Inner;
use crate::catalog::Definition;
use crate::domain::clock::Millis;
use crate::domain::completeness::GAPS_MAX;
use crate::domain::{Combination, Completeness, Gap, GapReason, Held, Mode, Shop, ShopState, StreamId, Trigger};
use crate::http::backend::ApiError;
use crate::sink::mysql::Range;
use crate::sink::{Sink, SinkError};
use crate::store::{Known, Listed, Store, StoreError, UnderWay, blocking};

/// Ids compared at once.
const COMPARED_AT_ONCE: usize = 1_000;
/// Between two looks at whether a full walk ended.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// The same when the sink could not be read, which others tell too.
const FAILED_PAUSE: Duration = Duration::from_secs(60);
/// Between two looks at what MySQL has of the shops themselves.
const MIRROR_PAUSE: Duration = Duration::from_secs(20);

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl From<LookError> for ApiError {
    fn from(error: LookError) -> ApiError {
        match error {
            LookError::Store(error) => super::backend::store_error(error),
            LookError::Sink(error) => super::backend::sink_error(error),
        }
    }
}

/// What one look found; the gaps with a stream that lists them.
#[derive(Default)]
struct Look {
    counts: Completeness,
    gaps: BTreeMap<Gap, Combination>,
    /// There are more than are named.
    was_cut: bool,
}

/// What was done about gaps.
#[derive(Default)]
struct Closed {
    /// Told to the sink again.
    told: u64,
    /// To be read again.
    asked: u64,
    /// There are more.
    was_cut: bool,
}

impl Inner {
    /// How complete each resource of a shop is.
    pub(super) async fn look_at_shop(&self, shop: &Shop) -> Result<Vec<Completeness>, LookError> {
        let mut found = Vec::new();
        for definition in self.definitions_of(shop) {
            found.push(self.look_twice(shop, definition).await?.counts);
        }
        Ok(found)
    }

    /// Asks for everything that is missing; how much that is.
    pub(super) async fn close_gaps(&self, shop: &Shop) -> Result<u64, LookError> {
        let mut asked = 0;
        for definition in self.definitions_of(shop) {
            asked += self.close_gaps_of(shop, definition).await?;
        }
        Ok(asked)
    }

    async fn close_gaps_of(&self, shop: &Shop, definition: &Definition) -> Result<u64, LookError> {
        let (mut told, mut asked, mut rewritten) = (0, 0, BTreeSet::new());
        // One look names a bounded number; those that are asked for are not missing in the next.
        loop {
            let some = self.close_some_gaps(shop, definition, &mut rewritten).await?;
            told += some.told;
            asked += some.asked;
            if !some.was_cut || some.told + some.asked == 0 {
                break;
            }
        }
        if definition.detail.is_none() && asked > 0 {
            self.engine.walk(shop, Some(&definition.name), Mode::Full, Trigger::Schedule).await?;
        }
        Ok(told + asked)
    }

    /// Child rows are written once: a trigger of the table may change them each time.
    async fn close_some_gaps(
        &self,
        shop: &Shop,
        definition: &Definition,
        rewritten: &mut BTreeSet<String>,
    ) -> Result<Closed, LookError> {
        // Most shops lack nothing, and to tell what is on its way means to look at all that waits, of all shops.
        if self.compare(shop, definition, &UnderWay::default()).await?.gaps.is_empty() {
            return Ok(Closed::default());
        }
        let Look { gaps, was_cut, .. } = self.look_twice(shop, definition).await?;
        let (torn, gaps): (Vec<_>, Vec<_>) =
            gaps.into_iter().partition(|(gap, _)| gap.reason == GapReason::ChildrenInSink);
        let torn: Vec<String> =
            torn.into_iter().map(|(gap, _)| gap.id).filter(|id| rewritten.insert(id.clone())).collect();
        let restored = self.sink.rewrite_children(&definition.name, &shop.id, &torn).await?;
        let (untold, unheld): (Vec<_>, Vec<_>) =
            gaps.into_iter().partition(|(gap, _)| gap.reason == GapReason::ListingInSink);
        let named = |gaps: Vec<(Gap, Combination)>| gaps.into_iter().map(|(gap, of)| (gap.id, of)).collect::<Vec<_>>();
        let told = self.store.tell_listing(&shop.id, &definition.name, named(untold)).await?;
        let count = unheld.len() as u64;
        let asked = match &definition.detail {
            Some(_) => {
                self.store.read_again(&shop.id, &definition.name, named(unheld)).await?;
                count
            }
            // A whole walk brings what it takes as new.
            None => self.store.forget_rows(&shop.id, &definition.name, named(unheld)).await?,
        };
        Ok(Closed { told: told + restored, asked, was_cut })
    }

    /// Closes gaps after full walks, until the process ends.
    pub(super) async fn mend_after_walks(self: Arc<Inner>) {
        let mut mirror_due = Instant::now();
        while !self.stop.is_cancelled() {
            let mut pause = LOOK_PAUSE;
            // Listened for from before the look: a walk may end while it looks or pauses.
            let progress = self.store.signals().progress.notified();
            let mended = match self.mend_walked().await {
                Ok(true) if Instant::now() >= mirror_due => {
                    mirror_due = Instant::now() + MIRROR_PAUSE;
                    self.mend_mirror().await
                }
                looked => looked.map(drop),
            };
            if let Err(error) = mended {
                tracing::warn!(%error, "whether a shop is complete could not be told; trying again");
                pause = FAILED_PAUSE;
            }
            let due = async {
                tokio::time::sleep(pause).await;
                progress.await;
            };
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = due => {}
            }
        }
    }

    /// Whether there was a full walk to look behind.
    async fn mend_walked(&self) -> Result<bool, LookError> {
        let mut looked = false;
        for shop in self.store.shops()?.into_iter().filter(|shop| shop.state == ShopState::Active) {
            for definition in self.definitions_of(&shop) {
                let streams: Vec<StreamId> = definition.streams(&shop.id).collect();
                let Some(walked) = full_walk_at(&self.store, &streams)? else { continue };
                let known = self.store.mended_at(&shop.id, &definition.name)?;
                // Other, not older: a clock that was ahead may have noted it.
                if known == Some(walked) {
                    continue;
                }
                // What the first walk found is only just being written.
                if known.is_some() {
                    let _one = self.looks.lock().await;
                    let asked = self.close_gaps_of(&shop, definition).await?;
                    if asked > 0 {
                        metrics::counter!("waybill_gaps_total").increment(asked);
                        tracing::warn!(
                            shop.id = %shop.id,
                            resource = definition.name,
                            documents = asked,
                            "the sink lacked what was written; it is read or told again"
                        );
                    }
                }
                self.store.keep_mended_at(&shop.id, &definition.name, walked).await?;
                looked = true;
            }
        }
        Ok(looked)
    }

    /// Tells the mirror in MySQL again what it lacks of the shops themselves.
    async fn mend_mirror(&self) -> Result<(), LookError> {
        let Sink::Mysql(mysql) = &self.sink else { return Ok(()) };
        let told = self.store.mend_mirror(mysql.mirrored_shops().await?).await?;
        if told > 0 {
            tracing::warn!(
                shops = told,
                "MySQL lacked what it had of shops, as after a backup was put back; it is told again"
            );
        }
        Ok(())
    }

    /// The definitions of the resources that a shop takes.
    pub(super) fn definitions_of<'a>(&'a self, shop: &'a Shop) -> impl Iterator<Item = &'a Definition> {
        self.definitions.iter().map(AsRef::as_ref).filter(|definition| shop.takes(&definition.name))
    }

    async fn look_twice(&self, shop: &Shop, definition: &Definition) -> Result<Look, LookError> {
        let first = self.look(shop, definition).await?;
        if first.gaps.is_empty() {
            return Ok(first);
        }
        let mut second = self.look(shop, definition).await?;
        let before: BTreeSet<&str> = first.gaps.keys().map(|gap| gap.id.as_str()).collect();
        let named = second.gaps.len() as u64;
        second.was_cut |= first.was_cut;
        second.gaps.retain(|gap, _| before.contains(gap.id.as_str()));
        // What only the second look missed is on its way between two places.
        let passing = named - second.gaps.len() as u64;
        second.counts.missing -= passing;
        second.counts.pending += passing;
        second.counts.gaps = second.gaps.keys().cloned().collect();
        Ok(second)
    }

    async fn look(&self, shop: &Shop, definition: &Definition) -> Result<Look, LookError> {
        // First what is on its way: what has arrived by the time that the sink is read was here before.
        let (store, shop_id, resource) = (self.store.clone(), shop.id.clone(), definition.name.clone());
        let under_way = blocking(move || store.under_way(&shop_id, &resource)).await?;
        self.compare(shop, definition, &under_way).await
    }

    /// What was listed against what the sink holds.
    async fn compare(&self, shop: &Shop, definition: &Definition, under_way: &UnderWay) -> Result<Look, LookError> {
        let streams: Vec<StreamId> = definition.streams(&shop.id).collect();
        let mut look = Look::default();
        look.counts.resource.clone_from(&definition.name);
        look.counts.full_walk_at = full_walk_at(&self.store, &streams)?;
        look.counts.unproved = unproved(&self.store, &streams)?;
        let rejected = self.store.rejected(&streams)?;
        look.counts.listed += rejected;
        look.counts.parked += rejected;
        let mut after = String::new();
        loop {
            let (store, streams, from) = (self.store.clone(), streams.clone(), after.clone());
            let listed = blocking(move || store.listed(&streams, &from, COMPARED_AT_ONCE)).await?;
            let last = (listed.len() == COMPARED_AT_ONCE).then(|| listed.last().map(|one| one.id.clone())).flatten();
            let held = self.held(&definition.name, &shop.id, &after, last.as_deref()).await?;
            let range = Range { shop: &shop.id, after: &after, last: last.as_deref() };
            let torn = self.sink.wrong_children(&definition.name, range).await?;
            look.compare(listed, (held, torn), under_way);
            let Some(last) = last else { break };
            after = last;
        }
        look.counts.gaps = look.gaps.keys().cloned().collect();
        Ok(look)
    }

    /// What the sink holds above `after` and up to `last`; without a last one to the end.
    async fn held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        last: Option<&str>,
    ) -> Result<BTreeMap<String, Held>, SinkError> {
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

impl Look {
    /// `held`: what the sink has, and of that the documents whose child rows are wrong.
    fn compare(
        &mut self,
        listed: Vec<Listed>,
        (mut held, torn): (BTreeMap<String, Held>, BTreeSet<String>),
        under_way: &UnderWay,
    ) {
        let counts = &mut self.counts;
        for Listed { id, combination, is_listed, known } in listed {
            counts.listed += 1;
            counts.stored += u64::from(matches!(known, Known::Version(_)));
            let reason = match (known, held.remove(&id)) {
                (Known::Version(version), Some(held)) if held.version < version => GapReason::OlderInSink,
                (Known::Version(_), Some(held)) if held.is_listed != is_listed => GapReason::ListingInSink,
                (Known::Version(_), Some(_)) if torn.contains(&id) => GapReason::ChildrenInSink,
                (Known::Version(_), Some(_)) => {
                    counts.in_sink += 1;
                    continue;
                }
                (Known::Gone, Some(held)) if held.is_listed && !is_listed => GapReason::ListingInSink,
                (Known::Gone, _) => {
                    counts.gone += 1;
                    continue;
                }
                (Known::Version(_), None) => GapReason::NotInSink,
                (Known::Unread, _) => GapReason::NeverRead,
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
                    self.was_cut = true;
                }
            }
        }
        counts.only_in_sink += held.len() as u64;
    }
}

/// Why it is not known whether all lists were read whole; None: all were, or never yet.
fn unproved(store: &Store, streams: &[StreamId]) -> Result<Option<String>, StoreError> {
    for stream in streams {
        if let Some(doubt) = store.unproved(stream)? {
            return Ok(Some(doubt.reason));
        }
    }
    Ok(None)
}

/// When the last whole walk was, of the stream for which that is longest ago; None: of one there was none.
fn full_walk_at(store: &Store, streams: &[StreamId]) -> Result<Option<Millis>, StoreError> {
    let walks = streams.iter().map(|stream| Ok(store.checkpoint(stream)?.full_walk_at));
    // None is less than any time.
    Ok(walks.collect::<Result<Vec<_>, StoreError>>()?.into_iter().min().flatten())
}
