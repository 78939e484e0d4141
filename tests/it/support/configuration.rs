//! What the configuration says about a file.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use waybill::config::{Config, ConfigError};

/// Loads a file with the given text under the given variables; problems come without the folder.
pub(crate) fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waybill.toml");
    std::fs::write(&file, text).unwrap();
    // A password may be in it.
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let environment: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let prefix = format!("{}/", folder.path().display());
    Config::load(Some(&file), &environment).map_err(|error| match error {
        ConfigError::Problems(problems) => {
            problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
        }
        ConfigError::File { .. } => panic!("{error}"),
    })
}

/// What is wrong with a file; nothing when it is sound.
pub(crate) fn problems(text: &str) -> Vec<String> {
    load(text, &[]).err().unwrap_or_default()
}
