//! The engine: sled 0.34 with our own fdatasync.
//!
//! Called through `write_ahead` alone, which keeps commits in a log first. [`Kv::apply`] returns only
//! when the batch is durable: sled's `flush` does not call fsync on Linux, so this file does, on its
//! own handle to the log, after every batch.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::store::engine::collect::Collector;
use crate::store::engine::disk_space::{self, Room};
use crate::store::engine::integrity;
use crate::store::engine::kv::{self, Change, Kv, Pairs};
use crate::store::engine::large_values::{self, Head, PART_BYTES};
use crate::store::error::StoreError;

/// sled with our own fdatasync.
pub(crate) struct SledKv {
    engine: OpenDb,
    log: File,
    /// There is, or was, a value in parts.
    has_large: AtomicBool,
    room: Room,
    collector: Collector,
    /// Keeps other processes away; let go only after the engine is closed.
    _lock: File,
}

/// Sled's page cache, by the size of pages on the disk; in memory they take several times as much. Its default of 1 GiB is out
/// of proportion for one small machine.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// Reads of a large value that was changed meanwhile, before it counts as damaged.
const READS_MAX: usize = 10;
/// Set with the first large value.
const LARGE_MARK: &[u8] = b"mlarge";

impl SledKv {
    /// Opens or creates the engine in `directory`. What a kill during an earlier opening left behind
    /// is removed first; damage shows as an error, never as a panic. `lock` is held until it is closed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when sled cannot read its own files.
    pub(crate) fn open(directory: &Path, lock: File) -> Result<SledKv, StoreError> {
        let path = directory.join("sled");
        std::fs::create_dir_all(&path).map_err(|error| StoreError::io(&path, error))?;
        remove_half_written_snapshots(&path)?;
        let db = match open_caught(&path) {
            Ok(db) => db,
            Err(Unopened::Full) => open_full(directory, &path)?,
            Err(Unopened::Broken(first)) => {
                tracing::warn!(error = %first, "the store did not open; trying again without its snapshot");
                remove_files(&path, |name| name.starts_with("snap."))?;
                open_caught(&path).map_err(|error| error.into_error(&path))?
            }
            Err(error) => return Err(error.into_error(&path)),
        };
        let engine = OpenDb { db: Some(db), broken: AtomicBool::new(true) };
        let log = File::options().write(true).open(path.join("db")).map_err(|error| StoreError::io(&path, error))?;
        sync_files(directory, &path)?;
        let has_large = AtomicBool::new(engine.db()?.contains_key(LARGE_MARK).map_err(failure)?);
        let again = log.try_clone().map_err(|error| StoreError::io(&path, error))?;
        let room = Room::new(directory, again);
        room.ensure_reserve();
        engine.broken.store(false, Ordering::Relaxed);
        Ok(SledKv { engine, log, has_large, room, collector: Collector::default(), _lock: lock })
    }

    /// The pairs that sled finds, as long as the keys begin with `prefix`.
    fn pairs<'a>(
        &'a self,
        found: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> + 'a,
        prefix: &[u8],
    ) -> Pairs<'a> {
        let prefix = prefix.to_vec();
        let pairs = found.map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(failure));
        let ours = pairs.take_while(move |pair| pair.as_ref().map_or(true, |(key, _)| key.starts_with(&prefix)));
        Box::new(ours.filter_map(|pair| match pair {
            // Read again, with its parts; it may be gone by now.
            Ok((key, value)) if Head::read(&value).is_some() => {
                self.get(&key).map(|value| value.map(|value| (key, value))).transpose()
            }
            pair => Some(pair),
        }))
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let db = self.engine.db()?;
        let mut batch = sled::Batch::default();
        let had_large = self.has_large.load(Ordering::Relaxed);
        if !had_large && changes.iter().any(is_large) {
            self.has_large.store(true, Ordering::Relaxed);
            batch.insert(LARGE_MARK, &[]);
        }
        for (key, value) in changes {
            let before =
                if had_large { db.get(key).map_err(failure)?.and_then(|stored| Head::read(&stored)) } else { None };
            before.iter().flat_map(|head| head.keys(key)).for_each(|part| batch.remove(part));
            match value {
                None => batch.remove(key.as_slice()),
                Some(value) if large_values::must_split(value) => {
                    let head = Head::new(fastrand::u64(..), value.len());
                    batch.insert(key.as_slice(), head.bytes());
                    head.keys(key).zip(value.chunks(PART_BYTES)).for_each(|(key, part)| batch.insert(key, part));
                }
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
            }
        }
        db.apply_batch(batch).map_err(failure)?;
        db.flush().map_err(failure)?;
        self.sync()?;
        let log_bytes = self.log.metadata().map_or(0, |log| log.len());
        if self.collector.step(db, log_bytes).map_err(failure)? { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.log.sync_data().map_err(|error| StoreError::Engine(format!("fdatasync: {error}")))
    }
}

impl Drop for SledKv {
    /// Where the disk refuses to sync, as when an opening fails for that, the engine is not asked to: it would panic.
    fn drop(&mut self) {
        if self.log.sync_all().is_err() {
            self.engine.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// sled's handle. It syncs once more when it closes, and panics when that fails. All commits are on the disk by then, so
/// the failure is logged and ignored.
struct OpenDb {
    /// Taken at the end only.
    db: Option<sled::Db>,
    /// Not fully open yet, or a write failed: neither its content nor its closing can be trusted.
    broken: AtomicBool,
}

impl OpenDb {
    fn db(&self) -> Result<&sled::Db, StoreError> {
        self.db.as_ref().ok_or(StoreError::Failed)
    }
}

impl Drop for OpenDb {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if self.broken.load(Ordering::Relaxed) {
            // The process ends, and the next one opens what is on the disk.
            std::mem::forget(db);
        } else if std::panic::catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("the engine could not sync when it closed; nothing was left to write");
        }
    }
}

/// Opens on a full disk: the reserve makes room for the snapshot that the engine writes first.
fn open_full(directory: &Path, path: &PathBuf) -> Result<sled::Db, StoreError> {
    if disk_space::release_reserve(directory) {
        tracing::warn!("the disk is full; opening the store with the reserved space");
        remove_half_written_snapshots(path)?;
        if let Ok(db) = open_caught(path) {
            return Ok(db);
        }
    }
    Err(StoreError::Full)
}

/// sled never syncs its `conf` nor the directory entries; without them a power cut loses the store. At every
/// opening, for the process before may have been killed between making and syncing them.
fn sync_files(directory: &Path, path: &Path) -> Result<(), StoreError> {
    for name in [path.join("conf"), path.join("db"), path.to_path_buf(), directory.to_path_buf()] {
        let synced = File::open(&name).and_then(|file| file.sync_all());
        synced.map_err(|error| StoreError::io(&name, error))?;
    }
    Ok(())
}

/// A kill while sled writes a snapshot leaves `snap.*.generating`, which it then refuses to read.
fn remove_half_written_snapshots(path: &Path) -> Result<(), StoreError> {
    remove_files(path, |name| name.starts_with("snap.") && name.ends_with(".generating"))
}

fn remove_files(path: &Path, unwanted: impl Fn(&str) -> bool) -> Result<(), StoreError> {
    let entries = std::fs::read_dir(path).map_err(|error| StoreError::io(path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io(path, error))?;
        if entry.file_name().to_str().is_some_and(&unwanted) {
            std::fs::remove_file(entry.path()).map_err(|error| StoreError::io(&entry.path(), error))?;
        }
    }
    Ok(())
}

/// Why the engine does not open. An error of the system is no damage: no file may be moved aside for it.
enum Unopened {
    Full,
    /// The files are still open: by an engine closed a moment ago in this process, or by another process.
    Busy,
    System(String),
    Broken(String),
}

impl Unopened {
    fn into_error(self, path: &Path) -> StoreError {
        match self {
            Unopened::Full => StoreError::Full,
            Unopened::Busy => StoreError::InUse { path: path.to_owned(), holder: None },
            Unopened::System(detail) => StoreError::Io { path: path.to_owned(), detail },
            Unopened::Broken(detail) => StoreError::Damaged { path: path.to_owned(), detail },
        }
    }
}

fn open_caught(path: &PathBuf) -> Result<sled::Db, Unopened> {
    // Without sled's flusher: every batch is flushed and synced by `write`, and at rest the flusher's collector would
    // move pages back and forth without end. What `write` replaces collects as much as it needs.
    let opened = std::panic::catch_unwind(|| {
        sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()
    });
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(unopened(error)),
        Err(_) => Err(Unopened::Broken("the engine panicked while reading its log".to_owned())),
    }
}

fn unopened(error: sled::Error) -> Unopened {
    use io::ErrorKind;
    match error {
        sled::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull => Unopened::Full,
            _ if error.to_string().contains("could not acquire lock") => Unopened::Busy,
            // The engine's errors for files that it cannot parse.
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other => {
                Unopened::Broken(error.to_string())
            }
            _ => Unopened::System(error.to_string()),
        },
        error => Unopened::Broken(error.to_string()),
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let stored = |key: &[u8]| Ok(self.engine.db()?.get(key).map_err(failure)?.map(|value| value.to_vec()));
        for _ in 0..READS_MAX {
            let Some(found) = stored(key)? else { return Ok(None) };
            let Some(head) = Head::read(&found) else { return Ok(Some(found)) };
            if let Some(whole) = head.join(key, stored)? {
                return Ok(Some(whole));
            }
        }
        let detail = "a part of it is missing".to_owned();
        Err(StoreError::Record { what: "a large value".to_owned(), detail })
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        let start = if from > prefix { from } else { prefix };
        match self.engine.db() {
            Ok(db) => self.pairs(db.range::<&[u8], _>((Bound::Included(start), Bound::Unbounded)), prefix),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        match self.engine.db() {
            Ok(db) => self.pairs(db.range::<&[u8], _>((Bound::Unbounded, Bound::Excluded(before))).rev(), prefix),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    fn reserve(&self, changes: &[Change]) -> Result<(), StoreError> {
        let size = |(key, value): &Change| (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
        self.room.for_log(changes.iter().map(size).sum())
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let written = self.write(changes);
        if written.is_err() {
            self.engine.broken.store(true, Ordering::Relaxed);
        }
        written
    }

    fn look(&self, from: &[u8], limit: usize) -> Result<kv::LookFrom, StoreError> {
        integrity::look(self.engine.db()?, from, limit)
    }

    fn size(&self) -> u64 {
        self.engine.db().map_or(0, |db| db.size_on_disk().unwrap_or(0))
    }
}

fn is_large(change: &Change) -> bool {
    change.1.as_ref().is_some_and(|value| large_values::must_split(value))
}

/// Never [`StoreError::Full`]: the engine has started, so the fate of the batch is unknown.
fn failure(error: sled::Error) -> StoreError {
    StoreError::Engine(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Change, Kv, SledKv};
    use crate::store::engine::memory::MemoryKv;

    fn opened(directory: &tempfile::TempDir) -> SledKv {
        loop {
            let lock = std::fs::File::create(directory.path().join("lock")).unwrap();
            match SledKv::open(directory.path(), lock) {
                // Threads of the one before are still closing its files.
                Err(super::StoreError::InUse { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    }

    /// What both engines must do alike.
    fn conforms(kv: &dyn Kv) {
        let put = |key: &str, value: &str| -> Change { (key.into(), Some(value.into())) };
        kv.apply(&[put("a1", "1"), put("a2", "2"), put("a3", "3"), put("b1", "4")]).unwrap();
        kv.apply(&[put("a2", "22"), (b"a3".to_vec(), None)]).unwrap();
        assert_eq!(kv.get(b"a2").unwrap().as_deref(), Some(&b"22"[..]));
        assert_eq!(kv.get(b"a3").unwrap(), None);
        let keys = |pairs: super::Pairs<'_>| -> Vec<String> {
            pairs.map(|pair| String::from_utf8(pair.unwrap().0).unwrap()).collect()
        };
        assert_eq!(keys(kv.scan(b"a", b"")), ["a1", "a2"]);
        assert_eq!(keys(kv.scan(b"a", b"a2")), ["a2"]);
        assert_eq!(keys(kv.scan_back(b"a", b"b")), ["a2", "a1"]);
        assert_eq!(keys(kv.scan_back(b"a", b"a2")), ["a1"]);
        assert_eq!(keys(kv.scan(b"c", b"")), Vec::<String>::new());
    }

    #[test]
    fn both_engines_conform() {
        conforms(&MemoryKv::default());
        let directory = tempfile::tempdir().unwrap();
        conforms(&opened(&directory));
        let reopened = opened(&directory);
        assert_eq!(reopened.get(b"a2").unwrap().as_deref(), Some(&b"22"[..]));
    }

    #[test]
    fn large_values_stay_in_the_log_whole_and_leave_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let kv = opened(&directory);
        let value = |seed: u8, length: usize| -> Vec<u8> { (0..length).map(|at| seed ^ (at / 100) as u8).collect() };
        let put = |key: &str, value: &[u8]| -> Change { (key.into(), Some(value.into())) };
        let (first, second) = (value(1, 300_000), value(2, 45_001));
        let looks_like_a_head = crate::store::engine::large_values::Head::new(7, 9).bytes();
        kv.apply(&[put("a", &first), put("b", b"small"), put("c", &looks_like_a_head)]).unwrap();
        let shown = |kv: &SledKv| -> Vec<(Vec<u8>, Vec<u8>)> {
            ["a", "b", "c"].iter().flat_map(|prefix| kv.scan(prefix.as_bytes(), b"")).map(Result::unwrap).collect()
        };
        let pair = |key: &str, value: &[u8]| (key.as_bytes().to_vec(), value.to_vec());
        assert_eq!(shown(&kv), [pair("a", &first), pair("b", b"small"), pair("c", &looks_like_a_head)]);
        kv.apply(&[put("a", &second), put("b", &first), (b"c".to_vec(), None)]).unwrap();
        assert_eq!(kv.scan_back(b"b", b"c").map(Result::unwrap).collect::<Vec<_>>(), [pair("b", &first)]);
        assert_eq!(std::fs::read_dir(directory.path().join("sled/blobs")).unwrap().count(), 0, "all is in the log");
        drop(kv);
        let kv = opened(&directory);
        assert_eq!(shown(&kv), [pair("a", &second), pair("b", &first)]);
        kv.apply(&[put("a", b"now small"), (b"b".to_vec(), None)]).unwrap();
        let left: Vec<Vec<u8>> = kv.engine.db().unwrap().iter().keys().map(|key| key.unwrap().to_vec()).collect();
        assert_eq!(left, [b"a".to_vec(), b"mlarge".to_vec()], "no part is left");
    }

    #[test]
    fn a_half_written_snapshot_does_not_keep_the_store_shut() {
        let directory = tempfile::tempdir().unwrap();
        conforms(&opened(&directory));
        let half = directory.path().join("sled/snap.ffffffffffffffff.generating");
        std::fs::write(&half, b"torn").unwrap();
        let reopened = opened(&directory);
        assert_eq!(reopened.get(b"a1").unwrap().as_deref(), Some(&b"1"[..]));
    }
}
