//! What the sink has lost of a shop's resource (`M`).

use crate::domain::{ShopId, SinkLoss};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// A shop's resource with a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossOf {
    pub shop: ShopId,
    pub resource: String,
    pub loss: SinkLoss,
}

/// Sets it, or with None removes it.
pub(crate) fn put(tx: &mut Tx<'_>, shop: &str, resource: &str, loss: Option<SinkLoss>) -> Result<(), StoreError> {
    let key = keyspace::sink_loss(shop, resource);
    match loss {
        Some(loss) => tx.put(key, encode("a loss of the sink", &loss)?),
        None => tx.delete(key),
    }
    Ok(())
}

impl Store {
    /// What the sink has lost of a shop's resource; none: nothing that is known.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn sink_loss(&self, shop: &str, resource: &str) -> Result<Option<SinkLoss>, StoreError> {
        let bytes = self.0.kv.get(&keyspace::sink_loss(shop, resource))?;
        bytes.map(|bytes| decode("a loss of the sink", &bytes)).transpose()
    }

    /// All losses, by shop and resource.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn sink_losses(&self) -> Result<Vec<LossOf>, StoreError> {
        let mut found = Vec::new();
        for pair in self.0.kv.scan(keyspace::SINK_LOSSES, keyspace::SINK_LOSSES) {
            let (key, bytes) = pair?;
            if let Some((shop, resource)) = keyspace::shop_and_resource(&key) {
                found.push(LossOf { shop, resource, loss: decode("a loss of the sink", &bytes)? });
            }
        }
        Ok(found)
    }
}
