//! Pagination cursors: opaque and signed.
//!
//! A cursor holds the list, a digest of its filters and the last key of the previous page. The signature, with a key of
//! this installation, prevents forged cursors; a cursor used with other filters is rejected instead of giving a wrong
//! page. Its content is not secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest, Sha256};

/// Length of the truncated signature: 128 bits.
const TAG_BYTES: usize = 16;
/// Longest cursor that is decoded: it holds two ids of at most 128 characters.
const TEXT_BYTES_MAX: usize = 2048;

/// Encodes and decodes the cursors of one installation.
#[derive(Clone)]
pub(super) struct Cursors {
    /// Holds the key; cloned for each signature.
    keyed: Hmac<Sha256>,
}

/// The cursor is forged, or belongs to another list or other filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidCursor;

impl Cursors {
    pub(super) fn new(key: [u8; 32]) -> Cursors {
        // HMAC pads short keys with zeros to the block length.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(&key);
        Cursors { keyed: Hmac::new(&block.into()) }
    }

    /// The cursor after `last` in the list `of` with these filters, in any order.
    pub(super) fn encode(&self, of: &str, filters: &[(String, String)], last: &[&str]) -> String {
        let payload = serde_json::json!([of, digest(filters), last]).to_string();
        let tag = self.mac(payload.as_bytes()).finalize().into_bytes();
        let mut bytes = tag.iter().copied().take(TAG_BYTES).collect::<Vec<u8>>();
        bytes.extend_from_slice(payload.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The `last` that was given to [`Cursors::encode`].
    ///
    /// # Errors
    /// [`InvalidCursor`] unless key, list and filters are the same.
    pub(super) fn decode(
        &self,
        of: &str,
        filters: &[(String, String)],
        text: &str,
    ) -> Result<Vec<String>, InvalidCursor> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let (tag, payload) = bytes.split_at_checked(TAG_BYTES).ok_or(InvalidCursor)?;
        self.mac(payload).verify_truncated_left(tag).map_err(|_| InvalidCursor)?;
        let (made_for, made_with, last): (String, String, Vec<String>) =
            serde_json::from_slice(payload).map_err(|_| InvalidCursor)?;
        if made_for == of && made_with == digest(filters) { Ok(last) } else { Err(InvalidCursor) }
    }

    fn mac(&self, payload: &[u8]) -> Hmac<Sha256> {
        self.keyed.clone().chain_update(payload)
    }
}

/// Digest of the filters, independent of their order. Length prefixes tell `("a", "bc")` from `("ab", "c")`.
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

    use super::{Cursors, InvalidCursor};

    fn filters(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_cursor_is_valid_only_for_its_list_filters_and_key() {
        let cursors = Cursors::new([7; 32]);
        let with = filters(&[("shop", "a"), ("q", "x")]);
        let text = cursors.encode("orders", &with, &["a", "1"]);
        let turned = filters(&[("q", "x"), ("shop", "a")]);
        assert_eq!(cursors.decode("orders", &turned, &text), Ok(vec!["a".to_owned(), "1".to_owned()]));
        assert_eq!(cursors.decode("returns", &with, &text), Err(InvalidCursor));
        assert_eq!(cursors.decode("orders", &filters(&[("shop", "a")]), &text), Err(InvalidCursor));
        assert_eq!(Cursors::new([8; 32]).decode("orders", &with, &text), Err(InvalidCursor));
    }

    /// Cursors that clients hold must stay valid over an upgrade.
    #[test]
    fn the_bytes_of_a_cursor_never_change() {
        let with = filters(&[("shop", "a"), ("q", "x")]);
        let text = Cursors::new([7; 32]).encode("orders", &with, &["a", "1"]);
        assert_eq!(text, "tU5NlDMPa1ztwXiTYSPNKVsib3JkZXJzIiwiVzFOZHFTUEotVW5JcnplQiIsWyJhIiwiMSJdXQ");
    }

    proptest! {
        #[test]
        fn any_last_key_round_trips(shop in any::<String>(), id in any::<String>()) {
            let cursors = Cursors::new([1; 32]);
            let text = cursors.encode("orders", &[], &[&shop, &id]);
            if text.len() <= super::TEXT_BYTES_MAX {
                prop_assert_eq!(cursors.decode("orders", &[], &text), Ok(vec![shop, id]));
            }
        }

        #[test]
        fn a_cursor_with_a_changed_byte_is_invalid(at in any::<proptest::sample::Index>(), by in 1u8..=255) {
            let cursors = Cursors::new([1; 32]);
            let mut bytes = cursors.encode("orders", &[], &["shop", "id"]).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(cursors.decode("orders", &[], &text).is_err());
            }
        }
    }
}
