//! Counts the documents that this process read, by run, for a command that reports on its pass.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::{RunId, StepOutput};
use crate::store::Settled;

/// Runs that are remembered. Only a command looks at them, and a service must not collect them for years.
const RUNS_MAX: usize = 10_000;

/// Documents read, by the run that listed them; None: re-read outside of runs.
#[derive(Debug, Default)]
pub(super) struct Reads(Mutex<BTreeMap<Option<RunId>, u64>>);

impl Reads {
    /// The documents among outputs: position and run.
    pub(super) fn of(outputs: &[StepOutput]) -> Vec<(usize, Option<RunId>)> {
        let run = |(at, output): (usize, &StepOutput)| match output {
            StepOutput::Document { lease, .. } => Some((at, lease.job.kind.run)),
            _ => None,
        };
        outputs.iter().enumerate().filter_map(run).collect()
    }

    /// Counts those that were committed.
    pub(super) fn note(&self, read: Vec<(usize, Option<RunId>)>, settled: &[Settled]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, run) in read.into_iter().filter(|(at, _)| settled.get(*at) == Some(&Settled::Applied)) {
            *counts.entry(run).or_default() += 1;
        }
        while counts.len() > RUNS_MAX {
            let oldest = counts.keys().find(|run| run.is_some()).copied();
            oldest.and_then(|oldest| counts.remove(&oldest));
        }
    }

    pub(super) fn counts(&self) -> BTreeMap<Option<RunId>, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
