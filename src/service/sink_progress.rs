//! How far this process is with moving the archive to MySQL, and with checking the sink.

use std::sync::atomic::{AtomicBool, AtomicU64};

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
    /// The next look checks the sink.
    pub(super) is_due: AtomicBool,
}
