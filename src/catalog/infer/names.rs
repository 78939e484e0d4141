//! Makes names of tables and columns from names in JSON: valid, descriptive and unique.

use std::collections::BTreeSet;

use super::super::table_reader::{META_COLUMNS, NAME_MAX};

/// The names in use: of one table's columns, or of all tables.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Starts with these names in use.
    pub(super) fn with<'a>(taken: impl IntoIterator<Item = &'a str>) -> Names {
        Names(taken.into_iter().map(str::to_owned).collect())
    }

    /// A name for a column; `own` is prefixed to a name that every table has.
    pub(super) fn column(&mut self, own: &str, wanted: &str) -> String {
        let clashes = META_COLUMNS.contains(&wanted);
        self.take(&if clashes { format!("{own}_{wanted}") } else { wanted.to_owned() })
    }

    /// The name, with a number appended if it is in use.
    pub(super) fn take(&mut self, wanted: &str) -> String {
        let legal = legal(wanted);
        let mut name = legal.clone();
        let mut number = 2;
        while META_COLUMNS.contains(&name.as_str()) || self.0.contains(&name) {
            let end = format!("_{number}");
            name = legal.chars().take(NAME_MAX - end.len()).chain(end.chars()).collect();
            number += 1;
        }
        self.0.insert(name.clone());
        name
    }
}

/// Makes a plain SQL name: begins with a letter, and is not too long.
fn legal(name: &str) -> String {
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    let start = if starts_well { "" } else { "x_" };
    start.chars().chain(name.chars()).take(NAME_MAX).collect()
}

/// `shipmentDateTime`, `Shipment-Date.Time` and `SHIPMENT_DATE_TIME` become `shipment_date_time`.
pub(super) fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 8);
    for (at, letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            if !snake.ends_with('_') && !snake.is_empty() {
                snake.push('_');
            }
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| letters.get(at));
        let after = letters.get(at + 1);
        let begins = before.is_some_and(|before| before.is_ascii_lowercase() || before.is_ascii_digit())
            || before.is_some_and(char::is_ascii_uppercase) && after.is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && begins && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake.trim_end_matches('_').to_owned()
}

/// The singular: `order_items` becomes `order_item`.
pub(super) fn singular(name: &str) -> String {
    let whole = || name.to_owned();
    if let Some(stem) = name.strip_suffix("ies").filter(|stem| !stem.is_empty()) {
        return format!("{stem}y");
    }
    if ["sses", "xes", "ches", "shes"].iter().any(|end| name.ends_with(end)) {
        return name.strip_suffix("es").map_or_else(whole, str::to_owned);
    }
    if ["ss", "us", "is"].iter().any(|end| name.ends_with(end)) {
        return whole();
    }
    name.strip_suffix('s').filter(|stem| !stem.is_empty()).map_or_else(whole, str::to_owned)
}

/// A name as a part of a JSON pointer.
pub(super) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A key, in quotes where it needs them.
pub(super) fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.to_owned() } else { quoted(name) }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Names, singular, snake};

    #[test]
    fn names_are_valid_and_unique() {
        for (from, to) in [
            ("shipmentDateTime", "shipment_date_time"),
            ("EAN", "ean"),
            ("orderID", "order_id"),
            ("HTTPStatus", "http_status"),
            ("a--b.c ", "a_b_c"),
            ("line2Text", "line2_text"),
            ("größe", "gr_e"),
        ] {
            assert_eq!(snake(from), to);
        }
        for (many, one) in [("orders", "order"), ("categories", "category"), ("boxes", "box"), ("status", "status")] {
            assert_eq!(singular(many), one);
        }
        let mut names = Names::with(["order_id"]);
        assert_eq!(names.column("order", "order_id"), "order_id_2");
        assert_eq!(names.column("order", "id"), "order_id_3");
        assert_eq!(names.column("order", "version"), "order_version");
        assert_eq!(names.column("order", "2nd"), "x_2nd");
        assert_eq!(names.column("order", ""), "x_");
        let long = "a".repeat(100);
        assert_eq!(names.column("order", &long).len(), 60);
        assert!(names.column("order", &long).ends_with("a_2"));
    }
}
