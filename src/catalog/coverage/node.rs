//! What columns take of a document, as a tree of places.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use crate::catalog::definition::ColumnKind;
use crate::catalog::extract::fits;
use crate::catalog::left::{KindName, kind, kind_for_time};
use crate::domain::Json;
use crate::domain::json::element_at;

/// A column that takes a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taker {
    pub(super) table: String,
    pub(super) column: String,
    pub(super) kind: ColumnKind,
    pub(super) zone: Option<TimeZone>,
}

impl Taker {
    /// The kind of a value that this column cannot hold.
    pub(super) fn misfit(&self, value: &Json<'_>) -> Option<KindName> {
        if *value == Json::Null || fits(self.kind, self.zone.as_ref(), value) {
            return None;
        }
        Some(if self.kind == ColumnKind::Datetime { kind_for_time(value) } else { kind(value) })
    }
}

/// A place in a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Node {
    /// The columns that take the value at this place.
    pub(super) taken: Vec<Taker>,
    pub(super) members: BTreeMap<String, Node>,
    pub(super) elements: Option<Box<Node>>,
}

impl Node {
    /// A column takes it as it is; nothing below it is looked at.
    pub(super) fn is_whole(&self) -> bool {
        !self.taken.is_empty() && self.members.is_empty() && self.elements.is_none()
    }

    /// A column has all that is below it, whatever other columns take of that.
    pub(super) fn has_all(&self) -> bool {
        self.taken.iter().any(|taker| taker.kind == ColumnKind::Json)
    }

    /// The places that columns take by their number in an array of this length: `/items/0`, `/items/-1`.
    pub(super) fn numbered(&self, length: usize) -> Vec<(usize, (&str, &Node))> {
        let numbered = |(token, inner)| {
            let token: &String = token;
            Some((element_at(token.as_bytes(), length)?, (token.as_str(), inner)))
        };
        self.members.iter().filter_map(numbered).collect()
    }

    /// Whether columns take elements by their number.
    pub(super) fn has_numbered(&self) -> bool {
        self.members.keys().any(|token| is_number(token))
    }

    /// An element that columns take by its number is also one of all elements.
    pub(super) fn settle(&mut self) {
        if let Some(elements) = self.elements.as_deref() {
            let numbered = self.members.iter_mut().filter(|(token, _)| is_number(token));
            numbered.for_each(|(_, inner)| inner.merge(elements));
        }
        self.members.values_mut().chain(self.elements.as_deref_mut()).for_each(Node::settle);
    }

    pub(super) fn merge(&mut self, other: &Node) {
        self.taken.extend(other.taken.iter().cloned());
        for (token, inner) in &other.members {
            self.members.entry(token.clone()).or_default().merge(inner);
        }
        if let Some(inner) = &other.elements {
            self.elements.get_or_insert_default().merge(inner);
        }
    }

    /// The column of that name, if it takes something here or below.
    pub(super) fn taker(&self, table: &str, column: &str) -> Option<&Taker> {
        let here = self.taken.iter().find(|taker| taker.table == table && taker.column == column);
        here.or_else(|| {
            let mut below = self.members.values().chain(self.elements.as_deref());
            below.find_map(|inner| inner.taker(table, column))
        })
    }

    pub(super) fn at(&mut self, path: &str) -> &mut Node {
        let mut node = self;
        for token in path.split('/').skip(1) {
            node = if token == "*" {
                node.elements.get_or_insert_default()
            } else {
                node.members.entry(token.replace("~1", "/").replace("~0", "~")).or_default()
            };
        }
        node
    }
}

/// Whether a token of a pointer may be the number of an element.
fn is_number(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
