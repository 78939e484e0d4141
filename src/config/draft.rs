//! A configuration under construction: what could be read, and the problems so far.
//!
//! Reading continues after a problem, and other parts may check what could be read (the sink its tables, `waybill check`
//! an OpenAPI document), so that all problems are reported at once. Only [`ConfigDraft::finish`] makes a [`Config`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::checked::Config;
use super::problem::ConfigError;
use super::settings::Settings;
use super::{foreign, http, limits, log, mysql, paths, schedule, secrets, source};
use crate::catalog::{self, RuleTable};

/// The file read if it exists and no other is named.
pub const FILE_DEFAULT: &str = "waybill.toml";
const DATA_DIR_DEFAULT: &str = "data";

impl Config {
    /// Reads `path`, else the file that `WAYBILL_CONFIG` names, else `waybill.toml` if it exists. Environment variables
    /// override the file.
    ///
    /// # Errors
    /// [`ConfigError::File`] if a named file cannot be read, otherwise [`ConfigError::Problems`] with every problem.
    pub fn load(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
        ConfigDraft::read(path, environment)?.finish()
    }
}

/// A configuration under construction.
pub struct ConfigDraft {
    settings: Settings,
    /// None only if there is at least one problem.
    config: Option<Config>,
    definitions: Vec<catalog::DefinitionDraft>,
    mysql_url: Option<SecretString>,
    mysql_ca_file: Option<PathBuf>,
}

impl ConfigDraft {
    /// Reads like [`Config::load`].
    ///
    /// # Errors
    /// [`ConfigError::File`] if a named file cannot be read.
    pub fn read(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<ConfigDraft, ConfigError> {
        let from_variable = environment.get("WAYBILL_CONFIG").filter(|text| !text.is_empty()).map(PathBuf::from);
        let named = path.map(Path::to_path_buf).or(from_variable);
        let file = named.clone().unwrap_or_else(|| PathBuf::from(FILE_DEFAULT));
        let mut settings = Settings::default();
        let file = match std::fs::read(&file) {
            Ok(bytes) => {
                settings.folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
                settings.path.clone_from(&file);
                settings.read_file(&file.display().to_string(), &bytes);
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => None,
            Err(error) => return Err(ConfigError::File { path: file, error }),
        };
        settings.read_environment(environment);
        Ok(drafted(settings, file, environment))
    }

    /// The definitions of the resources to sync and all others in the file, as far as they could be read.
    pub fn definitions(&self) -> &[catalog::DefinitionDraft] {
        &self.definitions
    }

    /// The database address, if it is set and valid.
    pub fn mysql_url(&self) -> Option<&SecretString> {
        self.mysql_url.as_ref()
    }

    /// The database's CA certificates, if a file is set.
    pub fn mysql_ca_file(&self) -> Option<&Path> {
        self.mysql_ca_file.as_deref()
    }

    /// Whether there are no problems so far.
    pub fn is_sound(&self) -> bool {
        self.settings.problems.is_empty()
    }

    /// Adds a problem found elsewhere: its dotted key, and what is wrong and how to fix it.
    pub fn add(&mut self, key: &str, what: impl fmt::Display) {
        self.settings.problem_at(key, what);
    }

    /// The configuration, if there are no problems.
    ///
    /// # Errors
    /// [`ConfigError::Problems`] with every problem: those of the file in line order, then the others.
    pub fn finish(self) -> Result<Config, ConfigError> {
        match self.config {
            Some(config) if self.settings.problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Problems(self.settings.sorted_problems())),
        }
    }
}

fn drafted(mut settings: Settings, file: Option<PathBuf>, environment: &BTreeMap<String, String>) -> ConfigDraft {
    let mysql_url = mysql::mysql_url(&mut settings);
    let named = mysql_url.clone().flatten();
    let mysql_ca_file = paths::file(&mut settings, "mysql.ca_file");
    let named_ca_file = mysql_ca_file.clone().flatten();
    let defaults = match catalog::source_defaults() {
        Ok(defaults) => defaults,
        Err(what) => {
            settings.problem("built-in".to_owned(), what);
            let (mysql_url, mysql_ca_file) = (named, named_ca_file);
            return ConfigDraft { settings, config: None, definitions: Vec::new(), mysql_url, mysql_ca_file };
        }
    };
    let unnamed = foreign::unnamed(&mut settings, &defaults);
    let wanted = if unnamed.is_some() { Vec::new() } else { wanted(&mut settings) };
    // Built-in rate rules do not apply to another marketplace's paths.
    let has_built_in = !foreign::is_foreign(&settings, &defaults) || wanted.iter().any(|name| catalog::ships(name));
    let built_in = if has_built_in { defaults.limits.clone() } else { BTreeMap::new() };
    let (rules, bad_rules) = RuleTable::draft([&built_in, &settings.map("source.limits")]);
    let (definitions, bad_definitions) = catalog::drafts(&wanted, &settings.resources, &rules);
    bad_rules.into_iter().chain(bad_definitions).for_each(|problem| settings.catalog_problem(problem));
    let data_dir = paths::data_dir(&mut settings, DATA_DIR_DEFAULT);
    let master_key = secrets::master_key(&mut settings, data_dir.as_deref(), environment.get("WAYBILL_MASTER_KEY"));
    let admin_key = secrets::admin_key(&mut settings, environment.get("WAYBILL_ADMIN_KEY"));
    let http = http::http(&mut settings);
    let limits = limits::limits(&mut settings);
    let stale_after = limits::stale_after(&mut settings);
    let log = log::log(&mut settings);
    let schedule = schedule::schedule(&mut settings);
    let source = source::source(&mut settings, &defaults);
    if let Some(source) = &source {
        foreign::check_login(&mut settings, source, &defaults);
    }
    let complete = || {
        let http = http?;
        Some(Config {
            exposed: settings.exposed.clone(),
            file,
            lines: settings.lines.clone(),
            data_dir: data_dir?,
            unnamed,
            master_key: master_key?,
            admin_key: admin_key?,
            definitions: catalog::wanted_of(&definitions),
            rules,
            listen: http.listen,
            metrics_listen: http.metrics_listen,
            behind_proxy: http.behind_proxy,
            trusted_proxies: http.trusted_proxies,
            mysql_url: mysql_url?,
            mysql_ca_file: mysql_ca_file?,
            source: source?,
            schedule: schedule?,
            limits: limits?,
            stale_after: stale_after?,
            log: log?,
        })
    };
    let config = complete();
    ConfigDraft { settings, config, definitions, mysql_url: named, mysql_ca_file: named_ca_file }
}

/// The resources to sync. Duplicates are reported and dropped.
fn wanted(settings: &mut Settings) -> Vec<String> {
    let mut wanted: Vec<String> = Vec::new();
    for name in settings.list("resources", &catalog::RESOURCES_DEFAULT) {
        if wanted.contains(&name) {
            settings.problem_at("resources", format!("`{name}` is listed twice; leave one out"));
        } else {
            wanted.push(name);
        }
    }
    if wanted.is_empty() {
        settings.problem_at("resources", "is empty; name at least one resource to sync");
    }
    wanted
}
