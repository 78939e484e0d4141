//! The ledger: what is known of each list row (`r`) and of each document (`d`).

use serde::{Deserialize, Serialize};

use crate::domain::{RunId, StreamId, Timestamp};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace::{self, DueJob};
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// The ledger's note of a list row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowNote {
    /// Digest of its content.
    #[serde(rename = "h")]
    pub(crate) hash: u64,
    #[serde(rename = "f")]
    pub(crate) first_listed_at: Timestamp,
    /// The last full walk that saw it; [`RunId::MIN`]: none.
    #[serde(rename = "s")]
    pub(crate) seen: RunId,
    /// The pass of that walk that saw it last.
    #[serde(rename = "p", default = "first_pass", skip_serializing_if = "is_first_pass")]
    pub(crate) pass: u32,
    /// Its own time, from the list.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(crate) time: Option<Timestamp>,
    /// Since when full walks no longer see it.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub(crate) unlisted_at: Option<Timestamp>,
    /// Digest of another row with the same id, which a later page of the list shows.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(crate) other: Option<u64>,
    /// Of a row that cannot be stored: the parked record that says why. None: it was put back, and is read again.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(crate) parked: Option<u64>,
}

impl Default for RowNote {
    fn default() -> RowNote {
        let (hash, first_listed_at, seen, pass) = (0, Timestamp::EPOCH, RunId::MIN, first_pass());
        RowNote { hash, first_listed_at, seen, pass, time: None, unlisted_at: None, other: None, parked: None }
    }
}

pub(crate) fn first_pass() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
pub(crate) fn is_first_pass(pass: &u32) -> bool {
    *pass == 1
}

impl Store {
    /// When a row was first listed in a stream.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn first_listed_at(&self, stream: &StreamId, id: &str) -> Result<Option<Timestamp>, StoreError> {
        let bytes = self.0.kv.get(&keyspace::row(stream, id))?;
        Ok(bytes.map(|bytes| decode::<RowNote>("a ledger row", &bytes)).transpose()?.map(|note| note.first_listed_at))
    }

    /// The first row after an id, in the order of ids, that the last whole walk of one of the streams still saw.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn next_listed(&self, streams: &[StreamId], after: Option<&str>) -> Result<Option<String>, StoreError> {
        let mut first: Option<String> = None;
        for stream in streams {
            let prefix = keyspace::rows(stream);
            let from = after.map_or_else(Vec::new, |after| [prefix.as_slice(), after.as_bytes(), &[0]].concat());
            for pair in self.0.kv.scan(&prefix, &from) {
                let (key, bytes) = pair?;
                let note: RowNote = decode("a ledger row", &bytes)?;
                let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default();
                // The id noted for a row that cannot be stored begins with a control character.
                if note.unlisted_at.is_none() && !id.starts_with(char::is_control) {
                    first = [first, Some(id.into_owned())].into_iter().flatten().min();
                    break;
                }
            }
        }
        Ok(first)
    }
}

/// The version of a document that the API does not know: never written.
pub(crate) const GONE: u64 = 0;

/// The ledger's note of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DocumentNote {
    /// Digest of its content.
    #[serde(rename = "h")]
    pub(crate) hash: u64,
    #[serde(rename = "v")]
    pub(crate) version: u64,
    #[serde(rename = "f")]
    pub(crate) fetched_at: Timestamp,
    /// The delayed job that reads it again. None: final.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(crate) refresh: Option<DueJob>,
    /// The API did not know it when it was last asked for.
    #[serde(rename = "u", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unknown: bool,
    /// The sink lacks it: the next read is written even if nothing changed.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lost: bool,
    /// When its loss was accepted: the sink lacks it, and it cannot be read again.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(crate) accepted_at: Option<Timestamp>,
}

impl DocumentNote {
    /// The note of a document that the API does not know and that was never read.
    pub(crate) fn gone(now: Timestamp) -> DocumentNote {
        DocumentNote {
            hash: 0,
            version: GONE,
            fetched_at: now,
            refresh: None,
            unknown: true,
            lost: false,
            accepted_at: None,
        }
    }
}

/// What is known of the list row under a key.
pub(crate) fn row_note(tx: &Tx<'_>, key: &[u8]) -> Result<Option<RowNote>, StoreError> {
    tx.get(key)?.map(|bytes| decode("a ledger row", &bytes)).transpose()
}

/// What is known of the document under a key.
pub(crate) fn document_note(tx: &Tx<'_>, key: &[u8]) -> Result<Option<DocumentNote>, StoreError> {
    tx.get(key)?.map(|bytes| decode("a ledger document", &bytes)).transpose()
}

/// What the ledger knows of a stream's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedRows {
    /// The own time of each row that is listed; none where the list has none.
    pub times: Vec<Option<Timestamp>>,
    /// Rows whose document may still change, so that a full walk on request reads it again.
    pub may_change: u64,
    /// Documents whose planned read is due.
    pub due: u64,
}

impl Store {
    /// The rows of a stream that are listed. Looks at all of them and at their documents.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn listed_rows(&self, stream: &StreamId) -> Result<ListedRows, StoreError> {
        let prefix = keyspace::rows(stream);
        let now = self.now();
        let mut found = ListedRows::default();
        for pair in self.0.kv.scan(&prefix, &prefix) {
            let (key, bytes) = pair?;
            let id = key.strip_prefix(prefix.as_slice()).map(String::from_utf8_lossy).unwrap_or_default();
            // The id noted for a row that cannot be stored begins with a control character.
            if id.starts_with(char::is_control) {
                continue;
            }
            let row: RowNote = decode("a ledger row", &bytes)?;
            if row.unlisted_at.is_none() {
                found.times.push(row.time);
            }
            let document = self.0.kv.get(&keyspace::document(&stream.shop, &stream.resource, &id))?;
            let note = document.map(|bytes| decode::<DocumentNote>("a ledger document", &bytes)).transpose()?;
            let Some(note) = note else { continue };
            found.due += u64::from(note.refresh.is_some_and(|job| job.due <= now));
            found.may_change += u64::from(row.unlisted_at.is_none() && (note.refresh.is_some() || note.unknown));
        }
        Ok(found)
    }
}

/// Rows that streams listed and that could not be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnusableRows {
    pub parked: u64,
    /// Put back: the next full walk reads them again.
    pub to_read: u64,
}

/// Whether the ledger notes a row of a stream that could not be stored.
pub(crate) fn has_unusable_row(tx: &Tx<'_>, stream: &StreamId) -> Result<bool, StoreError> {
    let prefix = keyspace::rows(stream);
    let first = tx.pairs(&prefix, &prefix).next().transpose()?;
    Ok(first.is_some_and(|(key, _)| is_unusable(&key, &prefix)))
}

/// They come first, under names that begin with a control character.
fn is_unusable(key: &[u8], prefix: &[u8]) -> bool {
    key.get(prefix.len()).is_some_and(|first| *first < b' ')
}

impl Store {
    /// The rows of these streams that could not be stored.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn unusable_rows(&self, streams: &[StreamId]) -> Result<UnusableRows, StoreError> {
        let mut found = UnusableRows::default();
        for stream in streams {
            let prefix = keyspace::rows(stream);
            for pair in self.0.kv.scan(&prefix, &prefix) {
                let (key, note) = pair?;
                if !is_unusable(&key, &prefix) {
                    break;
                }
                let note: RowNote = decode("a ledger row", &note)?;
                match note.parked {
                    Some(_) => found.parked += 1,
                    None => found.to_read += 1,
                }
            }
        }
        Ok(found)
    }
}
