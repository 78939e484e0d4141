//! Request authentication.
//!
//! Called by the client. Most marketplaces want a token from their login host ([`Auth::ClientCredentials`], in
//! [`super::token`]); the others want the shop's own credentials in each call. They go into headers, never into an
//! address.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::http::sensitive;
use super::problem::SourceError;
use crate::domain::Auth;

impl Auth {
    /// Adds the shop's own credentials to the headers of a call.
    ///
    /// # Errors
    /// [`SourceError::Refused`] for a secret that no header can carry.
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
                let unusable =
                    || SourceError::Shape { detail: "source.api_key_header is not a valid header name".to_owned() };
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
                (name, Zeroizing::new(secret.to_owned()))
            }
        };
        let value: Option<HeaderValue> = sensitive(&text);
        let reason = "the secret contains characters that an HTTP header cannot carry".to_owned();
        headers.insert(name, value.ok_or(SourceError::Refused { reason })?);
        Ok(())
    }
}
