//! Checkpoints (`k`): how far a stream is known to be complete.

use crate::domain::{Checkpoint, StreamId};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

pub(crate) fn checkpoint(tx: &Tx<'_>, stream: &StreamId) -> Result<Checkpoint, StoreError> {
    Ok(tx
        .get(&keyspace::checkpoint(stream))?
        .map(|bytes| decode("a checkpoint", &bytes))
        .transpose()?
        .unwrap_or_default())
}

impl Store {
    /// A stream's durable progress.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn checkpoint(&self, stream: &StreamId) -> Result<Checkpoint, StoreError> {
        let bytes = self.0.kv.get(&keyspace::checkpoint(stream))?;
        Ok(bytes.map(|bytes| decode("a checkpoint", &bytes)).transpose()?.unwrap_or_default())
    }
}
