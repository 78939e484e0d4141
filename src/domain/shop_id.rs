//! The names of shops.
//!
//! A [`ShopId`] is random and opaque: 12 letters and digits. Not a sequence number, which would reveal how many shops
//! there are. Streams, jobs, queues and the health of thousands of shops hold it, so a clone shares its text. It
//! dereferences to `str`, and compares, hashes and is stored as one: a look-up needs only the text.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// The name of a shop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(from = "String")]
pub struct ShopId(Arc<str>);

impl ShopId {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ShopId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ShopId {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for ShopId {
    fn from(id: &str) -> ShopId {
        ShopId(id.into())
    }
}

impl From<String> for ShopId {
    fn from(id: String) -> ShopId {
        ShopId(id.into())
    }
}

impl From<Cow<'_, str>> for ShopId {
    fn from(id: Cow<'_, str>) -> ShopId {
        ShopId(id.into())
    }
}

impl PartialEq<str> for ShopId {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<&str> for ShopId {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Display for ShopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl Serialize for ShopId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::ShopId;

    #[test]
    fn it_is_found_by_its_text_and_stored_as_it() {
        let id = ShopId::from("a1B2c3D4e5F6");
        assert_eq!(BTreeMap::from([(id.clone(), 1)]).get("a1B2c3D4e5F6"), Some(&1));
        assert_eq!(HashMap::from([(id.clone(), 1)]).get("a1B2c3D4e5F6"), Some(&1));
        assert_eq!((format!("{id:>14}"), id.to_string()), ("  a1B2c3D4e5F6".to_owned(), "a1B2c3D4e5F6".to_owned()));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"a1B2c3D4e5F6\"");
        assert_eq!(serde_json::from_str::<ShopId>("\"a1B2c3D4e5F6\"").unwrap(), id);
    }
}
