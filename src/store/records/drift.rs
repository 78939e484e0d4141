//! Schema drift (`f`): the fields of documents that no column takes, one small record a resource, kept over restarts.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;

const WHAT: &str = "what no column takes";

impl Store {
    /// The stored drift of a resource.
    ///
    /// # Errors
    /// The engine's read errors, or a record of another form.
    pub fn drift<T: DeserializeOwned>(&self, resource: &str) -> Result<Option<T>, StoreError> {
        let bytes = self.0.kv.get(&keyspace::drift(resource))?;
        bytes.map(|bytes| decode(WHAT, &bytes)).transpose()
    }

    /// Stores the drift of a resource.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_drift<T: Serialize>(&self, resource: &str, drift: &T) -> Result<(), StoreError> {
        let (key, record) = (keyspace::drift(resource), encode(WHAT, drift)?);
        self.transact(move |tx| {
            tx.put(key, record);
            Ok(())
        })
        .await
    }
}
