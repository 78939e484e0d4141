//! The handle to the store that all callers share: engine, committer, keys and clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::catalog::Definition;
use crate::domain::{Clock, RunId, SourceOrigin, Timestamp};
use crate::store::crypto::SealKey;
use crate::store::engine::data_keys::DataKeys;
use crate::store::engine::kv::{self, Kv};
use crate::store::error::StoreError;
use crate::store::keyspace::Queue;
use crate::store::tx::active_leases::ActiveLeases;
use crate::store::tx::committer::Committer;
use crate::store::tx::counters::{self, Counter, Counters};
use crate::store::tx::notify::Signals;
use crate::store::tx::transaction::Tx;
use crate::store::tx::uncommitted_calls::UncommittedCalls;
use crate::supervisor::{Supervisor, describe_join_error};

/// The embedded store. Cheap to clone; the last handle closes it.
#[derive(Clone)]
pub struct Store(pub(in crate::store) Arc<Inner>);

pub(in crate::store) struct Inner {
    pub(in crate::store) kv: Arc<dyn Kv>,
    pub(in crate::store) committer: Committer,
    pub(in crate::store) signals: Arc<Signals>,
    pub(in crate::store) queues: Mutex<Option<mpsc::UnboundedReceiver<Queue>>>,
    pub(in crate::store) ended_runs: Mutex<Option<mpsc::UnboundedReceiver<RunId>>>,
    /// Jobs with an attempt under way.
    pub(in crate::store) active_leases: SharedLeases,
    pub(in crate::store) calls: UncommittedCalls,
    pub(in crate::store) keys: Arc<DataKeys>,
    /// A master key that opens rows of the mirror too, while the master key changes.
    pub(in crate::store) other_master: RwLock<Option<SealKey>>,
    pub(in crate::store) clock: Clock,
    /// Where new secrets are proved before they are stored.
    pub(in crate::store) source: OnceLock<SourceOrigin>,
    pub(in crate::store) cursor_key: Zeroizing<Vec<u8>>,
    /// Number of parked records at which a shop is paused.
    pub(in crate::store) parked_max: AtomicU64,
    pub(in crate::store) archives_when_settling: AtomicBool,
    /// What is indexed of archived documents; empty: no archive is kept.
    pub(in crate::store) indexed: RwLock<HashMap<String, Arc<Definition>>>,
    /// See [`Store::work_done`].
    pub(in crate::store) work_done: AtomicU64,
    /// First key that the opening did not check for damage; none: all were checked.
    pub(in crate::store) unseen: kv::LookFrom,
}

pub(crate) type SharedLeases = Arc<Mutex<ActiveLeases>>;

pub(crate) fn lock_leases(leases: &SharedLeases) -> MutexGuard<'_, ActiveLeases> {
    leases.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Runs a transaction and returns when it is durable.
    ///
    /// Cancel safety: a caller that goes away does not stop the transaction.
    pub(crate) async fn transact<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.0.committer.transact(work).await
    }

    /// The same for input that only people can enter again: the watermark knows of it before the caller continues.
    ///
    /// Cancel safety: the transaction is durable; the watermark may lack it, which does no harm.
    pub(crate) async fn transact_given<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let given = self.transact(work).await?;
        if let Some(mark) = self.0.committer.mark.clone()
            && let Err(error) = blocking(move || mark.sync()).await
        {
            // The change is durable; only a later truncation of the log might go unnoticed.
            tracing::warn!(%error, "failed to update the commit watermark");
        }
        Ok(given)
    }

    /// Turns true when the engine failed, or a supervised part; the process must stop then.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.0.committer.failed()
    }

    /// Supervises the parts of the process; a failure of the store counts as one of them.
    pub fn supervisor(&self) -> &Supervisor {
        &self.0.committer.supervisor
    }

    /// Whether the disk has room for further changes; else changes are refused with [`StoreError::Full`].
    ///
    /// # Errors
    /// [`StoreError::Full`], or the error of asking the file system.
    pub fn check_room(&self) -> Result<(), StoreError> {
        self.0.kv.reserve(&[])
    }

    /// Notifications after commits.
    pub fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// The queues that get work; handed out once, to the lanes.
    pub fn take_queue_signals(&self) -> Option<mpsc::UnboundedReceiver<Queue>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The runs that end, each once its end is durable; handed out once.
    pub fn take_ended_runs(&self) -> Option<mpsc::UnboundedReceiver<RunId>> {
        self.0.ended_runs.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The wall clock that records carry.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Authenticates the cursors of the HTTP API; made at the first start, kept sealed.
    pub fn cursor_key(&self) -> &[u8] {
        &self.0.cursor_key
    }

    /// Results of calls that were settled, and outbox entries that left for the sink, since the store was opened.
    pub fn work_done(&self) -> u64 {
        self.0.work_done.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn count_work(&self, count: usize) {
        self.0.work_done.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.0.kv.size()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The master keys that may have sealed a row of the mirror, the one in use first.
    pub(crate) fn masters(&self) -> Vec<SealKey> {
        let other = self.0.other_master.read().unwrap_or_else(PoisonError::into_inner).clone();
        std::iter::once(self.0.keys.master()).chain(other).collect()
    }

    /// Changes the data keys on a thread that may block.
    pub(crate) async fn change_keys(
        &self,
        change: impl FnOnce(&DataKeys) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let keys = Arc::clone(&self.0.keys);
        blocking(move || change(&keys)).await
    }
}

impl Store {
    /// How much work there is now.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn counters(&self) -> Result<Counters, StoreError> {
        let counters = counters::stored(&*self.0.kv)?;
        Ok(Counters {
            ready_jobs: counters.count(Counter::Ready),
            waiting_jobs: counters.count(Counter::Waiting),
            retrying_jobs: counters.count(Counter::Retrying),
            leased_jobs: lock_leases(&self.0.active_leases).len() as u64,
            outbox: counters.count(Counter::Outbox),
            outbox_bytes: counters.count(Counter::OutboxBytes),
            parked: counters.count(Counter::Parked),
            open_runs: counters.count(Counter::OpenRuns),
        })
    }

    /// Sealed bytes in the outbox; of [`Store::counters`] the one that lanes ask for at each turn.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_bytes(&self) -> Result<u64, StoreError> {
        Ok(counters::stored(&*self.0.kv)?.count(Counter::OutboxBytes))
    }
}

/// Reads on a thread that may block.
///
/// # Errors
/// The read's own, and [`StoreError::Engine`] when it panicked. Cancel safe: the read goes on, and its result is dropped.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| StoreError::Engine(describe_join_error(&error).to_owned()))?
}
