//! The credentials of a shop, and where tokens are stored over a restart.

use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::domain::Timestamp;
use crate::domain::calls::CallStatus;

/// Digest of a secret, to notice that it changed.
pub(super) type Fingerprint = [u8; 32];

/// Client id and secret of a shop.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: SecretString,
}

impl Credentials {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Sha256::digest(self.client_secret.expose_secret().as_bytes()).into()
    }
}

/// A token as it is stored over a restart.
#[derive(Clone, Debug)]
pub struct StoredToken {
    pub token: SecretString,
    /// Wall clock.
    pub expires_at: Timestamp,
}

/// Stores tokens, sealed, for the next start. Losing one costs a login, nothing else.
pub trait TokenStore: Send + Sync {
    /// The last token stored for the client, if it can be read. Must not block for long.
    fn load(&self, client_id: &str) -> Option<StoredToken>;

    /// Replaces the client's stored token. The implementation logs failures.
    fn store<'a>(&'a self, client_id: &'a str, token: StoredToken) -> BoxFuture<'a, ()>;

    /// What is left of a pause that the login host asked an earlier process for. Must not block for long.
    fn load_pause(&self) -> Duration;

    /// Stores such a pause, counted from now. The implementation logs failures.
    fn store_pause(&self, length: Duration) -> BoxFuture<'_, ()>;

    /// Counts a login request that was sent, answered or not.
    fn count_login(&self, _: CallStatus) {}
}
