//! The one writer: a thread that runs transactions one after another and makes groups of them durable together.
//!
//! A transaction is a function over [`Tx`]. It sees everything that was committed before it and its own changes, and takes
//! effect whole or not at all. Callers get their answer after the group is on the disk, never before. On a full disk a group
//! is refused before the engine sees it. After an engine error or a panic the committer stops for good: what is on the disk
//! is then unknown, and only opening the store again can tell.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::store::engine::kv::{Change, Kv};
use crate::store::engine::watermark::Watermark;
use crate::store::error::StoreError;
use crate::store::texts::ShopKeys;
use crate::store::tx::counters::{self, CounterChanges};
use crate::store::tx::notify::{Signal, Signals};
use crate::store::tx::transaction::{Overlay, Tx};
use crate::supervisor::Supervisor;

/// A group closes when its changes reach this size; larger ones gain nothing and delay answers.
const GROUP_BYTES_MAX: usize = 256 * 1024;
/// Transactions waiting for the thread; beyond it callers wait.
const WAITING_MAX: usize = 4096;

type QueuedTransaction = Box<dyn FnOnce(&mut Tx<'_>) -> SendAnswer + Send>;
/// Sends the caller its answer after the group is durable or failed.
type SendAnswer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The handle to the committer's thread.
pub(crate) struct Committer {
    sender: mpsc::Sender<QueuedTransaction>,
    pub(crate) supervisor: Supervisor,
    /// Where the thread notes its commits; none: a store in memory.
    pub(crate) mark: Option<Arc<Watermark>>,
    /// Works in the caller's thread instead: a simulation's time must not run on while another thread works.
    #[cfg(test)]
    inline: Option<std::sync::Mutex<Worker>>,
}

impl Committer {
    /// Starts the thread. It ends when the last handle is dropped or the engine fails.
    pub(crate) fn start(
        kv: Arc<dyn Kv>,
        keys: Arc<dyn ShopKeys>,
        signals: Arc<Signals>,
        mark: Option<Arc<Watermark>>,
    ) -> Result<Committer, StoreError> {
        let (committer, mut worker) = Committer::with_worker(kv, keys, signals, mark);
        std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| StoreError::Engine(format!("cannot start the committer's thread: {error}")))?;
        Ok(committer)
    }

    /// The same without a thread.
    #[cfg(test)]
    pub(crate) fn inline(kv: Arc<dyn Kv>, keys: Arc<dyn ShopKeys>, signals: Arc<Signals>) -> Committer {
        let (mut committer, worker) = Committer::with_worker(kv, keys, signals, None);
        committer.inline = Some(std::sync::Mutex::new(worker));
        committer
    }

    fn with_worker(
        kv: Arc<dyn Kv>,
        keys: Arc<dyn ShopKeys>,
        signals: Arc<Signals>,
        mark: Option<Arc<Watermark>>,
    ) -> (Committer, Worker) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let supervisor = Supervisor::default();
        let committer = Committer {
            sender,
            supervisor: supervisor.clone(),
            mark: mark.clone(),
            #[cfg(test)]
            inline: None,
        };
        (committer, Worker { kv, keys, mark, receiver, signals, supervisor, full: false, unnoted: false })
    }

    /// Runs a transaction and returns when it is durable.
    ///
    /// Cancel safety: a caller that goes away does not stop the transaction.
    pub(crate) async fn transact<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work: QueuedTransaction = Box::new(move |tx| {
            let result = work(tx);
            tx.refused = result.is_err();
            Box::new(move |durable| {
                // The caller may be gone; the transaction is durable all the same.
                drop(reply.send(durable.and(result)));
            })
        });
        self.sender.send(work).await.map_err(|_| StoreError::Failed)?;
        #[cfg(test)]
        if let Some(worker) = &self.inline {
            worker.lock().unwrap_or_else(std::sync::PoisonError::into_inner).catch_up();
        }
        answer.await.map_err(|_| StoreError::Failed)?
    }

    /// Turns true when the engine failed; the process should end then.
    pub(crate) fn failed(&self) -> watch::Receiver<bool> {
        self.supervisor.failed()
    }
}

/// State of the thread.
struct Worker {
    kv: Arc<dyn Kv>,
    keys: Arc<dyn ShopKeys>,
    mark: Option<Arc<Watermark>>,
    receiver: mpsc::Receiver<QueuedTransaction>,
    signals: Arc<Signals>,
    supervisor: Supervisor,
    full: bool,
    /// The last write of the watermark failed.
    unnoted: bool,
}

impl Drop for Worker {
    /// However the thread ends: without it no change is accepted.
    fn drop(&mut self) {
        self.supervisor.stop_process();
    }
}

impl Worker {
    /// Works until the last handle is gone or the engine fails.
    fn run(&mut self) {
        while let Some(first) = self.receiver.blocking_recv() {
            if !self.group(first) {
                return;
            }
        }
    }

    /// Runs all queued transactions.
    #[cfg(test)]
    fn catch_up(&mut self) {
        while let Ok(first) = self.receiver.try_recv() {
            self.group(first);
        }
    }

    /// Runs a group of transactions and answers it. False: the engine failed.
    fn group(&mut self, first: QueuedTransaction) -> bool {
        let (kv, keys) = (&*self.kv, &*self.keys);
        // The engine may panic too; any panic must stop the process in order.
        let group = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let Group { answers, changes, counts, raised } = run_group(kv, keys, first, &mut self.receiver);
            (answers, raised, commit(kv, changes, &counts))
        }));
        let outcome = match group {
            Ok((answers, raised, durable)) => {
                if let Ok(Some(number)) = durable {
                    self.note(number);
                }
                let durable = durable.map(drop);
                let refused = matches!(durable, Err(StoreError::Full));
                if self.full != refused {
                    self.full = refused;
                    log_room(refused);
                }
                if durable.is_ok() {
                    self.signals.raise(raised);
                }
                for answer in answers {
                    answer(durable.clone());
                }
                if refused { Ok(()) } else { durable }
            }
            Err(_) => Err(StoreError::Engine("a transaction panicked".to_owned())),
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "the store failed: stopping, so that a restart opens it again");
            self.supervisor.stop_process();
        }
        outcome.is_ok()
    }

    /// Notes a durable commit in the watermark, before its callers get their answers.
    fn note(&mut self, number: u64) {
        let noted = self.mark.as_ref().map_or(Ok(()), |mark| mark.note(number));
        let failed = std::mem::replace(&mut self.unnoted, noted.is_err());
        if let (Err(error), false) = (noted, failed) {
            // The commit is durable; only a later truncation of the log might go unnoticed.
            tracing::warn!(%error, "failed to update the commit watermark");
        }
    }
}

/// A transaction without the thread, for the opening of the store.
pub(crate) fn run_once(
    kv: &dyn Kv,
    keys: &dyn ShopKeys,
    work: impl FnOnce(&mut Tx<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let nothing = Overlay::new();
    let mut tx = Tx::over(kv, &nothing, keys);
    work(&mut tx)?;
    apply(kv, tx.own.into_iter().collect(), &tx.counts).map(drop)
}

/// The number of the commit; none: nothing changed.
fn apply(kv: &dyn Kv, mut changes: Vec<Change>, counts: &CounterChanges) -> Result<Option<u64>, StoreError> {
    if changes.is_empty() && counts.values().all(|by| *by == 0) {
        return Ok(None);
    }
    let (number, books) = counters::committed(kv, counts)?;
    changes.push(books);
    kv.apply(&changes)?;
    Ok(Some(number))
}

/// The same, unless there is no room for it.
fn commit(kv: &dyn Kv, changes: Vec<Change>, counts: &CounterChanges) -> Result<Option<u64>, StoreError> {
    kv.reserve(&changes)?;
    apply(kv, changes, counts)
}

fn log_room(full: bool) {
    if full {
        tracing::error!("the disk that holds the data directory is full: changes are refused until space is free");
    } else {
        tracing::info!("the disk has free space again");
    }
}

struct Group {
    answers: Vec<SendAnswer>,
    changes: Vec<Change>,
    counts: CounterChanges,
    raised: BTreeSet<Signal>,
}

fn run_group(
    kv: &dyn Kv,
    keys: &dyn ShopKeys,
    first: QueuedTransaction,
    receiver: &mut mpsc::Receiver<QueuedTransaction>,
) -> Group {
    let mut group = Overlay::new();
    let mut raised = BTreeSet::new();
    let mut answers = Vec::new();
    let mut counts = CounterChanges::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(work) = next.take() {
        let mut tx = Tx::over(kv, &group, keys);
        answers.push(work(&mut tx));
        let Tx { own, counts: own_counts, raised: own_raised, bytes: own_bytes, refused, .. } = tx;
        if !refused {
            group.extend(own);
            for (counter, by) in own_counts {
                *counts.entry(counter).or_default() += by;
            }
            raised.extend(own_raised);
            bytes += own_bytes;
        }
        if bytes < GROUP_BYTES_MAX {
            next = receiver.try_recv().ok();
        }
    }
    Group { answers, changes: group.into_iter().collect(), counts, raised }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::{Committer, GROUP_BYTES_MAX, Overlay, QueuedTransaction, Tx, run_group, run_once};
    use crate::store::engine::kv::Kv;
    use crate::store::engine::memory::MemoryKv;
    use crate::store::texts::NoKeys;
    use crate::store::tx::counters::{self, Counter};
    use crate::store::tx::notify::Signals;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    proptest! {
        /// A scan over engine, group and own changes equals a scan over all of them merged.
        #[test]
        fn scans_see_all_layers(
            below in keys(), group in changes(), own in changes(), limit in 0usize..12,
        ) {
            let kv = MemoryKv::default();
            kv.apply(&below.iter().map(|key| (vec![b'k', *key], Some(vec![0]))).collect::<Vec<_>>()).unwrap();
            let layer = |changes: &[(u8, bool)], mark: u8| -> Overlay {
                changes.iter().map(|(key, keep)| (vec![b'k', *key], keep.then(|| vec![mark]))).collect()
            };
            let (group, own) = (layer(&group, 1), layer(&own, 2));
            let merged = MemoryKv::default();
            merged.apply(&kv.scan(b"k", b"").map(|pair| pair.map(|(k, v)| (k, Some(v))).unwrap()).collect::<Vec<_>>()).unwrap();
            merged.apply(&group.clone().into_iter().collect::<Vec<_>>()).unwrap();
            merged.apply(&own.clone().into_iter().collect::<Vec<_>>()).unwrap();
            let mut tx = Tx::over(&kv, &group, &NoKeys);
            tx.own = own;
            let expected: Vec<_> = merged.scan(b"k", b"").map(Result::unwrap).take(limit).collect();
            prop_assert_eq!(tx.scan(b"k", b"", limit).unwrap(), expected);
        }
    }

    fn put(key: u8, bytes: usize) -> QueuedTransaction {
        Box::new(move |tx| {
            tx.put(vec![key], vec![0; bytes]);
            Box::new(|_| {})
        })
    }

    #[test]
    fn a_group_takes_what_waits_until_it_is_large() {
        let kv = MemoryKv::default();
        // That many transactions of these sizes are one group.
        for (sizes, grouped) in [
            (&[10, 10, 10][..], 3),
            (&[100 * 1024, 200 * 1024, 1], 2),
            (&[GROUP_BYTES_MAX - 1, 1], 1),
            (&[GROUP_BYTES_MAX - 2, 1], 2),
        ] {
            let (sender, mut receiver) = mpsc::channel(8);
            let mut works = sizes.iter().zip(0..).map(|(bytes, key)| put(key, *bytes));
            let first = works.next().unwrap();
            works.for_each(|work| drop(sender.try_send(work)));
            let group = run_group(&kv, &NoKeys, first, &mut receiver);
            assert_eq!((group.answers.len(), group.changes.len()), (grouped, grouped), "{sizes:?}");
            assert_eq!(receiver.len(), sizes.len() - grouped);
        }
        assert_eq!(GROUP_BYTES_MAX, 262_144);
    }

    #[test]
    fn what_changes_nothing_is_no_commit_and_a_count_alone_is_one() {
        let kv = MemoryKv::default();
        let commits_after = |by: i64| {
            let counting = |tx: &mut Tx<'_>| {
                tx.count(Counter::Parked, by);
                Ok(())
            };
            run_once(&kv, &NoKeys, counting).unwrap();
            counters::commits(&kv).unwrap()
        };
        assert_eq!([0, 2, 0, -1].map(commits_after), [0, 1, 1, 2]);
    }

    #[test]
    fn a_worker_that_ends_is_reported() {
        let (signals, _receivers) = Signals::new();
        let (committer, worker) =
            Committer::with_worker(Arc::new(MemoryKv::default()), Arc::new(NoKeys), Arc::new(signals), None);
        let failed = committer.failed();
        assert!(!*failed.borrow());
        drop(worker);
        assert!(*failed.borrow());
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0u8..16, 0..12)
    }

    fn changes() -> impl Strategy<Value = Vec<(u8, bool)>> {
        proptest::collection::vec((0u8..16, any::<bool>()), 0..12)
    }
}
