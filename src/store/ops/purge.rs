//! Purges a shop that was deleted, or starts over with a new data key: jobs, ledger, checkpoints, walks and parked records
//! go, and its runs end.
//!
//! Called by `shops`, in steps: each looks at a bounded number of records, those of other shops too, so that a
//! deletion blocks no other work and takes no memory. After a crash the deletion starts over.

use serde::Deserialize;

use crate::domain::{Parked, Run, RunState, Timestamp};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace::{self, DueJob};
use crate::store::ops::run_progress;
use crate::store::records::dead_letters;
use crate::store::records::jobs::{delayed_job, undelay};
use crate::store::records::ready_queue;
use crate::store::tx::counters::Counter;
use crate::store::tx::transaction::Tx;

/// Records that one step looks at.
const STEP_MAX: usize = 1000;

/// Where the next step goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left {
    /// In [`keyspace::OF_ALL_SHOPS`].
    kind: usize,
    /// The last key that was looked at.
    after: Vec<u8>,
}

/// Deletes one bounded batch; None when all is gone, the note that the shop is being removed included.
pub(crate) fn purge_step(tx: &mut Tx<'_>, shop: &str, left: Left, now: Timestamp) -> Result<Option<Left>, StoreError> {
    for (kind, prefix) in keyspace::of_shop(shop) {
        let found = tx.scan(&prefix, &prefix, STEP_MAX)?;
        let is_full = found.len() == STEP_MAX;
        for (key, value) in found {
            if kind == keyspace::READY {
                tx.count(Counter::Ready, -i64::try_from(ready_queue::count(&value)?).unwrap_or(i64::MAX));
            }
            tx.delete(key);
        }
        if is_full {
            return Ok(Some(left));
        }
    }
    let Some(prefix) = keyspace::OF_ALL_SHOPS.get(left.kind).copied() else {
        tx.delete(keyspace::removal(shop));
        return Ok(None);
    };
    let mut from = left.after.clone();
    // The key right behind it; at first the prefix itself.
    if from.is_empty() {
        from.extend_from_slice(prefix);
    } else {
        from.push(0);
    }
    let found = tx.scan(prefix, &from, STEP_MAX)?;
    let is_full = found.len() == STEP_MAX;
    let mut after = left.after;
    for (key, value) in found {
        remove(tx, shop, &key, &value, now)?;
        after = key;
    }
    Ok(Some(if is_full { Left { after, ..left } } else { Left { kind: left.kind + 1, after: Vec::new() } }))
}

/// Removes one record of [`keyspace::OF_ALL_SHOPS`], if it is the shop's.
fn remove(tx: &mut Tx<'_>, shop: &str, key: &[u8], value: &[u8], now: Timestamp) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct ShopOf {
        parked: Parked,
    }
    match key.get(..1) {
        Some(keyspace::DELAYED_JOBS) => {
            if delayed_job(value)?.shop == shop
                && let Some(at) = DueJob::of_key(key)
            {
                undelay(tx, at)?;
            }
        }
        Some(keyspace::PARKED) => {
            let parked = decode::<ShopOf>("a parked record", value)?.parked;
            if parked.shop_id == shop {
                tx.delete(key.to_vec());
                dead_letters::count(tx, shop, &parked.resource, -1)?;
            }
        }
        _ => {
            let run: Run = decode("a run", value)?;
            if run.stream.shop == shop && run.is_open() {
                run_progress::update(tx, Some(run.id), now, |run| run.state = RunState::Canceled)?;
            }
        }
    }
    Ok(())
}
