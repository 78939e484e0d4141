//! The tree of places in a document from which columns take values.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use crate::catalog::cell::fits;
use crate::catalog::columns::ColumnKind;
use crate::catalog::field_drift::{KindName, kind, kind_for_time};
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
    /// The kind of a value that this column cannot hold; None: it can.
    pub(super) fn mismatch(&self, value: &Json<'_>) -> Option<KindName> {
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
    /// Whether a column takes the whole value and no column takes parts of it.
    pub(super) fn is_whole(&self) -> bool {
        !self.taken.is_empty() && self.members.is_empty() && self.elements.is_none()
    }

    /// Whether a JSON column takes everything below this place.
    pub(super) fn has_all(&self) -> bool {
        self.taken.iter().any(|taker| taker.kind == ColumnKind::Json)
    }

    /// The elements that columns take by index in an array of this length: `/items/0`, `/items/-1`.
    pub(super) fn numbered(&self, length: usize) -> Vec<(usize, (&str, &Node))> {
        let numbered = |(token, inner)| {
            let token: &String = token;
            Some((element_at(token.as_bytes(), length)?, (token.as_str(), inner)))
        };
        self.members.iter().filter_map(numbered).collect()
    }

    /// Whether columns take elements by index.
    pub(super) fn has_numbered(&self) -> bool {
        self.members.keys().any(|token| is_number(token))
    }

    /// Merges the columns of all elements into those of elements taken by index.
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

    /// The column of that name, if it takes a value here or below.
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

/// Whether a pointer token may be an array index.
fn is_number(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
