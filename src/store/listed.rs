//! Whether a document stands on a list: it may stand on those of several streams, and move from one to another.
//!
//! Called by the walk's end, by details and by what puts things back. Reads the ledger's rows of all streams that were
//! walked so far.

use super::walk::RowNote;
use super::{StoreError, Tx, decode, keys};
use crate::domain::StreamId;

/// How the ledger's rows of the resource's other streams begin. What left one list may stand on another.
pub(super) fn siblings(tx: &Tx<'_>, stream: &StreamId) -> Result<Vec<Vec<u8>>, StoreError> {
    let own = keys::stream(b'r', stream);
    let mut others = walked(tx, &stream.shop, &stream.resource)?;
    others.retain(|other| *other != own);
    Ok(others)
}

/// How the ledger's rows of the streams begin that were walked so far.
fn walked(tx: &Tx<'_>, shop: &str, resource: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    let walked = keys::texts(b'k', &[shop, resource]);
    let rows = tx.scan(&walked, &walked, usize::MAX)?.into_iter().map(|(mut key, _)| {
        if let Some(kind) = key.first_mut() {
            *kind = b'r';
        }
        key
    });
    Ok(rows.collect())
}

/// Whether another stream of the resource lists the document.
pub(super) fn is_listed_elsewhere(tx: &Tx<'_>, stream: &StreamId, id: &str) -> Result<bool, StoreError> {
    let siblings = siblings(tx, stream)?;
    is_listed(tx, &siblings, id)
}

/// Since when no stream of the resource lists the document; none: one still does. None at all: none ever did.
pub(super) fn gone_at(tx: &Tx<'_>, shop: &str, resource: &str, id: &str) -> Result<Option<Option<i64>>, StoreError> {
    let mut found: Option<Option<i64>> = None;
    for prefix in walked(tx, shop, resource)? {
        if let Some(bytes) = tx.get(&[prefix.as_slice(), id.as_bytes()].concat())? {
            let note: RowNote = decode("a ledger row", &bytes)?;
            found = Some(match (found, note.gone_at) {
                (Some(None), _) | (_, None) => None,
                (Some(Some(one)), Some(other)) => Some(one.max(other)),
                (None, at) => at,
            });
        }
    }
    Ok(found)
}

pub(super) fn is_listed(tx: &Tx<'_>, streams: &[Vec<u8>], id: &str) -> Result<bool, StoreError> {
    for prefix in streams {
        if let Some(bytes) = tx.get(&[prefix.as_slice(), id.as_bytes()].concat())?
            && decode::<RowNote>("a ledger row", &bytes)?.gone_at.is_none()
        {
            return Ok(true);
        }
    }
    Ok(false)
}
