//! The key-value seam: what the store needs of an engine.
//!
//! Implemented by sled (`sled`), by the same behind a write-ahead log (`write_ahead`), and in memory for tests.

use crate::store::error::StoreError;

/// One change to one key.
pub(crate) type Change = (Vec<u8>, Option<Vec<u8>>);

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Keys and values in the order of the keys.
pub(crate) type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, StoreError>> + 'a>;

/// An ordered map of bytes with durable, atomic batches.
pub(crate) trait Kv: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// The engine's read errors.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// All pairs from `from` on (inclusive) whose key begins with `prefix`, ascending.
    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a>;

    /// The same, descending, from below `before` (exclusive).
    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a>;

    /// Makes room for a batch: allocates blocks, and has the engine take over the write-ahead log when that is full.
    /// Called before [`Kv::apply`], which must not run out of room.
    ///
    /// # Errors
    /// [`StoreError::Full`]: not now; nothing of this batch is written.
    fn reserve(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Applies all changes or none, and returns when they are on the disk.
    ///
    /// # Errors
    /// After an error nothing is known about the batch: the process must stop and open the store again.
    fn apply(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Looks at the next `limit` keys from `from` on for damage. Where to go on.
    ///
    /// # Errors
    /// As [`crate::store::engine::integrity::look`].
    fn look(&self, from: &[u8], limit: usize) -> Result<LookFrom, StoreError>;

    /// Bytes on disk.
    fn size(&self) -> u64;
}

/// Where to go on; None: that was all.
pub(crate) type LookFrom = Option<Vec<u8>>;
