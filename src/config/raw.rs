//! One value of a key: read from TOML or from a variable, of the right form.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::keys::Kind;

/// A value of the right form.
#[derive(Clone)]
pub(super) enum Raw {
    Text(String),
    Flag(bool),
    Number(u64),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

pub(super) fn from_file(kind: Kind, value: &DeValue<'_>) -> Result<Raw, String> {
    let found = match value {
        DeValue::Integer(digits) => digits.as_str(),
        DeValue::Float(digits) => digits.as_str(),
        other => other.type_str(),
    };
    let number = || match value {
        DeValue::Integer(digits) => u64::from_str_radix(&digits.as_str().replace('_', ""), digits.radix()).ok(),
        _ => None,
    };
    match (kind, value) {
        (Kind::Text, DeValue::String(text)) => Ok(Raw::Text(text.to_string())),
        (Kind::Text, _) => Err(format!("needs text in quotes, not {found}")),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Raw::Flag(*flag)),
        (Kind::Flag, _) => Err(format!("needs true or false, not {found}")),
        (Kind::Size, DeValue::String(text)) => size(text),
        (Kind::Number | Kind::Size, _) => {
            number().map(Raw::Number).ok_or_else(|| format!("needs a whole number of 0 or more, not {found}"))
        }
        (Kind::List, DeValue::Array(items)) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Raw::List)
            .ok_or_else(|| "needs an array of texts, like [\"a\", \"b\"]".to_owned()),
        (Kind::List, _) => Err(format!("needs an array of texts, like [\"a\", \"b\"], not {found}")),
        (Kind::Map, DeValue::Table(table)) => table
            .iter()
            .map(|(name, value)| Some((name.get_ref().to_string(), as_written(value.get_ref())?)))
            .collect::<Option<_>>()
            .map(Raw::Map)
            .ok_or_else(|| "needs texts only, like \"GET /path\" = \"25/min\"".to_owned()),
        (Kind::Map, _) => Err(format!("needs a table of texts, not {found}")),
    }
}

/// A text, or a number as written, which the reader of limits then refuses by its name.
fn as_written(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(digits) => Some(digits.as_str().to_owned()),
        _ => None,
    }
}

pub(super) fn from_variable(kind: Kind, value: &str) -> Result<Raw, String> {
    let items = || value.split(',').map(str::trim).filter(|item| !item.is_empty());
    match kind {
        Kind::Text => Ok(Raw::Text(value.to_owned())),
        Kind::Flag => match value {
            "true" | "1" => Ok(Raw::Flag(true)),
            "false" | "0" => Ok(Raw::Flag(false)),
            _ => Err("needs true or false".to_owned()),
        },
        Kind::Number => value.parse().map(Raw::Number).map_err(|_| "needs a whole number from 0".to_owned()),
        Kind::Size => size(value),
        Kind::List => Ok(Raw::List(items().map(str::to_owned).collect())),
        Kind::Map => items()
            .map(|item| item.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())))
            .collect::<Option<_>>()
            .map(Raw::Map)
            .ok_or_else(|| "needs name=value, separated by commas, like GET /path=25/min".to_owned()),
    }
}

/// `1048576`, `1024KiB`, `256 MiB`, `1GiB`.
fn size(text: &str) -> Result<Raw, String> {
    let text = text.trim();
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = shift.and_then(|shift| count.parse::<u64>().ok().and_then(|count| count.checked_mul(1u64 << shift)));
    bytes.map(Raw::Number).ok_or_else(|| format!("`{text}` is not a size; write it like \"256MiB\" or in bytes"))
}

#[cfg(test)]
mod tests {
    use super::{Raw, size};

    #[test]
    fn sizes_read_in_binary_units() {
        let bytes = |text: &str| match size(text) {
            Ok(Raw::Number(bytes)) => Some(bytes),
            _ => None,
        };
        assert_eq!(bytes("1048576"), Some(1 << 20));
        assert_eq!(bytes("256 MiB"), Some(256 << 20));
        assert_eq!(bytes("1GiB"), Some(1 << 30));
        for wrong in ["", "MiB", "1 MB", "-1", "99999999999GiB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
