//! Ends the runs of a shop that is refused or paused: no call may be made for them, so they would stay open for ever.
//!
//! Their list jobs go; the details that they found stay queued, without keeping a run open. When the shop is active
//! again its streams are walked again from their heads.

use crate::domain::{CallKind, ErrorClass, Run, RunId, RunState, ShopId, ShopState, Timestamp};
use crate::store::error::StoreError;
use crate::store::keyspace::Queue;
use crate::store::ops::run_progress;
use crate::store::records::ready_queue;
use crate::store::records::runs;
use crate::store::records::shops;
use crate::store::tx::counters::Counter;
use crate::store::tx::handle::Store;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// Runs ended by one commit.
const STOPPED_AT_ONCE: usize = 64;

impl Store {
    /// Ends the open runs of a shop as `stopped`, with the reason why it is not active. Of an active shop, or one that
    /// is gone, none is ended.
    ///
    /// # Errors
    /// The engine's errors; what is left is ended by the next call.
    pub async fn stop_runs(&self, shop: &ShopId) -> Result<(), StoreError> {
        let open = self.open_runs()?;
        let of_shop: Vec<RunId> = open.iter().filter(|run| run.stream.shop == *shop).map(|run| run.id).collect();
        for some in of_shop.chunks(STOPPED_AT_ONCE).map(<[RunId]>::to_vec) {
            let (shop, now) = (shop.clone(), self.now());
            self.transact(move |tx| some.iter().try_for_each(|id| stop(tx, &shop, *id, now))).await?;
        }
        Ok(())
    }
}

fn stop(tx: &mut Tx<'_>, shop: &ShopId, id: RunId, now: Timestamp) -> Result<(), StoreError> {
    let Some(record) = shops::read(tx, shop)? else { return Ok(()) };
    let class = match record.shop.state {
        ShopState::Active => return Ok(()),
        ShopState::Refused => ErrorClass::Refused,
        ShopState::Paused => ErrorClass::Other,
    };
    let Some(run) = runs::read(tx, id)?.filter(Run::is_open) else { return Ok(()) };
    let reason = match (&record.shop.reason, record.shop.state) {
        (Some(reason), _) => reason.clone(),
        (None, ShopState::Paused) => "the shop was paused on request".to_owned(),
        (None, _) => "the shop's credentials were refused".to_owned(),
    };
    runs::leave(tx, &run.stream);
    run_progress::update(tx, Some(id), now, |run| {
        run.state = RunState::Stopped;
        (run.error, run.error_class) = (Some(reason), Some(class));
        (run.next, run.followers) = (None, Vec::new());
    })?;
    drop_list_jobs(tx, shop, &run.stream.resource)?;
    tx.raise(Signal::Progress);
    Ok(())
}

/// Removes the ready list jobs of a resource: all of its runs end. Those that wait for another try go when that is due.
fn drop_list_jobs(tx: &mut Tx<'_>, shop: &ShopId, resource: &str) -> Result<(), StoreError> {
    let queue = Queue { shop: shop.clone(), resource: resource.to_owned(), kind: CallKind::List };
    let prefix = queue.prefix();
    let found: Vec<(Vec<u8>, Vec<u8>)> = tx.pairs(&prefix, &prefix).collect::<Result<_, _>>()?;
    for (key, value) in found {
        tx.count(Counter::Ready, -i64::try_from(ready_queue::count(&value)?).unwrap_or(i64::MAX));
        tx.delete(key);
    }
    Ok(())
}
