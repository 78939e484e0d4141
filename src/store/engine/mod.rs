//! The lowest layer: an ordered map of bytes with durable, atomic batches, and all that sled needs to be one.
//!
//! Only files in here know sled. What is above sees [`kv::Kv`]: `get`, `scan`, `apply`.

pub(crate) mod checked_line;
#[cfg(test)]
pub(crate) mod churn;
pub(crate) mod collect;
pub(crate) mod data_keys;
pub(crate) mod disk_space;
pub(crate) mod format;
pub(crate) mod integrity;
pub(crate) mod key_file;
pub(crate) mod kv;
pub(crate) mod large_values;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod sled;
pub(crate) mod wal;
pub(crate) mod watermark;
pub(crate) mod write_ahead;
