//! The register: which process works on the schema, by heartbeats. Rows are changed only by compare-and-set.
//!
//! It has a connection of its own, so that a heartbeat waits for no batch and no reader; each statement gets two
//! seconds. What the rows mean, and when another process may take over, is `app::owner`'s.

use std::time::Duration;

use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Opts, Params, Row, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::domain::Timestamp;
use crate::sink::{SinkError, SinkErrorClass};

use super::errors::sink_error;
use super::inspect;
use super::value::{text_value, timestamp_of};
use super::{Mysql, close};

/// Timeout of one statement, and of a connection attempt.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// The largest epoch that another table knows counts too: one of them may come from a backup.
const READ: &str = "SELECT `role`,`session`,`directory`,GREATEST(`epoch`, \
     COALESCE((SELECT `epoch` FROM `waybill_fences` WHERE `name` = 'installation'), 0)) AS `epoch`,\
     `state`,`host`,`pid`,`process`,`command`,`started_at`,\
     CAST(GREATEST(0, TIMESTAMPDIFF(MICROSECOND, `beat_at`, UTC_TIMESTAMP(6))) AS UNSIGNED) AS `silent`,\
     `beats`,`promise_ms`,`standby` FROM `waybill_register`";
/// Makes the rows, without a holder.
const MAKE: &str = "INSERT IGNORE INTO `waybill_register` (`role`,`session`,`directory`,`epoch`,`state`,`host`,`pid`,\
     `process`,`command`,`started_at`,`beat_at`,`beats`,`promise_ms`) VALUES (?,'','',0,'free','',0,'','',\
     UTC_TIMESTAMP(6),UTC_TIMESTAMP(6),0,0)";
const CLAIM: &str = "UPDATE `waybill_register` SET `session` = ?, `directory` = ?, `epoch` = ?, `state` = 'owned', \
     `host` = ?, `pid` = ?, `process` = ?, `command` = ?, `started_at` = UTC_TIMESTAMP(6), \
     `beat_at` = UTC_TIMESTAMP(6), `beats` = `beats` + 1, `promise_ms` = ?, `standby` = '' \
     WHERE `role` = ? AND `session` = ? AND `beats` = ? AND `state` = ?";
const BEAT: &str = "UPDATE `waybill_register` SET `beat_at` = UTC_TIMESTAMP(6), `beats` = `beats` + 1, \
     `promise_ms` = ?, `standby` = ? WHERE `role` = ? AND `session` = ? AND `state` = 'owned'";
const LEAVE: &str = "UPDATE `waybill_register` SET `beat_at` = UTC_TIMESTAMP(6), `beats` = `beats` + 1, \
     `state` = ? WHERE `role` = ? AND `session` = ? AND `state` = 'owned'";

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The process that calls and writes.
    Owner,
    /// The process that waits to take over.
    Standby,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::Standby => "standby",
        }
    }
}

/// State of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Without a holder: it was let go, or never claimed.
    Free,
    /// Claimed, by a process that may be gone.
    Owned,
    /// Let go by its owner, which left its state for the standby.
    Handed,
}

impl Hold {
    fn name(self) -> &'static str {
        match self {
            Hold::Free => "free",
            Hold::Owned => "owned",
            Hold::Handed => "handed",
        }
    }

    /// An unknown state comes from a later version: nothing may be taken.
    fn of(name: &str) -> Hold {
        match name {
            "free" => Hold::Free,
            "handed" => Hold::Handed,
            _ => Hold::Owned,
        }
    }
}

/// A process, as it describes itself in the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Of one life of one process, random.
    pub session: String,
    /// Id of its data directory.
    pub directory: String,
    pub host: String,
    pub pid: u32,
    /// Distinguishes processes of one number: boot, namespace and start.
    pub process: String,
    /// Like `serve`.
    pub command: String,
}

/// One row of the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub member: Member,
    pub epoch: u64,
    pub hold: Hold,
    pub started_at: Timestamp,
    /// Time since the last beat, by the server's clock.
    pub silent: Duration,
    /// Rises with each beat.
    pub beats: u64,
    /// The owner: how long after its last beat it may still call.
    pub promise: Duration,
    /// The owner: session of the standby that it knows.
    pub standby: String,
}

/// Both rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub owner: Option<Registered>,
    pub standby: Option<Registered>,
}

/// What a claim replaces; it fails if the row has changed since it was read.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    pub role: Role,
    pub from: &'a Registered,
    pub epoch: u64,
    pub promise: Duration,
}

/// The register. Statements run one at a time.
pub struct Register {
    opts: Opts,
    conn: Mutex<Option<Conn>>,
}

impl Mysql {
    /// The register of this schema. Connects to nothing yet.
    pub fn register(&self) -> Register {
        Register { opts: self.opts.clone(), conn: Mutex::new(None) }
    }

    /// Creates the tables of the register and the fence if they do not exist.
    ///
    /// # Errors
    /// As [`Mysql::prepare`].
    pub async fn prepare_register(&self) -> Result<(), SinkError> {
        let mut conn = self.connection().await?;
        let outcome = timeout(super::ANSWER_TIME_MAX, inspect::describe(&mut conn, "waybill_handover")).await;
        if self.settle(conn, outcome).await?.is_none() { self.prepare_own().await } else { Ok(()) }
    }
}

impl Register {
    /// Reads both rows.
    ///
    /// # Errors
    /// The server's, within four seconds. Cancel safe.
    pub async fn read(&self) -> Result<Members, SinkError> {
        let rows: Vec<Row> = self.ask(async |conn| conn.exec(READ, Params::Empty).await).await?;
        let mut members = Members::default();
        for mut row in rows {
            let role: Option<String> = column(&mut row, "role");
            let registered = registered(row).ok_or_else(|| {
                SinkError::new(SinkErrorClass::Operator, "table `waybill_register`: a row is not readable; delete it")
            })?;
            match role.as_deref() {
                Some("owner") => members.owner = Some(registered),
                Some("standby") => members.standby = Some(registered),
                _ => {}
            }
        }
        Ok(members)
    }

    /// Makes the rows if there are none yet.
    ///
    /// # Errors
    /// As [`Register::read`].
    pub async fn make(&self) -> Result<(), SinkError> {
        for role in [Role::Owner, Role::Standby] {
            self.change(MAKE, vec![text_value(role.name())]).await?;
        }
        Ok(())
    }

    /// Takes a row, if it is still as it was read. False: it is not.
    ///
    /// # Errors
    /// As [`Register::read`]; then it is unknown whether it was taken: read before anything else.
    pub async fn claim(&self, claim: Claim<'_>, by: &Member) -> Result<bool, SinkError> {
        let Claim { role, from, epoch, promise } = claim;
        let values = vec![
            text_value(&by.session),
            text_value(&by.directory),
            Value::UInt(epoch),
            text_value(&by.host),
            Value::UInt(by.pid.into()),
            text_value(&by.process),
            text_value(&by.command),
            Value::UInt(milliseconds(promise)),
            text_value(role.name()),
            text_value(&from.member.session),
            Value::UInt(from.beats),
            text_value(from.hold.name()),
        ];
        self.change(CLAIM, values).await
    }

    /// A heartbeat. False: the row is another's by now, or is gone.
    ///
    /// # Errors
    /// As [`Register::read`]; then it is unknown whether it counts.
    pub async fn beat(&self, role: Role, session: &str, promise: Promise<'_>) -> Result<bool, SinkError> {
        let values = vec![
            Value::UInt(milliseconds(promise.time)),
            text_value(promise.standby),
            text_value(role.name()),
            text_value(session),
        ];
        self.change(BEAT, values).await
    }

    /// Lets a row go. False: it is another's by now.
    ///
    /// # Errors
    /// As [`Register::read`].
    pub async fn leave(&self, role: Role, session: &str, hold: Hold) -> Result<bool, SinkError> {
        self.change(LEAVE, vec![text_value(hold.name()), text_value(role.name()), text_value(session)]).await
    }

    /// Writes one part of a hand-over.
    ///
    /// # Errors
    /// As [`Register::read`].
    pub async fn put_part(&self, epoch: u64, part: u64, data: Vec<u8>) -> Result<(), SinkError> {
        let values = vec![Value::UInt(epoch), Value::UInt(part), Value::Bytes(data)];
        self.change("REPLACE INTO `waybill_handover` (`epoch`,`part`,`data`) VALUES (?,?,?)", values).await.map(drop)
    }

    /// Reads the parts of a hand-over, in order.
    ///
    /// # Errors
    /// As [`Register::read`].
    pub async fn parts(&self, epoch: u64) -> Result<Vec<Vec<u8>>, SinkError> {
        let (mut parts, mut next) = (Vec::new(), 0);
        loop {
            let text = "SELECT `data` FROM `waybill_handover` WHERE `epoch` = ? AND `part` = ?";
            let data: Option<Vec<u8>> = self.ask(async |conn| conn.exec_first(text, (epoch, next)).await).await?;
            let Some(data) = data else { return Ok(parts) };
            parts.push(data);
            next += 1_u64;
        }
    }

    /// Deletes the parts of hand-overs up to an epoch.
    ///
    /// # Errors
    /// As [`Register::read`].
    pub async fn clear_parts(&self, epoch: u64) -> Result<(), SinkError> {
        self.change("DELETE FROM `waybill_handover` WHERE `epoch` <= ?", vec![Value::UInt(epoch)]).await.map(drop)
    }

    async fn change(&self, text: &str, values: Vec<Value>) -> Result<bool, SinkError> {
        self.ask(async |conn| {
            conn.exec_drop(text, values).await?;
            Ok(conn.affected_rows() > 0)
        })
        .await
    }

    /// Runs a statement; a connection that fails is not used again.
    async fn ask<T>(
        &self,
        statement: impl AsyncFnOnce(&mut Conn) -> Result<T, mysql_async::Error>,
    ) -> Result<T, SinkError> {
        let mut kept = self.conn.lock().await;
        let mut conn = match kept.take() {
            Some(conn) => conn,
            None => late(timeout(ANSWER_TIME_MAX, Conn::new(self.opts.clone())).await)?,
        };
        let answer = late(timeout(ANSWER_TIME_MAX, statement(&mut conn)).await);
        match answer {
            Ok(answer) => {
                *kept = Some(conn);
                Ok(answer)
            }
            Err(error) => {
                tokio::spawn(close(conn));
                Err(error)
            }
        }
    }
}

/// How long the owner may call after a beat, and for whose sake.
#[derive(Clone, Copy, Debug)]
pub struct Promise<'a> {
    pub time: Duration,
    /// Session of the standby; empty: there is none.
    pub standby: &'a str,
}

fn late<T>(outcome: Result<Result<T, mysql_async::Error>, tokio::time::error::Elapsed>) -> Result<T, SinkError> {
    match outcome {
        Ok(done) => done.map_err(|error| sink_error(&error)),
        Err(_) => {
            let text = format!("MySQL did not answer a heartbeat within {} s", ANSWER_TIME_MAX.as_secs());
            Err(SinkError::new(SinkErrorClass::Unavailable, text))
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn registered(mut row: Row) -> Option<Registered> {
    let row = &mut row;
    Some(Registered {
        member: Member {
            session: column(row, "session")?,
            directory: column(row, "directory")?,
            host: column(row, "host")?,
            pid: column(row, "pid")?,
            process: column(row, "process")?,
            command: column(row, "command")?,
        },
        epoch: column(row, "epoch")?,
        hold: Hold::of(&column::<String>(row, "state")?),
        started_at: timestamp_of(&column::<Value>(row, "started_at")?).unwrap_or(Timestamp::EPOCH),
        silent: Duration::from_micros(column(row, "silent")?),
        beats: column(row, "beats")?,
        promise: Duration::from_millis(column(row, "promise_ms")?),
        standby: column(row, "standby")?,
    })
}

fn column<T: FromValue>(row: &mut Row, name: &str) -> Option<T> {
    row.take_opt(name)?.ok()
}
