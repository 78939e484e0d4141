//! Sealing at rest: XChaCha20-Poly1305, a data key per shop, all data keys under one master key.
//!
//! A sealed value is `version | nonce | ciphertext and tag`, bound to a context (what it is and whose)
//! that must be given again to open it, so that values cannot be swapped. Destroying a shop's data key
//! makes everything of that shop unreadable at once. Nonces are random: with 24 bytes they do not meet.
//!
//! Contexts of form 2 come from [`context`]. Those of form 1, texts joined by `|`, are still opened.

use std::cell::RefCell;
use std::hash::Hasher as _;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;
use zeroize::Zeroizing;

use crate::store::error::StoreError;

thread_local! {
    static TABLE: RefCell<CompressTable> = RefCell::new(CompressTable::default());
}

const VERSION: u8 = 1;
const INDEX_CONTEXT: &[u8] = b"waybill: index of the archive";
const NONCE_BYTES: usize = 24;
/// Larger than any document that the source accepts; guards against a forged length.
const OPENED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A key that seals and opens.
#[derive(Clone)]
pub struct SealKey(XChaCha20Poly1305, IndexKey);

/// The key of the digests by which an index finds values that it must not show.
#[derive(Clone)]
struct IndexKey([u8; 16]);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(..)")
    }
}

impl SealKey {
    /// A key of 32 bytes.
    pub fn new(bytes: &[u8; 32]) -> SealKey {
        let digest = Sha256::new_with_prefix(INDEX_CONTEXT).chain_update(bytes).finalize();
        let index = digest.first_chunk().copied().unwrap_or_default();
        SealKey(XChaCha20Poly1305::new(&Key::from(*bytes)), IndexKey(index))
    }

    /// A digest of a value that only this key makes, and that does not show the value. Of two values it may be the same.
    pub(crate) fn index_digest(&self, place: u8, value: &str) -> u64 {
        let mut digest = SipHasher24::new_with_key(&self.1.0);
        digest.write(&[place]);
        digest.write(value.as_bytes());
        digest.finish()
    }

    /// Names the key without revealing it: two keys have one name by a chance of 2^-64. The tag of an empty message under
    /// a nonce that no sealed value has, as nonces are random.
    pub fn id(&self) -> String {
        let empty = Payload { msg: &[], aad: b"waybill key id" };
        let tag = self.0.encrypt(&XNonce::from([0; NONCE_BYTES]), empty).unwrap_or_default();
        tag.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Seals `plain`; `context` must be the same when opening.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: context.as_bytes() })
            .map_err(|_| StoreError::Sealed { context: context.to_owned() })?;
        let mut out = Vec::with_capacity(1 + NONCE_BYTES + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`SealKey::seal`] made.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] for another key, another context or a changed bit.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let wrong = || StoreError::Sealed { context: context.to_owned() };
        let rest = sealed.strip_prefix(&[VERSION]).ok_or_else(wrong)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(wrong)?;
        let payload = Payload { msg: text, aad: context.as_bytes() };
        self.0.decrypt(&XNonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| wrong())
    }

    /// Seals a document: compressed first, since sealed bytes do not compress.
    ///
    /// # Errors
    /// As [`SealKey::seal`].
    pub fn seal_document(&self, context: &str, body: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut compressed = vec![0; 4 + get_maximum_output_size(body.len())];
        let (length, rest) = compressed.split_at_mut(4);
        let too_long = |_| StoreError::Sealed { context: context.to_owned() };
        length.copy_from_slice(&u32::try_from(body.len()).map_err(too_long)?.to_le_bytes());
        // The table is as large as some documents: making one for each would cost more than compressing.
        let written = TABLE.with_borrow_mut(|table| compress_into_with_table(body, rest, table));
        let written = written.map_err(|_| StoreError::Sealed { context: context.to_owned() })?;
        compressed.truncate(4 + written);
        self.seal(context, &compressed)
    }

    /// Opens what [`SealKey::seal_document`] made.
    ///
    /// # Errors
    /// As [`SealKey::open`].
    pub fn open_document(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let wrong = || StoreError::Sealed { context: context.to_owned() };
        let compressed = self.open(context, sealed)?;
        let (length, _) = compressed.split_first_chunk::<4>().ok_or_else(wrong)?;
        if u32::from_le_bytes(*length) as usize > OPENED_BYTES_MAX {
            return Err(wrong());
        }
        lz4_flex::decompress_size_prepended(&compressed).map_err(|_| wrong())
    }
}

/// Fills a buffer with random bytes.
pub(super) fn random(buffer: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(buffer).map_err(|error| StoreError::Engine(format!("no random bytes from the system: {error}")))
}

/// A random 32-byte key.
pub(super) fn random_key() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut key = Zeroizing::new([0; 32]);
    random(&mut *key)?;
    Ok(key)
}

/// `length` random letters and digits that cannot be mistaken for one another.
pub(super) fn random_text(length: usize) -> Result<String, StoreError> {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut bytes = vec![0; length];
    random(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// The context of what is sealed: its kind, and all that it belongs to. Other parts give another text, wherever they
/// hold which characters.
pub(crate) fn context(kind: &str, parts: &[&str]) -> String {
    let texts = ["waybill 2", kind].into_iter().chain(parts.iter().copied());
    serde_json::Value::from_iter(texts).to_string()
}

/// What a document is sealed for; the same in the outbox and in the archive.
pub(crate) fn document_context(shop: &str, resource: &str, id: &str) -> String {
    format!("document|{shop}|{resource}|{id}")
}

#[cfg(test)]
mod tests {
    use super::{OPENED_BYTES_MAX, SealKey, context, random_key, random_text};

    #[test]
    fn a_context_and_the_name_of_a_key_are_those_of_no_other() {
        let (one, other) = (SealKey::new(&[7; 32]), SealKey::new(&[8; 32]));
        assert_eq!((one.id(), one.id().len()), (SealKey::new(&[7; 32]).id(), 16));
        assert_ne!(one.id(), other.id());
        assert_eq!(context("token", &["a", "b"]), r#"["waybill 2","token","a","b"]"#);
        assert_ne!(context("token", &["a\",\"b"]), context("token", &["a", "b"]));
    }

    #[test]
    fn opens_only_with_the_same_key_and_context_and_every_bit_intact() {
        let key = SealKey::new(&[7; 32]);
        let sealed = key.seal_document("document|shop|1", b"{\"name\":\"Jansen\"}").unwrap();
        assert_eq!(key.open_document("document|shop|1", &sealed).unwrap(), b"{\"name\":\"Jansen\"}");
        assert!(key.open_document("document|shop|2", &sealed).is_err());
        assert!(SealKey::new(&[8; 32]).open_document("document|shop|1", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open_document("document|shop|1", &changed).is_err(), "bit {bit}");
        }
        assert!(key.open("x", b"").is_err());
    }

    #[test]
    fn a_document_of_the_largest_size_comes_back_and_a_key_shows_nothing() {
        let key = SealKey::new(&[7; 32]);
        // Four times what the source takes by default.
        let large: Vec<u8> = (0..32 * 1024 * 1024_u32).map(|at| at.to_le_bytes()[0]).collect();
        let sealed = key.seal_document("c", &large).unwrap();
        assert!(key.open_document("c", &sealed).unwrap() == large);
        assert_eq!(format!("{key:?}"), "SealKey(..)");
    }

    #[test]
    fn a_forged_length_is_no_document() {
        let key = SealKey::new(&[7; 32]);
        let mut forged = lz4_flex::compress_prepend_size(b"{}");
        let sealed = key.seal("c", &forged).unwrap();
        assert_eq!(key.open_document("c", &sealed).unwrap(), b"{}");
        forged[..4].copy_from_slice(&(OPENED_BYTES_MAX as u32 + 1).to_le_bytes());
        assert!(key.open_document("c", &key.seal("c", &forged).unwrap()).is_err());
        assert_eq!(OPENED_BYTES_MAX, 67_108_864);
    }

    #[test]
    fn what_is_random_is() {
        assert!(*random_key().unwrap() != *random_key().unwrap());
        let text = random_text(1000).unwrap();
        let letters: std::collections::BTreeSet<char> = text.chars().collect();
        assert_eq!((text.len(), letters.len()), (1000, 32), "{text}");
    }
}
