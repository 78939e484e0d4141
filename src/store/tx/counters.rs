//! Store-wide values: format, master key check, sequences, counters.

use std::collections::BTreeMap;
use std::path::Path;

use zeroize::Zeroizing;

use crate::store::crypto::{SealKey, random_key};
use crate::store::engine::sled::{Change, Kv};
use crate::store::ops::restore;
use crate::store::{Store, StoreError, Tx, claimed};

/// Rises when the layout of keys or records changes so that older programs could not read it.
/// 2: commits are in a write-ahead log before they are in the engine (`logged`).
pub(crate) const FORMAT: u32 = 2;

const FORMAT_KEY: &[u8] = b"mformat";
const VERSION_KEY: &[u8] = b"mversion";
const BOOKS_KEY: &[u8] = b"mbooks";
const CURSOR_KEY: &[u8] = b"mcursor_key";
const CURSOR_CONTEXT: &str = "cursor key";

/// The format of this program, as a store holds it.
pub(crate) fn format() -> Change {
    (FORMAT_KEY.to_vec(), Some(FORMAT.to_be_bytes().to_vec()))
}

/// Whether a store was made over this engine.
pub(crate) fn has_format(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.get(FORMAT_KEY)?.is_some())
}

/// The last number of a sequence that is durable.
pub(crate) fn last(kv: &dyn Kv, name: &str) -> Result<u64, StoreError> {
    Ok(number(kv.get(&sequence_key(name))?))
}

fn sequence_key(name: &str) -> Vec<u8> {
    [b"mseq.", name.as_bytes()].concat()
}

/// Checks that format and master key fit, or writes them into an empty store. Returns the cursor key.
pub(crate) fn check_or_create(kv: &dyn Kv, master: &SealKey, path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    if let Some(format) = kv.get(FORMAT_KEY)? {
        let found = format.as_slice().try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX);
        if found > FORMAT {
            return Err(StoreError::NewerFormat { path: path.to_owned(), found });
        }
    }
    if let Some(sealed) = kv.get(CURSOR_KEY)? {
        carry_over(kv)?;
        return master.open(CURSOR_CONTEXT, &sealed).map_err(|_| StoreError::WrongMasterKey { path: path.to_owned() });
    }
    let key = random_key()?;
    let sealed = master.seal(CURSOR_CONTEXT, &*key)?;
    kv.apply(&[format(), (CURSOR_KEY.to_vec(), Some(sealed)), restore::mark_blank()])?;
    Ok(Zeroizing::new(key.to_vec()))
}

/// How much work there is, store-wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that could run now, the leased ones included.
    pub ready_jobs: u64,
    /// Jobs that wait for a due time (pauses after failures, re-reads).
    pub waiting_jobs: u64,
    /// Of the waiting ones, those that failed before and will be tried again.
    pub retrying_jobs: u64,
    /// Attempts under way.
    pub leased_jobs: u64,
    pub outbox: u64,
    /// Sealed bytes in the outbox.
    pub outbox_bytes: u64,
    pub parked: u64,
    /// Runs that are walking or fetching.
    pub open_runs: u64,
}

/// How much each counter changes; the committer adds it to what is stored, once a group.
pub(crate) type Counts = BTreeMap<Counter, i64>;

/// The counters; their order is part of the stored format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    Ready,
    Waiting,
    Retrying,
    Outbox,
    OutboxBytes,
    Parked,
    OpenRuns,
}

const COUNTERS: usize = 7;

/// How many commits there were, and what the counters are after the last one. One value, written by every commit: a
/// log that lost a part of it lost all that came after, and the number of commits shows that.
#[derive(Default)]
struct Books {
    commits: u64,
    counts: [u64; COUNTERS],
}

impl Books {
    /// None yet: all are 0.
    fn read(bytes: Option<Vec<u8>>) -> Result<Books, StoreError> {
        let Some(bytes) = bytes else { return Ok(Books::default()) };
        let (numbers, []) = bytes.as_chunks::<8>() else { return Err(Books::unreadable()) };
        let [commits, counts @ ..] = numbers else { return Err(Books::unreadable()) };
        let counts: &[[u8; 8]; COUNTERS] = counts.try_into().map_err(|_| Books::unreadable())?;
        Ok(Books { commits: u64::from_be_bytes(*commits), counts: counts.map(u64::from_be_bytes) })
    }

    /// Before they were one value each counter had a key of its own.
    fn of_before(kv: &dyn Kv) -> Result<Books, StoreError> {
        let mut books = Books::default();
        let names = ["ready", "waiting", "retrying", "outbox", "outbox_bytes", "parked", "open_runs"];
        for (count, name) in books.counts.iter_mut().zip(names) {
            *count = number(kv.get(&[b"mcount.", name.as_bytes()].concat())?);
        }
        Ok(books)
    }

    fn unreadable() -> StoreError {
        StoreError::Record { what: "the counters".to_owned(), detail: "its length is wrong".to_owned() }
    }

    fn count(&self, counter: Counter) -> u64 {
        self.counts.get(counter as usize).copied().unwrap_or_default()
    }

    fn bytes(&self) -> Vec<u8> {
        std::iter::once(&self.commits).chain(&self.counts).flat_map(|number| number.to_be_bytes()).collect()
    }
}

impl Tx<'_> {
    /// The next number of a sequence, from 1.
    pub(crate) fn next(&mut self, name: &'static str) -> Result<u64, StoreError> {
        self.next_many(name, 1)
    }

    /// The first of the next `count` numbers of a sequence.
    pub(crate) fn next_many(&mut self, name: &'static str, count: u64) -> Result<u64, StoreError> {
        let key = sequence_key(name);
        let last = number(self.get(&key)?);
        self.put(key, (last + count).to_be_bytes().to_vec());
        Ok(last + 1)
    }

    /// The next version: microseconds of the wall clock, or one more than the last if the clock fell
    /// back. Rises over restarts, and over a lost store as long as the clock did not go back.
    pub(crate) fn next_version(&mut self, now: i64) -> Result<u64, StoreError> {
        let key = VERSION_KEY.to_vec();
        let clock = u64::try_from(now).unwrap_or(0).saturating_mul(1000);
        let next = clock.max(number(self.get(&key)?) + 1);
        self.put(key, next.to_be_bytes().to_vec());
        Ok(next)
    }
}

/// Versions to come are greater than this one.
pub(crate) fn raise_version(tx: &mut Tx<'_>, version: u64) -> Result<(), StoreError> {
    if number(tx.get(VERSION_KEY)?) < version {
        tx.put(VERSION_KEY.to_vec(), version.to_be_bytes().to_vec());
    }
    Ok(())
}

/// Takes the counters over from a store of an older build.
fn carry_over(kv: &dyn Kv) -> Result<(), StoreError> {
    match kv.get(BOOKS_KEY)? {
        Some(_) => Ok(()),
        None => kv.apply(&[(BOOKS_KEY.to_vec(), Some(Books::of_before(kv)?.bytes()))]),
    }
}

/// The number of the commit to come, and the change that keeps it and the counters.
pub(crate) fn committed(kv: &dyn Kv, counts: &Counts) -> Result<(u64, Change), StoreError> {
    let mut books = Books::read(kv.get(BOOKS_KEY)?)?;
    books.commits += 1;
    for (counter, by) in counts {
        if let Some(count) = books.counts.get_mut(*counter as usize) {
            *count = count.saturating_add_signed(*by);
        }
    }
    Ok((books.commits, (BOOKS_KEY.to_vec(), Some(books.bytes()))))
}

/// How many commits are durable.
pub(crate) fn commits(kv: &dyn Kv) -> Result<u64, StoreError> {
    Ok(Books::read(kv.get(BOOKS_KEY)?)?.commits)
}

/// What a counter was before the group.
pub(crate) fn before(tx: &Tx<'_>, counter: Counter) -> Result<u64, StoreError> {
    Ok(Books::read(tx.get(BOOKS_KEY)?)?.count(counter))
}

pub(crate) fn number(bytes: Option<Vec<u8>>) -> u64 {
    bytes.and_then(|bytes| bytes.as_slice().try_into().ok().map(u64::from_be_bytes)).unwrap_or(0)
}

impl Store {
    /// How much work there is now.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn counters(&self) -> Result<Counters, StoreError> {
        let books = Books::read(self.0.kv.get(BOOKS_KEY)?)?;
        Ok(Counters {
            ready_jobs: books.count(Counter::Ready),
            waiting_jobs: books.count(Counter::Waiting),
            retrying_jobs: books.count(Counter::Retrying),
            leased_jobs: claimed(&self.0.claims).len() as u64,
            outbox: books.count(Counter::Outbox),
            outbox_bytes: books.count(Counter::OutboxBytes),
            parked: books.count(Counter::Parked),
            open_runs: books.count(Counter::OpenRuns),
        })
    }

    /// Sealed bytes in the outbox; of [`Store::counters`] the one that lanes ask for at each turn.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn outbox_bytes(&self) -> Result<u64, StoreError> {
        Ok(Books::read(self.0.kv.get(BOOKS_KEY)?)?.count(Counter::OutboxBytes))
    }

    /// A time kept under a name (the schedule's last ticks).
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn kept_time(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let key = [b"mtime.", name.as_bytes()].concat();
        let bytes = self.0.kv.get(&key)?;
        Ok(bytes.and_then(|bytes| bytes.as_slice().try_into().ok().map(i64::from_be_bytes)))
    }

    /// Keeps a time under a name.
    ///
    /// # Errors
    /// The engine's write errors.
    pub async fn keep_time(&self, name: &str, at: i64) -> Result<(), StoreError> {
        let key = [b"mtime.", name.as_bytes()].concat();
        self.transact(move |tx| {
            tx.put(key, at.to_be_bytes().to_vec());
            Ok(())
        })
        .await
    }
}
