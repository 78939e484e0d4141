//! Adoption: gives a shop of MySQL that could not be restored its old id, after its credentials were proved.
//!
//! For a master key that is lost, and for rows that are damaged: registered again, the shop would get a new id, and each
//! of its documents would be there twice.

use secrecy::SecretString;

use super::error::RETRY_AFTER;
use super::restore::RestoreError;
use super::validation::{self, FieldErrors};
use super::{Service, ServiceError};
use crate::domain::{Mode, Shop, ShopState, Trigger};
use crate::sink::Sink;
use crate::store::UnrestoredShop;

/// A shop to adopt, with the credentials that it has now.
#[derive(Debug)]
pub struct Adoption {
    pub shop_id: String,
    /// None: that of its row.
    pub client_id: Option<String>,
    pub client_secret: SecretString,
}

impl Service {
    /// The shops of MySQL that could not be restored, with what is wrong.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be read.
    pub fn unrestored_shops(&self) -> Result<Vec<UnrestoredShop>, ServiceError> {
        Ok(self.store.unrestored_shops()?)
    }

    /// Verifies the credentials, and makes the shop known under the id of its row in MySQL. Its documents are not read
    /// again if they are unchanged.
    ///
    /// # Errors
    /// `NotFound`: MySQL has no such shop. `Conflict`: it is known here, or its client id is, or there is no MySQL. As
    /// [`Service::create_shop`] for its credentials. `Unavailable` while MySQL cannot be read.
    pub async fn adopt_shop(&self, adoption: Adoption) -> Result<Shop, ServiceError> {
        let Adoption { shop_id, client_id, client_secret } = adoption;
        let mut errors = FieldErrors::default();
        errors.text_if("client_id", client_id.as_deref(), validation::id);
        errors.finish()?;
        let Sink::Mysql(mysql) = &self.sink else {
            let what = "there is no MySQL, so there are no shops of an earlier data directory to adopt";
            return Err(ServiceError::Conflict(what.into()));
        };
        if self.store.shop(&shop_id)?.is_some() {
            return Err(ServiceError::Conflict(format!(
                "shop {shop_id} is registered; to change its secret: PATCH /api/v1/shops/{shop_id} with client_secret, or \
                 `waybill shops rotate {shop_id}`"
            )));
        }
        let row = mysql.shops().await?.into_iter().find(|row| row.shop.id == shop_id.as_str());
        let mut shop = row.ok_or(ServiceError::NotFound)?.shop;
        if let Some(client_id) = client_id {
            if shop.account == shop.client_id {
                shop.account.clone_from(&client_id);
            }
            shop.client_id = client_id;
        }
        if self.store.has_client(&shop.client_id)? {
            return Err(self.registered_already(&shop.client_id));
        }
        self.verify(&shop.client_id, &client_secret).await?;
        (shop.state, shop.reason) = (ShopState::Active, None);
        // Newer than the row, which it replaces.
        shop.updated_at = self.store.clock().now().max(shop.updated_at + std::time::Duration::from_millis(1));
        let documents = self.restore_documents(mysql, &shop).await.map_err(|error| match error {
            RestoreError::Sink(error) => error.into(),
            RestoreError::Store(error) => error.into(),
            other => ServiceError::Unavailable { detail: other.to_string(), retry_after: RETRY_AFTER },
        })?;
        let budgets = self.budgets_in_use(&shop);
        if !self.store.adopt_shop(shop.clone(), &client_secret, budgets).await? {
            return Err(self.registered_already(&shop.client_id));
        }
        tracing::info!(shop.id = %shop.id, documents, "adopted a shop of MySQL");
        if let Err(error) = self.engine.walk(&shop, None, Mode::Full, Trigger::Schedule).await {
            error.warn("failed to start the first walk of an adopted shop; the schedule starts it later");
        }
        Ok(shop)
    }
}
