//! Idempotency: responses that a client gets again when it repeats a request.
//!
//! Sealed as a whole, since a response may hold an API key and the request's digest comes from a secret. Deleted after a
//! day, or earlier, the oldest first, when there are too many. A crash between a request and storing its response loses
//! the response, not the change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::store::codec::{decode, encode, number};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// How long an answer is kept.
const LIFE: Duration = Duration::from_secs(86_400);
/// Answers kept at once.
const KEPT_MAX: u64 = 10_000;
/// Old ones removed in one transaction.
const REMOVED_AT_ONCE: usize = 500;
/// How many there are.
const COUNT: &[u8] = b"mkept_answers";

/// Digest of the client and its idempotency key.
pub type AnswerName = [u8; 32];

/// An answer and the request that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResponse {
    /// Digest of the request.
    pub request: [u8; 32],
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
}

#[derive(Serialize, Deserialize)]
struct AnswerRecord {
    at: Timestamp,
    answer: StoredResponse,
}

fn key(name: &AnswerName) -> Vec<u8> {
    keyspace::answer(name)
}

fn order(at: Timestamp, name: &AnswerName) -> Vec<u8> {
    keyspace::answer_by_age(at, name)
}

/// Time and name of a place in the order.
fn at_and_name(order: &[u8]) -> Option<(Timestamp, AnswerName)> {
    let (at, name) = order.strip_prefix(keyspace::ANSWERS_BY_AGE)?.split_first_chunk::<8>()?;
    Some((keyspace::time_of(u64::from_be_bytes(*at))?, name.try_into().ok()?))
}

pub(crate) fn context(name: &[u8]) -> String {
    name.iter().fold("answer ".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn is_over(at: Timestamp, now: Timestamp) -> bool {
    now.abs_diff(at) >= LIFE
}

impl Store {
    /// The answer of that name, for a day.
    ///
    /// # Errors
    /// The engine's read errors; a record that was tampered with.
    pub fn saved_response(&self, name: &AnswerName) -> Result<Option<StoredResponse>, StoreError> {
        let record = self.answer_record(name)?;
        Ok(record.filter(|record| !is_over(record.at, self.now())).map(|record| record.answer))
    }

    fn answer_record(&self, name: &AnswerName) -> Result<Option<AnswerRecord>, StoreError> {
        let Some(sealed) = self.0.kv.get(&key(name))? else { return Ok(None) };
        Ok(Some(decode("an answer", &self.0.keys.store_key().open(&context(name), &sealed)?)?))
    }

    /// Keeps an answer from now on, in place of one of that name. Only one call for a name may be under way.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn save_response(&self, name: AnswerName, answer: StoredResponse) -> Result<(), StoreError> {
        let now = self.now();
        let text = zeroize::Zeroizing::new(encode("an answer", &AnswerRecord { at: now, answer })?);
        let sealed = self.0.keys.store_key().seal(&context(&name), &text)?;
        let before = self.answer_record(&name)?.map(|record| record.at);
        self.transact(move |tx| {
            tx.put(key(&name), sealed);
            if let Some(at) = before {
                tx.delete(order(at, &name));
            }
            tx.put(order(now, &name), Vec::new());
            let count = count(tx)? + u64::from(before.is_none());
            remove_old(tx, now, count)
        })
        .await
    }

    /// Removes expired responses.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn forget_answers(&self) -> Result<(), StoreError> {
        let oldest = self.0.kv.scan(keyspace::ANSWERS_BY_AGE, keyspace::ANSWERS_BY_AGE).next().transpose()?;
        let now = self.now();
        if oldest.and_then(|(order, _)| at_and_name(&order)).is_none_or(|(at, _)| !is_over(at, now)) {
            return Ok(());
        }
        self.transact(move |tx| {
            let count = count(tx)?;
            remove_old(tx, now, count)
        })
        .await
    }
}

fn count(tx: &Tx<'_>) -> Result<u64, StoreError> {
    Ok(number(tx.get(COUNT)?))
}

/// Removes expired responses, and the oldest of too many; `count` is how many are stored.
fn remove_old(tx: &mut Tx<'_>, now: Timestamp, mut count: u64) -> Result<(), StoreError> {
    for (place, _) in tx.scan(keyspace::ANSWERS_BY_AGE, keyspace::ANSWERS_BY_AGE, REMOVED_AT_ONCE)? {
        let Some((at, name)) = at_and_name(&place) else { continue };
        if !is_over(at, now) && count <= KEPT_MAX {
            break;
        }
        tx.delete(place);
        tx.delete(key(&name));
        count = count.saturating_sub(1);
    }
    tx.put(COUNT.to_vec(), count.to_be_bytes().to_vec());
    Ok(())
}
