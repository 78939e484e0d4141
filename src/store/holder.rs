//! Which process holds a data directory: a note in its lock file, for the error message of the next one.
//!
//! The system's file lock decides; the note only informs. Only the holder writes it, as soon as it has the lock; the note
//! of a process that is gone is ignored.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longer than any note; the file may be another's.
const NOTE_MAX: u64 = 1024;

/// Looks for a note, and the pause between two.
const LOOKS: u32 = 10;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What this process writes into the lock files that it holds.
static OURS: RwLock<Option<Ours>> = RwLock::new(None);

#[derive(Clone)]
struct Ours {
    command: String,
    listen: Option<SocketAddr>,
}

/// A process that holds a data directory, as its note says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    /// Like `sync`; none: a program that has no commands.
    #[serde(default)]
    pub command: Option<String>,
    /// Where its API listens; none: it has none.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}

impl Holder {
    /// Sets the note for the lock files that this process takes from now on.
    pub fn introduce(command: &str, listen: Option<SocketAddr>) {
        let ours = Ours { command: command.to_owned(), listen };
        *OURS.write().unwrap_or_else(PoisonError::into_inner) = Some(ours);
    }

    /// Writes the note. A full disk costs the note alone.
    pub(super) fn note(lock: &mut File) {
        let ours = OURS.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (command, listen) = ours.map(|ours| (ours.command, ours.listen)).unzip();
        let holder = Holder { pid: std::process::id(), command, listen: listen.flatten() };
        let text = serde_json::to_vec(&holder).unwrap_or_default();
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(&text));
        if let Err(error) = written {
            tracing::debug!(%error, "failed to note the holder in the lock file");
        }
    }

    /// The process that holds a data directory, if one does; the inner None: it is unknown which. Changes nothing.
    pub fn find(directory: &Path) -> Option<Option<Holder>> {
        let lock = directory.join("lock");
        match File::open(&lock).ok()?.try_lock() {
            Err(TryLockError::WouldBlock) => Some(Holder::of(&lock)),
            _ => None,
        }
    }

    /// Reads the note in a lock file that another process holds. One that has just got the lock has a moment to write it.
    pub(super) fn of(lock: &Path) -> Option<Holder> {
        for _ in 1..LOOKS {
            match Holder::read(lock) {
                Some(holder) => return Some(holder),
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
        Holder::read(lock)
    }

    fn read(lock: &Path) -> Option<Holder> {
        let mut text = String::new();
        File::open(lock).ok()?.take(NOTE_MAX).read_to_string(&mut text).ok()?;
        let holder: Holder = serde_json::from_str(&text).ok()?;
        let plain = |command: &String| command.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let is_alive = fs::exists(format!("/proc/{}", holder.pid)).unwrap_or(false);
        (is_alive && holder.command.as_ref().is_none_or(plain)).then_some(holder)
    }

    /// Where a client on this machine reaches its API.
    pub fn address(&self) -> Option<SocketAddr> {
        let listen = self.listen?;
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Some(SocketAddr::new(ip, listen.port()))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Some(command) => write!(f, "`waybill {command}` (process {})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// For the message: the holder, or that there is one.
pub(super) struct Shown<'a>(pub(super) Option<&'a Holder>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => holder.fmt(f),
            None => f.write_str("another Waybill process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Holder, Shown};
    use std::fs::{self, File};

    #[test]
    fn a_lock_file_says_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, "a longer text that an earlier process left behind, and that is gone afterwards").unwrap();
        Holder::note(&mut File::options().write(true).open(&path).unwrap());
        let holder = Holder::of(&path).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(holder.to_string(), format!("process {}", holder.pid));
    }

    #[test]
    fn a_note_that_is_missing_broken_or_of_a_process_that_is_gone_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(Holder::of(&path), None);
        let ours = std::process::id();
        for text in ["", "{", "{\"pid\":4294967295,\"command\":\"sync\"}"] {
            fs::write(&path, text).unwrap();
            assert_eq!(Holder::of(&path), None, "{text}");
        }
        fs::write(&path, format!("{{\"pid\":{ours},\"command\":\"\\u001b[2J\"}}")).unwrap();
        assert_eq!(Holder::of(&path), None, "nothing of it acts on a terminal");
        assert_eq!(Shown(None).to_string(), "another Waybill process");
        fs::write(&path, format!("{{\"pid\":{ours},\"command\":\"hand-over\",\"listen\":null}}")).unwrap();
        let shown = Shown(Holder::of(&path).as_ref()).to_string();
        assert_eq!(shown, format!("`waybill hand-over` (process {ours})"));
    }

    #[test]
    fn a_server_that_listens_everywhere_is_reached_on_loopback() {
        let at = |listen: &str| {
            let holder = Holder { pid: 1, command: None, listen: Some(listen.parse().unwrap()) };
            holder.address().unwrap().to_string()
        };
        assert_eq!(at("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(at("[::]:8080"), "[::1]:8080");
        assert_eq!(at("127.0.0.1:81"), "127.0.0.1:81");
    }
}
