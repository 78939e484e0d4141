//! `waybill schema`: prints the tables as SQL, and fills new columns from stored documents (replay).
//!
//! Calls no marketplace and opens no data directory, so it can run while the service does.

use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, ConfigDraft};
use crate::sink::mysql::ReplayScope;
use crate::sink::{Mysql, SinkErrorClass, mysql};

/// Attempts per batch, after a conflict or a lost connection.
const TRIES_MAX: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// Progress of the replay of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    pub resource: String,
    /// Documents done, including earlier calls.
    pub documents: u64,
    /// Of them, done by earlier calls.
    pub before: u64,
    /// Estimated number of documents; 0: unknown.
    pub about: u64,
    pub ended: bool,
}

/// Adds the problems that only the sink can find in a configuration. Does no IO.
pub(crate) fn check(draft: &mut ConfigDraft) {
    let definitions = draft.definitions().iter().map(|one| one.definition.as_ref());
    let problems =
        draft.mysql_url().map(|url| mysql::unfit(url, draft.mysql_ca_file(), definitions)).unwrap_or_default();
    problems.into_iter().for_each(|(key, what)| draft.add(&key, what));
}

/// The statements that create the tables of one resource, or of all including Waybill's own.
///
/// # Errors
/// A definition does not fit a table.
pub fn ddl(config: &Config, resource: Option<&str>) -> anyhow::Result<Vec<String>> {
    let wanted = config.definitions.iter().filter(|definition| resource.is_none_or(|name| definition.name == name));
    let definitions: Vec<_> = wanted.cloned().collect();
    let mut statements = if resource.is_none() { mysql::own_ddl() } else { Vec::new() };
    statements.extend(mysql::ddl(&definitions).map_err(anyhow::Error::msg)?);
    Ok(statements)
}

/// What to replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRequest<'a> {
    /// None: all.
    pub resource: Option<&'a str>,
    /// Id of a shop; None: all.
    pub shop: Option<&'a str>,
    /// Start from the first document, ignoring the progress of earlier calls.
    pub again: bool,
}

/// Fills columns and tables that were added later from the stored documents; resumes where an earlier call ended.
///
/// `show` is called with the progress after each batch. None: no MySQL is configured, so there is nothing to fill.
///
/// # Errors
/// Errors of MySQL; the progress is kept.
pub async fn replay(
    config: &Config,
    wanted: ReplayRequest<'_>,
    mut show: impl FnMut(&Replay),
) -> anyhow::Result<Option<Vec<Replay>>> {
    let Some(url) = &config.mysql_url else { return Ok(None) };
    let mysql = Mysql::at(url, config.mysql_ca_file.as_deref(), config.definitions.clone())?;
    mysql.prepare().await.context("failed to update the tables to the definitions")?;
    let mut done = Vec::new();
    let names = config.definitions.iter().map(|definition| definition.name.as_str());
    for name in names.filter(|name| wanted.resource.is_none_or(|wanted| wanted == *name)) {
        let scope = ReplayScope { resource: name, shop: wanted.shop };
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
            let next = replay_batch(&mysql, scope, batch).await.with_context(|| {
                format!(
                    "{name}: stopped after {} documents; repeat the command to continue from there",
                    state.documents
                )
            })?;
            (state.documents, state.ended, batch) = (next.documents, next.ended, next.next);
            show(&state);
        }
        done.push(state);
    }
    mysql.disconnect().await.ok();
    Ok(Some(done))
}

/// Replays the next batch. Retries after a conflict with the writer or a lost connection, with half the documents: the
/// batch may be too large for its time limit.
async fn replay_batch(mysql: &Mysql, scope: ReplayScope<'_>, mut batch: u64) -> anyhow::Result<mysql::Replayed> {
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
                tracing::debug!(%error, tries, "retrying the batch");
                tokio::time::sleep(PAUSE * tries).await;
                tries += 1;
                batch = (batch / 2).max(1);
            }
            ended => return Ok(ended?),
        }
    }
}
