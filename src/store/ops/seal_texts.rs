//! Seals the texts that earlier versions stored in clear (`texts`), once: when such a store opens.
//!
//! In bounded steps, again from the beginning after a crash. A record that cannot be read is left alone: whoever needs it
//! reports it. Texts of jobs become the class of their error. Shops with a reason go to the sink again, whose mirror has
//! the texts of earlier versions too.

use memchr::memmem;

use crate::domain::{Run, ShopId, StreamStatus, Timestamp, Unproved};
use crate::store::codec::{decode, encode};
use crate::store::engine::kv::{Change, Kv, Pair};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::dead_letters::DeadLetter;
use crate::store::records::jobs::DelayedJob;
use crate::store::records::outbox;
use crate::store::records::ready_queue;
use crate::store::records::shops::ShopRecord;
use crate::store::texts::{self, ShopKeys, Texts};
use crate::store::tx::committer::run_once;

/// Which form of texts the store has; none: that in clear.
const FORM: &[u8] = b"mtexts";
const SEALED: u8 = 1;

/// Records looked at in one step.
const STEP: usize = 500;

/// The change that marks a new store as one without texts in clear.
pub(crate) fn mark_sealed() -> Change {
    (FORM.to_vec(), Some(vec![SEALED]))
}

/// The change after which the next opening looks for texts in clear.
pub(crate) fn unmark() -> Change {
    (FORM.to_vec(), None)
}

/// Seals what is in clear.
///
/// # Errors
/// The engine's errors; the next opening begins again.
pub(crate) fn at_open(kv: &dyn Kv, keys: &dyn ShopKeys, now: Timestamp) -> Result<(), StoreError> {
    if kv.get(FORM)?.is_some() {
        return Ok(());
    }
    let mut sealed = 0;
    for prefix in keyspace::WITH_TEXTS {
        let mut from = prefix.to_vec();
        loop {
            let found: Vec<Pair> = kv.scan(prefix, &from).take(STEP).collect::<Result<_, _>>()?;
            let Some((last, _)) = found.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            let mut changed = Vec::new();
            for (key, value) in found {
                changed.extend(rewritten(keys, &key, &value)?.map(|value| (key, value)));
            }
            sealed += changed.len();
            run_once(kv, keys, |tx| {
                for (key, value) in changed {
                    if prefix == keyspace::SHOPS {
                        outbox::append_shop(tx, &decode::<ShopRecord>("a shop", &value)?.shop.id, now)?;
                    }
                    tx.put(key, value);
                }
                Ok(())
            })?;
        }
    }
    if sealed > 0 {
        tracing::info!(records = sealed, "sealed the errors and reasons that an earlier version stored in clear");
    }
    run_once(kv, keys, |tx| {
        tx.put(FORM.to_vec(), vec![SEALED]);
        Ok(())
    })
}

/// A record without texts in clear; none: it has none.
fn rewritten(keys: &dyn ShopKeys, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let of_key = || keyspace::shop_of_health(key).unwrap_or_else(|| ShopId::from(""));
    match key.get(..1) {
        Some(keyspace::SHOPS) => sealed(keys, value, |record: &ShopRecord| record.shop.id.clone()),
        Some(keyspace::RUNS) => sealed(keys, value, |run: &Run| run.stream.shop.clone()),
        Some(keyspace::PARKED) => sealed(keys, value, |record: &DeadLetter| record.parked.shop_id.clone()),
        Some(keyspace::STREAM_STATUSES) => sealed(keys, value, |_: &StreamStatus| of_key()),
        Some(keyspace::DOUBTS) => sealed(keys, value, |_: &Unproved| of_key()),
        _ if memmem::find(value, b"\"last_error\"").is_none() => Ok(None),
        Some(keyspace::DELAYED_JOBS) => {
            let Ok(job) = decode::<DelayedJob>("a waiting job", value) else { return Ok(None) };
            encode("a waiting job", &job).map(|new| Some(new).filter(|new| new != value))
        }
        _ => Ok(ready_queue::rewritten(value).ok().filter(|new| new != value)),
    }
}

fn sealed<T: Texts + serde::de::DeserializeOwned>(
    keys: &dyn ShopKeys,
    value: &[u8],
    shop: impl FnOnce(&T) -> ShopId,
) -> Result<Option<Vec<u8>>, StoreError> {
    const WHAT: &str = "a record with texts";
    let Ok(record) = decode::<T>(WHAT, value) else { return Ok(None) };
    let new = texts::encode(keys, &shop(&record), WHAT, &record)?;
    // One may hold texts that only earlier versions read.
    Ok(Some(new).filter(|new| new != value))
}
