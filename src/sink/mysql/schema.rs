//! Migrates the database: our own tables by numbered migrations, the resources' tables by comparing them with their
//! definitions.
//!
//! Nothing is ever dropped or narrowed, and nothing correct is changed, so a user without DDL rights can start on a
//! prepared database. A column whose values could be lost by a change of its definition is left alone and reported
//! with the remedy. DDL is not transactional: each step can be repeated, and a named lock serialises processes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::timeout;

use crate::catalog::Definition;
use crate::sink::{SinkError, SinkErrorClass};

use super::compare::{FoundColumn, columns_of, compare, has_whole_index};
use super::errors::sink_error;
use super::execute::soon;
use super::inspect::{self, MIGRATIONS_TABLE_NAME, OWN_KEYS, Severity, TableFault};
use super::layout::{Layout, SqlColumn, SqlTable, key_part, varchar_chars};
use super::replay::forget_other_layouts;
use super::types::is_long_text;
use super::{ANSWER_TIME_MAX, Mysql, answered, close};

/// Indexing a large table takes a while.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(3600);
/// How long to wait for another process that prepares the same database, in seconds.
const LOCK_WAIT_S: u64 = 300;
/// The same for our own tables, which are few and small.
const OWN_LOCK_WAIT_S: u64 = 10;

/// One change per file; the number is its order. A released file is never changed.
pub(super) const MIGRATIONS: [(u32, &str, &str); 7] = [
    (1, "waybill_shops", include_str!("../../../sql/0001_waybill_shops.sql")),
    (2, "waybill_checkpoints", include_str!("../../../sql/0002_waybill_checkpoints.sql")),
    (3, "waybill_replays", include_str!("../../../sql/0003_waybill_replays.sql")),
    (4, "waybill_fences", include_str!("../../../sql/0004_waybill_fences.sql")),
    (5, "waybill_register", include_str!("../../../sql/0005_waybill_register.sql")),
    (6, "waybill_handover", include_str!("../../../sql/0006_waybill_handover.sql")),
    (7, "waybill_installation", include_str!("../../../sql/0007_waybill_installation.sql")),
];

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS `waybill_migrations` (\
     `number` INT UNSIGNED NOT NULL PRIMARY KEY, `name` VARCHAR(64) NOT NULL, `applied_at` DATETIME(6) NOT NULL\
     ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

const MIGRATION_DONE: &str = "INSERT IGNORE INTO `waybill_migrations` (`number`,`name`,`applied_at`) VALUES";

/// At most 64 characters, the limit for lock names.
const LOCK_NAME: &str = "CONCAT('waybill.', SHA2(DATABASE(), 224))";

/// The server's error for a row that one more column makes too wide.
const ROW_TOO_WIDE: u16 = 1118;
/// The server's error for a lock wait timeout.
const LOCKED: u16 = 1205;

/// How to add a column: instantly, else online, else as the server chooses. Not every server supports the first two.
const COLUMN_WAYS: [&str; 2] = [", ALGORITHM=INSTANT", ", ALGORITHM=INPLACE, LOCK=NONE"];
const INDEX_WAYS: [&str; 1] = [", ALGORITHM=INPLACE, LOCK=NONE"];

/// What was done to a table.
#[derive(Clone, Copy, PartialEq)]
enum Fitted {
    /// Nothing: it had all columns.
    Same,
    Gained,
    Made,
}

impl Mysql {
    /// Creates the tables, and records the configured source in a schema that belongs to none.
    ///
    /// # Errors
    /// As [`Mysql::create_tables`]; class `Operator` if the schema belongs to another source. Cancel safe as it is.
    pub async fn prepare(&self) -> Result<(), SinkError> {
        self.create_tables().await?;
        self.claim_source().await
    }

    /// Creates what is missing: our tables, the resources' tables, their new columns and indexes. Does nothing if all
    /// exists. May run in several processes at once.
    ///
    /// # Errors
    /// Class `Operator` for missing rights, for a table of that name which is not ours, or for a column that cannot be
    /// changed without losing values; class `Repeat` if another process holds the lock for minutes. Completed steps
    /// stay, and the next call continues from there. Cancel safe in the same sense.
    pub async fn create_tables(&self) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(PREPARE_TIME_MAX, self.prepare_locked(&mut conn)).await;
        // The session was changed and may hold the lock; both end with the connection.
        match outcome {
            Ok(done) => {
                close(conn).await;
                done
            }
            elapsed => self.settle(conn, elapsed).await,
        }
    }

    /// Creates our own tables only, as [`Mysql::prepare`] does; waits for another process for a short time.
    pub(super) async fn prepare_own(&self) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        let prepare = async {
            take_lock(&mut conn, OWN_LOCK_WAIT_S).await?;
            migrate(&mut conn).await
        };
        let outcome = timeout(PREPARE_TIME_MAX, prepare).await;
        match outcome {
            Ok(done) => {
                close(conn).await;
                done
            }
            elapsed => self.settle(conn, elapsed).await,
        }
    }

    async fn prepare_locked(&self, conn: &mut Conn) -> Result<(), SinkError> {
        answered(ANSWER_TIME_MAX, self.packet(conn)).await?;
        // A table held by a long transaction fails the start with a reason instead of blocking it.
        soon(conn.query_drop("SET SESSION lock_wait_timeout = 60")).await?;
        take_lock(conn, LOCK_WAIT_S).await?;
        migrate(conn).await?;
        self.refuse_faults(conn).await?;
        for layout in &self.layouts {
            let parent = fit_table(conn, &layout.parent).await?;
            let mut has_gained = parent == Fitted::Gained;
            for child in &layout.children {
                has_gained |= fit_table(conn, child).await? != Fitted::Same;
            }
            forget_other_layouts(conn, layout).await?;
            if parent == Fitted::Made {
                warn_recreated_table(conn, layout).await?;
            } else if has_gained {
                log_added_columns(conn, layout).await?;
            }
        }
        soon(conn.query_drop(format!("DO RELEASE_LOCK({LOCK_NAME})"))).await
    }
}

impl Mysql {
    /// Refuses tables in which documents would overwrite each other, or a crash would leave half a batch. Logs other
    /// faults once.
    async fn refuse_faults(&self, conn: &mut Conn) -> Result<(), SinkError> {
        let mut faults = Vec::new();
        for (table, key) in OWN_KEYS {
            if let Some(found) = inspect::describe(conn, table).await? {
                faults.extend(inspect::own_faults(table, key, &found));
            }
        }
        for table in self.layouts.iter().flat_map(Layout::tables) {
            // A missing key column is reported with the other columns, where its cause is known.
            if let Some(found) = inspect::describe(conn, &table.name).await?
                && found.lacks(table.key()).is_none()
            {
                faults.extend(inspect::faults(table, &found));
            }
        }
        let (corrupting, others): (Vec<_>, Vec<_>) =
            faults.into_iter().partition(|fault| fault.severity == Severity::Corrupts);
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            for TableFault { text, .. } in others {
                tracing::warn!(fault = text, "MySQL: a table differs from what Waybill creates");
            }
        }
        let problems: Vec<String> = corrupting.into_iter().map(|fault| fault.text).collect();
        if problems.is_empty() { Ok(()) } else { Err(SinkError::new(SinkErrorClass::Operator, problems.join("; "))) }
    }
}

/// The statements that create the tables of these definitions.
///
/// # Errors
/// Why a definition does not fit a table.
pub fn ddl(definitions: &[Arc<Definition>]) -> Result<Vec<String>, String> {
    let mut statements = Vec::new();
    for definition in definitions {
        let layout = Layout::new(Arc::clone(definition))?;
        statements.extend(layout.tables().map(SqlTable::create));
    }
    Ok(statements)
}

/// The statements that create our own tables and record their migrations.
pub fn own_ddl() -> Vec<String> {
    let mut statements = vec![MIGRATIONS_TABLE.to_owned()];
    for (number, name, text) in MIGRATIONS {
        statements.push(text.trim().to_owned());
        statements.push(format!("{MIGRATION_DONE} ({number},'{name}',UTC_TIMESTAMP(6))"));
    }
    statements
}

/// Waits for other processes that change the tables; the lock ends with the connection.
async fn take_lock(conn: &mut Conn, wait_s: u64) -> Result<(), SinkError> {
    let lock = conn.query_first(format!("SELECT GET_LOCK({LOCK_NAME}, {wait_s})"));
    let patience = ANSWER_TIME_MAX + Duration::from_secs(wait_s);
    let locked: Option<Option<u8>> =
        answered(patience, async { lock.await.map_err(|error| sink_error(&error)) }).await?;
    if locked.flatten() == Some(1) {
        return Ok(());
    }
    let text = format!("another process has been changing the tables for {wait_s} s; try again when it is done");
    Err(SinkError::new(SinkErrorClass::Repeat, text))
}

async fn migrate(conn: &mut Conn) -> Result<(), SinkError> {
    if columns_of(conn, MIGRATIONS_TABLE_NAME).await?.is_empty() {
        query(conn, MIGRATIONS_TABLE).await?;
    }
    let done: Vec<u32> = soon(conn.query("SELECT `number` FROM `waybill_migrations`")).await?;
    for (number, name, text) in MIGRATIONS.iter().filter(|(number, ..)| !done.contains(number)) {
        query(conn, text).await?;
        let noted = format!("{MIGRATION_DONE} (?,?,UTC_TIMESTAMP(6))");
        soon(conn.exec_drop(noted, (number, name))).await?;
        tracing::info!(migration.number = number, migration.name = name, "MySQL: migration applied");
    }
    Ok(())
}

/// Logs that new columns are empty for existing documents, and how to fill them.
async fn log_added_columns(conn: &mut Conn, layout: &Layout) -> Result<(), SinkError> {
    let text = format!("SELECT 1 FROM `{}` LIMIT 1", layout.parent.name);
    let document: Option<u8> = soon(conn.query_first(text)).await?;
    if document.is_some() {
        let resource = layout.definition.name.as_str();
        tracing::info!(
            resource,
            "MySQL: columns or tables were added or widened; run `waybill schema replay {resource}` to fill them for existing documents"
        );
    }
    Ok(())
}

/// Warns of a newly created table whose resource was synced before: its table may have been renamed in the definition.
async fn warn_recreated_table(conn: &mut Conn, layout: &Layout) -> Result<(), SinkError> {
    let (resource, table) = (layout.definition.name.as_str(), &layout.parent.name);
    let text = "SELECT 1 FROM `waybill_checkpoints` WHERE `resource` = ? LIMIT 1";
    let synced: Option<u8> = soon(conn.exec_first(text, (resource,))).await?;
    if synced.is_some() {
        tracing::warn!(
            resource,
            table,
            "MySQL: the table was created and is empty, though its resource was synced before. If its name was \
             changed in the definition: stop, run RENAME TABLE `{table}` TO `{table}_unused`, `THE OLD NAME` TO \
             `{table}` (and likewise for its child tables), and start again. Otherwise run `waybill verify --mend` to \
             read its documents again"
        );
    }
    Ok(())
}

/// Creates the table, or adds what it lacks.
async fn fit_table(conn: &mut Conn, table: &SqlTable) -> Result<Fitted, SinkError> {
    let mut difference = compare(conn, table).await?;
    if difference.is_missing() {
        query(conn, &table.create()).await?;
        return Ok(Fitted::Made);
    }
    if let Some(text) = difference.refused {
        return Err(SinkError::new(SinkErrorClass::Operator, text));
    }
    for column in difference.lacking.iter().chain(&difference.narrow) {
        let kind = match difference.found.get(&column.name) {
            None => add_column(conn, table, column).await?,
            Some(there) => {
                widen_column(conn, table, column, has_whole_index(&difference.indexes, column, there)).await?
            }
        };
        difference.found.insert(column.name.clone(), FoundColumn { kind, is_json: false });
    }
    for index in &difference.unindexed {
        let is_text = difference.found.get(*index).is_some_and(|there| is_long_text(&there.kind));
        let part = if is_text { key_part(index, true) } else { table.key_part(index) };
        alter(conn, &table.add_index(index, &part), &INDEX_WAYS).await.map_err(|error| sink_error(&error))?;
        tracing::info!(table = table.name, index, "MySQL: index added");
    }
    let has_gained = !(difference.lacking.is_empty() && difference.narrow.is_empty());
    Ok(if has_gained { Fitted::Gained } else { Fitted::Same })
}

/// Alters a table with the first algorithm that the server accepts; the last attempt leaves the choice to it.
async fn alter(conn: &mut Conn, text: &str, ways: &[&str]) -> Result<(), mysql_async::Error> {
    for way in ways {
        match conn.query_drop(format!("{text}{way}")).await {
            // Servers reject an algorithm with many codes; these two reject the change itself.
            Err(mysql_async::Error::Server(error)) if ![ROW_TOO_WIDE, LOCKED].contains(&error.code) => {
                tracing::debug!(code = error.code, way, "MySQL: a table cannot be changed this way");
            }
            done => return done,
        }
    }
    conn.query_drop(text).await
}

/// Adds a column and returns its type.
async fn add_column(conn: &mut Conn, table: &SqlTable, column: &SqlColumn) -> Result<String, SinkError> {
    let kind = or_text(conn, column, |wide| table.add_column(column, wide)).await?;
    tracing::info!(table = table.name, column = column.name, "MySQL: column added");
    Ok(kind)
}

/// Widens a column and returns its type.
async fn widen_column(
    conn: &mut Conn,
    table: &SqlTable,
    column: &SqlColumn,
    has_whole_index: bool,
) -> Result<String, SinkError> {
    let kind = or_text(conn, column, |wide| table.change_column(column, wide, has_whole_index)).await?;
    tracing::info!(table = table.name, column = column.name, "MySQL: column widened");
    Ok(kind)
}

/// Changes a column, as TEXT if the rows are full.
async fn or_text(conn: &mut Conn, column: &SqlColumn, statement: impl Fn(bool) -> String) -> Result<String, SinkError> {
    match alter(conn, &statement(false), &COLUMN_WAYS).await {
        Err(mysql_async::Error::Server(error)) if error.code == ROW_TOO_WIDE && varchar_chars(&column.kind) > 0 => {
            alter(conn, &statement(true), &COLUMN_WAYS).await.map_err(|error| sink_error(&error))?;
            Ok("text".to_owned())
        }
        changed => changed.map(|()| column.kind.clone()).map_err(|error| sink_error(&error)),
    }
}

/// The names of the tables visible to our user.
pub(super) async fn tables_of(conn: &mut Conn) -> Result<BTreeSet<String>, SinkError> {
    let text = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()";
    let names: Vec<String> = soon(conn.query(text)).await?;
    Ok(names.into_iter().map(|name| name.to_lowercase()).collect())
}

async fn query(conn: &mut Conn, text: &str) -> Result<(), SinkError> {
    conn.query_drop(text).await.map_err(|error| sink_error(&error))
}
