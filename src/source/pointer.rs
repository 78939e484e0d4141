//! Values at JSON pointers, and their kinds. Pure.

use super::problem::SourceError;
use crate::domain::Json;
use crate::domain::json::element_at;

/// The tokens of a JSON pointer.
pub(super) fn tokens(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// Visits each value at the path; `*` is any element of an array. A missing value counts as null.
pub(super) fn each_value<'a, 'b>(value: &'b Json<'a>, path: &[String], visit: &mut dyn FnMut(&'b Json<'a>)) {
    match (path.split_first(), value) {
        (None, value) => visit(value),
        (Some((token, rest)), Json::Array(elements)) if token == "*" => {
            elements.iter().for_each(|element| each_value(element, rest, visit));
        }
        (Some((token, rest)), Json::Array(elements)) => {
            let found = element_at(token.as_bytes(), elements.len()).and_then(|at| elements.get(at));
            each_value(found.unwrap_or(&Json::Null), rest, visit);
        }
        (Some((token, rest)), Json::Object(_)) => {
            each_value(value.get(token).unwrap_or(&Json::Null), rest, visit);
        }
        _ => visit(&Json::Null),
    }
}

/// A value as an id, if it can be one.
pub fn id_text(value: &Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.clone().into_owned()),
        Json::Number(number) => number.whole_digits().map(str::to_owned),
        _ => None,
    }
}

/// The kind of a value, for messages.
pub(super) fn kind(value: &Json<'_>) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::Text(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

/// The error for valid JSON that does not match the definition.
pub(super) fn shape(detail: String) -> SourceError {
    SourceError::Shape { detail }
}
