//! Leasing: takes ready jobs for one attempt each, and gives them back.
//!
//! The record of a lease and the occupied rate slots are one commit, made before any call leaves.

use crate::domain::Lease;
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace::{self, Queue};
use crate::store::records::leases::LeaseRecord;
use crate::store::records::rate_slots;
use crate::store::records::ready_queue::{self, SelectedJob};
use crate::store::tx::active_leases::Released;
use crate::store::tx::handle::{SharedLeases, Store, lock_leases};
use crate::store::tx::notify::Signal;
use crate::store::tx::transaction::Tx;

pub(crate) fn records_of(selected: &[SelectedJob]) -> Vec<LeaseRecord> {
    let mut records: Vec<LeaseRecord> = Vec::new();
    for SelectedJob { queue, record, job } in selected {
        if let Some(known) = records.iter_mut().find(|known| known.record == *record && known.queue == *queue) {
            known.seqs.insert(job.seq);
        } else {
            records.push(LeaseRecord {
                queue: queue.clone(),
                priority: job.priority,
                record: *record,
                seqs: [job.seq].into(),
            });
        }
    }
    records
}

/// Ends leases, current or late; returns which were current.
pub(crate) fn release<'a>(
    tx: &mut Tx<'_>,
    active: &SharedLeases,
    leases: impl Iterator<Item = &'a Lease>,
) -> Vec<bool> {
    let mut active = lock_leases(active);
    leases
        .map(|lease| {
            let released = active.release(lease);
            if released == Released::LastOfToken {
                tx.delete(keyspace::lease(lease.fencing_token));
            }
            released != Released::NotCurrent
        })
        .collect()
}

/// At open: counts the attempts that the previous process did not finish. Their jobs never left the ready queue, so
/// they simply run again.
pub(crate) fn recover(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    for (key, bytes) in tx.scan(keyspace::LEASES, keyspace::LEASES, usize::MAX)? {
        for LeaseRecord { queue, priority, record, seqs } in decode::<Vec<LeaseRecord>>("a lease record", &bytes)? {
            ready_queue::count_attempts(tx, queue.key(priority, record), &seqs)?;
        }
        tx.delete(key);
    }
    Ok(())
}

/// Occupied slots of a budget.
#[derive(Clone, Debug)]
pub struct OccupiedSlots {
    pub account: String,
    pub rule: String,
    pub occupied: u32,
}

impl Store {
    /// Takes up to `want` jobs of the queues for one attempt each, most urgent first and queues
    /// of one priority in turn (beginning with the first). Durable before it returns, together with the
    /// budget's `occupied` slots, which counts the calls of these jobs already.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn lease(
        &self,
        queues: Vec<Queue>,
        want: usize,
        budget: Option<OccupiedSlots>,
    ) -> Result<Vec<Lease>, StoreError> {
        let active = SharedLeases::clone(&self.0.active_leases);
        let fencing_token = lock_leases(&active).next_token();
        let leased = self.transact(move |tx| {
            let mut active = lock_leases(&active);
            let selected = ready_queue::pick(tx, &queues, want, &active)?;
            if selected.is_empty() {
                return Ok(Vec::new());
            }
            let under_way = encode("a lease record", &records_of(&selected))?;
            active.hold(
                fencing_token,
                &selected.iter().map(|selected| (&selected.queue, &selected.job)).collect::<Vec<_>>(),
            );
            tx.put(keyspace::lease(fencing_token), under_way);
            if let Some(OccupiedSlots { account, rule, occupied }) = budget {
                let unused = u32::try_from(want - selected.len()).unwrap_or(0);
                rate_slots::put(tx, &account, &rule, occupied.saturating_sub(unused));
            }
            let lease = |SelectedJob { record, mut job, .. }| {
                job.attempts += 1;
                Lease { attempt: job.attempts, job, fencing_token, record }
            };
            Ok(selected.into_iter().map(lease).collect())
        });
        let leased = leased.await;
        if leased.is_err() {
            lock_leases(&self.0.active_leases).forget(fencing_token);
        }
        leased
    }

    /// Gives up leases without a result (a step that was cut off, a commit that failed): the jobs are ready again.
    pub fn abandon(&self, leases: &[Lease]) {
        let mut active = lock_leases(&self.0.active_leases);
        for lease in leases {
            // The record of the leases stays until the next start; it does no harm.
            active.release(lease);
            self.0.signals.raise([Signal::Queue(Queue::of(&lease.job))].into());
        }
    }
}
