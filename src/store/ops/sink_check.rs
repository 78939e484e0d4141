//! What the sink should hold, for a check that it does, and what it was found to have lost.
//!
//! Called by the service at the start, when the sink is back after an outage, and after full walks.

use std::collections::HashSet;

use crate::domain::{ShopId, SinkLoss, StreamId};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::checkpoints;
use crate::store::records::ledger::{DocumentNote, GONE};
use crate::store::records::outbox;
use crate::store::records::shops;
use crate::store::records::sink_losses;
use crate::store::tx::handle::Store;

/// The kind of sink that the store was last used with.
const SINK_KIND: &[u8] = b"msink_kind";

impl Store {
    /// Whether the ledger has a document of a shop's resource that was read and whose loss was not accepted.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_read(&self, shop: &str, resource: &str) -> Result<bool, StoreError> {
        let prefix = keyspace::documents_of(shop, resource);
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let note: DocumentNote = decode("a ledger document", &pair?.1)?;
            if note.version != GONE && note.accepted_at.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The shops and resources with a document or a checkpoint in the outbox. Reads all of it; blocks.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn waiting_resources(&self) -> Result<HashSet<(ShopId, String)>, StoreError> {
        let mut found = HashSet::new();
        for pair in self.0.kv.scan(keyspace::OUTBOX, keyspace::OUTBOX) {
            found.extend(outbox::resources(&pair?.1)?);
        }
        Ok(found)
    }

    /// The kind of sink that the store was last used with; none: an older build did not record it.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn sink_kind(&self) -> Result<Option<String>, StoreError> {
        Ok(self.0.kv.get(SINK_KIND)?.map(|kind| String::from_utf8_lossy(&kind).into_owned()))
    }

    /// Records the kind of sink, and which shops' resources it may have lost documents of. Sends the checkpoints of
    /// `streams` to it again.
    ///
    /// # Errors
    /// The engine's errors; then nothing is recorded.
    pub async fn suspect_sink(
        &self,
        kind: &str,
        suspects: Vec<(ShopId, String)>,
        streams: Vec<StreamId>,
    ) -> Result<(), StoreError> {
        let (kind, now) = (kind.as_bytes().to_vec(), self.now());
        self.transact(move |tx| {
            if tx.get(SINK_KIND)?.as_ref() != Some(&kind) {
                tx.put(SINK_KIND.to_vec(), kind);
            }
            for (shop, resource) in suspects {
                if shops::is_known(tx, &shop)? {
                    sink_losses::put(tx, &shop, &resource, Some(SinkLoss::suspected(now)))?;
                }
            }
            for stream in streams {
                if shops::is_known(tx, &stream.shop)? {
                    let checkpoint = checkpoints::checkpoint(tx, &stream)?;
                    outbox::append_checkpoint(tx, &stream, &checkpoint, now)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Records what the sink has lost of a shop's resource; None: nothing.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_sink_loss(
        &self,
        shop: &ShopId,
        resource: &str,
        loss: Option<SinkLoss>,
    ) -> Result<(), StoreError> {
        if self.sink_loss(shop, resource)? == loss {
            return Ok(());
        }
        let (shop, resource) = (shop.clone(), resource.to_owned());
        self.transact(move |tx| match shops::is_known(tx, &shop)? {
            true => sink_losses::put(tx, &shop, &resource, loss),
            // It was deleted meanwhile.
            false => Ok(()),
        })
        .await
    }
}
