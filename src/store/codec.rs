//! How records become bytes: JSON, or JSON with a sealed part behind it; numbers big-endian.
//!
//! Called by every record. A record that does not decode is an error that names it, never a panic.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::error::StoreError;

/// Small records are JSON: readable with any tool, and added fields do no harm.
pub(crate) fn encode<T: Serialize>(what: &str, record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Record { what: what.to_owned(), detail: error.to_string() })
}

/// A record with a sealed part: length of the head, head as JSON, sealed bytes.
pub(crate) fn encode_with<T: Serialize>(what: &str, head: &T, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
    let head = encode(what, head)?;
    let length = u32::try_from(head.len())
        .map_err(|_| StoreError::Record { what: what.to_owned(), detail: "its head is too long".to_owned() })?;
    let mut out = Vec::with_capacity(4 + head.len() + sealed.len());
    out.extend(length.to_le_bytes());
    out.extend(head);
    out.extend_from_slice(sealed);
    Ok(out)
}

pub(crate) fn decode_with<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<(T, Vec<u8>), StoreError> {
    let cut = || StoreError::Record { what: what.to_owned(), detail: "it is cut off".to_owned() };
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
    let (head, sealed) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
    Ok((decode(what, head)?, sealed.to_vec()))
}

pub(crate) fn number(bytes: Option<Vec<u8>>) -> u64 {
    bytes.and_then(|bytes| bytes.as_slice().try_into().ok().map(u64::from_be_bytes)).unwrap_or(0)
}
