//! Completeness: what the ledger knows of everything that was ever listed, and what is still under way; and re-reading
//! what the sink lacks.

use std::collections::{BTreeMap, HashSet};

use crate::domain::{CallKind, FetchDetail, Job, JobKind, ListParams, Priority, ShopId, StreamId, Timestamp};
use crate::store::codec::{decode, encode};
use crate::store::error::StoreError;
use crate::store::keyspace::{self, Queue};
use crate::store::ops::detail;
use crate::store::ops::listing_state::{self, ListingState};
use crate::store::records::jobs::{delayed_job, new_job};
use crate::store::records::ledger::{self, DocumentNote, RowNote};
use crate::store::records::outbox;
use crate::store::records::ready_queue::{self, enqueue};
use crate::store::records::shops;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// Jobs added by one transaction.
const WANTED_AT_ONCE: usize = 500;

/// What is known of one listed id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// Its document was never read.
    Unread,
    /// The API does not know it.
    Gone,
    /// Read.
    Read {
        /// That the sink got last.
        version: u64,
        /// The API did not know it when it was last asked for.
        is_unknown: bool,
        /// The sink was found to lack it; it was not read since.
        is_lost: bool,
        /// When its loss was accepted.
        accepted_at: Option<Timestamp>,
    },
}

/// One id of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    /// Of a stream that lists it.
    pub combination: ListParams,
    /// A stream still lists it.
    pub is_listed: bool,
    pub known: LedgerState,
}

/// Ids that are under way, or were given up.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    pub pending: HashSet<String>,
    pub parked: HashSet<String>,
}

impl Store {
    /// The ids that the streams of one shop's resource have listed, above `after`, ascending by bytes, at most
    /// `limit`. Blocks on reads.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn listed(&self, streams: &[StreamId], after: &str, limit: usize) -> Result<Vec<Listed>, StoreError> {
        let mut found: BTreeMap<String, (&StreamId, bool)> = BTreeMap::new();
        for stream in streams {
            let prefix = keyspace::rows(stream);
            let mut from = prefix.clone();
            if after.is_empty() {
                // The id noted for a row that cannot be stored begins with a control character.
                from.push(b' ');
            } else {
                from.extend_from_slice(after.as_bytes());
                from.push(0);
            }
            for pair in self.0.kv.scan(&prefix, &from).take(limit) {
                let (key, bytes) = pair?;
                let note: RowNote = decode("a ledger row", &bytes)?;
                let id = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned();
                let known = found.entry(id).or_insert((stream, false));
                if note.unlisted_at.is_none() && !known.1 {
                    *known = (stream, true);
                }
            }
        }
        let first = found.into_iter().take(limit);
        first
            .map(|(id, (stream, is_listed))| {
                let bytes = self.0.kv.get(&keyspace::document(&stream.shop, &stream.resource, &id))?;
                let note: Option<DocumentNote> = bytes.map(|bytes| decode("a ledger document", &bytes)).transpose()?;
                let known = match note {
                    None => LedgerState::Unread,
                    Some(note) if note.version == ledger::GONE => LedgerState::Gone,
                    Some(note) => LedgerState::Read {
                        version: note.version,
                        is_unknown: note.unknown,
                        is_lost: note.lost,
                        accepted_at: note.accepted_at,
                    },
                };
                Ok(Listed { id, combination: stream.combination.clone(), is_listed, known })
            })
            .collect()
    }

    /// The documents of a shop's resource that are under way. Reads its ready jobs, all delayed jobs, the outbox and all dead
    /// letters; blocks on reads. Planned re-reads are not counted.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn under_way(&self, shop: &ShopId, resource: &str) -> Result<UnderWay, StoreError> {
        let mut under_way = UnderWay::default();
        let queue = Queue { shop: shop.clone(), resource: resource.to_owned(), kind: CallKind::Detail };
        let prefix = queue.prefix();
        for pair in self.0.kv.scan(&prefix, &prefix) {
            under_way.pending.extend(ready_queue::document_ids(&pair?.1)?);
        }
        for pair in self.0.kv.scan(keyspace::DELAYED_JOBS, keyspace::DELAYED_JOBS) {
            let job: Job = delayed_job(&pair?.1)?;
            let asked_for = job.run().is_some() || job.last_error.is_some();
            if let JobKind::FetchDetail(FetchDetail { id, .. }) = job.kind
                && (job.shop == *shop && job.resource == resource && asked_for)
            {
                under_way.pending.insert(id);
            }
        }
        for pair in self.0.kv.scan(keyspace::OUTBOX, keyspace::OUTBOX) {
            under_way.pending.extend(outbox::document_ids(&pair?.1, shop, resource)?);
        }
        let ours = self.parked(None, usize::MAX, |parked| parked.shop_id == *shop && parked.resource == resource)?;
        under_way.parked.extend(ours.into_iter().filter_map(|parked| parked.document_id));
        Ok(under_way)
    }

    /// Queues these documents to be re-read, after which they are written even if unchanged. For resources with details.
    ///
    /// # Errors
    /// The engine's errors; what was asked for before stays asked for.
    pub async fn reread_documents(
        &self,
        shop: &ShopId,
        resource: &str,
        documents: Vec<(String, ListParams)>,
    ) -> Result<(), StoreError> {
        let again = |tx: &mut Tx<'_>, stream: &StreamId, id: &str| {
            detail::note_lost(tx, stream, id)?;
            let read = FetchDetail { run: None, combination: stream.combination.clone(), id: id.to_owned() };
            let job = new_job(tx, &stream.shop, &stream.resource, Priority::Changed, read)?;
            enqueue(tx, &job)?;
            Ok(true)
        };
        self.for_each_document(shop, resource, documents, again).await.map(drop)
    }

    /// Notes that the loss of these documents is accepted; returns how many were read once.
    ///
    /// # Errors
    /// The engine's errors; what was accepted before stays so.
    pub async fn accept_lost(
        &self,
        shop: &ShopId,
        resource: &str,
        documents: Vec<(String, ListParams)>,
    ) -> Result<u64, StoreError> {
        let now = self.now();
        let accept = move |tx: &mut Tx<'_>, stream: &StreamId, id: &str| {
            let key = keyspace::document(&stream.shop, &stream.resource, id);
            let Some(note) = ledger::document_note(tx, &key)?.filter(|note| note.version != ledger::GONE) else {
                return Ok(false);
            };
            tx.put(key, encode("a ledger document", &DocumentNote { accepted_at: Some(now), ..note })?);
            Ok(true)
        };
        self.for_each_document(shop, resource, documents, accept).await
    }

    /// Makes the next full walk take these rows as changed. For resources whose rows are their documents. Rows that are no
    /// longer listed stay as they are: no walk would bring them back. Returns how many rows this is news of.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn reread_rows(
        &self,
        shop: &ShopId,
        resource: &str,
        documents: Vec<(String, ListParams)>,
    ) -> Result<u64, StoreError> {
        let row = |tx: &mut Tx<'_>, stream: &StreamId, id: &str| {
            let key = keyspace::row(stream, id);
            let Some(note) = ledger::row_note(tx, &key)?.filter(|note| note.unlisted_at.is_none()) else {
                return Ok(false);
            };
            let is_news = detail::note_lost(tx, stream, id)?;
            if is_news {
                tx.put(key, encode("a ledger row", &RowNote { hash: !note.hash, other: None, ..note })?);
            }
            Ok(is_news)
        };
        self.for_each_document(shop, resource, documents, row).await
    }

    /// The archived documents of a shop's resource, by id. Reads all of them; blocks.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn archived_ids(&self, shop: &str, resource: &str) -> Result<HashSet<String>, StoreError> {
        let prefix = keyspace::archive_of_shop(resource, shop);
        let id = |key: &[u8]| String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned();
        self.0.kv.scan(&prefix, &prefix).map(|pair| Ok(id(&pair?.0))).collect()
    }

    /// Puts into the outbox again whether these documents are still listed; returns how many.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn resend_listing(
        &self,
        shop: &ShopId,
        resource: &str,
        documents: Vec<(String, ListParams)>,
    ) -> Result<u64, StoreError> {
        let now = self.now();
        let resend = move |tx: &mut Tx<'_>, stream: &StreamId, id: &str| {
            let unlisted_at = match listing_state::listing_state(tx, &stream.shop, &stream.resource, id)? {
                ListingState::Unknown => return Ok(false),
                ListingState::Listed => None,
                ListingState::Unlisted(at) => Some(at),
            };
            outbox::append_listing(tx, stream, id, unlisted_at, now)?;
            Ok(true)
        };
        self.for_each_document(shop, resource, documents, resend).await
    }

    /// Applies `step` to each document, in bounded transactions; returns the number of documents changed.
    async fn for_each_document(
        &self,
        shop: &ShopId,
        resource: &str,
        documents: Vec<(String, ListParams)>,
        step: impl Fn(&mut Tx<'_>, &StreamId, &str) -> Result<bool, StoreError> + Copy + Send + 'static,
    ) -> Result<u64, StoreError> {
        let mut done = 0;
        for some in documents.chunks(WANTED_AT_ONCE) {
            let (shop, resource, some) = (shop.clone(), resource.to_owned(), some.to_vec());
            let some = self.transact(move |tx| {
                let mut count = 0;
                // A shop may have been deleted meanwhile.
                if !shops::is_known(tx, &shop)? {
                    return Ok(count);
                }
                for (id, combination) in some {
                    let stream = StreamId { shop: shop.clone(), resource: resource.clone(), combination };
                    count += u64::from(step(tx, &stream, &id)?);
                }
                Ok(count)
            });
            done += some.await?;
        }
        Ok(done)
    }

    /// The full walk after which a shop's resource was last repaired.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn repaired_at(&self, shop: &str, resource: &str) -> Result<Option<Timestamp>, StoreError> {
        let bytes = self.0.kv.get(&keyspace::repaired_at(shop, resource))?;
        bytes.map(|bytes| decode("the last repair", &bytes)).transpose()
    }

    /// Stores it.
    ///
    /// # Errors
    /// The engine's errors.
    pub async fn store_repaired_at(&self, shop: &ShopId, resource: &str, walk: Timestamp) -> Result<(), StoreError> {
        let (shop, key) = (shop.clone(), keyspace::repaired_at(shop, resource));
        self.transact(move |tx| {
            // A shop may have been deleted meanwhile.
            if shops::is_known(tx, &shop)? {
                tx.put(key, encode("the last repair", &walk)?);
            }
            Ok(())
        })
        .await
    }
}
