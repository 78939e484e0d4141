//! Detects field drift: parts of a document that no column takes, or that do not fit their column.
//!
//! Such parts are not lost, as `document` holds the whole text; but operators need to know about fields that an API
//! added or changed. Paths show array elements as `*`, and keys that may be data as `{key}`, like the address in
//! `{"by_email": {"jan@example.org": 1}}`. Values are never reported, as they may be personal. Pure; called by the
//! source for each document, so the tree of columns is built once.

mod node;

use std::collections::{BTreeMap, BTreeSet};

use super::columns::{Column, ColumnKind, ColumnSource, Table};
use super::field_drift::KindName;
pub(super) use super::field_drift::is_name;
pub use super::field_drift::{FieldDrift, WITHOUT_OFFSET, WITHOUT_OFFSET_HINT, kind, kind_for_time, shown, tolerated};
use crate::domain::Json;
use node::{Node, Taker};

/// The parts of a document that the columns of a definition take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    top: Node,
    /// The definition names the time zone of times without an offset.
    has_zone: bool,
}

/// Places reported per document. More than this means dynamic keys; further paths add no information.
const PLACES_MAX: usize = 1_000;

impl Coverage {
    /// The coverage of one table and its children; the id counts as taken.
    pub fn new(id: &str, table: &Table, has_zone: bool) -> Coverage {
        let mut top = Node::default();
        let (name, column) = (table.name.clone(), table.id_column.clone());
        top.at(id).taken.push(Taker { table: name, column, kind: ColumnKind::Json, zone: None });
        take_all(&mut top, &table.name, &table.columns, "");
        for child in &table.children {
            take_all(&mut top, &child.name, &child.columns, &format!("{}/*", child.from));
        }
        top.settle();
        Coverage { top, has_zone }
    }

    /// Whether drift of earlier documents would still be reported, as the definition may have changed since.
    pub fn still_drifts(&self, drift: &FieldDrift) -> bool {
        let (path, kind) = match drift {
            FieldDrift::TypeMismatch { table, column, kind } => {
                let taker = self.top.taker(table, column);
                return taker.is_some_and(|taker| *kind != WITHOUT_OFFSET || taker.zone.is_none());
            }
            FieldDrift::Untimed { kind, .. } => return *kind != WITHOUT_OFFSET || !self.has_zone,
            FieldDrift::Tolerated { .. } => return true,
            FieldDrift::Unmapped { path, kind } => (path, *kind),
        };
        let mut node = &self.top;
        for token in path.split('/').skip(1) {
            if node.is_whole() || node.has_all() {
                return false;
            }
            let inner = if token == "*" {
                node.elements.as_deref()
            } else {
                node.members.get(&token.replace("~1", "/").replace("~0", "~"))
            };
            match inner {
                Some(inner) => node = inner,
                None => return true,
            }
        }
        // Otherwise the definition now looks inside, and what still drifts is reported by its own path.
        node.taken.is_empty()
            && (kind != "object" || node.members.is_empty())
            && (kind != "array" || node.elements.is_none() && !node.has_numbered())
    }

    /// The drift of a document: each value that no column takes (an object or array without any column counts as one),
    /// and each that does not fit. Each place once, sorted. Nulls and empty values are skipped.
    pub fn drift(&self, document: &Json<'_>) -> Vec<FieldDrift> {
        let mut walk = DocumentWalk { path: String::new(), is_covered: false, found: FoundDrift::default() };
        walk.visit(&self.top, document);
        walk.found.into_drift()
    }
}

/// What was found in one document. A place may occur thousands of times in an array; only the first allocates.
#[derive(Default)]
struct FoundDrift<'a> {
    unmapped: BTreeMap<KindName, BTreeSet<String>>,
    mismatches: BTreeSet<(&'a str, &'a str, KindName)>,
    places: usize,
}

impl FoundDrift<'_> {
    fn into_drift(self) -> Vec<FieldDrift> {
        let unmapped = self.unmapped.into_iter().flat_map(|(kind, paths)| {
            let unmapped = move |path| FieldDrift::Unmapped { path, kind };
            paths.into_iter().map(unmapped)
        });
        let mismatches = self.mismatches.into_iter().map(|(table, column, kind)| {
            let (table, column) = (table.to_owned(), column.to_owned());
            FieldDrift::TypeMismatch { table, column, kind }
        });
        let mut drift: Vec<FieldDrift> = unmapped.chain(mismatches).collect();
        drift.sort_unstable();
        drift
    }
}

/// A walk over one document.
struct DocumentWalk<'a> {
    path: String,
    /// A column further up takes everything here.
    is_covered: bool,
    found: FoundDrift<'a>,
}

fn take_all(top: &mut Node, table: &str, columns: &[Column], within: &str) {
    for column in columns {
        let Some((holder, pointer)) = place_in(&column.source, within) else { continue };
        let (table, name) = (table.to_owned(), column.name.clone());
        let taker = Taker { table, column: name, kind: column.kind, zone: column.zone.clone() };
        top.at(&format!("{holder}{pointer}")).taken.push(taker);
    }
}

/// The path to the value that a column of elements at `within` takes: to its holder, and from there. None: it is not in
/// the document.
pub(super) fn place_in<'a>(source: &'a ColumnSource, within: &'a str) -> Option<(&'a str, &'a str)> {
    match source {
        ColumnSource::Pointer(pointer) => Some((within, pointer)),
        ColumnSource::Above { pointer, up } => {
            let mut holder = within;
            for _ in 0..*up {
                holder = holder.rsplit_once("/*").map_or("", |(outer, _)| outer);
                // An array is held by the element around it, or by the document.
                holder = holder.rfind("/*").map_or("", |at| holder.get(..at + 2).unwrap_or_default());
            }
            Some((holder, pointer))
        }
        ColumnSource::Stream(_) | ColumnSource::Parent => None,
    }
}

impl<'a> DocumentWalk<'a> {
    fn visit(&mut self, node: &'a Node, value: &Json<'_>) {
        for taker in &node.taken {
            if let Some(kind) = taker.mismatch(value) {
                self.found.mismatches.insert((&taker.table, &taker.column, kind));
            }
        }
        if node.is_whole() {
            return;
        }
        let (length, was_covered) = (self.path.len(), self.is_covered);
        self.is_covered |= node.has_all();
        match value {
            Json::Object(members) if !node.members.is_empty() || self.path.is_empty() => {
                for (key, member) in members {
                    self.path.push('/');
                    if let Some(inner) = node.members.get(key.as_ref()) {
                        push_escaped(&mut self.path, key);
                        self.visit(inner, member);
                    } else {
                        self.path.push_str(shown(key));
                        self.unmapped(member);
                    }
                    self.path.truncate(length);
                }
            }
            Json::Array(elements) => self.elements(node, elements, value),
            // A known place with another kind of value: the columns below it stay empty.
            other if node.taken.is_empty() => self.unmapped(other),
            _ => {}
        }
        self.is_covered = was_covered;
    }

    fn elements(&mut self, node: &'a Node, elements: &[Json<'_>], whole: &Json<'_>) {
        let numbered = node.numbered(elements.len());
        if node.elements.is_none() && !node.has_numbered() {
            return self.unmapped(whole);
        }
        let length = self.path.len();
        for (at, element) in elements.iter().enumerate() {
            let inner = numbered.iter().find(|(number, _)| *number == at).map(|(_, named)| *named);
            match (inner, node.elements.as_deref()) {
                // A numbered element may also have columns of all elements.
                (inner, Some(all)) => {
                    self.path.push_str("/*");
                    self.visit(inner.map_or(all, |(_, inner)| inner), element);
                }
                (Some((token, inner)), None) => {
                    self.path.push('/');
                    self.path.push_str(token);
                    self.visit(inner, element);
                }
                (None, None) => {
                    self.path.push_str("/*");
                    self.unmapped(element);
                }
            }
            self.path.truncate(length);
        }
    }

    fn unmapped(&mut self, value: &Json<'_>) {
        if self.is_covered || is_empty(value) {
            return;
        }
        let paths = self.found.unmapped.entry(kind(value)).or_default();
        if self.found.places < PLACES_MAX && !paths.contains(&self.path) {
            paths.insert(self.path.clone());
            self.found.places += 1;
        }
    }
}

fn push_escaped(path: &mut String, key: &str) {
    if key.contains(['~', '/']) {
        path.push_str(&key.replace('~', "~0").replace('/', "~1"));
    } else {
        path.push_str(key);
    }
}

fn is_empty(value: &Json<'_>) -> bool {
    match value {
        Json::Null => true,
        Json::Array(elements) => elements.is_empty(),
        Json::Object(members) => members.is_empty(),
        Json::Bool(_) | Json::Number(_) | Json::Text(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::FieldDrift;
    use crate::domain::Json;

    #[test]
    fn unmapped_fields_are_reported_once_by_path_without_values() {
        let text = r#"
            id = "/id"
            list = { path = "/things", items = "/things", pages = { style = "none" } }
            [table.columns]
            name = { from = "/name", type = "text" }
            raw  = { from = "/raw", type = "json" }
            city = { from = "/to/city", type = "text" }
            [table.children.parts]
            from = "/boxes/*/parts"
            [table.children.parts.columns]
            part = { from = "/n", type = "integer" }
            box  = { above = "/b", type = "text" }
            note = { above = "/note", up = 2, type = "text" }
        "#;
        let definition = crate::catalog::reader::read("things", &toml::from_str(text).unwrap()).unwrap();
        let found = |document: &str| -> Vec<String> {
            let drift = definition.coverage.drift(&Json::parse(document.as_bytes()).unwrap());
            let shown = |one: &FieldDrift| match one {
                FieldDrift::Unmapped { path, kind } => format!("{path} {kind}"),
                FieldDrift::TypeMismatch { table, column, kind } => format!("{table}.{column} {kind}"),
                FieldDrift::Tolerated { path, kind } | FieldDrift::Untimed { path, kind } => format!("{path} {kind}"),
            };
            drift.iter().map(shown).collect()
        };
        let whole = r#"{"id":"1","name":"n","note":"x","raw":{"a":[1]},"to":{"city":"c"},"boxes":[{"b":"A","parts":[{"n":1}]}]}"#;
        assert_eq!(found(whole), [""; 0]);
        assert_eq!(
            found(
                r#"{"id":"1","name":{"first":"x"},"new":{"deep":1},"to":{"city":null,"street":"secret"},"tags":["a"],"none":null,"empty":[],
                    "boxes":[{"b":"A","lid":true,"parts":[{"n":"many","m":2},{"m":3}]},{"parts":7}]}"#
            ),
            [
                "/boxes/*/lid boolean",
                "/boxes/*/parts number",
                "/boxes/*/parts/*/m number",
                "/new object",
                "/tags array",
                "/to/street text",
                "parts.part text",
                "things.name object"
            ]
        );
        let keys = r#"{"id":"1","to":{"jan@example.org":1,"0612345678":"x","nieuw veld":2,"größe":3},"name":"n"}"#;
        assert_eq!(found(keys), ["/to/größe number", "/to/{key} number", "/to/{key} text"]);
    }

    /// The coverage of a resource with these columns, and children.
    fn of(columns: &str) -> super::Coverage {
        let list = r#"list = { path = "/things", items = "", pages = { style = "none" } }"#;
        let text = format!("id = \"/id\"\n{list}\n[table.columns]\n{columns}");
        crate::catalog::reader::read("things", &toml::from_str(&text).unwrap()).unwrap().coverage
    }

    fn unmapped(path: &str, kind: &'static str) -> FieldDrift {
        FieldDrift::Unmapped { path: path.to_owned(), kind }
    }

    #[test]
    fn a_json_column_covers_everything_below_it() {
        let coverage = of("raw = { from = \"/a\", type = \"json\" }\nb = { from = \"/a/b\", type = \"integer\" }");
        let drift = |text: &str| coverage.drift(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(drift(r#"{"id":"1","a":{"b":1,"c":2,"d":[{"e":1}]}}"#), []);
        let mismatch = FieldDrift::TypeMismatch { table: "things".into(), column: "b".into(), kind: "text" };
        assert_eq!(drift(r#"{"id":"1","a":{"b":"x","c":2},"c":3}"#), [unmapped("/c", "number"), mismatch]);
        assert!(!coverage.still_drifts(&unmapped("/a/c", "number")));
    }

    #[test]
    fn a_column_may_take_an_element_by_its_number() {
        let first = "first = { from = \"/items/0/ean\", type = \"text\" }\n";
        let coverage = of(first);
        let drift = |coverage: &super::Coverage, text: &str| coverage.drift(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(drift(&coverage, r#"{"id":"1","items":[{"ean":"x"}]}"#), []);
        let two = r#"{"id":"1","items":[{"ean":"x","size":1},{"ean":"y","size":2}]}"#;
        let found = drift(&coverage, two);
        assert_eq!(found, [unmapped("/items/*", "object"), unmapped("/items/0/size", "number")]);
        assert!(found.iter().all(|one| coverage.still_drifts(one)));
        assert!(!coverage.still_drifts(&unmapped("/items", "array")));
        let both = of(&format!(
            "{first}[table.children.parts]\nfrom = \"/items\"\ncolumns = {{ size = {{ from = \"/size\", type = \"integer\" }} }}"
        ));
        assert_eq!(drift(&both, two), [unmapped("/items/*/ean", "text")]);
        assert_eq!(drift(&both, r#"{"id":"1","items":[{"ean":"x","size":"S"}]}"#).len(), 1, "a type mismatch");
    }

    #[test]
    fn repeated_places_are_reported_once_and_places_are_bounded() {
        let coverage =
            of("[table.children.parts]\nfrom = \"/p\"\ncolumns = { n = { from = \"/n\", type = \"integer\" } }");
        let many = format!(r#"{{"id":"1","p":[{}]}}"#, vec![r#"{"n":"x","m":1}"#; 10_000].join(","));
        let drift = coverage.drift(&Json::parse(many.as_bytes()).unwrap());
        let mismatch = FieldDrift::TypeMismatch { table: "parts".into(), column: "n".into(), kind: "text" };
        assert_eq!(drift, [unmapped("/p/*/m", "number"), mismatch]);
        let keys: Vec<String> = (0..10_000).map(|n| format!(r#""k{n}":1"#)).collect();
        let heap = format!(r#"{{"id":"1",{}}}"#, keys.join(","));
        assert_eq!(coverage.drift(&Json::parse(heap.as_bytes()).unwrap()).len(), super::PLACES_MAX);
    }

    #[test]
    fn fields_that_a_newer_definition_takes_no_longer_drift() {
        let mismatch = FieldDrift::TypeMismatch { table: "things".into(), column: "a".into(), kind: "text" };
        let (old, new) = (
            of("a = { from = \"/a\", type = \"integer\" }"),
            of("b = { from = \"/b/c\", type = \"text\" }\nd = { from = \"/d\", type = \"json\" }"),
        );
        for (drift, still_drifts) in [
            (unmapped("/b", "object"), false),
            (unmapped("/b", "text"), true),
            (unmapped("/b/c", "text"), false),
            (unmapped("/b/x", "text"), true),
            (unmapped("/d", "array"), false),
            (unmapped("/d/*/e", "text"), false),
            (unmapped("/new", "text"), true),
            (mismatch, false),
        ] {
            assert!(old.still_drifts(&drift), "{drift:?}");
            assert_eq!(new.still_drifts(&drift), still_drifts, "{drift:?}");
            let stored = serde_json::to_string(&drift).unwrap();
            assert_eq!(serde_json::from_str::<FieldDrift>(&stored).unwrap(), drift, "{stored}");
        }
    }
}
