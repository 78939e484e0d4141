//! Cursors: where the next page begins, opaque and signed.
//!
//! A cursor holds what it belongs to (the listing and a digest of its filters) and the last key of
//! the page before. It is signed with the installation's key, so that nobody can make one up, and a
//! cursor used with other filters is refused instead of giving a wrong page. Nothing in it is secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of the signature that are kept: 128 bits.
const TAG_BYTES: usize = 16;
/// A cursor holds two ids of at most 128 characters; longer ones were not made here.
const TEXT_BYTES_MAX: usize = 2048;
/// SHA-256 works on blocks of this many bytes.
const BLOCK_BYTES: usize = 64;

/// Signs and reads cursors of one installation.
#[derive(Clone)]
pub(super) struct Cursors {
    key: [u8; 32],
}

/// A cursor that was not made here, or was made for another listing or other filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign;

impl Cursors {
    pub(super) fn new(key: [u8; 32]) -> Cursors {
        Cursors { key }
    }

    /// The text of a cursor behind `last` in the listing `of` with these filters (in any order).
    pub(super) fn seal(&self, of: &str, filters: &[(String, String)], last: &[&str]) -> String {
        let payload = serde_json::json!([of, digest(filters), last]).to_string();
        let mut bytes = self.tag(payload.as_bytes()).to_vec();
        bytes.extend_from_slice(payload.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The `last` that [`Cursors::seal`] was given.
    ///
    /// # Errors
    /// [`Foreign`] unless key, listing and filters are the same.
    pub(super) fn open(&self, of: &str, filters: &[(String, String)], text: &str) -> Result<Vec<String>, Foreign> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Foreign);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Foreign)?;
        let (tag, payload) = bytes.split_at_checked(TAG_BYTES).ok_or(Foreign)?;
        if !bool::from(self.tag(payload).ct_eq(tag)) {
            return Err(Foreign);
        }
        let (made_for, made_with, last): (String, String, Vec<String>) =
            serde_json::from_slice(payload).map_err(|_| Foreign)?;
        if made_for == of && made_with == digest(filters) { Ok(last) } else { Err(Foreign) }
    }

    /// HMAC-SHA-256, cut.
    fn tag(&self, payload: &[u8]) -> [u8; TAG_BYTES] {
        let pad = |with: u8| {
            let mut block = [with; BLOCK_BYTES];
            for (byte, key) in block.iter_mut().zip(self.key) {
                *byte ^= key;
            }
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(payload).finalize();
        let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&outer[..TAG_BYTES]);
        tag
    }
}

/// Independent of the order of the filters. Lengths keep `("a", "bc")` and `("ab", "c")` apart.
fn digest(filters: &[(String, String)]) -> String {
    let mut sorted: Vec<&(String, String)> = filters.iter().collect();
    sorted.sort();
    let mut hash = Sha256::new();
    for (name, value) in sorted {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..12])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{Cursors, Foreign};

    fn filters(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_cursor_opens_only_where_it_was_made() {
        let cursors = Cursors::new([7; 32]);
        let with = filters(&[("shop", "a"), ("q", "x")]);
        let text = cursors.seal("orders", &with, &["a", "1"]);
        let turned = filters(&[("q", "x"), ("shop", "a")]);
        assert_eq!(cursors.open("orders", &turned, &text), Ok(vec!["a".to_owned(), "1".to_owned()]));
        assert_eq!(cursors.open("returns", &with, &text), Err(Foreign));
        assert_eq!(cursors.open("orders", &filters(&[("shop", "a")]), &text), Err(Foreign));
        assert_eq!(Cursors::new([8; 32]).open("orders", &with, &text), Err(Foreign));
    }

    proptest! {
        #[test]
        fn any_last_key_comes_back(shop in any::<String>(), id in any::<String>()) {
            let cursors = Cursors::new([1; 32]);
            let text = cursors.seal("orders", &[], &[&shop, &id]);
            if text.len() <= super::TEXT_BYTES_MAX {
                prop_assert_eq!(cursors.open("orders", &[], &text), Ok(vec![shop, id]));
            }
        }

        #[test]
        fn a_changed_byte_is_noticed(at in any::<proptest::sample::Index>(), by in 1u8..=255) {
            let cursors = Cursors::new([1; 32]);
            let mut bytes = cursors.seal("orders", &[], &["shop", "id"]).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(cursors.open("orders", &[], &text).is_err());
            }
        }
    }
}
