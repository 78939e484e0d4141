//! Who this process is in the register, and whether another registered process still lives.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use rustix::system::uname;
use sha2::{Digest as _, Sha256};

use crate::sink::mysql::Member;
use crate::store::Store;

/// What the id of a data directory is derived from, beside its random key.
const DIRECTORY_CONTEXT: &[u8] = b"waybill data directory";
/// The start time in `/proc/<pid>/stat`, counted from the field behind the name.
const START_FIELD: usize = 19;

/// In place of what this process may not see.
const HIDDEN: &str = "-";

/// Whether a registered process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// The kernel has no such process any more.
    Gone,
    Alive,
    /// It is on another machine or in another container: only its heartbeats show.
    Unknown,
}

/// This process, with the store of its data directory.
pub(super) fn of_this_process(store: &Store, directory: &Path, command: &str) -> Member {
    let pid = std::process::id();
    let start = start_of(pid).flatten().unwrap_or_default();
    Member {
        session: uuid::Uuid::new_v4().simple().to_string(),
        directory: id_of(store),
        host: host(),
        pid,
        process: format!("{} {} {start} {}", boot(), namespace(), lock(directory)),
        command: command.to_owned(),
    }
}

/// The id of a data directory: a store that is made new has another one.
fn id_of(store: &Store) -> String {
    let mut digest = Sha256::new();
    digest.update(DIRECTORY_CONTEXT);
    digest.update(store.cursor_key());
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn host() -> String {
    uname().nodename().to_string_lossy().chars().take(200).collect()
}

/// The id of the machine's current boot; a hardened unit may hide it.
pub(super) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if boot.trim().is_empty() { HIDDEN.to_owned() } else { boot.trim().to_owned() }
}

/// The namespace that numbers of processes belong to.
fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map_or_else(|_| HIDDEN.to_owned(), |link| link.to_string_lossy().into_owned())
}

/// The lock file of a data directory, which one process at a time holds: a copy has another one.
fn lock(directory: &Path) -> String {
    let lock = fs::metadata(directory.join("lock"));
    lock.map_or_else(|_| HIDDEN.to_owned(), |file| format!("{}:{}", file.dev(), file.ino()))
}

/// When a process of ours started; the inner None: it has ended. None: there is none of this number, or it is hidden.
fn start_of(pid: u32) -> Option<Option<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any character.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return Some(None);
    }
    Some(Some(fields.nth(START_FIELD - 1)?.to_owned()))
}

/// A part of what a process says of itself: 0 its boot, 1 its namespace, 2 its start, 3 the lock of its data directory.
fn part(member: &Member, number: usize) -> &str {
    member.process.split(' ').nth(number).unwrap_or(HIDDEN)
}

/// The boot that a registered process ran in.
pub(super) fn boot_of(member: &Member) -> &str {
    part(member, 0)
}

/// Whether two processes hold the same lock file: then one of them is gone, as far as both are of one boot.
pub(super) fn share_lock(one: &Member, other: &Member) -> bool {
    part(one, 3) != HIDDEN && [0, 3].iter().all(|number| part(one, *number) == part(other, *number))
}

/// Whether a registered process lives, as far as this machine can say.
pub(super) fn life_of(member: &Member) -> Life {
    let (boot, namespace) = (boot(), namespace());
    let is_known = boot != HIDDEN && namespace != HIDDEN;
    if !is_known || boot_of(member) != boot || part(member, 1) != namespace {
        return Life::Unknown;
    }
    match start_of(member.pid) {
        Some(Some(start)) if start == part(member, 2) => Life::Alive,
        Some(_) => Life::Gone,
        // Another user's process may be hidden.
        None => match i32::try_from(member.pid).ok().and_then(Pid::from_raw).map(test_kill_process) {
            Some(Err(Errno::SRCH)) => Life::Gone,
            _ => Life::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::{Life, boot, life_of, namespace, share_lock, start_of};
    use crate::sink::mysql::Member;

    fn member(pid: u32, start: &str, lock: &str) -> Member {
        let text = || String::new();
        let process = format!("{} {} {start} {lock}", boot(), namespace());
        Member { session: text(), directory: text(), host: text(), pid, process, command: text() }
    }

    #[test]
    fn a_process_of_this_machine_is_known_to_live_or_to_be_gone() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let start = start_of(child.id()).flatten().unwrap();
        let other = member(child.id(), &start, "1:2");
        assert_eq!(life_of(&other), Life::Alive);
        assert_eq!(life_of(&member(child.id(), "1", "1:2")), Life::Gone, "another process has its number");
        child.kill().unwrap();
        // It has ended as soon as the signal is handled, though its parent has not asked yet.
        while life_of(&other) != Life::Gone {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(life_of(&other), Life::Gone);
        let away = Member { process: "another-boot pid:[1] 7 1:2".to_owned(), ..other.clone() };
        assert_eq!(life_of(&away), Life::Unknown);
        assert!(share_lock(&other, &member(1, "9", "1:2")) && !share_lock(&other, &member(1, "9", "1:3")));
        assert!(!share_lock(&other, &away) && !share_lock(&member(1, "9", "-"), &member(2, "9", "-")));
    }
}
