//! Which streams a walk is started over, and which follow when others have been walked.
//!
//! Called by the engine for cron ticks, for requests and at its start. A list of a parent's documents is walked
//! when the parent's own lists have been, so that it knows all of them.

use std::collections::BTreeMap;

use super::{Engine, Inner, STARTED_AT_ONCE};
use crate::catalog::Definition;
use crate::domain::{Mode, Shop, ShopState, StreamId, Trigger};
use crate::store::{Start, Started, StoreError};

impl Engine {
    /// Walks the streams of a shop (and resource). Streams with an open walk are left alone; their
    /// run is returned all the same.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn walk(
        &self,
        shop: &Shop,
        resource: Option<&str>,
        mode: Mode,
        trigger: Trigger,
    ) -> Result<Vec<u64>, StoreError> {
        let starts = self.0.starts(shop, resource, |_, _| Ok(true))?;
        let started = self.0.parts.store.start_runs(starts, mode, trigger).await?;
        Ok(started.into_iter().map(Started::run).collect())
    }

    /// Walks all streams of all active shops: what a cron tick does. Makes no call itself. A resource whose walks
    /// for news shall not follow each other so soon is left out.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn walk_all(&self, mode: Mode) -> Result<(), StoreError> {
        let store = &self.0.parts.store;
        let shops = store.shops()?;
        let mut starts = Vec::new();
        for shop in shops.iter().filter(|shop| shop.state == ShopState::Active) {
            starts.extend(self.0.starts(shop, None, |definition, stream| self.0.is_due(definition, stream, mode))?);
        }
        let mut left_alone = 0;
        for some in starts.chunks(STARTED_AT_ONCE) {
            let started = store.start_runs(some.to_vec(), mode, Trigger::Schedule).await?;
            left_alone += started.iter().filter(|started| matches!(started, Started::Already(_))).count();
        }
        tracing::info!(
            ?mode,
            streams = starts.len(),
            left_alone,
            "scheduled walks; streams with an open walk are left alone"
        );
        Ok(())
    }

    /// Starts the first walk of streams that have none: of a shop whose registration a crash cut off,
    /// or of a resource that the configuration added.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn start_missing_runs(&self, shops: &[Shop]) -> Result<(), StoreError> {
        let store = &self.0.parts.store;
        let mut missing = Vec::new();
        for shop in shops.iter().filter(|shop| shop.state == ShopState::Active) {
            let is_missing = |_: &Definition, stream: &StreamId| Ok(store.checkpoint(stream)?.full_walk_at.is_none());
            missing.extend(self.0.starts(shop, None, is_missing)?);
        }
        for some in missing.chunks(STARTED_AT_ONCE) {
            store.start_runs(some.to_vec(), Mode::Full, Trigger::Schedule).await?;
        }
        Ok(())
    }
}

impl Inner {
    /// The wanted streams of a shop, of one resource or all that it takes; those of a parent's documents behind the
    /// parent's own, where both are wanted.
    fn starts(
        &self,
        shop: &Shop,
        resource: Option<&str>,
        wanted: impl Fn(&Definition, &StreamId) -> Result<bool, StoreError>,
    ) -> Result<Vec<Start>, StoreError> {
        let taken = |definition: &&Definition| {
            shop.takes(&definition.name) && resource.is_none_or(|resource| resource == definition.name)
        };
        let mut streams: BTreeMap<&str, Vec<StreamId>> = BTreeMap::new();
        let definitions: Vec<&Definition> = self.parts.definitions.iter().map(|found| &**found).filter(taken).collect();
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

    /// Whether a scheduled walk of a stream is due, as far as its definition has a say.
    fn is_due(&self, definition: &Definition, stream: &StreamId, mode: Mode) -> Result<bool, StoreError> {
        let Some(every) = definition.list.every.filter(|_| mode == Mode::Incremental) else { return Ok(true) };
        let store = &self.parts.store;
        let Some(walked_at) = store.checkpoint(stream)?.walked_at else { return Ok(true) };
        let age = store.clock().now().saturating_sub(walked_at);
        // A clock that was set back makes nothing wait for ever.
        Ok(age < 0 || u128::try_from(age).unwrap_or_default() >= every.as_millis())
    }
}
