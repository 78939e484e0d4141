//! A small file beside the engine's, which knows how much the engine must at least remember.
//!
//! An engine whose log was emptied, cut or damaged opens without complaint: as an older state, or as a mixture of
//! older ones in which whole ranges of keys are missing. So each commit has a number, in the store and, once durable
//! there, in the mark: a store that knows fewer is damaged. The system keeps what is written through a kill. After a
//! power cut the mark may know of fewer commits than it could; those with what only people can give again (shops,
//! credentials, keys) are synced to it.
//!
//! It says too which format the store has and which master key it was made with, as the engine writes when it opens:
//! a program that must not open a store must know before. And whether damage was found while it was open. Its lines:
//! what this is; `commits N, sum S`; `format F, key K, sum S`, where K is nothing sealed with the key and S tells that
//! no bit of the line has rotted; and for a damaged store `damaged, sum S`. A line that is not there, as in a mark of
//! an older release, or that has rotted, says nothing.
//!
//! Called by `Store`, and by the committer. The mark never counts more than what is durable in the store.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::store::crypto::SealKey;
use crate::store::engine::format;
use crate::store::engine::kv::Kv;
use crate::store::error::StoreError;

const NAME: &str = "made-by-waybill";
const TEXT: &str = "A store of waybill was made in this directory. Leave this file where it is.\n";
/// Of the number, so that writing it never moves a byte.
const DIGITS: usize = 20;
/// What nothing is sealed for.
const KEY_CONTEXT: &str = "mark";
/// Says that the store is damaged.
const CONDEMNED: &str = "damaged";
/// Letters of a sum.
const SUM: usize = 16;

/// The mark of one open store.
pub(crate) struct Mark {
    path: PathBuf,
    file: File,
}

impl Mark {
    /// Makes the mark of a store that holds its format, or completes the one that is there, durably.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn make(directory: &Path, master: &SealKey, durable: u64) -> Result<Mark, StoreError> {
        let path = directory.join(NAME);
        let there = read(&path)?;
        let key = match there.as_deref().and_then(made_with).filter(|made| made.format == format::FORMAT) {
            Some(made) => made.key,
            None => master.seal(KEY_CONTEXT, &[])?,
        };
        let made = format!("format {}, key {}", format::FORMAT, STANDARD.encode(key));
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
        Ok(Mark { path, file })
    }

    /// Notes how many commits are durable by now. A power cut may take it back.
    ///
    /// # Errors
    /// The file cannot be written; the commit itself stands.
    pub(crate) fn note(&self, number: u64) -> Result<(), StoreError> {
        let written = self.file.write_all_at(commits(number).as_bytes(), TEXT.len() as u64);
        written.map_err(|error| StoreError::io(&self.path, error))
    }

    /// Notes that the store is damaged, durably: it is not opened again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn condemn(&self) -> Result<(), StoreError> {
        let added = self.file.metadata().and_then(|file| {
            self.file.write_all_at(line(CONDEMNED).as_bytes(), file.len())?;
            self.file.sync_all()
        });
        added.map_err(|error| StoreError::io(&self.path, error))
    }

    /// Makes what was noted durable.
    ///
    /// # Errors
    /// It cannot be; what it is about stands.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| StoreError::io(&self.path, error))
    }
}

/// Reads the mark before the store is written to.
///
/// # Errors
/// [`StoreError::Damaged`]: the store forgot what was durable.
pub(crate) fn check(
    kv: &dyn Kv,
    directory: &Path,
    commits: impl FnOnce(&dyn Kv) -> Result<u64, StoreError>,
) -> Result<(), StoreError> {
    let Some(text) = read(&directory.join(NAME))? else { return Ok(()) };
    let damaged = |detail: &str| StoreError::Damaged { path: directory.to_owned(), detail: detail.to_owned() };
    if !format::has_format(kv)? {
        return Err(damaged("its log is empty, though a store was made here"));
    }
    if text.lines().nth(3).and_then(trusted) == Some(CONDEMNED) {
        return Err(damaged("damage was found in it while it was open"));
    }
    let held = commits(kv)?;
    match noted(&text) {
        Some(noted) if held < noted => Err(damaged(&format!(
            "its log was cut or changed: {noted} commits were on the disk, and it tells of {held}"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a store of a newer program, or of another master key, as far as its mark tells. Touches nothing.
///
/// # Errors
/// [`StoreError::NewerFormat`], [`StoreError::WrongMasterKey`], or the mark cannot be read.
pub(crate) fn admit(directory: &Path, master: &SealKey) -> Result<(), StoreError> {
    let Some(made) = read(&directory.join(NAME))?.as_deref().and_then(made_with) else { return Ok(()) };
    let path = directory.to_owned();
    if made.format > format::FORMAT {
        return Err(StoreError::NewerFormat { path, found: made.format });
    }
    master.open(KEY_CONTEXT, &made.key).map(drop).map_err(|_| StoreError::WrongMasterKey { path })
}

/// What the third line says.
struct Made {
    format: u32,
    /// Nothing, sealed with the master key.
    key: Vec<u8>,
}

/// None: there is no such line, or it cannot be trusted.
fn made_with(text: &str) -> Option<Made> {
    let said = trusted(text.lines().nth(2)?)?;
    let (format, key) = said.strip_prefix("format ")?.split_once(", key ")?;
    Some(Made { format: format.parse().ok()?, key: STANDARD.decode(key).ok()? })
}

/// How many commits the second line tells of, in the same way.
fn noted(text: &str) -> Option<u64> {
    trusted(text.lines().nth(1)?)?.strip_prefix("commits ")?.parse().ok()
}

fn commits(number: u64) -> String {
    line(&format!("commits {number:0DIGITS$}"))
}

/// With the sum that guards it.
fn line(said: &str) -> String {
    let sum: String = Sha256::digest(said.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{said}, sum {}\n", sum.get(..SUM).unwrap_or_default())
}

/// What a line says, unless it has rotted.
fn trusted(found: &str) -> Option<&str> {
    let (said, _) = found.rsplit_once(", sum ")?;
    (line(said).trim_end() == found).then_some(said)
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // Bits that rotted make no text any more; then it says nothing.
        text => text
            .map(|text| Some(String::from_utf8_lossy(&text).into_owned()))
            .map_err(|error| StoreError::io(path, error)),
    }
}

/// Takes the mark away, before a new store is made in the place of a damaged one.
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
    fn a_mark_that_cannot_be_read_or_taken_away_is_told() {
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
