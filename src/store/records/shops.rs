//! Shops, their sealed secrets and data keys, and the tokens of their credentials.

use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::domain::{Shop, ShopId, ShopState, SourceOrigin, Timestamp};
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
    /// The only source that they may be sent to.
    pub proved_at: Option<SourceOrigin>,
}

/// A stored token, opened.
#[derive(Clone, Debug)]
pub struct Token {
    pub token: SecretString,
    /// Wall clock.
    pub expires_at: Timestamp,
    /// The source that issued it, and the only one that it may be sent to.
    pub origin: SourceOrigin,
}

/// A shop as stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ShopRecord {
    pub(crate) shop: Shop,
    /// Sealed under the shop's data key; base64.
    pub(crate) secret: String,
    /// Sealed under the master key; base64.
    pub(crate) data_key: String,
    /// The source that accepted the secret. Absent in records of a release that did not note it: see
    /// [`crate::store::InstalledSource::unnoted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proved_at: Option<SourceOrigin>,
}

#[derive(Serialize, Deserialize)]
struct TokenRecord {
    shop: ShopId,
    sealed: String,
    expires_at: Timestamp,
    /// Absent as in [`ShopRecord::proved_at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<SourceOrigin>,
}

impl ShopRecord {
    /// Secret and data key, both sealed, for the mirror in the sink; and where the secret was proved, if that is noted.
    pub(crate) fn sealed_parts(&self) -> Vec<u8> {
        let proved_at = self.proved_at.as_ref().map(|origin| format!("\n{}", origin.canonical()));
        format!("{}\n{}{}", self.data_key, self.secret, proved_at.unwrap_or_default()).into_bytes()
    }

    /// A record from such parts.
    pub(crate) fn from_parts(shop: Shop, sealed: &[u8]) -> Result<ShopRecord, StoreError> {
        let foreign = || StoreError::Record {
            what: format!("shop {}", shop.id),
            detail: "its sealed part is none of ours".to_owned(),
        };
        let mut lines = std::str::from_utf8(sealed).map_err(|_| foreign())?.split('\n');
        let (Some(data_key), Some(secret)) = (lines.next(), lines.next()) else { return Err(foreign()) };
        let noted = lines.next().map(|line| SourceOrigin::from_canonical(line).ok_or_else(foreign));
        let (data_key, secret, proved_at) = (data_key.to_owned(), secret.to_owned(), noted.transpose()?);
        Ok(ShopRecord { data_key, secret, proved_at, shop })
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
        let proved_at = self.where_proved(record.proved_at)?;
        Ok(Secrets { client_id: record.shop.client_id, client_secret: SecretString::from(secret), proved_at })
    }

    /// Where a secret was proved or a token issued, by the note in its record. None: not known, so nowhere.
    pub(crate) fn where_proved(&self, noted: Option<SourceOrigin>) -> Result<Option<SourceOrigin>, StoreError> {
        match noted {
            Some(noted) => Ok(Some(noted)),
            None => Ok(match self.installed_source()? {
                Some(installed) => installed.unnoted,
                // An earlier release wrote the directory; it is about to be recorded as the source in use.
                None => self.0.source.get().cloned(),
            }),
        }
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

    /// The kept token of a client id. None: none, or unreadable.
    pub fn token(&self, client_id: &str) -> Option<Token> {
        let bytes = self.0.kv.get(&keyspace::token(client_id)).ok()??;
        let record: TokenRecord = decode("a token", &bytes).ok()?;
        let sealed = STANDARD.decode(&record.sealed).ok()?;
        let opened = self.shop_key(&record.shop).ok()?.open(&token_context(&record.shop), &sealed).ok()?;
        let token = SecretString::from(String::from_utf8_lossy(&opened).into_owned());
        let origin = self.where_proved(record.origin).ok()??;
        Some(Token { token, expires_at: record.expires_at, origin })
    }

    /// Keeps a token of a registered client id; of any other it is not kept.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_token(&self, client_id: &str, token: Token) -> Result<(), StoreError> {
        let Token { token, expires_at, origin } = token;
        let Some(shop) = self.0.kv.get(&keyspace::client(client_id))? else { return Ok(()) };
        let shop = ShopId::from(String::from_utf8_lossy(&shop));
        let sealed = self.shop_key(&shop)?.seal(&token_context(&shop), token.expose_secret().as_bytes())?;
        let record = encode(
            "a token",
            &TokenRecord { shop, sealed: STANDARD.encode(sealed), expires_at, origin: Some(origin) },
        )?;
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
