//! Texts for people within records: errors and reasons. They may quote an answer, so they are sealed with the data key of
//! their shop before they reach the engine, and go with it. Of a shop whose key cannot be used they are sealed with the
//! key of the store, since they say what is wrong.
//!
//! A sealed text is a control character, a version and base64. What the store hands out is opened. A transaction leaves
//! the texts of the records that it changes sealed, which costs nothing, and moves them between records of one shop. A
//! text that an earlier version stored is in clear; it stays readable, and `ops::seal_texts` seals it when the store opens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::domain::{Parked, Run, Shop, StreamStatus, Unproved};
use crate::store::codec;
use crate::store::crypto::SealKey;
use crate::store::error::StoreError;

/// What a sealed text begins with: no text of ours has a control character.
const SEALED: &str = "\u{1}1:";

/// The same, sealed with the key of the store: the shop's own cannot be used, and the text may say so.
const SEALED_BY_STORE: &str = "\u{1}2:";

/// In the place of a text whose key is gone or damaged.
const UNREADABLE: &str = "(this text was sealed with a key of its shop that is gone)";

/// The data keys.
pub(crate) trait ShopKeys: Send + Sync {
    /// The key of a shop; none: it has none.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] or [`StoreError::Record`] for a damaged one.
    fn of_shop(&self, shop: &str) -> Result<Option<SealKey>, StoreError>;

    /// The key of what belongs to no shop.
    fn of_store(&self) -> SealKey;
}

/// A record with texts for people.
pub(crate) trait Texts: Clone + Serialize {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String));

    /// Whether it has any: most records have none, and cost nothing.
    fn has_texts(&self) -> bool;
}

/// A record as it is stored.
pub(crate) fn encode<T: Texts>(keys: &dyn ShopKeys, shop: &str, what: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    if !record.has_texts() {
        return codec::encode(what, record);
    }
    let mut sealed = record.clone();
    if !is_clear(&mut sealed) {
        return codec::encode(what, record);
    }
    seal_all(keys, shop, &mut sealed)?;
    codec::encode(what, &sealed)
}

/// Seals the texts of a record that are in clear.
fn seal_all<T: Texts>(keys: &dyn ShopKeys, shop: &str, record: &mut T) -> Result<(), StoreError> {
    let (key, begin) = match key_of(keys, shop)? {
        Some(key) => (key, SEALED),
        None => (keys.of_store(), SEALED_BY_STORE),
    };
    let mut result = Ok(());
    record.each_text(&mut |text| {
        if is_to_seal(text) {
            match key.seal(&context(shop), text.as_bytes()) {
                Ok(sealed) => *text = format!("{begin}{}", STANDARD.encode(sealed)),
                Err(error) => result = Err(error),
            }
        }
    });
    result
}

/// A stored record with its texts in clear.
pub(crate) fn open<T: Texts>(keys: &dyn ShopKeys, shop: &str, mut record: T) -> Result<T, StoreError> {
    if record.has_texts() {
        let key = key_of(keys, shop)?;
        record.each_text(&mut |text| {
            let opened = match (text.strip_prefix(SEALED), text.strip_prefix(SEALED_BY_STORE)) {
                (Some(sealed), _) => key.as_ref().and_then(|key| open_text(key, shop, sealed)),
                (_, Some(sealed)) => open_text(&keys.of_store(), shop, sealed),
                (None, None) => return,
            };
            *text = opened.unwrap_or_else(|| UNREADABLE.to_owned());
        });
    }
    Ok(record)
}

/// Whether a record has a text in clear.
fn is_clear<T: Texts>(record: &mut T) -> bool {
    let mut is_clear = false;
    record.each_text(&mut |text| is_clear |= is_to_seal(text));
    is_clear
}

fn is_to_seal(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(SEALED) && !text.starts_with(SEALED_BY_STORE) && text != UNREADABLE
}

/// The key of a shop, if it can be used.
fn key_of(keys: &dyn ShopKeys, shop: &str) -> Result<Option<SealKey>, StoreError> {
    match keys.of_shop(shop) {
        Err(StoreError::Sealed { .. } | StoreError::Record { .. }) => Ok(None),
        found => found,
    }
}

fn context(shop: &str) -> String {
    format!("text|{shop}")
}

fn open_text(key: &SealKey, shop: &str, sealed: &str) -> Option<String> {
    let opened = key.open(&context(shop), &STANDARD.decode(sealed).ok()?).ok()?;
    Some(String::from_utf8_lossy(&opened).into_owned())
}

impl Texts for Run {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.error.iter_mut().for_each(&mut *visit);
        self.doubts.iter_mut().for_each(|doubt| visit(&mut doubt.reason));
    }

    fn has_texts(&self) -> bool {
        self.error.is_some() || !self.doubts.is_empty()
    }
}

impl Texts for StreamStatus {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.last_error.iter_mut().for_each(|error| visit(&mut error.text));
        let troubles = [&mut self.list_trouble, &mut self.detail_trouble, &mut self.write_trouble];
        troubles.into_iter().flatten().for_each(|trouble| visit(&mut trouble.cause.text));
    }

    fn has_texts(&self) -> bool {
        self.last_error.is_some() || self.troubles().next().is_some()
    }
}

impl Texts for Unproved {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.reason);
    }

    fn has_texts(&self) -> bool {
        true
    }
}

impl Texts for Parked {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.reason);
    }

    fn has_texts(&self) -> bool {
        true
    }
}

impl Texts for Shop {
    fn each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        self.reason.iter_mut().for_each(visit);
    }

    fn has_texts(&self) -> bool {
        self.reason.is_some()
    }
}

/// The keys of no shop, for tests of what has none.
#[cfg(test)]
pub(crate) struct NoKeys;

#[cfg(test)]
impl ShopKeys for NoKeys {
    fn of_shop(&self, _: &str) -> Result<Option<SealKey>, StoreError> {
        Ok(None)
    }

    fn of_store(&self) -> SealKey {
        SealKey::new(&[0; 32])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{SEALED, SEALED_BY_STORE, ShopKeys, UNREADABLE, encode, is_clear, open};
    use crate::domain::{Timestamp, Unproved};
    use crate::store::codec::decode;
    use crate::store::crypto::SealKey;
    use crate::store::error::StoreError;

    impl ShopKeys for HashMap<&str, SealKey> {
        fn of_shop(&self, shop: &str) -> Result<Option<SealKey>, StoreError> {
            match shop {
                "damaged" => Err(StoreError::Sealed { context: shop.to_owned() }),
                _ => Ok(self.get(shop).cloned()),
            }
        }

        fn of_store(&self) -> SealKey {
            SealKey::new(&[9; 32])
        }
    }

    fn doubt(reason: &str) -> Unproved {
        Unproved { reason: reason.to_owned(), class: None, since: Timestamp::EPOCH, vanished_at: None }
    }

    fn stored(keys: &dyn ShopKeys, shop: &str, record: &Unproved) -> Unproved {
        decode("a doubt", &encode(keys, shop, "a doubt", record).unwrap()).unwrap()
    }

    #[test]
    fn a_text_is_sealed_for_its_shop_and_opened_with_its_key_only() {
        let keys = HashMap::from([("a", SealKey::new(&[1; 32])), ("b", SealKey::new(&[1; 32]))]);
        let mut sealed = stored(&keys, "a", &doubt("the host said so"));
        assert!(sealed.reason.starts_with(SEALED) && !sealed.reason.contains("host") && !is_clear(&mut sealed));
        assert_eq!(stored(&keys, "a", &sealed), sealed, "it stays sealed as it is");
        assert_eq!(open(&keys, "a", sealed.clone()).unwrap(), doubt("the host said so"));
        for other in ["b", "gone", "damaged"] {
            assert_eq!(open(&keys, other, sealed.clone()).unwrap(), doubt(UNREADABLE));
        }
        assert_eq!(stored(&keys, "a", &doubt(UNREADABLE)), doubt(UNREADABLE));
    }

    #[test]
    fn the_reason_why_a_key_cannot_be_used_stays_readable() {
        let mut keys = HashMap::from([("a", SealKey::new(&[1; 32]))]);
        for shop in ["gone", "damaged"] {
            let mut sealed = stored(&keys, shop, &doubt("its key is damaged"));
            assert!(sealed.reason.starts_with(SEALED_BY_STORE) && !sealed.reason.contains("key"));
            assert!(!is_clear(&mut sealed));
            assert_eq!(open(&keys, shop, sealed.clone()).unwrap(), doubt("its key is damaged"));
            assert_eq!(open(&keys, "a", sealed.clone()).unwrap(), doubt(UNREADABLE), "it is bound to its shop");
            // A new key does not hide it.
            keys.insert("gone", SealKey::new(&[2; 32]));
            assert_eq!(open(&keys, shop, sealed).unwrap(), doubt("its key is damaged"));
        }
    }

    #[test]
    fn a_text_of_an_earlier_version_stays_readable() {
        let keys = HashMap::from([("a", SealKey::new(&[1; 32]))]);
        let mut old = doubt("page 2: no total");
        assert!(is_clear(&mut old) && !is_clear(&mut doubt("")) && !is_clear(&mut doubt(UNREADABLE)));
        assert_eq!(open(&keys, "a", old.clone()).unwrap(), old);
    }
}
