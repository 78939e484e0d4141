//! Parses JSON as the API sends it, and digests it. Pure; called by `pages`.

use std::cell::RefCell;

use sha2::{Digest, Sha256};

use crate::domain::Json;
use crate::domain::json::{JsonError, Reading};

use super::problem::SourceError;

/// Parses a whole body or row.
///
/// # Errors
/// [`SourceError::Malformed`] with the position, never with the content.
pub(super) fn parse(text: &[u8]) -> Result<Json<'_>, SourceError> {
    read(text).map(|reading| reading.value)
}

/// Parses, and reports what was tolerated.
///
/// # Errors
/// As [`parse`].
pub(super) fn read(text: &[u8]) -> Result<Reading<'_>, SourceError> {
    Json::read(text).map_err(|error: JsonError| SourceError::Malformed { detail: error.to_string() })
}

thread_local! {
    static CANONICAL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A digest of the content: the first 8 bytes, big end first, of SHA-256 over [`Json::write_canonical`].
/// Independent of key order, white space and escapes; stored in the ledger and in the sink, so it must
/// not change between releases.
pub(super) fn hash(value: &Json<'_>) -> u64 {
    let digest = CANONICAL.with_borrow_mut(|canonical| {
        canonical.clear();
        value.write_canonical(canonical);
        Sha256::digest(&canonical)
    });
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::{hash, parse};
    use crate::source::SourceError;

    #[test]
    fn invalid_json_is_malformed() {
        let bad: [&[u8]; 8] = [
            b"",
            b"<html>",
            b"{\"a\":1",
            b"{\"a\":NaN}",
            b"{\"a\":1e999}",
            b"{\"a\":\"\xff\"}",
            b"{} {}",
            b"{\"a\":\"\x01\"}",
        ];
        for text in bad {
            assert!(matches!(parse(text), Err(SourceError::Malformed { .. })), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn the_hash_depends_on_content_only_and_never_changes() {
        let of = |text: &str| hash(&parse(text.as_bytes()).unwrap());
        assert_eq!(
            of(r#"{"b":[1,2],"a":{"y":"\u00e9","x":null}}"#),
            of("{ \"a\": {\"x\":null,\n\"y\":\"é\"}, \"b\":[1,2] }")
        );
        assert_ne!(of(r#"{"a":[1,2]}"#), of(r#"{"a":[2,1]}"#));
        assert_ne!(of(r#"{"a":1}"#), of(r#"{"a":"1"}"#));
        assert_ne!(of(r#"["ab","c"]"#), of(r#"["a","bc"]"#));
        assert_ne!(of("[[],1]"), of("[[1]]"));
        assert_ne!(of("9400110200881234567890"), of("9400110200881234567891"));
        // As earlier releases stored it.
        assert_eq!(of(r#"{"id":7,"price":12.50,"big":18446744073709551615}"#), 0xe1c6_9b9e_c48e_b153);
        // The first 8 bytes of SHA-256 over `{` and eight zero bytes.
        assert_eq!(of("{}"), 0x5a35_90fb_e3ff_bfe0);
    }
}
