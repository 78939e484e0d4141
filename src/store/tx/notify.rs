//! Notifications after a commit: to the lanes (new work), the writer (new outbox entries), the timer (an earlier due time).
//! Raised inside transactions, sent only once these are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::domain::{RunId, ShopId};
use crate::store::keyspace::{self, Queue};

/// Changes kept for the health; with more of them everything is read again.
const CHANGES_MAX: usize = 50_000;

/// Records after which an index is looked at.
const INDEX_RECORDS: usize = 512;

/// Something that the health depends on, and that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// A shop, or what is recorded of its streams or parked of it.
    Shop(ShopId),
    Run(RunId),
}

impl Changed {
    /// The part of the health that a changed key belongs to.
    pub(crate) fn by(key: &[u8]) -> Option<Changed> {
        match keyspace::shop_of_health(key) {
            Some(shop) => Some(Changed::Shop(shop)),
            None => keyspace::run_of(key).map(Changed::Run),
        }
    }
}

/// Changes since the last call of [`Signals::take_changes`].
#[derive(Debug, Default)]
pub struct Changes {
    pub what: BTreeSet<Changed>,
    /// More than is listed.
    pub all: bool,
}

/// A notification that a transaction raises once it is durable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// A queue has work.
    Queue(Queue),
    /// The outbox has entries.
    Outbox,
    /// Something waits for a due time.
    Timer,
    /// A run ended.
    Ended(RunId),
    /// Progress that watchers of idleness care about.
    Progress,
    /// Something that the health depends on.
    Changed(Changed),
    /// The index of a resource's archived documents of a shop got a record.
    Indexed(String, ShopId),
    /// A document was archived that is not indexed.
    Unindexed,
}

/// Where the signals of commits arrive, but for those with one receiver.
#[derive(Debug)]
pub struct Signals {
    queues: mpsc::UnboundedSender<Queue>,
    ended: mpsc::UnboundedSender<RunId>,
    changes: Mutex<Changes>,
    /// Woken when something changed that the health depends on.
    pub changed: Notify,
    /// Woken when the outbox grew.
    pub outbox: Notify,
    /// Woken when something waits for a due time.
    pub timer: Notify,
    /// Woken after every commit that moved work along.
    pub progress: Notify,
    /// Records that indexes got since they were last looked at, by resource and shop.
    index_records: Mutex<BTreeMap<(String, ShopId), usize>>,
    /// Woken when an index has many of them, or lacks a document.
    pub indexed: Notify,
}

/// Signals that have one receiver, none of which may be missed.
pub(crate) struct Receivers {
    /// For the lanes.
    pub(crate) queues: mpsc::UnboundedReceiver<Queue>,
    pub(crate) ended_runs: mpsc::UnboundedReceiver<RunId>,
}

impl Signals {
    pub(crate) fn new() -> (Signals, Receivers) {
        let (to_queues, queues) = mpsc::unbounded_channel();
        let (ended, ended_runs) = mpsc::unbounded_channel();
        let signals = Signals {
            queues: to_queues,
            ended,
            changes: Mutex::default(),
            changed: Notify::new(),
            outbox: Notify::new(),
            timer: Notify::new(),
            progress: Notify::new(),
            index_records: Mutex::default(),
            indexed: Notify::new(),
        };
        (signals, Receivers { queues, ended_runs })
    }

    pub(crate) fn raise(&self, signals: BTreeSet<Signal>) {
        for signal in signals {
            match signal {
                // Commands without lanes have no receiver; that is no error.
                Signal::Queue(queue) => drop(self.queues.send(queue)),
                Signal::Ended(run) => drop(self.ended.send(run)),
                Signal::Outbox => self.outbox.notify_one(),
                Signal::Timer => self.timer.notify_one(),
                Signal::Progress => self.progress.notify_waiters(),
                Signal::Changed(what) => self.note(what),
                Signal::Indexed(resource, shop) => self.note_indexed(resource, shop),
                Signal::Unindexed => self.indexed.notify_one(),
            }
        }
    }

    fn note_indexed(&self, resource: String, shop: ShopId) {
        let mut records = self.index_records.lock().unwrap_or_else(PoisonError::into_inner);
        let count = records.entry((resource, shop)).or_default();
        *count += 1;
        if *count == INDEX_RECORDS {
            self.indexed.notify_one();
        }
    }

    /// The indexes that got many records since the last call.
    pub(crate) fn take_indexed(&self) -> Vec<(String, ShopId)> {
        let mut records = self.index_records.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = records.iter().filter(|(_, count)| **count >= INDEX_RECORDS);
        let grown: Vec<_> = grown.map(|(of, _)| of.clone()).collect();
        records.retain(|_, count| *count < INDEX_RECORDS);
        grown
    }

    fn note(&self, what: Changed) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.what.len() < CHANGES_MAX {
            changes.what.insert(what);
        } else {
            changes.all = true;
        }
        drop(changes);
        self.changed.notify_one();
    }

    /// The changes since the last call. All of them are durable.
    pub fn take_changes(&self) -> Changes {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
