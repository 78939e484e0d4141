//! Fills columns and tables that were added later, from the stored `document`, without a call of the API.
//!
//! In key order, one transaction per batch. A batch locks its rows, so that a concurrent writer comes before or after;
//! its position is stored in the same transaction (`waybill_replays`), so that a kill costs at most one batch. Only
//! typed columns and child rows are written, and the server changes only what differs: version, hashes, times and the
//! document stay as they are. Child rows are replaced by version, as in the writer.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Params, Transaction, TxOpts, Value};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::catalog::definition::{Column, Table};
use crate::catalog::extract::extract;
use crate::domain::{Json, ListParams};
use crate::sink::SinkError;

use super::Mysql;
use super::errors::sink_error;
use super::execute::{Bounds, STATEMENT_BYTES_MAX, STATEMENT_BYTES_SPARE, commit, execute};
use super::layout::Layout;
use super::plan::{ChildRows, DocumentKey};
use super::replace::{Locked, replace_all_children, send};
use super::value::{RowBuffer, cell_value, text_value};

/// Documents per batch: few enough not to delay a writer that waits for one of them.
const BATCH_MAX: u64 = 500;
/// Documents of the first batch, whose sizes are unknown.
const BATCH_FIRST: u64 = 20;
/// Document bytes per batch, unless a single one has more.
const BATCH_BYTES: u64 = 4 << 20;
/// Documents whose child rows are rewritten in one transaction.
const REWRITTEN_AT_ONCE: usize = 20;
const BATCH_TIME_MAX: Duration = Duration::from_secs(60);

/// What to lay out again.
#[derive(Clone, Copy, Debug)]
pub struct ReplayScope<'a> {
    pub resource: &'a str,
    /// None: all shops.
    pub shop: Option<&'a str>,
}

/// Progress of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Documents laid out so far, by earlier calls too.
    pub documents: u64,
    pub ended: bool,
    /// Maximum documents of the next call.
    pub next: u64,
}

/// Where it continues.
#[derive(Default)]
struct ReplayPosition {
    shop: String,
    id: String,
    documents: u64,
    ended: bool,
}

/// A stored document: shop, id, combination, document, version.
type StoredDocument = (String, String, String, Vec<u8>, u64);

impl ReplayScope<'_> {
    fn shop_text(&self) -> Value {
        text_value(self.shop.unwrap_or_default())
    }
}

impl Mysql {
    /// Progress of a replay with the tables as defined now. A replay of all shops covers each of them.
    ///
    /// # Errors
    /// The server's; class `Operator` for a resource that is not configured. Cancel safe.
    pub async fn replayed(&self, scope: ReplayScope<'_>) -> Result<Replayed, SinkError> {
        let layout = self.layout(scope.resource)?;
        let mut conn = self.connection().await?;
        let both = async {
            let all = place(&mut conn, layout, ReplayScope { shop: None, ..scope }).await?;
            if all.ended { Ok(all) } else { place(&mut conn, layout, scope).await }
        };
        let outcome = timeout(BATCH_TIME_MAX, both).await;
        let place = self.settle(conn, outcome).await?;
        Ok(Replayed { documents: place.documents, ended: place.ended, next: BATCH_FIRST })
    }

    /// The number of documents of a resource, as the server estimates it.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn documents_about(&self, resource: &str) -> Result<u64, SinkError> {
        let text = "SELECT COALESCE(`table_rows`, 0) FROM `information_schema`.`tables` \
                    WHERE `table_schema` = DATABASE() AND `table_name` = ?";
        let table = &self.layout(resource)?.parent.name;
        let rows: Vec<u64> = self.read(text, Params::Positional(vec![text_value(table)])).await?;
        Ok(rows.first().copied().unwrap_or_default())
    }

    /// Forgets the progress: the next replay begins with the first document.
    ///
    /// # Errors
    /// As [`Mysql::replayed`].
    pub async fn forget_replay(&self, scope: ReplayScope<'_>) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        // Repeating one shop voids the progress of all shops; repeating all shops voids the progress of each.
        let text = "DELETE FROM `waybill_replays` WHERE `resource` = ? AND (? = '' OR `only_shop` IN ('', ?))";
        let values = vec![text_value(scope.resource), scope.shop_text(), scope.shop_text()];
        let outcome = timeout(BATCH_TIME_MAX, conn.exec_drop(text, values)).await;
        self.settle(conn, outcome.map(|done| done.map_err(|error| sink_error(&error)))).await
    }

    /// Lays out the next documents again, at most `batch`, and fewer where they are large.
    ///
    /// # Errors
    /// The documents were not changed, except with class `Unconfirmed`, where that is unknown; another call continues
    /// where it must. Class `Operator` for a resource that is not configured. Cancel safe in the same sense.
    pub async fn replay_some(&self, scope: ReplayScope<'_>, batch: u64) -> Result<Replayed, SinkError> {
        let layout = self.layout(scope.resource)?;
        let mut conn = self.connection().await?;
        let replay = async {
            let mut refill = Refill::begin(self, &mut conn, layout).await?;
            let replayed = refill.next_batch(scope, batch).await?;
            commit(refill.transaction).await.map(|()| replayed)
        };
        let outcome = timeout(BATCH_TIME_MAX, replay).await;
        self.settle(conn, outcome).await
    }

    /// Rewrites the child rows of documents from the stored documents; returns how many documents were found.
    ///
    /// # Errors
    /// As [`Mysql::replay_some`]; rows written before the failure stay.
    pub async fn rewrite_children(&self, resource: &str, shop: &str, ids: &[String]) -> Result<u64, SinkError> {
        let layout = self.layout(resource)?;
        let mut documents = 0;
        for some in ids.chunks(REWRITTEN_AT_ONCE) {
            let mut conn = self.connection().await?;
            let rewrite = async {
                let mut refill = Refill::begin(self, &mut conn, layout).await?;
                let found = refill.named(shop, some).await?;
                commit(refill.transaction).await.map(|()| found)
            };
            let outcome = timeout(BATCH_TIME_MAX, rewrite).await;
            documents += self.settle(conn, outcome).await?;
        }
        Ok(documents)
    }
}

/// A transaction that fills columns and child rows from stored documents.
struct Refill<'a> {
    mysql: &'a Mysql,
    layout: &'a Layout,
    transaction: Transaction<'a>,
    /// Size limit of a statement.
    bytes_max: usize,
}

impl<'a> Refill<'a> {
    async fn begin(mysql: &'a Mysql, conn: &'a mut Conn, layout: &'a Layout) -> Result<Refill<'a>, SinkError> {
        let bytes_max = mysql.packet(conn).await?.saturating_sub(STATEMENT_BYTES_SPARE).min(STATEMENT_BYTES_MAX);
        let mut transaction = conn.start_transaction(TxOpts::default()).await.map_err(|error| sink_error(&error))?;
        // A replay of a command has no owner and needs none: it changes no document.
        mysql.pass_fence(&mut transaction, 0).await?;
        Ok(Refill { mysql, layout, transaction, bytes_max })
    }

    /// Refills the named documents of a shop; returns how many were found.
    async fn named(&mut self, shop: &str, ids: &[String]) -> Result<u64, SinkError> {
        let id = &self.layout.definition.table.id_column;
        let text = format!(
            "SELECT `shop_id`,`{id}`,`combination`,`document`,`version` FROM `{}` WHERE `shop_id` = ? AND `{id}` IN ({}) \
             ORDER BY `{id}` FOR UPDATE",
            self.layout.parent.name,
            vec!["?"; ids.len()].join(",")
        );
        let values: Vec<Value> = [shop].into_iter().chain(ids.iter().map(String::as_str)).map(text_value).collect();
        let stored: Vec<StoredDocument> = self.read(text, values).await?;
        self.write(&stored).await?;
        Ok(stored.len() as u64)
    }

    /// Refills the next documents, and stores the new position.
    async fn next_batch(&mut self, scope: ReplayScope<'_>, batch: u64) -> Result<Replayed, SinkError> {
        let before = place(&mut self.transaction, self.layout, scope).await?;
        let lengths: Vec<u64> = self.after(&before, scope, &StoredPart::Length, batch).await?;
        let (fit, met) = (fitting(&lengths), lengths.len() as u64);
        let stored: Vec<StoredDocument> = self.after(&before, scope, &StoredPart::Locked, fit).await?;
        self.write(&stored).await?;
        let documents = before.documents + stored.len() as u64;
        let ended = met < batch && fit == met;
        let (shop, id) = stored.last().map_or((&before.shop, &before.id), |(shop, id, ..)| (shop, id));
        let text = "REPLACE INTO `waybill_replays` \
                    (`resource`,`only_shop`,`fingerprint`,`shop_id`,`id`,`documents`,`ended_at`) \
                    VALUES (?,?,?,?,?,?,IF(?, UTC_TIMESTAMP(6), NULL))";
        let values = vec![
            text_value(scope.resource),
            scope.shop_text(),
            text_value(&fingerprint(&self.layout.definition.table)),
            text_value(shop),
            text_value(id),
            Value::UInt(documents),
            Value::from(ended),
        ];
        execute(&mut self.transaction, text, values).await?;
        let next = if fit < met { fit } else { batch.saturating_mul(2) };
        Ok(Replayed { documents, ended, next: next.clamp(1, BATCH_MAX) })
    }

    /// Reads at most `limit` documents after a place.
    async fn after<T: FromRow + Send + 'static>(
        &mut self,
        after: &ReplayPosition,
        scope: ReplayScope<'_>,
        part: &StoredPart,
        limit: u64,
    ) -> Result<Vec<T>, SinkError> {
        let (table, id) = (&self.layout.parent.name, &self.layout.definition.table.id_column);
        let (columns, lock) = match part {
            StoredPart::Length => ("LENGTH(`document`)".to_owned(), ""),
            StoredPart::Locked => (format!("`shop_id`,`{id}`,`combination`,`document`,`version`"), "FOR UPDATE"),
        };
        // In two ranges: a comparison of pairs would not use the key.
        let columns = format!("SELECT {columns} FROM `{table}`");
        let order = format!("ORDER BY `shop_id`,`{id}` LIMIT ? {lock}");
        let same = format!("{columns} WHERE `shop_id` = ? AND `{id}` > ? {order}");
        let values = vec![text_value(scope.shop.unwrap_or(&after.shop)), text_value(&after.id), Value::UInt(limit)];
        let mut found: Vec<T> = self.read(same, values).await?;
        let left = limit.saturating_sub(found.len() as u64);
        if left > 0 && scope.shop.is_none() {
            let next = format!("{columns} WHERE `shop_id` > ? {order}");
            found.extend(self.read::<T>(next, vec![text_value(&after.shop), Value::UInt(left)]).await?);
        }
        Ok(found)
    }

    async fn read<T: FromRow + Send + 'static>(
        &mut self,
        text: String,
        values: Vec<Value>,
    ) -> Result<Vec<T>, SinkError> {
        self.transaction.exec(text, values).await.map_err(|error| sink_error(&error))
    }

    /// Lays out documents whose rows this transaction has locked, and writes their columns and child rows.
    async fn write(&mut self, stored: &[StoredDocument]) -> Result<(), SinkError> {
        let mut fresh = Fresh::new(self.layout);
        for one in stored {
            fresh.push(self.layout, one, &self.mysql.combination(&self.layout.definition.name, &one.2));
        }
        let Fresh { own, children, documents } = fresh;
        let bounds = Bounds { bytes: self.bytes_max, alone: documents.len() == 1 };
        send(&mut self.transaction, own, &self.layout.refills, bounds).await?;
        let all: Vec<usize> = (0..documents.len()).collect();
        let locked = Locked { documents: &documents, ours: &all };
        replace_all_children(&mut self.transaction, self.layout, children, locked, bounds).await
    }
}

/// How many of the next documents fit a batch by their lengths: at least one, if there is one.
fn fitting(lengths: &[u64]) -> u64 {
    let mut bytes = 0_u64;
    let fits = |length: &&u64| {
        bytes = bytes.saturating_add(**length);
        bytes <= BATCH_BYTES
    };
    let fit = lengths.iter().take_while(fits).count();
    fit.max(1).min(lengths.len()) as u64
}

/// What to read of each document.
enum StoredPart {
    Length,
    /// All of it, locked until the transaction ends.
    Locked,
}

/// Documents laid out again.
struct Fresh<'a> {
    own: RowBuffer,
    children: Vec<ChildRows>,
    documents: Vec<DocumentKey<'a>>,
}

impl<'a> Fresh<'a> {
    fn new(layout: &Layout) -> Fresh<'a> {
        Fresh {
            own: RowBuffer::new(layout.definition.table.columns.len() + 2),
            children: layout.children.iter().map(|child| ChildRows::new(child.width)).collect(),
            documents: Vec::new(),
        }
    }

    /// Skips a document that was edited by hand and is no longer JSON.
    fn push(&mut self, layout: &Layout, stored: &'a StoredDocument, combination: &ListParams) {
        let (shop, id, _, document, version) = stored;
        let Ok(value) = Json::parse(document) else {
            tracing::warn!(
                shop.id = shop,
                document.id = id,
                "a stored document is not JSON; its columns are left unchanged"
            );
            return;
        };
        let table = &layout.definition.table;
        let laid_out = extract(&layout.definition, id, &value, combination);
        let own = laid_out.cells.into_iter().zip(&table.columns).map(|(cell, column)| cell_value(cell, column.kind));
        self.own.push([text_value(shop), text_value(id)].into_iter().chain(own));
        let key = DocumentKey { shop, id, version: *version };
        for ((rows, child), of_child) in laid_out.children.into_iter().zip(&table.children).zip(&mut self.children) {
            of_child.push(self.documents.len(), key, child, rows);
        }
        self.documents.push(key);
    }
}

async fn place(
    conn: &mut impl Queryable,
    layout: &Layout,
    scope: ReplayScope<'_>,
) -> Result<ReplayPosition, SinkError> {
    let text = "SELECT `shop_id`,`id`,`documents`,`ended_at` IS NOT NULL FROM `waybill_replays` \
                WHERE `resource` = ? AND `only_shop` = ? AND `fingerprint` = ?";
    let fingerprint = fingerprint(&layout.definition.table);
    let values = vec![text_value(scope.resource), scope.shop_text(), text_value(&fingerprint)];
    let found: Option<(String, String, u64, bool)> =
        conn.exec_first(text, values).await.map_err(|error| sink_error(&error))?;
    Ok(found.map(|(shop, id, documents, ended)| ReplayPosition { shop, id, documents, ended }).unwrap_or_default())
}

/// Forgets the progress of other layouts: if their columns return, documents written meanwhile lack them.
pub(super) async fn forget_other_layouts(conn: &mut Conn, layout: &Layout) -> Result<(), SinkError> {
    let text = "DELETE FROM `waybill_replays` WHERE `resource` = ? AND `fingerprint` <> ?";
    let values = (&layout.definition.name, fingerprint(&layout.definition.table));
    conn.exec_drop(text, values).await.map_err(|error| sink_error(&error))
}

/// Hash of a resource's layout; indexes, filters and table names do not change it.
fn fingerprint(table: &Table) -> String {
    let mut digest = Sha256::new();
    let mut add = |name: &str, columns: &[Column]| {
        digest.update(format!("{name}\n"));
        for Column { name, source, kind, zone } in columns {
            digest.update(format!("{name} {source:?} {kind}\n"));
            if let Some(zone) = zone {
                digest.update(format!("{}\n", zone.iana_name().unwrap_or_default()));
            }
        }
    };
    add("", &table.columns);
    for child in &table.children {
        add(&format!("{} {}", child.name, child.from), &child.columns);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
