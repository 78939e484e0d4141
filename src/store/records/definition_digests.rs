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

    /// Records the digests of definitions by resource, in one commit; without any, none.
    ///
    /// # Errors
    /// The engine's errors; then nothing is recorded.
    pub async fn store_definition_digests(&self, digests: Vec<(String, u64)>) -> Result<(), StoreError> {
        if digests.is_empty() {
            return Ok(());
        }
        self.transact(move |tx| {
            for (resource, digest) in digests {
                tx.put(key(&resource), digest.to_be_bytes().to_vec());
            }
            Ok(())
        })
        .await
    }
}
