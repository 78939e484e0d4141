//! What a process may do with the schema, by the source that it is configured for.

use crate::domain::SourceOrigin;

/// What a process may do with the schema.
#[derive(Clone, Debug)]
pub struct SourceClaim {
    /// The configured source.
    pub origin: SourceOrigin,
    /// Whether a schema that has shops and no record is this data directory's own, written by an earlier release: not,
    /// if the directory is empty, since then nothing says whose shops they are.
    pub adopts: bool,
}
