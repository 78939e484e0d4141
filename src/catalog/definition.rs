//! The checked form of a resource definition: what the engine works with.
//!
//! Built only by [`super::reader`], so a value of these types is known to be sound: identifiers are
//! SQL identifiers, pointers begin with `/`, filters and indexes name columns that exist.

use std::time::Duration;

use crate::domain::{Combination, StreamId};

/// A resource: how to list it, read its details and lay it out in tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    /// Sent as `Accept`; a response must begin with its part before `;`.
    pub media_type: String,
    /// JSON pointer to the id within a list row.
    pub id: String,
    pub list: List,
    /// None: the list row is the document.
    pub detail: Option<Detail>,
    pub table: Table,
}

/// How the resource is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    pub path: String,
    /// JSON pointer to the array of rows.
    pub items: String,
    pub order: Order,
    pub pages: Pages,
    /// Each is a stream; at least one (the empty combination when the list takes no parameters).
    pub combinations: Vec<Combination>,
    /// JSON pointer to the row's own time, if rows have one.
    pub time: Option<String>,
    /// Top-level keys that may stand in an answer without rows.
    pub harmless: Vec<String>,
    /// An incremental walk goes on until a whole page is known and older than this.
    pub overlap: Duration,
    /// How far back the API shows rows.
    pub history: Option<Duration>,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Lets an incremental walk stop early.
    NewestFirst,
    /// Every walk reads all pages.
    Unordered,
}

/// How the pages of a list hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// `?page=1`, `?page=2`, ... until an empty answer.
    Number { parameter: String },
    /// One answer holds all.
    None,
}

/// How one document is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// Holds `{id}`.
    pub path: String,
    pub refresh: Option<Refresh>,
}

/// When a document is read again although its list row did not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Refresh {
    /// Pointer (with `*` for any array index) and the values that make the document final.
    pub until: Option<(String, Vec<String>)>,
    /// Pointer to the document's time; without it, the time of its first reading counts.
    pub time: Option<String>,
    /// The shortest pause between two reads; pauses grow to half of the document's age.
    pub every: Duration,
    /// Beyond this age it is left alone.
    pub max_age: Duration,
}

/// How documents are laid out in SQL tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub name: String,
    /// Name of the id's column; the primary key is `(shop_id, <id>)`.
    pub id_column: String,
    pub columns: Vec<Column>,
    pub children: Vec<ChildTable>,
    /// Query parameter of the listing -> where it looks.
    pub filters: Vec<(String, FilterTarget)>,
    /// Column that `from` and `to` of the listing look at.
    pub time: Option<String>,
    /// Columns that `q` of the listing looks into.
    pub search: Vec<String>,
    pub indexes: Vec<String>,
}

/// Where a filter of the listing looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterTarget {
    Column(String),
    /// Any row of a child table.
    Child {
        table: String,
        column: String,
    },
}

/// One typed column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub source: ColumnSource,
    pub kind: ColumnKind,
}

/// Where a column's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnSource {
    /// JSON pointer into the document (or into the child element).
    Pointer(String),
    /// A parameter of the stream that listed the document.
    Stream(String),
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// `VARCHAR(n)`, or `TEXT` without a length.
    Text(Option<u16>),
    Datetime,
    Date,
    Integer,
    Decimal {
        digits: u8,
        scale: u8,
    },
    Boolean,
    Json,
}

/// A table with one row per element of an array in the document; the primary key is
/// `(shop_id, <id>, position)`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildTable {
    pub name: String,
    /// JSON pointer to the array.
    pub from: String,
    pub columns: Vec<Column>,
    pub indexes: Vec<String>,
}

impl Definition {
    /// The streams of a shop: one a combination of list parameters.
    pub fn streams<'a>(&'a self, shop: &'a str) -> impl Iterator<Item = StreamId> + 'a {
        let of = |combination: &Combination| StreamId {
            shop: shop.to_owned(),
            resource: self.name.clone(),
            combination: combination.clone(),
        };
        self.list.combinations.iter().map(of)
    }

    /// The queue of a definition's jobs differs by list and detail; both need a rate rule.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.list.path.as_str()).chain(self.detail.iter().map(|detail| detail.path.as_str()))
    }
}
