//! The credentials of a shop, and where tokens are stored over a restart.

use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::problem::SourceError;
use super::redact::{Anchors, Sent, SentClient, SentToken};
use crate::domain::calls::CallStatus;
use crate::domain::{SourceOrigin, Timestamp};

/// Digest of a secret, to notice that it changed.
pub(super) type Fingerprint = [u8; 32];

/// Client id and secret of a shop.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub client_id: String,
    pub client_secret: SecretString,
    /// The only source that they may be sent to. None: they were just given, and only a proof may send them.
    pub proved_at: Option<SourceOrigin>,
    /// Of id and secret.
    anchors: Anchors,
}

/// Why a login is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For calls.
    Calls,
    /// To prove the credentials.
    Proof,
}

impl Credentials {
    /// Credentials that may be sent to that source only; without one, only to prove them.
    pub fn new(client_id: String, client_secret: SecretString, proved_at: Option<SourceOrigin>) -> Credentials {
        let anchors = Anchors::of_client(&client_id, client_secret.expose_secret());
        Credentials { client_id, client_secret, proved_at, anchors }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        Sha256::digest(self.client_secret.expose_secret().as_bytes()).into()
    }

    /// What a request with them carries; with a token if it has one.
    pub(super) fn sent<'a>(&'a self, token: Option<SentToken<'a>>) -> Sent<'a> {
        let (id, secret) = (self.client_id.as_str(), self.client_secret.expose_secret());
        Sent::by(SentClient { id, secret, anchors: Some(&self.anchors) }, token)
    }

    /// Whether they may be sent to a source: asked immediately before each login, and before each call that carries
    /// them or their token.
    ///
    /// # Errors
    /// `Refused`: they were proved somewhere else.
    pub(super) fn check_source(&self, here: &SourceOrigin, purpose: Purpose) -> Result<(), SourceError> {
        let proved_at = match &self.proved_at {
            Some(proved_at) if proved_at == here => return Ok(()),
            None if purpose == Purpose::Proof => return Ok(()),
            Some(proved_at) => format!("were proved at another source ({proved_at})"),
            None => "were not proved".to_owned(),
        };
        let reason = format!("the credentials {proved_at}, so they are not sent to this one ({here})");
        Err(SourceError::Refused { reason })
    }
}

/// A token as it is stored over a restart.
#[derive(Clone, Debug)]
pub struct StoredToken {
    pub token: SecretString,
    /// Wall clock.
    pub expires_at: Timestamp,
    /// The source that issued it, and the only one that it is sent to.
    pub origin: SourceOrigin,
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
