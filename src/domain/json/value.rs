//! A JSON value that borrows its texts.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::number::Number;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    /// Sorted by key, by bytes; no key twice.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// The array index that a pointer token names: `0` is the first element, `-1` the last. None: not an index, or out of
/// range.
pub fn element_at(token: &[u8], length: usize) -> Option<usize> {
    let (digits, from_end) = token.strip_prefix(b"-").map_or((token, false), |digits| (digits, true));
    // `+1` and `01` are keys, not indexes.
    if !digits.iter().all(u8::is_ascii_digit) || digits.len() > 1 && digits.first() == Some(&b'0') {
        return None;
    }
    let number: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let index = if from_end { length.checked_sub(number).filter(|_| number > 0)? } else { number };
    (index < length).then_some(index)
}

impl<'a> Json<'a> {
    /// The value at a JSON pointer; the empty pointer is the value itself. Beyond the standard, `-1` is the last element
    /// of an array.
    pub fn pointer(&self, pointer: &str) -> Option<&Json<'a>> {
        // By bytes: this runs for each column of each document.
        let (mut rest, mut value) = (pointer.as_bytes(), self);
        while let [b'/', tail @ ..] = rest {
            let end = tail.iter().position(|byte| *byte == b'/').unwrap_or(tail.len());
            let (token, next) = tail.split_at(end);
            value = value.child(token)?;
            rest = next;
        }
        Some(value)
    }

    fn child(&self, token: &[u8]) -> Option<&Json<'a>> {
        match self {
            Json::Object(_) if token.contains(&b'~') => {
                self.member(std::str::from_utf8(token).ok()?.replace("~1", "/").replace("~0", "~").as_bytes())
            }
            Json::Object(_) => self.member(token),
            Json::Array(elements) => elements.get(element_at(token, elements.len())?),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => None,
        }
    }

    fn member(&self, key: &[u8]) -> Option<&Json<'a>> {
        let Json::Object(members) = self else { return None };
        let found = members.binary_search_by(|(known, _)| known.as_bytes().cmp(key)).ok()?;
        members.get(found).map(|(_, value)| value)
    }

    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.member(key.as_bytes())
    }

    /// Writes a canonical form, equal only for equal content: a letter for the kind, lengths, texts as they are.
    /// Digests are taken of it; it is never stored.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        let length = |out: &mut Vec<u8>, kind: u8, length: usize| {
            out.push(kind);
            out.extend((length as u64).to_be_bytes());
        };
        match self {
            Json::Null => out.push(b'n'),
            Json::Bool(flag) => out.push(if *flag { b't' } else { b'f' }),
            Json::Number(number) => {
                let text = number.canonical();
                length(out, b'#', text.len());
                out.extend_from_slice(text.as_bytes());
            }
            Json::Text(text) => {
                length(out, b's', text.len());
                out.extend_from_slice(text.as_bytes());
            }
            Json::Array(elements) => {
                length(out, b'[', elements.len());
                elements.iter().for_each(|element| element.write_canonical(out));
            }
            Json::Object(members) => {
                length(out, b'{', members.len());
                for (key, value) in members {
                    length(out, b's', key.len());
                    out.extend_from_slice(key.as_bytes());
                    value.write_canonical(out);
                }
            }
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Compact, with sorted keys.
impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(flag) => serializer.serialize_bool(*flag),
            Json::Number(number) => number.serialize(serializer),
            Json::Text(text) => serializer.serialize_str(text),
            Json::Array(elements) => elements.serialize(serializer),
            Json::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn a_pointer_counts_elements_from_either_end() {
        let value = Json::parse(br#"{"data":[{"id":"a"},{"id":"b"},{"id":"c"}],"-1":7}"#).unwrap();
        for (pointer, id) in [("/data/0/id", "a"), ("/data/2/id", "c"), ("/data/-1/id", "c"), ("/data/-3/id", "a")] {
            assert_eq!(value.pointer(pointer).and_then(Json::as_str), Some(id), "{pointer}");
        }
        for absent in
            ["/data/3/id", "/data/-4/id", "/data/-0/id", "/data/+1/id", "/data/01/id", "/data/-/id", "/data/-1x"]
        {
            assert_eq!(value.pointer(absent), None, "{absent}");
        }
        assert!(value.pointer("/-1").is_some(), "in an object it is a key");
    }

    #[test]
    fn pointers_find_what_serde_json_finds() {
        let text = r#"{"b":[{"x":1},{"x":"é\n"}],"a~/":{"":true},"n":1.5}"#;
        let (ours, theirs) =
            (Json::parse(text.as_bytes()).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        for pointer in ["", "/b/0/x", "/b/1/x", "/b/2", "/a~0~1/", "/n", "/b/x", "/n/0", "/none"] {
            let expected = theirs.pointer(pointer).map(|value| serde_json::to_string(value).unwrap());
            assert_eq!(ours.pointer(pointer).map(|value| serde_json::to_string(value).unwrap()), expected, "{pointer}");
        }
    }
}
