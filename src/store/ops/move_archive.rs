//! Moves archived documents to the outbox, when a store that had no MySQL gets one: the writer takes them from there.
//!
//! Called by the service in steps. A step is one commit that takes documents out of the archive and puts them into the
//! outbox under their own version, so a crash repeats at most one step, and in the sink the newest version wins.

use crate::domain::{ShopId, StreamId, Timestamp};
use crate::store::codec::{decode_with, encode};
use crate::store::entry::{DocumentHead, EntryHead};
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::archive::{self, ArchiveHead};
use crate::store::ops::listing_state::{self, ListingState};
use crate::store::records::ledger::{self, DocumentNote, GONE, RowNote};
use crate::store::records::outbox;
use crate::store::records::shops;
use crate::store::tx::handle::Store;
use crate::store::tx::transaction::Tx;

/// Documents that one step moves, and their stored bytes, roughly.
const MOVED_MAX: usize = 128;
/// Records of the archive's index that the last steps remove.
const POSTINGS_MAX: usize = 500;
const MOVED_BYTES_MAX: usize = 512 * 1024;

/// Result of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MovedDocuments {
    /// Documents that left the archive.
    pub count: u64,
    /// The outbox record that holds the last of them.
    pub last_record: u64,
    /// None of these resources is left.
    pub is_last: bool,
}

impl Store {
    /// Number of archived documents of these resources. Reads all of them; blocks.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn count_archived(&self, resources: &[String]) -> Result<u64, StoreError> {
        let mut count = 0;
        for resource in resources {
            let prefix = keyspace::archive_of(resource);
            for pair in self.0.kv.scan(&prefix, &prefix) {
                pair?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether a document of these resources is archived.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn has_archived(&self, resources: &[String]) -> Result<bool, StoreError> {
        for resource in resources {
            let prefix = keyspace::archive_of(resource);
            if self.0.kv.scan(&prefix, &prefix).next().transpose()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Resources with archived documents that are none of these.
    ///
    /// # Errors
    /// The engine's read errors.
    pub fn archived_resources_but(&self, resources: &[String]) -> Result<Vec<String>, StoreError> {
        let (mut found, mut from) = (Vec::new(), keyspace::ARCHIVE.to_vec());
        while let Some(pair) = self.0.kv.scan(keyspace::ARCHIVE, &from).next() {
            let Some(resource) = keyspace::resource_of_archived(&pair?.0) else { break };
            from = keyspace::after(&keyspace::archive_of(&resource));
            if !resources.contains(&resource) {
                found.push(resource);
            }
        }
        Ok(found)
    }

    /// Moves some archived documents of these resources to the outbox, in one commit. Documents of shops without a key
    /// (they were purged) are deleted.
    ///
    /// # Errors
    /// The engine's errors; then nothing has moved.
    pub async fn move_archived(&self, resources: &[String]) -> Result<MovedDocuments, StoreError> {
        let (resources, now) = (resources.to_vec(), self.now());
        self.transact(move |tx| step(tx, &resources, now)).await
    }
}

fn step(tx: &mut Tx<'_>, resources: &[String], now: Timestamp) -> Result<MovedDocuments, StoreError> {
    let (mut moved, mut bytes) = (MovedDocuments { is_last: true, ..MovedDocuments::default() }, 0);
    for resource in resources {
        let prefix = keyspace::archive_of(resource);
        let mut found = Vec::new();
        for pair in tx.pairs(&prefix, &prefix) {
            if moved.count as usize + found.len() >= MOVED_MAX || bytes >= MOVED_BYTES_MAX {
                moved.is_last = false;
                break;
            }
            let (key, record) = pair?;
            bytes += record.len();
            found.push((key, record));
        }
        moved.count += found.len() as u64;
        for (key, record) in found {
            if let Some((shop, id)) = archive::place(resource, &key)
                && has_key(tx, &shop)?
            {
                let one = Named { shop: &shop, resource, id: &id };
                moved.last_record = move_one(tx, one, &record, now)?;
            }
            tx.delete(key);
        }
        if !moved.is_last {
            return Ok(moved);
        }
    }
    for resource in resources {
        let index = keyspace::archive_index_of(resource);
        let found = tx.scan(&index, &index, POSTINGS_MAX)?;
        moved.is_last &= found.len() < POSTINGS_MAX;
        found.into_iter().for_each(|(key, _)| tx.delete(key));
    }
    if !moved.is_last {
        return Ok(moved);
    }
    // The archive needed the keys of deleted shops; MySQL needs them until it has their documents.
    if tx.pairs(keyspace::ARCHIVE, keyspace::ARCHIVE).next().transpose()?.is_none() {
        for (key, sealed) in tx.scan(keyspace::DELETED_SHOPS, keyspace::DELETED_SHOPS, usize::MAX)? {
            let shop = keyspace::only_shop(&key);
            if !sealed.is_empty() {
                outbox::append_shop_deleted(tx, &shop, false, now)?;
            }
        }
    }
    Ok(moved)
}

/// Whether the documents of a shop can be opened: it is registered, or was deleted without its documents.
fn has_key(tx: &Tx<'_>, shop: &str) -> Result<bool, StoreError> {
    let is_kept = |kept: Option<Vec<u8>>| kept.is_some_and(|key| !key.is_empty());
    Ok(shops::is_known(tx, shop)? || is_kept(tx.get(&keyspace::deleted_shop(shop))?))
}

/// The names of one document.
#[derive(Clone, Copy)]
struct Named<'a> {
    shop: &'a ShopId,
    resource: &'a str,
    id: &'a str,
}

/// Moves one document, and whether it is still listed; returns the outbox record that holds it.
fn move_one(tx: &mut Tx<'_>, one: Named<'_>, record: &[u8], now: Timestamp) -> Result<u64, StoreError> {
    let Named { shop, resource, id } = one;
    let (archived, sealed): (ArchiveHead, _) = decode_with("an archived document", record)?;
    let stream = StreamId { shop: shop.clone(), resource: resource.into(), combination: archived.combination.clone() };
    let row: Option<RowNote> = ledger::row_note(tx, &keyspace::row(&stream, id))?;
    let key = keyspace::document(shop, resource, id);
    let note: Option<DocumentNote> = ledger::document_note(tx, &key)?;
    // A later version has its own digests, and comes by itself.
    let is_same = |note: &&DocumentNote| note.version == archived.version;
    let document_hash = note.as_ref().filter(is_same).map_or(0, |note| note.hash);
    let head = EntryHead::Document(DocumentHead {
        shop: shop.clone(),
        resource: resource.to_owned(),
        combination: archived.combination,
        id: id.to_owned(),
        fetched_at: archived.fetched_at,
        first_listed_at: archived.first_listed_at,
        row_hash: row.map_or(0, |row| row.hash),
        document_hash,
        run: None,
        index: None,
    });
    let place = outbox::append_version(tx, archived.version, &head, &sealed, now)?;
    // It was forgotten while the sink did not have it, and the API did not know it then.
    if let Some(note) = note.filter(|note| note.version == GONE) {
        let note = DocumentNote { version: archived.version, ..note };
        tx.put(key, encode("a ledger document", &note)?);
    }
    let unlisted_at = match listing_state::listing_state(tx, shop, resource, id)? {
        ListingState::Unlisted(at) => Some(at),
        ListingState::Listed => None,
        // The shop was deleted, and its ledger with it.
        ListingState::Unknown => archived.no_longer_listed_at,
    };
    if unlisted_at.is_some() {
        outbox::append_listing(tx, &stream, id, unlisted_at, now)?;
    }
    Ok(place)
}
