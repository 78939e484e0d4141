//! Shops: registering, changing, deleting and syncing them. Credentials are verified before they are stored.

use std::collections::HashSet;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::validation::{self, FieldErrors};
use super::{Service, ServiceError, restore};
use crate::catalog::Definition;
use crate::domain::health::ShopHealth;
use crate::domain::{Mode, RunId, Shop, ShopId, ShopState, Trigger};
use crate::store::{NewShop, ShopChange, StoreError};

/// What a caller wants to change on a shop; `None` leaves it. At least one field is set.
#[derive(Debug, Default)]
pub struct ShopPatch {
    pub name: Option<String>,
    pub client_secret: Option<SecretString>,
    pub account: Option<String>,
    /// Empty: all configured resources, including ones added later.
    pub resources: Option<Vec<String>>,
    pub paused: Option<bool>,
}

impl ShopPatch {
    /// # Errors
    /// `Invalid` with all invalid fields.
    pub fn check(&self, known: &[Arc<Definition>]) -> Result<(), ServiceError> {
        let mut errors = FieldErrors::default();
        errors.text_if("name", self.name.as_deref(), validation::name);
        errors.text_if(
            "client_secret",
            self.client_secret.as_ref().map(ExposeSecret::expose_secret),
            validation::secret,
        );
        errors.text_if("account", self.account.as_deref(), validation::id);
        errors.resources(self.resources.as_deref().unwrap_or_default(), known);
        errors.finish()
    }
}

/// Checks a shop to register; `known` are the configured resources.
///
/// # Errors
/// `Invalid` with all invalid fields.
fn check_new_shop(new: &NewShop, known: &[Arc<Definition>]) -> Result<(), ServiceError> {
    let mut errors = FieldErrors::default();
    errors.text("name", &new.name, validation::name);
    errors.text("client_id", &new.client_id, validation::id);
    errors.text("client_secret", new.client_secret.expose_secret(), validation::secret);
    errors.text_if("account", new.account.as_deref(), validation::id);
    errors.resources(&new.resources, known);
    errors.finish()
}

impl Service {
    /// Verifies the credentials, registers the shop and starts its first sync.
    ///
    /// # Errors
    /// `Invalid` for invalid fields, `Conflict` for a client id that is registered already, `Refused` when the login
    /// host refuses the credentials, `LoginUnreachable` when it cannot be reached, `Unavailable` until the shops in
    /// MySQL are known.
    pub async fn create_shop(&self, new: NewShop) -> Result<Shop, ServiceError> {
        check_new_shop(&new, &self.definitions)?;
        if let Some(detail) = self.shops_to_restore().await? {
            return Err(ServiceError::Unavailable { detail, retry_after: restore::PAUSE });
        }
        if self.store.has_client(&new.client_id)? {
            return Err(self.registered_already(&new.client_id));
        }
        let unrestored = self.store.unrestored_shops()?;
        if let Some(known) = unrestored.iter().find(|shop| shop.client_id == new.client_id) {
            let id = &known.id;
            return Err(ServiceError::Conflict(format!(
                "MySQL has this client id as shop {id}, which is not restored: {}. Adopt it, and it keeps its id and its \
                 rows: POST /api/v1/adoptions with shop_id and client_secret, or `waybill shops adopt {id}`; or purge it \
                 first: DELETE /api/v1/shops/{id}?purge=true",
                known.fault
            )));
        }
        self.verify(&new.client_id, &new.client_secret).await?;
        let shop = self.store.create_shop(new).await?;
        // The shop is registered even if this fails; the schedule or the next start begins its first walk.
        if let Err(error) = self.engine.walk(&shop, None, Mode::Full, Trigger::Schedule).await {
            error.warn("failed to start the first walk of a new shop; the schedule starts it later");
        }
        Ok(shop)
    }

    /// All shops, in any order.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be read.
    pub fn shops(&self) -> Result<Vec<Shop>, ServiceError> {
        Ok(self.store.shops()?)
    }

    /// None: no such shop.
    ///
    /// # Errors
    /// As [`Service::shops`].
    pub fn shop(&self, shop_id: &str) -> Result<Option<Shop>, ServiceError> {
        Ok(self.store.shop(shop_id)?)
    }

    /// The health of these shops; deleted ones are left out.
    ///
    /// # Errors
    /// As [`Service::shops`].
    pub fn shops_health(&self, of: &HashSet<ShopId>) -> Result<Vec<ShopHealth>, ServiceError> {
        Ok(self.health_of(of)?.shops.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    /// Changes a shop; a new secret is verified before it replaces the old one. Resuming a refused shop tries the secret
    /// that it has. None: no such shop.
    ///
    /// # Errors
    /// As [`Service::create_shop`], and `StillRefused` when the secret that it has is refused again.
    pub async fn update_shop(&self, shop_id: &str, patch: ShopPatch) -> Result<Option<Shop>, ServiceError> {
        let Some(known) = self.store.shop(shop_id)? else { return Ok(None) };
        patch.check(&self.definitions)?;
        match (&patch.client_secret, &known.state, patch.paused) {
            (Some(secret), ..) => self.verify(&known.client_id, secret).await?,
            (None, ShopState::Refused, Some(false)) => self.verify_stored(&known).await?,
            (None, ShopState::Refused, Some(true)) => {
                let what = "the shop's credentials were refused, so it is not called anyway; resuming it tries its secret again";
                return Err(ServiceError::Conflict(what.into()));
            }
            (None, ..) => {}
        }
        let state = match (patch.paused, &known.state) {
            (Some(true), _) => Some(ShopState::Paused),
            (Some(false), _) => Some(ShopState::Active),
            (None, ShopState::Refused) if patch.client_secret.is_some() => Some(ShopState::Active),
            (None, _) => None,
        };
        let ShopPatch { name, client_secret, account, resources, .. } = patch;
        let change = ShopChange { name, client_secret, account, resources, state };
        let shop = self.store.update_shop(shop_id, change).await?;
        if let Some(shop) = &shop {
            self.engine.wake_shop(shop, &known.account)?;
            if known.state != ShopState::Active && shop.state == ShopState::Active {
                // Its runs were stopped while it was not active.
                self.engine.walk(shop, None, Mode::Incremental, Trigger::Schedule).await?;
            } else {
                self.engine.start_missing_runs(std::slice::from_ref(shop)).await?;
            }
        }
        Ok(shop)
    }

    /// Deletes a shop; with `purge` its rows too, in the background. False: no such shop.
    ///
    /// # Errors
    /// Of the store; the shop is then still there.
    pub async fn delete_shop(&self, shop_id: &str, purge: bool) -> Result<bool, ServiceError> {
        let shop = self.store.shop(shop_id)?;
        let deleted = self.store.delete_shop(shop_id, purge).await;
        if let Some(shop) = shop {
            self.engine.forget_credentials(&shop);
        }
        Ok(deleted?)
    }

    /// Starts a run per stream of one resource, or of all; returns their ids. A stream with an open run keeps it.
    ///
    /// # Errors
    /// `NotFound`: no such shop. `Conflict`: it is paused or refused, or does not sync the resource.
    pub async fn start_sync(
        &self,
        shop_id: &str,
        resource: Option<&str>,
        mode: Mode,
    ) -> Result<Vec<RunId>, ServiceError> {
        let shop = self.store.shop(shop_id)?.ok_or(ServiceError::NotFound)?;
        if let Some(why) = shop.state.inactive_reason() {
            return Err(ServiceError::Conflict(why.into()));
        }
        if let Some(resource) = resource.filter(|resource| !shop.syncs(resource)) {
            return Err(ServiceError::Conflict(format!(
                "the shop does not sync the resource `{resource}`; add it to its `resources`"
            )));
        }
        Ok(self.engine.walk(&shop, resource, mode, Trigger::Request).await?)
    }

    pub(super) fn registered_already(&self, client_id: &str) -> ServiceError {
        let shops = self.store.shops().unwrap_or_default();
        let Some(known) = shops.iter().find(|shop| shop.client_id == client_id) else {
            return StoreError::DuplicateClient.into();
        };
        ServiceError::Conflict(format!(
            "this client id is registered already, as shop {id}; to change its secret: PATCH /api/v1/shops/{id} with \
             client_secret, or, with the service stopped, `waybill shops rotate {id}`",
            id = known.id
        ))
    }
}
