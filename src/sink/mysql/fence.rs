//! The fence: no write of a process that is not the owner any more.
//!
//! The first statement of each write transaction updates one row and names the owner's epoch. A takeover raises the
//! epoch by the same kind of statement, so it waits for the open transactions of the old owner, and every later one
//! matches no row and rolls back. It must be an UPDATE, not a locking read: on a cluster with several writable members a
//! read lock of one is not seen by the others.
//!
//! What is not fenced: migrations and `waybill schema replay`, which any process may run and which change no document.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Transaction, Value};
use tokio::time::timeout;

use crate::sink::{SinkError, SinkErrorClass};

use super::epoch::Epoch;
use super::errors::sink_error;
use super::execute::{execute, soon};
use super::{ANSWER_TIME_MAX, Mysql};

/// Attempts of a takeover, each of which waits two seconds for the transactions of the old owner.
const TAKE_ATTEMPTS: u32 = 5;
/// The server's error for a lock wait timeout.
const LOCKED: u16 = 1205;

const MAKE: &str =
    "INSERT IGNORE INTO `waybill_fences` (`name`,`epoch`,`high_version`,`beats`) VALUES ('installation',0,0,0)";
/// `beats` always changes, so that a repeated batch is a change too.
const PASS: &str = "UPDATE `waybill_fences` SET `beats` = `beats` + 1, `high_version` = GREATEST(`high_version`, ?), \
     `connection` = CONNECTION_ID() WHERE `name` = 'installation' AND `epoch` = ?";
const TAKE: &str = "UPDATE `waybill_fences` SET `beats` = `beats` + 1, `epoch` = ? \
     WHERE `name` = 'installation' AND `epoch` <= ?";
const EPOCH: &str = "SELECT `epoch` FROM `waybill_fences` WHERE `name` = 'installation'";
const HIGH_VERSION: &str = "SELECT `high_version` FROM `waybill_fences` WHERE `name` = 'installation'";

impl Mysql {
    /// Refuses writes until [`Mysql::set_epoch`].
    pub fn require_owner(&self) {
        self.fence.set(Epoch::Pending);
    }

    /// Lets writes of this epoch pass.
    pub fn set_epoch(&self, epoch: u64) {
        self.fence.set(Epoch::Number(epoch));
    }

    /// Raises the epoch in MySQL, after which no transaction of an older one commits; returns the greatest version that
    /// was written so far. Waits for open transactions, and ends a connection that holds one open.
    ///
    /// # Errors
    /// Class `Fenced`: a later epoch is in force. The server's errors. Cancel safe.
    pub async fn raise_epoch(&self, epoch: u64) -> Result<u64, SinkError> {
        let mut conn = self.connection().await?;
        let patience = ANSWER_TIME_MAX * TAKE_ATTEMPTS;
        let outcome = timeout(patience, raise(&mut conn, epoch)).await;
        self.settle(conn, outcome).await
    }

    /// The first statement of a write transaction; `version` is the greatest that it writes.
    pub(super) async fn pass_fence(&self, transaction: &mut Transaction<'_>, version: u64) -> Result<(), SinkError> {
        let epoch = match self.fence.epoch() {
            Epoch::Off => return Ok(()),
            Epoch::Pending => {
                let text = "MySQL has not confirmed yet that this process is the one that may write to the schema";
                return Err(SinkError::new(SinkErrorClass::Unavailable, text));
            }
            Epoch::Number(epoch) => epoch,
        };
        if pass(transaction, version, epoch).await? {
            return Ok(());
        }
        // A database that was emptied or restored from a backup has forgotten us.
        reassert(transaction, epoch).await?;
        if pass(transaction, version, epoch).await? { Ok(()) } else { Err(fenced()) }
    }
}

pub(super) fn fenced() -> SinkError {
    let text = "another Waybill process has taken the schema over: this one writes nothing more and ends";
    SinkError::new(SinkErrorClass::Fenced, text)
}

/// An error of the fence blames no document.
fn of_fence(error: SinkError) -> SinkError {
    match error.class {
        SinkErrorClass::Repeat | SinkErrorClass::Unknown => SinkError { class: SinkErrorClass::Unavailable, ..error },
        _ => error.before_documents(),
    }
}

async fn pass(transaction: &mut Transaction<'_>, version: u64, epoch: u64) -> Result<bool, SinkError> {
    let values = vec![Value::UInt(version), Value::UInt(epoch)];
    execute(transaction, PASS, values).await.map_err(of_fence)?;
    Ok(transaction.affected_rows() > 0)
}

async fn reassert(transaction: &mut Transaction<'_>, epoch: u64) -> Result<(), SinkError> {
    let there: Option<u64> = transaction.query_first(EPOCH).await.map_err(|error| of_fence(sink_error(&error)))?;
    if there.is_some_and(|there| there > epoch) {
        return Err(fenced());
    }
    tracing::warn!(epoch, "MySQL had forgotten which process owns the schema; noted it again");
    execute(transaction, MAKE, Vec::new()).await.map_err(of_fence)?;
    execute(transaction, TAKE, vec![Value::UInt(epoch), Value::UInt(epoch)]).await.map_err(of_fence)
}

async fn raise(conn: &mut Conn, epoch: u64) -> Result<u64, SinkError> {
    // An insert would wait for the transactions of the old owner.
    let there: Option<u64> = soon(conn.query_first(EPOCH)).await?;
    if there.is_none() {
        soon(conn.query_drop(MAKE)).await?;
    }
    let mut attempt = 0;
    loop {
        attempt += 1;
        match conn.exec_drop(TAKE, (epoch, epoch)).await {
            Ok(()) => break,
            Err(mysql_async::Error::Server(error)) if error.code == LOCKED && attempt < TAKE_ATTEMPTS => {
                end_open_transaction(conn).await?;
            }
            Err(error) => return Err(sink_error(&error)),
        }
    }
    if conn.affected_rows() == 0 {
        return Err(fenced());
    }
    let version: Option<u64> = soon(conn.query_first(HIGH_VERSION)).await?;
    Ok(version.unwrap_or_default())
}

/// Ends the connection of the old owner that stopped in the middle of a transaction: the server would keep its locks
/// for hours. What it has not committed names it, and the same account may end it.
async fn end_open_transaction(conn: &mut Conn) -> Result<(), SinkError> {
    soon(conn.query_drop("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")).await?;
    let text = "SELECT `connection` FROM `waybill_fences` WHERE `name` = 'installation' AND `connection` IS NOT NULL";
    let holder: Option<u64> = soon(conn.query_first(text)).await?;
    let Some(holder) = holder else { return Ok(()) };
    match conn.query_drop(format!("KILL {holder}")).await {
        Ok(()) => tracing::warn!(connection = holder, "ended the connection of the former owner, which held its locks"),
        // It is gone by now, or behind a proxy.
        Err(error) => tracing::debug!(%error, "the connection of the former owner could not be ended"),
    }
    Ok(())
}
