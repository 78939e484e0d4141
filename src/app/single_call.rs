//! Single API calls without the engine, for commands. They use the same persistent rate budget as the service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::open_store::{OpenedStore, open_store};
use super::parts::source_config;
use super::{source_check, token_store::PersistentTokens};
use crate::catalog::{Definition, Rule};
use crate::config::Config;
use crate::domain::{Clock, ListParams, Page, Shop, ShopState};
use crate::source::pages;
use crate::source::{Budget, Call, Credentials, Outcome, Position, Source, SourceError};
use crate::store::{Secrets, Store, StoreError};

/// The store and the marketplace client, without the engine.
pub(super) struct Caller<'a> {
    pub(super) config: &'a Config,
    pub(super) store: Store,
    pub(super) source: Source,
    /// A rotation of the master key was cut off.
    pub(super) is_rotating: bool,
}

/// The shop that a call is made for, and what it logs in with.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) shop: &'a Shop,
    pub(super) credentials: &'a Credentials,
}

impl<'a> Caller<'a> {
    /// Opens the data directory.
    ///
    /// # Errors
    /// The store does not open or belongs to another source, the master key is wrong, or a URL is unusable.
    pub(super) fn open(config: &'a Config) -> anyhow::Result<Caller<'a>> {
        let OpenedStore { store, is_rotating, .. } = open_store(config, &Clock::system())?;
        let origin = config.source.origin();
        if let Some(other) = source_check::other_source(&store, &origin, &config.data_dir)? {
            return Err(other.into());
        }
        store.use_source(origin);
        let tokens = Arc::new(PersistentTokens::new(store.clone()));
        let source = Source::new(source_config(&config.source), tokens, Clock::system())?;
        Ok(Caller { config, store, source, is_rotating })
    }

    /// The named shop, or the first active one that syncs the resource; without a resource, any active one.
    ///
    /// # Errors
    /// There is none; names the remedy.
    pub(super) fn shop(&self, id: Option<&str>, resource: Option<&str>) -> anyhow::Result<Shop> {
        let shops = self.store.shops()?;
        let syncs = |shop: &Shop| resource.is_none_or(|resource| shop.syncs(resource));
        let found = match id {
            Some(id) => shops.into_iter().find(|shop| shop.id == id),
            None => shops.into_iter().find(|shop| shop.state == ShopState::Active && syncs(shop)),
        };
        if let Some(why) = found.as_ref().and_then(|shop| shop.state.inactive_reason()) {
            anyhow::bail!(why);
        }
        found.ok_or_else(|| match id {
            Some(id) => super::NoSuchShop(id.to_owned()).into(),
            None => {
                let wanted = resource.map(|resource| format!(" syncs `{resource}`")).unwrap_or(" exists".to_owned());
                anyhow::anyhow!("no active shop{wanted}; add one: waybill shops add --name NAME --client-id ID")
            }
        })
    }

    /// A shop's credentials.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn credentials(&self, shop: &Shop) -> Result<Credentials, StoreError> {
        let Secrets { client_id, client_secret, proved_at } = self.store.secrets(&shop.id)?;
        Ok(Credentials::new(client_id, client_secret, proved_at))
    }

    /// Makes one call when its budget allows it. Persists a `Retry-After`, which later processes honour.
    ///
    /// # Errors
    /// Store errors; errors of the API are in the outcome.
    pub(super) async fn call(
        &self,
        Identity { shop, credentials }: Identity<'_>,
        call: &Call,
    ) -> Result<Outcome, StoreError> {
        let Some(rule) = self.config.rules.find("GET", &call.path) else {
            let outcome = self.source.get(credentials, call).await;
            return self.counted(&call.path, outcome).await;
        };
        let mut budget = self.take_slot(&shop.account, rule).await?;
        let outcome = self.source.get(credentials, call).await;
        if let Some(pause) = outcome.settle(&mut budget, Instant::now()) {
            self.store.save_pause(&shop.account, &rule.name, pause).await?;
        }
        self.counted(&rule.name, outcome).await
    }

    /// Persists the count of a call, and of a login before it.
    async fn counted(&self, rule: &str, outcome: Outcome) -> Result<Outcome, StoreError> {
        if let Some(status) = outcome.call_status() {
            self.store.count_call(rule, status);
        }
        self.store.save_calls().await?;
        Ok(outcome)
    }

    /// How long until the budget allows a call of a path.
    ///
    /// # Errors
    /// Store errors.
    pub(super) fn wait_for(&self, shop: &Shop, path: &str) -> Result<Duration, StoreError> {
        let Some(rule) = self.config.rules.find("GET", path) else { return Ok(Duration::ZERO) };
        let (store, now) = (&self.store, Instant::now());
        let (occupied, pause) =
            (store.occupied(&shop.account, &rule.name)?, store.pause_left(&shop.account, &rule.name)?);
        let mut budget = Budget::restored(rule.limit, occupied, pause, now);
        Ok(budget.next_free(now).map_or(Duration::ZERO, |until| until.saturating_duration_since(now)))
    }

    /// Reads one list page.
    ///
    /// # Errors
    /// Errors of the call, or of reading its response.
    pub(super) async fn page(
        &self,
        identity: Identity<'_>,
        definition: &Definition,
        combination: &ListParams,
        position: &Position,
    ) -> anyhow::Result<Page> {
        let call = pages::list_call(definition, combination, position, self.store.clock().now());
        let outcome = self.call(identity, &call).await?;
        let body = outcome.result.map_err(|error| to_error(&error))?;
        let answer = pages::ListResponse { body: &body, next_link: outcome.next_link.as_deref(), previous: None };
        Ok(pages::page(definition, position, answer, |_| None)?.value)
    }

    /// Reads one document.
    ///
    /// # Errors
    /// Store errors, and that the resource has no details; errors of the call are in the result.
    pub(super) async fn document(
        &self,
        identity: Identity<'_>,
        definition: &Definition,
        id: &str,
    ) -> anyhow::Result<Read> {
        let call = pages::detail_call(definition, id).ok_or_else(|| anyhow::anyhow!("the row has no body"))?;
        let outcome = self.call(identity, &call).await?;
        let now = self.store.clock().now();
        let read = |body| pages::detail(definition, id, &body, || None, now).map(|parsed| parsed.value.body);
        Ok(Read { path: call.path, result: outcome.result.and_then(read) })
    }

    /// Takes a slot of the call's budget and persists it before the call, for the next process. Waits until one is
    /// free.
    async fn take_slot(&self, account: &str, rule: &Rule) -> Result<Budget, StoreError> {
        let store = &self.store;
        let (occupied, pause) = (store.occupied(account, &rule.name)?, store.pause_left(account, &rule.name)?);
        let mut budget = Budget::restored(rule.limit, occupied, pause, Instant::now());
        while budget.take(1, Instant::now()).is_err() {
            let now = Instant::now();
            let until = budget.next_free(now).unwrap_or(now).max(now + Duration::from_secs(1));
            let wait = (until - now).as_secs() + 1;
            tracing::warn!("waiting {wait} s for the rate rule `{}`", rule.name);
            tokio::time::sleep_until(until).await;
        }
        store.occupy(account, &rule.name, budget.occupied(Instant::now())).await?;
        Ok(budget)
    }
}

/// Result of reading one document.
pub(super) struct Read {
    /// Of the call, with the id.
    pub(super) path: String,
    pub(super) result: Result<Bytes, SourceError>,
}

/// Why a document could not be read, with the key of the definition that says where it is.
pub(super) fn document_error(definition: &Definition, path: &str, error: &SourceError) -> String {
    let hint = match error {
        SourceError::NotFound { .. } | SourceError::Rejected { .. } | SourceError::Redirected { .. } => {
            "; is it right?"
        }
        _ => "",
    };
    format!("GET {path} (resource.{}.detail.path): {}{hint}", definition.name, to_error(error))
}

/// Converts an error of the API, with a likely cause.
pub(super) fn to_error(error: &SourceError) -> anyhow::Error {
    match error {
        SourceError::Throttled { .. } => {
            anyhow::anyhow!(
                "{error}; another program uses the rate limit of this account, or this command ran too often"
            )
        }
        error => anyhow::anyhow!("{error}"),
    }
}
