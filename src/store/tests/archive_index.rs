//! The index of the archive finds what reading all documents finds: over changes, purges, other filters, merges, and
//! crashes in the middle of any of these.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_json::json;

use super::fixture::{NOW, new_shop};
use super::{Kv, MemoryKv};
use crate::catalog::Definition;
use crate::catalog::definition::Place;
use crate::domain::{Clock, Facet, FacetValue, Facets, Json, ListParams, ShopId, StreamId, Timestamp};
use crate::store::codec::encode_with;
use crate::store::crypto::document_context;
use crate::store::engine::kv::{Change, LookFrom, Pairs};
use crate::store::entry::DocumentHead;
use crate::store::keyspace;
use crate::store::ops::acknowledge;
use crate::store::ops::archive::ArchiveHead;
use crate::store::records::outbox;
use crate::store::{IndexCheck, IndexCondition, IndexQuery, Lookup, SealKey, Store, StoreError, Tx};

/// An engine in memory whose process is killed before one of its commits.
struct Killed {
    inner: Arc<MemoryKv>,
    commits_left: AtomicUsize,
}

impl Kv for Killed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        self.inner.scan(prefix, from)
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        self.inner.scan_back(prefix, before)
    }

    fn reserve(&self, _: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let left = self.commits_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(StoreError::Engine("killed".to_owned()));
        }
        self.inner.apply(changes)
    }

    fn look(&self, _: &[u8], _: usize) -> Result<LookFrom, StoreError> {
        Ok(None)
    }

    fn size(&self) -> u64 {
        0
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Archives a version of a document; `is_indexed`: with its facets.
    Put {
        shop: usize,
        id: u8,
        order: u8,
        parts: Vec<u8>,
        day: Option<u8>,
        is_indexed: bool,
    },
    Unlist {
        shop: usize,
        id: u8,
    },
    /// A build without an index runs and archives a document.
    EarlierBuild {
        shop: usize,
        id: u8,
        order: u8,
    },
    Purge {
        shop: usize,
    },
    /// The next start has other filters.
    Relayout,
    Build,
    Merge {
        shop: usize,
    },
    Restart,
    /// The process is killed after so many commits of what follows, and started again.
    Kill {
        after: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let shop = 0..2usize;
    let put = (shop.clone(), 0..12u8, 0..3u8, proptest::collection::vec(0..3u8, 0..3), any::<Option<u8>>(), 0..10u8);
    prop_oneof![
        8 => put.prop_map(|(shop, id, order, parts, day, luck)| {
            Step::Put { shop, id, order, parts, day: day.map(|day| day % 5), is_indexed: luck > 0 }
        }),
        1 => (shop.clone(), 0..12u8).prop_map(|(shop, id)| Step::Unlist { shop, id }),
        1 => (shop.clone(), 0..12u8, 0..3u8).prop_map(|(shop, id, order)| Step::EarlierBuild { shop, id, order }),
        1 => shop.clone().prop_map(|shop| Step::Purge { shop }),
        1 => Just(Step::Relayout),
        3 => Just(Step::Build),
        2 => shop.prop_map(|shop| Step::Merge { shop }),
        1 => Just(Step::Restart),
        2 => (0..4usize).prop_map(|after| Step::Kill { after }),
    ]
}

fn definition(is_other: bool) -> Arc<Definition> {
    let filters =
        if is_other { "ean = \"parts.ean\", kind = \"kind\"" } else { "order = \"order\", ean = \"parts.ean\"" };
    let text = format!(
        r#"
        id = "/id"
        list = {{ path = "/things", items = "/rows", pages = {{ style = "none" }}, parameters = {{ kind = ["a", "b"] }} }}
        [table]
        time = "at"
        filters = {{ {filters} }}
        [table.columns]
        at    = {{ from = "/at", type = "datetime" }}
        order = {{ from = "/order", type = "text" }}
        kind  = {{ stream = "kind", type = "text" }}
        [table.children.parts]
        from = "/parts"
        columns = {{ ean = {{ from = "/ean", type = "text" }} }}
        "#
    );
    Arc::new(crate::catalog::reader::read("things", &toml::from_str(&text).unwrap()).unwrap())
}

struct World {
    memory: Arc<MemoryKv>,
    kv: Arc<Killed>,
    store: Store,
    clock: Clock,
    shops: Vec<ShopId>,
    is_other: bool,
    /// An earlier build replaced documents and left their postings: the index finds too much, which is compared again.
    has_stale: bool,
}

impl World {
    async fn new() -> World {
        let (memory, clock) = (Arc::new(MemoryKv::strict()), Clock::manual(NOW));
        let (kv, store) = World::open(&memory, &clock);
        let mut world = World { memory, kv, store, clock, shops: Vec::new(), is_other: false, has_stale: false };
        for client in ["client-1", "client-2"] {
            world.shops.push(world.store.create_shop(new_shop(client)).await.unwrap().id);
        }
        world.begin().await;
        world
    }

    fn open(memory: &Arc<MemoryKv>, clock: &Clock) -> (Arc<Killed>, Store) {
        let kv = Arc::new(Killed { inner: Arc::clone(memory), commits_left: AtomicUsize::new(usize::MAX) });
        let shared: Arc<dyn Kv> = Arc::<Killed>::clone(&kv);
        let store = Store::over(shared, SealKey::new(&[1; 32]), clock.clone(), Path::new("memory")).unwrap();
        (kv, store)
    }

    async fn begin(&self) {
        self.store.set_indexed(&[definition(self.is_other)]);
        self.store.begin_index().await.unwrap();
    }

    async fn restart(&mut self) {
        (self.kv, self.store) = World::open(&self.memory, &self.clock);
        self.store.resume_deletions().await.unwrap();
        self.begin().await;
        self.archive().await.unwrap();
        let mut next = Some(IndexCheck::default());
        while let Some(from) = next {
            next = self.store.check_index(from).await.unwrap();
        }
    }

    /// Archives what waits in the outbox.
    async fn archive(&self) -> Result<(), StoreError> {
        loop {
            let positions = self.store.outbox_positions(100, usize::MAX)?;
            if positions.is_empty() {
                return Ok(());
            }
            self.store.archive(positions).await?;
        }
    }

    /// Fails only if the process is killed in it.
    async fn take(&mut self, step: Step) -> Result<(), StoreError> {
        match step {
            Step::Put { shop, id, order, parts, day, is_indexed } => {
                let parts: Vec<_> = parts.iter().map(|ean| json!({"ean": format!("e{ean}")})).collect();
                let at = day.map(|day| format!("2026-11-0{}T12:00:00Z", day + 1));
                let body = json!({"id": id.to_string(), "order": format!("o{order}"), "at": at, "parts": parts});
                self.put(shop, id, body.to_string().into_bytes(), is_indexed).await
            }
            Step::Unlist { shop, id } => {
                let (stream, now) = (self.stream(shop), self.clock.now());
                self.store
                    .transact(move |tx| {
                        outbox::append_listing(tx, &stream, &id.to_string(), Some(now), now)?;
                        acknowledge::archive_oldest(tx, now)
                    })
                    .await
            }
            Step::EarlierBuild { shop, id, order } => self.earlier_build(shop, id, order).await,
            Step::Purge { shop } => self.purge(shop).await,
            Step::Relayout => {
                self.is_other = !self.is_other;
                self.restart().await;
                Ok(())
            }
            Step::Build => self.store.index_some().await.map(drop),
            Step::Merge { shop } => self.store.merge_index_now("things", &self.shops[shop]).await,
            Step::Restart => {
                self.restart().await;
                Ok(())
            }
            Step::Kill { after } => {
                self.kv.commits_left.store(after, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    async fn earlier_build(&mut self, shop: usize, id: u8, order: u8) -> Result<(), StoreError> {
        self.has_stale = true;
        self.restart().await;
        let StreamId { shop, combination, .. } = self.stream(shop);
        let (now, id) = (self.clock.now(), id.to_string());
        let body = json!({"id": id, "order": format!("o{order}")}).to_string().into_bytes();
        let sealed = self.store.shop_key(&shop)?.seal_document(&document_context(&shop, "things", &id), &body)?;
        let put = move |tx: &mut Tx<'_>| -> Result<(), StoreError> {
            let version = tx.next_version(now)?;
            let (fetched_at, first_listed_at, no_longer_listed_at) = (now, now, None);
            let index = None;
            let head = ArchiveHead { combination, version, fetched_at, first_listed_at, no_longer_listed_at, index };
            tx.put(keyspace::archived("things", &shop, &id), encode_with("a document", &head, &sealed)?);
            Ok(())
        };
        self.store.transact(put).await?;
        self.restart().await;
        Ok(())
    }

    async fn purge(&mut self, shop: usize) -> Result<(), StoreError> {
        self.store.delete_shop(&self.shops[shop], true).await?;
        self.archive().await?;
        let client = format!("after-{}", self.shops[shop]);
        self.shops[shop] = self.store.create_shop(new_shop(&client)).await?.id;
        self.archive().await
    }

    fn stream(&self, shop: usize) -> StreamId {
        let combination = ListParams(vec![("kind".into(), if shop == 0 { "a" } else { "b" }.into())]);
        StreamId { shop: self.shops[shop].clone(), resource: "things".into(), combination }
    }

    async fn put(&self, shop: usize, id: u8, body: Vec<u8>, is_indexed: bool) -> Result<(), StoreError> {
        let (stream, now, id) = (self.stream(shop), self.clock.now(), id.to_string());
        let key = self.store.shop_key(&stream.shop)?;
        let facets = if is_indexed {
            Facets::Known(definition(self.is_other).facets_of(&id, &Json::parse(&body).unwrap()))
        } else {
            Facets::Unknown
        };
        let layout = self.store.index_layout("things").unwrap();
        let index = layout.index_of(&key, facets, &stream.combination);
        let sealed = key.seal_document(&document_context(&stream.shop, "things", &id), &body)?;
        let head = DocumentHead {
            shop: stream.shop,
            resource: "things".into(),
            combination: stream.combination,
            id,
            fetched_at: now,
            first_listed_at: now,
            row_hash: 0,
            document_hash: 0,
            run: None,
            index,
        };
        self.store
            .transact(move |tx| {
                outbox::append_document(tx, head, &sealed, now)?;
                acknowledge::archive_oldest(tx, now)
            })
            .await
    }

    /// The facets of all archived documents of a shop, by id; a time as its facet.
    fn truth(&self, shop: &ShopId) -> BTreeMap<String, BTreeSet<Facet>> {
        let definition = definition(self.is_other);
        let page = self.store.archived("things", Some(shop), None, usize::MAX).unwrap();
        let facets = page.documents.into_iter().map(|document| {
            let mut facets = definition.facets_of(&document.id, &Json::parse(&document.body).unwrap());
            facets.extend(definition.facets.of_stream(&document.combination));
            (document.id, facets.into_iter().collect())
        });
        facets.collect()
    }

    fn found(&self, shop: &ShopId, conditions: &[IndexCondition], count: usize) -> Option<Vec<String>> {
        let (mut ids, mut after) = (Vec::new(), None::<String>);
        loop {
            let query = IndexQuery { resource: "things", shop, conditions, after: after.as_deref(), count };
            let Lookup::Found(found) = self.store.archive_candidates(query).unwrap() else { return None };
            ids.extend(found.ids);
            match found.more {
                Some(more) => after = Some(more),
                None => return Some(ids),
            }
        }
    }

    fn check(&self) {
        if !self.store.is_indexed("things").unwrap() {
            return;
        }
        // One that was purged just before a kill has no key.
        for shop in self.shops.iter().filter(|shop| self.store.shop_key(shop).is_ok()) {
            let truth = self.truth(shop);
            for conditions in conditions(&definition(self.is_other)) {
                let matching = truth.iter().filter(|(_, facets)| conditions.iter().all(|one| holds(one, facets)));
                let want: Vec<String> = matching.map(|(id, _)| id.clone()).collect();
                for count in [1, 3, 100] {
                    let found = self.found(shop, &conditions, count);
                    let found = found.unwrap();
                    let is_right = if self.has_stale {
                        found.is_sorted() && want.iter().all(|id| found.contains(id))
                    } else {
                        found == want
                    };
                    assert!(is_right, "{conditions:?}, {count} at a time: {found:?} instead of {want:?}");
                }
            }
        }
    }
}

fn conditions(definition: &Definition) -> Vec<Vec<IndexCondition>> {
    let column = |name: &str| Place::Column(name.to_owned());
    let ean = || Place::Child { table: "parts".to_owned(), column: "ean".to_owned() };
    let day = |day: i64| Timestamp::from_millis(1_793_491_200_000 + day * 86_400_000);
    let has = |place: &Place, text: &str| definition.facets.of_filter(place, text).map(IndexCondition::Has);
    let between = |from, to| Some(IndexCondition::Between(from, to));
    let all = [
        vec![has(&column("order"), "o0")],
        vec![has(&column("order"), "o9")],
        vec![has(&column("kind"), "a")],
        vec![has(&ean(), "e1")],
        vec![has(&ean(), "e1"), has(&column("order"), "o1")],
        vec![has(&ean(), "e1"), between(Some(day(1)), Some(day(3)))],
        vec![between(Some(day(2)), None)],
        vec![between(None, Some(day(2)))],
        vec![between(Some(day(2)), Some(day(2)))],
    ];
    // Without those that these filters do not have.
    all.into_iter().filter_map(|conditions| conditions.into_iter().collect()).collect()
}

fn holds(condition: &IndexCondition, facets: &BTreeSet<Facet>) -> bool {
    match condition {
        IndexCondition::Has(facet) => facets.contains(facet),
        IndexCondition::Between(from, to) => facets.iter().any(|facet| match facet.value {
            FacetValue::Time(at) => from.is_none_or(|from| at >= from) && to.is_none_or(|to| at < to),
            FacetValue::FetchedAt | FacetValue::Text(_) => false,
        }),
    }
}

async fn play(steps: Vec<Step>) {
    let mut world = World::new().await;
    world.check();
    for step in steps {
        if world.take(step).await.is_err() {
            world.restart().await;
        }
        world.check();
    }
    // Without a further kill the building ends, and a merge leaves what is archived and nothing else.
    world.restart().await;
    while world.store.index_some().await.unwrap() {}
    assert!(world.store.is_indexed("things").unwrap());
    world.check();
    for shop in world.shops.iter().filter(|shop| world.store.shop_key(shop).is_ok()) {
        let is_kept = |facet: &&Facet| !matches!(facet.value, FacetValue::FetchedAt);
        let postings = world.truth(shop).values().map(|facets| facets.iter().filter(is_kept).count()).sum::<usize>();
        world.store.merge_index_now("things", shop).await.unwrap();
        let (found, changes) = world.store.count_postings("things", shop);
        let is_right = if world.has_stale { found >= postings } else { found == postings };
        assert!(is_right && changes == 0, "{found} postings instead of {postings}, {changes} changes");
    }
    world.check();
}

proptest! {
    #[test]
    fn the_index_finds_what_reading_everything_finds(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test]
async fn a_value_is_not_in_the_engine_in_clear() {
    let world = World::new().await;
    let body = json!({"id": "1", "order": "kanarie-order", "parts": [{"ean": "kanarie-ean"}]});
    world.put(0, 1, body.to_string().into_bytes(), true).await.unwrap();
    world.store.merge_index_now("things", &world.shops[0]).await.unwrap();
    for pair in world.memory.scan(b"", b"") {
        let (key, value) = pair.unwrap();
        for bytes in [key, value] {
            assert!(!String::from_utf8_lossy(&bytes).contains("kanarie-"), "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
