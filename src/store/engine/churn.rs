//! Tests: the engine's log at rest, and over a simulated month of churn.

use std::fs::File;
use std::path::Path;

use crate::store::engine::kv::{Change, Kv};
use crate::store::engine::sled::SledKv;
use crate::store::error::StoreError;

/// Days of the month.
const DAYS: u64 = 30;
/// Commits of a day.
const COMMITS: u64 = 40;
/// Documents that are written once and stay.
const COLD: u64 = 4_000;
/// Records that are written over and over.
const HOT: u64 = 300;
/// Entries that wait in a queue at one time.
const QUEUED: u64 = 200;
/// What the log may hold beyond a multiple of what is alive.
const SLACK: u64 = 16 * 1024 * 1024;

fn open(directory: &Path) -> SledKv {
    loop {
        let lock = File::create(directory.join("lock")).unwrap();
        match SledKv::open(directory, lock) {
            // Threads of the engine that was closed still have its files.
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn put(prefix: u8, number: u64, length: usize, random: &mut fastrand::Rng) -> Change {
    let value: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
    (key(prefix, number), Some(value))
}

fn key(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend(number.to_be_bytes());
    key
}

fn live(kv: &SledKv) -> u64 {
    kv.scan(b"", b"").map(|pair| pair.unwrap()).map(|(key, value)| (key.len() + value.len()) as u64).sum()
}

/// One commit of the month: some records change, a queue moves on, now and then a large value or a new document.
fn commit(kv: &SledKv, number: u64, random: &mut fastrand::Rng) {
    let mut changes = Vec::new();
    for _ in 0..20 {
        changes.push(put(b'h', random.u64(..HOT), 600, random));
    }
    for step in 0..10 {
        let entry = number * 10 + step;
        changes.push(put(b'q', entry, 1_500, random));
        changes.extend(entry.checked_sub(QUEUED).map(|old| (key(b'q', old), None)));
    }
    changes.push(put(b'd', random.u64(..COLD), 2_000, random));
    if number.is_multiple_of(20) {
        changes.push(put(b'l', number % 100, 300_000, random));
        changes.push((key(b'l', (number + 40) % 100), None));
    }
    changes.sort();
    changes.dedup_by(|one, other| one.0 == other.0);
    kv.apply(&changes).unwrap();
}

#[test]
fn a_month_of_churn_leaves_the_log_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let kv = open(directory.path());
    let mut random = fastrand::Rng::with_seed(21);
    for from in (0..COLD).step_by(100) {
        let changes: Vec<Change> = (from..from + 100).map(|id| put(b'd', id, 2_000, &mut random)).collect();
        kv.apply(&changes).unwrap();
    }
    for day in 0..DAYS {
        for number in day * COMMITS..(day + 1) * COMMITS {
            commit(&kv, number, &mut random);
        }
        let (size, live) = (kv.size(), live(&kv));
        assert!(size <= 3 * live + SLACK, "day {day}: a log of {size} bytes for {live} alive");
    }
    let alive: Vec<_> = kv.scan(b"", b"").map(Result::unwrap).collect();
    drop(kv);
    assert_eq!(open(directory.path()).scan(b"", b"").map(Result::unwrap).collect::<Vec<_>>(), alive);
}

/// The engine's flusher wrote twice a second, whether anything had changed or not.
#[test]
fn nothing_is_written_without_a_commit() {
    let directory = tempfile::tempdir().unwrap();
    let kv = open(directory.path());
    let mut random = fastrand::Rng::with_seed(21);
    (0..COMMITS).for_each(|number| commit(&kv, number, &mut random));
    // The engine splits and merges pages when they are next read, and writes that in the background; a flush waits for it.
    live(&kv);
    kv.apply(&[]).unwrap();
    let log = || std::fs::read(directory.path().join("sled/db")).unwrap();
    let before = log();
    assert!(live(&kv) > 0 && kv.get(&key(b'h', 1)).unwrap().is_some());
    // The engine may still be giving back the end of the file.
    assert!(before.starts_with(&log()), "reading wrote to the log");
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default());
    let names: Vec<String> = names.collect();
    assert!(!names.iter().any(|name| name.contains("flush")), "{names:?}");
}
