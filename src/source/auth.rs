//! How a call shows whose it is.
//!
//! Called by the client. Most marketplaces want a token from their login host ([`Auth::ClientCredentials`], in
//! [`super::token`]); the others want what the shop was registered with, in each call. Nothing of it ever stands in
//! an address.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::login::sensitive;
use super::problem::SourceError;
use super::token::Credentials;

/// The ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// OAuth 2 client credentials: a short-lived token from the token address.
    #[default]
    ClientCredentials,
    /// `Authorization: Basic`, of client id and secret.
    Basic,
    /// `Authorization: Bearer`, the secret itself.
    Bearer,
    /// The secret in a header of this name.
    ApiKey(String),
}

impl Auth {
    /// Whether each call carries the shop's own credentials, and nobody is asked for a token.
    pub(super) fn is_fixed(&self) -> bool {
        *self != Auth::ClientCredentials
    }

    /// Puts the shop's own credentials into a call.
    ///
    /// # Errors
    /// [`SourceError::Refused`] for a secret that cannot stand in a header.
    pub(super) fn sign(&self, credentials: &Credentials, headers: &mut HeaderMap) -> Result<(), SourceError> {
        let secret = credentials.client_secret.expose_secret();
        let (name, text) = match self {
            Auth::ClientCredentials => return Ok(()),
            Auth::Basic => {
                let pair = Zeroizing::new(format!("{}:{secret}", credentials.client_id));
                (AUTHORIZATION, Zeroizing::new(format!("Basic {}", &*Zeroizing::new(STANDARD.encode(&*pair)))))
            }
            Auth::Bearer => (AUTHORIZATION, Zeroizing::new(format!("Bearer {secret}"))),
            Auth::ApiKey(name) => {
                let unusable = || SourceError::Shape { detail: "source.api_key_header is no header's name".to_owned() };
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
                (name, Zeroizing::new(secret.to_owned()))
            }
        };
        let value: Option<HeaderValue> = sensitive(&text);
        let reason = "the secret holds characters that no header takes".to_owned();
        headers.insert(name, value.ok_or(SourceError::Refused { reason })?);
        Ok(())
    }
}
