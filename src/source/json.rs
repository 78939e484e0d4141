//! JSON as the API sends it: cut into its parts, read, and digested. Pure; called by [`super::pages`].

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::domain::Json;
use crate::domain::json::{JsonError, Reading, without_mark};

use super::problem::SourceError;
use super::problem::clean;

/// Parses a whole body or row.
///
/// # Errors
/// [`SourceError::Malformed`] with the place, never with the content.
pub(super) fn parse(text: &[u8]) -> Result<Json<'_>, SourceError> {
    read(text).map(|reading| reading.value)
}

/// The same, with what was tolerated.
///
/// # Errors
/// As [`parse`].
pub(super) fn read(text: &[u8]) -> Result<Reading<'_>, SourceError> {
    Json::read(text).map_err(|error: JsonError| SourceError::Malformed { detail: error.to_string() })
}

/// The members of an object in the order they came, each as received; `None` if it is no object. Of equal keys the
/// last counts.
///
/// # Errors
/// [`SourceError::Malformed`].
pub(super) fn members(text: &[u8]) -> Result<Option<Vec<(String, &RawValue)>>, SourceError> {
    struct Members<'a>(Vec<(String, &'a RawValue)>);
    struct MembersVisitor;
    impl<'de> Visitor<'de> for MembersVisitor {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut members: Vec<(String, &'de RawValue)> = Vec::new();
            while let Some((key, value)) = access.next_entry::<&RawValue, &RawValue>()? {
                let key = Json::parse(key.get().as_bytes()).map_err(A::Error::custom)?;
                members.push((key.as_str().unwrap_or_default().to_owned(), value));
            }
            let mut seen = BTreeSet::new();
            let is_last: Vec<bool> = members.iter().rev().map(|(key, _)| seen.insert(key.as_str())).collect();
            let mut is_last = is_last.into_iter().rev();
            members.retain(|_| is_last.next().unwrap_or(true));
            Ok(members)
        }
    }
    impl<'de> Deserialize<'de> for Members<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(MembersVisitor).map(Members)
        }
    }
    let (text, _) = without_mark(text);
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return serde_json::from_slice(text).map(|Members(members)| Some(members)).map_err(|error| malformed(&error));
    }
    // Something else than an object: sound JSON or not decides which error it is.
    parse(text).map(|_| None)
}

/// The elements of an array, each as received; `None` if it is no array.
///
/// # Errors
/// [`SourceError::Malformed`].
pub(super) fn elements(array: &RawValue) -> Result<Option<Vec<&RawValue>>, SourceError> {
    if !array.get().starts_with('[') {
        return Ok(None);
    }
    serde_json::from_str(array.get()).map(Some).map_err(|error| malformed(&error))
}

thread_local! {
    static CANONICAL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A digest of the content: the first 8 bytes, big end first, of SHA-256 over [`Json::write_canonical`].
/// Independent of key order, white space and escapes; kept in the ledger and in the sink, so it must
/// not change between releases.
pub(super) fn hash(value: &Json<'_>) -> u64 {
    let digest = CANONICAL.with_borrow_mut(|canonical| {
        canonical.clear();
        value.write_canonical(canonical);
        Sha256::digest(&canonical)
    });
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

fn malformed(error: &serde_json::Error) -> SourceError {
    // The parser's own text may quote what it read; its place and kind do not.
    let kind = if error.is_eof() { "it ends too early" } else { "it is not JSON" };
    SourceError::Malformed { detail: clean(&format!("{kind} (line {}, column {})", error.line(), error.column())) }
}

#[cfg(test)]
mod tests {
    use super::{elements, hash, members, parse};
    use crate::source::SourceError;

    #[test]
    fn what_is_no_json_is_malformed() {
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
    fn very_many_members_keep_their_order_and_cost_no_more_than_their_bytes() {
        let keys: Vec<String> = (0..200_000).map(|n| format!("k{}", n * 7_919 % 200_000)).collect();
        let body: Vec<String> = keys.iter().map(|key| format!(r#""{key}":1"#)).collect();
        let (body, begun) = (format!("{{{}}}", body.join(",")), std::time::Instant::now());
        let found = members(body.as_bytes()).unwrap().unwrap();
        // One after the other against all before it takes minutes here.
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(found.iter().map(|(key, _)| key).eq(&keys));
    }

    #[test]
    fn members_are_taken_as_tolerant_readers_take_them() {
        let found = members("\u{feff} {\"a\":1,\"b\":2,\"\\u0061\":3,\"\\ud800\":4}".as_bytes()).unwrap().unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
        assert_eq!(found, [("b", "2"), ("a", "3"), ("\u{fffd}", "4")]);
    }

    #[test]
    fn errors_do_not_quote_what_was_read() {
        let error = members(br#"{"name": "Jansen" 1}"#).unwrap_err().to_string();
        assert!(!error.contains("Jansen") && !error.contains("name"), "{error}");
    }

    #[test]
    fn the_hash_looks_at_content_only_and_never_changes() {
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
        // As releases before kept them.
        assert_eq!(of(r#"{"id":7,"price":12.50,"big":18446744073709551615}"#), 0xe1c6_9b9e_c48e_b153);
        // The first 8 bytes of SHA-256 over `{` and eight zero bytes.
        assert_eq!(of("{}"), 0x5a35_90fb_e3ff_bfe0);
    }

    #[test]
    fn parts_keep_their_bytes() {
        let body = br#" {"a" : [ {"x": 1.50} , 7 ], "b":null}"#;
        let members = members(body).unwrap().unwrap();
        let rows = elements(members[0].1).unwrap().unwrap();
        assert_eq!(rows.iter().map(|row| row.get()).collect::<Vec<_>>(), [r#"{"x": 1.50}"#, "7"]);
        assert!(elements(members[1].1).unwrap().is_none());
        assert!(super::members(b"[1]").unwrap().is_none());
        assert!(super::members(b"[1").is_err());
    }
}
