//! Configuration: file and environment in, a checked [`Config`] out.
//!
//! Read once by the command line, which passes sections down by value; nothing else reads the environment. Every
//! default is a constant here and is shown in `config.example.toml`. Nothing starts with an invalid configuration: all
//! problems are reported at once, each with its place and the fix. `Debug` shows no secret.

mod draft;
mod foreign;
mod keys;
mod limits;
mod paths;
mod schedule;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use secrecy::SecretString;
use url::{Host, Url};

use crate::catalog::{self, Definition, RuleTable};
use settings::Settings;

pub use draft::Draft;
pub use limits::Limits;
pub use settings::Problem;

/// The file read if it exists and no other is named.
pub const FILE_DEFAULT: &str = "waybill.toml";
const DATA_DIR_DEFAULT: &str = "data";
/// Loopback: the first start must not be reachable from outside.
const LISTEN_DEFAULT: &str = "127.0.0.1:8080";
/// Enough to keep a thousand accounts at their limits with answers of a quarter second; one shop uses a quarter of it
/// at most.
const IN_FLIGHT_MAX_DEFAULT: u64 = 256;
/// Zero: no global limit, only the rate rules of each account.
const CALLS_PER_SECOND_DEFAULT: u64 = 0;
/// The login host blocks addresses that request tokens too often.
const LOGINS_PER_SECOND_DEFAULT: u64 = 5;
const LOG_LEVEL_DEFAULT: &str = "info";
/// Shorter admin keys could be guessed; generated ones have 256 bits.
const ADMIN_KEY_MIN: usize = 12;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file that was read; None: defaults and environment only.
    pub file: Option<PathBuf>,
    pub(crate) lines: settings::Lines,
    /// Why nothing can be synced from this source.
    pub(crate) unnamed: Option<Problem>,
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
    /// None: the embedded archive is the sink.
    pub mysql_url: Option<SecretString>,
    /// CA certificates for the database; if set, the connection uses TLS.
    pub mysql_ca_file: Option<PathBuf>,
    pub source: SourceSettings,
    pub schedule: Schedule,
    pub limits: Limits,
    /// A stream is behind when its last success is longer ago; None: when three schedules were missed.
    pub stale_after: Option<std::time::Duration>,
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

/// The marketplace's API. Both addresses are https, or on loopback.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    pub base_url: Url,
    pub token_url: Url,
    pub auth: Auth,
    /// Calls in flight over all shops, at least 1.
    pub in_flight_max: usize,
    /// Limit over all shops, in addition to the rate rules; None: no limit.
    pub calls_per_second: Option<u32>,
    /// Logins over all shops, at least 1.
    pub logins_per_second: u32,
}

/// Authentication scheme of API calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// OAuth client credentials: a token from the token address.
    ClientCredentials,
    /// Basic authentication with client id and secret.
    Basic,
    /// The secret as a bearer token.
    Bearer,
    /// The secret in the header of this name.
    ApiKey(String),
}

/// When runs start. Cron expressions have six fields, seconds first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Incremental runs.
    pub sync: String,
    /// Full runs.
    pub reconcile: String,
    /// A valid IANA name.
    pub timezone: String,
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

/// Why the configuration is unusable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file does not exist or cannot be read.
    #[error("{}: cannot read the configuration file: {error}; name a readable one with --config or WAYBILL_CONFIG", path.display())]
    File { path: PathBuf, error: io::Error },
    /// Every problem found.
    #[error("{}", Listed(.0))]
    Problems(Vec<Problem>),
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, plural) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "{count} problem{plural} in the configuration:")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Reads `path`, else the file that `WAYBILL_CONFIG` names, else `waybill.toml` if it exists. Environment variables
    /// override the file.
    ///
    /// # Errors
    /// [`ConfigError::File`] if a named file cannot be read, otherwise [`ConfigError::Problems`] with every problem.
    pub fn load(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
        Draft::read(path, environment)?.finish()
    }

    /// Checks that a sync may start: the definitions belong to the source.
    ///
    /// # Errors
    /// [`ConfigError::Problems`] if another source is configured and `resources` is not.
    pub fn check_resources(&self) -> Result<(), ConfigError> {
        self.unnamed.clone().map_or(Ok(()), |problem| Err(ConfigError::Problems(vec![problem])))
    }
}

fn master_key(settings: &mut Settings, data_dir: Option<&Path>, variable: Option<&String>) -> Option<MasterKeySource> {
    if let Some(key) = variable.filter(|key| !key.is_empty()) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(key.trim()).map(|bytes| bytes.len());
        if bytes != Ok(32) {
            let what = "is not 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64";
            settings.problem("WAYBILL_MASTER_KEY".to_owned(), what.to_owned());
            return None;
        }
        return Some(MasterKeySource::Env(key.trim().into()));
    }
    let named = paths::file(settings, "master_key_file")?;
    // Beside the data directory, not in it: a copy of the data alone does not reveal the secrets.
    let beside = || {
        let mut name = data_dir?.file_name()?.to_os_string();
        name.push(".key");
        Some(data_dir?.with_file_name(name))
    };
    let file = match named {
        Some(file) => file,
        None => paths::unblocked(settings, "master_key_file", beside()?)?,
    };
    Some(MasterKeySource::File(file))
}

/// `Some(None)`: not set.
fn admin_key(settings: &mut Settings, variable: Option<&String>) -> Option<Option<SecretString>> {
    let Some(key) = variable.filter(|key| !key.is_empty()) else { return Some(None) };
    if key.len() < ADMIN_KEY_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = format!(
            "needs at least {ADMIN_KEY_MIN} visible ASCII characters without spaces; make one with: head -c 32 /dev/urandom | base64"
        );
        settings.problem("WAYBILL_ADMIN_KEY".to_owned(), what);
        return None;
    }
    Some(Some(key.as_str().into()))
}

fn listen(settings: &mut Settings, key: &str, text: &str, behind_proxy: bool) -> Option<SocketAddr> {
    let Ok(listen) = text.parse::<SocketAddr>() else {
        settings.problem_at(key, format!("`{text}` is not an address with a port; write it like \"127.0.0.1:8080\""));
        return None;
    };
    if !listen.ip().is_loopback() && !behind_proxy {
        settings.problem_at(
            key,
            format!("{listen} can be reached from outside, in clear text; listen on 127.0.0.1, or put a TLS proxy in front and set http.behind_proxy = true"),
        );
        return None;
    }
    Some(listen)
}

/// `Some(None)`: not set.
fn metrics_listen(settings: &mut Settings, behind_proxy: bool) -> Option<Option<SocketAddr>> {
    let text = settings.text("http.metrics_listen", "");
    if text.is_empty() {
        return Some(None);
    }
    if text == settings.text("http.listen", LISTEN_DEFAULT) && !text.ends_with(":0") {
        settings.problem_at("http.metrics_listen", format!("{text} is also http.listen; use another port"));
        return None;
    }
    listen(settings, "http.metrics_listen", &text, behind_proxy).map(Some)
}

/// `Some(None)`: not set. The messages never quote the address, as it contains a password.
fn mysql_url(settings: &mut Settings) -> Option<Option<SecretString>> {
    if !settings.is_set("mysql.url") {
        return Some(None);
    }
    let text = settings.text("mysql.url", "");
    let example = "write it like mysql://user:password@127.0.0.1:3306/waybill";
    let what = match Url::parse(&text) {
        Err(error) => {
            format!("is not an address ({error}); {example}, and # / ? @ % in a password like %23 %2F %3F %40 %25")
        }
        Ok(url) if url.scheme() != "mysql" => format!("must begin with mysql://; {example}"),
        Ok(url) if url.host_str().is_none_or(str::is_empty) => format!("names no host; {example}"),
        Ok(url) if url.path().trim_matches('/').is_empty() => format!("names no database at its end; {example}"),
        Ok(_) => return Some(Some(text.into())),
    };
    settings.problem_at("mysql.url", what);
    None
}

fn source(settings: &mut Settings, defaults: &catalog::SourceDefaults) -> Option<SourceSettings> {
    let base_url = address(settings, "source.base_url", &defaults.base_url);
    let token_url = address(settings, "source.token_url", &defaults.token_url);
    let in_flight_max = bounded(settings, "source.in_flight_max", IN_FLIGHT_MAX_DEFAULT, (1, 10_000));
    let calls = bounded(settings, "source.calls_per_second", CALLS_PER_SECOND_DEFAULT, (0, 1_000_000));
    let auth = auth(settings);
    let logins = bounded(settings, "source.logins_per_second", LOGINS_PER_SECOND_DEFAULT, (1, 1_000));
    Some(SourceSettings {
        base_url: base_url?,
        token_url: token_url?,
        auth: auth?,
        in_flight_max: usize::try_from(in_flight_max?).ok()?,
        calls_per_second: u32::try_from(calls?).ok().filter(|calls| *calls > 0),
        logins_per_second: u32::try_from(logins?).ok()?,
    })
}

fn auth(settings: &mut Settings) -> Option<Auth> {
    const STYLES: [&str; 4] = ["client-credentials", "basic", "bearer", "api-key"];
    let (style, header) = (settings.text("source.auth", STYLES[0]), settings.text("source.api_key_header", ""));
    if STYLES.contains(&style.as_str()) && style != "api-key" && !header.is_empty() {
        settings.problem_at("source.api_key_header", "needs auth = \"api-key\"");
        return None;
    }
    match style.as_str() {
        "client-credentials" => Some(Auth::ClientCredentials),
        "basic" => Some(Auth::Basic),
        "bearer" => Some(Auth::Bearer),
        "api-key" => {
            let is_name = !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let ours = ["host", "accept", "content-length", "connection", "user-agent", "accept-encoding"];
            if is_name && !ours.contains(&header.to_ascii_lowercase().as_str()) {
                return Some(Auth::ApiKey(header));
            }
            let what = match header.as_str() {
                "" => "auth = \"api-key\" needs the name of the header that takes the key".to_owned(),
                header if is_name => format!("`{header}` is reserved; name the header that takes the key"),
                header => format!("`{header}` is not a header name (letters, digits and -)"),
            };
            settings.problem_at("source.api_key_header", format!("{what}, like \"X-Api-Key\""));
            None
        }
        other => {
            let hint = catalog::did_you_mean(other, STYLES);
            let what = format!("`{other}` is unknown{hint} There are {}", STYLES.join(", "));
            settings.problem_at("source.auth", what);
            None
        }
    }
}

/// Reads an address. It receives tokens and secrets, so it must be https, or on loopback.
fn address(settings: &mut Settings, key: &str, default: &str) -> Option<Url> {
    let text = settings.text(key, default);
    // An address that may contain a password is not quoted.
    let shown = if text.contains('@') { "this".to_owned() } else { format!("`{text}`") };
    let what = match Url::parse(&text) {
        Err(error) => format!("{shown} is not an address ({error}); write it like \"{default}\""),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "must not hold a user or password; the credentials belong to each shop".to_owned()
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            format!("must end with its path, without ? or #; write it like \"{default}\"")
        }
        Ok(url) => match (url.scheme(), is_loopback(&url)) {
            ("https", _) | ("http", true) => return Some(url),
            ("http", false) => format!("{shown} would send secrets in clear text; use https (http only on loopback)"),
            _ => format!("{shown} is not a web address; write it like \"{default}\""),
        },
    };
    settings.problem_at(key, what);
    None
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn bounded(settings: &mut Settings, key: &str, default: u64, (least, most): (u64, u64)) -> Option<u64> {
    let number = settings.number(key, default);
    if (least..=most).contains(&number) {
        return Some(number);
    }
    settings.problem_at(key, format!("{number} is out of range; use {least} to {most}"));
    None
}

fn log(settings: &mut Settings) -> Option<Log> {
    let text = settings.text("log.format", "text");
    let format = match text.as_str() {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => {
            settings.problem_at("log.format", format!("`{text}` is not a format; use \"text\" or \"json\""));
            None
        }
    };
    let level = settings.text("log.level", LOG_LEVEL_DEFAULT);
    let is_level = |text: &str| matches!(text, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let sound =
        level.split(',').all(|part| is_level(part.trim().rsplit_once('=').map_or(part.trim(), |(_, level)| level)));
    if !sound {
        settings.problem_at(
            "log.level",
            format!("`{level}` is not a level; use error, warn, info, debug or trace, or \"info,waybill::sync=debug\""),
        );
        return None;
    }
    Some(Log { format: format?, level, level_is_set: settings.is_set("log.level") })
}
