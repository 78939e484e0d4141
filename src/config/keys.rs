//! The table of configuration keys: the file, the environment and the example all go by it.
//!
//! One row a key, so that a key without a variable, or a variable without a key, cannot exist.

/// What a key's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    Number,
    /// Bytes: a number, or text like `256MiB`.
    Size,
    /// An array of texts; in the environment separated by commas.
    List,
    /// A table of texts; in the environment `name=value`, separated by commas.
    Map,
}

/// Prefix of every variable that is ours.
pub(super) const PREFIX: &str = "WAYBILL_";

/// Every key that a file may set, with its kind. `[resource.*]` stands beside this table.
pub(super) const KEYS: [(&str, Kind); 20] = [
    ("data_dir", Kind::Text),
    ("master_key_file", Kind::Text),
    ("resources", Kind::List),
    ("http.listen", Kind::Text),
    ("http.behind_proxy", Kind::Flag),
    ("mysql.url", Kind::Text),
    ("source.base_url", Kind::Text),
    ("source.token_url", Kind::Text),
    ("source.in_flight_max", Kind::Number),
    ("source.calls_per_second", Kind::Number),
    ("source.logins_per_second", Kind::Number),
    ("source.limits", Kind::Map),
    ("schedule.sync", Kind::Text),
    ("schedule.reconcile", Kind::Text),
    ("schedule.timezone", Kind::Text),
    ("limits.outbox_max_bytes", Kind::Size),
    ("limits.attempts_max", Kind::Number),
    ("limits.drain", Kind::Text),
    ("log.format", Kind::Text),
    ("log.level", Kind::Text),
];

/// Variables that no file may hold: secrets, and the file's own name.
pub(super) const VARIABLES_ONLY: [&str; 3] = ["WAYBILL_CONFIG", "WAYBILL_MASTER_KEY", "WAYBILL_ADMIN_KEY"];

/// The variable of a key: `http.listen` is `WAYBILL_HTTP_LISTEN`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// The name nearest to `wrong`, by edits. None only for an empty choice.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().min_by_key(|name| edits(wrong, name))
}

/// Edits (insert, delete, replace) that turn one name into the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row.first().copied().unwrap_or(0);
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (slot, y) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = *slot;
            left = replaced.min(diagonal + 1).min(left + 1);
            *slot = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest, variable};

    #[test]
    fn edits_are_counted() {
        for (a, b, want) in
            [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("listen", "listne", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a, b), want, "{a} {b}");
        }
        assert_eq!(nearest("htpp", ["mysql", "http", "log"]), Some("http"));
        assert_eq!(variable("source.limits"), "WAYBILL_SOURCE_LIMITS");
    }
}
