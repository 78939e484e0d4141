//! Lays stored documents out again, for columns and tables that were added later: from `document`, without a call of
//! the API.
//!
//! In the order of keys, a batch a transaction. A batch locks its rows, so that a writer beside it comes before or
//! after; its place is kept in the same transaction (`waybill_replays`), so that a kill at any moment costs one batch.
//! What is written is what the writer would write, of the same version; nothing else changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{FromRowError, Row, Transaction, TxOpts, Value};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::domain::document::{Document, Entry};
use crate::sink::{SinkError, SinkErrorClass};

use super::Mysql;
use super::errors::sink_error;
use super::layout::Layout;
use super::plan::{Plan, Rows};
use super::value::{RowBuffer, millis_of, text_value};
use super::write::{self, STATEMENT_BYTES_MAX, STATEMENT_BYTES_SPARE};

/// Documents of a batch: few enough that a writer who waits for one of them is not held up.
const BATCH: u64 = 500;
const BATCH_TIME_MAX: Duration = Duration::from_secs(60);

/// How far a replay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Documents laid out so far, by earlier calls too.
    pub documents: u64,
    pub ended: bool,
}

/// Where it goes on.
#[derive(Default)]
struct Place {
    shop: String,
    id: String,
    documents: u64,
    ended: bool,
}

impl Mysql {
    /// How far the replay of a resource has come with its tables as they are defined now.
    ///
    /// # Errors
    /// The server's; class `Operator` for a resource that is not configured. Cancel safe.
    pub async fn replayed(&self, resource: &str) -> Result<Replayed, SinkError> {
        let layout = self.layout(resource)?;
        let mut conn = self.connection().await?;
        let outcome = timeout(BATCH_TIME_MAX, place(&mut conn, layout)).await;
        let place = self.settle(conn, outcome).await?;
        Ok(Replayed { documents: place.documents, ended: place.ended })
    }

    /// How many documents of a resource there are, about: the server's own estimate.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn rows_about(&self, resource: &str) -> Result<u64, SinkError> {
        let text = "SELECT COALESCE(`table_rows`, 0) FROM `information_schema`.`tables` \
                    WHERE `table_schema` = DATABASE() AND `table_name` = ?";
        let table = &self.layout(resource)?.parent.name;
        let rows: Vec<u64> = self.read(text, mysql_async::Params::Positional(vec![text_value(table)])).await?;
        Ok(rows.first().copied().unwrap_or(0))
    }

    /// Begins a replay of a resource from the first document on.
    ///
    /// # Errors
    /// As [`Mysql::replayed`].
    pub async fn forget_replay(&self, resource: &str) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        let done = conn.exec_drop("DELETE FROM `waybill_replays` WHERE `resource` = ?", (resource,));
        let outcome = timeout(BATCH_TIME_MAX, done).await;
        self.settle(conn, outcome.map(|done| done.map_err(|error| sink_error(&error)))).await
    }

    /// Lays the next batch of a resource's documents out again.
    ///
    /// # Errors
    /// The batch was not applied, except with class `Unconfirmed`, where that is not known; another call goes on
    /// where it must. Class `Operator` for a resource that is not configured. Cancel safe in the same sense.
    pub async fn replay_some(&self, resource: &str) -> Result<Replayed, SinkError> {
        let layout = self.layout(resource)?;
        let mut conn = self.connection().await?;
        let outcome = timeout(BATCH_TIME_MAX, self.replay_batch(&mut conn, layout)).await;
        self.settle(conn, outcome).await
    }

    async fn replay_batch(&self, conn: &mut mysql_async::Conn, layout: &Layout) -> Result<Replayed, SinkError> {
        let row_bytes_max = self.packet(conn).await?.saturating_sub(STATEMENT_BYTES_SPARE);
        let mut transaction = conn.start_transaction(TxOpts::default()).await.map_err(|error| sink_error(&error))?;
        let before = place(&mut transaction, layout).await?;
        let entries = self.locked(&mut transaction, layout, &before).await?;
        let last = entries.last().and_then(|entry| match entry {
            Entry::Document(document) => Some((document.shop.clone(), document.id.clone())),
            _ => None,
        });
        let documents = before.documents + entries.len() as u64;
        let ended = (entries.len() as u64) < BATCH;
        lay_out(&mut transaction, layout, &entries, row_bytes_max).await?;
        let (shop, id) = last.unwrap_or((before.shop, before.id));
        let text = "REPLACE INTO `waybill_replays` (`resource`,`fingerprint`,`shop_id`,`id`,`documents`,`ended_at`) \
                    VALUES (?,?,?,?,?,IF(?, UTC_TIMESTAMP(6), NULL))";
        let values = vec![
            text_value(&layout.definition.name),
            text_value(&fingerprint(layout)),
            text_value(&shop),
            text_value(&id),
            Value::UInt(documents),
            Value::from(ended),
        ];
        write::execute(&mut transaction, text, values).await?;
        write::commit(transaction).await?;
        Ok(Replayed { documents, ended })
    }

    /// The next documents, locked until the transaction ends.
    async fn locked(
        &self,
        transaction: &mut Transaction<'_>,
        layout: &Layout,
        after: &Place,
    ) -> Result<Vec<Entry>, SinkError> {
        let (table, id) = (&layout.parent.name, &layout.definition.table.id_column);
        // In two ranges: a comparison of pairs would not use the key.
        let columns = format!(
            "SELECT `shop_id`,`{id}`,`combination`,`document`,`version`,`fetched_at`,`first_listed_at`,`row_hash`,\
             `document_hash` FROM `{table}`"
        );
        let order = format!("ORDER BY `shop_id`,`{id}` LIMIT ? FOR UPDATE");
        let same = format!("{columns} WHERE `shop_id` = ? AND `{id}` > ? {order}");
        let values = vec![text_value(&after.shop), text_value(&after.id), Value::UInt(BATCH)];
        let mut found: Vec<Stored> = transaction.exec(same, values).await.map_err(|error| sink_error(&error))?;
        let left = BATCH - found.len() as u64;
        if left > 0 {
            let next = format!("{columns} WHERE `shop_id` > ? {order}");
            let values = vec![text_value(&after.shop), Value::UInt(left)];
            let more: Vec<Stored> = transaction.exec(next, values).await.map_err(|error| sink_error(&error))?;
            found.extend(more);
        }
        let resource = &layout.definition.name;
        Ok(found.into_iter().map(|stored| stored.entry(resource, |text| self.combination(resource, text))).collect())
    }
}

/// Writes what the writer would write. The children are made anew, as their table may have been of another form.
async fn lay_out(
    transaction: &mut Transaction<'_>,
    layout: &Layout,
    entries: &[Entry],
    row_bytes_max: usize,
) -> Result<(), SinkError> {
    let plan = Plan::new(entries, std::slice::from_ref(layout))?;
    let mut rows = Rows::new(layout);
    for reading in plan.documents.iter().flat_map(|documents| documents.values()) {
        match rows.push(layout, reading, row_bytes_max) {
            // Somebody changed it by hand, so that it is no JSON any more: its columns stay as they are.
            Err(error) if error.class == SinkErrorClass::Poison => tracing::warn!(%error, "a document was left out"),
            pushed => pushed?,
        }
    }
    let bytes_max = STATEMENT_BYTES_MAX.min(row_bytes_max);
    for clearing in &layout.clearings {
        let mut keys = RowBuffer::new(2);
        for (shop, id) in &rows.keys {
            keys.push([text_value(shop), text_value(id)].into_iter());
        }
        for (text, values) in keys.cut(clearing, bytes_max) {
            write::execute(transaction, text, values).await?;
        }
    }
    write::write_rows(transaction, layout, rows, bytes_max).await
}

async fn place(conn: &mut impl Queryable, layout: &Layout) -> Result<Place, SinkError> {
    let text = "SELECT `shop_id`,`id`,`documents`,`ended_at` IS NOT NULL FROM `waybill_replays` \
                WHERE `resource` = ? AND `fingerprint` = ?";
    let values = (layout.definition.name.as_str(), fingerprint(layout));
    let found: Option<(String, String, u64, bool)> =
        conn.exec_first(text, values).await.map_err(|error| sink_error(&error))?;
    Ok(found.map(|(shop, id, documents, ended)| Place { shop, id, documents, ended }).unwrap_or_default())
}

/// Tells one form of a resource's tables from another.
fn fingerprint(layout: &Layout) -> String {
    let form = format!("{:?}", layout.definition.table);
    Sha256::digest(form.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A stored document with all that the writer knew of it.
struct Stored {
    key: (String, String),
    combination: String,
    document: Vec<u8>,
    version: u64,
    times: [Value; 2],
    hashes: [u64; 2],
}

impl FromRow for Stored {
    fn from_row_opt(row: Row) -> Result<Stored, FromRowError> {
        let (shop, id, combination, document, version, fetched_at, first_listed_at, row_hash, document_hash) =
            FromRow::from_row_opt(row)?;
        let (times, hashes) = ([fetched_at, first_listed_at], [row_hash, document_hash]);
        Ok(Stored { key: (shop, id), combination, document, version, times, hashes })
    }
}

impl Stored {
    fn entry(self, resource: &str, combination: impl FnOnce(&str) -> crate::domain::Combination) -> Entry {
        let [fetched_at, first_listed_at] = self.times.map(|time| millis_of(&time).unwrap_or(0));
        let [row_hash, document_hash] = self.hashes;
        Entry::Document(Document {
            shop: self.key.0,
            resource: resource.to_owned(),
            combination: combination(&self.combination),
            id: self.key.1,
            version: self.version,
            fetched_at,
            first_listed_at,
            row_hash,
            document_hash,
            run: None,
            body: Bytes::from(self.document),
        })
    }
}

/// The statements that make the tables of these definitions, ours first.
///
/// # Errors
/// The text of what makes a definition unfit for a table.
pub fn ddl(definitions: &[Arc<crate::catalog::Definition>], with_own: bool) -> Result<Vec<String>, String> {
    let own = super::schema::MIGRATIONS.iter().map(|(_, _, text)| (*text).trim().to_owned());
    let mut statements: Vec<String> = if with_own { own.collect() } else { Vec::new() };
    for definition in definitions {
        let layout = Layout::new(Arc::clone(definition))?;
        statements.extend(layout.tables().map(super::layout::SqlTable::create));
    }
    Ok(statements)
}
