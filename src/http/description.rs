//! The OpenAPI description as the endpoints use it: its text, and the methods of each path for 405 responses.

use bytes::Bytes;
use serde_json::Value;

/// The serialized description, and the methods of each path.
pub(super) struct Description {
    text: Bytes,
    /// Path templates as segments, with the methods of each.
    methods: Vec<(Vec<String>, String)>,
}

impl Description {
    pub(super) fn of(document: &Value) -> Description {
        let paths = document.get("paths").and_then(Value::as_object);
        let methods = paths.into_iter().flatten().map(|(path, item)| (parts(path), methods(item))).collect();
        Description { text: Bytes::from(document.to_string()), methods }
    }

    pub(super) fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// The methods of a path, in the form of the `Allow` header; none: no such path.
    pub(super) fn allowed(&self, path: &str) -> Option<String> {
        let path = parts(path);
        let fits = |template: &Vec<String>| {
            let same = |(wanted, part): (&String, &String)| wanted.starts_with('{') || wanted == part;
            template.len() == path.len() && template.iter().zip(&path).all(same)
        };
        self.methods.iter().find(|(template, _)| fits(template)).map(|(_, allow)| allow.clone())
    }
}

fn parts(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn methods(item: &Value) -> String {
    let has = |name: &str| item.get(name).is_some();
    let known = [("get", "GET, HEAD"), ("post", "POST"), ("patch", "PATCH"), ("delete", "DELETE")];
    let present: Vec<&str> = known.into_iter().filter(|(name, _)| has(name)).map(|(_, allow)| allow).collect();
    present.join(", ")
}
