//! Data keys: one for each shop and one for the store itself, wrapped by the master key, in a file of their own.
//!
//! The engine's log keeps what was removed for a long time, so a key in it could not be destroyed. This file is replaced
//! as a whole when a key is destroyed (`key_file`), and when the master key changes: either the old one opens all of it,
//! or the new one does.
//!
//! Order with commits: a key is durable before anything is sealed with it, so [`DataKeys::add`] comes before the commit. The
//! key of a deleted shop is destroyed after the commit that deletes the shop; a crash in between leaves a key that no
//! shop has, which the next opening destroys ([`DataKeys::retain`]).
//!
//! Calls from many threads are written together: one sync for all that wait.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use zeroize::Zeroizing;

use crate::domain::ShopId;
use crate::store::crypto::{SealKey, context, random_key};
use crate::store::engine::key_file::{KeyStorage, WrappedKeys, shop_line};
use crate::store::error::StoreError;
use crate::store::texts::ShopKeys;

/// Outcomes of failed writes that waiting callers can still ask for.
const FAILURES_KEPT: usize = 16;

type RawKey = Zeroizing<[u8; 32]>;

/// The data keys of an open store.
pub(crate) struct DataKeys {
    queue: Mutex<Queue>,
    storage: Mutex<KeyStorage>,
    known: RwLock<Known>,
}

struct Known {
    master: SealKey,
    store: RawKey,
    shops: BTreeMap<ShopId, ShopKey>,
}

struct ShopKey {
    wrapped: Vec<u8>,
    opened: OnceLock<SealKey>,
}

enum KeyChange {
    Add(ShopId, RawKey),
    Destroy(ShopId),
}

/// Changes that whoever writes next takes along.
#[derive(Default)]
struct Queue {
    waiting: Vec<KeyChange>,
    /// Calls so far, and how many of them were served.
    calls: u64,
    served: u64,
    /// Which calls failed, and why.
    failed: Vec<(std::ops::RangeInclusive<u64>, StoreError)>,
}

/// Whether a master key opens the keys of a file.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    No,
    /// No line can be read.
    Unknown,
}

/// Checks the master key against the file, before the engine writes anything. Whether there is a file.
///
/// # Errors
/// [`StoreError::WrongMasterKey`], [`StoreError::Damaged`] for a file without a readable line.
pub(crate) fn precheck(directory: &Path, master: &SealKey) -> Result<bool, StoreError> {
    match KeyStorage::at(directory).read()? {
        Some(text) => checked(&text, master, directory).map(|_| true),
        None => Ok(false),
    }
}

/// A store that was made with the file lacks it.
pub(crate) fn missing(path: &Path) -> StoreError {
    let detail = "its file `keys`, with the data keys, is missing; put it back from a backup".to_owned();
    StoreError::Damaged { path: path.to_owned(), detail }
}

fn checked(text: &str, master: &SealKey, path: &Path) -> Result<WrappedKeys, StoreError> {
    let (keys, path) = (WrappedKeys::read(text), path.to_owned());
    match fit(&keys, master) {
        Fit::Yes => Ok(keys),
        Fit::No => Err(StoreError::WrongMasterKey { path }),
        Fit::Unknown => {
            let detail = "no line of its file `keys` can be read; put that file back from a backup".to_owned();
            Err(StoreError::Damaged { path, detail })
        }
    }
}

fn fit(keys: &WrappedKeys, master: &SealKey) -> Fit {
    if let Some(id) = &keys.master {
        return if *id == master.id() { Fit::Yes } else { Fit::No };
    }
    let store = keys.store.iter().map(|key| unwrap(master, None, key));
    let mut opened = store.chain(keys.shops.iter().map(|(shop, key)| unwrap(master, Some(shop), key)));
    match opened.next() {
        None => Fit::Unknown,
        Some(first) if first.is_ok() || opened.any(|key| key.is_ok()) => Fit::Yes,
        Some(_) => Fit::No,
    }
}

/// What a data key is wrapped for; None: the key of the store.
fn wrap_context(shop: Option<&str>) -> String {
    match shop {
        Some(shop) => context("data key", &[shop]),
        None => context("store key", &[]),
    }
}

fn wrap(master: &SealKey, shop: Option<&str>, key: &[u8; 32]) -> Result<Vec<u8>, StoreError> {
    master.seal(&wrap_context(shop), key)
}

fn unwrap(master: &SealKey, shop: Option<&str>, wrapped: &[u8]) -> Result<RawKey, StoreError> {
    let what = || shop.map_or("the store's data key".to_owned(), |shop| format!("the data key of shop {shop}"));
    let opened = master.open(&wrap_context(shop), wrapped).map_err(|_| StoreError::Sealed { context: what() })?;
    let key = opened.as_slice().try_into();
    key.map(Zeroizing::new).map_err(|_| StoreError::Record { what: what(), detail: "wrong length".to_owned() })
}

impl DataKeys {
    /// Reads the keys, or makes the first one. `must_exist`: the store was made with them.
    ///
    /// # Errors
    /// [`StoreError::WrongMasterKey`], [`StoreError::Damaged`] when they are missing or none can be read, or the system's.
    pub(crate) fn open(
        mut storage: KeyStorage,
        master: SealKey,
        path: &Path,
        must_exist: bool,
    ) -> Result<DataKeys, StoreError> {
        storage.clean()?;
        let found = match storage.read()? {
            Some(text) => checked(&text, &master, path)?,
            None if must_exist => return Err(missing(path)),
            None => WrappedKeys { is_untidy: true, ..WrappedKeys::default() },
        };
        if found.damaged > 0 {
            tracing::error!(
                lines = found.damaged,
                "the file of the data keys is damaged; shops without a key need a new secret"
            );
        }
        let is_untidy = found.is_untidy;
        let store = match found.store.as_deref().map(|key| unwrap(&master, None, key)) {
            Some(Ok(store)) => store,
            _ => random_key()?,
        };
        let shop = |(shop, wrapped)| (shop, ShopKey { wrapped, opened: OnceLock::new() });
        let known = Known { master, store, shops: found.shops.into_iter().map(shop).collect() };
        if is_untidy || found.store.is_none() {
            storage.replace(&known.wrapped()?.text())?;
        }
        Ok(DataKeys { queue: Mutex::default(), storage: Mutex::new(storage), known: RwLock::new(known) })
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of the store itself: for what belongs to no shop.
    pub(crate) fn store_key(&self) -> SealKey {
        SealKey::new(&self.known().store)
    }

    /// All keys, wrapped: the text of the file.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn text(&self) -> Result<String, StoreError> {
        Ok(self.known().wrapped()?.text())
    }

    /// The master key in use.
    pub(crate) fn master(&self) -> SealKey {
        self.known().master.clone()
    }

    /// A shop's key. None: it has none.
    ///
    /// # Errors
    /// [`StoreError::Sealed`]: it is damaged.
    pub(crate) fn get(&self, shop: &str) -> Result<Option<SealKey>, StoreError> {
        let known = self.known();
        let Some(key) = known.shops.get(shop) else { return Ok(None) };
        if let Some(opened) = key.opened.get() {
            return Ok(Some(opened.clone()));
        }
        let raw = unwrap(&known.master, Some(shop), &key.wrapped)?;
        let opened = SealKey::new(&raw);
        Ok(Some(key.opened.get_or_init(|| opened).clone()))
    }

    /// The same as bytes, to be wrapped elsewhere.
    ///
    /// # Errors
    /// As [`DataKeys::get`].
    pub(crate) fn bytes(&self, shop: &str) -> Result<Option<RawKey>, StoreError> {
        let known = self.known();
        known.shops.get(shop).map(|key| unwrap(&known.master, Some(shop), &key.wrapped)).transpose()
    }

    /// Whether a shop has a key, readable or not.
    pub(crate) fn has(&self, shop: &str) -> bool {
        self.known().shops.contains_key(shop)
    }

    /// Adds the keys of shops, or replaces them. Durable when it returns. Blocks.
    ///
    /// # Errors
    /// The system's errors.
    pub(crate) fn add(&self, keys: Vec<(ShopId, RawKey)>) -> Result<(), StoreError> {
        self.change(keys.into_iter().map(|(shop, key)| KeyChange::Add(shop, key)).collect())
    }

    /// Destroys the keys of shops: when it returns, the file does not hold them any more. Blocks.
    ///
    /// # Errors
    /// The system's errors; the keys may still be there.
    pub(crate) fn destroy(&self, shops: Vec<ShopId>) -> Result<(), StoreError> {
        self.change(shops.into_iter().map(KeyChange::Destroy).collect())
    }

    /// Destroys the keys of all shops but those that are wanted.
    ///
    /// # Errors
    /// As [`DataKeys::destroy`].
    pub(crate) fn retain(&self, is_wanted: impl Fn(&str) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let shops: Vec<ShopId> = self.known().shops.keys().cloned().collect();
        let mut unwanted = Vec::new();
        for shop in shops {
            if !is_wanted(&shop)? {
                unwanted.push(shop);
            }
        }
        if unwanted.is_empty() { Ok(()) } else { self.destroy(unwanted) }
    }

    /// Wraps all keys by another master key, in one replacement: afterwards the old one opens none. Blocks.
    ///
    /// # Errors
    /// The system's errors; then the old master key stays.
    pub(crate) fn rewrap(&self, master: SealKey) -> Result<(), StoreError> {
        let mut storage = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shops = BTreeMap::new();
        {
            let known = self.known();
            for (shop, key) in &known.shops {
                match unwrap(&known.master, Some(shop), &key.wrapped) {
                    Ok(raw) => {
                        let wrapped = wrap(&master, Some(shop), &raw)?;
                        shops.insert(shop.clone(), ShopKey { wrapped, opened: OnceLock::from(SealKey::new(&raw)) });
                    }
                    Err(error) => tracing::error!(shop.id = %shop, %error, "left out: the shop needs a new secret"),
                }
            }
        }
        let known = Known { master, store: self.known().store.clone(), shops };
        storage.replace(&known.wrapped()?.text())?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Queues changes and writes all that wait, unless another thread has done so.
    fn change(&self, changes: Vec<KeyChange>) -> Result<(), StoreError> {
        let queue = || self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let call = {
            let mut queue = queue();
            queue.waiting.extend(changes);
            queue.calls += 1;
            queue.calls
        };
        let mut storage = self.storage.lock().unwrap_or_else(PoisonError::into_inner);
        let (waiting, calls) = {
            let mut queue = queue();
            if queue.served >= call {
                return queue.outcome(call);
            }
            (std::mem::take(&mut queue.waiting), queue.calls)
        };
        let written = self.write(&mut storage, waiting);
        queue().serve(calls, written.clone());
        written
    }

    fn write(&self, storage: &mut KeyStorage, changes: Vec<KeyChange>) -> Result<(), StoreError> {
        let (mut added, mut destroyed) = (BTreeMap::new(), Vec::new());
        let mut text = String::new();
        for change in changes {
            match change {
                KeyChange::Add(shop, key) => {
                    let wrapped = wrap(&self.known().master, Some(&shop), &key)?;
                    text.push_str(&shop_line(&shop, &wrapped));
                    added.insert(shop, ShopKey { wrapped, opened: OnceLock::from(SealKey::new(&key)) });
                }
                KeyChange::Destroy(shop) => {
                    added.remove(&shop);
                    destroyed.push(shop);
                }
            }
        }
        let is_there = |shop: &ShopId| self.known().shops.contains_key(shop);
        destroyed.retain(|shop| is_there(shop) && !added.contains_key(shop));
        // A key that replaces another destroys that.
        let must_replace = !destroyed.is_empty() || added.keys().any(is_there);
        if !must_replace && (text.is_empty() || storage.append(&text)?) {
            self.known.write().unwrap_or_else(PoisonError::into_inner).shops.extend(added);
            return Ok(());
        }
        let mut wrapped = self.known().wrapped()?;
        wrapped.shops.extend(added.iter().map(|(shop, key)| (shop.clone(), key.wrapped.clone())));
        wrapped.shops.retain(|shop, _| !destroyed.contains(shop));
        storage.replace(&wrapped.text())?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.shops.extend(added);
        known.shops.retain(|shop, _| !destroyed.contains(shop));
        Ok(())
    }
}

impl Known {
    fn wrapped(&self) -> Result<WrappedKeys, StoreError> {
        let shops = self.shops.iter().map(|(shop, key)| (shop.clone(), key.wrapped.clone())).collect();
        let store = Some(wrap(&self.master, None, &self.store)?);
        Ok(WrappedKeys { master: Some(self.master.id()), store, shops, ..WrappedKeys::default() })
    }
}

impl Queue {
    /// Notes the outcome of all calls up to one.
    fn serve(&mut self, calls: u64, written: Result<(), StoreError>) {
        if let Err(error) = written {
            self.failed.push((self.served + 1..=calls, error));
            if self.failed.len() > FAILURES_KEPT {
                self.failed.remove(0);
            }
        }
        self.served = calls;
    }

    fn outcome(&self, call: u64) -> Result<(), StoreError> {
        let failed = self.failed.iter().find(|(calls, _)| calls.contains(&call));
        failed.map_or(Ok(()), |(_, error)| Err(error.clone()))
    }
}

impl ShopKeys for DataKeys {
    fn of_shop(&self, shop: &str) -> Result<Option<SealKey>, StoreError> {
        self.get(shop)
    }

    fn of_store(&self) -> SealKey {
        self.store_key()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::{DataKeys, precheck};
    use crate::store::StoreError;
    use crate::store::crypto::SealKey;
    use crate::store::engine::key_file::KeyStorage;

    fn open(at: &Path, master: u8, must_exist: bool) -> Result<DataKeys, StoreError> {
        DataKeys::open(KeyStorage::at(at), SealKey::new(&[master; 32]), at, must_exist)
    }

    fn key(of: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([of; 32])
    }

    #[test]
    fn a_key_that_is_destroyed_is_in_no_file_and_the_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let keys = open(at, 1, false).unwrap();
        let store = keys.store_key().id();
        keys.add(vec![("a".into(), key(7)), ("b".into(), key(8))]).unwrap();
        keys.destroy(vec!["a".into(), "unknown".into()]).unwrap();
        assert!(keys.get("a").unwrap().is_none());
        let reopened = open(at, 1, true).unwrap();
        assert!(reopened.get("a").unwrap().is_none());
        assert_eq!(reopened.get("b").unwrap().unwrap().id(), SealKey::new(&[8; 32]).id());
        assert_eq!(reopened.store_key().id(), store);
        for entry in std::fs::read_dir(at).unwrap() {
            assert!(!std::fs::read_to_string(entry.unwrap().path()).unwrap().contains("shop a "));
        }
        reopened.add(vec![("b".into(), key(9))]).unwrap();
        let text = std::fs::read_to_string(at.join("keys")).unwrap();
        assert_eq!(text.matches("shop b ").count(), 1, "one that is replaced is destroyed");
        reopened.retain(|_| Ok(false)).unwrap();
        assert!(open(at, 1, true).unwrap().get("b").unwrap().is_none());
    }

    #[test]
    fn after_a_change_of_the_master_key_the_old_one_opens_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let keys = open(at, 1, false).unwrap();
        keys.add(vec![("a".into(), key(7))]).unwrap();
        keys.rewrap(SealKey::new(&[2; 32])).unwrap();
        keys.add(vec![("b".into(), key(8))]).unwrap();
        let wrong = StoreError::WrongMasterKey { path: at.to_owned() };
        assert_eq!(open(at, 1, true).map(drop).unwrap_err(), wrong);
        assert_eq!(precheck(at, &SealKey::new(&[1; 32])), Err(wrong));
        let keys = open(at, 2, true).unwrap();
        for (shop, of) in [("a", 7), ("b", 8)] {
            assert_eq!(keys.get(shop).unwrap().unwrap().id(), SealKey::new(&[of; 32]).id());
        }
    }

    #[test]
    fn a_missing_file_is_damage_and_a_damaged_line_of_the_master_key_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert!(matches!(open(at, 1, true), Err(StoreError::Damaged { .. })));
        let keys = open(at, 1, false).unwrap();
        keys.add(vec![("a".into(), key(7))]).unwrap();
        let text = std::fs::read_to_string(at.join("keys")).unwrap();
        std::fs::write(at.join("keys"), text.replace("form 1", "form 7")).unwrap();
        assert_eq!(open(at, 2, true).map(drop).unwrap_err(), StoreError::WrongMasterKey { path: at.to_owned() });
        assert!(open(at, 1, true).unwrap().get("a").unwrap().is_some());
        std::fs::write(at.join("keys"), "nothing\n").unwrap();
        assert!(matches!(precheck(at, &SealKey::new(&[1; 32])), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn calls_of_many_threads_are_all_written() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Arc::new(open(directory.path(), 1, false).unwrap());
        let threads: Vec<_> = (0..32_u8)
            .map(|number| {
                let keys = Arc::clone(&keys);
                std::thread::spawn(move || {
                    let shop = format!("shop{number}");
                    keys.add(vec![(shop.as_str().into(), key(number))]).unwrap();
                    if number % 2 == 0 {
                        keys.destroy(vec![shop.as_str().into()]).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let again = open(directory.path(), 1, true).unwrap();
        for number in 0..32 {
            assert_eq!(again.get(&format!("shop{number}")).unwrap().is_some(), number % 2 == 1, "{number}");
        }
    }
}
