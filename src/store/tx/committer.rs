//! The one writer: a thread that runs transactions one after another and makes groups of them durable together.
//!
//! A transaction is a function over [`Tx`]. It sees everything that was committed before it and its own changes, and takes
//! effect whole or not at all. Callers get their answer after the group is on the disk, never before. On a full disk a group
//! is refused before the engine sees it. After an engine error or a panic the committer stops for good: what is on the disk
//! is then unknown, and only a fresh opening may tell.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::store::StoreError;
use crate::store::engine::integrity;
use crate::store::engine::sled::{Change, Kv, Pair};
use crate::store::engine::watermark::Mark;
use crate::store::tx::counters::{self, Counter, Counts};
use crate::store::tx::notify::{Changed, Signal, Signals};

/// A group closes when its changes reach this size; larger ones gain nothing and delay answers.
const GROUP_BYTES_MAX: usize = 256 * 1024;
/// Transactions waiting for the thread; beyond it callers wait.
const WAITING_MAX: usize = 4096;

type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
type Work = Box<dyn FnOnce(&mut Tx<'_>) -> Answer + Send>;
/// Sends the caller its answer, once the group's fate is known.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The handle to the committer's thread.
pub(crate) struct Committer {
    sender: mpsc::Sender<Work>,
    /// Told by the thread, and by who must end the process for another reason.
    pub(crate) fail: watch::Sender<bool>,
    /// What the thread notes its commits in; none: a store in memory.
    pub(crate) mark: Option<Arc<Mark>>,
    /// Works in the caller's thread instead: a simulation's time must not run on while another thread works.
    #[cfg(test)]
    inline: Option<std::sync::Mutex<Worker>>,
}

impl Committer {
    /// Starts the thread. It ends when the last handle is dropped or the engine fails.
    pub(crate) fn start(
        kv: Arc<dyn Kv>,
        signals: Arc<Signals>,
        mark: Option<Arc<Mark>>,
    ) -> Result<Committer, StoreError> {
        let (committer, mut worker) = Committer::with_worker(kv, signals, mark);
        std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| StoreError::Engine(format!("cannot start the committer's thread: {error}")))?;
        Ok(committer)
    }

    /// The same without a thread.
    #[cfg(test)]
    pub(crate) fn inline(kv: Arc<dyn Kv>, signals: Arc<Signals>) -> Committer {
        let (mut committer, worker) = Committer::with_worker(kv, signals, None);
        committer.inline = Some(std::sync::Mutex::new(worker));
        committer
    }

    fn with_worker(kv: Arc<dyn Kv>, signals: Arc<Signals>, mark: Option<Arc<Mark>>) -> (Committer, Worker) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let fail = watch::Sender::new(false);
        let committer = Committer {
            sender,
            fail: fail.clone(),
            mark: mark.clone(),
            #[cfg(test)]
            inline: None,
        };
        (committer, Worker { kv, mark, receiver, signals, fail, full: false, unnoted: false })
    }

    /// Runs a transaction and returns when it is durable.
    ///
    /// Cancel safety: a caller that goes away does not stop the transaction.
    pub(crate) async fn transact<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |tx| {
            let result = work(tx);
            tx.refused = result.is_err();
            Box::new(move |durable| {
                // The caller may have gone away; the transaction stands all the same.
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
        self.fail.subscribe()
    }
}

/// What the thread has.
struct Worker {
    kv: Arc<dyn Kv>,
    mark: Option<Arc<Mark>>,
    receiver: mpsc::Receiver<Work>,
    signals: Arc<Signals>,
    fail: watch::Sender<bool>,
    full: bool,
    /// The mark could not be written the last time.
    unnoted: bool,
}

impl Drop for Worker {
    /// However the thread ends: without it nothing is taken in any more.
    fn drop(&mut self) {
        self.fail.send_replace(true);
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

    /// Works off what waits.
    #[cfg(test)]
    fn catch_up(&mut self) {
        while let Ok(first) = self.receiver.try_recv() {
            self.group(first);
        }
    }

    /// Runs a group of transactions and answers it. False: the engine failed.
    fn group(&mut self, first: Work) -> bool {
        let kv = &*self.kv;
        // The engine's own code too: a panic must end the process well, whoever caused it.
        let group = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let Group { answers, changes, counts, raised } = run_group(kv, first, &mut self.receiver);
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
                    tell_room(refused);
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
            tracing::error!(%error, "the store failed; stopping, to open it anew");
            self.fail.send_replace(true);
        }
        outcome.is_ok()
    }

    /// Notes a commit that is durable, before anybody hears of it.
    fn note(&mut self, number: u64) {
        let noted = self.mark.as_ref().map_or(Ok(()), |mark| mark.note(number));
        let failed = std::mem::replace(&mut self.unnoted, noted.is_err());
        if let (Err(error), false) = (noted, failed) {
            // Only a log that is cut later might not be noticed.
            tracing::warn!(%error, "a commit could not be noted beside the store");
        }
    }
}

/// A transaction without the thread, for the opening of the store.
pub(crate) fn run_once(
    kv: &dyn Kv,
    work: impl FnOnce(&mut Tx<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let nothing = Overlay::new();
    let mut tx = Tx::over(kv, &nothing);
    work(&mut tx)?;
    apply(kv, tx.own.into_iter().collect(), &tx.counts).map(drop)
}

/// The number of the commit; none: nothing changed.
fn apply(kv: &dyn Kv, mut changes: Vec<Change>, counts: &Counts) -> Result<Option<u64>, StoreError> {
    if changes.is_empty() && counts.values().all(|by| *by == 0) {
        return Ok(None);
    }
    let (number, books) = counters::committed(kv, counts)?;
    changes.push(books);
    kv.apply(&changes)?;
    Ok(Some(number))
}

/// The same, unless there is no room for it.
fn commit(kv: &dyn Kv, changes: Vec<Change>, counts: &Counts) -> Result<Option<u64>, StoreError> {
    kv.has_room(&changes)?;
    apply(kv, changes, counts)
}

fn tell_room(full: bool) {
    if full {
        tracing::error!("the disk that holds the data directory is full: nothing is taken in until there is room");
    } else {
        tracing::info!("there is room on the disk again");
    }
}

struct Group {
    answers: Vec<Answer>,
    changes: Vec<Change>,
    counts: Counts,
    raised: BTreeSet<Signal>,
}

fn run_group(kv: &dyn Kv, first: Work, receiver: &mut mpsc::Receiver<Work>) -> Group {
    let mut group = Overlay::new();
    let mut raised = BTreeSet::new();
    let mut answers = Vec::new();
    let mut counts = Counts::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(work) = next.take() {
        let mut tx = Tx::over(kv, &group);
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

/// A transaction in progress.
pub struct Tx<'a> {
    kv: &'a dyn Kv,
    group: &'a Overlay,
    own: Overlay,
    counts: Counts,
    raised: BTreeSet<Signal>,
    bytes: usize,
    refused: bool,
    /// Shops of which it parked something.
    pub(crate) parked: BTreeSet<String>,
    /// Shops that it paused for a breach; their runs end behind it.
    pub(crate) breached: BTreeSet<String>,
    /// The outbox record that takes further entries of this transaction, and its size.
    pub(crate) open_record: Option<(u64, usize)>,
}

impl<'a> Tx<'a> {
    /// Over what is on the disk and what the group committed before.
    pub(crate) fn over(kv: &'a dyn Kv, group: &'a Overlay) -> Tx<'a> {
        let (own, counts, raised) = (Overlay::new(), Counts::new(), BTreeSet::new());
        let (parked, breached) = (BTreeSet::new(), BTreeSet::new());
        Tx { kv, group, own, counts, raised, bytes: 0, refused: false, parked, breached, open_record: None }
    }
}

impl Tx<'_> {
    /// The value of a key, own changes included.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.own.get(key).or_else(|| self.group.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.kv.get(key),
        }
    }

    /// Looks at what is on the disk for damage, while nobody writes.
    pub(crate) fn look(&self, from: &[u8], limit: usize) -> Result<integrity::Next, StoreError> {
        self.kv.look(from, limit)
    }

    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.raised.extend(Changed::by(&key).map(Signal::Changed));
        self.own.insert(key, Some(value));
    }

    /// Adds to the value that this transaction has set; false when it has set none.
    pub(crate) fn extend(&mut self, key: &[u8], more: &[u8]) -> bool {
        let Some(Some(value)) = self.own.get_mut(key) else { return false };
        value.extend_from_slice(more);
        self.bytes += more.len();
        true
    }

    /// Bytes of its changes.
    pub(crate) fn size(&self) -> usize {
        self.bytes
    }

    /// Changes a counter together with what it counts.
    pub(crate) fn count(&mut self, counter: Counter, by: i64) {
        *self.counts.entry(counter).or_default() += by;
    }

    /// Removes a key, present or not.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.raised.extend(Changed::by(&key).map(Signal::Changed));
        self.own.insert(key, None);
    }

    /// The first `limit` pairs from `from` on with `prefix`, own changes included.
    pub fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.pairs(prefix, from).take(limit).collect()
    }

    /// The pairs from `from` on with `prefix`, own changes included, read one by one.
    pub fn pairs<'s>(&'s self, prefix: &'s [u8], from: &'s [u8]) -> impl Iterator<Item = Result<Pair, StoreError>> {
        let start = from.max(prefix);
        let own = layer(&self.own, prefix, start);
        let group = layer(self.group, prefix, start);
        let mut fresh = Merged { upper: own.peekable(), lower: group.peekable() }.peekable();
        let mut below = self.kv.scan(prefix, start).peekable();
        std::iter::from_fn(move || {
            loop {
                let order = match (fresh.peek(), below.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) | (Some(_), Some(Err(_))) => Ordering::Greater,
                    (Some((key, _)), Some(Ok((under, _)))) => key.as_slice().cmp(under),
                };
                if order == Ordering::Greater {
                    return below.next();
                }
                if order == Ordering::Equal {
                    below.next();
                }
                if let Some((key, Some(value))) = fresh.next() {
                    return Some(Ok((key.clone(), value.clone())));
                }
            }
        })
    }

    /// Tells somebody who waits, once the transaction is durable.
    pub fn raise(&mut self, signal: Signal) {
        self.raised.insert(signal);
    }
}

type Layered<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

fn layer<'a>(overlay: &'a Overlay, prefix: &'a [u8], start: &[u8]) -> impl Iterator<Item = Layered<'a>> {
    overlay.range(start.to_vec()..).take_while(move |(key, _)| key.starts_with(prefix))
}

/// Two layers in the order of keys; the upper one wins.
struct Merged<U: Iterator, L: Iterator> {
    upper: Peekable<U>,
    lower: Peekable<L>,
}

impl<'a, U: Iterator<Item = Layered<'a>>, L: Iterator<Item = Layered<'a>>> Iterator for Merged<U, L> {
    type Item = Layered<'a>;

    fn next(&mut self) -> Option<Layered<'a>> {
        let (Some((above, _)), Some((under, _))) = (self.upper.peek(), self.lower.peek()) else {
            return self.upper.next().or_else(|| self.lower.next());
        };
        match above.cmp(under) {
            Ordering::Greater => self.lower.next(),
            Ordering::Equal => {
                self.lower.next();
                self.upper.next()
            }
            Ordering::Less => self.upper.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::{Committer, GROUP_BYTES_MAX, Overlay, Tx, Work, run_group, run_once};
    use crate::store::engine::memory::MemoryKv;
    use crate::store::engine::sled::Kv;
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
            let mut tx = Tx::over(&kv, &group);
            tx.own = own;
            let expected: Vec<_> = merged.scan(b"k", b"").map(Result::unwrap).take(limit).collect();
            prop_assert_eq!(tx.scan(b"k", b"", limit).unwrap(), expected);
        }
    }

    fn put(key: u8, bytes: usize) -> Work {
        Box::new(move |tx| {
            tx.put(vec![key], vec![0; bytes]);
            Box::new(|_| {})
        })
    }

    #[test]
    fn a_group_takes_what_waits_until_it_is_large() {
        let kv = MemoryKv::default();
        // Of transactions of these sizes, so many are one group.
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
            let group = run_group(&kv, first, &mut receiver);
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
            run_once(&kv, counting).unwrap();
            counters::commits(&kv).unwrap()
        };
        assert_eq!([0, 2, 0, -1].map(commits_after), [0, 1, 1, 2]);
    }

    #[test]
    fn a_worker_that_ends_is_told_of() {
        let (signals, _queues, _ended) = Signals::new();
        let (committer, worker) = Committer::with_worker(Arc::new(MemoryKv::default()), Arc::new(signals), None);
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
