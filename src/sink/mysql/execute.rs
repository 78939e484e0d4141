//! Runs single statements within their timeouts, and commits.
//!
//! Used by everything that talks to the server; what the statements mean is decided elsewhere.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Params, Transaction, Value};

use super::errors::sink_error;
use super::{ANSWER_TIME_MAX, answered};
use crate::sink::{SinkError, SinkErrorClass};

/// Timeout of a batch. It applies outside the transaction, so that a hanging server costs the connection, not the
/// writer.
pub(super) const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// Bytes per second of the slowest supported link. A document on its own, which cannot be split, gets the time that
/// its bytes take at this rate, within the timeout of the batch.
const SLOW_LINE: usize = 1024;
/// Bytes per statement, if the server allows it. Larger ones are not faster.
pub(super) const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// Bytes reserved for the statement text beside its values.
pub(super) const STATEMENT_BYTES_SPARE: usize = 64 << 10;

/// Applies the short timeout, for statements that change nothing.
pub(super) async fn soon<T>(answer: impl Future<Output = Result<T, mysql_async::Error>>) -> Result<T, SinkError> {
    answered(ANSWER_TIME_MAX, async { answer.await.map_err(|error| sink_error(&error)) }).await
}

pub(super) async fn commit(transaction: Transaction<'_>) -> Result<(), SinkError> {
    transaction.commit().await.map_err(|error| SinkError {
        // Whatever the code, it is unknown whether the commit was applied.
        class: SinkErrorClass::Unconfirmed,
        text: format!("COMMIT was not confirmed: {}", sink_error(&error).text),
    })
}

/// Limits that apply to each statement of a batch.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Maximum bytes of a statement.
    pub(super) bytes: usize,
    /// The batch is a single document.
    pub(super) alone: bool,
}

impl Bounds {
    pub(super) async fn execute(
        self,
        transaction: &mut Transaction<'_>,
        text: &str,
        values: Vec<Value>,
    ) -> Result<(), SinkError> {
        answered(self.patience(size(text, &values)), execute(transaction, text, values)).await
    }

    /// Reads the rows of a statement.
    pub(super) async fn read<R: FromRow + Send + 'static>(
        self,
        transaction: &mut Transaction<'_>,
        text: &str,
        values: Vec<Value>,
    ) -> Result<Vec<R>, SinkError> {
        let patience = self.patience(size(text, &values));
        let read =
            async { transaction.exec(text, Params::Positional(values)).await.map_err(|error| sink_error(&error)) };
        answered(patience, read).await
    }

    /// Timeout of the answer to a statement of this many bytes.
    fn patience(self, bytes: usize) -> Duration {
        let on_its_way = if self.alone { bytes / SLOW_LINE } else { 0 };
        ANSWER_TIME_MAX + Duration::from_secs(u64::try_from(on_its_way).unwrap_or(u64::MAX)).min(WRITE_TIME_MAX)
    }
}

/// Approximate bytes of a statement.
fn size(text: &str, values: &[Value]) -> usize {
    let size = |value: &Value| if let Value::Bytes(bytes) = value { bytes.len() } else { size_of::<u64>() };
    text.len() + values.iter().map(size).sum::<usize>()
}

pub(super) async fn execute(
    transaction: &mut Transaction<'_>,
    text: &str,
    values: Vec<Value>,
) -> Result<(), SinkError> {
    transaction.exec_drop(text, Params::Positional(values)).await.map_err(|error| sink_error(&error))
}

#[cfg(test)]
mod tests {
    use super::{ANSWER_TIME_MAX, Bounds, answered};
    use crate::sink::SinkErrorClass;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_dead_connection_is_noticed_within_half_a_minute() {
        let begun = tokio::time::Instant::now();
        let lost = answered(ANSWER_TIME_MAX, std::future::pending::<Result<(), _>>()).await.unwrap_err();
        assert_eq!(lost.class, SinkErrorClass::Disconnected);
        assert!(begun.elapsed() < Duration::from_secs(30));
        let patience = |alone, bytes| Bounds { bytes: 0, alone }.patience(bytes).as_secs();
        assert_eq!([patience(false, 0), patience(false, 1 << 20)], [25, 25], "it is halved until it fits");
        assert_eq!([patience(true, 3_000), patience(true, 30 << 10), patience(true, 1 << 20)], [27, 55, 85]);
    }
}
