//! A small file beside the engine's, which knows how much the engine must at least remember.
//!
//! An engine whose log was emptied or cut opens without complaint, as an older state. What it forgot of the API's
//! data is read again; what people gave it (shops, credentials, keys) nobody would miss until they look. So each
//! such change has a number, in the store and, once durable there, in the mark: a store that knows fewer is damaged.
//!
//! It says too which format the store has and which master key it was made with, as the engine writes when it opens:
//! a program that must not open a store must know before. Three lines: what this is, the number, and
//! `format F, key K, sum S`, where K is nothing sealed with the key and S tells that no bit of the line has rotted.
//! A mark of an older release has no third line; the store itself is asked then, as always.
//!
//! Called by `Store`. The mark never counts more than what is durable in the store.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::kv::Kv;
use super::seal::SealKey;
use super::{StoreError, Tx, meta};

const NAME: &str = "made-by-waybill";
const TEXT: &str = "A store of waybill was made in this directory. Leave this file where it is.\nchanges by people: ";
/// Of the number, so that writing it never moves a byte.
const DIGITS: usize = 20;
/// The sequence that counts the changes.
const SEQUENCE: &str = "given";
/// What nothing is sealed for.
const KEY_CONTEXT: &str = "mark";
/// Letters of a sum.
const SUM: usize = 16;

/// The mark of one data directory.
pub(super) struct Mark {
    path: PathBuf,
    /// What the file says. Held while it is written.
    noted: Mutex<u64>,
}

impl Mark {
    /// Reads the mark, before the store is written to.
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: the store forgot what it was given.
    pub(super) fn check(kv: &dyn Kv, directory: &Path) -> Result<Mark, StoreError> {
        let path = directory.join(NAME);
        let text = read(&path)?;
        let damaged = |detail: &str| StoreError::Damaged { path: directory.to_owned(), detail: detail.to_owned() };
        if text.is_some() && !meta::has_format(kv)? {
            return Err(damaged("its log is empty, though a store was made here"));
        }
        let noted = text.as_deref().and_then(|text| text.strip_prefix(TEXT)).and_then(|text| text.lines().next());
        let noted = noted.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
        if meta::last(kv, SEQUENCE)? < noted {
            return Err(damaged("its log was cut: shops, credentials or keys that it was given are not in it"));
        }
        Ok(Mark { path, noted: Mutex::new(noted) })
    }

    /// Notes the number of changes that are durable by now. Those who wait for another's writing have often nothing
    /// left to write.
    ///
    /// # Errors
    /// The file cannot be written; the change itself stands.
    pub(super) fn note(&self, kv: &dyn Kv, number: u64) -> Result<(), StoreError> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted >= number {
            return Ok(());
        }
        let last = meta::last(kv, SEQUENCE)?;
        let written = File::options().write(true).open(&self.path).and_then(|file| {
            file.write_all_at(format!("{TEXT}{last:0DIGITS$}\n").as_bytes(), 0)?;
            file.sync_data()
        });
        written.map_err(|error| StoreError::io(&self.path, error))?;
        *noted = last;
        Ok(())
    }

    /// Leaves the mark, durably, once the store holds its format; and completes one of an older release.
    pub(super) fn make(&self, directory: &Path, master: &SealKey) -> Result<(), StoreError> {
        let said = read(&self.path)?.as_deref().and_then(made_with);
        if said.is_some_and(|made| made.format == meta::FORMAT) {
            return Ok(());
        }
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let key = STANDARD.encode(master.seal(KEY_CONTEXT, &[])?);
        let text = format!("{TEXT}{:0DIGITS$}\n{}\n", *noted, line(meta::FORMAT, &key));
        let made = File::options().create(true).truncate(false).write(true).open(&self.path).and_then(|file| {
            // One write in place: a crash leaves the old text or the new one, and the number is the same in both.
            file.write_all_at(text.as_bytes(), 0)?;
            file.set_len(text.len() as u64)?;
            file.sync_all()?;
            File::open(directory)?.sync_all()
        });
        made.map_err(|error| StoreError::io(&self.path, error))
    }
}

/// Refuses a store of a newer program, or of another master key, as far as its mark tells. Touches nothing.
///
/// # Errors
/// [`StoreError::NewerFormat`], [`StoreError::WrongMasterKey`], or the mark cannot be read.
pub(super) fn admit(directory: &Path, master: &SealKey) -> Result<(), StoreError> {
    let Some(made) = read(&directory.join(NAME))?.as_deref().and_then(made_with) else { return Ok(()) };
    let path = directory.to_owned();
    if made.format > meta::FORMAT {
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
    let said = text.lines().nth(2)?;
    let (format, rest) = said.strip_prefix("format ")?.split_once(", key ")?;
    let (key, _) = rest.split_once(", sum ")?;
    let made = Made { format: format.parse().ok()?, key: STANDARD.decode(key).ok()? };
    (said == line(made.format, key)).then_some(made)
}

fn line(format: u32, key: &str) -> String {
    let said = format!("format {format}, key {key}");
    let sum: String = Sha256::digest(said.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{said}, sum {}", sum.get(..SUM).unwrap_or_default())
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

/// Gives the transaction's change its number.
pub(super) fn count(tx: &mut Tx<'_>) -> Result<u64, StoreError> {
    tx.next(SEQUENCE)
}

/// Takes the mark away, before a new store is made in the place of a damaged one.
pub(super) fn remove(directory: &Path) -> Result<(), StoreError> {
    let path = directory.join(NAME);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(&path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, NAME, remove};
    use crate::store::StoreError;
    use crate::store::kv::MemoryKv;

    #[test]
    fn a_mark_that_cannot_be_read_or_taken_away_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (path, kv) = (directory.path().join(NAME), MemoryKv::default());
        assert!(Mark::check(&kv, directory.path()).is_ok(), "none is there");
        assert!(remove(directory.path()).is_ok());
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(Mark::check(&kv, directory.path()), Err(StoreError::Io { .. })));
        assert!(matches!(remove(directory.path()), Err(StoreError::Io { .. })));
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "anything").unwrap();
        assert!(matches!(Mark::check(&kv, directory.path()), Err(StoreError::Damaged { .. })), "the store is empty");
        remove(directory.path()).unwrap();
        assert!(!path.exists());
    }
}
