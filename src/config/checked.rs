//! The checked form: what the parts of the program are built from.
//!
//! [`super::ConfigDraft::finish`] makes it, after every value was checked. `Debug` shows no secret.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use super::exposure;
use super::problem::{ConfigError, ConfigProblem};
use super::settings::KeyLines;
use crate::catalog::{Definition, RuleTable};
use crate::domain::schedule::Timetable;
use crate::domain::{Auth, SourceOrigin, SourceUrl};

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read; None: defaults and environment only.
    pub file: Option<PathBuf>,
    /// The file contains a password that other users can read; [`Config::close_file`] ends that.
    pub exposed: Option<ConfigProblem>,
    pub(crate) lines: KeyLines,
    /// Why nothing can be synced from this source.
    pub(crate) unnamed: Option<ConfigProblem>,
    /// Where the embedded store lives.
    pub data_dir: PathBuf,
    pub master_key: MasterKeySource,
    /// An admin API key that is valid while the process runs.
    pub admin_key: Option<SecretString>,
    /// The resources to sync, in the order they were named. Each of their paths has a rate rule.
    pub definitions: Vec<Arc<Definition>>,
    /// The built-in rules, overlaid with `[source.limits]`.
    pub rules: RuleTable,
    pub listen: SocketAddr,
    /// Where `/metrics` answers without a key; None: only with one, at `listen`.
    pub metrics_listen: Option<SocketAddr>,
    /// A reverse proxy terminates TLS; only then may `listen` be reachable from outside.
    pub behind_proxy: bool,
    /// Proxies whose word about the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// None: the embedded archive is the sink.
    pub mysql_url: Option<SecretString>,
    /// CA certificates for the database; if set, the connection uses TLS.
    pub mysql_ca_file: Option<PathBuf>,
    pub source: SourceSettings,
    /// When runs start.
    pub schedule: Timetable,
    pub limits: Limits,
    /// A stream is behind when its last success is longer ago; None: when three schedules were missed.
    pub stale_after: Option<Duration>,
    pub log: Log,
}

/// Source of the master key, which encrypts secrets at rest.
#[derive(Clone, Debug)]
pub enum MasterKeySource {
    /// 32 bytes in base64, checked.
    Env(SecretString),
    /// A file, created with mode 0600 at the first start.
    File(PathBuf),
}

/// The marketplace's API.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    pub base_url: SourceUrl,
    pub token_url: SourceUrl,
    pub auth: Auth,
    /// Calls in flight over all shops, at least 1.
    pub in_flight_max: usize,
    /// Limit over all shops, in addition to the rate rules; None: no limit.
    pub calls_per_second: Option<u32>,
    /// Logins over all shops, at least 1.
    pub logins_per_second: u32,
}

/// Logging, to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or a list like `info,waybill::source=debug`.
    pub level: String,
    /// Whether file or environment set the level; otherwise commands that draw progress do not log.
    pub level_is_set: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Configurable limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fetching pauses while the outbox holds more.
    pub outbox_max_bytes: u64,
    /// Attempts before a job is parked, at least 1.
    pub attempts_max: u32,
    /// A shop with this many parked items is paused; at least 1.
    pub parked_max: u64,
    /// How long a stop waits for work in flight.
    pub drain: Duration,
}

impl SourceSettings {
    /// Where calls and logins go: an installation belongs to one.
    pub fn origin(&self) -> SourceOrigin {
        SourceOrigin::new(&self.base_url, &self.token_url, &self.auth)
    }
}

impl Config {
    /// Where a dotted key is set: file and line, or `built-in`.
    pub fn place(&self, key: &str) -> String {
        let line = self.file.as_ref().zip(self.lines.of(key));
        line.map_or_else(|| "built-in".to_owned(), |(file, line)| format!("{}:{line}", file.display()))
    }

    /// Takes the rights of other users from a configuration file that contains a password, and returns what the log
    /// should say of it. None: nothing was open.
    ///
    /// # Errors
    /// [`ConfigError::Problems`] with the command to run, if it cannot be changed.
    pub fn close_file(&self) -> Result<Option<String>, ConfigError> {
        let Some((problem, file)) = self.exposed.as_ref().zip(self.file.as_ref()) else { return Ok(None) };
        match exposure::close(file) {
            Ok(was) => Ok(Some(format!(
                "other users could read the password in {} (mode {was:04o}); the file is now for this user only",
                file.display()
            ))),
            Err(error) => {
                let what = format!("{}; it could not be closed here: {error}", problem.what);
                Err(ConfigError::Problems(vec![ConfigProblem { what, ..problem.clone() }]))
            }
        }
    }

    /// Checks that a sync may start: the definitions belong to the source.
    ///
    /// # Errors
    /// [`ConfigError::Problems`] if another source is configured and `resources` is not.
    pub fn check_resources(&self) -> Result<(), ConfigError> {
        self.unnamed.clone().map_or(Ok(()), |problem| Err(ConfigError::Problems(vec![problem])))
    }
}
