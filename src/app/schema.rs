//! `waybill schema`: the tables as SQL, and stored documents laid out again. Calls no marketplace and needs no data
//! directory, so it works beside a running server.

use std::time::Duration;

use anyhow::Context as _;

use crate::config::Config;
use crate::sink::mysql::Scope;
use crate::sink::{Mysql, SinkErrorClass, mysql};

/// Tries of one batch that lost a race or its connection.
const TRIES_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// How far the replay of one resource has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub resource: String,
    /// Documents done, with those of earlier calls.
    pub documents: u64,
    /// Of them, those of earlier calls.
    pub before: u64,
    /// How many there are, about; 0: nobody knows.
    pub about: u64,
    pub ended: bool,
}

/// The statements that make the tables of one resource, or of all with our own.
///
/// # Errors
/// A definition that cannot be a table.
pub fn ddl(config: &Config, resource: Option<&str>) -> anyhow::Result<Vec<String>> {
    let wanted = config.definitions.iter().filter(|definition| resource.is_none_or(|name| definition.name == name));
    let definitions: Vec<_> = wanted.cloned().collect();
    let mut statements = if resource.is_none() { mysql::own_ddl() } else { Vec::new() };
    statements.extend(mysql::ddl(&definitions).map_err(anyhow::Error::msg)?);
    Ok(statements)
}

/// What is to be filled.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// None: all.
    pub resource: Option<&'a str>,
    /// Of this shop, by id; None: of all.
    pub shop: Option<&'a str>,
    /// From the first document on, whatever earlier calls did.
    pub again: bool,
}

/// Fills columns and tables that were added later from the stored documents. `show` hears of each step. What was done is kept: another call goes on where this one ended. None: there is no MySQL, and so
/// nothing to fill.
///
/// # Errors
/// The server's; what was done until then stays.
pub async fn replay(
    config: &Config,
    wanted: Wanted<'_>,
    mut show: impl FnMut(&Replay),
) -> anyhow::Result<Option<Vec<Replay>>> {
    let Some(url) = &config.mysql_url else { return Ok(None) };
    let mysql = Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone())?;
    mysql.prepare().await.context("the tables could not be brought to what the definitions say")?;
    let mut done = Vec::new();
    let names = config.definitions.iter().map(|definition| definition.name.as_str());
    for name in names.filter(|name| wanted.resource.is_none_or(|wanted| wanted == *name)) {
        let scope = Scope { resource: name, shop: wanted.shop };
        if wanted.again {
            mysql.forget_replay(scope).await?;
        }
        let before = mysql.replayed(scope).await?;
        let mut state = Replay {
            resource: name.to_owned(),
            documents: before.documents,
            before: before.documents,
            about: if wanted.shop.is_none() { mysql.documents_about(name).await? } else { 0 },
            ended: before.ended,
        };
        let mut batch = before.next;
        while !state.ended {
            let next = some(&mysql, scope, batch).await.with_context(|| {
                format!("{name}: stopped after {} documents; the same command goes on from there", state.documents)
            })?;
            (state.documents, state.ended, batch) = (next.documents, next.ended, next.next);
            show(&state);
        }
        done.push(state);
    }
    mysql.disconnect().await.ok();
    Ok(Some(done))
}

/// The next batch; a race with a writer, or a connection that broke, is tried again. With fewer documents each time:
/// there may be too many of them for the time that a batch has.
async fn some(mysql: &Mysql, scope: Scope<'_>, mut batch: u64) -> anyhow::Result<mysql::Replayed> {
    let mut tries = 1;
    loop {
        match mysql.replay_some(scope, batch).await {
            Err(error)
                if tries < TRIES_MAX
                    && matches!(
                        error.class,
                        SinkErrorClass::Repeat
                            | SinkErrorClass::Disconnected
                            | SinkErrorClass::Unavailable
                            | SinkErrorClass::Unconfirmed
                    ) =>
            {
                tracing::debug!(%error, tries, "the batch is tried again");
                tokio::time::sleep(PAUSE * tries).await;
                tries += 1;
                batch = (batch / 2).max(1);
            }
            ended => return Ok(ended?),
        }
    }
}
