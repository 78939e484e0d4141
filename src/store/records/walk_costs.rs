//! What the last walks of a stream cost, for forecasts of the next ones.

use serde::{Deserialize, Serialize};

use crate::domain::{Mode, Run, StreamId};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// One walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalkCost {
    /// List calls of its last pass.
    pub pages: u64,
    pub listed: u64,
    /// Detail reads that it asked for.
    pub details: u64,
}

/// The last walks of a stream that reached their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalkCosts {
    #[serde(default)]
    pub full: Option<WalkCost>,
    #[serde(default)]
    pub incremental: Option<WalkCost>,
}

/// Notes a walk that came to its end.
pub(crate) fn note(tx: &mut Tx<'_>, run: &Run) -> Result<(), StoreError> {
    let key = keyspace::walk_costs(&run.stream);
    let known = tx.get(&key)?.map(|bytes| decode::<WalkCosts>("the costs of walks", &bytes)).transpose()?;
    let mut costs = known.unwrap_or_default();
    // Runs of older builds did not count the pages of a pass.
    let pages = if run.pass.pages > 0 { run.pass.pages } else { run.pages.div_ceil(u64::from(run.pass.number.max(1))) };
    let cost = WalkCost { pages, listed: run.listed, details: run.to_fetch };
    match run.mode {
        Mode::Full => costs.full = Some(cost),
        Mode::Incremental => costs.incremental = Some(cost),
    }
    tx.put(key, encode("the costs of walks", &costs)?);
    Ok(())
}

impl Store {
    /// What the last walks of a stream cost.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn walk_costs(&self, stream: &StreamId) -> Result<WalkCosts, StoreError> {
        let bytes = self.0.kv.get(&keyspace::walk_costs(stream))?;
        Ok(bytes.map(|bytes| decode("the costs of walks", &bytes)).transpose()?.unwrap_or_default())
    }
}
