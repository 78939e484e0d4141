//! Invariants, checked in release builds too. A broken one is a bug of Waybill: its shop is paused, with that reason, before
//! more is built on wrong records. Nothing is undone, and all other shops continue.

use crate::domain::{ShopId, ShopState, Timestamp};
use crate::store::error::StoreError;
use crate::store::ops::shop_state;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// Pauses a shop whose records are inconsistent; part of the transaction that found it. Its runs end in a later one.
pub(crate) fn pause_shop(tx: &mut Tx<'_>, shop: &ShopId, what: &str, now: Timestamp) -> Result<(), StoreError> {
    tracing::error!(shop.id = shop.as_str(), what, "an invariant does not hold; the shop is paused");
    metrics::counter!("waybill_invariant_breaches_total").increment(1);
    tx.breached.insert(shop.clone());
    let reason = format!("paused by Waybill, a fault of its own: {what}. Please report it; resuming the shop goes on");
    shop_state::set_state(tx, shop, ShopState::Paused, Some(reason), now)
}

impl Store {
    /// Pauses shops with a broken invariant. Durable when it returns.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn pause_for_breach(&self, shops: Vec<ShopId>, what: String) -> Result<(), StoreError> {
        let now = self.now();
        let paused = shops.clone();
        self.transact(move |tx| shops.iter().try_for_each(|shop| pause_shop(tx, shop, &what, now))).await?;
        for shop in paused {
            self.stop_runs(&shop).await?;
        }
        Ok(())
    }
}
