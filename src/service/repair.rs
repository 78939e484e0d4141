//! Repair: sends again or re-reads what the sink lacks, as a comparison (`completeness`) names it.
//!
//! On request by the HTTP API and `waybill verify --mend`; without one after each full walk except the first, and when
//! the sink lost documents (`sink_check`), for example after a restore of the database from a backup.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::completeness::{CompareError, Comparison, full_walk_at};
use super::{Service, ServiceError};
use crate::catalog::Definition;
use crate::domain::{Gap, GapReason, ListParams, LossStage, Mode, Shop, ShopState, SinkLoss, StreamId, Trigger};
use crate::sink::Sink;
use crate::store::UnderWay;

/// Interval of checking for finished full walks.
const CHECK_PAUSE: Duration = Duration::from_secs(5);
/// The interval after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(60);
/// The same until MySQL has answered for the first time.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(20);
/// Interval of comparing the shop records in MySQL.
const MIRROR_PAUSE: Duration = Duration::from_secs(20);

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
    /// Repairs a shop on request: queues what is missing in the sink to be sent again or re-read; returns how many
    /// documents. None: no such shop.
    ///
    /// # Errors
    /// As [`Service::completeness`].
    pub async fn repair(&self, shop_id: &str) -> Result<Option<u64>, ServiceError> {
        let Some(shop) = self.store.shop(shop_id)? else { return Ok(None) };
        // A new database has no tables to compare with before that.
        self.sink_looked_at().await;
        let _one = self.completeness_lock.lock().await;
        let mut queued = 0;
        for definition in self.definitions_of(&shop) {
            let repaired = self.repair_resource(&shop, definition, true).await?;
            self.follow_repair(&shop, definition, &repaired).await?;
            queued += repaired.count();
        }
        // What was missing for good may be back, and the health says that it is missing until that is looked at.
        self.expect_sink_check();
        Ok(Some(queued))
    }

    /// Accepts the loss of all documents of a shop that the sink lacks and that cannot be read again; returns their number.
    /// They count as lost from then on, and no longer as missing. None: no such shop.
    ///
    /// # Errors
    /// As [`Service::completeness`].
    pub async fn accept_missing(&self, shop_id: &str) -> Result<Option<u64>, ServiceError> {
        let Some(shop) = self.store.shop(shop_id)? else { return Ok(None) };
        let _one = self.completeness_lock.lock().await;
        let mut all = 0;
        for definition in self.definitions_of(&shop) {
            all += self.accept_missing_of(&shop, definition).await?;
        }
        Ok(Some(all))
    }

    async fn accept_missing_of(&self, shop: &Shop, definition: &Definition) -> Result<u64, CompareError> {
        let mut accepted = 0;
        // A comparison names a bounded number of gaps; accepted ones are not in the next.
        let counts = loop {
            let Comparison { gaps, counts, .. } = self.compare_twice(shop, definition).await?;
            let hopeless = gaps.into_iter().filter(is_hopeless).collect();
            let some = self.store.accept_lost(&shop.id, &definition.name, ids_of(hopeless)).await?;
            accepted += some;
            if some == 0 {
                break counts;
            }
        };
        if accepted > 0 {
            tracing::warn!(
                shop.id = %shop.id,
                resource = definition.name,
                documents = accepted,
                "accepted that documents are lost: the sink lacks them, and the API no longer has them"
            );
        }
        if let Some(loss) = self.store.sink_loss(&shop.id, &definition.name)?
            && loss.stage == LossStage::Lasting
        {
            let left = (counts.missing > 0).then_some(SinkLoss { missing: counts.missing, ..loss });
            self.store.save_sink_loss(&shop.id, &definition.name, left).await?;
        }
        Ok(accepted)
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
        let resent = self.store.resend_listing(&shop.id, &definition.name, ids_of(stale_listing)).await?;
        let (hopeless, mut missing): (Vec<_>, Vec<_>) = missing.into_iter().partition(is_hopeless);
        let is_any_hopeless = !hopeless.is_empty();
        if asks_again && definition.detail.is_some() {
            missing.extend(hopeless);
        }
        let count = missing.len() as u64;
        let queued = match &definition.detail {
            Some(_) => {
                self.store.reread_documents(&shop.id, &definition.name, ids_of(missing)).await?;
                count
            }
            // The next full walk takes the rows as changed.
            None => self.store.reread_rows(&shop.id, &definition.name, ids_of(missing)).await?,
        };
        Ok(Repaired { resent: resent + restored, queued, truncated, is_hopeless: is_any_hopeless })
    }

    /// Repairs resources after full walks, until the process ends.
    pub(crate) async fn repair_after_walks(self, stop: CancellationToken) {
        let mut mirror_due = Instant::now();
        while !stop.is_cancelled() {
            // Its tables may not be there yet; and an outage has a reason of its own.
            if self.is_sink_away() {
                let is_unknown = self.sink_health.error().is_none();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(if is_unknown { UNKNOWN_PAUSE } else { CHECK_PAUSE }) => {}
                }
                continue;
            }
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
        if resent > 0 && self.sink_check.is_new.load(Ordering::Relaxed) {
            tracing::info!(shops = resent, "sending the records of shops to MySQL, which is new");
        } else if resent > 0 {
            tracing::warn!(
                shops = resent,
                "MySQL lost shop records, as after a restore from a backup; sending them again"
            );
        }
        Ok(())
    }
}

fn is_hopeless(of_stream: &(Gap, ListParams)) -> bool {
    of_stream.0.reason == GapReason::Unrecoverable
}

fn ids_of(gaps: Vec<(Gap, ListParams)>) -> Vec<(String, ListParams)> {
    gaps.into_iter().map(|(gap, of)| (gap.id, of)).collect()
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
