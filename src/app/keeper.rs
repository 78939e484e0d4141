//! Tokens over restarts: the source's keeper, over the store. Losing one costs a login, nothing else. And the
//! login host's wish for no logins at all, which holds over a restart too.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::calls::CallStatus;
use crate::source::{StoredToken, TokenStore};
use crate::store::{LOGIN_RULE, Store};

/// Under which rule, of no account, the store keeps the login host's pause.
pub(super) const LOGIN: &str = "login";

/// Keeps tokens sealed in the store.
pub(super) struct StoreKeeper(Store);

impl StoreKeeper {
    pub(super) fn new(store: Store) -> StoreKeeper {
        StoreKeeper(store)
    }
}

impl TokenStore for StoreKeeper {
    fn load(&self, client_id: &str) -> Option<StoredToken> {
        self.0.token(client_id).map(|(token, expires_at)| StoredToken { token, expires_at })
    }

    fn store<'a>(&'a self, client_id: &'a str, kept: StoredToken) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.keep_token(client_id, &kept.token, kept.expires_at).await {
                error.warn("a token could not be kept; the next start logs in again");
            }
        })
    }

    fn count_login(&self, status: CallStatus) {
        self.0.count_call(LOGIN_RULE, status);
    }

    fn load_pause(&self) -> Duration {
        self.0.pause_left("", LOGIN).unwrap_or_else(|error| {
            error.warn("the login host's pause could not be read; it is taken as over");
            Duration::ZERO
        })
    }

    fn store_pause(&self, length: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.keep_pause("", LOGIN, length).await {
                error.warn("the login host's pause could not be kept; it holds until this process ends");
            }
        })
    }
}
