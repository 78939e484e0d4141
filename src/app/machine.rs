//! What the process asks of the system at its start: memory and files that only it can read, and enough of each
//! resource, with a clear message instead of a crash later.

use std::path::Path;
use std::thread;

use rustix::fs::{Access, Mode, access};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getrlimit, kill_process, set_dumpable_behavior, setrlimit, umask,
};

/// Limit of open files to raise to: connections, calls, store and database, with a reserve.
const FILES_WANTED: u64 = 4_096;
/// Least number of open files.
const FILES_MIN: u64 = 64;
/// Open files of the store, the log, the runtime and the database.
const FILES_OWN: u64 = 32;
/// Least address space in bytes, mostly unused: thread stacks, allocator arenas, the store's cache.
const ADDRESSES_MIN: u64 = 1 << 30;
/// Threads beside those of the runtime: the store's, the log's, and blocking reads.
const THREADS_BESIDE: usize = 8;
/// Most connections to the HTTP API, if there are enough files.
const CONNECTIONS_MAX: usize = 1_000;

/// Whether this user may create something in a folder.
pub(crate) fn may_write(folder: &Path) -> bool {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Keeps keys and documents inside the process: no core dump, no debugger or `/proc/PID/environ` for other processes of
/// this user, and new files for this user alone. Called before any secret is read.
///
/// # Errors
/// The system refuses; then no secret should be read.
pub fn keep_private() -> Result<(), String> {
    umask(Mode::RWXG | Mode::RWXO);
    let refused = |error| format!("the system does not let this process go without core dumps: {error}");
    // Also for a `core_pattern` that pipes dumps to a program, which ignores the limit.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // A system call filter may forbid to set what is set already.
    if getrlimit(Resource::Core) == none { Ok(()) } else { setrlimit(Resource::Core, none).map_err(refused) }
}

/// Asks a process of this user to end, as SIGTERM does.
///
/// # Errors
/// There is no such process, or it is another user's.
pub(crate) fn ask_to_end(pid: u32) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, Signal::TERM)?)
}

/// Raises the limit of open files and checks all limits.
///
/// # Errors
/// Names the limit that is too low, and how to raise it.
pub fn prepare() -> Result<(), String> {
    let files = getrlimit(Resource::Nofile);
    let most = files.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    if files.current.is_some_and(|current| current < most) {
        // If this fails, the check below reports it.
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..files }).ok();
    }
    if let Some(files) = open_files().filter(|files| *files < FILES_MIN) {
        return Err(format!(
            "the limit of open files is {files}, and at least {FILES_MIN} are needed; raise it to \
             {FILES_WANTED} (`ulimit -n`, or LimitNOFILE= of the systemd unit)"
        ));
    }
    for (resource, option) in [(Resource::As, "ulimit -v"), (Resource::Data, "ulimit -d")] {
        if let Some(bytes) = getrlimit(resource).current.filter(|bytes| *bytes < ADDRESSES_MIN) {
            return Err(format!(
                "the address space is limited to {} MiB, and at least {} MiB are needed; raise the limit (`{option}`), and \
                 limit memory with MemoryMax= of the systemd unit instead",
                bytes >> 20,
                ADDRESSES_MIN >> 20
            ));
        }
    }
    can_start_threads()
}

/// Starts as many threads as the runtime will: the runtime itself would panic on failure.
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
            "failed to start {count} threads: {error}; raise the limit (`ulimit -u`, or TasksMax= of the systemd \
             unit)"
        ))
    })
}

fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Most connections and calls within the limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFileBudget {
    pub(super) connections: usize,
    pub(super) calls: usize,
}

impl OpenFileBudget {
    /// The wanted number of calls, or fewer with a warning.
    pub(super) fn for_calls(wanted: usize) -> OpenFileBudget {
        let files = open_files();
        let budget = OpenFileBudget::within(files, wanted);
        if let Some(files) = files.filter(|_| budget != OpenFileBudget::within(None, wanted)) {
            tracing::warn!(
                files,
                connections = budget.connections,
                calls = budget.calls,
                "the limit of open files reduces connections and concurrent calls; raise it (`ulimit -n`, or \
                 LimitNOFILE= of the systemd unit)"
            );
        }
        budget
    }

    fn within(files: Option<u64>, wanted: usize) -> OpenFileBudget {
        let free =
            files.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(FILES_OWN)).unwrap_or(usize::MAX));
        OpenFileBudget { connections: (free / 2).clamp(1, CONNECTIONS_MAX), calls: wanted.min((free / 4).max(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::OpenFileBudget;

    #[test]
    fn a_low_file_limit_is_divided_between_connections_and_calls() {
        let budget = |files, calls| OpenFileBudget::within(files, calls);
        assert_eq!(budget(None, 256), OpenFileBudget { connections: 1_000, calls: 256 });
        assert_eq!(budget(Some(4_096), 256), OpenFileBudget { connections: 1_000, calls: 256 });
        assert_eq!(budget(Some(1_024), 256), OpenFileBudget { connections: 496, calls: 248 });
        assert_eq!(budget(Some(64), 256), OpenFileBudget { connections: 16, calls: 8 });
        assert_eq!(budget(Some(64), 2), OpenFileBudget { connections: 16, calls: 2 });
    }
}
