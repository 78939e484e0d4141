//! How far this process is with the sink: moving the archive to MySQL, checks, and the restore.

use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Progress of the move from the archive.
#[derive(Debug, Default)]
pub(super) struct ArchiveMove {
    /// Documents of the archive are not in MySQL yet.
    pub(super) is_running: AtomicBool,
    /// Documents that are still in the archive, once they are counted.
    pub(super) left: AtomicU64,
    pub(super) moved: AtomicU64,
}

/// Progress of the checks of the sink.
#[derive(Debug, Default)]
pub(super) struct SinkCheck {
    /// A check or a repair goes on.
    pub(super) is_busy: AtomicBool,
    /// The first check could not reach the sink, and the health says so; it is tried until it can.
    pub(super) has_failed: AtomicBool,
    /// The sink is of another kind than this store was used with before: it is no loss that it holds nothing yet.
    pub(super) is_new: AtomicBool,
    /// The next look checks the sink.
    pub(super) is_due: AtomicBool,
    /// Ends the pause before the next look.
    pub(super) wake: Notify,
    /// Cancelled once the sink was checked after the start. Before that nothing is written: it would hide a loss.
    pub(super) first: CancellationToken,
}

/// That the last try to restore from MySQL failed.
#[derive(Clone, Debug)]
pub(super) struct Unrestored {
    pub(super) why: String,
    /// An outage ends by itself; a wrong key needs an operator.
    pub(super) needs_operator: bool,
}
