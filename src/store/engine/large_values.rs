//! Large values in parts. The engine writes a page that does not fit a segment of its log to a file of its own,
//! which it never syncs: a power cut could lose it although the log that names it is there. So no value is ever
//! so large: it becomes a head under its key and parts under keys of theirs, in one batch.
//!
//! Called by `kv`, which shows the whole value again to everybody.

use crate::store::error::StoreError;

/// A page of the engine holds up to 17 values and spills at 128 KiB: smaller values never make it spill.
pub(crate) const PART_BYTES: usize = 7_000;
/// No key of ours begins so.
const PREFIX: u8 = 0xff;
/// Begins a head; 16 bytes that no record of ours begins with (JSON, lengths and sealed bytes do not).
const MAGIC: [u8; 16] = *b"\xffwaybill parts\xff\x01";

/// What a head says: how many parts there are, and the tag in their keys. A value that takes another's place has
/// another tag, so a reader never mixes parts of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) tag: u64,
    count: u32,
}

impl Head {
    /// The head of a value of `bytes` bytes.
    pub(crate) fn new(tag: u64, bytes: usize) -> Head {
        Head { tag, count: u32::try_from(bytes.div_ceil(PART_BYTES)).unwrap_or(u32::MAX) }
    }

    /// The head that is stored; None: what is stored is a value.
    pub(crate) fn read(stored: &[u8]) -> Option<Head> {
        let (tag, count) = stored.strip_prefix(&MAGIC)?.split_first_chunk::<8>()?;
        Some(Head { tag: u64::from_be_bytes(*tag), count: u32::from_be_bytes(count.try_into().ok()?) })
    }

    /// As it is stored.
    pub(crate) fn bytes(self) -> Vec<u8> {
        [MAGIC.as_slice(), &self.tag.to_be_bytes(), &self.count.to_be_bytes()].concat()
    }

    /// The keys of its parts, in order.
    pub(crate) fn keys(self, of: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..self.count).map(move |part| [&[PREFIX], of, &self.tag.to_be_bytes(), &part.to_be_bytes()].concat())
    }

    /// The whole value; None: a part is not there.
    ///
    /// # Errors
    /// What reading a part brings.
    pub(crate) fn join(
        self,
        of: &[u8],
        part: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut whole = Vec::new();
        for key in self.keys(of) {
            let Some(part) = part(&key)? else { return Ok(None) };
            whole.extend(part);
        }
        Ok(Some(whole))
    }
}

/// Whether a value must be stored in parts: it is large, or looks like a head.
pub(crate) fn must_split(value: &[u8]) -> bool {
    value.len() > PART_BYTES || value.starts_with(&MAGIC)
}
