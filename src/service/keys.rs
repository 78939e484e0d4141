//! API keys: creating, listing and revoking them, and what a key may do.

use std::time::Duration;

use secrecy::SecretString;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::key_usage::stored_name;
use super::validation::{self, FieldErrors, KEY_DAYS, KEY_DAYS_MAX, SHOPS_MAX};
use super::{FieldError, Service, ServiceError};
use crate::domain::{ShopId, Timestamp};
use crate::store::{KeyRecord, Scope, StoreError};

const DAY: Duration = Duration::from_secs(86_400);

/// The permissions of an authenticated key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    pub key_id: String,
    pub name: String,
    pub scope: Scope,
    /// None: all shops.
    pub shops: Option<Vec<ShopId>>,
}

impl KeyGrant {
    /// Whether this key may see the shop.
    pub fn sees(&self, shop_id: &str) -> bool {
        self.shops.as_ref().is_none_or(|shops| shops.iter().any(|shop| shop == shop_id))
    }

    /// The shops that a list may show: all (`None`), or these; narrowed to `asked` if given. Empty: nothing to show.
    pub fn visible(&self, asked: Option<&str>) -> Option<Vec<ShopId>> {
        match asked {
            Some(shop) if self.sees(shop) => Some(vec![shop.into()]),
            Some(_) => Some(Vec::new()),
            None => self.shops.clone(),
        }
    }
}

/// A key to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub name: String,
    pub scope: Scope,
    pub shops: Option<Vec<String>>,
    /// Days from now; none: `KEY_DAYS` of `validation`.
    pub expires_days: Option<u32>,
}

impl NewKey {
    /// # Errors
    /// `Invalid` with all invalid fields.
    pub fn check(&self) -> Result<(), ServiceError> {
        let mut errors = FieldErrors::default();
        errors.text("name", &self.name, validation::name);
        if let Some(shops) = &self.shops {
            errors.list("shops", shops, SHOPS_MAX, validation::id);
            if self.scope == Scope::Admin {
                errors.add("shops", "require the scope `read`; an admin key is for all shops: leave them out");
            }
        }
        if self.expires_days.is_some_and(|days| !(1..=KEY_DAYS_MAX).contains(&days)) {
            errors.add("expires_days", format!("must be a whole number from 1 to {KEY_DAYS_MAX}"));
        }
        errors.finish()
    }
}

/// A key, without its text, and its last use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    pub key: KeyRecord,
    /// None: never, as far as is known.
    pub last_used_at: Option<Timestamp>,
}

impl KeyView {
    /// Whether it is an admin key that is valid at this time.
    pub fn administers_at(&self, now: Timestamp) -> bool {
        let key = &self.key;
        key.scope == Scope::Admin && key.shops.is_none() && key.expires_at.is_none_or(|end| now < end)
    }
}

/// A key that was just created.
#[derive(Debug)]
pub struct MintedKey {
    pub key: KeyRecord,
    /// What a client sends. It is not stored, and cannot be shown again.
    pub text: SecretString,
}

impl Service {
    /// The grant of an API key; none if it is unknown, expired or revoked. Compares digests in constant time. Called
    /// for every request, so it must not block.
    ///
    /// # Errors
    /// `Unavailable` when the keys cannot be read.
    pub fn verify_key(&self, key: &str) -> Result<Option<KeyGrant>, ServiceError> {
        let given: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        if self.admin_key.is_some_and(|admin| bool::from(admin.ct_eq(&given))) {
            let (key_id, name) = ("config".to_owned(), "configuration".to_owned());
            return Ok(Some(KeyGrant { key_id, name, scope: Scope::Admin, shops: None }));
        }
        let record = self.store.key(key)?;
        if let Some(record) = &record {
            self.key_usage.note(&record.id, self.store.clock().now());
        }
        Ok(record.map(|KeyRecord { id, name, scope, shops, .. }| KeyGrant { key_id: id, name, scope, shops }))
    }

    /// The key of this text, without counting that as a use; none if it is unknown, expired or revoked.
    ///
    /// # Errors
    /// As [`Service::list_keys`].
    pub fn find_key(&self, text: &str) -> Result<Option<KeyView>, ServiceError> {
        let Some(key) = self.store.key(text)? else { return Ok(None) };
        Ok(Some(KeyView { last_used_at: self.last_used_at(&key.id)?, key }))
    }

    /// Creates a key. Its text is returned only here; a stored response holds it sealed.
    ///
    /// # Errors
    /// `Invalid` for what [`NewKey::check`] rejects, and for an unknown shop.
    pub async fn create_key(&self, new: NewKey) -> Result<MintedKey, ServiceError> {
        new.check()?;
        self.check_shops(new.shops.as_deref().unwrap_or_default())?;
        let days = new.expires_days.unwrap_or(KEY_DAYS);
        let expires_at = self.store.clock().now() + days * DAY;
        let shops = new.shops.map(|shops| shops.into_iter().map(ShopId::from).collect());
        let (key, text) = self.store.create_key(&new.name, new.scope, shops, Some(expires_at)).await?;
        Ok(MintedKey { key, text: SecretString::from(text) })
    }

    /// All keys that are not revoked, oldest first.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be read.
    pub fn list_keys(&self) -> Result<Vec<KeyView>, ServiceError> {
        let used = |key: KeyRecord| Ok(KeyView { last_used_at: self.last_used_at(&key.id)?, key });
        self.store.keys()?.into_iter().map(used).collect()
    }

    /// Revokes a key from the next request on. False: no such key.
    ///
    /// # Errors
    /// Of the store; the key is then still valid.
    pub async fn revoke_key(&self, key_id: &str) -> Result<bool, ServiceError> {
        let was_there = self.store.revoke_key(key_id).await?;
        self.key_usage.forget(key_id);
        Ok(was_there)
    }

    /// Rejects unknown shops: the key would see a shop that is registered under such an id later.
    fn check_shops(&self, ids: &[String]) -> Result<(), ServiceError> {
        let mut wrong = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            if self.store.shop(id)?.is_none() {
                let message = format!("names `{id}`, which is no shop; GET /api/v1/shops lists the ids");
                wrong.push(FieldError { field: format!("shops[{index}]"), message });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(wrong)) }
    }

    /// When a key was last used; none: never, as far as is known.
    fn last_used_at(&self, key_id: &str) -> Result<Option<Timestamp>, StoreError> {
        match self.key_usage.last(key_id) {
            Some(at) => Ok(Some(at)),
            None => self.store.saved_time(&stored_name(key_id)),
        }
    }
}
