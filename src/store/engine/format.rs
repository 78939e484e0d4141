//! The number of the stored format, which keeps older programs out.

use crate::store::engine::kv::{Change, Kv};
use crate::store::error::StoreError;

/// Rises when the layout of keys or records changes so that older programs could not read it.
/// 2: commits are in a write-ahead log before they are in the engine (`write_ahead`).
pub(crate) const FORMAT: u32 = 2;

pub(crate) const FORMAT_KEY: &[u8] = b"mformat";

/// The format of this program, as a store holds it.
pub(crate) fn format() -> Change {
    (FORMAT_KEY.to_vec(), Some(FORMAT.to_be_bytes().to_vec()))
}

/// Whether a store was made over this engine.
pub(crate) fn has_format(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.get(FORMAT_KEY)?.is_some())
}
