//! The mirror of the embedded store in MySQL: shops, checkpoints, and what the ledger needs.
//!
//! Written with each batch; read to rebuild a data directory, and to find what the mirror itself lacks.

use std::collections::BTreeMap;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Params, TxOpts, Value};
use tokio::time::timeout;

use crate::domain::shop::{Shop, ShopState};
use crate::domain::stream::{Checkpoint, ListParams, StreamId};
use crate::domain::{ShopId, StoredVersion, Timestamp};
use crate::sink::{SinkError, SinkErrorClass};

use super::errors::sink_error;
use super::plan::Mirror;
use super::value::{datetime_value, optional_datetime_value, text_value, timestamp_of};
use super::{Mysql, READ_TIME_MAX};

const SHOP_WRITE: &str = "INSERT INTO `waybill_shops` \
     (`id`,`name`,`client_id`,`account`,`resources`,`state`,`reason`,`created_at`,`sealed`,`updated_at`) \
     VALUES (?,?,?,?,?,?,?,?,?,?) ON DUPLICATE KEY UPDATE \
     `name` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`name`), `name`), \
     `client_id` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`client_id`), `client_id`), \
     `account` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`account`), `account`), \
     `resources` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`resources`), `resources`), \
     `state` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`state`), `state`), \
     `reason` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`reason`), `reason`), \
     `sealed` = IF(VALUES(`updated_at`) >= `updated_at`, VALUES(`sealed`), `sealed`), \
     `updated_at` = GREATEST(`updated_at`, VALUES(`updated_at`))";

/// The reason of a refused shop, as MySQL has it.
const REFUSED: &str = "the shop's credentials were refused or cannot be read; resume it, or give it a new secret";

const SHOP_RESEAL: &str = "UPDATE `waybill_shops` SET `sealed` = ? WHERE `id` = ? AND `updated_at` = ?";

/// GREATEST of NULL is NULL, so each side substitutes for the other.
const CHECKPOINT_WRITE: &str = "INSERT INTO `waybill_checkpoints` \
     (`shop_id`,`resource`,`combination`,`walked_at`,`full_walk_at`,`newest`) VALUES (?,?,?,?,?,?) \
     ON DUPLICATE KEY UPDATE \
     `walked_at` = GREATEST(COALESCE(`walked_at`, VALUES(`walked_at`)), COALESCE(VALUES(`walked_at`), `walked_at`)), \
     `full_walk_at` = GREATEST(COALESCE(`full_walk_at`, VALUES(`full_walk_at`)), COALESCE(VALUES(`full_walk_at`), `full_walk_at`)), \
     `newest` = GREATEST(COALESCE(`newest`, VALUES(`newest`)), COALESCE(VALUES(`newest`), `newest`))";

/// The selected columns.
type ShopRow = (String, String, String, String, String, String, Option<String>, Value, Value, Vec<u8>);
type LedgerTuple = (String, String, u64, u64, u64, Value, Value, Value, Option<Vec<u8>>);

/// A row of the mirror of shops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredShop {
    pub shop: Shop,
    /// Its data key and secret, sealed.
    pub sealed: Vec<u8>,
    /// A column that was edited by hand and cannot be read; the shop has something harmless there.
    pub unreadable: Option<&'static str>,
}

/// What a rebuild of the ledger needs of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub id: String,
    pub combination: ListParams,
    pub version: u64,
    pub row_hash: u64,
    pub document_hash: u64,
    pub fetched_at: Timestamp,
    pub first_listed_at: Timestamp,
    pub no_longer_listed_at: Option<Timestamp>,
    /// The body of young documents, which decides when they are read next.
    pub document: Option<Vec<u8>>,
}

/// The statements of one change.
///
/// # Errors
/// Class `Poison` for a shop that cannot be serialised as JSON; no such case is known.
pub(super) fn statements(change: &Mirror<'_>) -> Result<Vec<(&'static str, Vec<Value>)>, SinkError> {
    Ok(match change {
        Mirror::Checkpoint { stream, checkpoint } => {
            let values = vec![
                text_value(&stream.shop),
                text_value(&stream.resource),
                text_value(&stream.combination.to_string()),
                optional_datetime_value(checkpoint.walked_at),
                optional_datetime_value(checkpoint.full_walk_at),
                optional_datetime_value(checkpoint.newest),
            ];
            vec![(CHECKPOINT_WRITE, values)]
        }
        Mirror::Shop { shop, sealed } => vec![(SHOP_WRITE, shop_values(shop, sealed)?)],
        Mirror::ShopDeleted { shop } => vec![
            ("DELETE FROM `waybill_shops` WHERE `id` = ?", vec![text_value(shop)]),
            ("DELETE FROM `waybill_checkpoints` WHERE `shop_id` = ?", vec![text_value(shop)]),
        ],
    })
}

/// A row as a shop; what cannot be read of it is named.
fn mirrored_shop(row: ShopRow) -> MirroredShop {
    let (id, name, client_id, account, resources, state, reason, created_at, updated_at, sealed) = row;
    let mut unreadable = None;
    let mut broken = |column| unreadable = unreadable.or(Some(column));
    let shop = Shop {
        name,
        client_id,
        account,
        resources: serde_json::from_str(&resources).unwrap_or_else(|_| {
            broken("resources");
            Vec::new()
        }),
        state: serde_json::from_value(state.into()).unwrap_or_else(|_| {
            broken("state");
            ShopState::Paused
        }),
        reason,
        created_at: timestamp_of(&created_at).unwrap_or_else(|| {
            broken("created_at");
            Timestamp::EPOCH
        }),
        updated_at: timestamp_of(&updated_at).unwrap_or_else(|| {
            broken("updated_at");
            Timestamp::EPOCH
        }),
        id: id.into(),
    };
    MirroredShop { shop, sealed, unreadable }
}

fn shop_values(shop: &Shop, sealed: &[u8]) -> Result<Vec<Value>, SinkError> {
    let unwritable = |error: serde_json::Error| {
        SinkError::new(SinkErrorClass::Poison, format!("shop {}: cannot be written as JSON: {error}", shop.id))
    };
    let resources = serde_json::to_string(&shop.resources).map_err(unwritable)?;
    let state = serde_json::to_value(&shop.state).map_err(unwritable)?;
    Ok(vec![
        text_value(&shop.id),
        text_value(&shop.name),
        text_value(&shop.client_id),
        text_value(&shop.account),
        text_value(&resources),
        text_value(state.as_str().unwrap_or_default()),
        mirrored_reason(shop).map_or(Value::NULL, text_value),
        datetime_value(shop.created_at),
        Value::Bytes(sealed.to_vec()),
        datetime_value(shop.updated_at),
    ])
}

/// The reason in our own words. That of a refused shop quotes the login host, which may quote anything; it is sealed in the
/// store, and does not go where everybody reads who may read documents.
fn mirrored_reason(shop: &Shop) -> Option<&str> {
    let reason = shop.reason.as_deref()?;
    Some(if shop.state == ShopState::Refused { REFUSED } else { reason })
}

/// Which rows of the ledger to read.
#[derive(Clone, Copy, Debug)]
pub struct LedgerPart<'a> {
    pub resource: &'a str,
    pub shop: &'a str,
    /// The last id of the part before; empty: from the beginning.
    pub after: &'a str,
    /// Documents first listed then or later are read too; None: no documents.
    pub young_since: Option<Timestamp>,
    pub limit: usize,
}

impl Mysql {
    /// Whether the table of mirrored shops exists, as far as this user can see.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn has_mirror(&self) -> Result<bool, SinkError> {
        self.has_table("waybill_shops").await
    }

    /// Whether a table exists, as far as this user can see.
    pub(super) async fn has_table(&self, name: &str) -> Result<bool, SinkError> {
        let text = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
        let counted: Vec<u64> = self.read(text, Params::Positional(vec![text_value(name)])).await?;
        Ok(counted.iter().any(|count| *count > 0))
    }

    /// As [`Mysql::shops`]; none if the tables are not created yet.
    ///
    /// # Errors
    /// As [`Mysql::shops`].
    pub async fn shops_if_any(&self) -> Result<Vec<MirroredShop>, SinkError> {
        if self.has_mirror().await? { self.shops().await } else { Ok(Vec::new()) }
    }

    /// Reads all mirrored shops with their encrypted secrets, by id.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn shops(&self) -> Result<Vec<MirroredShop>, SinkError> {
        let text = "SELECT `id`,`name`,`client_id`,`account`,`resources`,`state`,`reason`,`created_at`,`updated_at`,\
                    `sealed` FROM `waybill_shops` ORDER BY `id`";
        let rows: Vec<ShopRow> = self.read(text, Params::Empty).await?;
        Ok(rows.into_iter().map(mirrored_shop).collect())
    }

    /// Seals rows of the mirror again, each if it is still of that change; returns how many.
    ///
    /// # Errors
    /// The server's; then none of them is changed.
    pub async fn reseal_shops(&self, shops: &[(Shop, Vec<u8>)]) -> Result<u64, SinkError> {
        let mut conn = self.connection().await?;
        let write = async {
            let mut transaction =
                conn.start_transaction(TxOpts::default()).await.map_err(|error| sink_error(&error))?;
            self.pass_fence(&mut transaction, 0).await?;
            let mut changed = 0;
            for (shop, sealed) in shops {
                let values = vec![Value::Bytes(sealed.clone()), text_value(&shop.id), datetime_value(shop.updated_at)];
                let written = transaction.exec_drop(SHOP_RESEAL, values).await;
                written.map_err(|error| sink_error(&error))?;
                changed += transaction.affected_rows();
            }
            transaction.commit().await.map_err(|error| sink_error(&error))?;
            Ok(changed)
        };
        let outcome = timeout(READ_TIME_MAX, write).await;
        self.settle(conn, outcome).await
    }

    /// Reads the ids of all mirrored shops, each with its last change.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn mirrored_shops(&self) -> Result<BTreeMap<ShopId, Timestamp>, SinkError> {
        let rows: Vec<(String, Value)> =
            self.read("SELECT `id`,`updated_at` FROM `waybill_shops`", Params::Empty).await?;
        Ok(rows.into_iter().map(|(id, at)| (id.into(), timestamp_of(&at).unwrap_or_default())).collect())
    }

    /// The mirrored shops of whose documents a resource's table has none.
    ///
    /// # Errors
    /// The server's; class `Operator` for a resource that is not configured. Cancel safe.
    pub async fn shops_without_rows(&self, resource: &str) -> Result<Vec<ShopId>, SinkError> {
        let table = &self.layout(resource)?.parent.name;
        let text = format!(
            "SELECT s.`id` FROM `waybill_shops` s WHERE NOT EXISTS (SELECT 1 FROM `{table}` d WHERE d.`shop_id` = s.`id`)"
        );
        let ids: Vec<String> = self.read(&text, Params::Empty).await?;
        Ok(ids.into_iter().map(ShopId::from).collect())
    }

    /// Reads all mirrored checkpoints, by stream.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn checkpoints(&self) -> Result<Vec<(StreamId, Checkpoint)>, SinkError> {
        let text = "SELECT `shop_id`,`resource`,`combination`,`walked_at`,`full_walk_at`,`newest` \
                    FROM `waybill_checkpoints` ORDER BY `shop_id`,`resource`,`combination`";
        let rows: Vec<(String, String, String, Value, Value, Value)> = self.read(text, Params::Empty).await?;
        Ok(rows
            .into_iter()
            .map(|(shop, resource, combination, walked_at, full_walk_at, newest)| {
                let combination = self.combination(&resource, &combination);
                let checkpoint = Checkpoint {
                    walked_at: timestamp_of(&walked_at),
                    walked_before: None,
                    full_walk_at: timestamp_of(&full_walk_at),
                    newest: timestamp_of(&newest),
                };
                (StreamId { shop: shop.into(), resource, combination }, checkpoint)
            })
            .collect())
    }

    /// Reads a part of the ledger state, by id.
    ///
    /// # Errors
    /// The server's; class `Operator` for a resource that is not configured. Cancel safe.
    pub async fn ledger(&self, part: LedgerPart<'_>) -> Result<Vec<LedgerRow>, SinkError> {
        let LedgerPart { resource, shop, after, young_since, limit } = part;
        let layout = self.layout(resource)?;
        let (table, id) = (&layout.parent.name, &layout.definition.table.id_column);
        let text = format!(
            "SELECT `{id}`,`combination`,`version`,`row_hash`,`document_hash`,`fetched_at`,`first_listed_at`,\
             `no_longer_listed_at`, IF(`first_listed_at` >= ?, `document`, NULL) FROM `{table}` \
             WHERE `shop_id` = ? AND `{id}` > ? ORDER BY `{id}` LIMIT ?"
        );
        let values =
            vec![optional_datetime_value(young_since), text_value(shop), text_value(after), Value::UInt(limit as u64)];
        let rows: Vec<LedgerTuple> = self.read(&text, Params::Positional(values)).await?;
        Ok(rows
            .into_iter()
            .map(|(id, combination, version, row_hash, document_hash, fetched_at, first, gone, document)| LedgerRow {
                id,
                combination: self.combination(resource, &combination),
                version,
                row_hash,
                document_hash,
                fetched_at: timestamp_of(&fetched_at).unwrap_or(Timestamp::EPOCH),
                first_listed_at: timestamp_of(&first).unwrap_or(Timestamp::EPOCH),
                no_longer_listed_at: timestamp_of(&gone),
                document,
            })
            .collect())
    }

    /// Reads which versions of one shop's documents are stored, with ids above `after`, ascending, at most `limit`.
    ///
    /// # Errors
    /// The server's; class `Operator` for a resource that is not configured. Cancel safe.
    pub async fn held(
        &self,
        resource: &str,
        shop: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, StoredVersion)>, SinkError> {
        let layout = self.layout(resource)?;
        let (table, id) = (&layout.parent.name, &layout.definition.table.id_column);
        let text = format!(
            "SELECT `{id}`, `version`, `no_longer_listed_at` IS NULL FROM `{table}` \
             WHERE `shop_id` = ? AND `{id}` > ? ORDER BY `{id}` LIMIT ?"
        );
        let values = vec![text_value(shop), text_value(after), Value::UInt(limit as u64)];
        let rows: Vec<(String, u64, bool)> = self.read(&text, Params::Positional(values)).await?;
        Ok(rows.into_iter().map(|(id, version, is_listed)| (id, StoredVersion { version, is_listed })).collect())
    }

    /// One bounded read on a connection of its own, all rows.
    pub(super) async fn read<R: FromRow + Send + 'static>(
        &self,
        text: &str,
        values: Params,
    ) -> Result<Vec<R>, SinkError> {
        let mut rows = Vec::new();
        let take = |row| {
            rows.push(row);
            Ok(true)
        };
        self.read_while(text, values, take).await?;
        Ok(rows)
    }

    /// One bounded read on a connection of its own, row by row, while `take` accepts them. The pool drains unread rows
    /// before the connection is reused.
    pub(super) async fn read_while<R: FromRow + Send + 'static>(
        &self,
        text: &str,
        values: Params,
        mut take: impl FnMut(R) -> Result<bool, SinkError> + Send,
    ) -> Result<(), SinkError> {
        let _permit = self.may_read().await?;
        let mut conn = self.connection().await?;
        let read = async {
            let mut rows = conn.exec_iter(text, values).await.map_err(|error| sink_error(&error))?;
            while let Some(row) = rows.next().await.map_err(|error| sink_error(&error))? {
                if !take(R::from_row(row))? {
                    break;
                }
            }
            Ok(())
        };
        let outcome = timeout(READ_TIME_MAX, read).await;
        self.settle(conn, outcome).await
    }

    /// The list parameters that a stored text denotes.
    pub(super) fn combination(&self, resource: &str, text: &str) -> ListParams {
        let layout = self.layouts.iter().find(|layout| layout.definition.name == resource);
        let known = layout.and_then(|layout| {
            layout.definition.list.combinations.iter().find(|combination| combination.to_string() == text)
        });
        // No longer configured: parse its parts as far as possible.
        known.cloned().unwrap_or_else(|| {
            let parts = text.split('&').filter_map(|part| part.split_once('='));
            ListParams(parts.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        })
    }
}
