//! The table of configuration keys, for the file, the environment and the example.
//!
//! One row per key, so that every key has a variable and every variable a key.
//!
//! To add a key: a row here (its variable follows from its name), a field read in the file of its section, the field in
//! `checked` and `draft`, and a commented line in `config.example.toml`; `app` hands it to the part that needs it.

/// The form of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    Number,
    /// Bytes: a number, or text like `256MiB`.
    Size,
    /// An array of texts; separated by commas in the environment.
    List,
    /// A table of texts; `name=value`, separated by commas, in the environment.
    Map,
}

/// Prefix of every variable that is ours.
pub(super) const PREFIX: &str = "WAYBILL_";

/// Every key that a file may set, with its kind; `[resource.*]` is not in this table.
pub(super) const KEYS: [(&str, Kind); 29] = [
    ("data_dir", Kind::Text),
    ("master_key_file", Kind::Text),
    ("resources", Kind::List),
    ("http.listen", Kind::Text),
    ("http.behind_proxy", Kind::Flag),
    ("http.trusted_proxies", Kind::List),
    ("http.metrics_listen", Kind::Text),
    ("mysql.url", Kind::Text),
    ("mysql.ca_file", Kind::Text),
    ("mysql.allow_plaintext", Kind::Flag),
    ("mysql.allow_unverified", Kind::Flag),
    ("source.base_url", Kind::Text),
    ("source.token_url", Kind::Text),
    ("source.auth", Kind::Text),
    ("source.api_key_header", Kind::Text),
    ("source.in_flight_max", Kind::Number),
    ("source.calls_per_second", Kind::Number),
    ("source.logins_per_second", Kind::Number),
    ("source.limits", Kind::Map),
    ("schedule.sync", Kind::Text),
    ("schedule.reconcile", Kind::Text),
    ("schedule.timezone", Kind::Text),
    ("limits.outbox_max_bytes", Kind::Size),
    ("limits.attempts_max", Kind::Number),
    ("limits.parked_max", Kind::Number),
    ("limits.drain", Kind::Text),
    ("alerts.stale_after", Kind::Text),
    ("log.format", Kind::Text),
    ("log.level", Kind::Text),
];

/// Variables without a key in the file: secrets, and the file's own name.
pub(super) const VARIABLES_ONLY: [&str; 4] =
    ["WAYBILL_CONFIG", "WAYBILL_MASTER_KEY", "WAYBILL_ADMIN_KEY", "WAYBILL_API_KEY"];

/// The variable of a key: `http.listen` is `WAYBILL_HTTP_LISTEN`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::variable;
    use crate::catalog::nearest;

    #[test]
    fn a_misspelt_section_is_recognized_and_keys_map_to_variables() {
        assert_eq!(nearest("htpp", ["mysql", "http", "log"]), Some("http"));
        assert_eq!(variable("source.limits"), "WAYBILL_SOURCE_LIMITS");
    }
}
