//! API keys: 256 random bits, shown once, stored as their SHA-256.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::domain::{ShopId, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::crypto::random_text;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;

/// So that secret scanners know it.
const PREFIX: &str = "wb_";
/// 52 letters of a 32-letter alphabet are 260 bits.
const LETTERS: usize = 52;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Look only.
    Read,
}

impl Scope {
    /// Its name in the API and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Admin => "admin",
            Scope::Read => "read",
        }
    }
}

/// A key as stored, without the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub id: String,
    pub name: String,
    pub scope: Scope,
    /// None: all shops.
    pub shops: Option<Vec<ShopId>>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

fn stored_under(key: &str) -> Vec<u8> {
    keyspace::api_key(&Sha256::digest(key.as_bytes()))
}

impl Store {
    /// Makes a key; the text is returned here and never again.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn create_key(
        &self,
        name: &str,
        scope: Scope,
        shops: Option<Vec<ShopId>>,
        expires_at: Option<Timestamp>,
    ) -> Result<(KeyRecord, String), StoreError> {
        let text = format!("{PREFIX}{}", random_text(LETTERS)?);
        let record =
            KeyRecord { id: random_text(8)?, name: name.to_owned(), scope, shops, created_at: self.now(), expires_at };
        let (key, value) = (stored_under(&text), encode("an API key", &record)?);
        self.transact_given(move |tx| {
            tx.put(key, value);
            Ok(())
        })
        .await?;
        Ok((record, text))
    }

    /// What a key grants. Looked up by its digest, so the response time reveals nothing about other keys.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn key(&self, text: &str) -> Result<Option<KeyRecord>, StoreError> {
        let bytes = self.0.kv.get(&stored_under(text))?;
        let record: Option<KeyRecord> = bytes.map(|bytes| decode("an API key", &bytes)).transpose()?;
        Ok(record.filter(|record| record.expires_at.is_none_or(|end| self.now() < end)))
    }

    /// All keys, expired ones too, by age.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let records = self.0.kv.scan(keyspace::API_KEYS, keyspace::API_KEYS).map(|pair| decode("an API key", &pair?.1));
        let mut records = records.collect::<Result<Vec<KeyRecord>, _>>()?;
        records.sort_by_key(|record| record.created_at);
        Ok(records)
    }

    /// Revokes a key at once. False: no such key.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.transact_given(move |tx| {
            for (key, value) in tx.scan(keyspace::API_KEYS, keyspace::API_KEYS, usize::MAX)? {
                if decode::<KeyRecord>("an API key", &value)?.id == id {
                    tx.delete(key);
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }
}
