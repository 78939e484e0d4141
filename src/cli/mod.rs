//! The command line: arguments in, exit code out. `main` calls [`run`] and nothing else.
//!
//! One file a subcommand; each is thin over `App` and the same `Backend` that the HTTP API asks, so
//! both ways in act alike. Results go to standard output, everything else to standard error.
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod check;
mod color;
mod demo;
mod drawn;
mod generate;
mod held;
mod keys;
mod left;
mod log;
mod out;
mod panics;
mod plan;
mod preview;
mod progress;
mod sandbox;
mod schema;
mod schema_infer;
mod serve;
mod server;
mod shops;
mod state;
mod status;
mod stop;
mod sync;
mod table;
mod verify;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::Level;

use crate::app::{self, App, Holder, NoSuchShop};
use crate::config::{Config, ConfigError, Draft};
use crate::http::backend::ApiError;
use crate::http::validation::TextRule;
use crate::sink::mysql;
use held::Instead;
use log::Voice;
use out::{Out, tell};

/// Keeps a complete, queryable copy of what a marketplace knows about a seller's shop.
#[derive(Parser)]
#[command(name = "waybill", version, max_term_width = 100)]
#[command(long_about = "Keeps a complete, queryable copy of what a marketplace knows about a seller's shop, \
    in MySQL or in an embedded archive. It lists, reads the details, writes them, and keeps them up to date, \
    within the marketplace's rate limits and without losing anything in a crash.")]
#[command(after_long_help = "See it work, without an account:\n  waybill demo\n\nFor real:\n  \
    waybill shops add --name \"My shop\" --client-id ID --secret-file secret.txt\n  waybill check\n  waybill serve\n\n\
    Configuration: ./waybill.toml if it is there, or --config; each key has a variable that lies over the file\n\
    (http.listen is WAYBILL_HTTP_LISTEN). config.example.toml lists every key with its default.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    /// The configuration file [default: waybill.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    #[arg(help = "When to use colours: auto, always or never [default: auto]", hide_default_value = true)]
    color: color::When,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Args),
    Sync(sync::Args),
    Demo(demo::Args),
    Sandbox(sandbox::Args),
    Check(check::Args),
    Preview(preview::Args),
    Plan(plan::Args),
    Verify(verify::Args),
    Schema(schema::Args),
    State(state::Args),
    Status(status::Args),
    Keys(keys::Args),
    Shops(shops::Args),
    #[command(hide = true)]
    Generate(generate::Args),
    /// Print the version
    Version,
}

/// Why a command did not do what it was asked.
enum Failure {
    /// Wrong usage or configuration: exit code 2.
    Usage(String),
    /// Everything else: exit code 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        match error.downcast::<NoSuchShop>() {
            Ok(named) => named.into(),
            Err(error) => Failure::Failed(error),
        }
    }
}

impl From<NoSuchShop> for Failure {
    fn from(named: NoSuchShop) -> Failure {
        Failure::Usage(named.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Failed(error.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        match error {
            ApiError::Invalid(fields) => {
                let told: Vec<String> =
                    fields.iter().map(|wrong| format!("`{}` {}", wrong.field, wrong.message)).collect();
                Failure::Usage(told.join("\n"))
            }
            other => Failure::Failed(other.into()),
        }
    }
}

type Outcome = Result<(), Failure>;

/// Reads the arguments, runs the command to its end and says how it went.
pub fn run() -> ExitCode {
    panics::tell_place_only();
    let parsed = arguments().try_get_matches().and_then(|matches| {
        matches.subcommand_name().inspect(|name| Holder::introduce(name, None));
        Arguments::from_arg_matches(&matches)
    });
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(told) => {
            // Help and version come this way too, with code 0. A closed pipe is nobody's failure.
            let code = if told.exit_code() == 0 { 0 } else { 2 };
            log::bounded(move || drop(told.print()));
            return ExitCode::from(code);
        }
    };
    color::choose(arguments.color);
    let is_small = matches!(arguments.command, Command::Generate(_) | Command::Version);
    if let Some(what) = app::machine::prepare().err().filter(|_| !is_small) {
        tell(format_args!("waybill: {what}"));
        return ExitCode::from(1);
    }
    // A second install fails only because the first holds; both are the same provider.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format_args!("waybill: cannot start its threads: {error}"));
            return ExitCode::from(1);
        }
    };
    if matches!(arguments.command, Command::Serve(_)) {
        log::begin_service();
    }
    let outcome = runtime.block_on(Box::pin(dispatch(arguments)));
    // What was not drained by now is repeated at the next start; a stuck call must not hold the exit.
    runtime.shutdown_background();
    // What was logged comes before the last word.
    log::flush();
    let code = match outcome {
        Ok(()) => 0,
        Err(Failure::Usage(what)) => {
            log::say(Level::ERROR, format_args!("waybill: {what}"));
            2
        }
        Err(Failure::Failed(error)) => {
            log::say(Level::ERROR, format_args!("waybill: {error:#}"));
            1
        }
    };
    log::flush();
    ExitCode::from(code)
}

/// The arguments; the commands that read no configuration do not offer it in their help.
fn arguments() -> clap::Command {
    let hidden = || {
        clap::Arg::new("config").long("config").value_name("FILE").hide(true).value_parser(clap::value_parser!(PathBuf))
    };
    let hide = |command: clap::Command, name: &'static str| command.mut_subcommand(name, |sub| sub.arg(hidden()));
    ["demo", "sandbox", "generate", "version"].into_iter().fold(Arguments::command(), hide)
}

async fn dispatch(arguments: Arguments) -> Outcome {
    let config = arguments.config.as_deref();
    if config.is_some() && matches!(arguments.command, Command::Demo(_) | Command::Sandbox(_)) {
        let what = "--config: the demo and the sandbox read no configuration; leave it out";
        return Err(Failure::Usage(what.to_owned()));
    }
    let out = Out::stdout();
    match arguments.command {
        Command::Serve(args) => Box::pin(serve::run(args, config, Out::service())).await,
        Command::Sync(args) => Box::pin(sync::run(args, config, out)).await,
        Command::Demo(args) => Box::pin(demo::run(args, out)).await,
        Command::Sandbox(args) => Box::pin(sandbox::run(args, out)).await,
        Command::Check(args) => Box::pin(check::run(args, config, out)).await,
        Command::Verify(args) => Box::pin(verify::run(args, config, out)).await,
        Command::Preview(args) => Box::pin(preview::run(args, config, out)).await,
        Command::Plan(args) => Box::pin(plan::run(args, config, out)).await,
        Command::State(args) => Box::pin(state::run(args, config, out)).await,
        Command::Status(args) => Box::pin(status::run(args, config, out)).await,
        Command::Schema(args) => Box::pin(schema::run(args, config, out)).await,
        Command::Keys(args) => Box::pin(keys::run(args, config, out)).await,
        Command::Shops(args) => Box::pin(shops::run(args, config, out)).await,
        Command::Generate(args) => generate::run(args, out),
        Command::Version => version(out),
    }
}

fn version(mut out: Out) -> Outcome {
    out.line(format_args!("waybill {}", env!("CARGO_PKG_VERSION")))?;
    Ok(())
}

/// The process's variables that are ours, and HOME. A value that is no text reads as its readable part, which
/// the checks then refuse by name.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("WAYBILL_") || name == "HOME")?;
            Some((name, value.to_string_lossy().into_owned()))
        })
        .collect()
}

/// Reads the configuration and starts the log.
fn configure(path: Option<&Path>, voice: Voice) -> Result<Config, Failure> {
    let config = draft(path, &environment())?.finish()?;
    log::start(&config.log, voice)?;
    Ok(config)
}

/// The configuration with what only the sink can tell of it, before anything of it begins.
fn draft(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Draft, ConfigError> {
    let mut draft = Draft::read(path, environment)?;
    let definitions = draft.definitions().iter().map(|one| one.definition.as_ref());
    let unfit = draft.mysql_url().map(|url| mysql::unfit(url, draft.mysql_ca_file(), definitions)).unwrap_or_default();
    unfit.into_iter().for_each(|(key, what)| draft.add(&key, what));
    Ok(draft)
}

/// Opens the books and starts nothing, for commands that look at them or change them. `instead`: how a running server
/// does the same.
async fn at_rest(config: Config, instead: Instead) -> Result<App, Failure> {
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    App::at_rest(config).await.map_err(|error| Failure::Failed(held::explain(error, &data_dir, listen, instead)))
}

/// What a command says that finds no shop.
const NO_SHOPS: &str = "no shops yet; register one with `waybill shops add`";

/// For commands that only look, and must not make a data directory: what to say when there is none yet. `shop` is the
/// one that was asked for.
fn nothing_yet(config: &Config, shop: Option<&str>) -> Result<Option<String>, Failure> {
    if app::is_initialized(&config.data_dir) {
        return Ok(None);
    }
    if let Some(id) = shop {
        return Err(NoSuchShop(id.to_owned()).into());
    }
    let more =
        if config.mysql_url.is_some() { "; the first `waybill serve` takes over those that MySQL knows" } else { "" };
    Ok(Some(format!("{NO_SHOPS}{more}")))
}

/// Starts everything but the HTTP side, for a command that ends. `instead` as in [`at_rest`].
async fn start(config: Config, instead: Instead) -> Result<App, Failure> {
    config.check_resources()?;
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    App::start_pass(config).await.map_err(|error| Failure::Failed(held::explain(error, &data_dir, listen, instead)))
}

/// An argument that goes by one of the API's rules, looked at before anything is opened.
fn ruled(what: &str, text: &str, rule: TextRule) -> Outcome {
    rule(text).map_err(|message| Failure::Usage(format!("{what} {message}")))
}

#[cfg(test)]
mod tests {
    use super::{Arguments, arguments};
    use clap::Parser as _;

    #[test]
    fn the_arguments_are_sound_and_every_command_teaches() {
        let mut command = arguments();
        command.clone().debug_assert();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "version") {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Exit codes: 0 done"), "{} names no exit codes", sub.get_name());
            assert!(
                help.lines().take_while(|line| !line.starts_with("Usage:")).count() >= 3,
                "{} is not told",
                sub.get_name()
            );
            assert!(help.contains(&format!("waybill {}", sub.get_name())), "{} shows no example", sub.get_name());
        }
    }

    #[test]
    fn config_may_stand_before_and_behind_the_command() {
        for line in ["waybill --config a.toml sync", "waybill sync --config a.toml"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).ok().unwrap();
            assert_eq!(arguments.config.unwrap().to_str(), Some("a.toml"));
        }
        assert_eq!(Arguments::try_parse_from(["waybill", "snyc"]).err().unwrap().exit_code(), 2);
    }
}
