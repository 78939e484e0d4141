//! `waybill schema`: prints the tables, and backfills columns that were added to them.

use std::path::Path;

use clap::Subcommand;
use serde_json::json;

use super::command_error::{CommandError, CommandResult};
use super::log::Voice;
use super::open::configure;
use super::output::{Out, print_stderr};
use super::progress::{Bars, Line};
use super::schema_infer;
use super::table::Mark;
use crate::app::schema::{self, Replay, ReplayRequest};
use crate::catalog::{self, did_you_mean};
use crate::config::Config;
use crate::domain::counted;

/// Show the tables of the resources, or fill columns that were added to them.
///
/// `serve` creates new tables and columns, and never drops or narrows one. `replay` fills them for existing documents
/// from the stored JSON, without a call to the marketplace's API.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_long_help = "Examples:\n  waybill schema print\n  waybill schema print orders\n  waybill schema print --views | mysql waybill\n  waybill schema replay\n  \
    waybill schema replay orders --again\n  \
    waybill schema infer invoices --path /v1/invoices --detail '/v1/invoices/{id}' --limit 20/min\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Print the SQL of the tables, as it would be run; contacts no server
    Print {
        /// Only this resource [default: all, and Waybill's own tables]
        resource: Option<String>,
        /// Print the ready-made views instead: those whose resources are all configured
        #[arg(long, conflicts_with = "resource")]
        views: bool,
    },
    Infer(Box<schema_infer::Args>),
    /// Fill columns and tables that were added later, from the documents in MySQL
    ///
    /// Makes no call to the marketplace's API, works beside a running server, and resumes where an earlier replay was
    /// stopped. `serve` adds new columns and tables; for existing documents they stay empty until this is run.
    Replay {
        /// Only this resource [default: all]
        resource: Option<String>,
        /// Only this shop, by id [default: all]
        #[arg(long, value_name = "ID")]
        shop: Option<String>,
        /// Start over with the first document
        #[arg(long)]
        again: bool,
        /// Print nothing but errors, to standard error
        #[arg(long, short)]
        quiet: bool,
        /// Print one JSON document, even with --quiet
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::Command)?;
    match args.act {
        Act::Infer(args) => Box::pin(schema_infer::run(*args, &config, out)).await,
        Act::Print { views: true, .. } => {
            for view in catalog::views(&config.definitions) {
                out.line(view)?;
            }
            Ok(())
        }
        Act::Print { resource, views: false } => {
            known(&config, resource.as_deref())?;
            for statement in schema::ddl(&config, resource.as_deref())? {
                out.line(format_args!("{statement};\n"))?;
            }
            Ok(())
        }
        Act::Replay { resource, shop, again, quiet, json } => {
            known(&config, resource.as_deref())?;
            let mut bars = Bars::new(quiet);
            let show = |state: &Replay| bars.show(&[line(state)], &progress_text(state), None);
            let wanted = ReplayRequest { resource: resource.as_deref(), shop: shop.as_deref(), again };
            let replayed = schema::replay(&config, wanted, show).await;
            bars.finish();
            let replayed = replayed?;
            if replayed.is_none() && !quiet {
                print_stderr("nothing to fill: without mysql.url the columns are computed when they are read");
            }
            let replayed = replayed.unwrap_or_default();
            if json {
                let items: Vec<_> = replayed.iter().map(item).collect();
                out.json(&json!({ "items": items }))?;
            } else if !quiet {
                replayed.iter().try_for_each(|state| out.line(progress_text(state)))?;
            }
            Ok(())
        }
    }
}

fn item(state: &Replay) -> serde_json::Value {
    let Replay { resource, documents, before, ended, .. } = state;
    json!({ "resource": resource, "documents": documents, "done_before": before, "ended": ended })
}

fn line(state: &Replay) -> Line {
    let of = state.about.max(state.documents);
    Line {
        shop: String::new(),
        stream: state.resource.clone(),
        done: state.documents,
        of,
        text: "documents".to_owned(),
        short: "documents".to_owned(),
        mark: Mark::Plain,
    }
}

fn progress_text(state: &Replay) -> String {
    let Replay { resource, documents, before, ended, .. } = state;
    let end = if *ended { "" } else { " so far" };
    match before {
        0 => format!("{resource}: {}{end}", counted(*documents, "document", "documents")),
        before if before == documents && *ended => {
            let done = counted(*documents, "document was", "documents were");
            format!("{resource}: nothing left to do, {done} done earlier; --again starts over")
        }
        before => {
            format!("{resource}: {}{end}, {before} of them earlier", counted(*documents, "document", "documents"))
        }
    }
}

/// Refuses a resource that is not configured.
pub(super) fn known(config: &Config, resource: Option<&str>) -> Result<(), CommandError> {
    let names: Vec<&str> = config.definitions.iter().map(|definition| definition.name.as_str()).collect();
    match resource.filter(|resource| !names.contains(resource)) {
        None => Ok(()),
        Some(resource) => {
            let hint = did_you_mean(resource, names.iter().copied());
            let what = format!("`{resource}` is not configured{hint} Configured: {}", names.join(", "));
            Err(CommandError::Usage(what))
        }
    }
}
