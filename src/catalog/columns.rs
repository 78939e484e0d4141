//! The tables of a definition: columns, child tables, and what the listing filters by.
//!
//! The lowest layer of the checked form: `definition`, `cell` and `coverage` build on it.

use std::fmt;

use jiff::tz::TimeZone;

/// How documents map to SQL tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub name: String,
    /// Name of the id's column; the primary key is `(shop_id, <id>)`.
    pub id_column: String,
    pub columns: Vec<Column>,
    pub children: Vec<ChildTable>,
    /// Query parameter of the listing -> what it filters by.
    pub filters: Vec<(String, Place)>,
    /// Column that `from` and `to` of the listing filter by.
    pub time: Option<String>,
    /// What `q` of the listing searches.
    pub search: Vec<Place>,
    pub indexes: Vec<String>,
}

/// What a filter or the search of the listing examines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The document's id.
    Id,
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
    /// Time zone of datetimes without an offset.
    pub zone: Option<TimeZone>,
}

/// Where a column's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnSource {
    /// JSON pointer into the document (or into the child element).
    Pointer(String),
    /// A parameter of the stream that listed the document.
    Stream(String),
    /// The id of the parent's document.
    Parent,
    /// JSON pointer into an ancestor of a child table's element, `up` arrays further out (from 1).
    Above { pointer: String, up: usize },
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

/// As written in a definition.
impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnKind::Text(None) => f.write_str("text"),
            ColumnKind::Text(Some(length)) => write!(f, "text({length})"),
            ColumnKind::Datetime => f.write_str("datetime"),
            ColumnKind::Date => f.write_str("date"),
            ColumnKind::Integer => f.write_str("integer"),
            ColumnKind::Decimal { digits, scale } => write!(f, "decimal({digits},{scale})"),
            ColumnKind::Boolean => f.write_str("boolean"),
            ColumnKind::Json => f.write_str("json"),
        }
    }
}

/// A table with one row per element of an array in the document; the primary key is
/// `(shop_id, <id>, position)`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildTable {
    pub name: String,
    /// JSON pointer to the array; `*` goes through arrays on the way.
    pub from: String,
    pub columns: Vec<Column>,
    pub indexes: Vec<String>,
}

impl Table {
    /// The name of a place in a definition.
    pub fn name_of(&self, place: &Place) -> String {
        match place {
            Place::Id => self.id_column.clone(),
            Place::Column(name) => name.clone(),
            Place::Child { table, column } => format!("{table}.{column}"),
        }
    }
}
