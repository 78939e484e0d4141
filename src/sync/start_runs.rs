//! Starts runs: which streams are walked now, and which follow when their parents have been walked.
//!
//! Called by the engine for cron ticks, for requests and at its start. A child list is walked after its parents' own
//! lists, when all parents are known.

use std::collections::BTreeMap;

use super::{Engine, Inner, STARTED_AT_ONCE};
use crate::catalog::Definition;
use crate::domain::{Mode, RunId, Shop, ShopState, StreamId, Trigger};
use crate::store::{Start, Started, Store, StoreError};

impl Engine {
    /// Starts walks of a shop's streams (of one resource, or all). A stream with an open walk keeps it, and that
    /// run is returned.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn walk(
        &self,
        shop: &Shop,
        resource: Option<&str>,
        mode: Mode,
        trigger: Trigger,
    ) -> Result<Vec<RunId>, StoreError> {
        let starts = self.0.starts(shop, resource, |_, _| Ok(true))?;
        let started = self.0.deps.store.start_runs(starts, mode, trigger).await?;
        Ok(started.into_iter().map(Started::run).collect())
    }

    /// Starts walks of all streams of all active shops: what a cron tick does. Makes no call itself. Skips resources
    /// whose own interval is not over.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn walk_all(&self, mode: Mode) -> Result<(), StoreError> {
        let mut started = Walks::new(self, mode);
        for shop in self.0.deps.store.shops()?.iter().filter(|shop| shop.state == ShopState::Active) {
            let starts = self.0.starts(shop, None, |definition, stream| self.0.is_due(definition, stream, mode))?;
            started.add(starts).await?;
        }
        let Walks { streams, already_open, .. } = started.finish().await?;
        tracing::info!(?mode, streams, already_open, "started scheduled walks");
        Ok(())
    }

    /// Starts the first walk of streams that have none: of a shop whose registration a crash interrupted,
    /// or of a resource that the configuration added.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn start_missing_runs(&self, shops: &[Shop]) -> Result<(), StoreError> {
        let (store, only) = (&self.0.deps.store, &self.0.deps.only);
        let mut started = Walks::new(self, Mode::Full);
        for shop in shops.iter().filter(|shop| shop.state == ShopState::Active && only.takes_shop(&shop.id)) {
            let is_missing = |_: &Definition, stream: &StreamId| Ok(store.checkpoint(stream)?.full_walk_at.is_none());
            started.add(self.0.starts(shop, only.resource.as_deref(), is_missing)?).await?;
        }
        started.finish().await?;
        Ok(())
    }
}

/// Starts scheduled walks as they are added, [`STARTED_AT_ONCE`] in a commit.
struct Walks<'a> {
    store: &'a Store,
    mode: Mode,
    /// Not started yet.
    waiting: Vec<Start>,
    streams: usize,
    already_open: usize,
}

impl<'a> Walks<'a> {
    fn new(engine: &'a Engine, mode: Mode) -> Walks<'a> {
        Walks { store: &engine.0.deps.store, mode, waiting: Vec::new(), streams: 0, already_open: 0 }
    }

    async fn add(&mut self, starts: Vec<Start>) -> Result<(), StoreError> {
        self.waiting.extend(starts);
        while self.waiting.len() >= STARTED_AT_ONCE {
            self.start(STARTED_AT_ONCE).await?;
        }
        Ok(())
    }

    async fn start(&mut self, count: usize) -> Result<(), StoreError> {
        let batch: Vec<Start> = self.waiting.drain(..count).collect();
        self.streams += count;
        let started = self.store.start_runs(batch, self.mode, Trigger::Schedule).await?;
        self.already_open += started.iter().filter(|started| matches!(started, Started::Already(_))).count();
        Ok(())
    }

    async fn finish(mut self) -> Result<Walks<'a>, StoreError> {
        if !self.waiting.is_empty() {
            self.start(self.waiting.len()).await?;
        }
        Ok(self)
    }
}

impl Inner {
    /// The wanted streams of a shop, of one resource or all that it syncs. Child streams follow their parents' own,
    /// where both are wanted.
    fn starts(
        &self,
        shop: &Shop,
        resource: Option<&str>,
        wanted: impl Fn(&Definition, &StreamId) -> Result<bool, StoreError>,
    ) -> Result<Vec<Start>, StoreError> {
        let taken = |definition: &&Definition| {
            shop.syncs(&definition.name) && resource.is_none_or(|resource| resource == definition.name)
        };
        let mut streams: BTreeMap<&str, Vec<StreamId>> = BTreeMap::new();
        let definitions: Vec<&Definition> = self.deps.definitions.iter().map(|found| &**found).filter(taken).collect();
        for definition in &definitions {
            for stream in definition.streams(&shop.id) {
                if wanted(definition, &stream)? {
                    streams.entry(&definition.name).or_default().push(stream);
                }
            }
        }
        let follows = |definition: &Definition, parent: &str| definition.parent.as_deref() == Some(parent);
        let leads = |definition: &&&Definition| streams.keys().all(|parent| !follows(definition, parent));
        let mut starts = Vec::new();
        for definition in definitions.iter().filter(leads) {
            let children = definitions.iter().filter(|child| follows(child, &definition.name));
            let followers: Vec<StreamId> =
                children.filter_map(|child| streams.get(child.name.as_str())).flatten().cloned().collect();
            let own = streams.get(definition.name.as_str()).into_iter().flatten();
            starts.extend(own.map(|stream| Start { stream: stream.clone(), followers: followers.clone() }));
        }
        Ok(starts)
    }

    /// Whether a scheduled walk of a stream is due by its definition's own interval.
    fn is_due(&self, definition: &Definition, stream: &StreamId, mode: Mode) -> Result<bool, StoreError> {
        let Some(every) = definition.list.every.filter(|_| mode == Mode::Incremental) else { return Ok(true) };
        let store = &self.deps.store;
        let Some(walked_at) = store.checkpoint(stream)?.walked_at else { return Ok(true) };
        // After the clock was set back the walk is due, so that it does not wait for ever.
        Ok(store.clock().now().checked_since(walked_at).is_none_or(|age| age >= every))
    }
}
