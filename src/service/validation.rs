//! Validation of names, ids, secrets and lists.
//!
//! Shared by request bodies, command arguments and the service itself, so that all of them accept the same values. Each
//! message continues a sentence that begins with the name of the field.

use std::sync::Arc;

use super::{FieldError, ServiceError};
use crate::catalog::Definition;
use crate::domain::terminal::is_invisible;

/// Most resources of one shop.
pub const RESOURCES_MAX: usize = 100;
/// Most shops of one key.
pub const SHOPS_MAX: usize = 1000;
/// Default lifetime of a key in days.
pub const KEY_DAYS: u32 = 365;
/// Longest lifetime of a key in days: ten years.
pub const KEY_DAYS_MAX: u32 = 3650;

/// A check of one text; the error says what is allowed.
pub type TextRule = fn(&str) -> Result<(), String>;

/// Checks a name: 1 to 100 characters, no control, bidi or zero-width characters, not only white space.
///
/// # Errors
/// What is allowed.
pub fn name(text: &str) -> Result<(), String> {
    let length = text.chars().count();
    if let Some((at, letter)) = text.chars().enumerate().find(|(_, letter)| is_invisible(*letter)) {
        return Err(format!(
            "contains U+{:04X} at character {}, which cannot be seen, so that two names could look the same; remove it",
            u32::from(letter),
            at + 1
        ));
    }
    if (1..=100).contains(&length) && !text.chars().any(char::is_control) && !text.trim().is_empty() {
        return Ok(());
    }
    Err("must have 1 to 100 characters, no control characters, and not only spaces".to_owned())
}

/// Checks a client id, an account or a shop id.
///
/// # Errors
/// What is allowed.
pub fn id(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(());
    }
    Err("must have 1 to 128 letters, digits, `.`, `_` or `-`".to_owned())
}

/// The message for an invalid secret, where it must not be empty.
pub const SECRET: &str = "must have 1 to 256 visible ASCII characters, without spaces";

/// Checks a secret: at most 256 visible ASCII characters. Some authentication schemes allow an empty one.
///
/// # Errors
/// What is allowed.
pub fn secret(text: &str) -> Result<(), String> {
    let fits = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(SECRET.to_owned()) }
}

/// Checks that a resource is configured.
///
/// # Errors
/// The resources that are.
pub fn resource(name: &str, known: &[Arc<Definition>]) -> Result<(), String> {
    if known.iter().any(|definition| definition.name == name) {
        return Ok(());
    }
    let known: Vec<&str> = known.iter().map(|definition| definition.name.as_str()).collect();
    let name: String = name.chars().take(64).collect();
    Err(format!("`{name}` is not configured; configured: {}", known.join(", ")))
}

/// Collects the invalid fields of a request.
#[derive(Default)]
pub(super) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub(super) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    pub(super) fn text(&mut self, field: &str, text: &str, rule: impl Fn(&str) -> Result<(), String>) {
        if let Err(message) = rule(text) {
            self.add(field, message);
        }
    }

    pub(super) fn text_if(&mut self, field: &str, text: Option<&str>, rule: TextRule) {
        if let Some(text) = text {
            self.text(field, text, rule);
        }
    }

    pub(super) fn list(&mut self, field: &str, list: &[String], max: usize, rule: impl Fn(&str) -> Result<(), String>) {
        if list.is_empty() || list.len() > max {
            return self.add(field, format!("must have 1 to {max} entries"));
        }
        for (index, entry) in list.iter().enumerate() {
            let at = format!("{field}[{index}]");
            if list.iter().take(index).any(|before| before == entry) {
                self.add(at, "is given twice");
            } else {
                self.text(&at, entry, &rule);
            }
        }
    }

    /// Checks that all resources are configured, and that each child comes with its parent. Empty: all resources.
    pub(super) fn resources(&mut self, names: &[String], known: &[Arc<Definition>]) {
        if names.is_empty() {
            return;
        }
        self.list("resources", names, RESOURCES_MAX, |name| resource(name, known));
        let parents = known.iter().filter_map(|definition| Some((&definition.name, definition.parent.as_ref()?)));
        for (child, parent) in parents.filter(|(child, parent)| names.contains(child) && !names.contains(parent)) {
            self.add("resources", format!("`{child}` requires `{parent}`, whose ids it is read by; add it"));
        }
    }

    pub(super) fn finish(self) -> Result<(), ServiceError> {
        if self.0.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn a_name_has_no_characters_that_cannot_be_seen() {
        for sound in ["Shop", "Schöne Grüße & Söhne", "متجر", "店舗 7", "Łódź – “café”", "😀"] {
            assert_eq!(name(sound), Ok(()), "{sound}");
        }
        for (letter, at) in [
            ("\u{202e}", "U+202E at character 5"),
            ("\u{200b}", "U+200B at character 5"),
            ("\u{200d}", "U+200D at character 5"),
            ("\u{2066}", "U+2066 at character 5"),
            ("\u{feff}", "U+FEFF at character 5"),
            ("\u{ad}", "U+00AD at character 5"),
            ("\u{e0041}", "U+E0041 at character 5"),
            ("\u{2028}", "U+2028 at character 5"),
        ] {
            let why = name(&format!("Shop{letter} one")).unwrap_err();
            assert!(why.contains(at) && why.contains("remove it"), "{why}");
        }
        assert!(name("bell\u{7}").unwrap_err().contains("no control characters"));
    }
}
