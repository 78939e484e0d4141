//! Reports streams whose last run is so long ago that rows may soon leave the API's history.
//!
//! Includes paused and refused shops: they are not synced, and that is when it matters.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Overdue, Service};
use crate::domain::{Shop, ShopId, Timestamp};
use crate::store::{StoreError, blocking};

/// Checks per history of a list; and the bounds of the interval between two.
const CHECKS: u32 = 100;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Most overdue streams that are named.
const NAMED_MAX: usize = 100;

impl Service {
    /// Checks periodically until the process ends. Returns at once if no list has a limited history.
    pub(crate) async fn watch_overdue(self, stop: CancellationToken) {
        let histories = self.definitions.iter().filter_map(|definition| definition.list.history);
        let Some(shortest) = histories.min() else { return };
        let pause = (shortest / CHECKS).clamp(PAUSE_MIN, PAUSE_MAX);
        while !stop.is_cancelled() {
            let (service, now) = (self.clone(), self.store.clock().now());
            match blocking(move || service.find_overdue(now, None)).await {
                Ok(found) => self.report_overdue(found),
                Err(error) => error.warn("failed to check for overdue streams; trying again"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Streams, of these shops or of all, whose last run is more than two thirds of their list's history ago.
    fn find_overdue(&self, now: Timestamp, of: Option<&HashSet<ShopId>>) -> Result<Vec<Overdue>, StoreError> {
        let mut found = Vec::new();
        let wanted = |shop: &Shop| of.is_none_or(|shops| shops.contains(&shop.id));
        for shop in self.store.shops()?.into_iter().filter(wanted) {
            for definition in self.definitions_of(&shop) {
                let Some(history) = definition.list.history else { continue };
                let patience = history * 2 / 3;
                for stream in definition.streams(&shop.id) {
                    // A time in the future comes from a wrong clock and is ignored.
                    let walked_at = self.store.checkpoint(&stream)?.walked_at.filter(|at| *at <= now);
                    if now.since(walked_at.unwrap_or(shop.created_at)) > patience {
                        found.push(Overdue { stream: stream.to_string(), shop_id: shop.id.clone(), walked_at });
                    }
                }
            }
        }
        Ok(found)
    }

    fn report_overdue(&self, mut found: Vec<Overdue>) {
        metrics::gauge!("waybill_overdue_streams").set(found.len() as f64);
        let count = found.len();
        found.truncate(NAMED_MAX);
        let mut known = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        for new in found.iter().filter(|new| known.iter().all(|old| old.stream != new.stream)) {
            tracing::error!(
                stream = new.stream,
                overdue = count,
                "stream is overdue: rows may leave the API's history before they are read; see why its shop does not sync"
            );
        }
        *known = found;
    }

    /// The first overdue streams. With `of` it checks again: the first of all shops may include none of theirs.
    pub(super) fn overdue(&self, of: Option<&HashSet<ShopId>>) -> Result<Vec<Overdue>, StoreError> {
        if of.is_none() {
            return Ok(self.overdue.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        let mut found = self.find_overdue(self.store.clock().now(), of)?;
        found.truncate(NAMED_MAX);
        Ok(found)
    }
}
