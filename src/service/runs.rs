//! Runs with their forecasts, parked jobs, and the calls of the last days.

use super::{Service, ServiceError};
use crate::domain::calls::CallDay;
use crate::domain::{Parked, RunId, RunView, ShopId, Timestamp};
use crate::store::{RunFilter, blocking};

impl Service {
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

    /// Requeues a parked job. False: no such job.
    ///
    /// # Errors
    /// Of the store; the job is then still parked.
    pub async fn retry_parked(&self, parked_id: u64) -> Result<bool, ServiceError> {
        Ok(self.store.retry_parked(parked_id).await?)
    }

    /// Requeues all parked jobs of a shop, or of one of its resources; returns their number.
    ///
    /// # Errors
    /// Of the store; some jobs may be requeued then.
    pub async fn retry_all_parked(&self, shop_id: &str, resource: Option<&str>) -> Result<u64, ServiceError> {
        Ok(self.store.retry_all_parked(shop_id, resource).await?)
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
