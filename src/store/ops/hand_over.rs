//! Hand-over: all that a store holds, in sealed parts, for the store of the process that goes on.
//!
//! Records are copied as they are, with the number of their format, so that a newer program carries them over when it
//! opens the store. What is secret in them is sealed by data keys, which go along, wrapped by the master key that both
//! processes have. Left out is what belongs to one data directory: its cursor key, its number of commits, its note of the
//! ownership. A store that took only some of the parts is damaged, and is made again from the sink.

use std::path::Path;

use zeroize::Zeroizing;

use crate::store::crypto::SealKey;
use crate::store::engine::format::{self, FORMAT, FORMAT_KEY};
use crate::store::engine::key_file::KeyStorage;
use crate::store::engine::kv::{Change, Kv};
use crate::store::engine::write_ahead::{Logged, TAKEN_OVER};
use crate::store::error::StoreError;
use crate::store::ops::open::{CURSOR_CONTEXT, CURSOR_KEY, lock, open_keys};
use crate::store::ops::restore::{BLANK, UNFINISHED};
use crate::store::ops::seal_texts;
use crate::store::records::ownership;
use crate::store::tx::counters;
use crate::store::tx::handle::Store;

/// Bytes of records in a part, before it is compressed: few enough for one statement of any server.
const PART_BYTES: usize = 512 * 1024;
/// Keys that are not copied as they are.
const OWN: [&[u8]; 8] =
    [DATA_KEYS, FORMAT_KEY, TAKEN_OVER, CURSOR_KEY, BLANK, UNFINISHED, ownership::KEY, counters::COUNTERS_KEY];

fn context(epoch: u64, part: usize) -> String {
    format!("hand-over {epoch} part {part}")
}

/// The data keys, which are in no record: the text of their file.
const DATA_KEYS: &[u8] = b"mkeys";

/// Sealed parts, with a head of the caller's in front.
pub struct Parts(pub Vec<Vec<u8>>);

impl Store {
    /// All records, and `head`, in sealed parts. Nothing may be committed meanwhile.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn export(&self, epoch: u64, head: &[u8]) -> Result<Parts, StoreError> {
        let inner = &self.0;
        let mut parts = vec![head.to_vec()];
        let mut part = Zeroizing::new(Vec::new());
        for key in [FORMAT_KEY, counters::COUNTERS_KEY] {
            add(&mut part, key, &inner.kv.get(key)?.unwrap_or_default());
        }
        add(&mut part, DATA_KEYS, inner.keys.text()?.as_bytes());
        for pair in inner.kv.scan(b"", b"") {
            let (key, value) = pair?;
            if OWN.contains(&key.as_slice()) {
                continue;
            }
            if part.len() >= PART_BYTES {
                parts.push(std::mem::take(&mut *part));
            }
            add(&mut part, &key, &value);
        }
        parts.push(std::mem::take(&mut *part));
        // The number of parts is in the head's context: a part that is missing at the end is noticed.
        let sealed = parts.iter().enumerate().map(|(at, part)| {
            let number = if at == 0 { parts.len() } else { at };
            let context = if at == 0 { format!("{} head", context(epoch, number)) } else { context(epoch, number) };
            inner.keys.master().seal_document(&context, part)
        });
        sealed.collect::<Result<Vec<_>, _>>().map(Parts)
    }
}

/// Takes the parts into the blank store in `directory`, which no process has open; returns the head.
///
/// # Errors
/// [`StoreError::Sealed`]: parts of another hand-over, or another master key; [`StoreError::NewerFormat`]. Nothing was
/// changed then. The engine's errors.
pub fn import(directory: &Path, master: &[u8; 32], epoch: u64, parts: &Parts) -> Result<Vec<u8>, StoreError> {
    let master = SealKey::new(master);
    let mut opened = Vec::with_capacity(parts.0.len());
    for (at, part) in parts.0.iter().enumerate() {
        let context = if at == 0 { format!("{} head", context(epoch, parts.0.len())) } else { context(epoch, at) };
        opened.push(Zeroizing::new(master.open_document(&context, part)?));
    }
    let mut opened = opened.into_iter().peekable();
    let missing = || StoreError::Sealed { context: context(epoch, 0) };
    let head = opened.next().ok_or_else(missing)?.to_vec();
    let kv = Logged::open(directory, lock(directory)?)?;
    if kv.get(BLANK)?.is_none() {
        return Err(StoreError::Engine("a hand-over needs a blank store".to_owned()));
    }
    let first = opened.peek().and_then(|part| records(part)).ok_or_else(missing)?;
    let found = format::of(first.iter().find(|(key, _)| key == FORMAT_KEY).and_then(|(_, format)| format.as_deref()));
    if let Some(found) = found.filter(|found| *found > FORMAT) {
        return Err(StoreError::NewerFormat { path: directory.to_owned(), found });
    }
    // An earlier version may have left texts in clear; one of now leaves its mark.
    kv.apply(&[(UNFINISHED.to_vec(), Some(Vec::new())), seal_texts::unmark()])?;
    for part in opened {
        let mut changes = records(&part).ok_or_else(missing)?;
        if let Some(at) = changes.iter().position(|(key, _)| key == DATA_KEYS) {
            let (_, keys) = changes.swap_remove(at);
            take_keys(&kv, directory, &master, &keys.unwrap_or_default())?;
        }
        for (key, value) in &mut changes {
            if key.as_slice() == counters::COUNTERS_KEY
                && let Some(theirs) = value
            {
                *theirs = counters::of_hand_over(&kv, theirs)?;
            }
        }
        kv.reserve(&changes)?;
        kv.apply(&changes)?;
    }
    kv.apply(&[(BLANK.to_vec(), None), (UNFINISHED.to_vec(), None)])?;
    Ok(head)
}

/// Takes the data keys over. The store's own key is among them, so what it sealed here is sealed again.
fn take_keys(kv: &dyn Kv, directory: &Path, master: &SealKey, keys: &[u8]) -> Result<(), StoreError> {
    let open = || open_keys(kv, KeyStorage::at(directory), master.clone(), directory);
    let sealed = kv.get(CURSOR_KEY)?.unwrap_or_default();
    let cursor_key = open()?.store_key().open(CURSOR_CONTEXT, &sealed)?;
    KeyStorage::at(directory).replace(&String::from_utf8_lossy(keys))?;
    let sealed = open()?.store_key().seal(CURSOR_CONTEXT, &cursor_key)?;
    kv.apply(&[(CURSOR_KEY.to_vec(), Some(sealed))])
}

fn add(part: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for bytes in [key, value] {
        part.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        part.extend_from_slice(bytes);
    }
}

fn records(mut part: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !part.is_empty() {
        let mut next = || {
            let (length, rest) = part.split_first_chunk::<4>()?;
            let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            part = rest;
            Some(bytes.to_vec())
        };
        let (key, value) = (next()?, next()?);
        changes.push((key, Some(value)));
    }
    Some(changes)
}
