//! Shops of the sink's mirror that could not be restored, each with what is wrong with its row.
//!
//! Such a shop is not known here: it is not walked, and its documents stay. It is adopted, purged, or restored by the next
//! try once its row is right.

use serde::{Deserialize, Serialize};

use crate::domain::ShopId;
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

const KEY: &[u8] = b"munrestored";

/// A shop of the mirror that is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnrestoredShop {
    pub id: ShopId,
    pub name: String,
    /// As its row says.
    pub client_id: String,
    /// What is wrong with the row, for people.
    pub fault: String,
}

fn read(stored: Option<Vec<u8>>) -> Result<Vec<UnrestoredShop>, StoreError> {
    stored.map_or(Ok(Vec::new()), |stored| decode("the shops that are not restored", &stored))
}

fn put(tx: &mut Tx<'_>, shops: &[UnrestoredShop]) -> Result<(), StoreError> {
    if shops.is_empty() {
        tx.delete(KEY.to_vec());
    } else {
        tx.put(KEY.to_vec(), encode("the shops that are not restored", &shops)?);
    }
    Ok(())
}

/// Removes a shop from the list. Whether it was there.
pub(crate) fn forget(tx: &mut Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    let mut shops = read(tx.get(KEY)?)?;
    let count = shops.len();
    shops.retain(|one| one.id != shop);
    if shops.len() < count {
        put(tx, &shops)?;
    }
    Ok(shops.len() < count)
}

impl Store {
    /// The shops that could not be restored.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn unrestored_shops(&self) -> Result<Vec<UnrestoredShop>, StoreError> {
        read(self.0.kv.get(KEY)?)
    }

    /// Notes the shops that could not be restored, in place of those of the last try.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn note_unrestored(&self, shops: Vec<UnrestoredShop>) -> Result<(), StoreError> {
        if self.unrestored_shops()? == shops {
            return Ok(());
        }
        self.transact(move |tx| put(tx, &shops)).await
    }
}
