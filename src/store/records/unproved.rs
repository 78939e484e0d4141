//! Streams whose last walk could not prove that it saw the whole list (`D`), and why.

use crate::domain::{StreamId, Unproved};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::texts;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

const WHAT: &str = "a doubt";

/// The doubt; its reason is sealed.
pub(crate) fn read(tx: &Tx<'_>, stream: &StreamId) -> Result<Option<Unproved>, StoreError> {
    tx.get(&keyspace::doubt(stream))?.map(|bytes| decode(WHAT, &bytes)).transpose()
}

pub(crate) fn put(tx: &mut Tx<'_>, stream: &StreamId, doubt: &Unproved) -> Result<(), StoreError> {
    tx.put(keyspace::doubt(stream), texts::encode(tx.keys, &stream.shop, WHAT, doubt)?);
    Ok(())
}

/// Whether the last walk of a stream ended in doubt.
pub(crate) fn is_unproved(tx: &Tx<'_>, stream: &StreamId) -> Result<bool, StoreError> {
    Ok(tx.get(&keyspace::doubt(stream))?.is_some())
}

/// A full walk proved that it saw the whole list.
pub(crate) fn clear(tx: &mut Tx<'_>, stream: &StreamId) -> Result<(), StoreError> {
    if is_unproved(tx, stream)? {
        tx.delete(keyspace::doubt(stream));
    }
    Ok(())
}

impl Store {
    /// Why it is not known whether a stream's list was read whole; none: it was, or was never read.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn unproved(&self, stream: &StreamId) -> Result<Option<Unproved>, StoreError> {
        let doubt = self.0.kv.get(&keyspace::doubt(stream))?.map(|bytes| decode(WHAT, &bytes)).transpose()?;
        doubt.map(|doubt| texts::open(&*self.0.keys, &stream.shop, doubt)).transpose()
    }
}
