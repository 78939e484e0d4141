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
use crate::store::engine::data_keys::{self, DataKeys};
use crate::store::engine::format::{self, FORMAT, KEYS_APART};
use crate::store::engine::key_file::{self, KeyStorage};
use crate::store::engine::kv::Kv;
#[cfg(test)]
use crate::store::engine::memory::MemoryKv;
use crate::store::engine::watermark::{self, Watermark};
use crate::store::engine::write_ahead::Logged;
use crate::store::error::StoreError;
use crate::store::holder::Holder;
use crate::store::keyspace;
use crate::store::ops::carry_over;
use crate::store::ops::lease;
use crate::store::ops::restore;
use crate::store::ops::scrub;
use crate::store::ops::seal_texts;
use crate::store::records::dead_letters;
use crate::store::records::runs;
use crate::store::texts::ShopKeys;
use crate::store::tx::committer::{self, Committer};
use crate::store::tx::counters;
use crate::store::tx::handle::{Inner, SharedLeases, Store};
use crate::store::tx::notify::{Receivers, Signals};
use crate::store::tx::uncommitted_calls::UncommittedCalls;

pub(crate) const CURSOR_KEY: &[u8] = b"mcursor_key";

pub(crate) const CURSOR_CONTEXT: &str = "cursor key";

/// Opens or makes the file of the data keys, once it is sure that the master key is that of the store.
pub(crate) fn open_keys(
    kv: &dyn Kv,
    storage: KeyStorage,
    master: SealKey,
    path: &Path,
) -> Result<DataKeys, StoreError> {
    let are_apart = format::number(kv)?.is_some_and(|format| format >= KEYS_APART);
    if !are_apart && let Some(sealed) = kv.get(CURSOR_KEY)? {
        open_first_form(&master, &sealed, path)?;
    }
    DataKeys::open(storage, master, path, are_apart)
}

/// The cursor key of a store whose master key sealed it.
fn open_first_form(master: &SealKey, sealed: &[u8], path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    master.open(CURSOR_CONTEXT, sealed).map_err(|_| StoreError::WrongMasterKey { path: path.to_owned() })
}

/// Checks that the format fits, or writes it into an empty store, and carries an older store over. Returns the cursor key.
pub(crate) fn check_or_create(kv: &dyn Kv, keys: &DataKeys, path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let found = format::number(kv)?;
    if let Some(found) = found.filter(|found| *found > FORMAT) {
        return Err(StoreError::NewerFormat { path: path.to_owned(), found });
    }
    if kv.get(restore::UNFINISHED)?.is_some() {
        let detail = "it took over only a part of another process's state".to_owned();
        return Err(StoreError::Damaged { path: path.to_owned(), detail });
    }
    let Some(sealed) = kv.get(CURSOR_KEY)? else {
        let (key, sealed) = new_cursor_key(keys)?;
        let marks = [restore::mark_blank(), seal_texts::mark_sealed()];
        kv.apply(&[&[format::format(), (CURSOR_KEY.to_vec(), Some(sealed))][..], &marks].concat())?;
        return Ok(key);
    };
    counters::carry_over(kv)?;
    if found.is_some_and(|found| found >= KEYS_APART) {
        return match keys.store_key().open(CURSOR_CONTEXT, &sealed) {
            Ok(key) => Ok(key),
            Err(_) => {
                tracing::error!("the store's own data key was damaged: cursors and stored responses end");
                let (key, sealed) = new_cursor_key(keys)?;
                kv.apply(&[(CURSOR_KEY.to_vec(), Some(sealed))])?;
                Ok(key)
            }
        };
    }
    let key = open_first_form(&keys.master(), &sealed, path)?;
    carry_over::data_keys(kv, keys)?;
    let sealed = keys.store_key().seal(CURSOR_CONTEXT, &key)?;
    kv.apply(&[format::format(), (CURSOR_KEY.to_vec(), Some(sealed))])?;
    Ok(key)
}

fn new_cursor_key(keys: &DataKeys) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), StoreError> {
    let key = random_key()?;
    let sealed = keys.store_key().seal(CURSOR_CONTEXT, &*key)?;
    Ok((Zeroizing::new(key.to_vec()), sealed))
}

/// Destroys the data keys of no shop: a crash came between a key and its shop, or between the deletion of a shop and
/// that of its key.
fn destroy_orphans(kv: &dyn Kv, keys: &DataKeys) -> Result<(), StoreError> {
    keys.retain(|shop| {
        let is_needed = kv.get(&keyspace::deleted_shop(shop))?.is_some_and(|needed| !needed.is_empty());
        Ok(is_needed || kv.get(&keyspace::shop(shop))?.is_some())
    })
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
    key_file::set_aside(directory, &aside)?;
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
        let keys_are_apart = watermark::precheck(directory, &master)?;
        if !data_keys::precheck(directory, &master)? && keys_are_apart {
            return Err(data_keys::missing(directory));
        }
        make_private(directory)?;
        let lock = lock(directory)?;
        let kv: Arc<dyn Kv> = Arc::new(Logged::open(directory, lock)?);
        watermark::check(&*kv, directory, counters::commits)?;
        let unseen = scrub::at_open(&*kv, directory)?;
        let keys = open_keys(&*kv, KeyStorage::at(directory), master, directory)?;
        let start = |kv: Arc<dyn Kv>, keys, signals| {
            let mark = Watermark::make(directory, counters::commits(&*kv)?)?;
            Committer::start(kv, keys, signals, Some(Arc::new(mark)))
        };
        let mut inner = Store::with_committer(kv, keys, clock, directory, start)?;
        inner.unseen = unseen;
        Ok(Store(Arc::new(inner)))
    }

    pub(in crate::store) fn with_committer(
        kv: Arc<dyn Kv>,
        keys: DataKeys,
        clock: Clock,
        path: &Path,
        start: impl FnOnce(Arc<dyn Kv>, Arc<dyn ShopKeys>, Arc<Signals>) -> Result<Committer, StoreError>,
    ) -> Result<Inner, StoreError> {
        let cursor_key = check_or_create(&*kv, &keys, path)?;
        destroy_orphans(&*kv, &keys)?;
        let keys = Arc::new(keys);
        let text_keys: Arc<dyn ShopKeys> = Arc::<DataKeys>::clone(&keys);
        committer::run_once(&*kv, &*text_keys, dead_letters::recount)?;
        committer::run_once(&*kv, &*text_keys, lease::recover)?;
        runs::build(&*kv, &*text_keys)?;
        seal_texts::at_open(&*kv, &*text_keys, clock.now())?;
        let (signals, Receivers { queues, ended_runs }) = Signals::new();
        let signals = Arc::new(signals);
        let committer = start(Arc::clone(&kv), Arc::clone(&text_keys), Arc::clone(&signals))?;
        Ok(Inner {
            kv,
            committer,
            signals,
            queues: Mutex::new(Some(queues)),
            ended_runs: Mutex::new(Some(ended_runs)),
            active_leases: SharedLeases::default(),
            calls: UncommittedCalls::default(),
            keys,
            other_master: RwLock::default(),
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
        let kv: Arc<dyn Kv> = Arc::<MemoryKv>::clone(&memory.0);
        let keys = Store::keys_in(&kv, SealKey::new(&[1; 32]), Path::new("memory"))?;
        let inline = |kv, keys, signals| Ok(Committer::inline(kv, keys, signals));
        Ok(Store(Arc::new(Store::with_committer(kv, keys, clock, Path::new("memory"), inline)?)))
    }

    /// A store without a watermark.
    #[cfg(test)]
    pub(in crate::store) fn over(
        kv: Arc<dyn Kv>,
        master: SealKey,
        clock: Clock,
        path: &Path,
    ) -> Result<Store, StoreError> {
        let start = |kv, keys, signals| Committer::start(kv, keys, signals, None);
        let keys = Store::keys_in(&kv, master, path)?;
        Ok(Store(Arc::new(Store::with_committer(kv, keys, clock, path, start)?)))
    }

    /// The data keys of a store in memory, which its engine holds.
    #[cfg(test)]
    pub(in crate::store) fn keys_in(kv: &Arc<dyn Kv>, master: SealKey, path: &Path) -> Result<DataKeys, StoreError> {
        open_keys(&**kv, KeyStorage::Memory(Arc::clone(kv)), master, path)
    }
}
