//! The engine behind a write-ahead log: a commit costs one synced write of its changes, and the engine takes them over
//! later, many commits at once.
//!
//! The engine's log is several times as large as what changes: it rewrites a whole page after ten changes, and most
//! of our records change several times within a minute, or are removed again. Here they do so in memory. Pending changes
//! are durable in the log file (`wal`), and in a map that all reads look into first. The engine takes them over when the
//! file is full, when the map is large, and when the store closes. A start reads the file back into the map.
//!
//! Called as [`Kv`]: by the committer for writing, by all readers.

use std::collections::BTreeMap;
use std::fs::File;
use std::iter::Peekable;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::store::engine::format;
use crate::store::engine::kv::{self, Change, Kv, Pair, Pairs};
use crate::store::engine::sled::SledKv;
use crate::store::engine::wal::{self, TakenOver, WAL_BYTES, Wal};
use crate::store::error::StoreError;

/// Which records of the log the engine has taken over.
pub(crate) const TAKEN_OVER: &[u8] = b"mwal";
const NAME: &str = "wal";
/// Bytes of pending changes; the log holds fewer when they do not compress.
const PENDING_MAX: usize = 8 * 1024 * 1024;
/// Bytes that the engine takes over at once: sled applies them under one lock, for which readers wait, and keeps a copy of a
/// page for each change until it is done. The committer waits for all of them.
const CHUNK_BYTES: usize = 128 * 1024;
/// A larger commit goes to the engine itself.
const COMMIT_MAX: usize = 1024 * 1024;

/// An engine behind a write-ahead log.
pub(crate) struct Logged<K: Kv> {
    engine: K,
    wal: Mutex<Wal>,
    pending: RwLock<Pending>,
    /// The engine holds which log it belongs to.
    is_bound: AtomicBool,
    /// The log could not be written: the pending changes cannot be trusted.
    has_failed: AtomicBool,
}

/// Changes that the engine lacks.
#[derive(Default)]
struct Pending {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// Rises when the engine has taken over: a scan begins in the engine again then.
    generation: u64,
}

impl Pending {
    fn add(&mut self, changes: Vec<Change>) {
        for (key, value) in changes {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            if let Some(Some(before)) = self.changes.insert(key, value) {
                self.bytes = self.bytes.saturating_sub(before.len());
            }
        }
    }

    /// The first changes from a key on, about as many bytes as the engine takes at once.
    fn chunk(&self, from: &[u8]) -> Vec<Change> {
        let mut bytes = 0;
        let all = self.changes.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
        let some = all.take_while(|(key, value)| {
            let has_room = bytes < CHUNK_BYTES;
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            has_room
        });
        some.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Logged<SledKv> {
    /// Opens or creates the engine in `directory` and reads its write-ahead log. See [`SledKv::open`].
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when one of them cannot be read.
    pub(crate) fn open(directory: &Path, lock: File) -> Result<Logged<SledKv>, StoreError> {
        let engine = SledKv::open(directory, lock)?;
        Logged::over(engine, &directory.join("sled"))
    }
}

impl<K: Kv> Logged<K> {
    /// The same over an open engine; `directory` holds the log.
    fn over(engine: K, directory: &Path) -> Result<Logged<K>, StoreError> {
        let path = directory.join(NAME);
        let damaged = |detail: &str| StoreError::Damaged { path: directory.to_owned(), detail: detail.to_owned() };
        let stored = engine.get(TAKEN_OVER)?;
        let taken_over = match &stored {
            Some(stored) => TakenOver::read(stored).ok_or_else(|| damaged("it does not say where its log begins"))?,
            // The engine is bound to a log before that is made.
            None if Wal::has_records(&path)? => return Err(damaged("its log is empty, though commits follow it")),
            None => TakenOver::nothing(),
        };
        let (wal, commits) = Wal::open(path, taken_over)?;
        let mut pending = Pending::default();
        commits.into_iter().for_each(|changes| pending.add(changes));
        let is_bound = AtomicBool::new(stored.is_some());
        let has_failed = AtomicBool::new(false);
        Ok(Logged { engine, wal: Mutex::new(wal), pending: RwLock::new(pending), is_bound, has_failed })
    }

    fn wal(&self) -> MutexGuard<'_, Wal> {
        self.wal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> RwLockReadGuard<'_, Pending> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a record in the log.
    fn make_room(&self, wal: &mut Wal, bytes: usize) -> Result<(), StoreError> {
        if !self.is_bound.load(Ordering::Relaxed) {
            self.bind(wal)?;
        }
        if !wal.fits(bytes) || self.pending().bytes > PENDING_MAX {
            self.merge_from(wal)?;
        }
        wal.grow(bytes)
    }

    /// Notes in the engine which log it belongs to, and that programs without such a log must not open it any more.
    fn bind(&self, wal: &Wal) -> Result<(), StoreError> {
        let mut changes = vec![(TAKEN_OVER.to_vec(), Some(wal.all().bytes()))];
        changes.extend(format::with_log(&self.engine)?);
        self.engine.apply(&changes)?;
        self.is_bound.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Has the engine take over what is pending. When it has no room for a part of it, all stays pending.
    fn merge_from(&self, wal: &mut Wal) -> Result<(), StoreError> {
        if self.pending().changes.is_empty() {
            return Ok(());
        }
        let mut from = Vec::new();
        loop {
            let changes = self.pending().chunk(&from);
            let Some((last, _)) = changes.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            self.engine.reserve(&changes)?;
            self.engine.apply(&changes)?;
        }
        // Durable after all of the above: a crash before it repeats that, which changes nothing.
        self.engine.apply(&[(TAKEN_OVER.to_vec(), Some(wal.all().bytes()))])?;
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        *pending = Pending { generation: pending.generation + 1, ..Pending::default() };
        drop(pending);
        wal.restart();
        Ok(())
    }

    fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut wal = self.wal();
        let bytes = wal::bytes_max(changes);
        if bytes > COMMIT_MAX {
            self.merge_from(&mut wal)?;
            return self.engine.apply(changes);
        }
        self.make_room(&mut wal, bytes)?;
        wal.append(changes)?;
        self.pending.write().unwrap_or_else(PoisonError::into_inner).add(changes.to_vec());
        Ok(())
    }

    /// Merges what is pending with what the engine has, one pair at a time.
    fn merged<'a>(&'a self, prefix: &[u8], start: Vec<u8>, direction: Direction) -> Pairs<'a> {
        let (prefix, mut at) = (prefix.to_vec(), start);
        let mut below: Option<(u64, Peekable<Pairs<'a>>)> = None;
        Box::new(std::iter::from_fn(move || {
            let pending = self.pending();
            loop {
                // What the engine took over meanwhile is behind a scan of it that began before.
                let generation = pending.generation;
                let (_, engine) = match below.take() {
                    Some((of, engine)) if of == generation => below.insert((of, engine)),
                    _ => below.insert((generation, direction.scan(&self.engine, &prefix, &at).peekable())),
                };
                let above = direction.first(&pending, &at).filter(|(key, _)| key.starts_with(&prefix));
                let is_above = match (above, engine.peek()) {
                    (_, Some(Err(_))) | (None, Some(_)) => false,
                    (Some(_), None) => true,
                    (None, None) => return None,
                    (Some((key, _)), Some(Ok((under, _)))) if key == under => {
                        engine.next();
                        true
                    }
                    (Some((key, _)), Some(Ok((under, _)))) => direction.is_first(key, under),
                };
                let found: Option<Pair> = if is_above {
                    let (key, value) = above?;
                    at = direction.after(key);
                    value.clone().map(|value| (key.clone(), value))
                } else {
                    match engine.next()? {
                        Ok((key, value)) => {
                            at = direction.after(&key);
                            Some((key, value))
                        }
                        Err(error) => return Some(Err(error)),
                    }
                };
                if let Some(pair) = found {
                    return Some(Ok(pair));
                }
            }
        }))
    }
}

/// Direction of a scan.
#[derive(Clone, Copy)]
enum Direction {
    /// From a key on, that one included.
    Up,
    /// From below a key.
    Down,
}

impl Direction {
    fn scan<'a>(self, engine: &'a impl Kv, prefix: &[u8], at: &[u8]) -> Pairs<'a> {
        match self {
            Direction::Up => engine.scan(prefix, at),
            Direction::Down => engine.scan_back(prefix, at),
        }
    }

    fn first<'a>(self, pending: &'a Pending, at: &[u8]) -> Option<(&'a Vec<u8>, &'a Option<Vec<u8>>)> {
        match self {
            Direction::Up => pending.changes.range::<[u8], _>((Bound::Included(at), Bound::Unbounded)).next(),
            Direction::Down => pending.changes.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(at))).next_back(),
        }
    }

    /// Whether the scan meets one key before the other.
    fn is_first(self, one: &[u8], other: &[u8]) -> bool {
        match self {
            Direction::Up => one < other,
            Direction::Down => one > other,
        }
    }

    /// Where the scan goes on behind a key.
    fn after(self, key: &[u8]) -> Vec<u8> {
        match self {
            Direction::Up => [key, &[0]].concat(),
            Direction::Down => key.to_vec(),
        }
    }
}

impl<K: Kv> Kv for Logged<K> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.pending().changes.get(key) {
            return Ok(value.clone());
        }
        self.engine.get(key)
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        self.merged(prefix, from.max(prefix).to_vec(), Direction::Up)
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        self.merged(prefix, before.to_vec(), Direction::Down)
    }

    fn reserve(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.engine.reserve(changes)?;
        let mut wal = self.wal();
        let made = match wal::bytes_max(changes) {
            bytes if bytes > COMMIT_MAX => self.merge_from(&mut wal),
            bytes => self.make_room(&mut wal, bytes),
        };
        if made.as_ref().is_err_and(|error| *error != StoreError::Full) {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        made
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        let written = self.write(changes);
        if written.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Of the engine alone: the log has a checksum for each commit.
    fn look(&self, from: &[u8], limit: usize) -> Result<kv::LookFrom, StoreError> {
        self.engine.look(from, limit)
    }

    fn size(&self) -> u64 {
        // Does not wait for the engine to take over.
        self.engine.size() + self.wal.try_lock().map_or(WAL_BYTES, |wal| wal.size())
    }
}

impl<K: Kv> Drop for Logged<K> {
    fn drop(&mut self) {
        if self.has_failed.load(Ordering::Relaxed) {
            return;
        }
        let mut wal = self.wal();
        if let Err(error) = self.merge_from(&mut wal) {
            tracing::debug!(%error, "the engine could not take over its log; the next start reads it");
        }
    }
}

#[cfg(test)]
#[path = "write_ahead_tests.rs"]
mod tests;
