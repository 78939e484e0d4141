//! Whether a document stands on a list: it may stand on those of several streams, and move from one to another.
//!
//! Called by the walk's end, by details and by what puts things back. Reads the ledger's rows of all streams that were
//! walked so far.

use crate::domain::StreamId;
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::ledger::RowNote;
use crate::store::tx::transaction::Tx;

/// How the ledger's rows of the resource's other streams begin. What left one list may stand on another.
pub(crate) fn siblings(tx: &Tx<'_>, stream: &StreamId) -> Result<Vec<Vec<u8>>, StoreError> {
    let own = keyspace::rows(stream);
    let mut others = walked(tx, &stream.shop, &stream.resource)?;
    others.retain(|other| *other != own);
    Ok(others)
}

/// How the ledger's rows of the streams begin that were walked so far.
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

/// How a document stands on the lists of its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No stream that was walked ever listed it.
    Unknown,
    /// One still does.
    Listed,
    /// None does any more, since then.
    Gone(i64),
}

/// How a document stands on all of the lists.
pub(crate) fn standing(tx: &Tx<'_>, shop: &str, resource: &str, id: &str) -> Result<Standing, StoreError> {
    standing_on(tx, &walked(tx, shop, resource)?, id)
}

/// Whether one of these lists has it.
pub(crate) fn is_listed(tx: &Tx<'_>, streams: &[Vec<u8>], id: &str) -> Result<bool, StoreError> {
    Ok(standing_on(tx, streams, id)? == Standing::Listed)
}

fn standing_on(tx: &Tx<'_>, streams: &[Vec<u8>], id: &str) -> Result<Standing, StoreError> {
    let mut gone_at = None;
    for prefix in streams {
        let Some(bytes) = tx.get(&[prefix.as_slice(), id.as_bytes()].concat())? else { continue };
        match decode::<RowNote>("a ledger row", &bytes)?.gone_at {
            None => return Ok(Standing::Listed),
            at => gone_at = gone_at.max(at),
        }
    }
    Ok(gone_at.map_or(Standing::Unknown, Standing::Gone))
}
