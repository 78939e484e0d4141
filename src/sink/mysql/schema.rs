//! Brings the database to what this binary needs: our own tables by numbered migrations, the
//! resources' tables by comparing them with their definitions.
//!
//! Nothing is ever dropped or narrowed, and nothing is changed that is as it should be, so that a
//! user without rights for DDL can start on a prepared database. DDL knows no transactions: each
//! step can be repeated, and a named lock keeps two processes from doing it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::timeout;

use crate::sink::{SinkError, SinkErrorClass};

use super::errors::sink_error;
use super::layout::{Layout, SqlColumn, SqlTable, key_part, varchar_chars};
use super::{Mysql, close};

/// An index on a large table takes its time.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(3600);
/// How long to wait for another process that prepares the same database, in seconds.
const LOCK_WAIT_S: u32 = 300;

/// One change a file; the number is its place. A file that was released is never changed.
pub(super) const MIGRATIONS: [(u32, &str, &str); 3] = [
    (1, "waybill_shops", include_str!("../../../sql/0001_waybill_shops.sql")),
    (2, "waybill_checkpoints", include_str!("../../../sql/0002_waybill_checkpoints.sql")),
    (3, "waybill_replays", include_str!("../../../sql/0003_waybill_replays.sql")),
];

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS `waybill_migrations` (\
     `number` INT UNSIGNED NOT NULL PRIMARY KEY, `name` VARCHAR(64) NOT NULL, `applied_at` DATETIME(6) NOT NULL\
     ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// At most 64 characters, which is what a name of a lock may have.
const LOCK_NAME: &str = "CONCAT('waybill.', SHA2(DATABASE(), 224))";

/// A row is too wide with one more column of this type.
const ROW_TOO_WIDE: u16 = 1118;
/// A lock was waited for long enough.
const LOCKED: u16 = 1205;

/// How a column is asked for: at once, else beside readers and writers, else as the server can. Not every server
/// knows, or can, the first ones.
const COLUMN_WAYS: [&str; 2] = [", ALGORITHM=INSTANT", ", ALGORITHM=INPLACE, LOCK=NONE"];
const INDEX_WAYS: [&str; 1] = [", ALGORITHM=INPLACE, LOCK=NONE"];

/// What became of a table.
#[derive(Clone, Copy, PartialEq)]
enum Fitted {
    /// It had all columns.
    Same,
    Gained,
    Made,
}

/// A column that is there.
struct Found {
    data_type: String,
    chars: usize,
}

impl Mysql {
    /// Creates what is missing: our tables, the resources' tables, their new columns and indexes.
    /// Does nothing when all is there. May run in several processes at once.
    ///
    /// # Errors
    /// Class `Operator` for missing rights, or for a table of that name which is not ours; class
    /// `Repeat` when another process holds the lock for minutes. What was done until then stays, and
    /// the next call goes on from there. Cancel safe in the same sense.
    pub async fn prepare(&self) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(PREPARE_TIME_MAX, self.prepare_locked(&mut conn)).await;
        // The session was changed and may hold the lock; it ends with the connection.
        match outcome {
            Ok(done) => {
                close(conn).await;
                done
            }
            elapsed => self.settle(conn, elapsed).await,
        }
    }

    async fn prepare_locked(&self, conn: &mut Conn) -> Result<(), SinkError> {
        self.packet(conn).await?;
        // A table that a long transaction holds fails the start with a reason instead of hanging it.
        query(conn, "SET SESSION lock_wait_timeout = 60").await?;
        let lock = format!("SELECT GET_LOCK({LOCK_NAME}, {LOCK_WAIT_S})");
        let locked: Option<Option<u8>> = conn.query_first(lock).await.map_err(|error| sink_error(&error))?;
        if locked.flatten() != Some(1) {
            return Err(SinkError::new(
                SinkErrorClass::Repeat,
                format!("another process has been changing the tables for {LOCK_WAIT_S} s; try again when it is done"),
            ));
        }
        migrate(conn).await?;
        for layout in &self.layouts {
            let parent = fit_table(conn, &layout.parent).await?;
            let mut has_gained = parent == Fitted::Gained;
            for child in &layout.children {
                has_gained |= fit_table(conn, child).await? != Fitted::Same;
            }
            if has_gained && parent != Fitted::Made {
                tell_gain(conn, layout).await?;
            }
        }
        query(conn, &format!("DO RELEASE_LOCK({LOCK_NAME})")).await
    }
}

async fn migrate(conn: &mut Conn) -> Result<(), SinkError> {
    if columns_of(conn, "waybill_migrations").await?.is_empty() {
        query(conn, MIGRATIONS_TABLE).await?;
    }
    let done: Vec<u32> =
        conn.query("SELECT `number` FROM `waybill_migrations`").await.map_err(|error| sink_error(&error))?;
    for (number, name, text) in MIGRATIONS.iter().filter(|(number, ..)| !done.contains(number)) {
        query(conn, text).await?;
        conn.exec_drop(
            "INSERT IGNORE INTO `waybill_migrations` (`number`,`name`,`applied_at`) VALUES (?,?,UTC_TIMESTAMP(6))",
            (number, name),
        )
        .await
        .map_err(|error| sink_error(&error))?;
        tracing::info!(migration.number = number, migration.name = name, "MySQL: migration applied");
    }
    Ok(())
}

/// What was added is empty for the documents that are there; the mend is told, unless there are none.
async fn tell_gain(conn: &mut Conn, layout: &Layout) -> Result<(), SinkError> {
    let text = format!("SELECT 1 FROM `{}` LIMIT 1", layout.parent.name);
    let document: Option<u8> = conn.query_first(text).await.map_err(|error| sink_error(&error))?;
    if document.is_some() {
        let resource = layout.definition.name.as_str();
        tracing::info!(
            resource,
            "MySQL: columns or tables were added; `waybill schema replay {resource}` fills them for the documents that are there"
        );
    }
    Ok(())
}

/// Creates the table, or adds what it lacks.
async fn fit_table(conn: &mut Conn, table: &SqlTable) -> Result<Fitted, SinkError> {
    let mut found = columns_of(conn, &table.name).await?;
    if found.is_empty() {
        query(conn, &table.create()).await?;
        return Ok(Fitted::Made);
    }
    let mut fitted = Fitted::Same;
    if let Some(missing) = table.key().iter().find(|name| !found.contains_key(*name)) {
        return Err(SinkError::new(
            SinkErrorClass::Operator,
            format!(
                "table `{}` is there but is not Waybill's: it has no column `{missing}`; rename it, or give the \
                 resource another table name",
                table.name
            ),
        ));
    }
    for column in &table.columns {
        match found.get(&column.name) {
            None => {
                let data_type = add_column(conn, table, column).await?;
                found.insert(column.name.clone(), Found { data_type, chars: 0 });
                fitted = Fitted::Gained;
            }
            Some(there) if is_too_short(there, column) => {
                alter(conn, &table.widen_column(column), &COLUMN_WAYS).await.map_err(|error| sink_error(&error))?;
                tracing::info!(table = table.name, column = column.name, "MySQL: column widened");
            }
            Some(_) => {}
        }
    }
    let indexes = indexes_of(conn, &table.name).await?;
    for index in table.indexes.iter().filter(|index| !indexes.contains(&format!("by_{index}"))) {
        let is_text = found.get(index).is_some_and(|there| there.data_type.ends_with("text"));
        let part = if is_text { key_part(index, true) } else { table.key_part(index) };
        alter(conn, &table.add_index(index, &part), &INDEX_WAYS).await.map_err(|error| sink_error(&error))?;
        tracing::info!(table = table.name, index, "MySQL: index added");
    }
    Ok(fitted)
}

/// Changes a table in the first of the ways that the server takes; the last is as it would by itself.
async fn alter(conn: &mut Conn, text: &str, ways: &[&str]) -> Result<(), mysql_async::Error> {
    for way in ways {
        match conn.query_drop(format!("{text}{way}")).await {
            // Servers refuse a way with many codes; these two mean the change itself.
            Err(mysql_async::Error::Server(error)) if ![ROW_TOO_WIDE, LOCKED].contains(&error.code) => {
                tracing::debug!(code = error.code, way, "MySQL: a table cannot be changed this way");
            }
            done => return done,
        }
    }
    conn.query_drop(text).await
}

/// Adds a column and returns its data type. Rows that are full take it as TEXT.
async fn add_column(conn: &mut Conn, table: &SqlTable, column: &SqlColumn) -> Result<String, SinkError> {
    let mut data_type = if column.kind.starts_with("TEXT") { "text" } else { "other" };
    let added = alter(conn, &table.add_column(column, false), &COLUMN_WAYS).await;
    match added {
        Err(mysql_async::Error::Server(error)) if error.code == ROW_TOO_WIDE && varchar_chars(&column.kind) > 0 => {
            let wide = table.add_column(column, true);
            alter(conn, &wide, &COLUMN_WAYS).await.map_err(|error| sink_error(&error))?;
            data_type = "text";
        }
        added => added.map_err(|error| sink_error(&error))?,
    }
    tracing::info!(table = table.name, column = column.name, "MySQL: column added");
    Ok(data_type.to_owned())
}

/// A VARCHAR that the definition wants longer. Other changes of type are left to people: they could
/// lose values.
fn is_too_short(there: &Found, column: &SqlColumn) -> bool {
    there.data_type == "varchar" && there.chars < varchar_chars(&column.kind)
}

/// The columns of a table by name; empty: there is no such table.
async fn columns_of(conn: &mut Conn, table: &str) -> Result<BTreeMap<String, Found>, SinkError> {
    let rows: Vec<(String, String, Option<u64>)> = conn
        .exec(
            "SELECT COLUMN_NAME, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
            (table,),
        )
        .await
        .map_err(|error| sink_error(&error))?;
    Ok(rows
        .into_iter()
        .map(|(name, data_type, chars)| {
            let chars = chars.and_then(|chars| usize::try_from(chars).ok()).unwrap_or(0);
            (name.to_lowercase(), Found { data_type: data_type.to_lowercase(), chars })
        })
        .collect())
}

async fn indexes_of(conn: &mut Conn, table: &str) -> Result<BTreeSet<String>, SinkError> {
    let rows: Vec<String> = conn
        .exec(
            "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?",
            (table,),
        )
        .await
        .map_err(|error| sink_error(&error))?;
    Ok(rows.into_iter().map(|name| name.to_lowercase()).collect())
}

async fn query(conn: &mut Conn, text: &str) -> Result<(), SinkError> {
    conn.query_drop(text).await.map_err(|error| sink_error(&error))
}
