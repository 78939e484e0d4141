//! Registering, changing and deleting shops.

use secrecy::{ExposeSecret, SecretString};

use crate::domain::{Shop, ShopId, ShopState};
use crate::store::crypto::{SealKey, random_key, random_text};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::purge;
use crate::store::ops::shop_state;
use crate::store::records::outbox;
use crate::store::records::rate_slots;
use crate::store::records::shops::{self, KEY_IS_NEEDED, ShopRecord};
use crate::store::records::unrestored;
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
        let data_key = random_key()?;
        let mut record = ShopRecord::new(shop.clone(), self.0.source.get().cloned());
        record.seal(&SealKey::new(&data_key), new.client_secret.expose_secret().as_bytes())?;
        let id = shop.id.clone();
        self.change_keys(move |keys| keys.add(vec![(id, data_key)])).await?;
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
        let Some(mut record) = self.shop_record(id)? else { return Ok(None) };
        let sealed = match &change.client_secret {
            None => None,
            Some(secret) => {
                let key = match self.shop_key(id) {
                    Err(StoreError::Sealed { .. } | StoreError::Record { .. }) => self.replace_key(id).await?,
                    key => key?,
                };
                record.proved_at = self.0.source.get().cloned();
                record.seal(&key, secret.expose_secret().as_bytes())?;
                Some(record)
            }
        };
        let (id, now) = (id.to_owned(), self.now());
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
            if let Some(sealed) = sealed {
                (record.secret, record.form, record.proved_at) = (sealed.secret, sealed.form, sealed.proved_at);
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

    /// Notes why the credentials of a refused shop were refused again, unless it changed since it was read.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn note_refusal(&self, shop: &Shop, reason: String) -> Result<bool, StoreError> {
        let (id, read_at, now) = (shop.id.clone(), shop.updated_at, self.now());
        self.transact(move |tx| shop_state::refuse(tx, &id, read_at, reason, now)).await
    }

    /// Gives a shop another data key in place of one that cannot be read.
    async fn replace_key(&self, id: &str) -> Result<SealKey, StoreError> {
        tracing::error!(shop.id = id, "the shop's data key cannot be read: it gets a new one, and all is read again");
        self.clear_shop(id).await?;
        // No key opens them any more.
        self.forget_archived(id).await?;
        let (shop, data_key) = (ShopId::from(id), random_key()?);
        let key = SealKey::new(&data_key);
        self.change_keys(move |keys| keys.add(vec![(shop, data_key)])).await?;
        Ok(key)
    }

    /// Removes a shop and all its state here. With `purge` its data key is destroyed before this returns (what waits in
    /// the outbox becomes unreadable) and the sink deletes its rows; otherwise the rows stay and what
    /// waits is still written; a later deletion with `purge` takes them too. False: no such shop.
    ///
    /// # Errors
    /// The engine's errors. A deletion that a crash cut off goes on with [`Store::resume_deletions`], and the next opening
    /// destroys the key.
    pub async fn delete_shop(&self, id: &str, purge: bool) -> Result<bool, StoreError> {
        let (shop, now) = (ShopId::from(id), self.now());
        let found = self
            .transact_given(move |tx| {
                let left = keyspace::deleted_shop(&shop);
                match shops::read(tx, &shop)? {
                    Some(record) => {
                        tx.delete(keyspace::shop(&shop));
                        tx.delete(keyspace::client(&record.shop.client_id));
                        tx.delete(keyspace::token(&record.shop.client_id));
                    }
                    None if purge && tx.get(&left)?.is_some() => {}
                    // A shop of the mirror that could not be restored: its rows may be deleted all the same.
                    None if purge && unrestored::forget(tx, &shop)? => {}
                    None => return Ok(false),
                }
                tx.put(left, if purge { Vec::new() } else { KEY_IS_NEEDED.to_vec() });
                tx.put(keyspace::removal(&shop), Vec::new());
                outbox::append_shop_deleted(tx, &shop, purge, now)?;
                Ok(true)
            })
            .await?;
        if found {
            if purge {
                let shop = ShopId::from(id);
                self.change_keys(move |keys| keys.destroy(vec![shop])).await?;
            }
            self.clear_shop(id).await?;
        }
        Ok(found)
    }

    /// Destroys the data keys of deleted shops that the sink has all of. Such a shop was not purged: its rows stay.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn destroy_old_keys(&self) -> Result<(), StoreError> {
        let mut old = Vec::new();
        for pair in self.0.kv.scan(keyspace::DELETED_SHOPS, keyspace::DELETED_SHOPS) {
            let (key, needed) = pair?;
            let shop = keyspace::only_shop(&key);
            if needed.is_empty() && self.shop_record(&shop)?.is_none() && self.0.keys.has(&shop) {
                old.push(shop);
            }
        }
        if old.is_empty() { Ok(()) } else { self.change_keys(|keys| keys.destroy(old)).await }
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
