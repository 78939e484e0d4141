//! Verifies credentials with one login: new ones before they are stored, and those of a refused shop that is resumed.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::error::RETRY_AFTER;
use super::{FieldError, Service, ServiceError, validation};
use crate::domain::{Disposition, Shop};
use crate::source::{Credentials, SourceError};
use crate::store::{Secrets, StoreError};

impl Service {
    pub(super) async fn verify(&self, client_id: &str, client_secret: &SecretString) -> Result<(), ServiceError> {
        if client_secret.expose_secret().is_empty() && !self.source.takes_empty_secrets() {
            let (field, message) = ("client_secret".to_owned(), validation::SECRET.to_owned());
            return Err(ServiceError::Invalid(vec![FieldError { field, message }]));
        }
        let credentials = Credentials::new(client_id.to_owned(), client_secret.clone(), None);
        match self.source.prove(&credentials).await {
            Ok(()) => Ok(()),
            Err(SourceError::Refused { reason }) => Err(ServiceError::Refused(reason)),
            Err(error) => Err(ServiceError::LoginUnreachable {
                detail: error.to_string(),
                retry_after: Some(pause_after(&error)),
            }),
        }
    }

    /// Tries the stored secret of a refused shop: its account may have been off for a while. A new reason for the refusal
    /// is stored.
    pub(super) async fn verify_stored(&self, shop: &Shop) -> Result<(), ServiceError> {
        let id = &shop.id;
        let new_one = format!(
            "PATCH /api/v1/shops/{id} with client_secret, or, with the service stopped, `waybill shops rotate {id}`"
        );
        let Secrets { client_id, client_secret, proved_at } = match self.store.secrets(id) {
            Ok(secrets) => secrets,
            Err(StoreError::Sealed { .. } | StoreError::Record { .. }) => {
                return Err(ServiceError::Conflict(format!(
                    "the shop's secret cannot be read, so it cannot be tried; give it again: {new_one}"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        // A proof would send one that no source accepted yet.
        if proved_at.as_ref() != Some(self.source.origin()) {
            return Err(ServiceError::Conflict(format!(
                "the shop's secret was not accepted by this source ({}), so it is not sent there; give it again: {new_one}",
                self.source.origin()
            )));
        }
        match self.source.prove(&Credentials::new(client_id, client_secret, proved_at)).await {
            Ok(()) => Ok(()),
            Err(SourceError::Refused { reason }) => {
                let stored = SourceError::Refused { reason: reason.clone() }.to_string();
                self.store.note_refusal(shop, stored).await?;
                Err(ServiceError::StillRefused { reason, shop: id.clone() })
            }
            Err(error) => Err(ServiceError::LoginUnreachable {
                detail: format!("{error}; the shop stays refused, and its secret can be tried again later"),
                retry_after: Some(pause_after(&error)),
            }),
        }
    }
}

/// While logins are paused, earlier attempts are not even sent.
fn pause_after(error: &SourceError) -> Duration {
    match error.disposition() {
        Disposition::Postpone { after } => after,
        Disposition::Retry { .. } | Disposition::RetryOnce | Disposition::Park { .. } | Disposition::StopShop => {
            RETRY_AFTER
        }
    }
}
