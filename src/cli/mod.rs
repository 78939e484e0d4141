//! The command line: arguments in, exit code out. `main` calls [`run`] and nothing else.
//!
//! One file per subcommand; each is a thin layer over `App` and the same `Service` that answers the HTTP API, so both
//! behave alike. Results go to standard output, everything else to standard error.
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod bars_stderr;
mod check;
mod color;
mod command_error;
mod demo;
mod first_key;
mod generate;
mod hand_over;
mod in_use;
mod keys;
mod log;
mod open;
mod output;
mod panic_hook;
mod plan;
mod preview;
mod problems;
mod progress;
mod remaining;
mod sandbox;
mod schema;
mod schema_infer;
mod secret_input;
mod serve;
mod server;
mod shops;
mod shutdown;
mod source;
mod state;
mod status;
mod sync;
mod table;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing::Level;

use crate::app::{self, Holder};
use command_error::{CommandError, CommandResult};
use output::{Out, print_stderr};

/// Keeps a complete, queryable copy of what a marketplace knows about a seller's shop.
#[derive(Parser)]
#[command(name = "waybill", version, max_term_width = 100)]
#[command(long_about = "Keeps a complete, queryable copy of what a marketplace knows about a seller's shop, \
    in MySQL or in an embedded archive. It lists documents, reads their details, writes them and keeps them up to \
    date, within the marketplace's rate limits and without losing anything in a crash.")]
#[command(after_long_help = "See it work, without an account:\n  waybill demo\n\nFor real:\n  \
    waybill shops add --name \"My shop\" --client-id ID --secret-file secret.txt\n  waybill check\n  waybill serve\n\n\
    Configuration: ./waybill.toml if it exists, or --config. Environment variables override the file:\n\
    WAYBILL_HTTP_LISTEN overrides http.listen. config.example.toml lists every key with its default.\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    /// The configuration file [default: waybill.toml, if it exists]
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
    HandOver(hand_over::Args),
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
    Source(source::Args),
    #[command(hide = true)]
    Generate(generate::Args),
    /// Print the version
    Version,
}

/// Reads the arguments, runs the command and returns its exit code.
pub fn run() -> ExitCode {
    panic_hook::install();
    let parsed = arguments().try_get_matches().and_then(|matches| {
        matches.subcommand_name().inspect(|name| Holder::introduce(name, None));
        Arguments::from_arg_matches(&matches)
    });
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, with code 0. A closed pipe is not an error.
            let code = if error.exit_code() == 0 { 0 } else { 2 };
            log::bounded(move || drop(error.print()));
            return ExitCode::from(code);
        }
    };
    color::choose(arguments.color);
    let is_small = matches!(arguments.command, Command::Generate(_) | Command::Version);
    let prepared = || app::machine::keep_private().and_then(|()| app::machine::prepare());
    // The small ones read no secret, and their files are for everyone.
    if let Some(what) = (!is_small).then(prepared).and_then(Result::err) {
        print_stderr(format_args!("waybill: {what}"));
        return ExitCode::from(1);
    }
    // A second install fails because the same provider is already installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_stderr(format_args!("waybill: cannot start its threads: {error}"));
            return ExitCode::from(1);
        }
    };
    if matches!(arguments.command, Command::Serve(_)) {
        log::begin_service();
    }
    let outcome = runtime.block_on(Box::pin(dispatch(arguments)));
    // Work that did not drain is repeated at the next start; a stuck call must not delay the exit.
    runtime.shutdown_background();
    // Log lines come before the final message.
    log::flush();
    let code = match outcome {
        Ok(()) => 0,
        Err(CommandError::Usage(what)) => {
            log::say(Level::ERROR, format_args!("waybill: {what}"));
            2
        }
        Err(CommandError::Failed(error)) => {
            log::say(Level::ERROR, format_args!("waybill: {error:#}"));
            1
        }
    };
    log::flush();
    ExitCode::from(code)
}

/// The arguments. Commands that read no configuration hide `--config` in their help.
fn arguments() -> clap::Command {
    let hidden = || {
        clap::Arg::new("config").long("config").value_name("FILE").hide(true).value_parser(clap::value_parser!(PathBuf))
    };
    let hide = |command: clap::Command, name: &'static str| command.mut_subcommand(name, |sub| sub.arg(hidden()));
    ["demo", "sandbox", "generate", "version"].into_iter().fold(Arguments::command(), hide)
}

async fn dispatch(arguments: Arguments) -> CommandResult {
    let config = arguments.config.as_deref();
    if config.is_some() && matches!(arguments.command, Command::Demo(_) | Command::Sandbox(_)) {
        let what = "--config: the demo and the sandbox read no configuration; leave it out";
        return Err(CommandError::Usage(what.to_owned()));
    }
    let out = Out::stdout();
    match arguments.command {
        Command::Serve(args) => Box::pin(serve::run(args, config, Out::service())).await,
        Command::HandOver(args) => Box::pin(hand_over::run(args, config, out)).await,
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
        Command::Source(args) => Box::pin(source::run(args, config, out)).await,
        Command::Generate(args) => generate::run(args, self::arguments(), out),
        Command::Version => version(out),
    }
}

fn version(mut out: Out) -> CommandResult {
    out.line(format_args!("waybill {}", env!("CARGO_PKG_VERSION")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Arguments, arguments};
    use clap::Parser as _;

    #[test]
    fn the_arguments_are_valid_and_every_command_has_help_with_an_example() {
        let mut command = arguments();
        command.clone().debug_assert();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "version") {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Exit codes: 0 done"), "{} names no exit codes", sub.get_name());
            assert!(
                help.lines().take_while(|line| !line.starts_with("Usage:")).count() >= 3,
                "{} has no long description",
                sub.get_name()
            );
            assert!(help.contains(&format!("waybill {}", sub.get_name())), "{} shows no example", sub.get_name());
        }
    }

    #[test]
    fn config_may_come_before_or_after_the_command() {
        for line in ["waybill --config a.toml sync", "waybill sync --config a.toml"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).ok().unwrap();
            assert_eq!(arguments.config.unwrap().to_str(), Some("a.toml"));
        }
        assert_eq!(Arguments::try_parse_from(["waybill", "snyc"]).err().unwrap().exit_code(), 2);
    }
}
