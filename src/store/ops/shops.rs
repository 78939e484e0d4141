//! Registering, changing and deleting shops.

use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::domain::{Shop, ShopId, ShopState};
use crate::store::crypto::{SealKey, random_key, random_text};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::purge;
use crate::store::ops::shop_state;
use crate::store::records::outbox;
use crate::store::records::rate_slots;
use crate::store::records::shops::{self, ShopRecord};
use crate::store::tx::handle::Store;

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

impl Store {
    /// Registers a shop, whose secret was proved at the source in use. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::DuplicateClient`] when the client id is registered already.
    pub async fn create_shop(&self, new: NewShop) -> Result<Shop, StoreError> {
        let id = ShopId::from(random_text(12)?);
        let data_key = random_key()?;
        let sealer = SealKey::new(&data_key);
        let secret =
            STANDARD.encode(sealer.seal(&shops::secret_context(&id), new.client_secret.expose_secret().as_bytes())?);
        let data_key = STANDARD.encode(self.0.master.seal(&shops::key_context(&id), &*data_key)?);
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
        let record = ShopRecord { shop: shop.clone(), secret, data_key, proved_at: self.0.source.get().cloned() };
        self.transact_given(move |tx| {
            let client = keyspace::client(&record.shop.client_id);
            if tx.get(&client)?.is_some() {
                return Err(StoreError::DuplicateClient);
            }
            tx.put(client, record.shop.id.as_bytes().to_vec());
            shop_state::put(tx, &record, now)
        })
        .await?;
        Ok(shop)
    }

    /// Changes a shop. None: no such shop. When a new secret meets a data key that cannot be opened any more, the
    /// shop gets a new one and starts over: what was sealed with the old key is lost.
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
                        new_key = Some(STANDARD.encode(self.0.master.seal(&shops::key_context(id), &*data_key)?));
                        SealKey::new(&data_key)
                    }
                    key => key?,
                };
                Some(STANDARD.encode(key.seal(&shops::secret_context(id), secret.expose_secret().as_bytes())?))
            }
        };
        if new_key.is_some() {
            tracing::error!(
                shop.id = id,
                "the shop's data key cannot be read: it gets a new one, and all is read again"
            );
            self.clear_shop(id).await?;
            // No key opens them any more.
            self.forget_archived(id).await?;
        }
        let (id, now, here) = (id.to_owned(), self.now(), self.0.source.get().cloned());
        let changed = self.transact_given(move |tx| {
            let Some(mut record) = shops::read(tx, &id)? else { return Ok(None) };
            let shop = &mut record.shop;
            if let Some(account) = change.account.as_ref().filter(|account| **account != shop.account) {
                rate_slots::merge_from(tx, &shop.account, account)?;
            }
            shop.name = change.name.unwrap_or_else(|| shop.name.clone());
            shop.account = change.account.unwrap_or_else(|| shop.account.clone());
            shop.resources = change.resources.unwrap_or_else(|| shop.resources.clone());
            // It may have been refused since the caller looked.
            let reactivated = (sealed.is_some() && shop.state == ShopState::Refused).then_some(ShopState::Active);
            if let Some(state) = change.state.or(reactivated) {
                shop.state = state;
                shop.reason = None;
            }
            shop.updated_at = shop_state::changed_at(shop, now);
            if let Some(data_key) = new_key {
                record.data_key = data_key;
            }
            if let Some(sealed) = sealed {
                record.secret = sealed;
                record.proved_at = here;
                tx.delete(keyspace::token(&record.shop.client_id));
            }
            shop_state::put(tx, &record, now)?;
            Ok(Some(record.shop))
        });
        let changed = changed.await?;
        if let Some(shop) = changed.as_ref().filter(|shop| shop.state != ShopState::Active) {
            self.stop_runs(&shop.id).await?;
        }
        Ok(changed)
    }

    /// Removes a shop and all its state here. With `purge` its data key goes at once (what waits in
    /// the outbox becomes unreadable) and the sink deletes its rows; otherwise the rows stay and what
    /// waits is still written; a later deletion with `purge` takes them too. False: no such shop.
    ///
    /// # Errors
    /// The engine's errors. A deletion that a crash cut off goes on with [`Store::resume_deletions`].
    pub async fn delete_shop(&self, id: &str, purge: bool) -> Result<bool, StoreError> {
        let (shop, now) = (ShopId::from(id), self.now());
        let found = self
            .transact_given(move |tx| {
                let left = keyspace::deleted_shop(&shop);
                let kept = match shops::read(tx, &shop)? {
                    Some(record) => {
                        tx.delete(keyspace::shop(&shop));
                        tx.delete(keyspace::client(&record.shop.client_id));
                        tx.delete(keyspace::token(&record.shop.client_id));
                        record.data_key
                    }
                    None if purge && tx.get(&left)?.is_some() => String::new(),
                    None => return Ok(false),
                };
                tx.put(left, if purge { Vec::new() } else { kept.into_bytes() });
                tx.put(keyspace::removal(&shop), Vec::new());
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

    /// Resumes deletions that a crash interrupted. Called at start.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn resume_deletions(&self) -> Result<(), StoreError> {
        let removals = self.0.kv.scan(keyspace::REMOVALS, keyspace::REMOVALS);
        let deleted: Vec<ShopId> =
            removals.map(|pair| Ok(keyspace::only_shop(&pair?.0))).collect::<Result<_, StoreError>>()?;
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
            match self.transact(move |tx| purge::purge_step(tx, &shop, left, now)).await? {
                Some(next) => left = next,
                None => return Ok(()),
            }
        }
    }
}
