//! Whether a standby could go on with the schema: it has the master key that its rows need, and the same source.
//!
//! Both may change while it waits: the owner may rotate the master key, or an operator move the schema. A standby that
//! found out only after it took over would leave no process at work, so it looks now and then, and gives up its place.

use std::time::Duration;

use super::state::Opening;
use crate::app::source_check::SourceRule;
use crate::domain::counted;
use crate::gate::BootTime;
use crate::sink::{Mysql, SinkError};
use crate::store::{Restored, Store, StoreError};

/// Interval of looks while it waits.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Timeout of one look.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a standby does not take over.
pub(super) enum Unfit {
    /// MySQL did not say.
    Unknown(String),
    /// It could not work.
    For(anyhow::Error),
}

impl From<SinkError> for Unfit {
    fn from(error: SinkError) -> Unfit {
        Unfit::Unknown(error.text)
    }
}

impl From<StoreError> for Unfit {
    fn from(error: StoreError) -> Unfit {
        Unfit::For(error.into())
    }
}

/// The looks of one standby.
#[derive(Default)]
pub(super) struct Fitness {
    looked_at: Option<BootTime>,
}

impl Fitness {
    /// Looks, if the last look was long ago or it `takes_over` now.
    ///
    /// # Errors
    /// Why it may not take over.
    pub(super) async fn look(
        &mut self,
        opening: &Opening<'_>,
        store: &Store,
        mysql: &Mysql,
        takes_over: bool,
    ) -> Result<(), Unfit> {
        let now = BootTime::now();
        if !takes_over && self.looked_at.is_some_and(|at| now.since(at) < LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(now);
        let looked = tokio::time::timeout(LOOK_TIME_MAX, check(opening, store, mysql)).await;
        looked.unwrap_or_else(|_| Err(Unfit::Unknown("it did not answer in time".to_owned())))
    }
}

async fn check(opening: &Opening<'_>, store: &Store, mysql: &Mysql) -> Result<(), Unfit> {
    if opening.rule == SourceRule::Same
        && let Some(other) = mysql.other_source().await?
    {
        return Err(Unfit::For(other.into()));
    }
    let rows = mysql.shops_if_any().await?;
    for row in &rows {
        match store.may_restore(&row.shop, &row.sealed)? {
            Restored::Unreadable(fault) if fault.may_be_key() => {}
            _ => return Ok(()),
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    Err(Unfit::For(anyhow::anyhow!(
        "this standby could not take over: its master key opens none of the {} in waybill_shops. Stop it, put the master \
         key of the other process in its place, move its data directory {} away, and start it again",
        counted(rows.len(), "shop", "shops"),
        opening.config.data_dir.display()
    )))
}
