//! Shops, their sealed secrets and data keys, and the tokens of their credentials.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::PoisonError;

use crate::domain::{Shop, ShopId, ShopState};
use crate::store::crypto::{SealKey, random_key, random_text};
use crate::store::keyspace::texts;
use crate::store::ops::purge;
use crate::store::ops::repair_mirror;
use crate::store::records::outbox;
use crate::store::records::rate_slots;
use crate::store::{Store, StoreError, Tx, decode, encode};

/// What is needed to register a shop.
#[derive(Debug)]
pub struct NewShop {
    pub name: String,
    pub client_id: String,
    pub client_secret: SecretString,
    /// Default: the client id.
    pub account: Option<String>,
    pub resources: Vec<String>,
}

/// What may change of a shop; `None` leaves it.
#[derive(Debug, Default)]
pub struct ShopChange {
    pub name: Option<String>,
    pub client_secret: Option<SecretString>,
    pub account: Option<String>,
    pub resources: Option<Vec<String>>,
    pub state: Option<ShopState>,
}

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
    secret: String,
    /// Sealed under the master key; base64.
    data_key: String,
}

#[derive(Serialize, Deserialize)]
struct TokenRecord {
    shop: ShopId,
    sealed: String,
    expires_at: i64,
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
    tx.get(&texts(b's', &[shop]))?.map(|bytes| decode("a shop", &bytes)).transpose()
}

/// Whether the shop is there, and not deleted.
pub(crate) fn is_known(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    Ok(tx.get(&texts(b's', &[shop]))?.is_some())
}

/// Whether the shop is there and neither paused nor refused.
pub(crate) fn is_active(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    Ok(read(tx, shop)?.is_some_and(|record| record.shop.state == ShopState::Active))
}

pub(crate) fn put(tx: &mut Tx<'_>, record: &ShopRecord, now: i64) -> Result<(), StoreError> {
    tx.put(texts(b's', &[&record.shop.id]), encode("a shop", record)?);
    outbox::append_shop(tx, &record.shop.id, now)
}

/// When a change is noted: each later than the one before, whatever the clock says, as the mirror keeps the latest.
fn changed_at(shop: &Shop, now: i64) -> i64 {
    now.max(shop.updated_at.saturating_add(1))
}

/// Stops a shop whose credentials were refused, unless it changed since they were read.
pub(crate) fn refuse(tx: &mut Tx<'_>, shop: &str, read_at: i64, reason: String, now: i64) -> Result<bool, StoreError> {
    let is_same = read(tx, shop)?.is_some_and(|record| record.shop.updated_at == read_at);
    if is_same {
        set_state(tx, shop, ShopState::Refused, Some(reason), now)?;
    }
    Ok(is_same)
}

/// Changes a shop's state, if it still exists.
pub(crate) fn set_state(
    tx: &mut Tx<'_>,
    shop: &str,
    state: ShopState,
    reason: Option<String>,
    now: i64,
) -> Result<(), StoreError> {
    let Some(mut record) = read(tx, shop)? else { return Ok(()) };
    if record.shop.state == state && record.shop.reason == reason {
        return Ok(());
    }
    record.shop.state = state;
    record.shop.reason = reason;
    record.shop.updated_at = changed_at(&record.shop, now);
    put(tx, &record, now)
}

/// Destroys the data key of a deleted shop, once the sink has all it shall have. Where its rows stay, it is still
/// known that there are some, so that they can be purged later.
pub(crate) fn forget_key(tx: &mut Tx<'_>, shop: &str, purged: bool) {
    let key = texts(b'z', &[shop]);
    if purged {
        tx.delete(key);
        repair_mirror::note_purged(tx, shop);
    } else {
        tx.put(key, Vec::new());
    }
}

fn key_context(shop: &str) -> String {
    format!("data key|{shop}")
}

fn secret_context(shop: &str) -> String {
    format!("client secret|{shop}")
}

fn token_context(shop: &str) -> String {
    format!("token|{shop}")
}

fn unbase64(what: &str, text: &str) -> Result<Vec<u8>, StoreError> {
    STANDARD.decode(text).map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

impl Store {
    /// Registers a shop. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::DuplicateClient`] when the client id is registered already.
    pub async fn create_shop(&self, new: NewShop) -> Result<Shop, StoreError> {
        let id = random_text(12)?;
        let data_key = random_key()?;
        let sealer = SealKey::new(&data_key);
        let secret = STANDARD.encode(sealer.seal(&secret_context(&id), new.client_secret.expose_secret().as_bytes())?);
        let data_key = STANDARD.encode(self.0.master.seal(&key_context(&id), &*data_key)?);
        let now = self.now();
        let account = new.account.unwrap_or_else(|| new.client_id.clone());
        let shop = Shop {
            id,
            name: new.name,
            client_id: new.client_id,
            account,
            resources: new.resources,
            state: ShopState::Active,
            reason: None,
            created_at: now,
            updated_at: now,
        };
        let record = ShopRecord { shop: shop.clone(), secret, data_key };
        self.transact_given(move |tx| {
            let client = texts(b'c', &[&record.shop.client_id]);
            if tx.get(&client)?.is_some() {
                return Err(StoreError::DuplicateClient);
            }
            tx.put(client, record.shop.id.clone().into_bytes());
            put(tx, &record, now)
        })
        .await?;
        Ok(shop)
    }

    /// All shops, by id.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn shops(&self) -> Result<Vec<Shop>, StoreError> {
        let records = self.0.kv.scan(b"s", b"s");
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
        Ok(self.0.kv.get(&texts(b'c', &[client_id]))?.is_some())
    }

    pub(crate) fn shop_record(&self, id: &str) -> Result<Option<ShopRecord>, StoreError> {
        self.0.kv.get(&texts(b's', &[id]))?.map(|bytes| decode("a shop", &bytes)).transpose()
    }

    /// Changes a shop. None: no such shop. When a new secret meets a data key that cannot be opened any more, the
    /// shop gets a new one and begins anew: what was sealed with the old one is lost to us.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn update_shop(&self, id: &str, change: ShopChange) -> Result<Option<Shop>, StoreError> {
        let mut new_key = None;
        let sealed = match &change.client_secret {
            None => None,
            Some(secret) => {
                let key = match self.shop_key(id) {
                    Err(StoreError::Absent { .. }) => return Ok(None),
                    Err(StoreError::Sealed { .. } | StoreError::Record { .. }) => {
                        let data_key = random_key()?;
                        new_key = Some(STANDARD.encode(self.0.master.seal(&key_context(id), &*data_key)?));
                        SealKey::new(&data_key)
                    }
                    key => key?,
                };
                Some(STANDARD.encode(key.seal(&secret_context(id), secret.expose_secret().as_bytes())?))
            }
        };
        if new_key.is_some() {
            tracing::error!(
                shop.id = id,
                "the shop's data key cannot be read: it gets a new one, and all is read again"
            );
            self.clear_shop(id).await?;
            // Nobody can open them any more.
            self.forget_archived(id).await?;
        }
        let (id, now) = (id.to_owned(), self.now());
        let changed = self.transact_given(move |tx| {
            let Some(mut record) = read(tx, &id)? else { return Ok(None) };
            let shop = &mut record.shop;
            if let Some(account) = change.account.as_ref().filter(|account| **account != shop.account) {
                rate_slots::take_over(tx, &shop.account, account)?;
            }
            shop.name = change.name.unwrap_or_else(|| shop.name.clone());
            shop.account = change.account.unwrap_or_else(|| shop.account.clone());
            shop.resources = change.resources.unwrap_or_else(|| shop.resources.clone());
            // It may have been refused since somebody looked.
            let mended = (sealed.is_some() && shop.state == ShopState::Refused).then_some(ShopState::Active);
            if let Some(state) = change.state.or(mended) {
                shop.state = state;
                shop.reason = None;
            }
            shop.updated_at = changed_at(shop, now);
            if let Some(data_key) = new_key {
                record.data_key = data_key;
            }
            if let Some(sealed) = sealed {
                record.secret = sealed;
                tx.delete(texts(b't', &[&record.shop.client_id]));
            }
            put(tx, &record, now)?;
            Ok(Some(record.shop))
        });
        let changed = changed.await?;
        if let Some(shop) = changed.as_ref().filter(|shop| shop.state != ShopState::Active) {
            self.stop_runs(&shop.id).await?;
        }
        Ok(changed)
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
                let kept = self.0.kv.get(&texts(b'z', &[id]))?.filter(|kept| !kept.is_empty());
                let kept = kept.ok_or(StoreError::Absent { what: "shop" })?;
                String::from_utf8_lossy(&kept).into_owned()
            }
        };
        let key = self.open_key(id, &sealed)?;
        self.0.shop_keys.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), key.clone());
        Ok(key)
    }

    fn open_key(&self, id: &str, sealed: &str) -> Result<SealKey, StoreError> {
        let opened = self.0.master.open(&key_context(id), &unbase64("a data key", sealed)?)?;
        let bytes: &[u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_| StoreError::Record { what: "a data key".to_owned(), detail: "wrong length".to_owned() })?;
        Ok(SealKey::new(bytes))
    }

    /// Whether our master key opens a record.
    pub(crate) fn opens(&self, record: &ShopRecord) -> Result<(), StoreError> {
        let id = &record.shop.id;
        let key = self.open_key(id, &record.data_key)?;
        key.open(&secret_context(id), &unbase64("a shop's secret", &record.secret)?).map(drop)
    }

    /// The kept token of a client id and when it ends (wall clock). None: none, or unreadable.
    pub fn token(&self, client_id: &str) -> Option<(SecretString, i64)> {
        let bytes = self.0.kv.get(&texts(b't', &[client_id])).ok()??;
        let record: TokenRecord = decode("a token", &bytes).ok()?;
        let sealed = STANDARD.decode(&record.sealed).ok()?;
        let opened = self.shop_key(&record.shop).ok()?.open(&token_context(&record.shop), &sealed).ok()?;
        Some((SecretString::from(String::from_utf8_lossy(&opened).into_owned()), record.expires_at))
    }

    /// Keeps a token of a registered client id; of any other it is not kept.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn keep_token(&self, client_id: &str, token: &SecretString, expires_at: i64) -> Result<(), StoreError> {
        let Some(shop) = self.0.kv.get(&texts(b'c', &[client_id]))? else { return Ok(()) };
        let shop = String::from_utf8_lossy(&shop).into_owned();
        let sealed = self.shop_key(&shop)?.seal(&token_context(&shop), token.expose_secret().as_bytes())?;
        let record = encode("a token", &TokenRecord { shop, sealed: STANDARD.encode(sealed), expires_at })?;
        let key = texts(b't', &[client_id]);
        self.transact(move |tx| {
            tx.put(key, record);
            Ok(())
        })
        .await
    }

    /// Removes a shop and all its state here. With `purge` its data key goes at once (what waits in
    /// the outbox becomes unreadable) and the sink deletes its rows; otherwise the rows stay and what
    /// waits is still written; a later deletion with `purge` takes them too. False: no such shop.
    ///
    /// # Errors
    /// The engine's errors. A deletion that a crash cut off goes on with [`Store::resume_deletions`].
    pub async fn delete_shop(&self, id: &str, purge: bool) -> Result<bool, StoreError> {
        let (shop, now) = (id.to_owned(), self.now());
        let found = self
            .transact_given(move |tx| {
                let left = texts(b'z', &[&shop]);
                let kept = match read(tx, &shop)? {
                    Some(record) => {
                        tx.delete(texts(b's', &[&shop]));
                        tx.delete(texts(b'c', &[&record.shop.client_id]));
                        tx.delete(texts(b't', &[&record.shop.client_id]));
                        record.data_key
                    }
                    None if purge && tx.get(&left)?.is_some() => String::new(),
                    None => return Ok(false),
                };
                tx.put(left, if purge { Vec::new() } else { kept.into_bytes() });
                tx.put(texts(b'e', &[&shop]), Vec::new());
                outbox::append_shop_deleted(tx, &shop, purge, now)?;
                Ok(true)
            })
            .await?;
        if found {
            if purge {
                self.0.shop_keys.write().unwrap_or_else(PoisonError::into_inner).remove(id);
            }
            self.clear_shop(id).await?;
        }
        Ok(found)
    }

    /// Goes on with deletions that a crash cut off. Called at start.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn resume_deletions(&self) -> Result<(), StoreError> {
        let deleted: Vec<String> = self
            .0
            .kv
            .scan(b"e", b"e")
            .map(|pair| {
                pair.map(|(key, _)| String::from_utf8_lossy(key.get(1..key.len() - 1).unwrap_or_default()).into_owned())
            })
            .collect::<Result<_, _>>()?;
        for shop in deleted {
            self.clear_shop(&shop).await?;
        }
        Ok(())
    }

    /// Removes jobs, ledger, checkpoints and parked records of a shop, in bounded steps.
    async fn clear_shop(&self, shop: &str) -> Result<(), StoreError> {
        let mut left = purge::Left::default();
        loop {
            let (shop, now) = (shop.to_owned(), self.now());
            match self.transact(move |tx| purge::some(tx, &shop, left, now)).await? {
                Some(next) => left = next,
                None => return Ok(()),
            }
        }
    }
}
