//! Changes to a run's record: its counters, its end, and what follows from both.
//!
//! Called inside the transactions of all work for a run.

use std::collections::BTreeMap;

use crate::domain::{Run, RunId, RunState, Timestamp};
use crate::store::error::StoreError;
use crate::store::ops::invariants;
use crate::store::ops::parse_alert;
use crate::store::ops::stream_status;
use crate::store::records::runs;
use crate::store::tx::counters::Counter;
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

/// Changes a run's record, and closes it when nothing is left to do. A run that was deleted
/// is no error.
pub(crate) fn update(
    tx: &mut Tx<'_>,
    id: Option<RunId>,
    now: Timestamp,
    change: impl FnOnce(&mut Run),
) -> Result<(), StoreError> {
    let Some(id) = id else { return Ok(()) };
    let Some(mut run) = runs::read(tx, id)? else { return Ok(()) };
    let before = run.clone();
    change(&mut run);
    if run.fetched + run.gone + run.parked > run.to_fetch {
        let what = format!(
            "run {id} asked for {} details and has {} fetched, {} gone and {} parked",
            run.to_fetch, run.fetched, run.gone, run.parked
        );
        invariants::pause_shop(tx, &run.stream.shop, &what, now)?;
    }
    if run.state == RunState::Fetching && run.pending() == 0 {
        run.state = RunState::Done;
    }
    if before.is_open() && !run.is_open() {
        run.alarmed = parse_alert::warn_of_details(&run);
        run.ended_at = Some(now);
        tx.count(Counter::OpenRuns, -1);
        tx.raise(Signal::Ended(id));
        stream_status::run_ended(tx, &run, now)?;
        count_end(&run);
    } else if !before.is_open() && run.is_open() {
        run.ended_at = None;
        tx.count(Counter::OpenRuns, 1);
    }
    runs::put(tx, Some(&before), &run)
}

/// Counts a run that ended, for the metrics.
pub(crate) fn count_end(run: &Run) {
    if run.is_open() {
        return;
    }
    let result = run.state.name();
    metrics::counter!("waybill_runs_total", "resource" => run.stream.resource.clone(), "result" => result).increment(1);
}

/// Changes of one transaction to the counters of its runs.
#[derive(Default)]
pub(crate) struct RunCounts(BTreeMap<RunId, CountsOfRun>);

#[derive(Default)]
pub(crate) struct CountsOfRun {
    fetched: u64,
    gone: u64,
    obsolete: u64,
    written: u64,
}

impl RunCounts {
    pub(crate) fn fetched(&mut self, run: Option<RunId>) {
        self.of(run, |counts| counts.fetched += 1);
    }

    pub(crate) fn gone(&mut self, run: Option<RunId>) {
        self.of(run, |counts| counts.gone += 1);
    }

    /// One that it no longer asks for.
    pub(crate) fn obsolete(&mut self, run: Option<RunId>) {
        self.of(run, |counts| counts.obsolete += 1);
    }

    pub(crate) fn written(&mut self, run: Option<RunId>) {
        self.of(run, |counts| counts.written += 1);
    }

    fn of(&mut self, run: Option<RunId>, change: impl FnOnce(&mut CountsOfRun)) {
        if let Some(run) = run {
            change(self.0.entry(run).or_default());
        }
    }

    /// Writes them down, one record a run; part of the same transaction.
    pub(crate) fn apply(self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
        for (id, counts) in self.0 {
            update(tx, Some(id), now, |run| {
                run.fetched += counts.fetched;
                run.gone += counts.gone;
                run.to_fetch = run.to_fetch.saturating_sub(counts.obsolete);
                run.written += counts.written;
            })?;
        }
        Ok(())
    }
}
