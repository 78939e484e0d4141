//! Sequences: numbers that rise over restarts, for ids and for versions of documents.

use crate::domain::Timestamp;
use crate::store::codec::number;
use crate::store::engine::kv::Kv;
use crate::store::error::StoreError;
use crate::store::tx::transaction::Tx;

pub(crate) const VERSION_KEY: &[u8] = b"mversion";

/// The last number of a sequence that is durable.
pub(crate) fn last(kv: &dyn Kv, name: &str) -> Result<u64, StoreError> {
    Ok(number(kv.get(&sequence_key(name))?))
}

pub(crate) fn sequence_key(name: &str) -> Vec<u8> {
    [b"mseq.", name.as_bytes()].concat()
}

impl Tx<'_> {
    /// The next number of a sequence, from 1.
    pub(crate) fn next(&mut self, name: &'static str) -> Result<u64, StoreError> {
        self.next_many(name, 1)
    }

    /// The first of the next `count` numbers of a sequence.
    pub(crate) fn next_many(&mut self, name: &'static str, count: u64) -> Result<u64, StoreError> {
        let key = sequence_key(name);
        let last = number(self.get(&key)?);
        self.put(key, (last + count).to_be_bytes().to_vec());
        Ok(last + 1)
    }

    /// The next version: microseconds of the wall clock, or one more than the last if the clock fell
    /// back. Rises over restarts, and over a lost store as long as the clock did not go back.
    pub(crate) fn next_version(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let key = VERSION_KEY.to_vec();
        let clock = u64::try_from(now.as_millis()).unwrap_or(0).saturating_mul(1000);
        let next = clock.max(number(self.get(&key)?) + 1);
        self.put(key, next.to_be_bytes().to_vec());
        Ok(next)
    }
}

/// The greatest version given so far.
pub(crate) fn last_version(kv: &dyn Kv) -> Result<u64, StoreError> {
    Ok(number(kv.get(VERSION_KEY)?))
}

/// Versions to come are greater than this one.
pub(crate) fn raise_version(tx: &mut Tx<'_>, version: u64) -> Result<(), StoreError> {
    if number(tx.get(VERSION_KEY)?) < version {
        tx.put(VERSION_KEY.to_vec(), version.to_be_bytes().to_vec());
    }
    Ok(())
}
