//! Re-sends shop records that MySQL lost, for example after a restore from backup: shops that were registered or changed
//! since, and deletions.
//!
//! Called by the app after full walks. The records go through the outbox like everything that the sink gets.

use std::collections::BTreeMap;

use crate::domain::{ShopId, Timestamp};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::outbox;
use crate::store::records::shops;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// A record to send again.
enum Resend {
    Shop(ShopId),
    Deleted { shop: ShopId, purge: bool },
}

impl Store {
    /// Puts into the outbox what a mirror lacks that holds these shops, each with the time of its last change; returns how
    /// many records. Shops that this store never had are left alone.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn repair_mirror(&self, mut held: BTreeMap<ShopId, Timestamp>) -> Result<usize, StoreError> {
        let mut resends = Vec::new();
        for shop in self.shops()? {
            if held.remove(&shop.id).is_none_or(|at| at < shop.updated_at) {
                resends.push(Resend::Shop(shop.id));
            }
        }
        for shop in held.into_keys() {
            let purge = self.0.kv.get(&keyspace::purged(&shop))?.is_some();
            if purge || self.0.kv.get(&keyspace::deleted_shop(&shop))?.is_some() {
                resends.push(Resend::Deleted { shop, purge });
            }
        }
        let (count, now) = (resends.len(), self.now());
        if count > 0 {
            self.transact(move |tx| resends.iter().try_for_each(|one| resend(tx, one, now))).await?;
        }
        Ok(count)
    }
}

/// Sends a record if it still applies: the shop may have been registered or deleted meanwhile.
fn resend(tx: &mut Tx<'_>, record: &Resend, now: Timestamp) -> Result<(), StoreError> {
    match record {
        Resend::Shop(shop) if shops::read(tx, shop)?.is_some() => outbox::append_shop(tx, shop, now),
        Resend::Deleted { shop, purge } if shops::read(tx, shop)?.is_none() => {
            outbox::append_shop_deleted(tx, shop, *purge, now)
        }
        Resend::Shop(_) | Resend::Deleted { .. } => Ok(()),
    }
}
