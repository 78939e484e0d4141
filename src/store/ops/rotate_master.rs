//! Changes the master key: wraps all data keys by the new one, in one replacement of their file, and then seals the rows
//! of the sink's mirror again.
//!
//! The file is wrapped by one key as a whole, so a crash leaves it to the old key or to the new one. Which rows are still
//! to do is what the rows say. Called by the service.

use std::sync::PoisonError;

use crate::domain::{Shop, ShopId};
use crate::store::crypto::SealKey;
use crate::store::error::StoreError;
use crate::store::mirror_seal;
use crate::store::tx::handle::Store;

/// The name of a master key, which does not reveal it.
pub fn master_key_id(key: &[u8; 32]) -> String {
    SealKey::new(key).id()
}

impl Store {
    /// The name of the master key that wraps the data keys.
    pub fn master_key_id(&self) -> String {
        self.0.keys.master().id()
    }

    /// Has rows of the mirror opened with a second master key too, while the master key changes.
    pub fn also_open_with(&self, other: Option<&[u8; 32]>) {
        self.set_other_master(other.map(SealKey::new));
    }

    fn set_other_master(&self, other: Option<SealKey>) {
        *self.0.other_master.write().unwrap_or_else(PoisonError::into_inner) = other;
    }

    /// Wraps all data keys by another master key. Afterwards the old one opens nothing here. Does nothing when that
    /// was done before.
    ///
    /// # Errors
    /// The system's errors; then the old master key stays.
    pub async fn rotate_master(&self, to: &[u8; 32]) -> Result<(), StoreError> {
        let (from, to) = (self.0.keys.master(), SealKey::new(to));
        if from.id() == to.id() {
            return Ok(());
        }
        self.set_other_master(Some(from));
        self.change_keys(move |keys| keys.rewrap(to)).await
    }

    /// Whether the master key in use sealed a row of the mirror, as the row says.
    pub fn is_sealed_with_master(&self, sealed: &[u8]) -> bool {
        mirror_seal::is_sealed_with(&self.0.keys.master(), sealed)
    }

    /// A shop with the sealed part of its row, under the master key in use. None: no such shop, or its secret is
    /// damaged.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn mirror_row(&self, shop: &ShopId) -> Result<Option<(Shop, Vec<u8>)>, StoreError> {
        let Some(record) = self.shop_record(shop)? else { return Ok(None) };
        match self.mirror_part(&record) {
            Ok(sealed) => Ok(Some((record.shop, sealed))),
            Err(StoreError::Sealed { .. } | StoreError::Record { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
