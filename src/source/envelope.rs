//! Finds the rows of a page, and the values beside them. Pure.
//!
//! An error is not the end of a list: an answer without rows ends one only when it is empty, or has only keys
//! that the definition names as harmless.

use super::json::parse;
use super::pointer::{kind, shape, tokens};
use super::problem::{SourceError, clean};
use super::split::{elements, members};
use crate::catalog::Definition;
use crate::catalog::coverage::shown;
use crate::domain::Json;
use crate::domain::json::element_at;

/// What was found at the place of the rows.
pub(super) enum FoundRows<'a> {
    Rows(Vec<&'a [u8]>),
    /// An object without the key of the rows, and with only harmless keys.
    Nothing,
    /// `null` in place of the array of rows.
    Null,
    /// `[]` in place of the object that holds the rows.
    EmptyArray,
}

/// Finds the rows of a page, each as received.
pub(super) fn find_rows<'a>(definition: &Definition, body: &'a [u8]) -> Result<FoundRows<'a>, SourceError> {
    let at = &definition.list.items;
    let mut text = body;
    for (depth, token) in tokens(at).enumerate() {
        match child(text, &token)? {
            PointerStep::Value(value) => text = value,
            PointerStep::NoMember(keys) => {
                let harmless = |key: &String| depth == 0 && definition.list.harmless.contains(key);
                if keys.iter().all(harmless) {
                    return Ok(FoundRows::Nothing);
                }
                let keys: Vec<&str> = keys.iter().map(|key| shown(key)).take(5).collect();
                return Err(shape(format!("no {at} among the keys {}", clean(&keys.join(", ")))));
            }
            PointerStep::NoElement(0) if depth == 0 => return Ok(FoundRows::EmptyArray),
            PointerStep::NoElement(_) | PointerStep::Neither => {
                return Err(shape(format!("an object was expected on the way to {at}")));
            }
        }
    }
    match elements(text)? {
        Some(rows) => Ok(FoundRows::Rows(rows)),
        None if !at.is_empty() && text == b"null" => Ok(FoundRows::Null),
        None => Err(shape(format!("{at} is {}, not an array", kind(&parse(text)?)))),
    }
}

/// The value at a pointer, as received; none: absent.
pub(super) fn value_at<'a>(body: &'a [u8], pointer: &str) -> Result<Option<&'a [u8]>, SourceError> {
    let mut text = body;
    for token in tokens(pointer) {
        let PointerStep::Value(value) = child(text, &token)? else { return Ok(None) };
        text = value;
    }
    Ok(Some(text))
}

/// What a token of a pointer finds.
enum PointerStep<'a> {
    Value(&'a [u8]),
    /// An object without that key; its keys.
    NoMember(Vec<String>),
    /// An array of this length without such an element.
    NoElement(usize),
    /// Neither an object nor an array.
    Neither,
}

fn child<'a>(text: &'a [u8], token: &str) -> Result<PointerStep<'a>, SourceError> {
    if let Some(members) = members(text)? {
        // Of duplicate keys the last counts, as in rows and documents.
        return Ok(match members.iter().rfind(|(key, _)| key == token) {
            Some((_, value)) => PointerStep::Value(value),
            None => PointerStep::NoMember(members.into_iter().map(|(key, _)| key).collect()),
        });
    }
    if let Some(elements) = elements(text)? {
        let found = element_at(token.as_bytes(), elements.len()).and_then(|at| elements.get(at).copied());
        return Ok(found.map_or(PointerStep::NoElement(elements.len()), PointerStep::Value));
    }
    // Invalid JSON is another error.
    parse(text).map(|_: Json<'_>| PointerStep::Neither)
}
