//! What the sink's mirror of the shops lacks, as after its database was set back to a backup: shops that were registered
//! or changed since, and the news that one was deleted.
//!
//! Called by the app after full walks. It goes through the outbox like all that the sink gets.

use std::collections::BTreeMap;

use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::outbox;
use crate::store::records::shops;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// What a mirror is to be told again.
enum Told {
    Shop(String),
    Deleted { shop: String, purge: bool },
}

impl Store {
    /// Puts into the outbox what a mirror lacks that holds these shops, each as of a change. How many that are.
    /// Shops of others, which we never had, are left alone.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn mend_mirror(&self, mut held: BTreeMap<String, i64>) -> Result<usize, StoreError> {
        let mut told = Vec::new();
        for shop in self.shops()? {
            if held.remove(&shop.id).is_none_or(|at| at < shop.updated_at) {
                told.push(Told::Shop(shop.id));
            }
        }
        for shop in held.into_keys() {
            let purge = self.0.kv.get(&keyspace::purged(&shop))?.is_some();
            if purge || self.0.kv.get(&keyspace::deleted_shop(&shop))?.is_some() {
                told.push(Told::Deleted { shop, purge });
            }
        }
        let (count, now) = (told.len(), self.now());
        if count > 0 {
            self.transact(move |tx| told.iter().try_for_each(|one| tell(tx, one, now))).await?;
        }
        Ok(count)
    }
}

/// Only what still is so: a shop may have come or gone since it was looked at.
fn tell(tx: &mut Tx<'_>, told: &Told, now: i64) -> Result<(), StoreError> {
    match told {
        Told::Shop(shop) if shops::read(tx, shop)?.is_some() => outbox::append_shop(tx, shop, now),
        Told::Deleted { shop, purge } if shops::read(tx, shop)?.is_none() => {
            outbox::append_shop_deleted(tx, shop, *purge, now)
        }
        Told::Shop(_) | Told::Deleted { .. } => Ok(()),
    }
}
