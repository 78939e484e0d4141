//! The checked form of a resource definition, which the engine works with.
//!
//! Built only by [`super::reader`], so values of these types are valid: identifiers are SQL identifiers, pointers begin
//! with `/`, filters and indexes name columns that exist.

use std::borrow::Cow;
use std::time::Duration;

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

pub use super::columns::{ChildTable, Column, ColumnKind, ColumnSource, Place, Table};
use super::coverage::Coverage;
use super::facets::FacetLayout;
pub use super::page_style::{PageStyle, Pages};
use crate::domain::{DetailEndpoint, Facet, Facets, Json, ListParams, ShopId, StreamId};

/// Separates the parent's id from a row's own id.
const PARENT_END: char = ':';

/// A resource: how to list it, read its details and map it to tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub name: String,
    /// Sent as `Accept`; a response must begin with its part before `;`.
    pub media_type: String,
    /// JSON pointer to the id within a list row.
    pub id: String,
    /// Time zone of times without an offset, unless a column names its own.
    pub zone: Option<TimeZone>,
    /// The parent resource: each of its documents has a list of this one.
    pub parent: Option<String>,
    pub list: List,
    /// None: the list row itself is the document.
    pub detail: Option<Detail>,
    pub table: Table,
    /// Which parts of a document the columns cover.
    pub coverage: Coverage,
    /// What the archive indexes of a document.
    pub facets: FacetLayout,
    /// Whether documents get their facets when they are read. Only the archive needs them.
    pub has_facets: bool,
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
    pub combinations: Vec<ListParams>,
    /// JSON pointer to the row's own time, if rows have one.
    pub time: Option<String>,
    /// Pointers to the values whose change makes a row a changed one (`*` for any array index); empty: all of it.
    pub changed_by: Vec<String>,
    /// Shortest time between two scheduled incremental walks.
    pub every: Option<Duration>,
    /// Top-level keys that an answer without rows may have.
    pub harmless: Vec<String>,
    /// An incremental walk continues until a whole page is known and older than this.
    pub overlap: Duration,
    /// How far back the API lists rows.
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

/// What proves that a list was read to its end, beyond its pagination style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// JSON pointer to the count of all rows.
    pub total: Option<String>,
    /// JSON pointer to a flag: whether more pages follow.
    pub more: Option<String>,
    /// Rows of a full page: a shorter one is the last.
    pub size: Option<u64>,
}

/// Answers other than an empty page that end a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Statuses of the page after the last one.
    pub statuses: Vec<u16>,
    /// `null` in place of the array of rows.
    pub null: bool,
    /// `[]` in place of the object that holds the rows.
    pub empty_array: bool,
    /// The last page repeated.
    pub repeat: bool,
}

impl List {
    /// The query parameters of its calls, each with the key that defines it.
    pub fn sent(&self) -> Vec<(String, &str)> {
        let choices = self.combinations.first().into_iter().flat_map(|combination| &combination.0);
        let mut sent: Vec<(String, &str)> =
            choices.map(|(name, _)| (format!("parameters.{name}"), name.as_str())).collect();
        sent.extend(self.pages.sent().into_iter().map(|(key, name)| (format!("pages.{key}"), name)));
        let mut add = |key: &str, name| sent.push((key.to_owned(), name));
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

/// Date-windowed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    pub span: Span,
    /// How many days back a full walk begins.
    pub reach_days: u32,
    /// Time zone of the days.
    pub timezone: TimeZone,
    /// After the last window, request the list once without dates, for rows that no window shows.
    pub undated: bool,
}

/// How one window is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// One day, by one parameter.
    Day { parameter: String },
    /// Several days, by the first and the last.
    Days { from: String, to: String, days: u32 },
}

/// A list that can be limited to the changes of the last minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// Takes whole minutes.
    pub parameter: String,
    pub max: Duration,
    pub margin: Duration,
}

/// How one document is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Detail {
    /// Contains `{id}`.
    pub path: String,
    /// JSON pointer to the document in the answer; empty: the answer itself.
    pub document: String,
    pub refresh: Option<Refresh>,
    /// Digest of everything that decides which documents are asked for.
    pub endpoint_digest: u64,
}

impl Detail {
    /// How documents are asked for.
    pub fn endpoint(&self) -> DetailEndpoint {
        DetailEndpoint { digest: self.endpoint_digest, path: self.path.clone() }
    }
}

impl Definition {
    /// Differs between definitions that differ in anything, and perhaps between builds.
    pub fn digest(&self) -> u64 {
        first_of(Sha256::digest(format!("{self:?}")).as_slice())
    }
}

fn first_of(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// A changed digest means that a detail call has to be proved again: it may ask for other documents.
pub(super) fn endpoint_digest(path: &str, media_type: &str, id: &str) -> u64 {
    let mut sha = Sha256::new();
    for part in [path, media_type, id] {
        sha.update(part);
        sha.update([0]);
    }
    first_of(sha.finalize().as_slice())
}

/// When to re-read a document although its list row did not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Refresh {
    /// What makes the document final.
    pub until: Option<Until>,
    /// Pointer to the document's time; None: the time of its first read counts.
    pub time: Option<String>,
    /// The shortest pause between two reads; pauses grow to half of the document's age.
    pub every: Duration,
    /// Older documents are not re-read.
    pub max_age: Duration,
}

/// The values that make a document final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// Pointer, with `*` for any array index.
    pub at: String,
    pub values: Vec<String>,
    /// All values there must match, not just one.
    pub all: bool,
}

impl Definition {
    /// The streams of a shop: one per combination of list parameters.
    pub fn streams<'a>(&'a self, shop: &'a ShopId) -> impl Iterator<Item = StreamId> + 'a {
        let of = |combination: &ListParams| StreamId {
            shop: shop.clone(),
            resource: self.name.clone(),
            combination: combination.clone(),
        };
        self.list.combinations.iter().map(of)
    }

    /// Whether the rows of a combination come newest first.
    pub fn newest_first(&self, combination: &ListParams) -> bool {
        let excepted = |(name, values): &(String, Vec<String>)| {
            combination.get(name).is_some_and(|value| values.iter().any(|one| one == value))
        };
        self.list.order == Order::NewestFirst && !self.list.unordered_when.iter().any(excepted)
    }

    /// The id under which a row is stored: prefixed with the parent's, if there is one.
    pub fn kept_id(&self, parent: Option<&str>, own: &str) -> String {
        match parent {
            Some(parent) => {
                format!("{}{PARENT_END}{own}", parent.replace('%', "%25").replace(PARENT_END, "%3A"))
            }
            None => own.to_owned(),
        }
    }

    /// Splits a stored id into the parent's id, if there is one, and the row's own.
    pub fn split_id<'a>(&self, kept: &'a str) -> (Option<Cow<'a, str>>, &'a str) {
        match kept.split_once(PARENT_END).filter(|_| self.parent.is_some()) {
            Some((parent, own)) if parent.contains('%') => {
                (Some(parent.replace("%3A", ":").replace("%25", "%").into()), own)
            }
            Some((parent, own)) => (Some(parent.into()), own),
            None => (None, kept),
        }
    }

    /// The facets of a document, but for those that its stream decides; `id` is its stored id.
    pub fn facets_of(&self, id: &str, document: &Json<'_>) -> Vec<Facet> {
        let (parent, _) = self.split_id(id);
        self.facets.of_document(id, parent.as_deref(), document)
    }

    /// The same for a document on its way to the store.
    pub fn facets_for_store(&self, id: &str, document: &Json<'_>) -> Facets {
        if self.has_facets { Facets::Known(self.facets_of(id, document)) } else { Facets::Unknown }
    }

    /// The same definition for a sink that needs no facets.
    pub fn without_facets(&self) -> Definition {
        Definition { has_facets: false, ..self.clone() }
    }

    /// The paths of the list and the detail. Each needs a rate rule.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.keyed_paths().map(|(_, path)| path)
    }

    /// Like [`Definition::paths`], each with its key in the definition.
    pub fn keyed_paths(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let detail = self.detail.iter().map(|detail| ("detail.path", detail.path.as_str()));
        std::iter::once(("list.path", self.list.path.as_str())).chain(detail)
    }
}
