//! The checked form of a resource definition: what the engine works with.
//!
//! Built only by [`super::reader`], so a value of these types is known to be sound: identifiers are
//! SQL identifiers, pointers begin with `/`, filters and indexes name columns that exist.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::coverage::Coverage;
use crate::domain::{Combination, StreamId};

/// Stands between the parent's id and the own one.
const PARENT_END: char = ':';

/// A resource: how to list it, read its details and lay it out in tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    /// Sent as `Accept`; a response must begin with its part before `;`.
    pub media_type: String,
    /// JSON pointer to the id within a list row.
    pub id: String,
    /// Whose clock times without an offset are of, unless a column says otherwise.
    pub zone: Option<TimeZone>,
    /// The resource whose documents each have a list of their own.
    pub parent: Option<String>,
    pub list: List,
    /// None: the list row is the document.
    pub detail: Option<Detail>,
    pub table: Table,
    /// What of a document the table's columns take.
    pub coverage: Coverage,
}

/// How the resource is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    pub path: String,
    /// JSON pointer to the array of rows.
    pub items: String,
    pub order: Order,
    /// Parameters and values whose combinations do not follow `order`.
    pub unordered_when: Vec<(String, Vec<String>)>,
    pub pages: Pages,
    pub proof: Proof,
    pub ends: Ends,
    pub windows: Option<Windows>,
    pub recent: Option<Recent>,
    /// Each is a stream; at least one (the empty combination when the list takes no parameters).
    pub combinations: Vec<Combination>,
    /// JSON pointer to the row's own time, if rows have one.
    pub time: Option<String>,
    /// What makes a known row a changed one (`*` for any array index); empty: all of it.
    pub changed_by: Vec<String>,
    /// Scheduled walks for news follow each other no sooner than this.
    pub every: Option<Duration>,
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
    Number { parameter: String, first: u64 },
    /// The same, while the flag at the pointer is true.
    HasMoreFlag { parameter: String, first: u64, flag: String },
    /// The cursor of the next page stands at the first of these pointers that has one.
    Cursor { parameter: String, next: Vec<String> },
    /// `?offset=0&limit=100`, ... until an empty answer.
    Offset { parameter: String, limit: Option<String>, size: u64 },
    /// The address of the next page stands at the pointer, or in the header `Link`.
    NextLink { at: Option<String> },
    /// One answer holds all.
    None,
}

/// What proves that a list was read to its end, beside what its page style says by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// JSON pointer to the count of all rows.
    pub total: Option<String>,
    /// JSON pointer to whether more pages follow.
    pub more: Option<String>,
    /// Rows of a full page: a shorter one is the last.
    pub size: Option<u64>,
}

/// Answers that end a list, beside an empty page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Statuses of the page after the last one.
    pub statuses: Vec<u16>,
    /// `null` in place of the array of rows.
    pub null: bool,
    /// `[]` in place of the object that holds the rows.
    pub empty_array: bool,
    /// The last page once more.
    pub repeat: bool,
}

impl List {
    /// The parameters of its calls, and the keys of the list that they stand under.
    pub fn sent(&self) -> Vec<(String, &str)> {
        let choices = self.combinations.first().into_iter().flat_map(|combination| &combination.0);
        let mut sent: Vec<(String, &str)> =
            choices.map(|(name, _)| (format!("parameters.{name}"), name.as_str())).collect();
        let mut add = |key: &str, name| sent.push((key.to_owned(), name));
        match &self.pages {
            Pages::Number { parameter, .. }
            | Pages::HasMoreFlag { parameter, .. }
            | Pages::Cursor { parameter, .. } => {
                add("pages.parameter", parameter);
            }
            Pages::Offset { parameter, limit, .. } => {
                add("pages.parameter", parameter);
                limit.iter().for_each(|limit| add("pages.limit", limit));
            }
            Pages::NextLink { .. } | Pages::None => {}
        }
        match self.windows.as_ref().map(|windows| &windows.span) {
            Some(Span::Day { parameter }) => add("windows.day", parameter),
            Some(Span::Days { from, to, .. }) => {
                add("windows.from", from);
                add("windows.to", to);
            }
            None => {}
        }
        self.recent.iter().for_each(|recent| add("recent.parameter", &recent.parameter));
        sent
    }
}

/// A list that shows a stretch of days at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    pub span: Span,
    /// How many days back a whole walk begins.
    pub reach_days: u32,
    /// Whose days.
    pub timezone: TimeZone,
    /// After the days the list is asked for once without any: it then shows what no day does.
    pub undated: bool,
}

/// How a stretch of days is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// One day, by one parameter.
    Day { parameter: String },
    /// So many days, by their first and last.
    Days { from: String, to: String, days: u32 },
}

/// A list that can tell what changed in the last minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Gets whole minutes.
    pub parameter: String,
    pub max: Duration,
    pub margin: Duration,
}

/// How one document is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// Holds `{id}`.
    pub path: String,
    /// JSON pointer to the document in the answer; empty: the answer itself.
    pub document: String,
    pub refresh: Option<Refresh>,
}

/// When a document is read again although its list row did not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Refresh {
    /// What makes the document final.
    pub until: Option<Until>,
    /// Pointer to the document's time; without it, the time of its first reading counts.
    pub time: Option<String>,
    /// The shortest pause between two reads; pauses grow to half of the document's age.
    pub every: Duration,
    /// Beyond this age it is left alone.
    pub max_age: Duration,
}

/// The values that make a document final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// Pointer, with `*` for any array index.
    pub at: String,
    pub values: Vec<String>,
    /// Each value there must be one of them, not just any.
    pub all: bool,
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
    pub filters: Vec<(String, Place)>,
    /// Column that `from` and `to` of the listing look at.
    pub time: Option<String>,
    /// Where `q` of the listing looks.
    pub search: Vec<Place>,
    pub indexes: Vec<String>,
}

/// Where a filter or the search of the listing looks.
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
    /// Whose clock a datetime without an offset is of.
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
    /// JSON pointer into what holds the array of a child table, `up` arrays further out (from 1).
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

/// As it is written in a definition.
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
    /// A place as a definition names it.
    pub fn name_of(&self, place: &Place) -> String {
        match place {
            Place::Id => self.id_column.clone(),
            Place::Column(name) => name.clone(),
            Place::Child { table, column } => format!("{table}.{column}"),
        }
    }
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

    /// Whether the rows of a combination come newest first.
    pub fn newest_first(&self, combination: &Combination) -> bool {
        let excepted = |(name, values): &(String, Vec<String>)| {
            combination.get(name).is_some_and(|value| values.iter().any(|one| one == value))
        };
        self.list.order == Order::NewestFirst && !self.list.unordered_when.iter().any(excepted)
    }

    /// The id under which a row is kept: with the parent's in front, where there is one.
    pub fn kept_id(&self, parent: Option<&str>, own: &str) -> String {
        match parent {
            Some(parent) => {
                format!("{}{PARENT_END}{own}", parent.replace('%', "%25").replace(PARENT_END, "%3A"))
            }
            None => own.to_owned(),
        }
    }

    /// A kept id's parent, where there is one, and own part.
    pub fn split_id<'a>(&self, kept: &'a str) -> (Option<Cow<'a, str>>, &'a str) {
        match kept.split_once(PARENT_END).filter(|_| self.parent.is_some()) {
            Some((parent, own)) if parent.contains('%') => {
                (Some(parent.replace("%3A", ":").replace("%25", "%").into()), own)
            }
            Some((parent, own)) => (Some(parent.into()), own),
            None => (None, kept),
        }
    }

    /// The queue of a definition's jobs differs by list and detail; both need a rate rule.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.keyed_paths().map(|(_, path)| path)
    }

    /// The same, each with the key of the definition that it stands under.
    pub fn keyed_paths(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let detail = self.detail.iter().map(|detail| ("detail.path", detail.path.as_str()));
        std::iter::once(("list.path", self.list.path.as_str())).chain(detail)
    }
}
