//! Checks that the sink is the one that was written to and still holds it, and repairs what it lost.
//!
//! Checked at the start, when MySQL is back after an outage, and after full walks, by a few cheap queries: whether the
//! kind of sink changed; whether MySQL lacks the last checkpoint of a stream (another or an empty database, an older
//! backup); whether it has no row of a shop whose documents were read (a table that was dropped, emptied or renamed).
//! Single rows that were deleted by hand are found by the comparison after the next full walk.
//!
//! A suspected loss is recorded before anything else happens, so a crash only repeats the comparison.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Service;
use super::completeness::{CompareError, Comparison};
use super::repair::report_repaired;
use crate::catalog::Definition;
use crate::domain::{LossStage, Shop, ShopId, ShopState, SinkLoss, StreamId, Timestamp};
use crate::sink::{Mysql, Sink, SinkErrorClass};
use crate::store::{LossOf, Queue, Store, StoreError, blocking};

/// Interval of looking whether MySQL has answered, until it does for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Interval of looking whether the outbox is short enough for the check: reads a few keys.
const OUTBOX_PAUSE: Duration = Duration::from_millis(25);
/// Interval of looking for something to do, while there is.
const BUSY_PAUSE: Duration = Duration::from_millis(25);
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// The same while there is not: reads one number, and the first key of the losses.
const PAUSE: Duration = Duration::from_secs(5);
/// The check waits while the outbox has more entries.
const WAITING_MAX: u64 = 256;
/// The interval after a failure.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// Where a step of the check ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing is left to do.
    Done,
    /// Something goes on that the check waits for, or it has begun a repair.
    Busy,
    /// The outbox has too many entries: what waits cannot be judged.
    OutboxWaits,
}

/// What the ledger says that the sink holds.
#[derive(Default)]
struct Expected {
    /// Shops' resources with a document that was read.
    read: BTreeSet<(ShopId, String)>,
    /// Streams that were walked.
    walked: Vec<Walked>,
    /// Shops' resources whose documents or checkpoints are in the outbox.
    waiting: HashSet<(ShopId, String)>,
    /// Shops' resources that have lost documents for good: that may leave a table empty for ever.
    lasting: HashSet<(ShopId, String)>,
}

/// What the sink should know of a stream's walks.
struct Walked {
    stream: StreamId,
    /// The last one.
    at: Timestamp,
    /// The last one that the sink confirmed; none: an older build did not record it.
    delivered_at: Option<Timestamp>,
}

impl Walked {
    /// Whether the sink, which knows of a walk `there`, has forgotten one. `is_waiting`: the last one may be on its way.
    fn is_lost(&self, there: Option<Timestamp>, is_waiting: bool) -> bool {
        let knows = |at: Timestamp| there.is_some_and(|there| there >= at);
        self.delivered_at.is_some_and(|at| !knows(at)) || (!is_waiting && !knows(self.at))
    }
}

impl Expected {
    /// Whether a shop's resource of which the sink has nothing was lost.
    fn is_lost(&self, of: &(ShopId, String)) -> bool {
        self.read.contains(of) && !self.waiting.contains(of) && !self.lasting.contains(of)
    }
}

impl Service {
    /// Whether a check or repair of the sink goes on.
    pub(super) fn is_checking_sink(&self) -> bool {
        // An unavailable sink has its own reason, and nothing can be checked meanwhile.
        self.sink_check.is_busy.load(Ordering::Relaxed) && self.sink_health.error().is_none()
    }

    /// Cancelled once the sink was checked for the first time; the writer waits for it.
    pub(crate) fn first_sink_check(&self) -> CancellationToken {
        self.sink_check.first.clone()
    }

    /// Waits until the sink was prepared and checked for the first time, or cannot be reached; where nothing runs, nothing
    /// does that. Cancel safe.
    pub(super) async fn sink_looked_at(&self) {
        let is_expected = || self.is_checking_sink() && !self.sink_check.first.is_cancelled();
        while is_expected() {
            tokio::select! {
                () = self.sink_check.first.cancelled() => {}
                () = tokio::time::sleep(FIRST_PAUSE) => {}
            }
        }
    }

    /// Whether MySQL is not known to take writes.
    pub(super) fn is_sink_away(&self) -> bool {
        matches!(self.sink, Sink::Mysql(_)) && (!self.sink_health.is_known() || self.sink_health.error().is_some())
    }

    /// Has the sink checked soon.
    pub(super) fn check_sink_soon(&self) {
        self.sink_check.is_due.store(true, Ordering::Relaxed);
    }

    /// Has the sink checked at once; until then the service does not count as idle.
    pub(crate) fn expect_sink_check(&self) {
        self.check_sink_soon();
        self.sink_check.is_busy.store(true, Ordering::Relaxed);
        self.sink_check.wake.notify_one();
    }

    /// Checks the sink and repairs losses until the process ends.
    pub(crate) async fn watch_sink(self, stop: CancellationToken) {
        let (mut recoveries, mut pause) = (0, PAUSE);
        while !stop.is_cancelled() {
            let seen = self.sink_health.recoveries();
            if seen != recoveries {
                self.check_sink_soon();
            }
            if !self.is_sink_away() || self.sink_check.has_failed.load(Ordering::Relaxed) {
                recoveries = seen;
                let checked = self.check_and_repair().await;
                self.set_busy(matches!(checked, Ok(Step::Busy | Step::OutboxWaits)));
                pause = match checked {
                    Ok(Step::Done) => PAUSE,
                    Ok(Step::OutboxWaits) => OUTBOX_PAUSE,
                    // After a pause that was for something else it starts over.
                    Ok(Step::Busy) if !(BUSY_PAUSE..=BUSY_PAUSE_MAX).contains(&pause) => BUSY_PAUSE,
                    Ok(Step::Busy) => (pause * 2).min(BUSY_PAUSE_MAX),
                    Err(error) => self.after_failed_check(&error),
                };
            }
            // The first answer of MySQL: before a run writes a checkpoint over an older one.
            let is_unknown = matches!(self.sink, Sink::Mysql(_)) && !self.sink_health.is_known();
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.sink_check.wake.notified() => {}
                () = tokio::time::sleep(if is_unknown { FIRST_PAUSE } else { pause }) => {}
            }
        }
    }

    /// The pause after a failed check. The writer goes on waiting for the first one only if the sink was away, since that
    /// ends by itself.
    fn after_failed_check(&self, error: &CompareError) -> Duration {
        let first = &self.sink_check.first;
        if !self.sink_check.has_failed.load(Ordering::Relaxed) {
            tracing::warn!(%error, "failed to check that the sink holds what was written to it; trying again");
        }
        if let CompareError::Sink(away) = error
            && matches!(
                away.class,
                SinkErrorClass::Disconnected | SinkErrorClass::Unavailable | SinkErrorClass::Unconfirmed
            )
            && !first.is_cancelled()
        {
            // The writer waits, so nothing else says that the sink cannot be used.
            self.sink_check.has_failed.store(true, Ordering::Relaxed);
            self.sink_health.note(Some(away.text.clone()));
            return BUSY_PAUSE_MAX;
        }
        self.sink_check.has_failed.store(false, Ordering::Relaxed);
        first.cancel();
        FAILED_PAUSE
    }

    fn set_busy(&self, is_busy: bool) {
        if self.sink_check.is_busy.swap(is_busy, Ordering::Relaxed) && !is_busy {
            self.store.signals().progress.notify_waiters();
        }
    }

    async fn check_and_repair(&self) -> Result<Step, CompareError> {
        self.note_kind().await?;
        // What moves there is not there yet.
        if self.is_moving_archive() {
            self.sink_check.first.cancel();
            return Ok(Step::Busy);
        }
        let is_due = self.sink_check.is_due.swap(false, Ordering::Relaxed);
        let mut checked = Step::Done;
        if is_due {
            let result = self.check().await;
            if !matches!(result, Ok(Step::Done)) {
                self.check_sink_soon();
            }
            checked = result?;
            if self.sink_check.has_failed.swap(false, Ordering::Relaxed) {
                self.sink_health.note(None);
            }
            self.sink_check.first.cancel();
        }
        let mut is_done = true;
        for LossOf { shop, resource, loss } in self.store.sink_losses()? {
            let Some(definition) = self.definition(&resource).cloned() else { continue };
            let shop = self.store.shop(&shop)?.filter(|shop| shop.state == ShopState::Active);
            // What a pass over chosen streams leaves out waits for the next start.
            let is_worked_on = |shop: &Shop| shop.syncs(&resource) && self.engine.only().takes(&shop.id, &resource);
            let Some(shop) = shop.filter(is_worked_on) else { continue };
            match loss.stage {
                LossStage::Suspected => {
                    self.begin_repair(&shop, &definition, loss).await?;
                    is_done = false;
                }
                LossStage::Repairing => is_done &= self.end_repair(&shop, &definition, loss).await?,
                // A backup may have brought the documents back.
                LossStage::Lasting if is_due => is_done &= self.end_repair(&shop, &definition, loss).await?,
                LossStage::Lasting => {}
            }
        }
        Ok(if is_done { checked } else { Step::Busy })
    }

    async fn check(&self) -> Result<Step, CompareError> {
        // The first check is for what was written before, whatever waits.
        let is_first = !self.sink_check.first.is_cancelled();
        if !is_first && self.store.counters().map_or(u64::MAX, |counters| counters.outbox) > WAITING_MAX {
            return Ok(Step::OutboxWaits);
        }
        let is_final = match &self.sink {
            Sink::Mysql(mysql) => self.check_mysql(mysql).await?,
            Sink::Archive(_) => self.check_archive().await?,
        };
        Ok(if is_final { Step::Done } else { Step::Busy })
    }

    /// Suspects a loss of everything if the kind of sink is not the one that the store was last used with.
    async fn note_kind(&self) -> Result<(), StoreError> {
        let (kind, before) = (self.sink.kind(), self.store.sink_kind()?);
        if before.as_deref() == Some(kind) {
            // A move that an earlier process began.
            if self.is_moving_archive() {
                self.sink_check.is_new.store(true, Ordering::Relaxed);
            }
            return Ok(());
        }
        // Older builds did not record the kind.
        let is_changed = before.is_some() || self.is_moving_archive();
        let (store, definitions) = (self.store.clone(), self.definitions.to_vec());
        let expected = blocking(move || expected(&store, &definitions)).await?;
        let suspects: Vec<_> = if is_changed { expected.read.into_iter().collect() } else { Vec::new() };
        self.sink_check.is_new.store(is_changed, Ordering::Relaxed);
        if !suspects.is_empty() {
            tracing::info!(
                before,
                now = kind,
                resources = suspects.len(),
                "the sink is another kind than before: comparing all documents with it, and bringing there what is missing"
            );
        }
        self.store.suspect_sink(kind, suspects, Vec::new()).await
    }

    /// Compares what MySQL has with the checkpoints and the ledger; returns whether the result is final: what waits in the
    /// outbox cannot be judged.
    async fn check_mysql(&self, mysql: &Mysql) -> Result<bool, CompareError> {
        let (store, definitions) = (self.store.clone(), self.definitions.to_vec());
        let expected = blocking(move || expected(&store, &definitions)).await?;
        // Read afterwards: whatever was acknowledged before must be there.
        let mut there: BTreeMap<(ShopId, String, String), Timestamp> = BTreeMap::new();
        for (stream, checkpoint) in mysql.checkpoints().await? {
            let StreamId { shop, resource, combination } = stream;
            there.insert((shop, resource, combination.to_string()), checkpoint.walked_at.unwrap_or(Timestamp::MIN));
        }
        // Its record precedes a shop's documents: in a database without it, these are not ours, or lost.
        let mirrored = mysql.mirrored_shops().await?;
        let is_unmirrored = |of: &&(ShopId, String)| !mirrored.contains_key(&of.0) && !expected.waiting.contains(*of);
        let mut suspects: BTreeSet<(ShopId, String)> = expected.read.iter().filter(is_unmirrored).cloned().collect();
        let mut streams = Vec::new();
        for walked in &expected.walked {
            let stream = &walked.stream;
            let of = (stream.shop.clone(), stream.resource.clone());
            let key = (stream.shop.clone(), stream.resource.clone(), stream.combination.to_string());
            let is_waiting = expected.waiting.contains(&of);
            if walked.is_lost(there.get(&key).copied(), is_waiting) {
                suspects.insert(of);
                // A checkpoint that waits need not be sent again.
                streams.extend((!is_waiting).then(|| stream.clone()));
            }
        }
        for definition in self.definitions.iter() {
            let empty = mysql.shops_without_rows(&definition.name).await?.into_iter();
            let lost = empty.map(|shop| (shop, definition.name.clone())).filter(|of| expected.is_lost(of));
            suspects.extend(lost);
        }
        self.suspect(suspects, streams).await?;
        Ok(expected.waiting.is_empty())
    }

    /// Suspects shops' resources of which documents were read and none is archived.
    async fn check_archive(&self) -> Result<bool, CompareError> {
        let (store, definitions) = (self.store.clone(), self.definitions.to_vec());
        let expected = blocking(move || expected(&store, &definitions)).await?;
        let mut suspects = BTreeSet::new();
        for of in expected.read.iter().filter(|of| expected.is_lost(of)) {
            if self.store.archive_held(&of.1, &of.0, "", 1)?.is_empty() {
                suspects.insert(of.clone());
            }
        }
        self.suspect(suspects, Vec::new()).await?;
        Ok(expected.waiting.is_empty())
    }

    async fn suspect(
        &self,
        mut suspects: BTreeSet<(ShopId, String)>,
        streams: Vec<StreamId>,
    ) -> Result<(), CompareError> {
        if suspects.is_empty() && streams.is_empty() {
            // It holds all that was written: what it lacks from now on is lost.
            self.sink_check.is_new.store(false, Ordering::Relaxed);
            return Ok(());
        }
        for known in self.store.sink_losses()? {
            if known.loss.stage != LossStage::Lasting {
                suspects.remove(&(known.shop, known.resource));
            }
        }
        let (resources, sink) = (suspects.len(), self.sink.kind());
        if resources + streams.len() == 0 {
            return Ok(());
        }
        // What a new sink lacks was never there; of what is suspected already, the log says so.
        if resources == 0 || self.sink_check.is_new.load(Ordering::Relaxed) {
            tracing::info!(
                resources,
                streams = streams.len(),
                sink,
                "sending to the sink what it does not know of walks"
            );
        } else {
            tracing::warn!(
                resources,
                sink,
                "the sink does not hold what was written to it, as after a restore from a backup or a change of the \
                 database: comparing all documents with it"
            );
        }
        self.store.suspect_sink(self.sink.kind(), suspects.into_iter().collect(), streams).await?;
        self.repair_mirror().await
    }

    /// Compares a resource, and has what is missing sent again or re-read.
    async fn begin_repair(&self, shop: &Shop, definition: &Definition, loss: SinkLoss) -> Result<(), CompareError> {
        let repaired = {
            let _one = self.completeness_lock.lock().await;
            self.repair_resource(shop, definition, false).await?.count()
        };
        report_repaired(shop, definition, repaired);
        let loss = SinkLoss { stage: LossStage::Repairing, ..loss };
        Ok(self.store.save_sink_loss(&shop.id, &definition.name, Some(loss)).await?)
    }

    /// Once nothing of a resource is under way: records what is still missing. Returns whether nothing is left to do.
    async fn end_repair(&self, shop: &Shop, definition: &Definition, loss: SinkLoss) -> Result<bool, CompareError> {
        for queue in Queue::all_of(&shop.id, &definition.name) {
            if self.store.count_jobs(&queue, 1)? > 0 {
                return Ok(false);
            }
        }
        let is_ours = |stream: &StreamId| stream.shop == shop.id && stream.resource == definition.name;
        let counters = self.store.counters()?;
        // Retries are counted for all streams together.
        let is_retrying = self.engine.only().is_all() && counters.retrying_jobs > 0;
        if counters.outbox > WAITING_MAX || is_retrying {
            return Ok(false);
        }
        if self.store.open_runs()?.iter().any(|run| is_ours(&run.stream)) {
            return Ok(false);
        }
        let Comparison { counts, hopeless, .. } = {
            let _one = self.completeness_lock.lock().await;
            self.compare_twice(shop, definition).await?
        };
        if counts.pending > 0 {
            return Ok(false);
        }
        // Lost since the repair began, by a process that ended meanwhile perhaps. What a repair does not bring back is as
        // much as before.
        if counts.missing > hopeless && counts.missing != loss.missing {
            let suspected = SinkLoss { stage: LossStage::Suspected, missing: counts.missing, ..loss };
            self.store.save_sink_loss(&shop.id, &definition.name, Some(suspected)).await?;
            return Ok(false);
        }
        let left =
            (counts.missing > 0).then_some(SinkLoss { stage: LossStage::Lasting, missing: counts.missing, ..loss });
        if left.is_some() && left != Some(loss) {
            tracing::error!(
                shop.id = %shop.id,
                resource = definition.name,
                documents = counts.missing,
                "documents are missing in the sink, and the repair did not bring them back; `waybill verify` names them"
            );
        }
        self.store.save_sink_loss(&shop.id, &definition.name, left).await?;
        Ok(true)
    }
}

/// Reads what the sink should hold. The checkpoints and the ledger are read before the outbox: what is in neither was
/// acknowledged.
fn expected(store: &Store, definitions: &[Arc<Definition>]) -> Result<Expected, StoreError> {
    let mut found = Expected::default();
    for shop in store.shops()? {
        for definition in definitions.iter().filter(|definition| shop.syncs(&definition.name)) {
            if store.has_read(&shop.id, &definition.name)? {
                found.read.insert((shop.id.clone(), definition.name.clone()));
            }
            for stream in definition.streams(&shop.id) {
                if let Some(at) = store.checkpoint(&stream)?.walked_at {
                    let delivered_at = store.stream_status(&stream)?.delivered_walk;
                    found.walked.push(Walked { stream, at, delivered_at });
                }
            }
        }
    }
    found.waiting = store.waiting_resources()?;
    let lasting = store.sink_losses()?.into_iter().filter(|one| one.loss.stage == LossStage::Lasting);
    found.lasting = lasting.map(|one| (one.shop, one.resource)).collect();
    Ok(found)
}
