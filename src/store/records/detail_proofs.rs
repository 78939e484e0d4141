//! Whether the detail call of a shop's resource works (`G`): only then is a document that is "not found" gone.

use crate::domain::DetailProof;
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::transaction::Tx;

/// The record; None: no such call was settled yet.
pub(crate) fn read(tx: &Tx<'_>, shop: &str, resource: &str) -> Result<Option<DetailProof>, StoreError> {
    let bytes = tx.get(&keyspace::detail_proof(shop, resource))?;
    bytes.map(|bytes| decode("a detail call's proof", &bytes)).transpose()
}

/// Stores it.
pub(crate) fn put(tx: &mut Tx<'_>, shop: &str, resource: &str, proof: &DetailProof) -> Result<(), StoreError> {
    tx.put(keyspace::detail_proof(shop, resource), encode("a detail call's proof", proof)?);
    Ok(())
}

/// Notes how the call is defined now, when a walk begins: reads that were parked for a wrong definition are tried again.
pub(crate) fn note_endpoint(tx: &mut Tx<'_>, shop: &str, resource: &str, endpoint: u64) -> Result<(), StoreError> {
    match read(tx, shop, resource)? {
        Some(known) if known.endpoint != endpoint => put(tx, shop, resource, &known.for_endpoint(endpoint)),
        _ => Ok(()),
    }
}
