//! Persists tokens, and the login host's pause, over restarts. Losing a token costs one login, nothing else.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::calls::CallStatus;
use crate::source::{StoredToken, TokenStore};
use crate::store::{LOGIN_RULE, Store, Token};

/// Stores tokens sealed. The login host's pause is kept under [`LOGIN_RULE`], with an empty account.
pub(super) struct PersistentTokens(Store);

impl PersistentTokens {
    pub(super) fn new(store: Store) -> PersistentTokens {
        PersistentTokens(store)
    }
}

impl TokenStore for PersistentTokens {
    fn load(&self, client_id: &str) -> Option<StoredToken> {
        let Token { token, expires_at, origin } = self.0.token(client_id)?;
        Some(StoredToken { token, expires_at, origin })
    }

    fn store<'a>(&'a self, client_id: &'a str, kept: StoredToken) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let StoredToken { token, expires_at, origin } = kept;
            if let Err(error) = self.0.save_token(client_id, Token { token, expires_at, origin }).await {
                error.warn("failed to store a token; the next start logs in again");
            }
        })
    }

    fn count_login(&self, status: CallStatus) {
        self.0.count_call(LOGIN_RULE, status);
    }

    fn load_pause(&self) -> Duration {
        self.0.pause_left("", LOGIN_RULE).unwrap_or_else(|error| {
            error.warn("failed to read the login host's pause; treating it as over");
            Duration::ZERO
        })
    }

    fn store_pause(&self, length: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.save_pause("", LOGIN_RULE, length).await {
                error.warn("failed to store the login host's pause; it is obeyed until this process ends");
            }
        })
    }
}
