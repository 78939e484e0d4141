//! Limits that the system sets for this process: met at the start with a message, not later with a crash.

use std::thread;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that a start asks for: connections, calls, the store and the database, with room to spare.
const FILES_WANTED: u64 = 4_096;
/// Fewer are not enough to work at all.
const FILES_MIN: u64 = 64;
/// Files of the store, the log, the runtime and the database.
const FILES_OWN: u64 = 32;
/// Address space, most of it never used: stacks of threads, arenas of the allocator, the engine's cache.
const ADDRESSES_MIN: u64 = 1 << 30;
/// Threads beside those of the runtime: the engine's, the log's, and blocking reads.
const THREADS_BESIDE: usize = 8;
/// Connections to the API at once, as long as there are files for them.
const CONNECTIONS_MAX: usize = 1_000;

/// Raises the limit of open files as far as it may, and looks whether the process can work within its limits.
///
/// # Errors
/// Which limit is too low, and how to raise it.
pub fn prepare() -> Result<(), String> {
    let files = getrlimit(Resource::Nofile);
    let most = files.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    if files.current.is_some_and(|current| current < most) {
        // What is refused here is met below.
        setrlimit(Resource::Nofile, rustix::process::Rlimit { current: Some(most), ..files }).ok();
    }
    if let Some(files) = open_files().filter(|files| *files < FILES_MIN) {
        return Err(format!(
            "only {files} files may be open at once, and at least {FILES_MIN} are needed; raise the limit to \
             {FILES_WANTED} (`ulimit -n`, or LimitNOFILE= of the systemd unit)"
        ));
    }
    for (resource, option) in [(Resource::As, "ulimit -v"), (Resource::Data, "ulimit -d")] {
        if let Some(bytes) = getrlimit(resource).current.filter(|bytes| *bytes < ADDRESSES_MIN) {
            return Err(format!(
                "the address space is limited to {} MiB, and at least {} MiB are needed; raise the limit (`{option}`), and \
                 bound the memory that is used by MemoryMax= of the systemd unit",
                bytes >> 20,
                ADDRESSES_MIN >> 20
            ));
        }
    }
    can_start_threads()
}

/// Starts as many threads as the runtime will, which itself can only panic.
fn can_start_threads() -> Result<(), String> {
    let count = thread::available_parallelism().map_or(1, usize::from) + THREADS_BESIDE;
    let started: Vec<_> = (0..count).map(|_| thread::Builder::new().spawn(thread::park)).collect();
    let mut refused = None;
    for thread in started {
        match thread {
            Ok(thread) => {
                thread.thread().unpark();
                thread.join().ok();
            }
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(()), |error| {
        Err(format!(
            "{count} threads are needed, and the system does not give them: {error}; raise the limit (`ulimit -u`, or \
             TasksMax= of the systemd unit)"
        ))
    })
}

fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How much may be open at once within the limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) connections: usize,
    pub(super) calls: usize,
}

impl Room {
    /// The wanted number of calls, or fewer with a warning where files are few.
    pub(super) fn for_calls(wanted: usize) -> Room {
        let files = open_files();
        let room = Room::within(files, wanted);
        if let Some(files) = files.filter(|_| room != Room::within(None, wanted)) {
            tracing::warn!(
                files,
                connections = room.connections,
                calls = room.calls,
                "few files may be open at once, so fewer connections are taken and fewer calls made; raise the limit \
                 (`ulimit -n`, or LimitNOFILE= of the systemd unit)"
            );
        }
        room
    }

    fn within(files: Option<u64>, wanted: usize) -> Room {
        let free =
            files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(FILES_OWN)).unwrap_or(usize::MAX));
        Room { connections: (free / 2).clamp(1, CONNECTIONS_MAX), calls: wanted.min((free / 4).max(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn few_files_are_shared_out() {
        let room = |files, calls| Room::within(files, calls);
        assert_eq!(room(None, 256), Room { connections: 1_000, calls: 256 });
        assert_eq!(room(Some(4_096), 256), Room { connections: 1_000, calls: 256 });
        assert_eq!(room(Some(1_024), 256), Room { connections: 496, calls: 248 });
        assert_eq!(room(Some(64), 256), Room { connections: 16, calls: 8 });
        assert_eq!(room(Some(64), 2), Room { connections: 16, calls: 2 });
    }
}
