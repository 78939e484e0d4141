//! What the last walks of a stream cost, for forecasts of the next ones.

use serde::{Deserialize, Serialize};

use crate::domain::{Mode, Run, StreamId};
use crate::store::keyspace;
use crate::store::ops::detail::DocumentNote;
use crate::store::ops::list_page::RowNote;
use crate::store::{Store, StoreError, Tx, decode, encode};

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

/// What the ledger knows of a stream's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedRows {
    /// The own time of each row that is listed; none where the list has none.
    pub times: Vec<Option<i64>>,
    /// Rows whose document may still change, so that a full walk on request reads it again.
    pub may_change: u64,
    /// Documents whose planned read is due.
    pub due: u64,
}

/// Notes a walk that came to its end.
pub(crate) fn note(tx: &mut Tx<'_>, run: &Run) -> Result<(), StoreError> {
    let key = keyspace::stream(b'W', &run.stream);
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
        let bytes = self.0.kv.get(&keyspace::stream(b'W', stream))?;
        Ok(bytes.map(|bytes| decode("the costs of walks", &bytes)).transpose()?.unwrap_or_default())
    }

    /// The rows of a stream that are listed. Looks at all of them and at their documents.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn listed_rows(&self, stream: &StreamId) -> Result<ListedRows, StoreError> {
        let prefix = keyspace::stream(b'r', stream);
        let now = self.now();
        let mut found = ListedRows::default();
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let (key, bytes) = pair?;
            let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default();
            // Marks of rows that cannot be followed begin with a control character.
            if id.starts_with(char::is_control) {
                continue;
            }
            let row: RowNote = decode("a ledger row", &bytes)?;
            if row.gone_at.is_none() {
                found.times.push(row.time);
            }
            let document = self.0.kv.get(&keyspace::document(&stream.shop, &stream.resource, &id))?;
            let note = document.map(|bytes| decode::<DocumentNote>("a ledger document", &bytes)).transpose()?;
            let Some(note) = note else { continue };
            found.due += u64::from(note.refresh.is_some_and(|(due, _)| due <= now));
            found.may_change += u64::from(row.gone_at.is_none() && (note.refresh.is_some() || note.unknown));
        }
        Ok(found)
    }
}
