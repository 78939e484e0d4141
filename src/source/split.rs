//! Splits a page into its rows without parsing them, so that one bad row does not affect the others.
//!
//! Only brackets and strings are looked at. The caller parses each row: a `NaN`, invalid UTF-8 or a raw tab spoils only
//! the row that it is in. Truncated input and unbalanced brackets are errors. Pure; called by `pages`.

use super::problem::SourceError;
use crate::domain::Json;
use crate::domain::json::without_mark;

/// A member of an object: its key, and its value as received.
type Member<'a> = (String, &'a [u8]);

/// The members of an object in the order they came, each as received; `None` if it is not an object.
///
/// # Errors
/// [`SourceError::Malformed`] with the position, never with the content.
pub(super) fn members(text: &[u8]) -> Result<Option<Vec<Member<'_>>>, SourceError> {
    let mut scan = Scan::new(text);
    if scan.peek() != Some(b'{') {
        return Ok(None);
    }
    scan.at += 1;
    let mut members = Vec::new();
    if !scan.closes(b'}') {
        loop {
            scan.white();
            let key = scan.text()?;
            scan.expect(b':')?;
            members.push((self::key(key), scan.value()?));
            if scan.closes(b'}') {
                break;
            }
            scan.expect(b',')?;
        }
    }
    scan.end()?;
    Ok(Some(members))
}

/// The elements of an array, each as received; `None` if it is not an array.
///
/// # Errors
/// [`SourceError::Malformed`] with the position.
pub(super) fn elements(text: &[u8]) -> Result<Option<Vec<&[u8]>>, SourceError> {
    let mut scan = Scan::new(text);
    if scan.peek() != Some(b'[') {
        return Ok(None);
    }
    scan.at += 1;
    let mut elements = Vec::new();
    if !scan.closes(b']') {
        loop {
            elements.push(scan.value()?);
            if scan.closes(b']') {
                break;
            }
            scan.expect(b',')?;
        }
    }
    scan.end()?;
    Ok(Some(elements))
}

/// Unescapes a key.
fn key(raw: &[u8]) -> String {
    match Json::parse(raw) {
        Ok(Json::Text(key)) => key.into_owned(),
        _ => String::from_utf8_lossy(raw).trim_matches('"').to_owned(),
    }
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &'a [u8]) -> Scan<'a> {
        let at = text.len() - without_mark(text).0.len();
        Scan { text, at }
    }

    fn white(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.white();
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), SourceError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong());
        }
        self.at += 1;
        Ok(())
    }

    /// Consumes this bracket if it is next; returns whether it was.
    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    fn end(&mut self) -> Result<(), SourceError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.wrong()) }
    }

    fn since(&self, from: usize) -> &'a [u8] {
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// A string with its quotes, whatever bytes are in it.
    fn text(&mut self) -> Result<&'a [u8], SourceError> {
        let from = self.at;
        if self.text.get(from) != Some(&b'"') {
            return Err(self.wrong());
        }
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(self.since(from));
                }
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.wrong()),
            }
        }
    }

    fn value(&mut self) -> Result<&'a [u8], SourceError> {
        match self.peek() {
            Some(b'"') => self.text(),
            Some(b'{' | b'[') => self.nested(),
            _ => self.bare(),
        }
    }

    /// From a bracket to the one that closes it.
    fn nested(&mut self) -> Result<&'a [u8], SourceError> {
        let (from, mut closers) = (self.at, Vec::new());
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.text()?;
                    continue;
                }
                Some(b'{') => closers.push(b'}'),
                Some(b'[') => closers.push(b']'),
                Some(byte @ (b'}' | b']')) => {
                    if closers.pop() != Some(*byte) {
                        return Err(self.wrong());
                    }
                }
                Some(_) => {}
                None => return Err(self.wrong()),
            }
            self.at += 1;
            if closers.is_empty() {
                return Ok(self.since(from));
            }
        }
    }

    /// A number, a literal, or any other run of bytes.
    fn bare(&mut self) -> Result<&'a [u8], SourceError> {
        let from = self.at;
        let ends =
            |byte: &u8| matches!(byte, b',' | b']' | b'}' | b':' | b'"' | b'[' | b'{') || byte.is_ascii_whitespace();
        while self.text.get(self.at).is_some_and(|byte| !ends(byte)) {
            self.at += 1;
        }
        if self.at == from { Err(self.wrong()) } else { Ok(self.since(from)) }
    }

    fn wrong(&self) -> SourceError {
        let what = if self.at >= self.text.len() { "it ends too early" } else { "it is not JSON" };
        let read = self.text.get(..self.at.min(self.text.len())).unwrap_or_default();
        let line = read.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = read.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        SourceError::Malformed { detail: format!("{what} (line {line}, column {column})") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use serde_json::value::RawValue;

    use super::{elements, members};

    fn rows(text: &[u8]) -> Option<Vec<String>> {
        let rows = elements(text).ok()??;
        Some(rows.into_iter().map(|row| String::from_utf8_lossy(row).into_owned()).collect())
    }

    #[test]
    fn members_and_elements_are_returned_byte_for_byte() {
        let body = br#" {"a" : [ {"x": 1.50} , 7 ], "b":null, "\u0063":"}]"} "#;
        let found = members(body).unwrap().unwrap();
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(rows(found[0].1).unwrap(), [r#"{"x": 1.50}"#, "7"]);
        assert!(elements(found[1].1).unwrap().is_none());
        assert_eq!((found[1].1, found[2].1), (&b"null"[..], &br#""}]""#[..]));
        assert!(members(b"[1]").unwrap().is_none());
        assert_eq!(members(b"\xef\xbb\xbf{}").unwrap().unwrap().len(), 0, "a byte order mark is skipped");
    }

    #[test]
    fn a_bad_element_does_not_affect_its_neighbours() {
        for odd in [&b"NaN"[..], b"1e400", b"\"Andr\xff\"", b"\"a\tb\"", b"\"x\\ud83d\"", b"[[1 2]]", b"\"\\\"]\""] {
            let text = [b"[{\"n\":1},{\"n\":", odd, b"},{\"n\":3}]"].concat();
            let rows = rows(&text).unwrap();
            assert_eq!((rows.len(), rows[0].as_str(), rows[2].as_str()), (3, "{\"n\":1}", "{\"n\":3}"));
        }
    }

    #[test]
    fn truncated_or_unbalanced_input_is_an_error() {
        for broken in ["[", "[1", "[1,", "[1,]", "[,]", "[{]}", "[\"a]", "[\"a\\", "[1] 2", "[1 2]", "[{\"a\":1]"] {
            assert!(elements(broken.as_bytes()).is_err(), "{broken}");
        }
        for broken in ["{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{a:1}", "{\"a\" 1}", "{\"a\":1} x"] {
            assert!(members(broken.as_bytes()).is_err(), "{broken}");
        }
        let error = members(b"{\n\"Jansen\" 1}").unwrap_err().to_string();
        assert!(error.contains("line 2, column 10") && !error.contains("Jansen"), "{error}");
    }

    #[test]
    fn deep_nesting_and_many_members_take_linear_time() {
        let deep = format!("[{}{}]", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(elements(deep.as_bytes()).unwrap().unwrap().len(), 1);
        let many = format!("{{{}}}", (0..200_000).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","));
        assert_eq!(members(many.as_bytes()).unwrap().unwrap().len(), 200_000);
    }

    proptest! {
        #[test]
        fn valid_json_is_split_like_a_parser_does(values in proptest::collection::vec(any::<(String, i64)>(), 0..6)) {
            let text = serde_json::to_string_pretty(&values).unwrap();
            let theirs: Vec<Box<RawValue>> = serde_json::from_str(&text).unwrap();
            let theirs: Vec<&str> = theirs.iter().map(|value| value.get()).collect();
            prop_assert_eq!(rows(text.as_bytes()).unwrap(), theirs);
        }

        #[test]
        fn no_input_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            drop(elements(&text));
            drop(members(&text));
        }
    }
}
