//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::holder::{Holder, Shown};

/// An error of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the data directory {path} is already in use by {holder}; stop it first, or use its HTTP API",
        path = path.display(), holder = Shown(holder.as_ref())
    )]
    InUse { path: PathBuf, holder: Option<Holder> },
    #[error(
        "the store in {path} does not open: {detail}; move the directory aside and start again: shops must then be \
         registered again and everything is read again", path = path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    /// Integrity check failed: forward and reverse scans disagree.
    #[error("the store is damaged: {0}")]
    Unsound(String),
    #[error("the store in {path} was written by a newer waybill (format {found}); use that version", path = path.display())]
    NewerFormat { path: PathBuf, found: u32 },
    #[error(
        "the master key does not fit the store in {path}; give the key that it was made with (WAYBILL_MASTER_KEY or the key file)",
        path = path.display()
    )]
    WrongMasterKey { path: PathBuf },
    #[error("{path}: {detail}", path = path.display())]
    Io { path: PathBuf, detail: String },
    #[error("the disk that holds the data directory is full")]
    Full,
    #[error("store engine: {0}")]
    Engine(String),
    #[error("the store failed earlier; restart the program")]
    Failed,
    #[error("the record of {what} is unreadable: {detail}")]
    Record { what: String, detail: String },
    #[error("cannot open what is sealed as {context}: wrong key or changed bits")]
    Sealed { context: String },
    /// The attempt is not the current one any more; its result is dropped.
    #[error("the lease is lost: a later attempt has the job, or the job is gone")]
    LeaseLost,
    #[error("a shop with this client id is registered already")]
    DuplicateClient,
    #[error("no such {what}")]
    Absent { what: &'static str },
}

impl StoreError {
    /// Logs that something will be tried again. A full disk goes to the debug log only: the committer has reported it once,
    /// each loop that meets it would repeat it, and logs need room too.
    pub fn warn(&self, what: &str) {
        match self {
            StoreError::Full => tracing::debug!(error = %self, "{what}"),
            error => tracing::warn!(%error, "{what}"),
        }
    }

    pub(super) fn io(path: &Path, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull => StoreError::Full,
            _ => StoreError::Io { path: path.to_owned(), detail: error.to_string() },
        }
    }
}
