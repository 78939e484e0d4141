//! Which parts of a document the columns of its definition take, which they leave, and which do not fit.
//!
//! What is left is not lost: it is in `document`. But people want to know of fields that an API added, or changed. Paths
//! name an array's elements with `*`; values are never told, as they may be personal. Pure; called by the source for
//! each document, so it is a walk over a tree made once.

use std::collections::BTreeMap;

use super::definition::{Column, ColumnKind, ColumnSource, Table};
use super::extract::fits;
use crate::domain::Json;

/// What the columns of a definition take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    top: Node,
}

/// A part of a document that no column has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// No column takes it.
    Unmapped { path: String, kind: &'static str },
    /// The column that takes it is of another type.
    Misfit { table: String, column: String, kind: &'static str },
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Node {
    /// The columns that take the value at this place: table, name, type.
    taken: Vec<(String, String, ColumnKind)>,
    members: BTreeMap<String, Node>,
    elements: Option<Box<Node>>,
}

impl Node {
    fn at(&mut self, path: &str) -> &mut Node {
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

/// The kind of a JSON value, for people.
pub fn kind(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::Text(_) => "text",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

impl Coverage {
    /// Of the columns of one table and its children; the id is taken too.
    pub fn new(id: &str, table: &Table) -> Coverage {
        let mut top = Node::default();
        top.at(id).taken.push((table.name.clone(), table.id_column.clone(), ColumnKind::Json));
        take_all(&mut top, (&table.name, &table.columns), "");
        for child in &table.children {
            take_all(&mut top, (&child.name, &child.columns), &format!("{}/*", child.from));
        }
        Coverage { top }
    }

    /// What is left of a document: each value that no column takes (of an object or array that is unknown as a whole,
    /// its own place), and each that does not fit. Nulls and what is empty say nothing.
    pub fn look(&self, document: &Json<'_>) -> Vec<Left> {
        let mut left = Vec::new();
        look(&self.top, document, &mut String::new(), &mut left);
        left
    }
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
        top.at(&path).taken.push((table.to_owned(), column.name.clone(), column.kind));
    }
}

fn look(node: &Node, value: &Json<'_>, path: &mut String, left: &mut Vec<Left>) {
    for (table, column, kind) in &node.taken {
        if *value != Json::Null && !fits(*kind, value) {
            left.push(Left::Misfit { table: table.clone(), column: column.clone(), kind: self::kind(value) });
        }
    }
    let is_leaf = node.members.is_empty() && node.elements.is_none();
    if is_leaf && !node.taken.is_empty() {
        return;
    }
    let length = path.len();
    let unmapped = |path: &str, value: &Json<'_>, left: &mut Vec<Left>| {
        if is_something(value) {
            left.push(Left::Unmapped { path: path.to_owned(), kind: kind(value) });
        }
    };
    match value {
        Json::Object(members) if !node.members.is_empty() || path.is_empty() => {
            for (key, member) in members {
                path.push('/');
                path.push_str(key);
                match node.members.get(key.as_ref()) {
                    Some(inner) => look(inner, member, path, left),
                    None => unmapped(path, member, left),
                }
                path.truncate(length);
            }
        }
        Json::Array(elements) => {
            let Some(inner) = &node.elements else { return unmapped(path, value, left) };
            path.push_str("/*");
            elements.iter().for_each(|element| look(inner, element, path, left));
            path.truncate(length);
        }
        // A known place with a value of another form: the columns below it are empty.
        other if node.taken.is_empty() => unmapped(path, other, left),
        _ => {}
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
                "/boxes/*/parts/*/m number",
                "parts.part text",
                "/boxes/*/parts/*/m number",
                "/boxes/*/parts number",
                "things.name object",
                "/new object",
                "/tags array",
                "/to/street text"
            ]
        );
    }
}
