//! `waybill source`: moves an installation to another source.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;

use clap::Subcommand;
use console::Term;
use serde_json::json;

use super::command_error::{CommandError, CommandResult};
use super::in_use;
use super::log::Voice;
use super::open::{configure, nothing_yet};
use super::output::{Out, print_stderr};
use super::{shutdown, table};
use crate::app::App;
use crate::config::Config;
use crate::domain::{Shop, SourceOrigin, counted};
use crate::service::{Proof, Service, SourceMove, SourceMoveError};

/// Longer than any answer to a question.
const ANSWER_MAX: u64 = 64;

/// Move the data directory and the MySQL schema to the configured source.
///
/// A data directory and a schema belong to one source: the addresses of its API and its login host. If [source] names
/// another one, no command calls it, so that no secret and no token reaches a host that it was not meant for. This command
/// allows it: it shows both sources, asks, and proves the credentials of each shop at the new login host. A shop whose
/// credentials are refused there is not called until it has a new secret. Tokens of the former source are dropped; documents
/// stay. Interrupted, it goes on when it is run again; until it is over, neither source is called.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(after_long_help = "Examples:\n  waybill source move\n  waybill source move --yes --json\n\n\
    Exit codes: 0 done, 1 failed or a shop was refused, 2 wrong usage or configuration.")]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Move to the source that [source] names, after asking
    Move {
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let Act::Move { yes, json } = args.act;
    let config = configure(path, Voice::Command)?;
    if config.mysql_url.is_none() && nothing_yet(&config, None)?.is_some() {
        return report(&config.source.origin(), &[], json, &mut out);
    }
    let drain = config.limits.drain;
    let app = open(config).await?;
    let moved = Box::pin(move_source(app.service(), yes, json, &mut out)).await;
    let stopped = shutdown::stop(app, drain).await;
    moved.and(stopped)
}

async fn open(config: Config) -> Result<App, CommandError> {
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    let opened = App::for_source_move(config).await;
    Ok(opened.map_err(|error| in_use::explain(error, &data_dir, listen, in_use::AT_REST_ONLY))?)
}

async fn move_source(service: &Service, yes: bool, json: bool, out: &mut Out) -> CommandResult {
    let plan = service.plan_source_move().await.map_err(failed)?;
    if !plan.is_needed {
        return report(&plan.to, &[], json, out);
    }
    if !plan.was_begun && !yes {
        confirm(&plan)?;
    }
    let shops = service.begin_source_move().await.map_err(failed)?;
    let mut proofs = Vec::new();
    for shop in shops {
        let proof = service.prove_at_source(&shop).await.map_err(failed)?;
        let name = table::clean(&shop.name);
        match &proof {
            Proof::Accepted => print_stderr(format_args!("{name} ({}): accepted", shop.id)),
            Proof::Refused(reason) => {
                let reason = table::clean(reason);
                print_stderr(format_args!(
                    "{name} ({id}): refused: {reason}; fix: waybill shops rotate {id}",
                    id = shop.id
                ));
            }
        }
        proofs.push((shop, proof));
    }
    service.end_source_move().await.map_err(failed)?;
    report(&plan.to, &proofs, json, out)
}

/// Shows both sources and asks. Without a terminal the answer must be given as a flag.
fn confirm(plan: &SourceMove) -> CommandResult {
    let shown = |known: &Option<SourceOrigin>| known.as_ref().map_or("not recorded".to_owned(), ToString::to_string);
    let mut text = format!("Data directory: {}\n", shown(&plan.directory));
    if let Some(schema) = &plan.schema {
        text.push_str(&format!("MySQL schema:   {}\n", shown(schema)));
    }
    let shops = counted(plan.shops, "shop", "shops");
    text.push_str(&format!("New source:     {}\nThe credentials of {shops} are sent to the new source. ", plan.to));
    let terminal = Term::stderr();
    if !std::io::stdin().is_terminal() || !terminal.is_term() {
        return Err(CommandError::Usage(format!("{text}Nothing was changed; to allow it, add --yes")));
    }
    terminal.write_str(&format!("{text}Move? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().take(ANSWER_MAX).read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(CommandError::Failed(anyhow::anyhow!("nothing was changed")))
}

fn report(to: &SourceOrigin, proofs: &[(Shop, Proof)], json: bool, out: &mut Out) -> CommandResult {
    let refused = proofs.iter().filter(|(_, proof)| *proof != Proof::Accepted).count();
    if json {
        let shops: Vec<_> = proofs
            .iter()
            .map(|(shop, proof)| match proof {
                Proof::Accepted => json!({ "id": shop.id, "accepted": true }),
                Proof::Refused(reason) => json!({ "id": shop.id, "accepted": false, "reason": reason }),
            })
            .collect();
        out.json(&json!({ "api": to.api(), "login": to.login(), "shops": shops }))?;
    } else {
        let accepted = counted(proofs.len() - refused, "shop was accepted", "shops were accepted");
        out.line(format_args!("the source is {to}; {accepted}, {refused} refused"))?;
    }
    match refused {
        0 => Ok(()),
        count => Err(CommandError::Failed(anyhow::anyhow!(
            "{}: not called until a new secret is given (`waybill shops rotate`)",
            counted(count, "shop was refused", "shops were refused")
        ))),
    }
}

fn failed(error: SourceMoveError) -> CommandError {
    CommandError::Failed(error.into())
}
