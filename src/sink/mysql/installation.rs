//! The source that a schema belongs to, in `waybill_installation`.
//!
//! Read before anything else of an empty data directory's start, recorded when the tables are prepared: before the first
//! row is written, and before a shop is restored. A schema without shops and documents belongs to no source yet.

use mysql_async::{Params, TxOpts, Value};
use tokio::time::timeout;

use super::errors::sink_error;
use super::execute::{commit, execute};
use super::source_claim::SourceClaim;
use super::value::text_value;
use super::{Mysql, READ_TIME_MAX};
use crate::domain::{OtherSource, RecordedSource, SourceOrigin};
use crate::sink::{SinkError, SinkErrorClass};

const TABLE: &str = "waybill_installation";
const NOTE: &str =
    "INSERT INTO `waybill_installation` (`number`,`api`,`login`,`recorded_at`) VALUES (?,?,?,UTC_TIMESTAMP(6))";

/// The sources of a schema, in order. None within: it is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaSources(Vec<Option<SourceOrigin>>);

impl SchemaSources {
    /// The present one; the outer None: nothing is recorded.
    pub fn present(&self) -> Option<Option<&SourceOrigin>> {
        self.0.last().map(Option::as_ref)
    }

    /// Where the secrets were proved that do not note it.
    pub fn first(&self) -> Option<&SourceOrigin> {
        self.0.first()?.as_ref()
    }
}

impl Mysql {
    /// The same sink for a process that is configured for a source: [`Mysql::prepare`] refuses a schema of another one.
    #[must_use]
    pub fn claimed_by(self, claim: SourceClaim) -> Mysql {
        Mysql { claim: Some(claim), ..self }
    }

    /// The sources that the schema records.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn sources(&self) -> Result<SchemaSources, SinkError> {
        if !self.has_table(TABLE).await? {
            return Ok(SchemaSources::default());
        }
        let text = "SELECT `api`,`login` FROM `waybill_installation` ORDER BY `number`";
        let rows: Vec<(Option<String>, Option<String>)> = self.read(text, Params::Empty).await?;
        let origin = |(api, login): (Option<String>, Option<String>)| {
            let Some(api) = api else { return Ok(None) };
            let text = format!("{api} {}", login.as_deref().unwrap_or("-"));
            SourceOrigin::from_canonical(&text).map(Some).ok_or_else(|| {
                let what =
                    format!("{TABLE}: `{api}`, `{}` are not the addresses of a source", login.unwrap_or_default());
                SinkError::new(SinkErrorClass::Operator, what)
            })
        };
        Ok(SchemaSources(rows.into_iter().map(origin).collect::<Result<_, _>>()?))
    }

    /// Why the process may not use the schema: it belongs to another source. None: it may. Changes nothing.
    ///
    /// # Errors
    /// The server's. Cancel safe.
    pub async fn other_source(&self) -> Result<Option<OtherSource>, SinkError> {
        match self.judge_source().await? {
            Claimed::Other(other) => Ok(Some(other)),
            Claimed::Already | Claimed::Free => Ok(None),
        }
    }

    /// Records that the schema belongs to the configured source from now on, whatever it belonged to before.
    ///
    /// # Errors
    /// The server's. The tables must exist.
    pub async fn move_source(&self) -> Result<(), SinkError> {
        let Some(claim) = &self.claim else { return Ok(()) };
        let SchemaSources(mut known) = self.sources().await?;
        if known.is_empty() && !claim.adopts && !self.shops().await?.is_empty() {
            self.note_source(0, None).await?;
            known.push(None);
        }
        if known.last() == Some(&Some(claim.origin.clone())) {
            return Ok(());
        }
        self.note_source(known.len(), Some(&claim.origin)).await
    }

    /// Records the configured source, unless the schema belongs to another one.
    pub(super) async fn claim_source(&self) -> Result<(), SinkError> {
        match self.judge_source().await? {
            Claimed::Already => Ok(()),
            Claimed::Free => self.move_source().await,
            Claimed::Other(other) => Err(SinkError::new(SinkErrorClass::Operator, other.to_string())),
        }
    }

    async fn judge_source(&self) -> Result<Claimed, SinkError> {
        let Some(SourceClaim { origin, adopts }) = &self.claim else { return Ok(Claimed::Already) };
        let sources = self.sources().await?;
        let recorded = match sources.present() {
            Some(Some(present)) if present == origin => return Ok(Claimed::Already),
            None if *adopts || self.shops_if_any().await?.is_empty() => return Ok(Claimed::Free),
            Some(_) if self.is_unused().await? => return Ok(Claimed::Free),
            Some(Some(present)) => RecordedSource::Known(present.clone()),
            Some(None) | None => RecordedSource::Unknown,
        };
        let place = format!("the MySQL schema `{}`", self.names.1);
        Ok(Claimed::Other(OtherSource { place, recorded, configured: origin.clone() }))
    }

    /// Whether the schema has no shop and no document.
    async fn is_unused(&self) -> Result<bool, SinkError> {
        if !self.shops_if_any().await?.is_empty() {
            return Ok(false);
        }
        for layout in &self.layouts {
            let table = &layout.parent.name;
            if self.has_table(table).await? {
                let rows: Vec<u8> = self.read(&format!("SELECT 1 FROM `{table}` LIMIT 1"), Params::Empty).await?;
                if !rows.is_empty() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Adds a source after `before` others. Another process that did so meanwhile makes it fail.
    async fn note_source(&self, before: usize, origin: Option<&SourceOrigin>) -> Result<(), SinkError> {
        let values = vec![
            Value::UInt(before as u64 + 1),
            origin.map_or(Value::NULL, |origin| text_value(origin.api())),
            origin.and_then(SourceOrigin::login).map_or(Value::NULL, text_value),
        ];
        let mut conn = self.connection().await?;
        let noted = async {
            let begun = conn.start_transaction(TxOpts::default()).await;
            let mut transaction = begun.map_err(|error| sink_error(&error))?;
            self.pass_fence(&mut transaction, 0).await?;
            execute(&mut transaction, NOTE, values).await?;
            commit(transaction).await
        };
        let outcome = timeout(READ_TIME_MAX, noted).await;
        self.settle(conn, outcome).await
    }
}

/// How a schema may be used.
enum Claimed {
    /// It is recorded as ours.
    Already,
    /// It belongs to no source, or is our own of an earlier release.
    Free,
    Other(OtherSource),
}
