//! What names, ids, secrets and lists may be.
//!
//! The fields of a request, the arguments of a command and the backend itself go by these rules, so that no way in
//! takes what another refuses. What they say fits behind the name of the field.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::backend::{ApiError, FieldError, NewKey, NewShop, Scope, ShopChange, Takes};
use crate::catalog::Definition;

/// Names of resources that one shop may list.
pub const RESOURCES_MAX: usize = 100;
/// Shops that one key may be bound to.
pub const SHOPS_MAX: usize = 1000;
/// Keys end after a year unless told otherwise.
pub const KEY_DAYS: u32 = 365;
/// Ten years.
pub const KEY_DAYS_MAX: u32 = 3650;

/// Says what would be right.
pub type TextRule = fn(&str) -> Result<(), String>;

/// 1 to 100 characters, none of them a control character, not only white space.
///
/// # Errors
/// What it must be.
pub fn name(text: &str) -> Result<(), String> {
    let length = text.chars().count();
    if (1..=100).contains(&length) && !text.chars().any(char::is_control) && !text.trim().is_empty() {
        return Ok(());
    }
    Err("must have 1 to 100 characters, none of them a control character, and not only spaces".to_owned())
}

/// Client ids, accounts and ids of shops.
///
/// # Errors
/// What it must be.
pub fn id(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=128).contains(&text.len()) && text.bytes().all(fits) {
        return Ok(());
    }
    Err("must have 1 to 128 letters, digits, `.`, `_` or `-`".to_owned())
}

/// What a secret must be where it may not be empty.
pub const SECRET: &str = "must have 1 to 256 visible ASCII characters, without spaces";

/// At most 256 visible ASCII characters. Whether it may be empty depends on how the source is called.
///
/// # Errors
/// What it must be.
pub fn secret(text: &str) -> Result<(), String> {
    let fits = text.len() <= 256 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(()) } else { Err(SECRET.to_owned()) }
}

/// A resource that is configured.
///
/// # Errors
/// Which there are.
pub fn resource(name: &str, known: &[Arc<Definition>]) -> Result<(), String> {
    if known.iter().any(|definition| definition.name == name) {
        return Ok(());
    }
    let known: Vec<&str> = known.iter().map(|definition| definition.name.as_str()).collect();
    let name: String = name.chars().take(64).collect();
    Err(format!("`{name}` is not configured; there is {}", known.join(", ")))
}

impl NewKey {
    /// # Errors
    /// `Invalid` with every offence.
    pub fn check(&self) -> Result<(), ApiError> {
        let mut offences = Offences::default();
        offences.text("name", &self.name, name);
        if let Some(shops) = &self.shops {
            offences.list("shops", shops, SHOPS_MAX, id);
            if self.scope == Scope::Admin {
                offences.note("shops", "only go with the scope `read`; an admin key is for all shops: leave them out");
            }
        }
        if self.expires_days.is_some_and(|days| !(1..=KEY_DAYS_MAX).contains(&days)) {
            offences.note("expires_days", format!("must be a whole number from 1 to {KEY_DAYS_MAX}"));
        }
        offences.end()
    }
}

impl NewShop {
    /// # Errors
    /// `Invalid` with every offence.
    pub fn check(&self, known: &[Arc<Definition>]) -> Result<(), ApiError> {
        let mut offences = Offences::default();
        offences.text("name", &self.name, name);
        offences.text("client_id", &self.client_id, id);
        offences.text("client_secret", self.client_secret.expose_secret(), secret);
        offences.text_if("account", self.account.as_deref(), id);
        if let Some(resources) = &self.resources {
            offences.resources(resources, known);
        }
        offences.end()
    }
}

impl ShopChange {
    /// # Errors
    /// `Invalid` with every offence.
    pub fn check(&self, known: &[Arc<Definition>]) -> Result<(), ApiError> {
        let mut offences = Offences::default();
        offences.text_if("name", self.name.as_deref(), name);
        offences.text_if("client_secret", self.client_secret.as_ref().map(ExposeSecret::expose_secret), secret);
        offences.text_if("account", self.account.as_deref(), id);
        if let Some(Takes::Only(resources)) = &self.resources {
            offences.resources(resources, known);
        }
        offences.end()
    }
}

#[derive(Default)]
struct Offences(Vec<FieldError>);

impl Offences {
    fn note(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), message: message.into() });
    }

    fn text(&mut self, field: &str, text: &str, rule: impl Fn(&str) -> Result<(), String>) {
        if let Err(message) = rule(text) {
            self.note(field, message);
        }
    }

    fn text_if(&mut self, field: &str, text: Option<&str>, rule: TextRule) {
        if let Some(text) = text {
            self.text(field, text, rule);
        }
    }

    fn list(&mut self, field: &str, list: &[String], max: usize, rule: impl Fn(&str) -> Result<(), String>) {
        if list.is_empty() || list.len() > max {
            return self.note(field, format!("must have 1 to {max} entries"));
        }
        for (index, entry) in list.iter().enumerate() {
            let at = format!("{field}[{index}]");
            if list.iter().take(index).any(|before| before == entry) {
                self.note(at, "stands here twice");
            } else {
                self.text(&at, entry, &rule);
            }
        }
    }

    /// Resources that are configured, each with the one whose list it is asked for by.
    fn resources(&mut self, names: &[String], known: &[Arc<Definition>]) {
        self.list("resources", names, RESOURCES_MAX, |name| resource(name, known));
        let parents = known.iter().filter_map(|definition| Some((&definition.name, definition.parent.as_ref()?)));
        for (child, parent) in parents.filter(|(child, parent)| names.contains(child) && !names.contains(parent)) {
            self.note("resources", format!("`{child}` needs `{parent}` beside it, whose list names what it asks for"));
        }
    }

    fn end(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.0)) }
    }
}
