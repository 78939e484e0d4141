//! What `waybill check` reports about the server: its version and settings, and the user's rights.
//!
//! Nothing is created or changed. Servers check rights before they check a statement, so each right is probed with a
//! statement that has no effect: it matches no row, or is invalid.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::timeout;

use crate::sink::{SinkError, SinkErrorClass};

use super::errors::sink_error;
use super::inspect::MIGRATIONS_TABLE_NAME;
use super::schema::{MIGRATIONS, tables_of};
use super::{Mysql, READ_TIME_MAX};

/// The table to probe, if it exists.
const OURS: &str = "waybill_checkpoints";
/// A table that never exists.
const TRIAL: &str = "waybill_trial";
/// Denied: on this schema, this table, this column.
const DENIED: [u16; 3] = [1044, 1142, 1143];
/// Permitted, but invalid: duplicate column, no such table, a column without a default.
const WRONG: [u16; 3] = [1060, 1146, 1364];

/// The server as our user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Like `10.11.19-MariaDB`.
    pub server_version: String,
    /// The account as GRANT names it: `'user'@'host'`.
    pub account: String,
    /// The database as GRANT names it.
    pub database: String,
    /// The sessions' SQL mode; strict.
    pub sql_mode: String,
    /// Bytes; limits the size of a document.
    pub max_allowed_packet: u64,
    /// Missing rights that every start and write needs, by their names in GRANT.
    pub lacks_for_rows: Vec<&'static str>,
    /// Missing rights that the first start needs, and one after a definition gained a column.
    pub lacks_for_tables: Vec<&'static str>,
    /// Tables of these definitions, and our own, that do not exist.
    pub missing_tables: Vec<String>,
}

impl Mysql {
    /// Reads what the sink needs to know. Changes nothing.
    ///
    /// # Errors
    /// No connection, or an error unrelated to rights. Cancel safe.
    pub async fn rights(&self) -> Result<Rights, SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(READ_TIME_MAX, self.look(&mut conn)).await;
        self.settle(conn, outcome).await
    }

    async fn look(&self, conn: &mut Conn) -> Result<Rights, SinkError> {
        let settings = "SELECT VERSION(), CURRENT_USER(), DATABASE(), @@SESSION.sql_mode, @@max_allowed_packet";
        let row: Option<(String, String, Option<String>, String, u64)> =
            conn.query_first(settings).await.map_err(|error| sink_error(&error))?;
        let (server_version, user, database, sql_mode, max_allowed_packet) =
            row.ok_or_else(|| SinkError::new(SinkErrorClass::Unknown, "MySQL did not report its version"))?;
        let there = tables_of(conn).await?;
        let of = if there.contains(OURS) { OURS } else { TRIAL };
        let rows = [
            ("SELECT", format!("SELECT 1 FROM `{of}` WHERE FALSE")),
            ("INSERT", format!("INSERT INTO `{of}` (`resource`) SELECT '' FROM DUAL WHERE FALSE")),
            ("UPDATE", format!("UPDATE `{of}` SET `resource` = '' WHERE FALSE")),
            ("DELETE", format!("DELETE FROM `{of}` WHERE FALSE")),
        ];
        let tables = [
            ("CREATE", format!("CREATE TABLE `{TRIAL}` (`resource` INT, `resource` INT)")),
            ("ALTER", format!("ALTER TABLE `{of}` ADD COLUMN `resource` INT")),
        ];
        let own = [MIGRATIONS_TABLE_NAME].into_iter().chain(MIGRATIONS.iter().map(|(_, name, _)| *name));
        let resources = self.layouts.iter().flat_map(|layout| layout.tables().map(|table| table.name.as_str()));
        let missing = own.chain(resources).filter(|name| !there.contains(&name.to_lowercase()));
        let missing_tables = missing.map(str::to_owned).collect();
        let (name, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
        Ok(Rights {
            server_version,
            account: format!("'{name}'@'{host}'"),
            database: format!("`{}`", database.unwrap_or_default()),
            sql_mode,
            max_allowed_packet,
            lacks_for_rows: lacked(conn, rows).await?,
            lacks_for_tables: lacked(conn, tables).await?,
            missing_tables,
        })
    }
}

/// The rights whose probes are denied.
async fn lacked(
    conn: &mut Conn,
    statements: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<Vec<&'static str>, SinkError> {
    let mut lacked = Vec::new();
    for (right, text) in statements {
        match conn.query_drop(text).await {
            Err(mysql_async::Error::Server(error)) if DENIED.contains(&error.code) => lacked.push(right),
            Err(mysql_async::Error::Server(error)) if WRONG.contains(&error.code) => {}
            Err(error) => return Err(sink_error(&error)),
            Ok(()) => {}
        }
    }
    Ok(lacked)
}
