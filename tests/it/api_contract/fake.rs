//! A backend in memory: three shops, a few documents, and an answer for everything.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use waybill::catalog::coverage::FieldDrift;
use waybill::catalog::{self, Definition, RuleTable};
use waybill::domain::calls::{CallCounts, CallDay, CallStatus};
use waybill::domain::clock::Millis;
use waybill::domain::document::{Parked, RunView};
use waybill::domain::health::{ResourceHealth, ShopHealth};
use waybill::domain::stream::ListParams;
use waybill::domain::{Completeness, Gap, GapReason, Mode, Run, RunState, Shop, ShopState, StreamId, Wait, WaitReason};
use waybill::http::backend::{
    AnswerName, ApiError, Backend, BackendFuture, BudgetStatus, DocumentItem, DocumentPage, DocumentQuery, Drift,
    DriftEntry, KeyGrant, KeyView, MintedKey, NewKey, NewShop, ParkedQuery, Readiness, ResourceSelection, RunQuery,
    Scope, ShopChange, SinkStatus, Status, StatusScope, StoredResponse,
};

pub(crate) const ADMIN: &str = "admin-key";
pub(crate) const READ: &str = "read-key";
/// Sees the shop `one` only.
pub(crate) const BOUND: &str = "bound-key";

#[derive(Default)]
struct State {
    shops: BTreeMap<String, Shop>,
    keys: BTreeMap<String, (KeyGrant, String)>,
    parked: BTreeMap<u64, Parked>,
    answers: BTreeMap<AnswerName, StoredResponse>,
    secrets: Vec<String>,
    made: u32,
}

pub(crate) struct FakeBackend {
    state: Mutex<State>,
    documents: Vec<DocumentItem>,
    pub(crate) ready: Mutex<Readiness>,
    /// A change to the name `slow` has begun, and may go on.
    pub(crate) begun: Notify,
    pub(crate) told: Notify,
}

fn shop(id: &str) -> Shop {
    Shop {
        id: id.to_owned(),
        name: format!("Shop {id}"),
        client_id: format!("client-{id}"),
        account: format!("client-{id}"),
        resources: vec!["shipments".to_owned()],
        state: ShopState::Active,
        reason: None,
        created_at: 1_700_000_000_000,
        updated_at: 1_700_000_000_000,
    }
}

fn document(shop_id: &str, id: &str) -> DocumentItem {
    DocumentItem {
        shop_id: shop_id.to_owned(),
        id: id.to_owned(),
        fetched_at: 1_700_000_000_000,
        version: 7,
        first_listed_at: 1_700_000_000_000,
        no_longer_listed_at: None,
        columns: vec![("order_id".to_owned(), waybill::catalog::extract::Cell::Text("o-1".to_owned()))],
        // More than a double holds, and a field twice: shown as received.
        document: Bytes::from_static(br#"{"big": 12345678901234567890123, "a":1, "a":2}"#),
    }
}

fn grant(key_id: &str, scope: Scope, shops: Option<&[&str]>) -> (KeyGrant, String) {
    let shops = shops.map(|shops| shops.iter().map(|shop| (*shop).to_owned()).collect());
    let name = key_id.to_owned();
    (KeyGrant { key_id: key_id.to_owned(), name: name.clone(), scope, shops }, name)
}

fn run_view(id: u64, shop: &str) -> RunView {
    let combination = ListParams(vec![("fulfilment-method".to_owned(), "FBR".to_owned())]);
    let stream = StreamId { shop: shop.to_owned(), resource: "shipments".to_owned(), combination };
    let run = Run {
        id,
        stream,
        mode: Mode::Full,
        trigger: waybill::domain::Trigger::Schedule,
        state: RunState::Fetching,
        started_at: 1_700_000_000_000,
        ended_at: None,
        pages: 2,
        listed: 60,
        rejected: 0,
        new: 60,
        changed: 0,
        to_fetch: 60,
        fetched: 20,
        gone: 1,
        parked: 2,
        written: 19,
        refused: 0,
        error: None,
        error_class: None,
        newest: None,
        pass: waybill::domain::Pass::default(),
        list_moved: false,
        followers: Vec::new(),
        alarmed: false,
        doubts: Vec::new(),
        next: None,
    };
    let text = "the rate limit".to_owned();
    let waits_for = Wait { reason: WaitReason::RateLimit, until: Some(1_700_000_060_000), text };
    RunView { run, forecast_at: Some(1_700_000_100_000), pages_expected: Some(9), waits_for: Some(waits_for) }
}

impl FakeBackend {
    pub(crate) fn new() -> Arc<FakeBackend> {
        let mut state = State::default();
        for id in ["one", "two", "three"] {
            state.shops.insert(id.to_owned(), shop(id));
        }
        state.keys.insert(ADMIN.to_owned(), grant("k-admin", Scope::Admin, None));
        state.keys.insert(READ.to_owned(), grant("k-read", Scope::Read, None));
        state.keys.insert(BOUND.to_owned(), grant("k-bound", Scope::Read, Some(&["one"])));
        for (id, shop) in [(1, "one"), (2, "two")] {
            state.parked.insert(id, parked(id, shop));
        }
        let mut documents: Vec<DocumentItem> = Vec::new();
        for shop in ["one", "two"] {
            documents.extend((0..7).map(|number| document(shop, &format!("id-{number}"))));
        }
        documents.push(document("one", "a/b é😀"));
        documents.sort_by_key(|item| (item.shop_id.clone(), item.id.clone()));
        Arc::new(FakeBackend {
            state: Mutex::new(state),
            documents,
            ready: Mutex::default(),
            begun: Notify::new(),
            told: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn secrets(&self) -> Vec<String> {
        self.state().secrets.clone()
    }

    fn add_shop(&self, new: NewShop) -> Result<Shop, ApiError> {
        let mut state = self.state();
        match new.client_id.as_str() {
            "refused" => return Err(ApiError::Refused("the login host says invalid_client".to_owned())),
            "unreachable" => {
                let detail = "no answer from the login host".to_owned();
                return Err(ApiError::LoginUnreachable { detail, retry_after: Some(Duration::from_millis(1500)) });
            }
            "full" => {
                let detail = "the disk is full".to_owned();
                return Err(ApiError::NoRoom { detail, retry_after: Duration::from_secs(60) });
            }
            "broken" => return Err(ApiError::Internal("row 7 of /var/secret".to_owned())),
            _ => {}
        }
        if state.shops.values().any(|shop| shop.client_id == new.client_id) {
            return Err(ApiError::Conflict("this client id is registered already".to_owned()));
        }
        state.made += 1;
        let id = format!("made{}", state.made);
        let account = new.account.unwrap_or_else(|| new.client_id.clone());
        let resources = new.resources.unwrap_or_default();
        let added = Shop { name: new.name, client_id: new.client_id, account, resources, ..shop(&id) };
        state.secrets.push(new.client_secret.expose_secret().to_owned());
        state.shops.insert(id, added.clone());
        Ok(added)
    }

    fn change_shop(&self, shop_id: &str, change: ShopChange) -> Option<Shop> {
        let mut state = self.state();
        let shop = state.shops.get_mut(shop_id)?;
        if let Some(name) = change.name {
            shop.name = name;
        }
        if let Some(paused) = change.paused {
            shop.state = if paused { ShopState::Paused } else { ShopState::Active };
        }
        match change.resources {
            Some(ResourceSelection::All) => shop.resources = Vec::new(),
            Some(ResourceSelection::Only(names)) => shop.resources = names,
            None => {}
        }
        Some(shop.clone())
    }

    fn page(&self, query: &DocumentQuery) -> DocumentPage {
        assert!(query.shops.as_ref().is_none_or(|shops| !shops.is_empty()), "an empty list of shops");
        let wanted = |item: &&DocumentItem| {
            let key = (item.shop_id.clone(), item.id.clone());
            query.shops.as_ref().is_none_or(|shops| shops.contains(&item.shop_id))
                && query.after.as_ref().is_none_or(|after| key > *after)
        };
        let mut items: Vec<DocumentItem> = self.documents.iter().filter(wanted).cloned().collect();
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next = items.last().filter(|_| more).map(|last| (last.shop_id.clone(), last.id.clone()));
        DocumentPage { items, next }
    }
}

fn parked(id: u64, shop: &str) -> Parked {
    Parked {
        id,
        shop_id: shop.to_owned(),
        resource: "shipments".to_owned(),
        document_id: Some("id-1".to_owned()),
        job: "fetch_detail".to_owned(),
        reason: "status 500, 8 times".to_owned(),
        attempts: 8,
        parked_at: 1_700_000_000_000,
    }
}

fn seen(shops: Option<&Vec<String>>, shop: &String) -> bool {
    assert!(shops.is_none_or(|shops| !shops.is_empty()), "an empty list of shops");
    shops.is_none_or(|shops| shops.contains(shop))
}

fn now<'a, T: Send + 'a>(value: Result<T, ApiError>) -> BackendFuture<'a, T> {
    std::future::ready(value).boxed()
}

impl Backend for FakeBackend {
    fn cursor_key(&self) -> [u8; 32] {
        [9; 32]
    }

    fn resources(&self) -> Vec<Arc<Definition>> {
        let names = catalog::RESOURCES_DEFAULT.map(str::to_owned);
        let limits = catalog::source_defaults().unwrap_or_else(|error| panic!("{error}")).limits;
        let rules = RuleTable::build([&limits]).unwrap_or_else(|errors| panic!("{errors:?}"));
        let own = toml::Table::new();
        catalog::resources(&names, &own, &rules).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn verify_key(&self, key: &str) -> Result<Option<KeyGrant>, ApiError> {
        Ok(self.state().keys.get(key).map(|(grant, _)| grant.clone()))
    }

    fn load_response(&self, name: &AnswerName) -> Result<Option<StoredResponse>, ApiError> {
        Ok(self.state().answers.get(name).cloned())
    }

    fn store_response(&self, name: AnswerName, answer: StoredResponse) -> BackendFuture<'_, ()> {
        self.state().answers.insert(name, answer);
        now(Ok(()))
    }

    fn create_key(&self, key: NewKey) -> BackendFuture<'_, MintedKey> {
        if let Err(offences) = key.check() {
            return now(Err(offences));
        }
        let id = format!("k-{}", key.name);
        let grant = KeyGrant { key_id: id.clone(), name: key.name.clone(), scope: key.scope, shops: key.shops.clone() };
        let text = format!("wb_{}", self.state().keys.len());
        self.state().keys.insert(text.clone(), (grant, key.name.clone()));
        let view = KeyView {
            id,
            name: key.name,
            scope: key.scope,
            shops: key.shops,
            created_at: 0,
            expires_at: key.expires_days.map(i64::from),
            last_used_at: None,
        };
        now(Ok(MintedKey { view, key: SecretString::from(text) }))
    }

    fn list_keys(&self) -> BackendFuture<'_, Vec<KeyView>> {
        let state = self.state();
        let views = state.keys.values().map(|(grant, name)| KeyView {
            id: grant.key_id.clone(),
            name: name.clone(),
            scope: grant.scope,
            shops: grant.shops.clone(),
            created_at: 0,
            expires_at: None,
            last_used_at: None,
        });
        now(Ok(views.collect()))
    }

    fn revoke_key<'a>(&'a self, key_id: &'a str) -> BackendFuture<'a, bool> {
        let mut state = self.state();
        let before = state.keys.len();
        // The three keys of the tests stay, whatever a fuzzer thinks of.
        state.keys.retain(|text, (grant, _)| grant.key_id != key_id || !text.starts_with("wb_"));
        now(Ok(state.keys.len() < before))
    }

    fn create_shop(&self, shop: NewShop) -> BackendFuture<'_, Shop> {
        now(self.add_shop(shop))
    }

    fn shops(&self) -> BackendFuture<'_, Vec<Shop>> {
        now(Ok(self.state().shops.values().cloned().collect()))
    }

    fn shops_health(&self, of: HashSet<String>) -> BackendFuture<'_, Vec<ShopHealth>> {
        let one = |shop_id| {
            let resource = ResourceHealth { resource: "shipments".to_owned(), ..ResourceHealth::default() };
            ShopHealth { shop_id, resources: vec![resource], ..ShopHealth::default() }
        };
        now(Ok(of.into_iter().map(one).collect()))
    }

    fn shop<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<Shop>> {
        now(Ok(self.state().shops.get(shop_id).cloned()))
    }

    fn update_shop<'a>(&'a self, shop_id: &'a str, change: ShopChange) -> BackendFuture<'a, Option<Shop>> {
        Box::pin(async move {
            if change.name.as_deref() == Some("slow") {
                self.begun.notify_one();
                self.told.notified().await;
            }
            Ok(self.change_shop(shop_id, change))
        })
    }

    fn delete_shop<'a>(&'a self, shop_id: &'a str, _purge: bool) -> BackendFuture<'a, bool> {
        now(Ok(self.state().shops.remove(shop_id).is_some()))
    }

    fn start_sync<'a>(
        &'a self,
        shop_id: &'a str,
        _resource: Option<String>,
        _mode: Mode,
    ) -> BackendFuture<'a, Vec<u64>> {
        now(match self.state().shops.get(shop_id).map(|shop| &shop.state) {
            None => Err(ApiError::NotFound),
            Some(ShopState::Active) => Ok(vec![1, 2]),
            Some(_) => Err(ApiError::Conflict("the shop is paused; resume it first".to_owned())),
        })
    }

    fn drift(&self, _: &str) -> Drift {
        let left = FieldDrift::Unmapped { path: "/items/*/new".to_owned(), kind: "text" };
        let misfit =
            FieldDrift::TypeMismatch { table: "shipments".to_owned(), column: "order_id".to_owned(), kind: "number" };
        let place =
            |left| DriftEntry { left, documents: 3, first_seen: 1_700_000_000_000, last_seen: 1_700_000_100_000 };
        Drift { since: 1_699_000_000_000, places: vec![place(left), place(misfit)], more: 0 }
    }

    fn completeness<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<Vec<Completeness>>> {
        let known = self.state().shops.contains_key(shop_id);
        let gap = Gap { id: "a b é😀".to_owned(), reason: GapReason::NotInSink };
        let found = Completeness {
            resource: "shipments".to_owned(),
            listed: 7,
            stored: 7,
            in_sink: 6,
            missing: 1,
            gaps: vec![gap],
            ..Completeness::default()
        };
        now(Ok(known.then(|| vec![found])))
    }

    fn close_gaps<'a>(&'a self, shop_id: &'a str) -> BackendFuture<'a, Option<u64>> {
        now(Ok(self.state().shops.contains_key(shop_id).then_some(1)))
    }

    fn documents<'a>(&'a self, _resource: &'a str, query: DocumentQuery) -> BackendFuture<'a, DocumentPage> {
        now(Ok(self.page(&query)))
    }

    fn document<'a>(
        &'a self,
        _resource: &'a str,
        shop_id: &'a str,
        id: &'a str,
    ) -> BackendFuture<'a, Option<DocumentItem>> {
        now(Ok(self.documents.iter().find(|item| item.shop_id == shop_id && item.id == id).cloned()))
    }

    fn runs(&self, query: RunQuery) -> BackendFuture<'_, Vec<RunView>> {
        let all = [(3, "one"), (2, "two"), (1, "one")].map(|(id, shop)| run_view(id, shop));
        let wanted = |view: &RunView| {
            seen(query.shops.as_ref(), &view.run.stream.shop)
                && query.before.is_none_or(|before| view.run.id < before)
                && query.state.is_none_or(|state| view.run.state == state)
        };
        now(Ok(all.into_iter().filter(wanted).take(query.limit).collect()))
    }

    fn run(&self, run_id: u64) -> BackendFuture<'_, Option<RunView>> {
        now(Ok(match run_id {
            1 | 3 => Some(run_view(run_id, "one")),
            2 => Some(run_view(2, "two")),
            _ => None,
        }))
    }

    fn parked(&self, query: ParkedQuery) -> BackendFuture<'_, Vec<Parked>> {
        let state = self.state();
        let wanted = |parked: &&Parked| {
            seen(query.shops.as_ref(), &parked.shop_id) && query.after.is_none_or(|after| parked.id > after)
        };
        now(Ok(state.parked.values().filter(wanted).take(query.limit).cloned().collect()))
    }

    fn retry_parked(&self, parked_id: u64) -> BackendFuture<'_, bool> {
        now(Ok(self.state().parked.remove(&parked_id).is_some()))
    }

    fn retry_all_parked<'a>(&'a self, shop_id: &'a str, resource: Option<&'a str>) -> BackendFuture<'a, u64> {
        let mut state = self.state();
        let before = state.parked.len();
        state.parked.retain(|_, parked| {
            parked.shop_id != shop_id || resource.is_some_and(|resource| parked.resource != resource)
        });
        now(Ok((before - state.parked.len()) as u64))
    }

    fn calls(&self, _days: u64) -> BackendFuture<'_, (Option<Millis>, Vec<CallDay>)> {
        let mut counts = CallCounts::default();
        counts.add(CallStatus::Success, 41);
        counts.add(CallStatus::TooMany, 1);
        let day = CallDay { day: 1_796_083_200_000, rule: "GET /retailer/shipments".to_owned(), counts };
        now(Ok((Some(1_796_000_000_000), vec![day])))
    }

    fn status(&self, of: Option<StatusScope>) -> BackendFuture<'_, Status> {
        let budget = |account: &str| BudgetStatus {
            account: account.to_owned(),
            rule: "GET /retailer/shipments/*".to_owned(),
            limit: Some(50),
            window_s: Some(60.0),
            in_flight: 2,
            cooling: 31,
            available: Some(17),
            waiting: 37,
            blocked_for_ms: 0,
            next_free_at: None,
        };
        let seen = |account: &&str| of.as_ref().is_none_or(|part| part.accounts.contains(*account));
        now(Ok(Status {
            open_runs: 2,
            pending_jobs: 37,
            leased_jobs: 2,
            outbox: 4,
            outbox_bytes: 3100,
            parked: 2,
            calls: 412,
            budgets: ["client-one", "client-two"].into_iter().filter(seen).map(budget).collect(),
            sink: SinkStatus { kind: "mysql".to_owned(), healthy: true, error: None },
            version: "0.1.0".to_owned(),
            started_at: 1_700_000_000_000,
            ..Status::default()
        }))
    }

    fn ready(&self, _: Option<Vec<String>>) -> Readiness {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn metrics(&self) -> String {
        "# TYPE waybill_calls_total counter\nwaybill_calls_total 412\n".to_owned()
    }
}
