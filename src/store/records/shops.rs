//! Shops, their sealed secrets and data keys, and the tokens of their credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::{Shop, ShopId, ShopState, SourceOrigin, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::crypto::{SealKey, context};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::mirror_seal::{self, OpenedRow, first_form_secret};
use crate::store::texts::{self, ShopKeys, Texts};
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
    /// Up to format 2: the data key, sealed under the master key; base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) data_key: String,
    /// The source that accepted the secret, which is sealed for it. Absent in records of a release that did not note it:
    /// see [`crate::store::InstalledSource::unnoted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proved_at: Option<SourceOrigin>,
    /// What the secret is sealed for: 2: shop, client id and source; less: the shop.
    #[serde(default)]
    pub(crate) form: u8,
}

/// The shop alone of a [`ShopRecord`]. Lanes read it all the time, and checking addresses takes longer than all else.
#[derive(Deserialize)]
struct ShopOnly {
    shop: Shop,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) shop: ShopId,
    pub(crate) sealed: String,
    pub(crate) expires_at: Timestamp,
    /// Absent as in [`ShopRecord::proved_at`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<SourceOrigin>,
    /// As [`ShopRecord::form`]; 2: also when it expires.
    #[serde(default)]
    pub(crate) form: u8,
}

/// The form of sealed credentials that is written.
pub(crate) const SEAL_FORM: u8 = 2;

/// Stored for a deleted shop while its data key is needed.
pub(crate) const KEY_IS_NEEDED: &[u8] = b"1";

impl ShopRecord {
    /// A record without its secret.
    pub(crate) fn new(shop: Shop, proved_at: Option<SourceOrigin>) -> ShopRecord {
        ShopRecord { shop, secret: String::new(), data_key: String::new(), proved_at, form: SEAL_FORM }
    }

    fn context(&self) -> String {
        match self.form {
            SEAL_FORM => {
                let Shop { id, client_id, .. } = &self.shop;
                context("client secret", &[id, client_id, &origin_text(self.proved_at.as_ref())])
            }
            _ => first_form_secret(&self.shop.id),
        }
    }

    /// Seals a client secret into it.
    pub(crate) fn seal(&mut self, key: &SealKey, secret: &[u8]) -> Result<(), StoreError> {
        self.form = SEAL_FORM;
        self.secret = STANDARD.encode(key.seal(&self.context(), secret)?);
        Ok(())
    }

    /// Opens its client secret.
    pub(crate) fn open(&self, key: &SealKey) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let sealed = unbase64("a shop's secret", &self.secret)?;
        key.open(&self.context(), &sealed)
            .map_err(|_| StoreError::Sealed { context: format!("the client secret of shop {}", self.shop.id) })
    }

    /// Seals its secret for where it was proved.
    pub(crate) fn move_to(&mut self, key: &SealKey, proved_at: Option<SourceOrigin>) -> Result<(), StoreError> {
        let secret = self.open(key)?;
        self.proved_at = proved_at;
        self.seal(key, &secret)
    }
}

/// What is sealed for a source, or for none that is known.
pub(crate) fn origin_text(origin: Option<&SourceOrigin>) -> String {
    origin.map(SourceOrigin::canonical).unwrap_or_default()
}

pub(crate) fn read(tx: &Tx<'_>, shop: &str) -> Result<Option<ShopRecord>, StoreError> {
    tx.get(&keyspace::shop(shop))?.map(|bytes| opened(tx.keys, &bytes)).transpose()
}

fn opened(keys: &dyn ShopKeys, bytes: &[u8]) -> Result<ShopRecord, StoreError> {
    let mut record: ShopRecord = decode("a shop", bytes)?;
    let id = record.shop.id.clone();
    record.shop = texts::open(keys, &id, record.shop)?;
    Ok(record)
}

/// Whether the shop is there, and not deleted.
pub(crate) fn is_known(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    Ok(tx.get(&keyspace::shop(shop))?.is_some())
}

fn decode_shop(record: &[u8]) -> Result<Shop, StoreError> {
    decode::<ShopOnly>("a shop", record).map(|record| record.shop)
}

/// The shop alone, with its reason in clear.
fn opened_shop(keys: &dyn ShopKeys, record: &[u8]) -> Result<Shop, StoreError> {
    let shop = decode_shop(record)?;
    if !shop.has_texts() {
        return Ok(shop);
    }
    let id = shop.id.clone();
    texts::open(keys, &id, shop)
}

/// Whether the shop is there and neither paused nor refused.
pub(crate) fn is_active(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    let shop = tx.get(&keyspace::shop(shop))?.map(|bytes| decode_shop(&bytes)).transpose()?;
    Ok(shop.is_some_and(|shop| shop.state == ShopState::Active))
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

/// What the token of a client id is sealed for.
fn token_context(client_id: &str, record: &TokenRecord) -> String {
    match record.form {
        SEAL_FORM => {
            let expires_at = record.expires_at.as_millis().to_string();
            context("token", &[&record.shop, client_id, &origin_text(record.origin.as_ref()), &expires_at])
        }
        _ => format!("token|{}", record.shop),
    }
}

pub(crate) fn unbase64(what: &str, text: &str) -> Result<Vec<u8>, StoreError> {
    STANDARD.decode(text).map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

impl Store {
    /// All shops, by id.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn shops(&self) -> Result<Vec<Shop>, StoreError> {
        let records = self.0.kv.scan(keyspace::SHOPS, keyspace::SHOPS);
        records.map(|pair| opened_shop(&*self.0.keys, &pair?.1)).collect()
    }

    /// One shop.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn shop(&self, id: &str) -> Result<Option<Shop>, StoreError> {
        self.0.kv.get(&keyspace::shop(id))?.map(|bytes| opened_shop(&*self.0.keys, &bytes)).transpose()
    }

    /// Whether a client id is registered.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_client(&self, client_id: &str) -> Result<bool, StoreError> {
        Ok(self.0.kv.get(&keyspace::client(client_id))?.is_some())
    }

    pub(crate) fn shop_record(&self, id: &str) -> Result<Option<ShopRecord>, StoreError> {
        self.0.kv.get(&keyspace::shop(id))?.map(|bytes| opened(&*self.0.keys, &bytes)).transpose()
    }

    /// The credentials of a shop.
    ///
    /// # Errors
    /// [`StoreError::Absent`] without such a shop, [`StoreError::Sealed`] when they cannot be opened.
    pub fn secrets(&self, id: &str) -> Result<Secrets, StoreError> {
        let record = self.shop_record(id)?.ok_or(StoreError::Absent { what: "shop" })?;
        let opened = record.open(&self.shop_key(id)?)?;
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
        let found = self.0.keys.get(id);
        if let Ok(Some(key)) = found {
            return Ok(key);
        }
        let is_needed = || Ok(self.0.kv.get(&keyspace::deleted_shop(id))?.is_some_and(|kept| !kept.is_empty()));
        match found? {
            None if self.shop_record(id)?.is_none() && !is_needed()? => Err(StoreError::Absent { what: "shop" }),
            _ => Err(StoreError::Sealed { context: format!("the data key of shop {id}") }),
        }
    }

    /// The sealed part of a shop's row in the mirror, for the shop as it is now.
    pub(crate) fn mirror_part(&self, record: &ShopRecord) -> Result<Vec<u8>, StoreError> {
        let id = &record.shop.id;
        let data_key = self.0.keys.bytes(id)?;
        let data_key = data_key.ok_or_else(|| StoreError::Sealed { context: format!("the data key of shop {id}") })?;
        let secret = record.open(&SealKey::new(&data_key))?;
        let row = OpenedRow { data_key, secret, proved_at: record.proved_at.clone() };
        mirror_seal::seal(&self.0.keys.master(), &record.shop, &row)
    }

    /// The kept token of a client id. None: none, or unreadable.
    pub fn token(&self, client_id: &str) -> Option<Token> {
        let bytes = self.0.kv.get(&keyspace::token(client_id)).ok()??;
        let record: TokenRecord = decode("a token", &bytes).ok()?;
        let opened = self.open_token(client_id, &record).ok()?;
        let token = SecretString::from(String::from_utf8_lossy(&opened).into_owned());
        let origin = self.where_proved(record.origin).ok()??;
        Some(Token { token, expires_at: record.expires_at, origin })
    }

    pub(crate) fn open_token(&self, client_id: &str, record: &TokenRecord) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let sealed = unbase64("a token", &record.sealed)?;
        self.shop_key(&record.shop)?.open(&token_context(client_id, record), &sealed)
    }

    /// A token's record with the token sealed into it.
    pub(crate) fn seal_token(
        &self,
        client_id: &str,
        mut record: TokenRecord,
        token: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        record.form = SEAL_FORM;
        record.sealed = STANDARD.encode(self.shop_key(&record.shop)?.seal(&token_context(client_id, &record), token)?);
        encode("a token", &record)
    }

    /// Keeps a token of a registered client id; of any other it is not kept.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_token(&self, client_id: &str, token: Token) -> Result<(), StoreError> {
        let Token { token, expires_at, origin } = token;
        let Some(shop) = self.0.kv.get(&keyspace::client(client_id))? else { return Ok(()) };
        let shop = ShopId::from(String::from_utf8_lossy(&shop));
        let record = TokenRecord { shop, sealed: String::new(), expires_at, origin: Some(origin), form: SEAL_FORM };
        let record = self.seal_token(client_id, record, token.expose_secret().as_bytes())?;
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

impl Texts for ShopRecord {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.shop.each_text(visit);
    }

    fn has_texts(&self) -> bool {
        self.shop.has_texts()
    }
}
