//! `waybill shops`: manages the shops without a running server.
//!
//! A client secret is read from a file or from standard input, or asked for on a terminal, never an argument: arguments
//! show in the process list and in the shell's history.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use console::Term;
use secrecy::SecretString;
use serde_json::json;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, at_rest, configure, nothing_yet, ruled};
use super::output::{Out, print_stderr};
use super::table::{self, Mark, TableCell};
use super::{secret_input, shutdown};
use crate::app;
use crate::domain::clock::rfc3339;
use crate::domain::{Shop, ShopState};
use crate::http;
use crate::service::{Adoption, NewShop, Service, ServiceError, ShopPatch, validation};

/// Longer than any answer to a question.
const ANSWER_MAX: u64 = 64;

/// List, add, pause, resume, adopt and remove shops, and give them a new secret.
///
/// The secret comes from a file or standard input, or is asked for on a terminal; never from an argument. Adding a shop
/// verifies the credentials with the login host and stores the secret encrypted; the first sync starts with the next
/// `serve` or `sync`.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(
    after_long_help = "Examples:\n  waybill shops add --name \"My shop\" --client-id ID --secret-file secret.txt\n  \
    pass show shop | waybill shops add --name \"My shop\" --client-id ID\n  waybill shops list\n  \
    waybill shops rotate ID --secret-file new.txt\n  waybill shops remove ID --purge\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration."
)]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
    /// Print one JSON document: the shops, or the shop that was added or changed
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Act {
    /// Show all shops
    List,
    /// Register a shop, after verifying its credentials
    Add {
        /// A name for people
        #[arg(long)]
        name: String,
        /// The client id issued by the marketplace
        #[arg(long, value_name = "ID")]
        client_id: String,
        /// The account whose rate budget it uses, if several client ids share one
        #[arg(long)]
        account: Option<String>,
        /// Only this resource; repeatable [default: all configured resources]
        #[arg(long = "resource", value_name = "NAME")]
        resources: Vec<String>,
        /// The file with the client secret [default: standard input, or a question on a terminal]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Make no calls for it until it is resumed
    Pause { id: String },
    /// Sync it again; a refused one once the login host accepts its secret
    Resume { id: String },
    /// Give it a new client secret, after verifying it
    Rotate {
        id: String,
        /// The file with the client secret [default: standard input, or a question on a terminal]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Give a shop of MySQL that could not be restored its old id, after verifying its secret
    Adopt {
        id: String,
        /// The client id, if not that of its row
        #[arg(long, value_name = "ID")]
        client_id: Option<String>,
        /// The file with the client secret [default: standard input, or a question on a terminal]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Remove it; its rows stay unless --purge is given
    Remove {
        id: String,
        /// Delete its rows too; asks for confirmation on a terminal
        #[arg(long)]
        purge: bool,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let alternative = Alternative::Call(match &args.act {
        Act::Add { name, client_id, account, .. } => {
            ruled("--name", name, validation::name)?;
            ruled("--client-id", client_id, validation::id)?;
            if let Some(account) = account {
                ruled("--account", account, validation::id)?;
            }
            r#"POST /api/v1/shops {"name": "...", "client_id": "...", "client_secret": "..."}"#
        }
        Act::List => "GET /api/v1/shops",
        Act::Pause { .. } => r#"PATCH /api/v1/shops/<id> {"paused": true}"#,
        Act::Resume { .. } => r#"PATCH /api/v1/shops/<id> {"paused": false}"#,
        Act::Rotate { .. } => r#"PATCH /api/v1/shops/<id> {"client_secret": "..."}"#,
        Act::Adopt { client_id, .. } => {
            if let Some(client_id) = client_id {
                ruled("--client-id", client_id, validation::id)?;
            }
            r#"POST /api/v1/adoptions {"shop_id": "...", "client_secret": "..."}"#
        }
        Act::Remove { purge: true, .. } => "DELETE /api/v1/shops/<id>?purge=true",
        Act::Remove { purge: false, .. } => "DELETE /api/v1/shops/<id>",
    });
    let config = configure(path, Voice::Command)?;
    if let (Act::List, Some(message)) = (&args.act, nothing_yet(&config, None)?) {
        return if args.json { Ok(out.json(&json!({ "items": [] }))?) } else { Ok(out.line(message)?) };
    }
    match &args.act {
        // With MySQL, the shops of an earlier data directory are restored first, and can then be changed.
        Act::Pause { id }
        | Act::Resume { id }
        | Act::Rotate { id, .. }
        | Act::Adopt { id, .. }
        | Act::Remove { id, .. }
            if !app::is_initialized(&config.data_dir) && config.mysql_url.is_none() =>
        {
            return Err(unknown(id));
        }
        _ => {}
    }
    let secret = match &args.act {
        Act::Add { secret_file, .. } | Act::Rotate { secret_file, .. } | Act::Adopt { secret_file, .. } => {
            Some(secret(secret_file.as_deref(), config.source.auth.takes_empty_secrets())?)
        }
        _ => None,
    };
    let (drain, installation) = (config.limits.drain, Installation::of(&config));
    let app = at_rest(config, alternative).await?;
    let acted = act(app.service(), args, secret, &installation, &mut out).await;
    let stopped = shutdown::stop(app, drain).await;
    acted.and(stopped)
}

async fn act(
    service: &Service,
    args: Args,
    secret: Option<SecretString>,
    installation: &Installation,
    out: &mut Out,
) -> CommandResult {
    let (id, patch) = match (args.act, secret) {
        (Act::List, _) => return list(service, args.json, installation, out),
        (Act::Add { name, client_id, account, resources, .. }, Some(client_secret)) => {
            let shop = service.create_shop(NewShop { name, client_id, client_secret, account, resources }).await?;
            if args.json {
                return show_json(service, shop, out);
            }
            print_stderr(format_args!("{} is registered; its id:", table::clean(&shop.name)));
            return Ok(out.line(shop.id)?);
        }
        (Act::Adopt { id, client_id, .. }, Some(client_secret)) => {
            let adoption = Adoption { shop_id: id.clone(), client_id, client_secret };
            let adopted = service.adopt_shop(adoption).await;
            let shop = adopted.map_err(|error| match error {
                ServiceError::NotFound => {
                    CommandError::Usage(format!("{id}: MySQL has no such shop; `waybill check` lists them"))
                }
                error => error.into(),
            })?;
            if args.json {
                return show_json(service, shop, out);
            }
            print_stderr(format_args!(
                "{} ({}) is adopted, with its id and its rows",
                table::clean(&shop.name),
                shop.id
            ));
            return Ok(());
        }
        (Act::Remove { id, purge, yes }, _) => return remove(service, &id, purge, yes).await,
        (Act::Rotate { id, .. }, client_secret @ Some(_)) => (id, ShopPatch { client_secret, ..ShopPatch::default() }),
        (Act::Add { .. } | Act::Rotate { .. } | Act::Adopt { .. }, None) => {
            return Err(CommandError::Usage("no client secret".to_owned()));
        }
        (Act::Pause { id }, _) => (id, ShopPatch { paused: Some(true), ..ShopPatch::default() }),
        (Act::Resume { id }, _) => (id, ShopPatch { paused: Some(false), ..ShopPatch::default() }),
    };
    let shop = service.update_shop(&id, patch).await?.ok_or_else(|| unknown(&id))?;
    if args.json {
        return show_json(service, shop, out);
    }
    print_stderr(format_args!("{} ({}) is {}", table::clean(&shop.name), shop.id, state(&shop.state)));
    Ok(())
}

async fn remove(service: &Service, id: &str, purge: bool, yes: bool) -> CommandResult {
    let unrestored = service.unrestored_shops()?.into_iter().find(|shop| purge && shop.id == id);
    let name = match (service.shop(id)?, unrestored) {
        (Some(shop), _) => shop.name,
        (None, Some(shop)) => shop.name,
        (None, None) => return Err(unknown(id)),
    };
    if purge && !yes && !is_confirmed(&name, id)? {
        return Err(CommandError::Failed(anyhow::anyhow!("nothing was removed")));
    }
    if !service.delete_shop(id, purge).await? {
        return Err(unknown(id));
    }
    let rows = if purge { "its rows are deleted too" } else { "its rows stay" };
    print_stderr(format_args!("{} is removed; {rows}", table::clean(id)));
    Ok(())
}

/// Asks for confirmation on a terminal; a script needs none.
fn is_confirmed(name: &str, id: &str) -> Result<bool, CommandError> {
    let terminal = Term::stderr();
    if !std::io::stdin().is_terminal() || !terminal.is_term() {
        return Ok(true);
    }
    let (name, id) = (table::clean(name), table::clean(id));
    terminal.write_str(&format!("Remove {name} ({id}) and delete all its rows? This cannot be undone. [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().take(ANSWER_MAX).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn show_json(service: &Service, shop: Shop, out: &mut Out) -> CommandResult {
    match http::shop_forms(service, vec![shop])?.first() {
        Some(form) => Ok(out.json(form)?),
        None => Ok(()),
    }
}

fn unknown(id: &str) -> CommandError {
    CommandError::Usage(format!("{id}: there is no such shop; `waybill shops list` shows the ids"))
}

fn list(service: &Service, json: bool, installation: &Installation, out: &mut Out) -> CommandResult {
    let mut shops = service.shops()?;
    if json {
        let items = http::shop_forms(service, shops)?;
        return Ok(out.json(&json!({ "items": items }))?);
    }
    if shops.is_empty() {
        return Ok(out.line(installation.none_known(service)?)?);
    }
    // Shops that need attention come first.
    shops.sort_by_key(|shop| std::cmp::Reverse(urgency(&shop.state)));
    let configured: Vec<String> = service.definitions().iter().map(|definition| definition.name.clone()).collect();
    let resources = |shop: &Shop| match shop.resources.as_slice() {
        [] => format!("all ({})", configured.join(" ")),
        names => names.join(" "),
    };
    let rows: Vec<Vec<TableCell>> = shops
        .iter()
        .map(|shop| {
            vec![
                shop.id.as_str().into(),
                shop.name.clone().into(),
                TableCell::new(state(&shop.state), urgency(&shop.state)),
                shop.client_id.clone().into(),
                resources(shop).into(),
                rfc3339(shop.created_at).into(),
                shop.reason.clone().unwrap_or_default().into(),
            ]
        })
        .collect();
    out.table(&["id", "name", "state", "client id", "resources", "created", "reason"], &rows)?;
    Ok(())
}

fn urgency(state: &ShopState) -> Mark {
    match state {
        ShopState::Active => Mark::Good,
        ShopState::Paused => Mark::Unsure,
        ShopState::Refused => Mark::Bad,
    }
}

fn state(state: &ShopState) -> &'static str {
    match state {
        ShopState::Active => "active",
        ShopState::Paused => "paused",
        ShopState::Refused => "refused",
    }
}

/// The first line of the file, or of standard input when something is piped into it.
fn secret(file: Option<&Path>, may_be_empty: bool) -> Result<SecretString, CommandError> {
    let from = file.map_or("standard input".to_owned(), |file| format!("--secret-file {}", file.display()));
    let hint = "give the client secret in a file (--secret-file FILE) or on standard input (waybill shops ... < FILE)";
    let text = match file {
        Some(file) => secret_input::of_file("--secret-file", file)?,
        None => secret_input::given("Client secret", hint)?,
    };
    secret_line(&text, &from, may_be_empty)
}

fn secret_line(text: &str, from: &str, may_be_empty: bool) -> Result<SecretString, CommandError> {
    let first = secret_input::first_line(text);
    if first.is_empty() && !may_be_empty {
        let what = "its first line is empty; write the secret there";
        return Err(CommandError::Usage(format!("{from} has no client secret: {what}")));
    }
    if !first.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "its first line must be visible ASCII characters without spaces; is it the right file?";
        return Err(CommandError::Usage(format!("{from} has no client secret: {what}")));
    }
    Ok(SecretString::from(first))
}

#[cfg(test)]
mod tests {
    use super::secret_line;
    use secrecy::ExposeSecret as _;

    #[test]
    fn the_secret_is_the_first_line() {
        let read = |text: &str| secret_line(text, "stdin", false).ok().map(|secret| secret.expose_secret().to_owned());
        assert_eq!(read("  s3cret \r\nmore\n").as_deref(), Some("s3cret"));
        for wrong in ["", "\n", "two words\n", "geh\u{e9}im"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        let none = secret_line("", "stdin", true).ok().unwrap();
        assert!(none.expose_secret().is_empty(), "basic authentication with an API key as user has no secret");
    }
}
