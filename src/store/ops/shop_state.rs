//! Changes to a shop's record; each goes to the outbox too, for the mirror in the sink.

use std::time::Duration;

use crate::domain::{Shop, ShopState, Timestamp};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::outbox;
use crate::store::records::shops::{self, ShopRecord};
use crate::store::texts;
use crate::store::tx::transaction::Tx;

pub(crate) fn put(tx: &mut Tx<'_>, record: &ShopRecord, now: Timestamp) -> Result<(), StoreError> {
    tx.put(keyspace::shop(&record.shop.id), texts::encode(tx.keys, &record.shop.id, "a shop", record)?);
    outbox::append_shop(tx, &record.shop.id, now)
}

/// The time of a change: always later than the one before, whatever the clock says, since the mirror keeps the latest.
pub(crate) fn changed_at(shop: &Shop, now: Timestamp) -> Timestamp {
    now.max(shop.updated_at + Duration::from_millis(1))
}

/// Stops a shop whose credentials were refused, unless it changed since they were read.
pub(crate) fn refuse(
    tx: &mut Tx<'_>,
    shop: &str,
    read_at: Timestamp,
    reason: String,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let is_same = shops::read(tx, shop)?.is_some_and(|record| record.shop.updated_at == read_at);
    if is_same {
        set_state(tx, shop, ShopState::Refused, Some(reason), now)?;
    }
    Ok(is_same)
}

/// Changes a shop's state, if it still exists.
pub(crate) fn set_state(
    tx: &mut Tx<'_>,
    shop: &str,
    state: ShopState,
    reason: Option<String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(mut record) = shops::read(tx, shop)? else { return Ok(()) };
    if record.shop.state == state && record.shop.reason == reason {
        return Ok(());
    }
    record.shop.state = state;
    record.shop.reason = reason;
    record.shop.updated_at = changed_at(&record.shop, now);
    put(tx, &record, now)
}
