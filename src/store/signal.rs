//! Who is woken after a commit: the lanes (work came), the writer (documents came), the timer (an
//! earlier due time came). Raised inside transactions, sent only once these are durable.

use std::collections::BTreeSet;

use tokio::sync::{Notify, mpsc};

use super::keys::Queue;

/// Something that a durable transaction wants others to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// A queue has work.
    Queue(Queue),
    /// The outbox has entries.
    Outbox,
    /// Something waits for a due time.
    Timer,
    /// A run ended.
    Ended(u64),
    /// Progress that watchers of idleness care about.
    Progress,
}

/// The receiving ends.
#[derive(Debug)]
pub struct Signals {
    queues: mpsc::UnboundedSender<Queue>,
    ended: mpsc::UnboundedSender<u64>,
    /// Woken when the outbox grew.
    pub outbox: Notify,
    /// Woken when something waits for a due time.
    pub timer: Notify,
    /// Woken after every commit that moved work along.
    pub progress: Notify,
}

impl Signals {
    /// The signals, the stream of queue names for the lanes, and that of runs that ended.
    pub(super) fn new() -> (Signals, mpsc::UnboundedReceiver<Queue>, mpsc::UnboundedReceiver<u64>) {
        let (queues, receiver) = mpsc::unbounded_channel();
        let (ended, ended_runs) = mpsc::unbounded_channel();
        (
            Signals { queues, ended, outbox: Notify::new(), timer: Notify::new(), progress: Notify::new() },
            receiver,
            ended_runs,
        )
    }

    pub(super) fn raise(&self, signals: BTreeSet<Signal>) {
        for signal in signals {
            match signal {
                // Without lanes (a command that only looks) nobody listens; that is no error.
                Signal::Queue(queue) => drop(self.queues.send(queue)),
                Signal::Ended(run) => drop(self.ended.send(run)),
                Signal::Outbox => self.outbox.notify_one(),
                Signal::Timer => self.timer.notify_one(),
                Signal::Progress => self.progress.notify_waiters(),
            }
        }
    }
}
