//! Carries stores of older releases over: data keys into their own file at the opening, and credentials to seals for shop,
//! client id and source once the source is known.
//!
//! Each step may be cut off by a crash, and is then repeated: a key is in the file before it leaves its record, and the
//! format rises last. What the engine's log keeps of removed values it keeps: old wrapped keys are in freed pages of
//! such a store until the engine writes over them. They open with the master key of that time alone, so a change of the
//! master key ends them.

use zeroize::Zeroizing;

use crate::domain::ShopId;
use crate::store::codec::{decode, encode};
use crate::store::crypto::SealKey;
use crate::store::engine::data_keys::DataKeys;
use crate::store::engine::kv::{Change, Kv};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::mirror_seal::first_form_key;
use crate::store::records::idempotency;
use crate::store::records::outbox;
use crate::store::records::shops::{self, KEY_IS_NEEDED, SEAL_FORM, ShopRecord, TokenRecord};
use crate::store::tx::handle::Store;

/// Records that one change rewrites.
const AT_ONCE: usize = 500;

/// Moves the data keys of a store of format 1 or 2 into their file, and what the master key sealed itself to the store's
/// own key. The caller raises the format then.
pub(crate) fn data_keys(kv: &dyn Kv, keys: &DataKeys) -> Result<(), StoreError> {
    let master = keys.master();
    let mut found = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    let mut take = |shop: ShopId, wrapped: &str| match open_first_form(&master, &shop, wrapped) {
        _ if keys.has(&shop) => {}
        Ok(key) => found.push((shop, key)),
        Err(error) => tracing::error!(shop.id = %shop, %error, "left out: the shop needs a new secret"),
    };
    for pair in kv.scan(keyspace::SHOPS, keyspace::SHOPS) {
        let (key, value) = pair?;
        let mut record: ShopRecord = decode("a shop", &value)?;
        let wrapped = std::mem::take(&mut record.data_key);
        if !wrapped.is_empty() {
            take(record.shop.id.clone(), &wrapped);
            changes.push((key, Some(encode("a shop", &record)?)));
        }
    }
    for pair in kv.scan(keyspace::DELETED_SHOPS, keyspace::DELETED_SHOPS) {
        let (key, wrapped) = pair?;
        if !wrapped.is_empty() && wrapped != KEY_IS_NEEDED {
            take(keyspace::only_shop(&key), &String::from_utf8_lossy(&wrapped));
            changes.push((key, Some(KEY_IS_NEEDED.to_vec())));
        }
    }
    if !found.is_empty() {
        tracing::info!(keys = found.len(), "moving the data keys into a file of their own");
        keys.add(found)?;
    }
    let store_key = keys.store_key();
    for pair in kv.scan(keyspace::ANSWERS, keyspace::ANSWERS) {
        let (key, sealed) = pair?;
        let context = idempotency::context(key.get(1..).unwrap_or_default());
        // One that neither key opens is removed with the others, after a day.
        if let Ok(opened) = master.open(&context, &sealed) {
            changes.push((key, Some(store_key.seal(&context, &opened)?)));
        }
    }
    for some in changes.chunks(AT_ONCE) {
        kv.reserve(some)?;
        kv.apply(some)?;
    }
    Ok(())
}

fn open_first_form(master: &SealKey, shop: &str, wrapped: &str) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let opened = master.open(&first_form_key(shop), &shops::unbase64("a data key", wrapped)?)?;
    let key = opened.as_slice().try_into();
    key.map(Zeroizing::new)
        .map_err(|_| StoreError::Record { what: "a data key".to_owned(), detail: "wrong length".to_owned() })
}

impl Store {
    /// Seals the credentials of an older release for their shop, client id and source. Does nothing until the source of the
    /// directory is recorded: where they were proved is not known before.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn reseal_credentials(&self) -> Result<(), StoreError> {
        if self.installed_source()?.is_none() {
            return Ok(());
        }
        let mut changes = Vec::new();
        for pair in self.0.kv.scan(keyspace::SHOPS, keyspace::SHOPS) {
            let (key, value) = pair?;
            let mut record: ShopRecord = decode("a shop", &value)?;
            if record.form >= SEAL_FORM {
                continue;
            }
            let proved_at = self.where_proved(record.proved_at.clone())?;
            match self.shop_key(&record.shop.id).and_then(|key| record.move_to(&key, proved_at)) {
                Ok(()) => changes.push((key, encode("a shop", &record)?, Some(record.shop.id))),
                Err(error) => tracing::error!(shop.id = %record.shop.id, %error, "the shop needs a new secret"),
            }
        }
        for pair in self.0.kv.scan(keyspace::TOKENS, keyspace::TOKENS) {
            let (key, value) = pair?;
            let mut record: TokenRecord = decode("a token", &value)?;
            let client_id = keyspace::only_shop(&key);
            // One that does not open is replaced by a login.
            if record.form < SEAL_FORM
                && let Ok(token) = self.open_token(&client_id, &record)
            {
                record.origin = self.where_proved(record.origin)?;
                changes.push((key, self.seal_token(&client_id, record, &token)?, None));
            }
        }
        let now = self.now();
        while !changes.is_empty() {
            let some: Vec<_> = changes.drain(..changes.len().min(AT_ONCE)).collect();
            self.transact(move |tx| {
                for (key, value, shop) in some {
                    tx.put(key, value);
                    // The mirror gets it too, in its new form.
                    if let Some(shop) = shop {
                        outbox::append_shop(tx, &shop, now)?;
                    }
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
