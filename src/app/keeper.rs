//! Tokens over restarts: the source's keeper, over the store. Losing one costs a login, nothing else.

use futures_util::future::BoxFuture;

use crate::source::{KeptToken, TokenKeeper};
use crate::store::Store;

/// Keeps tokens sealed in the store.
pub(super) struct StoreKeeper(Store);

impl StoreKeeper {
    pub(super) fn new(store: Store) -> StoreKeeper {
        StoreKeeper(store)
    }
}

impl TokenKeeper for StoreKeeper {
    fn load(&self, client_id: &str) -> Option<KeptToken> {
        self.0.token(client_id).map(|(token, expires_at)| KeptToken { token, expires_at })
    }

    fn keep<'a>(&'a self, client_id: &'a str, kept: KeptToken) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.keep_token(client_id, &kept.token, kept.expires_at).await {
                error.warn("a token could not be kept; the next start logs in again");
            }
        })
    }
}
