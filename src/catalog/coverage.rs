//! Which parts of a document the columns of its definition take, which they leave, and which do not fit; and which
//! were read more tolerantly than a strict reader does.
//!
//! What is left is not lost: it is in `document`. But people want to know of fields that an API added, or changed. Paths
//! name an array's elements with `*`, and keys that are no plain names with `{key}`: those may be data, as in
//! `{"by_email": {"jan@example.org": 1}}`. Values are never told, as they may be personal. Pure; called by the source for
//! each document, so it is a walk over a tree made once.

mod node;

use std::collections::{BTreeMap, BTreeSet};

use super::definition::{Column, ColumnKind, ColumnSource, Table};
use super::left::KindName;
pub(super) use super::left::is_name;
pub use super::left::{Left, WITHOUT_OFFSET, WITHOUT_OFFSET_HINT, kind, kind_for_time, shown, tolerated};
use crate::domain::Json;
use node::{Node, Taker};

/// What the columns of a definition take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    top: Node,
    /// The definition says whose clock times without an offset are of.
    has_zone: bool,
}

/// Places told of one document. One that has more is a heap of names and values, and all of them say the same.
const PLACES_MAX: usize = 1_000;

impl Coverage {
    /// Of the columns of one table and its children; the id is taken too.
    pub fn new(id: &str, table: &Table, has_zone: bool) -> Coverage {
        let mut top = Node::default();
        let (name, column) = (table.name.clone(), table.id_column.clone());
        top.at(id).taken.push(Taker { table: name, column, kind: ColumnKind::Json, zone: None });
        take_all(&mut top, (&table.name, &table.columns), "");
        for child in &table.children {
            take_all(&mut top, (&child.name, &child.columns), &format!("{}/*", child.from));
        }
        top.settle();
        Coverage { top, has_zone }
    }

    /// Whether something that was left by earlier documents would be left still: the definition may have changed.
    pub fn still_leaves(&self, left: &Left) -> bool {
        let (path, kind) = match left {
            Left::Misfit { table, column, kind } => {
                let taker = self.top.taker(table, column);
                return taker.is_some_and(|taker| *kind != WITHOUT_OFFSET || taker.zone.is_none());
            }
            Left::Untimed { kind, .. } => return *kind != WITHOUT_OFFSET || !self.has_zone,
            Left::Tolerated { .. } => return true,
            Left::Unmapped { path, kind } => (path, *kind),
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
        // Else it is looked into by now, and what is still left is named by itself.
        node.taken.is_empty()
            && (kind != "object" || node.members.is_empty())
            && (kind != "array" || node.elements.is_none() && !node.has_numbered())
    }

    /// What is left of a document: each value that no column takes (of an object or array that is unknown as a whole,
    /// its own place), and each that does not fit. Each place once, in order. Nulls and what is empty say nothing.
    pub fn look(&self, document: &Json<'_>) -> Vec<Left> {
        let mut walk = Walk { path: String::new(), is_had: false, found: Found::default() };
        walk.look(&self.top, document);
        walk.found.left()
    }
}

/// What was found of one document. An array may have a place many thousand times: only the first costs anything.
#[derive(Default)]
struct Found<'a> {
    unmapped: BTreeMap<KindName, BTreeSet<String>>,
    misfits: BTreeSet<(&'a str, &'a str, KindName)>,
    places: usize,
}

impl Found<'_> {
    fn left(self) -> Vec<Left> {
        let unmapped = self.unmapped.into_iter().flat_map(|(kind, paths)| {
            let left = move |path| Left::Unmapped { path, kind };
            paths.into_iter().map(left)
        });
        let misfits = self.misfits.into_iter().map(|(table, column, kind)| {
            let (table, column) = (table.to_owned(), column.to_owned());
            Left::Misfit { table, column, kind }
        });
        let mut left: Vec<Left> = unmapped.chain(misfits).collect();
        left.sort_unstable();
        left
    }
}

/// A walk over one document.
struct Walk<'a> {
    path: String,
    /// A column further up has all that is here.
    is_had: bool,
    found: Found<'a>,
}

fn take_all(top: &mut Node, (table, columns): (&str, &[Column]), within: &str) {
    for column in columns {
        let path = match &column.source {
            ColumnSource::Pointer(pointer) => format!("{within}{pointer}"),
            ColumnSource::Above { pointer, up } => {
                let mut holder = within;
                for _ in 0..*up {
                    holder = holder.rsplit_once("/*").map_or("", |(outer, _)| outer);
                    // What holds an array is the element around it, or the document.
                    holder = holder.rfind("/*").map_or("", |at| holder.get(..at + 2).unwrap_or_default());
                }
                format!("{holder}{pointer}")
            }
            ColumnSource::Stream(_) | ColumnSource::Parent => continue,
        };
        let (table, name) = (table.to_owned(), column.name.clone());
        top.at(&path).taken.push(Taker { table, column: name, kind: column.kind, zone: column.zone.clone() });
    }
}

impl<'a> Walk<'a> {
    fn look(&mut self, node: &'a Node, value: &Json<'_>) {
        for taker in &node.taken {
            if let Some(kind) = taker.misfit(value) {
                self.found.misfits.insert((&taker.table, &taker.column, kind));
            }
        }
        if node.is_whole() {
            return;
        }
        let (length, was_had) = (self.path.len(), self.is_had);
        self.is_had |= node.has_all();
        match value {
            Json::Object(members) if !node.members.is_empty() || self.path.is_empty() => {
                for (key, member) in members {
                    self.path.push('/');
                    if let Some(inner) = node.members.get(key.as_ref()) {
                        push_escaped(&mut self.path, key);
                        self.look(inner, member);
                    } else {
                        self.path.push_str(shown(key));
                        self.unmapped(member);
                    }
                    self.path.truncate(length);
                }
            }
            Json::Array(elements) => self.elements(node, elements, value),
            // A known place with a value of another form: the columns below it are empty.
            other if node.taken.is_empty() => self.unmapped(other),
            _ => {}
        }
        self.is_had = was_had;
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
                // What it has beside its own columns, all elements may have.
                (inner, Some(all)) => {
                    self.path.push_str("/*");
                    self.look(inner.map_or(all, |(_, inner)| inner), element);
                }
                (Some((token, inner)), None) => {
                    self.path.push('/');
                    self.path.push_str(token);
                    self.look(inner, element);
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
        if self.is_had || !is_something(value) {
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

fn is_something(value: &Json<'_>) -> bool {
    match value {
        Json::Null => false,
        Json::Array(elements) => !elements.is_empty(),
        Json::Object(members) => !members.is_empty(),
        Json::Bool(_) | Json::Number(_) | Json::Text(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::Left;
    use crate::domain::Json;

    #[test]
    fn what_no_column_takes_is_named_once_and_never_shown() {
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
            let left = definition.coverage.look(&Json::parse(document.as_bytes()).unwrap());
            let told = |left: &Left| match left {
                Left::Unmapped { path, kind } => format!("{path} {kind}"),
                Left::Misfit { table, column, kind } => format!("{table}.{column} {kind}"),
                Left::Tolerated { path, kind } | Left::Untimed { path, kind } => format!("{path} {kind}"),
            };
            left.iter().map(told).collect()
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

    fn unmapped(path: &str, kind: &'static str) -> Left {
        Left::Unmapped { path: path.to_owned(), kind }
    }

    #[test]
    fn a_json_column_has_what_is_below_it_whatever_else_takes_of_it() {
        let coverage = of("raw = { from = \"/a\", type = \"json\" }\nb = { from = \"/a/b\", type = \"integer\" }");
        let look = |text: &str| coverage.look(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(look(r#"{"id":"1","a":{"b":1,"c":2,"d":[{"e":1}]}}"#), []);
        let misfit = Left::Misfit { table: "things".into(), column: "b".into(), kind: "text" };
        assert_eq!(look(r#"{"id":"1","a":{"b":"x","c":2},"c":3}"#), [unmapped("/c", "number"), misfit]);
        assert!(!coverage.still_leaves(&unmapped("/a/c", "number")));
    }

    #[test]
    fn a_column_may_take_an_element_by_its_number() {
        let first = "first = { from = \"/items/0/ean\", type = \"text\" }\n";
        let coverage = of(first);
        let look = |coverage: &super::Coverage, text: &str| coverage.look(&Json::parse(text.as_bytes()).unwrap());
        assert_eq!(look(&coverage, r#"{"id":"1","items":[{"ean":"x"}]}"#), []);
        let two = r#"{"id":"1","items":[{"ean":"x","size":1},{"ean":"y","size":2}]}"#;
        let left = look(&coverage, two);
        assert_eq!(left, [unmapped("/items/*", "object"), unmapped("/items/0/size", "number")]);
        assert!(left.iter().all(|left| coverage.still_leaves(left)));
        assert!(!coverage.still_leaves(&unmapped("/items", "array")));
        let both = of(&format!(
            "{first}[table.children.parts]\nfrom = \"/items\"\ncolumns = {{ size = {{ from = \"/size\", type = \"integer\" }} }}"
        ));
        assert_eq!(look(&both, two), [unmapped("/items/*/ean", "text")]);
        assert_eq!(look(&both, r#"{"id":"1","items":[{"ean":"x","size":"S"}]}"#).len(), 1, "a misfit");
    }

    #[test]
    fn what_stands_in_a_document_many_times_is_one_place_and_places_are_bounded() {
        let coverage =
            of("[table.children.parts]\nfrom = \"/p\"\ncolumns = { n = { from = \"/n\", type = \"integer\" } }");
        let many = format!(r#"{{"id":"1","p":[{}]}}"#, vec![r#"{"n":"x","m":1}"#; 10_000].join(","));
        let left = coverage.look(&Json::parse(many.as_bytes()).unwrap());
        let misfit = Left::Misfit { table: "parts".into(), column: "n".into(), kind: "text" };
        assert_eq!(left, [unmapped("/p/*/m", "number"), misfit]);
        let keys: Vec<String> = (0..10_000).map(|n| format!(r#""k{n}":1"#)).collect();
        let heap = format!(r#"{{"id":"1",{}}}"#, keys.join(","));
        assert_eq!(coverage.look(&Json::parse(heap.as_bytes()).unwrap()).len(), super::PLACES_MAX);
    }

    #[test]
    fn what_a_newer_definition_takes_is_not_left_any_more() {
        let misfit = Left::Misfit { table: "things".into(), column: "a".into(), kind: "text" };
        let (old, new) = (
            of("a = { from = \"/a\", type = \"integer\" }"),
            of("b = { from = \"/b/c\", type = \"text\" }\nd = { from = \"/d\", type = \"json\" }"),
        );
        for (left, is_left) in [
            (unmapped("/b", "object"), false),
            (unmapped("/b", "text"), true),
            (unmapped("/b/c", "text"), false),
            (unmapped("/b/x", "text"), true),
            (unmapped("/d", "array"), false),
            (unmapped("/d/*/e", "text"), false),
            (unmapped("/new", "text"), true),
            (misfit, false),
        ] {
            assert!(old.still_leaves(&left), "{left:?}");
            assert_eq!(new.still_leaves(&left), is_left, "{left:?}");
            let kept = serde_json::to_string(&left).unwrap();
            assert_eq!(serde_json::from_str::<Left>(&kept).unwrap(), left, "{kept}");
        }
    }
}
