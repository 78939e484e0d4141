//! The embedded archive: where documents live when no MySQL is configured. Sealed like the outbox.

use serde::{Deserialize, Serialize};

use crate::domain::{ListParams, ShopId, StoredVersion, Timestamp};
use crate::store::codec::{decode_with, encode_with};
use crate::store::crypto::document_context;
use crate::store::entry::{DocumentHead, EntryHead};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::records::archive_index::{IndexChanges, IndexedDocument, Postings};
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// All of an archived document but its body.
#[derive(Serialize, Deserialize)]
pub(crate) struct ArchiveHead {
    pub(crate) combination: ListParams,
    pub(crate) version: u64,
    pub(crate) fetched_at: Timestamp,
    pub(crate) first_listed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) no_longer_listed_at: Option<Timestamp>,
    /// Its postings in the index; none: it has none there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<String>,
}

/// An archived document, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    pub shop_id: ShopId,
    pub id: String,
    pub combination: ListParams,
    pub version: u64,
    pub fetched_at: Timestamp,
    pub first_listed_at: Timestamp,
    pub no_longer_listed_at: Option<Timestamp>,
    pub body: Vec<u8>,
}

/// Documents in the order of (shop, id).
#[derive(Clone, Debug, Default)]
pub struct ArchivePage {
    pub documents: Vec<Archived>,
    /// Shop and id of the last one looked at, readable or not.
    pub last: Option<(ShopId, String)>,
    /// More may follow the last one.
    pub more: bool,
}

/// Bytes opened for one page; a page with more ends before its number of documents.
const OPENED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Documents of a purged shop that one commit removes.
const PURGED_MAX: usize = 1000;

/// Applies an outbox entry; an older one never overwrites a newer one. False: only a part was applied, apply it again.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    index: &mut IndexChanges,
    version: u64,
    head: &EntryHead,
    sealed: &[u8],
) -> Result<bool, StoreError> {
    match head {
        EntryHead::ShopDeleted { shop, purge: true } => {
            index.forget(shop);
            return purge(tx, shop);
        }
        EntryHead::Document(head) => apply_document(tx, index, version, head, sealed)?,
        EntryHead::Listing { shop, resource, id, no_longer_listed_at } => {
            let key = keyspace::archived(resource, shop, id);
            if let Some(record) = tx.get(&key)? {
                let (mut known, sealed): (ArchiveHead, _) = decode_with("an archived document", &record)?;
                known.no_longer_listed_at = *no_longer_listed_at;
                tx.put(key, encode_with("an archived document", &known, &sealed)?);
            }
        }
        // The archive is the store itself: shops and checkpoints need no mirror here.
        EntryHead::ShopDeleted { .. } | EntryHead::Checkpoint { .. } | EntryHead::Shop { .. } => {}
    }
    Ok(true)
}

fn apply_document(
    tx: &mut Tx<'_>,
    index: &mut IndexChanges,
    version: u64,
    head: &DocumentHead,
    sealed: &[u8],
) -> Result<(), StoreError> {
    let key = keyspace::archived(&head.resource, &head.shop, &head.id);
    let (mut first_listed_at, mut indexed) = (head.first_listed_at, None);
    if let Some(record) = tx.get(&key)? {
        let (known, _): (ArchiveHead, _) = decode_with("an archived document", &record)?;
        if known.version > version {
            return Ok(());
        }
        first_listed_at = first_listed_at.min(known.first_listed_at);
        indexed = known.index;
    }
    let place = IndexedDocument { resource: &head.resource, shop: &head.shop, id: &head.id };
    let index = index.update(tx, place, indexed.as_deref(), index_of(head).as_ref())?;
    let record = ArchiveHead {
        combination: head.combination.clone(),
        version,
        fetched_at: head.fetched_at,
        first_listed_at,
        no_longer_listed_at: None,
        index,
    };
    tx.put(key, encode_with("an archived document", &record, sealed)?);
    Ok(())
}

/// The postings of a document that comes from the outbox.
fn index_of(head: &DocumentHead) -> Option<Postings> {
    head.index.as_deref().and_then(|index| Postings::read(index, head.fetched_at))
}

/// Deletes some of the shop's documents of each resource, and of their index, without reading those of other shops; returns
/// whether all are gone.
fn purge(tx: &mut Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    let mut room = PURGED_MAX;
    for prefix in [keyspace::ARCHIVE, keyspace::ARCHIVE_INDEX] {
        let mut from = prefix.to_vec();
        loop {
            let Some((key, _)) = tx.pairs(prefix, &from).next().transpose()? else { break };
            let Some(resource) = keyspace::resource_of_archived(&key) else { break };
            let of = |parts: &[&str]| keyspace::texts(key.first().copied().unwrap_or_default(), parts);
            let of_shop = of(&[&resource, shop]);
            let found = tx.scan(&of_shop, &of_shop, room)?;
            room -= found.len();
            from = keyspace::after(&of(&[&resource]));
            found.into_iter().for_each(|(key, _)| tx.delete(key));
            if room == 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Shop and id in a key.
pub(crate) fn place(resource: &str, key: &[u8]) -> Option<(ShopId, String)> {
    let text = String::from_utf8_lossy(key.get(resource.len() + 2..)?);
    text.split_once('\0').map(|(shop, id)| (shop.into(), id.to_owned()))
}

impl Store {
    /// Archived documents of a resource above `after` (shop, id), looking at no more than `look` of
    /// them, and fewer when they are large. Documents of shops whose key is gone are passed over.
    ///
    /// # Errors
    /// The engine's read errors, and, when one shop was asked for, [`StoreError::Sealed`] for a damaged document.
    pub fn archived(
        &self,
        resource: &str,
        shop: Option<&str>,
        after: Option<(&str, &str)>,
        look: usize,
    ) -> Result<ArchivePage, StoreError> {
        let prefix = match shop {
            Some(shop) => keyspace::archive_of_shop(resource, shop),
            None => keyspace::archive_of(resource),
        };
        let mut from = match after {
            Some((shop, id)) => keyspace::archived(resource, shop, id),
            None => prefix.clone(),
        };
        if after.is_some() {
            from.push(0);
        }
        let mut page = ArchivePage::default();
        let (mut passed_over, mut opened) = (None, 0);
        for (looked, pair) in self.0.kv.scan(&prefix, &from).enumerate() {
            if looked == look || opened >= OPENED_BYTES_MAX {
                page.more = true;
                break;
            }
            let (key, record) = pair?;
            page.last = place(resource, &key);
            match self.open_archived(resource, &key, &record) {
                // A lost data key shows in the shop's own state and must not hide other shops' documents. A damaged
                // document of a shop whose key opens is an error.
                Err(StoreError::Sealed { context }) if shop.is_none() && self.lacks_key(page.last.as_ref()) => {
                    passed_over = Some(context);
                }
                document => page.documents.extend(document?.inspect(|document| opened += document.body.len())),
            }
        }
        if let Some(context) = passed_over {
            tracing::error!(context, "documents cannot be opened and are passed over; the last one names the place");
        }
        Ok(page)
    }

    fn lacks_key(&self, place: Option<&(ShopId, String)>) -> bool {
        place.is_some_and(|(shop, _)| matches!(self.shop_key(shop), Err(StoreError::Sealed { .. })))
    }

    /// Removes a shop's archived documents.
    pub(crate) async fn forget_archived(&self, shop: &str) -> Result<(), StoreError> {
        let shop = shop.to_owned();
        loop {
            let shop = shop.clone();
            if self.transact(move |tx| purge(tx, &shop)).await? {
                return Ok(());
            }
        }
    }

    /// One archived document.
    ///
    /// # Errors
    /// As [`Store::archived`].
    pub fn archived_one(&self, resource: &str, shop: &str, id: &str) -> Result<Option<Archived>, StoreError> {
        let key = keyspace::archived(resource, shop, id);
        match self.0.kv.get(&key)? {
            Some(record) => self.open_archived(resource, &key, &record),
            None => Ok(None),
        }
    }

    /// What is archived of a shop's documents, by id, above the id `after`, at most `limit`; none is opened.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn archive_held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, StoredVersion)>, StoreError> {
        let prefix = keyspace::archive_of_shop(resource, shop);
        let mut from = keyspace::archived(resource, shop, after);
        from.push(0);
        let found = self.0.kv.scan(&prefix, if after.is_empty() { &prefix } else { &from }).take(limit);
        found
            .map(|pair| {
                let (key, record) = pair?;
                let (head, _): (ArchiveHead, _) = decode_with("an archived document", &record)?;
                let id = key.get(prefix.len()..).unwrap_or_default();
                let held = StoredVersion { version: head.version, is_listed: head.no_longer_listed_at.is_none() };
                Ok((String::from_utf8_lossy(id).into_owned(), held))
            })
            .collect()
    }

    pub(crate) fn open_archived(
        &self,
        resource: &str,
        key: &[u8],
        record: &[u8],
    ) -> Result<Option<Archived>, StoreError> {
        let (head, sealed): (ArchiveHead, _) = decode_with("an archived document", record)?;
        let Some((shop_id, id)) = place(resource, key) else { return Ok(None) };
        let seal_key = match self.shop_key(&shop_id) {
            Ok(key) => key,
            Err(StoreError::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let body = seal_key.open_document(&document_context(&shop_id, resource, &id), &sealed)?;
        Ok(Some(Archived {
            shop_id,
            id,
            combination: head.combination,
            version: head.version,
            fetched_at: head.fetched_at,
            first_listed_at: head.first_listed_at,
            no_longer_listed_at: head.no_longer_listed_at,
            body,
        }))
    }
}
