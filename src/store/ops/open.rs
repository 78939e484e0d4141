//! Opening a store: the lock, the checks of key and format, recovery after a crash.
//!
//! Called by the app once a process.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use zeroize::Zeroizing;

use crate::domain::{Clock, Timestamp};
use crate::store::crypto::{SealKey, random_key};
use crate::store::engine::format::{self, FORMAT, FORMAT_KEY};
use crate::store::engine::kv::Kv;
#[cfg(test)]
use crate::store::engine::memory::MemoryKv;
use crate::store::engine::watermark::{self, Watermark};
use crate::store::engine::write_ahead::Logged;
use crate::store::error::StoreError;
use crate::store::holder::Holder;
use crate::store::ops::lease;
use crate::store::ops::restore;
use crate::store::ops::scrub;
use crate::store::records::dead_letters;
use crate::store::records::runs;
use crate::store::tx::committer::{self, Committer};
use crate::store::tx::counters;
use crate::store::tx::handle::{Inner, SharedLeases, Store};
use crate::store::tx::notify::{Receivers, Signals};
use crate::store::tx::uncommitted_calls::UncommittedCalls;

pub(crate) const CURSOR_KEY: &[u8] = b"mcursor_key";

pub(crate) const CURSOR_CONTEXT: &str = "cursor key";

/// Checks that format and master key fit, or writes them into an empty store. Returns the cursor key.
pub(crate) fn check_or_create(kv: &dyn Kv, master: &SealKey, path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    if let Some(format) = kv.get(FORMAT_KEY)? {
        let found = format.as_slice().try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX);
        if found > FORMAT {
            return Err(StoreError::NewerFormat { path: path.to_owned(), found });
        }
    }
    if let Some(sealed) = kv.get(CURSOR_KEY)? {
        counters::carry_over(kv)?;
        return master.open(CURSOR_CONTEXT, &sealed).map_err(|_| StoreError::WrongMasterKey { path: path.to_owned() });
    }
    let key = random_key()?;
    let sealed = master.seal(CURSOR_CONTEXT, &*key)?;
    kv.apply(&[format::format(), (CURSOR_KEY.to_vec(), Some(sealed)), restore::mark_blank()])?;
    Ok(Zeroizing::new(key.to_vec()))
}

/// What a simulated store leaves behind when its process is gone.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Memory(pub(in crate::store) Arc<MemoryKv>);

#[cfg(test)]
impl Default for Memory {
    fn default() -> Memory {
        Memory(Arc::new(MemoryKv::strict()))
    }
}

/// Moves the files of a damaged store aside, for inspection, so that a new one can be created; returns where to.
///
/// # Errors
/// They cannot be moved.
pub fn set_aside(directory: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let aside = directory.join(format!("damaged-{}", now.as_millis()));
    std::fs::rename(directory.join("sled"), &aside).map_err(|error| StoreError::io(directory, error))?;
    watermark::remove(directory)?;
    Ok(aside)
}

pub(crate) fn make_private(directory: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| StoreError::io(directory, error))
}

pub(crate) fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let mut file = opened.map_err(|error| StoreError::io(&path, error))?;
    match file.try_lock() {
        Ok(()) => {
            Holder::note(&mut file);
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { path: directory.to_owned(), holder: Holder::of(&path) })
        }
        Err(TryLockError::Error(error)) => Err(StoreError::io(&path, error)),
    }
}

impl Store {
    /// Opens or creates the store in `directory` (made with mode 0700 when absent).
    ///
    /// # Errors
    /// [`StoreError::InUse`] for a second process, [`StoreError::WrongMasterKey`] and
    /// [`StoreError::NewerFormat`] before anything is written, [`StoreError::Damaged`] when the engine cannot read its files.
    pub fn open(directory: &Path, master: &[u8; 32], clock: Clock) -> Result<Store, StoreError> {
        let master = SealKey::new(master);
        // The engine writes when it opens.
        watermark::precheck(directory, &master)?;
        make_private(directory)?;
        let lock = lock(directory)?;
        let kv: Arc<dyn Kv> = Arc::new(Logged::open(directory, lock)?);
        watermark::check(&*kv, directory, counters::commits)?;
        let unseen = scrub::at_open(&*kv, directory)?;
        let key = master.clone();
        let start = |kv: Arc<dyn Kv>, signals| {
            let mark = Watermark::make(directory, &key, counters::commits(&*kv)?)?;
            Committer::start(kv, signals, Some(Arc::new(mark)))
        };
        let mut inner = Store::with_committer(kv, master, clock, directory, start)?;
        inner.unseen = unseen;
        Ok(Store(Arc::new(inner)))
    }

    pub(in crate::store) fn with_committer(
        kv: Arc<dyn Kv>,
        master: SealKey,
        clock: Clock,
        path: &Path,
        start: impl FnOnce(Arc<dyn Kv>, Arc<Signals>) -> Result<Committer, StoreError>,
    ) -> Result<Inner, StoreError> {
        let cursor_key = check_or_create(&*kv, &master, path)?;
        committer::run_once(&*kv, dead_letters::recount)?;
        committer::run_once(&*kv, lease::recover)?;
        runs::build(&*kv)?;
        let (signals, Receivers { queues, ended_runs }) = Signals::new();
        let signals = Arc::new(signals);
        let committer = start(Arc::clone(&kv), Arc::clone(&signals))?;
        Ok(Inner {
            kv,
            committer,
            signals,
            queues: Mutex::new(Some(queues)),
            ended_runs: Mutex::new(Some(ended_runs)),
            active_leases: SharedLeases::default(),
            calls: UncommittedCalls::default(),
            shop_keys: RwLock::default(),
            master,
            clock,
            source: OnceLock::new(),
            cursor_key,
            parked_max: AtomicU64::new(u64::MAX),
            archives_when_settling: AtomicBool::new(false),
            indexed: RwLock::default(),
            work_done: AtomicU64::new(0),
            unseen: None,
        })
    }

    /// A store over what is left of an earlier one in memory, which commits in the caller's thread.
    #[cfg(test)]
    pub(crate) fn simulated(memory: &Memory, clock: Clock) -> Result<Store, StoreError> {
        let (kv, master) = (Arc::<MemoryKv>::clone(&memory.0), SealKey::new(&[1; 32]));
        let inline = |kv, signals| Ok(Committer::inline(kv, signals));
        Ok(Store(Arc::new(Store::with_committer(kv, master, clock, Path::new("memory"), inline)?)))
    }

    /// A store without a watermark.
    #[cfg(test)]
    pub(in crate::store) fn over(
        kv: Arc<dyn Kv>,
        master: SealKey,
        clock: Clock,
        path: &Path,
    ) -> Result<Store, StoreError> {
        let start = |kv, signals| Committer::start(kv, signals, None);
        Ok(Store(Arc::new(Store::with_committer(kv, master, clock, path, start)?)))
    }
}
