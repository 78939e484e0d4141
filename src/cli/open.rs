//! What commands open: the configuration, the log, and the app with or without its engine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::command_error::{CommandError, CommandResult};
use super::in_use::{self, Alternative};
use super::log::{self, Voice};
use crate::app::{self, App, NoSuchShop, Selection};
use crate::config::{Config, ConfigDraft, ConfigError};
use crate::service::Service;
use crate::service::validation::TextRule;

/// Our environment variables, and HOME. A value that is not UTF-8 is converted lossily, and the checks then refuse it
/// by name.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("WAYBILL_") || name == "HOME")?;
            Some((name, value.to_string_lossy().into_owned()))
        })
        .collect()
}

/// Reads the configuration and starts the log.
pub(super) fn configure(path: Option<&Path>, voice: Voice) -> Result<Config, CommandError> {
    let config = draft(path, &environment())?.finish()?;
    begin_log(&config, voice)?;
    Ok(config)
}

/// Starts the log, and closes a configuration file with a password to other users.
pub(super) fn begin_log(config: &Config, voice: Voice) -> CommandResult {
    log::start(&config.log, voice)?;
    if let Some(what) = config.close_file()? {
        tracing::warn!("{what}");
    }
    Ok(())
}

/// The configuration, including the checks that only the sink can make, before anything starts.
pub(super) fn draft(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<ConfigDraft, ConfigError> {
    let mut draft = ConfigDraft::read(path, environment)?;
    app::schema::check(&mut draft);
    Ok(draft)
}

/// Opens the store without starting the engine, for commands that read or change it. `alternative`: how a running
/// server does the same.
pub(super) async fn at_rest(config: Config, alternative: Alternative) -> Result<App, CommandError> {
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    Ok(App::at_rest(config).await.map_err(|error| in_use::explain(error, &data_dir, listen, alternative))?)
}

/// As [`at_rest`], as the owner of the MySQL schema for as long as the command runs.
pub(super) async fn at_rest_owning(
    config: Config,
    command: &str,
    alternative: Alternative,
) -> Result<App, CommandError> {
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    let opened = App::at_rest_owning(config, command).await;
    Ok(opened.map_err(|error| in_use::explain(error, &data_dir, listen, alternative))?)
}

/// The configuration file and the data directory of a command, as text: where it looked.
pub(super) struct Installation(String);

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Installation {
    pub(super) fn of(config: &Config) -> Installation {
        let folder = if config.data_dir.is_relative() { Path::new(".") } else { Path::new("") };
        let data_dir = folder.join(&config.data_dir);
        let data_dir = data_dir.display();
        Installation(match &config.file {
            Some(file) => format!("in {data_dir} (by {})", file.display()),
            None => format!("in {data_dir} (no waybill.toml here: defaults)"),
        })
    }

    /// Message of commands that find no shop.
    pub(super) fn no_shops(&self) -> String {
        format!("no shops yet {self}; register one with `waybill shops add`")
    }

    /// The same, unless MySQL may have shops: then no command may say that there are none.
    pub(super) fn none_known(&self, service: &Service) -> Result<String, CommandError> {
        match service.unrestored() {
            None => Ok(self.no_shops()),
            Some(why) => Err(CommandError::Failed(anyhow::anyhow!(
                "no shop is known {self}; MySQL may have shops of an earlier data directory, which cannot be restored now: {why}"
            ))),
        }
    }
}

/// For read-only commands, which must not create a data directory: the message if there is none yet. `shop` is the
/// requested one.
pub(super) fn nothing_yet(config: &Config, shop: Option<&str>) -> Result<Option<String>, CommandError> {
    if app::is_initialized(&config.data_dir) {
        return Ok(None);
    }
    if let Some(id) = shop {
        return Err(NoSuchShop(id.to_owned()).into());
    }
    let more = if config.mysql_url.is_some() {
        "; the first start restores those that MySQL has (`waybill check` says how many)"
    } else {
        ""
    };
    Ok(Some(format!("{}{more}", Installation::of(config).no_shops())))
}

/// Starts everything but the HTTP server and the schedule, for a command that ends and works on some streams only.
/// `alternative` as in [`at_rest`].
pub(super) async fn start(config: Config, only: Selection, alternative: Alternative) -> Result<App, CommandError> {
    config.check_resources()?;
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    Ok(App::start_pass(config, only).await.map_err(|error| in_use::explain(error, &data_dir, listen, alternative))?)
}

/// Checks an argument by one of the API's rules, before anything is opened.
pub(super) fn ruled(what: &str, text: &str, rule: TextRule) -> CommandResult {
    rule(text).map_err(|message| CommandError::Usage(format!("{what} {message}")))
}
