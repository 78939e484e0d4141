//! The values of a document by which the archive finds it without opening others.

use super::timestamp::Timestamp;

/// One value, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Facet {
    /// Number of the filter, from 1; 0 is the time.
    pub place: u8,
    pub value: FacetValue,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FacetValue {
    /// The text that a filter must equal.
    Text(String),
    Time(Timestamp),
    /// The time of the reading, known only when that is committed.
    FetchedAt,
}

/// The facets of a document on its way to the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Facets {
    /// Not known; the archive finds the document nevertheless.
    #[default]
    Unknown,
    Known(Vec<Facet>),
    /// As the archive keeps them.
    Hashed(String),
}
