//! Implements the HTTP API's `Backend`: converts between the types of `http` and those of the store, the sink and the
//! engine, and verifies credentials before storing them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Inner, restore};
use crate::catalog::Definition;
use crate::domain::calls::CallDay;
use crate::domain::clock::Millis;
use crate::domain::health::ShopHealth;
use crate::domain::{Completeness, Disposition, LogThrottle, Mode, Parked, RunView, Shop, ShopState, Trigger};
use crate::http::backend::{
    AnswerName, ApiError, Backend, BackendFuture, DocumentItem, DocumentPage, DocumentQuery, Drift, DriftEntry,
    FieldError, KeyGrant, KeyView, MintedKey, NewKey, NewShop, ParkedQuery, Readiness, ResourceSelection, RunQuery,
    Scope, ShopChange, Status, StatusScope, StoredResponse,
};
use crate::http::validation::{self, KEY_DAYS};
use crate::sink::{ListQuery, SinkError};
use crate::source::{Credentials, SourceError};
use crate::store::{self, KeyRecord, RunFilter, StoreError};

/// `Retry-After` of temporary failures.
const RETRY_AFTER: Duration = Duration::from_secs(10);
const DAY_MS: i64 = 86_400_000;

impl Backend for Inner {
    fn cursor_key(&self) -> [u8; 32] {
        self.store.cursor_key().try_into().unwrap_or([0; 32])
    }

    fn resources(&self) -> Vec<Arc<Definition>> {
        self.definitions.clone()
    }

    fn verify_key(&self, key: &str) -> Result<Option<KeyGrant>, ApiError> {
        let given: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        if self.admin_key.is_some_and(|admin| bool::from(admin.ct_eq(&given))) {
            return Ok(Some(KeyGrant {
                key_id: "config".into(),
                name: "configuration".into(),
                scope: Scope::Admin,
                shops: None,
            }));
        }
        let record = self.store.key(key).map_err(store_error)?;
        if let Some(record) = &record {
            self.key_usage.note(&record.id, self.store.clock().now());
        }
        Ok(record.map(|record| KeyGrant {
            key_id: record.id,
            name: record.name,
            scope: scope(record.scope),
            shops: record.shops,
        }))
    }

    fn load_response(&self, name: &AnswerName) -> Result<Option<StoredResponse>, ApiError> {
        self.store.saved_response(name).map_err(store_error)
    }

    fn store_response(&self, name: AnswerName, answer: StoredResponse) -> BackendFuture<'_, ()> {
        Box::pin(async move { self.store.save_response(name, answer).await.map_err(store_error) })
    }

    fn create_key(&self, key: NewKey) -> BackendFuture<'_, MintedKey> {
        Box::pin(async move {
            key.check()?;
            self.check_shops(key.shops.as_deref().unwrap_or_default())?;
            let days = i64::from(key.expires_days.unwrap_or(KEY_DAYS));
            let expires_at = self.store.clock().now() + days * DAY_MS;
            let scope = match key.scope {
                Scope::Admin => store::Scope::Admin,
                Scope::Read => store::Scope::Read,
            };
            let made = self.store.create_key(&key.name, scope, key.shops, Some(expires_at)).await;
            let (record, text) = made.map_err(store_error)?;
            Ok(MintedKey { view: key_view(record), key: SecretString::from(text) })
        })
    }

    fn list_keys(&self) -> BackendFuture<'_, Vec<KeyView>> {
        Box::pin(async move {
            let records = self.store.keys().map_err(store_error)?.into_iter();
            let used = |id: &str| self.last_used_at(id).map_err(store_error);
            records.map(|record| Ok(KeyView { last_used_at: used(&record.id)?, ..key_view(record) })).collect()
        })
    }

    fn revoke_key<'a>(&'a self, key_id: &'a str) -> BackendFuture<'a, bool> {
        Box::pin(async move {
            let was_there = self.store.revoke_key(key_id).await.map_err(store_error)?;
            self.key_usage.forget(key_id);
            Ok(was_there)
        })
    }

    fn create_shop(&self, shop: NewShop) -> BackendFuture<'_, Shop> {
        Box::pin(async move {
            shop.check(&self.definitions)?;
            if let Some(detail) = self.shops_to_restore().await.map_err(store_error)? {
                return Err(ApiError::Unavailable { detail, retry_after: restore::PAUSE });
            }
            if self.store.has_client(&shop.client_id).map_err(store_error)? {
                return Err(self.registered_already(&shop.client_id));
            }
            self.verify(&shop.client_id, &shop.client_secret).await?;
            let new = store::NewShop {
                name: shop.name,
                client_id: shop.client_id,
                client_secret: shop.client_secret,
                account: shop.account,
                // Empty means all.
                resources: shop.resources.unwrap_or_default(),
            };
            let shop = self.store.create_shop(new).await.map_err(store_error)?;
            // The shop is registered even if this fails; the schedule or the next start begins its first walk.
            if let Err(error) = self.engine.walk(&shop, None, Mode::Full, Trigger::Schedule).await {
                error.warn("failed to start the first walk of a new shop; the schedule starts it later");
            }
            Ok(shop)
        })
    }

    fn shops(&self) -> BackendFuture<'_, Vec<Shop>> {
        Box::pin(async move { self.store.shops().map_err(store_error) })
    }

    fn shops_health(&self, of: HashSet<String>) -> BackendFuture<'_, Vec<ShopHealth>> {
        Box::pin(async move {
            let health = self.health_of(&of).map_err(store_error)?;
            Ok(health.shops.into_iter().map(Arc::unwrap_or_clone).collect())
        })
    }

    fn shop<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<Shop>> {
        Box::pin(async move { self.store.shop(shop_id).map_err(store_error) })
    }

    fn update_shop<'a>(&'a self, shop_id: &'a str, change: ShopChange) -> BackendFuture<'a, Option<Shop>> {
        Box::pin(async move {
            let Some(known) = self.store.shop(shop_id).map_err(store_error)? else { return Ok(None) };
            change.check(&self.definitions)?;
            if let Some(secret) = &change.client_secret {
                self.verify(&known.client_id, secret).await?;
            }
            if known.state == ShopState::Refused && change.paused.is_some() && change.client_secret.is_none() {
                return Err(ApiError::Conflict(
                    "the shop's credentials were refused, so it is not called; give it a new secret first".into(),
                ));
            }
            let state = match (change.paused, &known.state) {
                (Some(true), _) => Some(ShopState::Paused),
                (Some(false), _) => Some(ShopState::Active),
                (None, ShopState::Refused) if change.client_secret.is_some() => Some(ShopState::Active),
                (None, _) => None,
            };
            let change = store::ShopChange {
                name: change.name,
                client_secret: change.client_secret,
                account: change.account,
                resources: change.resources.map(|takes| match takes {
                    ResourceSelection::All => Vec::new(),
                    ResourceSelection::Only(names) => names,
                }),
                state,
            };
            let shop = self.store.update_shop(shop_id, change).await.map_err(store_error)?;
            if let Some(shop) = &shop {
                self.engine.wake_shop(shop, &known.account).map_err(store_error)?;
                if known.state != ShopState::Active && shop.state == ShopState::Active {
                    // Its runs were stopped while it was not active.
                    self.engine.walk(shop, None, Mode::Incremental, Trigger::Schedule).await.map_err(store_error)?;
                } else {
                    self.engine.start_missing_runs(std::slice::from_ref(shop)).await.map_err(store_error)?;
                }
            }
            Ok(shop)
        })
    }

    fn delete_shop<'a>(&'a self, shop_id: &'a str, purge: bool) -> BackendFuture<'a, bool> {
        Box::pin(async move {
            if let Some(shop) = self.store.shop(shop_id).map_err(store_error)? {
                self.source.forget(&shop.client_id);
            }
            self.store.delete_shop(shop_id, purge).await.map_err(store_error)
        })
    }

    fn start_sync<'a>(&'a self, shop_id: &'a str, resource: Option<String>, mode: Mode) -> BackendFuture<'a, Vec<u64>> {
        Box::pin(async move {
            let shop = self.store.shop(shop_id).map_err(store_error)?.ok_or(ApiError::NotFound)?;
            if let Some(why) = shop.state.inactive_reason() {
                return Err(ApiError::Conflict(why.into()));
            }
            if let Some(resource) = &resource
                && !shop.syncs(resource)
            {
                return Err(ApiError::Conflict(format!(
                    "the shop does not sync the resource `{resource}`; add it to its `resources`"
                )));
            }
            self.engine.walk(&shop, resource.as_deref(), mode, Trigger::Request).await.map_err(store_error)
        })
    }

    fn completeness<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<Vec<Completeness>>> {
        Box::pin(async move {
            let Some(shop) = self.store.shop(shop_id).map_err(store_error)? else { return Ok(None) };
            // One at a time: a comparison reads the whole ledger of a shop.
            let _one = self.completeness_lock.lock().await;
            Ok(Some(self.compare_shop(&shop).await?))
        })
    }

    fn drift(&self, resource: &str) -> Drift {
        let found = self.engine.drift(resource);
        let place = |(left, seen): (_, crate::sync::drift::Seen)| DriftEntry {
            left,
            documents: seen.documents,
            first_seen: seen.first,
            last_seen: seen.last,
        };
        Drift {
            since: found.since.unwrap_or(self.started_at),
            places: found.places.into_iter().map(place).collect(),
            more: found.more,
        }
    }

    fn close_gaps<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<u64>> {
        Box::pin(async move {
            let Some(shop) = self.store.shop(shop_id).map_err(store_error)? else { return Ok(None) };
            let _one = self.completeness_lock.lock().await;
            Ok(Some(Inner::close_gaps(self, &shop).await?))
        })
    }

    fn documents<'a>(&'a self, resource: &'a str, query: DocumentQuery) -> BackendFuture<'a, DocumentPage> {
        Box::pin(async move {
            let query = self.list_query(resource, query)?;
            self.sink.list(resource, &query).await.map_err(sink_error)
        })
    }

    fn document<'a>(
        &'a self,
        resource: &'a str,
        shop_id: &'a str,
        id: &'a str,
    ) -> BackendFuture<'a, Option<DocumentItem>> {
        Box::pin(async move { self.sink.get(resource, shop_id, id).await.map_err(sink_error) })
    }

    fn runs(&self, query: RunQuery) -> BackendFuture<'_, Vec<RunView>> {
        Box::pin(async move {
            let store = self.store.clone();
            let shops = query.shops.map(|shops| shops.into_iter().collect());
            let filter = RunFilter { shops, resource: query.resource, state: query.state };
            let read = move || store.find_runs(&filter, query.before, query.limit);
            let runs = store::blocking(read).await.map_err(store_error)?;
            self.with_forecast(runs).map_err(store_error)
        })
    }

    fn run(&self, run_id: u64) -> BackendFuture<'_, Option<RunView>> {
        Box::pin(async move {
            let run = self.store.run(run_id).map_err(store_error)?;
            let mut views = self.with_forecast(run.into_iter().collect()).map_err(store_error)?;
            Ok(views.pop())
        })
    }

    fn parked(&self, query: ParkedQuery) -> BackendFuture<'_, Vec<Parked>> {
        Box::pin(async move {
            let store = self.store.clone();
            let read = move || {
                store.parked(query.after, query.limit, |parked| {
                    query.shops.as_ref().is_none_or(|shops| shops.contains(&parked.shop_id))
                })
            };
            store::blocking(read).await.map_err(store_error)
        })
    }

    fn retry_parked(&self, parked_id: u64) -> BackendFuture<'_, bool> {
        Box::pin(async move { self.store.retry_parked(parked_id).await.map_err(store_error) })
    }

    fn retry_all_parked<'a>(&'a self, shop_id: &'a str, resource: Option<&'a str>) -> BackendFuture<'a, u64> {
        Box::pin(async move { self.store.retry_all_parked(shop_id, resource).await.map_err(store_error) })
    }

    fn status(&self, of: Option<StatusScope>) -> BackendFuture<'_, Status> {
        Box::pin(async move { self.status_now(of.as_ref()).map_err(store_error) })
    }

    fn calls(&self, days: u64) -> BackendFuture<'_, (Option<Millis>, Vec<CallDay>)> {
        Box::pin(async move {
            let totals = self.store.call_totals().map_err(store_error)?;
            let since = totals.iter().map(|total| total.since).min();
            Ok((since, self.store.call_days(days).map_err(store_error)?))
        })
    }

    fn ready(&self, of: Option<Vec<String>>) -> Readiness {
        self.readiness(of)
    }

    fn metrics(&self) -> String {
        self.render_metrics()
    }
}

impl Inner {
    /// Rejects unknown shops: the key would see a shop that is registered under such an id later.
    fn check_shops(&self, ids: &[String]) -> Result<(), ApiError> {
        let mut wrong = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            if self.store.shop(id).map_err(store_error)?.is_none() {
                let message = format!("there is no shop `{id}`; GET /api/v1/shops lists the ids");
                wrong.push(FieldError { field: format!("shops[{index}]"), message });
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(ApiError::Invalid(wrong)) }
    }

    fn registered_already(&self, client_id: &str) -> ApiError {
        let shops = self.store.shops().unwrap_or_default();
        let Some(known) = shops.iter().find(|shop| shop.client_id == client_id) else {
            return store_error(StoreError::DuplicateClient);
        };
        ApiError::Conflict(format!(
            "this client id is registered already, as shop {id}; to change its secret: PATCH /api/v1/shops/{id} with \
             client_secret, or, with the service stopped, `waybill shops rotate {id}`",
            id = known.id
        ))
    }

    async fn verify(&self, client_id: &str, client_secret: &SecretString) -> Result<(), ApiError> {
        if client_secret.expose_secret().is_empty() && !self.source.takes_empty_secrets() {
            let (field, message) = ("client_secret".to_owned(), validation::SECRET.to_owned());
            return Err(ApiError::Invalid(vec![FieldError { field, message }]));
        }
        let credentials = Credentials {
            client_id: client_id.to_owned(),
            client_secret: SecretString::from(client_secret.expose_secret().to_owned()),
        };
        match self.source.prove(&credentials).await {
            Ok(()) => Ok(()),
            Err(SourceError::Refused { reason }) => Err(ApiError::Refused(reason)),
            Err(error) => {
                // While logins are paused, earlier attempts are not even sent.
                let after = match error.disposition() {
                    Disposition::Postpone { after } => after,
                    _ => RETRY_AFTER,
                };
                Err(ApiError::LoginUnreachable { detail: error.to_string(), retry_after: Some(after) })
            }
        }
    }

    fn list_query(&self, resource: &str, query: DocumentQuery) -> Result<ListQuery, ApiError> {
        let definition =
            self.definitions.iter().find(|definition| definition.name == resource).ok_or(ApiError::NotFound)?;
        let mut filters = Vec::with_capacity(query.filters.len());
        for (name, value) in query.filters {
            let target = definition.table.filters.iter().find(|(filter, _)| *filter == name);
            let (_, target) = target
                .ok_or_else(|| ApiError::Internal(format!("unknown filter `{name}` was not rejected earlier")))?;
            filters.push((target.clone(), value));
        }
        Ok(ListQuery {
            shops: query.shops,
            shop: None,
            filters,
            from: query.from,
            to: query.to,
            q: query.q,
            limit: query.limit,
            after: query.after,
        })
    }
}

fn scope(scope: store::Scope) -> Scope {
    match scope {
        store::Scope::Admin => Scope::Admin,
        store::Scope::Read => Scope::Read,
    }
}

fn key_view(record: KeyRecord) -> KeyView {
    KeyView {
        id: record.id,
        name: record.name,
        scope: scope(record.scope),
        shops: record.shops,
        created_at: record.created_at,
        expires_at: record.expires_at,
        last_used_at: None,
    }
}

pub(super) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::DuplicateClient => ApiError::Conflict("this client id is registered already".into()),
        StoreError::Absent { .. } => ApiError::NotFound,
        StoreError::Full => ApiError::NoRoom {
            detail: "the disk that holds the data directory is full".into(),
            retry_after: RETRY_AFTER,
        },
        // Temporary: the process is about to be restarted.
        StoreError::Failed | StoreError::Engine(_) | StoreError::Io { .. } => {
            tracing::error!(%error, "a request failed because the store failed");
            ApiError::Unavailable { detail: "the store failed; the service restarts".into(), retry_after: RETRY_AFTER }
        }
        other => ApiError::Internal(other.to_string()),
    }
}

pub(super) fn sink_error(error: SinkError) -> ApiError {
    static LOGGED: Mutex<LogThrottle> = Mutex::new(LogThrottle::new());
    let allowed = LOGGED.lock().unwrap_or_else(PoisonError::into_inner).allow(Instant::now());
    if let Some(suppressed) = allowed {
        tracing::warn!(error = error.text, suppressed, "failed to read from the sink");
    }
    ApiError::Unavailable { detail: "the database cannot be read now; try again".into(), retry_after: RETRY_AFTER }
}
