//! Which runs are open, without a look at all that are kept: the status, the forecasts and whoever waits for idleness
//! ask every few moments.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::{Counters, Store, StoreError, decode, keys};
use crate::domain::Run;

/// What earlier looks found. A run that was opened again since is missed by it, and so by its count.
#[derive(Default)]
pub(super) struct OpenRuns {
    ids: BTreeSet<u64>,
    /// All runs up to this one were looked at.
    seen: Option<u64>,
}

impl Store {
    /// The open runs, newest first. Reads those alone, unless their number is not what the books say: then all that
    /// are kept, some hundred milliseconds for 100,000.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn open_runs(&self, counters: &Counters) -> Result<Vec<Run>, StoreError> {
        let mut known = self.0.open_runs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = self.look_at(&mut known)?;
        if open.len() as u64 != counters.open_runs {
            *known = OpenRuns::default();
            open = self.look_at(&mut known)?;
        }
        Ok(open)
    }

    /// Reads those that were open, and those that were started since.
    fn look_at(&self, known: &mut OpenRuns) -> Result<Vec<Run>, StoreError> {
        let seen = known.seen;
        for pair in self.0.kv.scan_back(b"u", &keys::after(b"u")) {
            let run: Run = decode("a run", &pair?.1)?;
            if seen.is_some_and(|seen| run.id <= seen) {
                break;
            }
            known.ids.extend(run.is_open().then_some(run.id));
            known.seen = known.seen.max(Some(run.id));
        }
        let mut open = Vec::with_capacity(known.ids.len());
        for id in &known.ids {
            open.extend(self.run(*id)?.filter(Run::is_open));
        }
        known.ids = open.iter().map(|run| run.id).collect();
        open.reverse();
        Ok(open)
    }
}
