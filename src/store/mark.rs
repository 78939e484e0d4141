//! A small file beside the engine's, which knows how much the engine must at least remember.
//!
//! An engine whose log was emptied or cut opens without complaint, as an older state. What it forgot of the API's
//! data is read again; what people gave it (shops, credentials, keys) nobody would miss until they look. So each
//! such change has a number, in the store and, once durable there, in the mark: a store that knows fewer is damaged.
//!
//! Called by `Store`. The mark never counts more than what is durable in the store.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::kv::Kv;
use super::{StoreError, Tx, meta};

const NAME: &str = "made-by-waybill";
const TEXT: &str = "A store of waybill was made in this directory. Leave this file where it is.\nchanges by people: ";
/// Of the number, so that writing it never moves a byte.
const DIGITS: usize = 20;
/// The sequence that counts the changes.
const SEQUENCE: &str = "given";

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
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            text => Some(text.map_err(|error| StoreError::io(&path, error))?),
        };
        let damaged = |detail: &str| StoreError::Damaged { path: directory.to_owned(), detail: detail.to_owned() };
        if text.is_some() && !meta::has_format(kv)? {
            return Err(damaged("its log is empty, though a store was made here"));
        }
        let noted = text.as_deref().and_then(|text| text.strip_prefix(TEXT)).and_then(|text| text.trim().parse().ok());
        let noted = noted.unwrap_or(0);
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

    /// Leaves the mark, durably, once the store holds its format.
    pub(super) fn make(&self, directory: &Path) -> Result<(), StoreError> {
        if self.path.exists() {
            return Ok(());
        }
        let made = File::create(&self.path).and_then(|mut file| {
            file.write_all(format!("{TEXT}{:0DIGITS$}\n", 0).as_bytes())?;
            file.sync_all()?;
            File::open(directory)?.sync_all()
        });
        made.map_err(|error| StoreError::io(&self.path, error))
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
