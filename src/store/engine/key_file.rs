//! The file of the wrapped data keys, as text: how it is read, appended to and replaced.
//!
//! Its lines: a notice; `form 1, master ID, sum S`, where ID names the master key; `store KEY, sum S`; and for each shop
//! `shop ID KEY, sum S`. A KEY is wrapped and in base64. The last line of a shop counts. A line that is damaged concerns
//! the key in it alone: the next replacement leaves it out.
//!
//! A line that is appended is durable before its key is used. A key is destroyed by a replacement: written beside the
//! file, synced, and renamed over it. A kill at any instant leaves the old text or the new one, or a last line without its end,
//! whose key was not used.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::ShopId;
use crate::store::engine::checked_line::{line, trusted};
#[cfg(test)]
use crate::store::engine::kv::Kv;
use crate::store::error::StoreError;

const NAME: &str = "keys";
/// Extension of a replacement that is being written.
const FRESH: &str = "new";
const TEXT: &str = "Data keys of waybill, wrapped by its master key. Leave this file where it is.\n";
const FORM: &str = "form 1, master ";

/// The wrapped keys of a file.
#[derive(Default)]
pub(crate) struct WrappedKeys {
    /// The name of the master key; None: its line is damaged.
    pub(crate) master: Option<String>,
    pub(crate) store: Option<Vec<u8>>,
    pub(crate) shops: BTreeMap<ShopId, Vec<u8>>,
    /// Lines that cannot be read.
    pub(crate) damaged: usize,
    /// It holds what a replacement would leave out, or lacks an end.
    pub(crate) is_untidy: bool,
}

impl WrappedKeys {
    pub(crate) fn read(text: &str) -> WrappedKeys {
        let mut keys = WrappedKeys { is_untidy: !text.ends_with('\n'), ..WrappedKeys::default() };
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        for found in whole.lines().skip(1) {
            if trusted(found).and_then(|said| keys.add(said)).is_none() {
                keys.damaged += 1;
            }
        }
        keys.is_untidy |= keys.damaged > 0 || keys.master.is_none() || keys.store.is_none();
        keys
    }

    fn add(&mut self, said: &str) -> Option<()> {
        if let Some(master) = said.strip_prefix(FORM) {
            self.master = Some(master.to_owned());
        } else if let Some(key) = said.strip_prefix("store ") {
            self.store = Some(STANDARD.decode(key).ok()?);
        } else {
            let (id, key) = said.strip_prefix("shop ")?.split_once(' ')?;
            self.is_untidy |= self.shops.insert(id.into(), STANDARD.decode(key).ok()?).is_some();
        }
        Some(())
    }

    /// The whole text.
    pub(crate) fn text(&self) -> String {
        let mut text = TEXT.to_owned();
        text.push_str(&line(&format!("{FORM}{}", self.master.as_deref().unwrap_or_default())));
        if let Some(store) = &self.store {
            text.push_str(&line(&format!("store {}", STANDARD.encode(store))));
        }
        self.shops.iter().for_each(|(shop, key)| text.push_str(&shop_line(shop, key)));
        text
    }
}

/// The line of a shop's key.
pub(crate) fn shop_line(shop: &str, wrapped: &[u8]) -> String {
    let mut said = format!("shop {shop} ");
    // Writing into a text does not fail.
    write!(said, "{}", STANDARD.encode(wrapped)).ok();
    line(&said)
}

/// Where the text is kept.
pub(crate) enum KeyStorage {
    File(KeyFile),
    /// In the engine, for stores in memory.
    #[cfg(test)]
    Memory(Arc<dyn Kv>),
}

/// Where a store in memory keeps the text.
#[cfg(test)]
const MEMORY_KEY: &[u8] = b"mkeys";

impl KeyStorage {
    /// The file of a data directory; it may be missing.
    pub(crate) fn at(directory: &Path) -> KeyStorage {
        KeyStorage::File(KeyFile { path: directory.join(NAME), open: None })
    }

    /// Removes what a kill during a replacement left.
    ///
    /// # Errors
    /// The system's errors.
    pub(crate) fn clean(&self) -> Result<(), StoreError> {
        match self {
            KeyStorage::File(file) => remove(&file.path.with_extension(FRESH)),
            #[cfg(test)]
            KeyStorage::Memory(_) => Ok(()),
        }
    }

    /// The text. None: there is none yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> Result<Option<String>, StoreError> {
        match self {
            KeyStorage::File(file) => file.read(),
            #[cfg(test)]
            KeyStorage::Memory(kv) => Ok(kv.get(MEMORY_KEY)?.map(|text| String::from_utf8_lossy(&text).into_owned())),
        }
    }

    /// Adds to the text, durably. False: it must be replaced instead.
    ///
    /// # Errors
    /// The system's errors; what is on the disk is unknown then, and the next write replaces all of it.
    pub(crate) fn append(&mut self, text: &str) -> Result<bool, StoreError> {
        match self {
            KeyStorage::File(file) => file.append(text),
            #[cfg(test)]
            KeyStorage::Memory(_) => Ok(false),
        }
    }

    /// Replaces the text as a whole, durably.
    ///
    /// # Errors
    /// The system's errors.
    pub(crate) fn replace(&mut self, text: &str) -> Result<(), StoreError> {
        match self {
            KeyStorage::File(file) => file.replace(text),
            #[cfg(test)]
            KeyStorage::Memory(kv) => kv.apply(&[(MEMORY_KEY.to_vec(), Some(text.as_bytes().to_vec()))]),
        }
    }
}

/// The file in the data directory.
pub(crate) struct KeyFile {
    path: PathBuf,
    /// None: before the first replacement, and after a write that failed.
    open: Option<OpenFile>,
}

struct OpenFile {
    file: File,
    length: u64,
}

impl KeyFile {
    fn read(&self) -> Result<Option<String>, StoreError> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // Damaged bytes may be no UTF-8; such a line fails its checksum.
            text => text
                .map(|text| Some(String::from_utf8_lossy(&text).into_owned()))
                .map_err(|error| StoreError::io(&self.path, error)),
        }
    }

    fn append(&mut self, text: &str) -> Result<bool, StoreError> {
        let Some(OpenFile { file, length }) = self.open.take() else { return Ok(false) };
        let written = file.write_all_at(text.as_bytes(), length).and_then(|()| file.sync_data());
        written.map_err(|error| StoreError::io(&self.path, error))?;
        self.open = Some(OpenFile { file, length: length + text.len() as u64 });
        Ok(true)
    }

    fn replace(&mut self, text: &str) -> Result<(), StoreError> {
        self.open = None;
        let (fresh, folder) = (self.path.with_extension(FRESH), self.path.parent().unwrap_or(Path::new(".")));
        let replaced =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&fresh).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                fs::rename(&fresh, &self.path)?;
                File::open(folder)?.sync_all()?;
                Ok(file)
            });
        let file = replaced.map_err(|error| StoreError::io(&self.path, error))?;
        self.open = Some(OpenFile { file, length: text.len() as u64 });
        Ok(())
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(path, error)),
        _ => Ok(()),
    }
}

/// Moves the file of a damaged store aside, to what else of it is there.
///
/// # Errors
/// It cannot be moved.
pub(crate) fn set_aside(directory: &Path, aside: &Path) -> Result<(), StoreError> {
    let path = directory.join(NAME);
    match fs::rename(&path, aside.join(NAME)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StoreError::io(&path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyStorage, WrappedKeys, shop_line};

    fn keys() -> WrappedKeys {
        let shops = [("a", vec![1; 73]), ("b", vec![2; 73])];
        WrappedKeys {
            master: Some("0011223344556677".to_owned()),
            store: Some(vec![3; 73]),
            shops: shops.map(|(id, key)| (id.into(), key)).into(),
            ..WrappedKeys::default()
        }
    }

    #[test]
    fn a_damaged_line_costs_its_own_key_and_a_line_without_an_end_does_not_count() {
        let text = keys().text();
        let whole = WrappedKeys::read(&text);
        assert_eq!((whole.shops.len(), whole.damaged, whole.is_untidy), (2, 0, false));
        assert_eq!(whole.text(), text);
        let (mut costs, notice) = ([0; 3], text.find('\n').unwrap() + 1);
        for at in notice..text.len() {
            let mut rotten = text.clone().into_bytes();
            rotten[at] ^= 1;
            let read = WrappedKeys::read(&String::from_utf8_lossy(&rotten));
            assert!(read.is_untidy, "byte {at}");
            let lost = usize::from(read.master.is_none()) + usize::from(read.store.is_none()) + 2 - read.shops.len();
            costs[lost.min(2)] += 1;
        }
        // A line's end that is gone damages the line after it too, and the last one only ends the file.
        assert!(costs[1] > 300 && costs[2] <= 3 && costs[0] == 0, "{costs:?}");
        for cut in 1..shop_line("b", &[2; 73]).len() {
            let torn = WrappedKeys::read(text.get(..text.len() - cut).unwrap());
            assert_eq!((torn.shops.len(), torn.damaged, torn.is_untidy), (1, 0, true), "{cut}");
        }
    }

    #[test]
    fn the_last_line_of_a_shop_counts() {
        let text = keys().text() + &shop_line("a", &[9; 73]);
        let read = WrappedKeys::read(&text);
        assert_eq!((read.shops["a"][0], read.is_untidy), (9, true));
    }

    #[test]
    fn what_is_appended_and_replaced_is_in_the_file_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let mut storage = KeyStorage::at(directory.path());
        assert_eq!(storage.read().unwrap(), None);
        assert!(!storage.append("first\n").unwrap(), "there is nothing to add to");
        storage.replace("first\n").unwrap();
        assert!(storage.append("second\n").unwrap());
        assert_eq!(storage.read().unwrap().unwrap(), "first\nsecond\n");
        std::fs::write(directory.path().join("keys.new"), "half").unwrap();
        let again = KeyStorage::at(directory.path());
        again.clean().unwrap();
        again.clean().unwrap();
        assert_eq!(again.read().unwrap().unwrap(), "first\nsecond\n");
        let mode = std::fs::metadata(directory.path().join("keys")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["keys"], "nothing is left beside it");
    }
}
