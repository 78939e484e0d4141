//! The number of the stored format, which keeps older programs out.

use crate::store::engine::kv::{Change, Kv};
use crate::store::error::StoreError;

/// Rises when the layout of keys or records changes so that older programs could not read it.
/// 2: commits are in a write-ahead log before they are in the engine (`write_ahead`).
/// 3: data keys are in a file of their own (`data_keys`).
pub(crate) const FORMAT: u32 = KEYS_APART;

/// The first format with a write-ahead log.
const WITH_LOG: u32 = 2;

/// The first format whose data keys are not in the engine.
pub(crate) const KEYS_APART: u32 = 3;

pub(crate) const FORMAT_KEY: &[u8] = b"mformat";

/// The format of this program, as a store holds it.
pub(crate) fn format() -> Change {
    (FORMAT_KEY.to_vec(), Some(FORMAT.to_be_bytes().to_vec()))
}

/// What keeps programs without a write-ahead log out of a store that they could open; None: they cannot, or there is none.
pub(crate) fn with_log(kv: &dyn Kv) -> Result<Option<Change>, StoreError> {
    let is_older = number(kv)?.is_some_and(|found| found < WITH_LOG);
    Ok(is_older.then(|| (FORMAT_KEY.to_vec(), Some(WITH_LOG.to_be_bytes().to_vec()))))
}

/// The format of a store; None: there is no store yet.
pub(crate) fn number(kv: &dyn Kv) -> Result<Option<u32>, StoreError> {
    Ok(of(kv.get(FORMAT_KEY)?.as_deref()))
}

/// The format that a record of it says; None: there is no record.
pub(crate) fn of(stored: Option<&[u8]>) -> Option<u32> {
    stored.map(|format| format.try_into().map(u32::from_be_bytes).unwrap_or(u32::MAX))
}

/// Whether a store was made over this engine.
pub(crate) fn has_format(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.get(FORMAT_KEY)?.is_some())
}
