//! Disk space, reserved ahead of need, so that a disk that fills up loses nothing and stops nothing for good.
//!
//! The engine's log is allocated some way beyond its end, so that what is appended next has its blocks
//! already. When no more can be had, or the disk has nearly nothing left, the committer refuses transactions before
//! the engine sees them: reading goes on, and writing too once there is room. A reserve file is deleted so that the
//! store can start on a full disk, where the engine writes a snapshot first.
//!
//! Called by `sled`. Where the file system cannot allocate ahead, its free space is asked instead.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::statvfs;
use rustix::io::Errno;

use crate::store::error::StoreError;

/// Bytes of the log that are always allocated beyond its end: the engine writes a change several times over,
/// and moves pages.
const AHEAD_MIN: u64 = 4 * 1024 * 1024;
/// Allocated at once beyond that, so that few commits have to.
const STEP: u64 = 4 * 1024 * 1024;
/// What must be free all the same: the engine gives the end of its file back when it likes, with what was allocated
/// beyond it, and on a disk without any room others have that before its next write.
const FREE_MIN: u64 = 1024 * 1024;
/// Free space at which a full disk counts as usable again; the gap to the limit keeps it from flipping at each commit.
const AGAIN: u64 = 16 * 1024 * 1024;
/// Unit in which the system counts a file's blocks.
const BLOCK: u64 = 512;
/// How many bytes one changed byte may cost the log.
const GROWTH: u64 = 8;
/// The reserve, when the last snapshot was small.
const RESERVE_MIN: u64 = 2 * 1024 * 1024;
const RESERVE: &str = "reserve";

/// Room for one engine's files.
pub(crate) struct Room {
    directory: PathBuf,
    log: File,
    ahead: Mutex<Ahead>,
}

/// What is known of the log.
#[derive(Default)]
struct Ahead {
    /// It was allocated up to here.
    until: u64,
    /// The last attempt to allocate more failed. Until one succeeds nothing passes, small or large.
    full: bool,
}

impl Room {
    /// `directory` holds the reserve and lies on the log's file system.
    pub(crate) fn new(directory: &Path, log: File) -> Room {
        Room { directory: directory.to_owned(), log, ahead: Mutex::default() }
    }

    /// Reserves room in the log for a batch of that many bytes.
    ///
    /// # Errors
    /// [`StoreError::Full`]: not now.
    pub(crate) fn for_log(&self, bytes: u64) -> Result<(), StoreError> {
        let io = |error: Errno| StoreError::io(&self.directory, error.into());
        let log = self.log.metadata().map_err(|error| StoreError::io(&self.directory, error))?;
        let length = log.len();
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.free_space(if ahead.full { AGAIN } else { FREE_MIN });
        ahead.full |= room.is_err();
        room?;
        let wanted = AHEAD_MIN + bytes * GROWTH;
        // With fewer blocks the engine gave the end of its file back, and what was allocated beyond it.
        let is_whole = log.blocks().saturating_mul(BLOCK) >= ahead.until;
        if is_whole && ahead.until >= length + wanted && !ahead.full {
            return Ok(());
        }
        // From the beginning: what is a hole in the log is no room either.
        let allocated = allocate(&self.log, 0, length + wanted + STEP);
        ahead.full = allocated.is_err();
        match allocated {
            Ok(()) => {
                ahead.until = length + wanted + STEP;
                self.ensure_reserve();
                Ok(())
            }
            Err(Errno::NOSPC | Errno::DQUOT) => Err(StoreError::Full),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.free_space(wanted),
            Err(error) => Err(io(error)),
        }
    }

    /// Whether the file system reports that many bytes as free.
    fn free_space(&self, bytes: u64) -> Result<(), StoreError> {
        let system = statvfs(&self.directory).map_err(|error| StoreError::io(&self.directory, error.into()))?;
        if system.f_bavail.saturating_mul(system.f_frsize) < bytes { Err(StoreError::Full) } else { Ok(()) }
    }

    /// Makes the reserve when it is not there, as large as the disk allows. Without one only a start on a full
    /// disk is in doubt, so a failure is no error.
    pub(crate) fn ensure_reserve(&self) {
        let path = self.directory.join(RESERVE);
        if path.exists() {
            return;
        }
        let mut wanted = RESERVE_MIN + 2 * snapshot_bytes(&self.directory.join("sled"));
        while wanted >= 64 * 1024 {
            let made = File::create(&path).and_then(|file| {
                allocate(&file, 0, wanted).map_err(io::Error::from)?;
                file.sync_all()
            });
            match made {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(%error, wanted, "no room for the reserve");
                    drop(fs::remove_file(&path));
                }
            }
            wanted /= 2;
        }
    }
}

/// Gives a file its blocks without making it longer.
#[cfg(target_os = "linux")]
fn allocate(file: &File, from: u64, bytes: u64) -> Result<(), Errno> {
    rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, from, bytes)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> Result<(), Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Deletes the reserve file. False: there was none.
pub(crate) fn release_reserve(directory: &Path) -> bool {
    fs::remove_file(directory.join(RESERVE)).is_ok()
}

fn snapshot_bytes(engine: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(engine) else { return 0 };
    let snapshots = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("snap."));
    snapshots.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}
