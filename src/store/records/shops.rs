//! Shops, their sealed secrets and data keys, and the tokens of their credentials.

use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::domain::{Shop, ShopId, ShopState, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::crypto::SealKey;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// A shop's credentials, opened.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub client_id: String,
    pub client_secret: SecretString,
}

/// A shop as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ShopRecord {
    pub(crate) shop: Shop,
    /// Sealed under the shop's data key; base64.
    pub(crate) secret: String,
    /// Sealed under the master key; base64.
    pub(crate) data_key: String,
}

#[derive(Serialize, Deserialize)]
struct TokenRecord {
    shop: ShopId,
    sealed: String,
    expires_at: Timestamp,
}

impl ShopRecord {
    /// Secret and data key, both sealed, for the mirror in the sink.
    pub(crate) fn sealed_parts(&self) -> Vec<u8> {
        format!("{}\n{}", self.data_key, self.secret).into_bytes()
    }

    /// A record from such parts.
    pub(crate) fn from_parts(shop: Shop, sealed: &[u8]) -> Result<ShopRecord, StoreError> {
        let parts = std::str::from_utf8(sealed).ok().and_then(|text| text.split_once('\n'));
        let (data_key, secret) = parts.ok_or_else(|| StoreError::Record {
            what: format!("shop {}", shop.id),
            detail: "its sealed part is none of ours".to_owned(),
        })?;
        Ok(ShopRecord { data_key: data_key.to_owned(), secret: secret.to_owned(), shop })
    }
}

pub(crate) fn read(tx: &Tx<'_>, shop: &str) -> Result<Option<ShopRecord>, StoreError> {
    tx.get(&keyspace::shop(shop))?.map(|bytes| decode("a shop", &bytes)).transpose()
}

/// Whether the shop is there, and not deleted.
pub(crate) fn is_known(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    Ok(tx.get(&keyspace::shop(shop))?.is_some())
}

/// Whether the shop is there and neither paused nor refused.
pub(crate) fn is_active(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    Ok(read(tx, shop)?.is_some_and(|record| record.shop.state == ShopState::Active))
}

/// Destroys the data key of a deleted shop, once the sink has all it shall have. Where its rows stay, it is still
/// known that there are some, so that they can be purged later.
pub(crate) fn forget_key(tx: &mut Tx<'_>, shop: &str, purged: bool) {
    let key = keyspace::deleted_shop(shop);
    if purged {
        tx.delete(key);
        note_purged(tx, shop);
    } else {
        tx.put(key, Vec::new());
    }
}

pub(crate) fn key_context(shop: &str) -> String {
    format!("data key|{shop}")
}

pub(crate) fn secret_context(shop: &str) -> String {
    format!("client secret|{shop}")
}

fn token_context(shop: &str) -> String {
    format!("token|{shop}")
}

fn unbase64(what: &str, text: &str) -> Result<Vec<u8>, StoreError> {
    STANDARD.decode(text).map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

fn open_data_key(master: &SealKey, id: &str, sealed: &str) -> Result<SealKey, StoreError> {
    let opened = master.open(&key_context(id), &unbase64("a data key", sealed)?)?;
    let bytes: &[u8; 32] = opened
        .as_slice()
        .try_into()
        .map_err(|_| StoreError::Record { what: "a data key".to_owned(), detail: "wrong length".to_owned() })?;
    Ok(SealKey::new(bytes))
}

/// Whether a master key opens a mirrored shop.
///
/// # Errors
/// [`StoreError::Sealed`]: it does not. [`StoreError::Record`]: the sealed part is not ours.
pub fn opens_shop(master: &[u8; 32], shop: &Shop, sealed: &[u8]) -> Result<(), StoreError> {
    opens(&SealKey::new(master), &ShopRecord::from_parts(shop.clone(), sealed)?)
}

/// Whether a master key opens a record.
pub(crate) fn opens(master: &SealKey, record: &ShopRecord) -> Result<(), StoreError> {
    let id = &record.shop.id;
    let key = open_data_key(master, id, &record.data_key)?;
    key.open(&secret_context(id), &unbase64("a shop's secret", &record.secret)?).map(drop)
}

impl Store {
    /// All shops, by id.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn shops(&self) -> Result<Vec<Shop>, StoreError> {
        let records = self.0.kv.scan(keyspace::SHOPS, keyspace::SHOPS);
        records.map(|pair| Ok(decode::<ShopRecord>("a shop", &pair?.1)?.shop)).collect()
    }

    /// One shop.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn shop(&self, id: &str) -> Result<Option<Shop>, StoreError> {
        Ok(self.shop_record(id)?.map(|record| record.shop))
    }

    /// Whether a client id is registered.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_client(&self, client_id: &str) -> Result<bool, StoreError> {
        Ok(self.0.kv.get(&keyspace::client(client_id))?.is_some())
    }

    pub(crate) fn shop_record(&self, id: &str) -> Result<Option<ShopRecord>, StoreError> {
        self.0.kv.get(&keyspace::shop(id))?.map(|bytes| decode("a shop", &bytes)).transpose()
    }

    /// The credentials of a shop.
    ///
    /// # Errors
    /// [`StoreError::Absent`] without such a shop, [`StoreError::Sealed`] when they cannot be opened.
    pub fn secrets(&self, id: &str) -> Result<Secrets, StoreError> {
        let record = self.shop_record(id)?.ok_or(StoreError::Absent { what: "shop" })?;
        let sealed = unbase64("a shop's secret", &record.secret)?;
        let opened = self.shop_key(id)?.open(&secret_context(id), &sealed)?;
        let secret = String::from_utf8_lossy(&opened).into_owned();
        Ok(Secrets { client_id: record.shop.client_id, client_secret: SecretString::from(secret) })
    }

    /// A shop's data key; of a shop being deleted too, until the sink has all of it.
    pub(crate) fn shop_key(&self, id: &str) -> Result<SealKey, StoreError> {
        if let Some(key) = self.0.shop_keys.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(key.clone());
        }
        let sealed = match self.shop_record(id)? {
            Some(record) => record.data_key,
            None => {
                let kept = self.0.kv.get(&keyspace::deleted_shop(id))?.filter(|kept| !kept.is_empty());
                let kept = kept.ok_or(StoreError::Absent { what: "shop" })?;
                String::from_utf8_lossy(&kept).into_owned()
            }
        };
        let key = self.open_key(id, &sealed)?;
        self.0.shop_keys.write().unwrap_or_else(PoisonError::into_inner).insert(id.into(), key.clone());
        Ok(key)
    }

    fn open_key(&self, id: &str, sealed: &str) -> Result<SealKey, StoreError> {
        open_data_key(&self.0.master, id, sealed)
    }

    /// The kept token of a client id and when it ends (wall clock). None: none, or unreadable.
    pub fn token(&self, client_id: &str) -> Option<(SecretString, Timestamp)> {
        let bytes = self.0.kv.get(&keyspace::token(client_id)).ok()??;
        let record: TokenRecord = decode("a token", &bytes).ok()?;
        let sealed = STANDARD.decode(&record.sealed).ok()?;
        let opened = self.shop_key(&record.shop).ok()?.open(&token_context(&record.shop), &sealed).ok()?;
        Some((SecretString::from(String::from_utf8_lossy(&opened).into_owned()), record.expires_at))
    }

    /// Keeps a token of a registered client id; of any other it is not kept.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_token(
        &self,
        client_id: &str,
        token: &SecretString,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(shop) = self.0.kv.get(&keyspace::client(client_id))? else { return Ok(()) };
        let shop = ShopId::from(String::from_utf8_lossy(&shop));
        let sealed = self.shop_key(&shop)?.seal(&token_context(&shop), token.expose_secret().as_bytes())?;
        let record = encode("a token", &TokenRecord { shop, sealed: STANDARD.encode(sealed), expires_at })?;
        let key = keyspace::token(client_id);
        self.transact(move |tx| {
            tx.put(key, record);
            Ok(())
        })
        .await
    }
}

/// Notes that a shop's rows were deleted for good, for when a backup brings them back.
pub(crate) fn note_purged(tx: &mut Tx<'_>, shop: &str) {
    tx.put(keyspace::purged(shop), Vec::new());
}
