//! By which definition of each resource this store last worked (`mdefinition.`): a digest of it.

use crate::store::codec::number;
use crate::store::error::StoreError;
use crate::store::tx::handle::Store;

fn key(resource: &str) -> Vec<u8> {
    [b"mdefinition.", resource.as_bytes()].concat()
}

impl Store {
    /// The recorded digest of a resource's definition; none: an older build did not record it, or the resource is new.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn definition_digest(&self, resource: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.0.kv.get(&key(resource))?.map(|bytes| number(Some(bytes))))
    }

    /// Records the digest of a resource's definition.
    ///
    /// # Errors
    /// The engine's errors; then nothing is recorded.
    pub async fn store_definition_digest(&self, resource: &str, digest: u64) -> Result<(), StoreError> {
        let key = key(resource);
        self.transact(move |tx| {
            tx.put(key, digest.to_be_bytes().to_vec());
            Ok(())
        })
        .await
    }
}
