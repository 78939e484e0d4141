//! Commit watermark: detects a log that lost committed batches.
//!
//! An engine whose log was emptied, cut or damaged opens without complaint: as an older state, or as a mixture of
//! older ones in which whole ranges of keys are missing. So each commit has a number, in the store and, once durable
//! there, in this file: a store with fewer is damaged. A kill loses nothing of the file; a power cut may lose its last
//! numbers, so commits of what only people can enter again (shops, credentials, keys) are synced to it.
//!
//! It also holds the store's format, since the engine writes when it opens and a program that must not open a store has to
//! know before; and whether damage was found while it was open. Its lines: a notice; `commits N, sum S`; `format F, key K,
//! sum S`, where S is the line's checksum; and for a damaged store `damaged, sum S`. Up to format 2, K is nothing sealed
//! with the master key; later it is empty, as the file of the data keys checks that key. A line that is missing or whose
//! checksum is wrong is ignored.
//!
//! Called when a store opens, and by the committer. The watermark never counts more than what is durable in the store.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::store::crypto::SealKey;
use crate::store::engine::checked_line::{line, trusted};
use crate::store::engine::format;
use crate::store::engine::kv::Kv;
use crate::store::error::StoreError;

const NAME: &str = "made-by-waybill";
const TEXT: &str = "A store of waybill was made in this directory. Leave this file where it is.\n";
/// Digits of the number; fixed, so that writing it never moves a byte.
const DIGITS: usize = 20;
/// AEAD context of the check value of the master key.
const KEY_CONTEXT: &str = "mark";
/// Marks a damaged store.
const DAMAGED: &str = "damaged";

/// The watermark file of one open store.
pub(crate) struct Watermark {
    path: PathBuf,
    file: File,
}

impl Watermark {
    /// Creates the watermark of a store that holds its format, or completes an existing one, durably.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn make(directory: &Path, durable: u64) -> Result<Watermark, StoreError> {
        let path = directory.join(NAME);
        let there = read(&path)?;
        let made = format!("format {}, key ", format::FORMAT);
        let text = format!("{TEXT}{}{}", commits(durable), line(&made));
        let opened = File::options().create(true).truncate(false).write(true).open(&path).and_then(|file| {
            if there.as_ref() != Some(&text) {
                // One write in place: a crash leaves the old text or the new one, and neither counts too much.
                file.write_all_at(text.as_bytes(), 0)?;
                file.set_len(text.len() as u64)?;
                file.sync_all()?;
                File::open(directory)?.sync_all()?;
            }
            Ok(file)
        });
        let file = opened.map_err(|error| StoreError::io(&path, error))?;
        Ok(Watermark { path, file })
    }

    /// Notes how many commits are durable by now. A power cut may take it back.
    ///
    /// # Errors
    /// The file cannot be written; the commit itself is durable.
    pub(crate) fn note(&self, number: u64) -> Result<(), StoreError> {
        let written = self.file.write_all_at(commits(number).as_bytes(), TEXT.len() as u64);
        written.map_err(|error| StoreError::io(&self.path, error))
    }

    /// Notes that the store is damaged, durably: it is not opened again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn mark_damaged(&self) -> Result<(), StoreError> {
        let added = self.file.metadata().and_then(|file| {
            self.file.write_all_at(line(DAMAGED).as_bytes(), file.len())?;
            self.file.sync_all()
        });
        added.map_err(|error| StoreError::io(&self.path, error))
    }

    /// Makes what was noted durable.
    ///
    /// # Errors
    /// The sync failed; the commits themselves are durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| StoreError::io(&self.path, error))
    }
}

/// Compares the store with its watermark, before anything is written.
///
/// # Errors
/// [`StoreError::Damaged`]: the store lacks durable commits, or was marked as damaged.
pub(crate) fn check(
    kv: &dyn Kv,
    directory: &Path,
    commits: impl FnOnce(&dyn Kv) -> Result<u64, StoreError>,
) -> Result<(), StoreError> {
    let Some(text) = read(&directory.join(NAME))? else { return Ok(()) };
    let damaged = |detail: &str| StoreError::Damaged { path: directory.to_owned(), detail: detail.to_owned() };
    if !format::has_format(kv)? {
        return Err(damaged("its log is empty, although a store was created here"));
    }
    if text.lines().nth(3).and_then(trusted) == Some(DAMAGED) {
        return Err(damaged("damage was found in it while it was open"));
    }
    let held = commits(kv)?;
    match noted(&text) {
        Some(noted) if held < noted => {
            Err(damaged(&format!("log truncated: expected at least {noted} commits, found {held}")))
        }
        _ => Ok(()),
    }
}

/// Checks format and master key against the watermark file, before the engine writes anything. Whether the data keys
/// are in a file of their own.
///
/// # Errors
/// [`StoreError::NewerFormat`], [`StoreError::WrongMasterKey`], or the file cannot be read.
pub(crate) fn precheck(directory: &Path, master: &SealKey) -> Result<bool, StoreError> {
    let Some(made) = read(&directory.join(NAME))?.as_deref().and_then(made_with) else { return Ok(false) };
    let path = directory.to_owned();
    if made.format > format::FORMAT {
        return Err(StoreError::NewerFormat { path, found: made.format });
    }
    if made.format >= format::KEYS_APART {
        return Ok(true);
    }
    // A crash may have come between the file of the data keys and this one.
    master.open(KEY_CONTEXT, &made.key).map(|_| false).map_err(|_| StoreError::WrongMasterKey { path })
}

/// Content of the third line.
struct Made {
    format: u32,
    /// An empty text, sealed with the master key; empty since the data keys are in a file of their own.
    key: Vec<u8>,
}

/// None: there is no such line, or it cannot be trusted.
fn made_with(text: &str) -> Option<Made> {
    let said = trusted(text.lines().nth(2)?)?;
    let (format, key) = said.strip_prefix("format ")?.split_once(", key ")?;
    Some(Made { format: format.parse().ok()?, key: STANDARD.decode(key).ok()? })
}

/// The number of commits in the second line, in the same way.
fn noted(text: &str) -> Option<u64> {
    trusted(text.lines().nth(1)?)?.strip_prefix("commits ")?.parse().ok()
}

fn commits(number: u64) -> String {
    line(&format!("commits {number:0DIGITS$}"))
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // Damaged bytes may be no UTF-8; such a line fails its checksum.
        text => text
            .map(|text| Some(String::from_utf8_lossy(&text).into_owned()))
            .map_err(|error| StoreError::io(path, error)),
    }
}

/// Removes the watermark, before a new store replaces a damaged one.
pub(crate) fn remove(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(&path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{NAME, check, remove};
    use crate::store::StoreError;
    use crate::store::engine::memory::MemoryKv;

    #[test]
    fn a_watermark_that_cannot_be_read_or_removed_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (path, kv) = (directory.path().join(NAME), MemoryKv::default());
        assert!(check(&kv, directory.path(), |_| Ok(0)).is_ok(), "none is there");
        assert!(remove(directory.path()).is_ok());
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(check(&kv, directory.path(), |_| Ok(0)), Err(StoreError::Io { .. })));
        assert!(matches!(remove(directory.path()), Err(StoreError::Io { .. })));
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "anything").unwrap();
        assert!(
            matches!(check(&kv, directory.path(), |_| Ok(0)), Err(StoreError::Damaged { .. })),
            "the store is empty"
        );
        remove(directory.path()).unwrap();
        assert!(!path.exists());
    }
}
