//! Whether a document is listed: it may be on the lists of several streams, and move from one to another.
//!
//! Called at the end of a walk, for details and by retries. Reads the ledger's rows of all streams that were
//! walked so far.

use crate::domain::{StreamId, Timestamp};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::ledger::RowNote;
use crate::store::tx::transaction::Tx;

/// Key prefixes of the ledger rows of the resource's other streams: a document that left one list may be on another.
pub(crate) fn siblings(tx: &Tx<'_>, stream: &StreamId) -> Result<Vec<Vec<u8>>, StoreError> {
    let own = keyspace::rows(stream);
    let mut others = walked(tx, &stream.shop, &stream.resource)?;
    others.retain(|other| *other != own);
    Ok(others)
}

/// Key prefixes of the ledger rows of all streams that were walked so far.
fn walked(tx: &Tx<'_>, shop: &str, resource: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    let walked = keyspace::checkpoints_of(shop, resource);
    let rows = tx.scan(&walked, &walked, usize::MAX)?.into_iter().map(|(key, _)| keyspace::rows_of_checkpoint(key));
    Ok(rows.collect())
}

/// Whether another stream of the resource lists the document.
pub(crate) fn is_listed_elsewhere(tx: &Tx<'_>, stream: &StreamId, id: &str) -> Result<bool, StoreError> {
    let siblings = siblings(tx, stream)?;
    is_listed(tx, &siblings, id)
}

/// Whether the lists of a resource still have a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListingState {
    /// No stream that was walked ever listed it.
    Unknown,
    /// A stream still lists it.
    Listed,
    /// No stream lists it any more, since then.
    Unlisted(Timestamp),
}

/// The listing state of a document over all streams that were walked.
pub(crate) fn listing_state(tx: &Tx<'_>, shop: &str, resource: &str, id: &str) -> Result<ListingState, StoreError> {
    state_on(tx, &walked(tx, shop, resource)?, id)
}

/// Whether one of these lists has it.
pub(crate) fn is_listed(tx: &Tx<'_>, streams: &[Vec<u8>], id: &str) -> Result<bool, StoreError> {
    Ok(state_on(tx, streams, id)? == ListingState::Listed)
}

fn state_on(tx: &Tx<'_>, streams: &[Vec<u8>], id: &str) -> Result<ListingState, StoreError> {
    let mut unlisted_at = None;
    for prefix in streams {
        let Some(bytes) = tx.get(&[prefix.as_slice(), id.as_bytes()].concat())? else { continue };
        match decode::<RowNote>("a ledger row", &bytes)?.unlisted_at {
            None => return Ok(ListingState::Listed),
            at => unlisted_at = unlisted_at.max(at),
        }
    }
    Ok(unlisted_at.map_or(ListingState::Unknown, ListingState::Unlisted))
}
