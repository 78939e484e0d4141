//! The write-ahead log file: the commits that the engine lacks so far.
//!
//! A commit is one record: a magic number, its sequence number, the length of its payload, a checksum over all of it, and
//! the changes, compressed. Each record begins at a block of its own, so that none is written again with the next one.
//! The file's blocks are written with zeros before they are used: a sync then writes data and no metadata.
//!
//! After a checkpoint the engine holds the sequence number of the last record, and the file is written from its beginning
//! again. Leftovers of earlier records have numbers that the engine knows. A power cut can only tear the
//! last record, for it was synced before the next one was written: a record that cannot be read although a later one can
//! is damage.
//!
//! Called by `write_ahead`.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::store::engine::kv::Change;
use crate::store::error::StoreError;

/// Size at which the file is full.
pub(crate) const WAL_BYTES: u64 = 8 * 1024 * 1024;
/// Records begin at multiples of this; what a device writes at least.
const BLOCK: usize = 4096;
/// Zeros written at once when the file grows.
const STEP: u64 = 256 * 1024;
const MAGIC: [u8; 8] = *b"\xffwaylog\x01";
const SUM: usize = 16;
/// Magic number, sequence number, length, checksum.
const HEAD: usize = 8 + 8 + 4 + SUM;
/// The length of a value that is none: the key is removed.
const REMOVED: u32 = u32::MAX;
/// Length of the id that separates the records of one store from those of another.
const ID: usize = 16;

/// What the engine has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenOver {
    pub(crate) id: [u8; ID],
    /// The last record.
    pub(crate) sequence: u64,
}

impl TakenOver {
    /// Nothing yet, in a new store.
    pub(crate) fn nothing() -> TakenOver {
        TakenOver { id: std::array::from_fn(|_| fastrand::u8(..)), sequence: 0 }
    }

    /// None: it cannot be read.
    pub(crate) fn read(stored: &[u8]) -> Option<TakenOver> {
        let (id, sequence) = stored.split_first_chunk::<ID>()?;
        Some(TakenOver { id: *id, sequence: u64::from_be_bytes(sequence.try_into().ok()?) })
    }

    /// As it is stored.
    pub(crate) fn bytes(self) -> Vec<u8> {
        [self.id.as_slice(), &self.sequence.to_be_bytes()].concat()
    }
}

/// The open file.
pub(crate) struct Wal {
    path: PathBuf,
    /// None: it is made with the first record.
    file: Option<File>,
    id: [u8; ID],
    /// The last record that was written.
    last: u64,
    /// Where the next record begins.
    end: u64,
    /// Bytes of the file whose blocks are written.
    size: u64,
    /// What the opening read. If the sync of an earlier process failed, the page cache may hold what the disk lacks.
    unproved: Option<Vec<u8>>,
}

impl Wal {
    /// Opens the file, if there is one, and reads the changes that the engine lacks, commit by commit. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a commit is missing before another, or the file cannot be read.
    pub(crate) fn open(path: PathBuf, taken_over: TakenOver) -> Result<(Wal, Vec<Vec<Change>>), StoreError> {
        let TakenOver { id, sequence } = taken_over;
        let mut wal = Wal { path, file: None, id, last: sequence, end: 0, size: 0, unproved: None };
        let Some(bytes) = read(&wal.path)? else { return Ok((wal, Vec::new())) };
        let file = File::options().write(true).open(&wal.path).map_err(|error| StoreError::io(&wal.path, error))?;
        let mut commits = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((changes, length)) = record(rest, &id, |found| found == wal.last + 1) {
            rest = rest.get(length..).unwrap_or_default();
            wal.last += 1;
            commits.push(changes);
        }
        // The zeros that fill up the last block may be missing.
        wal.end = ((bytes.len() - rest.len()) as u64).next_multiple_of(BLOCK as u64);
        let mut later = (0..rest.len()).step_by(BLOCK).filter_map(|at| rest.get(at..));
        if later.any(|at| record(at, &id, |found| found > wal.last).is_some()) {
            let detail = format!("commit {} is missing in its write-ahead log, which holds later ones", wal.last + 1);
            return Err(StoreError::Damaged { path: wal.path, detail });
        }
        wal.size = (bytes.len() as u64 / BLOCK as u64 * BLOCK as u64).max(wal.end);
        wal.file = Some(file);
        wal.unproved = (wal.end > 0).then(|| bytes.into_iter().take(usize::try_from(wal.end).unwrap_or(0)).collect());
        Ok((wal, commits))
    }

    /// Whether some records were ever written to a file.
    pub(crate) fn has_records(path: &Path) -> Result<bool, StoreError> {
        Ok(read(path)?.is_some_and(|bytes| bytes.chunks(BLOCK).any(|block| block.starts_with(&MAGIC))))
    }

    /// What the engine has when it has taken over all that is here.
    pub(crate) fn all(&self) -> TakenOver {
        TakenOver { id: self.id, sequence: self.last }
    }

    /// Whether a record of that many bytes fits behind the last one.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.end + bytes as u64 <= WAL_BYTES
    }

    /// Writes the blocks of the next `bytes` bytes, so that a record finds them. The sync of that record makes them durable.
    ///
    /// # Errors
    /// [`StoreError::Full`]: not now. Or the system's error.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), StoreError> {
        let wanted = self.end + bytes as u64;
        if let (Some(file), Some(read)) = (&self.file, self.unproved.take()) {
            let again = file.write_all_at(&read, 0).and_then(|()| file.sync_data());
            again.map_err(|error| StoreError::Engine(format!("the write-ahead log: {error}")))?;
        }
        if self.file.is_some() && wanted <= self.size {
            return Ok(());
        }
        let size = wanted.next_multiple_of(STEP);
        let grown = self.opened().and_then(|file| {
            // One by one: a file system that keeps what was written at once together counts it as written together.
            for at in (self.size..size).step_by(BLOCK) {
                file.write_all_at(&[0; BLOCK], at)?;
            }
            Ok(file)
        });
        self.file = Some(grown.map_err(|error| StoreError::io(&self.path, error))?);
        self.size = size;
        Ok(())
    }

    fn opened(&mut self) -> std::io::Result<File> {
        if let Some(file) = self.file.take() {
            return Ok(file);
        }
        let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(file)
    }

    /// Writes a commit. Durable when it returns; [`Wal::grow`] made its room before.
    ///
    /// # Errors
    /// The system's errors; what is on the disk is unknown then.
    pub(crate) fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let record = encode(&self.id, self.last + 1, changes)?;
        let file = self.file.as_ref().ok_or(StoreError::Failed)?;
        file.write_all_at(&record, self.end)
            .and_then(|()| file.sync_data())
            .map_err(|error| StoreError::Engine(format!("the write-ahead log: {error}")))?;
        self.last += 1;
        self.end += record.len() as u64;
        Ok(())
    }

    /// Starts from the beginning: the engine has everything.
    pub(crate) fn restart(&mut self) {
        self.end = 0;
    }

    /// Bytes on the disk.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// The most that a commit takes in the file.
pub(crate) fn bytes_max(changes: &[Change]) -> usize {
    let raw: usize = changes.iter().map(|(key, value)| 8 + key.len() + value.as_ref().map_or(0, Vec::len)).sum();
    (HEAD + 4 + lz4_flex::block::get_maximum_output_size(raw)).next_multiple_of(BLOCK)
}

fn encode(id: &[u8; ID], sequence: u64, changes: &[Change]) -> Result<Vec<u8>, StoreError> {
    let length = |length: usize| {
        let too_long = || StoreError::Engine("a record of the write-ahead log is too long".to_owned());
        u32::try_from(length).ok().filter(|length| *length != REMOVED).ok_or_else(too_long)
    };
    let mut raw = Vec::new();
    for (key, value) in changes {
        raw.extend(length(key.len())?.to_be_bytes());
        raw.extend(value.as_ref().map_or(Ok(REMOVED), |value| length(value.len()))?.to_be_bytes());
        raw.extend_from_slice(key);
        raw.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let payload = lz4_flex::block::compress_prepend_size(&raw);
    let mut record = Vec::with_capacity((HEAD + payload.len()).next_multiple_of(BLOCK));
    record.extend(MAGIC);
    record.extend(sequence.to_be_bytes());
    record.extend(length(payload.len())?.to_be_bytes());
    record.extend(sum(id, &record, &payload));
    record.extend(payload);
    record.resize(record.len().next_multiple_of(BLOCK), 0);
    Ok(record)
}

fn sum(id: &[u8; ID], head: &[u8], payload: &[u8]) -> [u8; SUM] {
    let digest = Sha256::new().chain_update(id).chain_update(head).chain_update(payload).finalize();
    std::array::from_fn(|at| digest.get(at).copied().unwrap_or_default())
}

/// The record at the head of the bytes, if it is whole and its number is wanted: its changes, and what it takes.
fn record(bytes: &[u8], id: &[u8; ID], wanted: impl Fn(u64) -> bool) -> Option<(Vec<Change>, usize)> {
    let (sequence, _) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<8>()?;
    if !wanted(u64::from_be_bytes(*sequence)) {
        return None;
    }
    let (head, rest) = bytes.split_at_checked(HEAD - SUM)?;
    let (expected, rest) = rest.split_first_chunk::<SUM>()?;
    let length = head.last_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)?;
    let payload = rest.get(..length)?;
    if sum(id, head, payload) != *expected {
        return None;
    }
    let raw = lz4_flex::block::decompress_size_prepended(payload).ok()?;
    Some((changes(&raw)?, (HEAD + length).next_multiple_of(BLOCK)))
}

fn changes(mut raw: &[u8]) -> Option<Vec<Change>> {
    let mut found = Vec::new();
    while !raw.is_empty() {
        let (key, rest) = raw.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*key) as usize)?;
        let length = u32::from_be_bytes(*value);
        let is_kept = length != REMOVED;
        let (value, rest) = rest.split_at_checked(if is_kept { length as usize } else { 0 })?;
        found.push((key.to_vec(), is_kept.then(|| value.to_vec())));
        raw = rest;
    }
    Some(found)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path, error)),
    }
}
