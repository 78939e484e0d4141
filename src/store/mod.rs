//! The embedded side: jobs, ledger, checkpoints, outbox, shops, tokens, budgets, runs and the archive,
//! in one sled tree behind a write-ahead log.
//!
//! | layer | what it is |
//! | --- | --- |
//! | `ops` | what the store does: settle an attempt, apply a list page, restore, purge |
//! | `records` | what is stored: one file a kind of record |
//! | `tx` | transactions: the committer, counters, who is woken after a commit |
//! | `engine` | an ordered map of bytes with durable batches: sled, behind a write-ahead log |
//!
//! Beside them lie what all layers use: `keyspace` (the table of keys), `crypto`, `error`, `holder`.
//!
//! Every change is a transaction run by the one committer (`tx::committer`) and durable before its caller
//! goes on. Reading needs no transaction. Client secrets, tokens and documents are sealed (`crypto`)
//! before they reach the engine. Reading order: `keyspace`, `tx::committer`, `records::leases`,
//! `records::ready_queue`, `ops::settle`, `ops::list_page`, `ops::detail`, `records::outbox`.
//!
//! A crash at any instant leaves the state after some transaction, whole. A new process starts without
//! leases, and the attempts that were under way count as made.

mod alive;
mod crypto;
mod engine;
mod error;
mod holder;
mod keyspace;
mod ops;
#[cfg(test)]
mod record_forms;
mod records;
#[cfg(test)]
mod tests;
mod tx;

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

pub use alive::{blocking, count_panic, how_it_ended};
pub use crypto::SealKey;
pub use error::StoreError;
pub use holder::Holder;
pub use keyspace::{Queue, QueueKind};
pub use ops::completeness::{Known, Listed, UnderWay};
pub use ops::list_page::WalkRule;
pub use ops::restore::{Mirrored, Restored};
pub use ops::settle::{Failure, Settled, Settlement};
pub use records::api_keys::{KeyRecord, Scope};
pub use records::archive::{ArchivePage, Archived};
pub use records::call_counts::{CALL_DAYS_KEPT, LOGIN_RULE};
pub use records::idempotency::{AnswerName, KeptAnswer};
pub use records::outbox::{Slot, Waiting};
pub use records::run_index::RunFilter;
pub use records::runs::{Start, Started};
pub use records::shops::{NewShop, Secrets, ShopChange};
pub use records::walk_costs::{ListedRows, WalkCost, WalkCosts};
pub use tx::committer::Tx;
pub use tx::counters::Counters;
pub use tx::notify::{Changed, Changes, Signals};

use crate::domain::Clock;
use engine::integrity;
#[cfg(test)]
use engine::memory::MemoryKv;
use engine::sled::Kv;
use engine::watermark::{self, Mark};
use engine::write_ahead::Logged;
use records::leases::Claims;
use records::{call_counts, dead_letters, leases, run_index};
use tx::committer::{self, Committer};
use tx::counters;

/// The embedded store. Cheap to clone; the last handle closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    kv: Arc<dyn Kv>,
    committer: Committer,
    signals: Arc<Signals>,
    queues: Mutex<Option<mpsc::UnboundedReceiver<Queue>>>,
    ended_runs: Mutex<Option<mpsc::UnboundedReceiver<u64>>>,
    /// Jobs with an attempt under way.
    claims: Claimed,
    calls: call_counts::Uncommitted,
    shop_keys: RwLock<HashMap<String, SealKey>>,
    master: SealKey,
    clock: Clock,
    cursor_key: Zeroizing<Vec<u8>>,
    /// A shop of which so much is parked is paused.
    parked_max: AtomicU64,
    archives_when_settling: AtomicBool,
    /// The part of the process that failed, if one did.
    failed_part: Arc<OnceLock<&'static str>>,
    /// From which key on nobody looked for damage when it was opened; none: all was looked at.
    unseen: integrity::Next,
}

/// What a simulated store leaves behind when its process is gone.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Memory(Arc<MemoryKv>);

#[cfg(test)]
impl Default for Memory {
    fn default() -> Memory {
        Memory(Arc::new(MemoryKv::strict()))
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
        watermark::admit(directory, &master)?;
        make_private(directory)?;
        let lock = lock(directory)?;
        let kv: Arc<dyn Kv> = Arc::new(Logged::open(directory, lock)?);
        watermark::check(&*kv, directory)?;
        let unseen = integrity::at_open(&*kv, directory)?;
        let key = master.clone();
        let start = |kv: Arc<dyn Kv>, signals| {
            let mark = Mark::make(&*kv, directory, &key)?;
            Committer::start(kv, signals, Some(Arc::new(mark)))
        };
        let mut inner = Store::with_committer(kv, master, clock, directory, start)?;
        inner.unseen = unseen;
        Ok(Store(Arc::new(inner)))
    }

    fn with_committer(
        kv: Arc<dyn Kv>,
        master: SealKey,
        clock: Clock,
        path: &Path,
        start: impl FnOnce(Arc<dyn Kv>, Arc<Signals>) -> Result<Committer, StoreError>,
    ) -> Result<Inner, StoreError> {
        let cursor_key = counters::check_or_create(&*kv, &master, path)?;
        committer::run_once(&*kv, dead_letters::recount)?;
        committer::run_once(&*kv, leases::recover)?;
        run_index::build(&*kv)?;
        let (signals, receiver, ended_runs) = Signals::new();
        let signals = Arc::new(signals);
        let committer = start(Arc::clone(&kv), Arc::clone(&signals))?;
        Ok(Inner {
            kv,
            committer,
            signals,
            queues: Mutex::new(Some(receiver)),
            ended_runs: Mutex::new(Some(ended_runs)),
            claims: Claimed::default(),
            calls: call_counts::Uncommitted::default(),
            shop_keys: RwLock::default(),
            master,
            clock,
            cursor_key,
            parked_max: AtomicU64::new(u64::MAX),
            archives_when_settling: AtomicBool::new(false),
            failed_part: Arc::default(),
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

    /// A store without a mark.
    #[cfg(test)]
    fn over(kv: Arc<dyn Kv>, master: SealKey, clock: Clock, path: &Path) -> Result<Store, StoreError> {
        let start = |kv, signals| Committer::start(kv, signals, None);
        Ok(Store(Arc::new(Store::with_committer(kv, master, clock, path, start)?)))
    }

    /// Runs a transaction and returns when it is durable.
    ///
    /// Cancel safety: a caller that goes away does not stop the transaction.
    async fn transact<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        self.0.committer.transact(work).await
    }

    /// The same for what people give and only people can give again: the mark knows of it before the caller goes on.
    ///
    /// Cancel safety: the transaction stands; the mark may not know of it, which does no harm.
    async fn transact_given<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let given = self.transact(work).await?;
        if let Some(mark) = self.0.committer.mark.clone()
            && let Err(error) = blocking(move || mark.sync()).await
        {
            // The change is durable; only a log that is cut later might not be noticed.
            tracing::warn!(%error, "a change could not be noted beside the store");
        }
        Ok(given)
    }

    /// Turns true when the engine failed, or a watched part; the process must end then.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.0.committer.failed()
    }

    /// Whether the disk has room for what comes next; else changes are refused with [`StoreError::Full`].
    ///
    /// # Errors
    /// [`StoreError::Full`], or why that cannot be told.
    pub fn has_room(&self) -> Result<(), StoreError> {
        self.0.kv.has_room(&[])
    }

    /// Who is woken after commits.
    pub fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// The names of queues that got work; given out once, to the lanes.
    pub fn take_queue_signals(&self) -> Option<mpsc::UnboundedReceiver<Queue>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The runs that end, each once its end is durable; given out once.
    pub fn take_ended_runs(&self) -> Option<mpsc::UnboundedReceiver<u64>> {
        self.0.ended_runs.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The wall clock that records carry.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Authenticates the cursors of the HTTP API; made at the first start, kept sealed.
    pub fn cursor_key(&self) -> &[u8] {
        &self.0.cursor_key
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        self.0.kv.size()
    }

    fn now(&self) -> i64 {
        self.0.clock.now()
    }
}

/// Moves the files of a damaged store aside, for people to look at, so that a new one can be made. Where to.
///
/// # Errors
/// They cannot be moved.
pub fn set_aside(directory: &Path, now: i64) -> Result<PathBuf, StoreError> {
    let aside = directory.join(format!("damaged-{now}"));
    std::fs::rename(directory.join("sled"), &aside).map_err(|error| StoreError::io(directory, error))?;
    watermark::remove(directory)?;
    Ok(aside)
}

type Claimed = Arc<Mutex<Claims>>;

fn claimed(claims: &Claimed) -> MutexGuard<'_, Claims> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_private(directory: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| StoreError::io(directory, error))
}

fn lock(directory: &Path) -> Result<File, StoreError> {
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

/// Small records are JSON: readable with any tool, and added fields do no harm.
fn encode<T: Serialize>(what: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

/// A record with a sealed part: length of the head, head as JSON, sealed bytes.
fn encode_with<T: Serialize>(what: &str, head: &T, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let head = encode(what, head)?;
    let length = u32::try_from(head.len())
        .map_err(|_| StoreError::Record { what: what.to_owned(), detail: "its head is too long".to_owned() })?;
    let mut out = Vec::with_capacity(4 + head.len() + sealed.len());
    out.extend(length.to_le_bytes());
    out.extend(head);
    out.extend_from_slice(sealed);
    Ok(out)
}

fn decode_with<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<(T, Vec<u8>), StoreError> {
    let cut = || StoreError::Record { what: what.to_owned(), detail: "it is cut off".to_owned() };
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    let (head, sealed) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
    Ok((decode(what, head)?, sealed.to_vec()))
}

/// What a document is sealed for; the same in the outbox and in the archive.
fn document_context(shop: &str, resource: &str, id: &str) -> String {
    format!("document|{shop}|{resource}|{id}")
}
