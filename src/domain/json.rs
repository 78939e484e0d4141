//! JSON read without copying: texts borrow from the bytes they were read from.
//!
//! Documents are read twice on their way (when they come, and when they are laid out in columns), so
//! this is a hot path: about a third of the cost of an owned tree. Objects are sorted by key and hold no
//! key twice, because then two readers of one document could see two different values. Called by the
//! source for bodies and by [`crate::catalog::extract`] for columns.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Number;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    /// Sorted by key, by bytes; no key twice.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a whole text. Depth is bounded by the parser (128).
    ///
    /// # Errors
    /// Not JSON, a key twice in one object, or a number or text that cannot be held.
    pub fn parse(text: &'a [u8]) -> serde_json::Result<Json<'a>> {
        // One look at the whole is much cheaper than the parser's look at each text.
        let text = std::str::from_utf8(text).map_err(|_| serde_json::Error::custom("it is not UTF-8"))?;
        serde_json::from_str(text)
    }

    /// The value at a JSON pointer; the empty pointer is the value itself.
    pub fn pointer(&self, pointer: &str) -> Option<&Json<'a>> {
        // By bytes: asked for each column of each document.
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
            Json::Array(elements) => elements.get(std::str::from_utf8(token).ok()?.parse::<usize>().ok()?),
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

    /// Writes the content in a form that is the same for equal content and different for any other: a
    /// letter for the kind, lengths, texts as they are. Digests are taken of it; it is kept nowhere.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        let length = |out: &mut Vec<u8>, kind: u8, length: usize| {
            out.push(kind);
            out.extend((length as u64).to_be_bytes());
        };
        match self {
            Json::Null => out.push(b'n'),
            Json::Bool(flag) => out.push(if *flag { b't' } else { b'f' }),
            Json::Number(number) => {
                let text = number.to_string();
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

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json<'de>, E> {
        Number::from_f64(number).map(Json::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Json::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        while let Some((Key(key), value)) = access.next_entry::<Key<'de>, Json<'de>>()? {
            members.push((key, value));
        }
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if members.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other)) {
            return Err(A::Error::custom("a key stands twice in one object"));
        }
        Ok(Json::Object(members))
    }
}

/// A key that borrows where it can.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn pointers_find_what_serde_json_finds() {
        let text = r#"{"b":[{"x":1},{"x":"é\n"}],"a~/":{"":true},"n":1.50}"#;
        let (ours, theirs) =
            (Json::parse(text.as_bytes()).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        for pointer in ["", "/b/0/x", "/b/1/x", "/b/2", "/a~0~1/", "/n", "/b/x", "/n/0", "/none"] {
            let expected = theirs.pointer(pointer).map(|value| serde_json::to_string(value).unwrap());
            assert_eq!(ours.pointer(pointer).map(|value| serde_json::to_string(value).unwrap()), expected, "{pointer}");
        }
    }

    #[test]
    fn a_key_twice_is_refused_however_it_is_written() {
        assert!(Json::parse(br#"{"a":1,"b":2,"\u0061":3}"#).is_err());
        assert!(Json::parse(br#"[{"a":{"k":1,"k":1}}]"#).is_err());
    }
}
