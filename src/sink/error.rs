//! What a sink's failure means. [`SinkErrorClass`] is all that the writer needs to know about one.

use super::turns::Late;

/// What a sink's failure means for the batch that was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SinkErrorClass {
    /// Lost a race (deadlock, lock wait): repeat the same transaction after a short pause.
    Repeat,
    /// The connection or the server is gone: reconnect, then repeat. The batch may or may not have been applied.
    Disconnected,
    /// No connection could be made, or the server refuses all work for now: nothing was applied, and no document is
    /// the cause. Retry with backoff.
    Unavailable,
    /// Every row was accepted, but the answer to COMMIT never arrived: like `Disconnected`, and no document is the
    /// cause.
    Unconfirmed,
    /// The server is out of disk space or memory: report it, wait, retry.
    NoRoom,
    /// Rights, names or settings need an operator: pause writing and report it.
    Operator,
    /// A document is refused. Bisect the batch and park that document.
    Poison,
    /// Another process owns the schema by now: stop, write nothing more.
    Fenced,
    /// Anything else: retry like `Repeat`, then bisect; the retries are bounded.
    Unknown,
}

/// A failure of a sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SinkError {
    pub class: SinkErrorClass,
    /// For people: what failed, where, and the remedy if one is known. Contains no password and no value of a
    /// document.
    pub text: String,
}

impl SinkError {
    /// Creates a failure of this class.
    pub fn new(class: SinkErrorClass, text: impl Into<String>) -> SinkError {
        SinkError { class, text: text.into() }
    }

    /// Reclassifies a failure that occurred before any document was sent: it never blames a document, however often it
    /// repeats.
    pub(super) fn before_documents(self) -> SinkError {
        let class = match self.class {
            SinkErrorClass::Disconnected => SinkErrorClass::Unavailable,
            SinkErrorClass::Repeat | SinkErrorClass::Poison | SinkErrorClass::Unknown => SinkErrorClass::Operator,
            class @ (SinkErrorClass::Unavailable
            | SinkErrorClass::Unconfirmed
            | SinkErrorClass::NoRoom
            | SinkErrorClass::Operator
            | SinkErrorClass::Fenced) => class,
        };
        SinkError { class, ..self }
    }
}

/// Why a page of documents could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its time was over before the page was full.
    #[error("the read was over its time")]
    Late,
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl From<Late> for ReadError {
    fn from(Late: Late) -> ReadError {
        ReadError::Late
    }
}

#[cfg(test)]
mod tests {
    use super::SinkError;
    use super::SinkErrorClass::{
        Disconnected, Fenced, NoRoom, Operator, Poison, Repeat, Unavailable, Unconfirmed, Unknown,
    };

    #[test]
    fn a_failure_before_any_document_is_sent_blames_no_document() {
        let before = |class| SinkError::new(class, "why").before_documents();
        for class in [Repeat, Disconnected, Unavailable, Unconfirmed, NoRoom, Operator, Poison, Fenced, Unknown] {
            let SinkError { class, text } = before(class);
            assert!(!matches!(class, Repeat | Disconnected | Poison | Unknown), "{class:?}");
            assert_eq!(text, "why");
        }
        assert_eq!([NoRoom, Unconfirmed, Fenced].map(|class| before(class).class), [NoRoom, Unconfirmed, Fenced]);
    }
}
