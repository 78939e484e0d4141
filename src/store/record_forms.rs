//! Tests: holds every record that is written against the list of known forms, so that no rename of a field or of a
//! variant changes what is stored.
//!
//! A form is a key's prefix, a path into the value, and the type there, or the word of an enum. Called by the engine in
//! memory, and so by the store's tests and by the simulation. `WAYBILL_RECORD_FORMS=write` adds new forms to the list;
//! a change that does must still read the old ones.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::Value;

/// Longer texts are not the words of enums.
const WORD_MAX: usize = 11;
/// Members whose texts are never the words of enums. Ids are random letters, and some have no digit.
const ID: &str = "id";
const WRITE: &str = "WAYBILL_RECORD_FORMS";

fn list() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/record_forms.txt"))
}

fn known() -> &'static Mutex<BTreeSet<String>> {
    static KNOWN: OnceLock<Mutex<BTreeSet<String>>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let text = fs::read_to_string(list()).unwrap();
        Mutex::new(text.lines().map(str::to_owned).collect())
    })
}

/// Fails for a record whose form is not in the list.
pub(super) fn check(key: &[u8], value: &[u8]) {
    let mut known = known().lock().unwrap_or_else(PoisonError::into_inner);
    for form in forms(key, value) {
        if known.contains(&form) {
            continue;
        }
        assert!(
            std::env::var_os(WRITE).is_some(),
            "a record of a form that is not in src/store/record_forms.txt: {form}\nIf older data directories stay \
             readable, add it with {WRITE}=write"
        );
        writeln!(File::options().append(true).open(list()).unwrap(), "{form}").unwrap();
        known.insert(form);
    }
}

fn forms(key: &[u8], value: &[u8]) -> BTreeSet<String> {
    let (prefix, mut forms) = (prefix(key), BTreeSet::new());
    if value.is_empty() {
        forms.insert(format!("{prefix} empty"));
    } else if let Ok(value) = serde_json::from_slice(value) {
        add(&mut forms, &prefix, &value);
    } else if let Some(Ok(head)) = head(value).map(serde_json::from_slice) {
        add(&mut forms, &format!("{prefix} sealed"), &head);
    } else if value.len() <= 8 {
        forms.insert(format!("{prefix} {} bytes", value.len()));
    } else {
        forms.insert(format!("{prefix} bytes"));
    }
    forms
}

/// Indexes and store-wide values have longer prefixes.
fn prefix(key: &[u8]) -> String {
    let name = String::from_utf8_lossy(key);
    match key.first() {
        Some(b'm') => name.into_owned(),
        Some(b'U') => name.chars().take(2).collect(),
        _ => name.chars().take(1).collect(),
    }
}

fn head(value: &[u8]) -> Option<&[u8]> {
    let (length, rest) = value.split_first_chunk::<4>()?;
    rest.get(..u32::from_le_bytes(*length) as usize)
}

fn add(forms: &mut BTreeSet<String>, path: &str, value: &Value) {
    let form = match value {
        Value::Object(members) => {
            return members.iter().for_each(|(key, member)| add_member(forms, &format!("{path}.{key}"), key, member));
        }
        Value::Array(elements) => {
            return elements.iter().for_each(|element| add(forms, &format!("{path}[]"), element));
        }
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(text) if is_word(text) => format!("`{text}`"),
        Value::String(_) => "text".to_owned(),
    };
    forms.insert(format!("{path} {form}"));
}

fn add_member(forms: &mut BTreeSet<String>, path: &str, key: &str, member: &Value) {
    if key == ID && member.is_string() {
        forms.insert(format!("{path} text"));
    } else {
        add(forms, path, member);
    }
}

fn is_word(text: &str) -> bool {
    (2..=WORD_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A random id without a digit once failed a run: the list knew `a.id text` only.
#[test]
fn an_id_is_text_whatever_its_letters() {
    let with_letters = forms(b"a", br#"{"id":"aejrdejm","scope":"read"}"#);
    let with_digits = forms(b"a", br#"{"id":"a2jr7ejm","scope":"read"}"#);
    assert_eq!(with_letters, with_digits);
    assert!(with_letters.contains("a.scope `read`"), "{with_letters:?}");
}
