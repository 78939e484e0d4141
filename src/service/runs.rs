//! Runs with their forecasts, parked jobs, and the calls of the last days.

use std::collections::BTreeMap;

use super::{Service, ServiceError};
use crate::domain::calls::CallDay;
use crate::domain::{Mode, Parked, RunId, RunView, ShopId, ShopState, Timestamp, Trigger};
use crate::store::{Retried, RunFilter, blocking};

impl Service {
    /// Documents that this process has read, by the run that listed them; None: re-read outside of runs.
    pub fn documents_read(&self) -> BTreeMap<Option<RunId>, u64> {
        self.engine.documents_read()
    }

    /// Runs, newest (greatest id) first; only ids below `before`.
    ///
    /// # Errors
    /// `Unavailable` when they cannot be read.
    pub async fn runs(
        &self,
        filter: RunFilter,
        before: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<RunView>, ServiceError> {
        let store = self.store.clone();
        let runs = blocking(move || store.find_runs(&filter, before, limit)).await?;
        Ok(self.with_forecast(runs)?)
    }

    /// None: no such run.
    ///
    /// # Errors
    /// As [`Service::runs`].
    pub fn run(&self, run_id: RunId) -> Result<Option<RunView>, ServiceError> {
        let run = self.store.run(run_id)?;
        Ok(self.with_forecast(run.into_iter().collect())?.pop())
    }

    /// Parked jobs of some shops, or of all, by ascending id; only ids above `after`.
    ///
    /// # Errors
    /// As [`Service::runs`].
    pub async fn parked(
        &self,
        shops: Option<Vec<ShopId>>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Parked>, ServiceError> {
        let store = self.store.clone();
        let wanted = move |parked: &Parked| shops.as_ref().is_none_or(|shops| shops.contains(&parked.shop_id));
        Ok(blocking(move || store.parked(after, limit, wanted)).await?)
    }

    /// Puts a parked job, document or row back. False: no such record.
    ///
    /// # Errors
    /// Of the store; it is then still parked.
    pub async fn retry_parked(&self, parked_id: u64) -> Result<bool, ServiceError> {
        let retried = self.store.retry_parked(parked_id).await?;
        if let Retried::Row { shop, resource } = &retried {
            self.walk_for_rows(shop, resource).await?;
        }
        Ok(retried != Retried::Absent)
    }

    /// Puts back all that is parked of a shop, or of one of its resources; returns how many.
    ///
    /// # Errors
    /// Of the store; some may be put back then.
    pub async fn retry_all_parked(&self, shop_id: &str, resource: Option<&str>) -> Result<u64, ServiceError> {
        let retried = self.store.retry_all_parked(shop_id, resource).await?;
        for resource in &retried.to_walk {
            self.walk_for_rows(shop_id, resource).await?;
        }
        Ok(retried.count)
    }

    /// Reads the whole list of a resource again, for rows that were put back.
    async fn walk_for_rows(&self, shop_id: &str, resource: &str) -> Result<(), ServiceError> {
        let shop = self.store.shop(shop_id)?.filter(|shop| shop.state == ShopState::Active);
        if let (Some(shop), Some(_)) = (shop, self.definition(resource)) {
            self.engine.walk(&shop, Some(resource), Mode::Full, Trigger::Schedule).await?;
        }
        Ok(())
    }

    /// Puts back what is parked of resources whose definition is not the one that it was parked by: a corrected one may be
    /// able to read it. Called at the start of a service, and of a pass.
    ///
    /// # Errors
    /// Of the store; the next start does the rest.
    pub(crate) async fn retry_after_changed_definitions(&self) -> Result<(), ServiceError> {
        let mut changed = Vec::new();
        for definition in self.definitions.iter() {
            let (name, digest) = (definition.name.as_str(), definition.digest());
            let known = self.store.definition_digest(name)?;
            if known == Some(digest) {
                continue;
            }
            changed.push((name.to_owned(), digest));
            // Older builds did not record it.
            let shops = if known.is_some() { self.store.shops()? } else { Vec::new() };
            for shop in shops {
                // Putting back looks at what is parked of all shops.
                if self.store.parked_of_resource(&shop.id, name)? == 0 {
                    continue;
                }
                let retried = self.retry_all_parked(&shop.id, Some(name)).await?;
                if retried > 0 {
                    tracing::info!(
                        shop.id = %shop.id,
                        resource = name,
                        parked = retried,
                        "the definition of the resource was changed: trying again what is parked"
                    );
                }
            }
        }
        Ok(self.store.store_definition_digests(changed).await?)
    }

    /// The calls of the last `days` days by rule, newest first; and when counting began, if any was made.
    ///
    /// # Errors
    /// As [`Service::runs`].
    pub fn calls(&self, days: u64) -> Result<(Option<Timestamp>, Vec<CallDay>), ServiceError> {
        let since = self.store.call_totals()?.iter().map(|total| total.since).min();
        Ok((since, self.store.call_days(days)?))
    }
}
