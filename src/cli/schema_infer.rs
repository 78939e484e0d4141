//! `waybill schema infer`: drafts a definition for an unknown resource.

use super::command_error::{CommandError, CommandResult};
use super::in_use::{self, AT_REST_ONLY};
use super::open::nothing_yet;
use super::output::{Out, print_stderr};
use crate::app::infer::{self, InferRequest};
use crate::catalog::reader::is_plain_path;
use crate::catalog::{self, Limit};
use crate::config::Config;

/// Draft a definition for an unknown resource, from a sample of the API
///
/// Reads one page of a list and a few details, within the rate rules, and prints a definition for the configuration:
/// typed columns, tables for the arrays, and its guess of the id and the pagination, with what that is based on. Nothing
/// is stored.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  \
    waybill schema infer returns --path /v1/returns --detail /v1/returns/{id} --limit 20/min\n  \
    waybill schema infer labels --path /v1/labels --items /data --id /labelId --rows 50 >> waybill.toml\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// Name of the new resource, not in use yet
    resource: String,
    /// Path of the list, like /v1/things
    #[arg(long)]
    path: String,
    /// JSON pointer to the array of rows [default: guessed]
    #[arg(long, value_name = "POINTER")]
    items: Option<String>,
    /// JSON pointer to a row's id [default: guessed]
    #[arg(long, value_name = "POINTER")]
    id: Option<String>,
    /// Path of one document, like /v1/things/{id} [default: the rows are the documents]
    #[arg(long, value_name = "PATH")]
    detail: Option<String>,
    /// The media type to request with Accept
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    media_type: String,
    /// A parameter of the list, like status=OPEN; repeatable. The sample is read with the first value of each
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// The shop, by id [default: the first active one]
    #[arg(long, value_name = "ID")]
    shop: Option<String>,
    /// Most documents to sample
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u16).range(1..=500))]
    rows: u16,
    /// The rate limit of paths without a rule, like 20/min
    #[arg(long, value_name = "LIMIT", value_parser = limit)]
    limit: Option<String>,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    let (name, value) = parts.ok_or_else(|| format!("`{text}` is not a parameter; write it like status=OPEN"))?;
    let plain = |text: &str| text.chars().all(|letter| !letter.is_control());
    if !plain(name) || !plain(value) {
        return Err("must not contain control characters".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Groups the values by parameter.
fn grouped(given: Vec<(String, String)>) -> Vec<(String, Vec<String>)> {
    let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in given {
        match parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => parameters.push((name, vec![value])),
        }
    }
    parameters
}

fn limit(text: &str) -> Result<String, String> {
    Limit::parse(text)?
        .map_or_else(|| Err("a limit is needed here; write it like 20/min".to_owned()), |limit| Ok(limit.to_string()))
}

pub(super) async fn run(args: Args, config: &Config, mut out: Out) -> CommandResult {
    unused(config, &args.resource)?;
    paths(&args)?;
    let wanted = InferRequest {
        resource: args.resource,
        path: args.path,
        items: args.items,
        id: args.id,
        detail: args.detail,
        media_type: args.media_type,
        parameters: grouped(args.parameters),
        shop: args.shop,
        rows: usize::from(args.rows),
        limit: args.limit,
    };
    if let (Some(pattern), None) = (infer::without_rule(config, &wanted).first(), &wanted.limit) {
        let what = format!("no rate rule for {pattern}; give --limit, like --limit 20/min");
        return Err(CommandError::Usage(what));
    }
    if let Some(message) = nothing_yet(config, wanted.shop.as_deref())? {
        return Err(CommandError::Failed(anyhow::anyhow!(message)));
    }
    let inferred = infer::infer(config, &wanted).await;
    let inferred = inferred.map_err(|error| in_use::explain(error, &config.data_dir, config.listen, AT_REST_ONLY))?;
    out.line(inferred.toml.trim_end())?;
    print_stderr(format_args!("{} call{}", inferred.calls, if inferred.calls == 1 { "" } else { "s" }));
    Ok(())
}

fn unused(config: &Config, name: &str) -> Result<(), CommandError> {
    if !catalog::is_identifier(name) {
        return Err(CommandError::Usage(format!(
            "`{name}` is not a name; use a-z, 0-9 and _, a letter first, at most 60"
        )));
    }
    if config.definitions.iter().any(|definition| definition.name == name) {
        let what = format!("`{name}` already has a definition; `waybill preview {name}` shows what it does");
        return Err(CommandError::Usage(what));
    }
    if catalog::ships(name) {
        let what = format!("`{name}` is in the catalog: name it in `resources`, or choose another name");
        return Err(CommandError::Usage(what));
    }
    Ok(())
}

fn paths(args: &Args) -> Result<(), CommandError> {
    let wrong = |option: &str, what: &str| Err(CommandError::Usage(format!("{option} {what}")));
    if !is_plain_path(&args.path) || args.path.contains(['{', '}']) {
        return wrong("--path", "must be a path like /v1/things, without parameters");
    }
    if let Some(detail) = &args.detail
        && (!is_plain_path(detail) || !detail.contains("{id}") || detail.replace("{id}", "").contains(['{', '}']))
    {
        return wrong("--detail", "must be a path with {id}, like /v1/things/{id}");
    }
    for (option, pointer) in [("--items", &args.items), ("--id", &args.id)] {
        let is_sound = |pointer: &String| pointer.starts_with('/') || pointer.is_empty() && option == "--items";
        if pointer.as_ref().is_some_and(|pointer| !is_sound(pointer)) {
            return wrong(option, "must be a JSON pointer, like /things");
        }
    }
    Ok(())
}
