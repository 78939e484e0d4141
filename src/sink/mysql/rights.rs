//! What `waybill check` tells about the server: its version and settings, and what our user may do.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::timeout;

use crate::sink::{SinkError, SinkErrorClass};

use super::errors::sink_error;
use super::{Mysql, READ_TIME_MAX, close};

/// The server as our user finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Like `10.11.19-MariaDB`.
    pub server_version: String,
    /// The sessions' mode; strict.
    pub sql_mode: String,
    /// Bytes; bounds the size of a document.
    pub max_allowed_packet: u64,
    /// Needed at the first start and when a definition gains a column.
    pub can_create: bool,
    pub can_insert: bool,
    pub can_delete: bool,
}

impl Mysql {
    /// Tries what the sink needs on a table that only this session sees; a user who may not make one
    /// is tried on `waybill_checkpoints`, in a transaction that is rolled back.
    ///
    /// # Errors
    /// No connection, or an error that is not about rights. Cancel safe.
    pub async fn rights(&self) -> Result<Rights, SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(READ_TIME_MAX, look(&mut conn)).await;
        match outcome {
            Ok(rights) => {
                // Takes the trial table, or the open transaction, along.
                close(conn).await;
                rights
            }
            elapsed => self.settle(conn, elapsed).await,
        }
    }
}

async fn look(conn: &mut Conn) -> Result<Rights, SinkError> {
    let row: Option<(String, String, u64)> = conn
        .query_first("SELECT VERSION(), @@SESSION.sql_mode, @@max_allowed_packet")
        .await
        .map_err(|error| sink_error(&error))?;
    let (server_version, sql_mode, max_allowed_packet) =
        row.ok_or_else(|| SinkError::new(SinkErrorClass::Unknown, "MySQL did not tell its version"))?;
    let trial = format!("waybill_trial_{}", conn.id());
    let can_create =
        allowed(conn, &format!("CREATE TABLE `{trial}` (`shop_id` VARCHAR(64), `resource` VARCHAR(64), `combination` VARCHAR(255)) ENGINE = InnoDB"))
            .await?;
    let table = if can_create { trial.as_str() } else { "waybill_checkpoints" };
    allowed(conn, "START TRANSACTION").await?;
    let can_insert = allowed(
        conn,
        &format!("INSERT INTO `{table}` (`shop_id`,`resource`,`combination`) VALUES ('waybill.check','','')"),
    )
    .await?;
    let can_delete = allowed(conn, &format!("DELETE FROM `{table}` WHERE `shop_id` = 'waybill.check'")).await?;
    allowed(conn, "ROLLBACK").await?;
    if can_create {
        allowed(conn, &format!("DROP TABLE IF EXISTS `{trial}`")).await?;
    }
    Ok(Rights { server_version, sql_mode, max_allowed_packet, can_create, can_insert, can_delete })
}

/// False: the server refuses it for want of rights (or there is no table to try it on).
async fn allowed(conn: &mut Conn, text: &str) -> Result<bool, SinkError> {
    match conn.query_drop(text).await.map_err(|error| sink_error(&error)) {
        Ok(()) => Ok(true),
        Err(error) if error.class == SinkErrorClass::Operator => Ok(false),
        Err(error) => Err(error),
    }
}
