//! `waybill keys`: manages the API keys, and rotates the master key, without a running server.

use std::path::Path;

use clap::{Subcommand, ValueEnum};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::command_error::{CommandError, CommandResult};
use super::in_use::Alternative;
use super::log::Voice;
use super::open::{Installation, at_rest, at_rest_owning, configure, ruled};
use super::output::{Out, print_stderr};
use super::{shutdown, table};
use crate::app::{self, NoSuchShop};
use crate::domain::clock::rfc3339;
use crate::http;
use crate::service::{KeyView, NewKey, Scope, Service, validation};

/// Create, list and revoke API keys; rotate the master key.
///
/// A key is shown once, when it is created; only a digest is stored (and, encrypted and for a day, the response to a
/// request with an `Idempotency-Key`). Each key expires, by default after a year: create the next one before. A running
/// server offers the same under /api/v1/keys.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(after_long_help = "Examples:\n  waybill keys create --name dashboard --scope read\n  \
    waybill keys create --name accountant --shop k3v9x0q2m1ab --expires-days 90\n  waybill keys list\n  waybill keys revoke ID\n  waybill keys rotate-master\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Create a key and show it, once
    Create {
        /// A name that says what it is for
        #[arg(long)]
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "read")]
        scope: ScopeArg,
        /// Limit it to this shop, by id, read only; repeatable [default: all shops]
        #[arg(long = "shop", value_name = "ID")]
        shops: Vec<String>,
        /// Days until it expires
        #[arg(long, value_name = "N", default_value_t = validation::KEY_DAYS)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(validation::KEY_DAYS_MAX)))]
        expires_days: u32,
        /// Print the key and its properties as one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show all keys, without their secret text
    List {
        /// Print one JSON document instead of the table
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key, with immediate effect
    Revoke {
        /// The key's id, from the list
        id: String,
    },
    /// Replace the master key, which wraps the keys of all stored secrets
    ///
    /// The next key is read from the file beside the present one (`data.key.new`; with WAYBILL_MASTER_KEY, beside the data
    /// directory), or made there. When all is done it takes the place of the present one, which then opens nothing. May be
    /// repeated after a crash at any instant. While a server runs: POST /api/v1/master-key/rotation.
    RotateMaster {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

const NO_KEYS: &str = "no API keys yet; the first `waybill serve` creates one, and `waybill keys create` another";

#[derive(Clone, Copy, ValueEnum)]
enum ScopeArg {
    /// Reading
    Read,
    /// Everything
    Admin,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let alternative = Alternative::Call(match &args.act {
        Act::Create { name, scope, .. } => {
            ruled("--name", name, validation::name)?;
            match scope {
                ScopeArg::Read => r#"POST /api/v1/keys {"name": "...", "scope": "read"}"#,
                ScopeArg::Admin => r#"POST /api/v1/keys {"name": "...", "scope": "admin"}"#,
            }
        }
        Act::List { .. } => "GET /api/v1/keys",
        Act::Revoke { .. } => "DELETE /api/v1/keys/<id>",
        Act::RotateMaster { .. } => "POST /api/v1/master-key/rotation",
    });
    let config = configure(path, Voice::Command)?;
    if !app::is_initialized(&config.data_dir) {
        match &args.act {
            Act::Create { .. } => {}
            Act::List { json: true } => return Ok(out.json(&json!({ "items": [] }))?),
            Act::List { json: false } => {
                return Ok(out.line(format_args!("{NO_KEYS} (looked {})", Installation::of(&config)))?);
            }
            Act::Revoke { id } => return Err(unknown(id)),
            Act::RotateMaster { .. } => {
                let what = format!("there is no data directory {}, so no key to replace", Installation::of(&config));
                return Err(CommandError::Failed(anyhow::anyhow!(what)));
            }
        }
    }
    let drain = config.limits.drain;
    let app = match &args.act {
        Act::RotateMaster { .. } => at_rest_owning(config, "keys rotate-master", alternative).await?,
        Act::Create { .. } | Act::List { .. } | Act::Revoke { .. } => at_rest(config, alternative).await?,
    };
    let acted = act(app.service(), args.act, &mut out).await;
    let stopped = shutdown::stop(app, drain).await;
    acted.and(stopped)
}

async fn act(service: &Service, act: Act, out: &mut Out) -> CommandResult {
    match act {
        Act::Create { name, scope, shops, expires_days, json } => {
            for id in &shops {
                if service.shop(id)?.is_none() {
                    return Err(NoSuchShop(id.clone()).into());
                }
            }
            let scope = match scope {
                ScopeArg::Read => Scope::Read,
                ScopeArg::Admin => Scope::Admin,
            };
            let shops = if shops.is_empty() { None } else { Some(shops) };
            let minted = service.create_key(NewKey { name, scope, shops, expires_days: Some(expires_days) }).await?;
            if json {
                return Ok(out.json(&http::minted_key_form(&minted))?);
            }
            // Only the key goes to standard output, so that a script can capture it.
            print_stderr(format_args!(
                "key {} ({}); it is shown only now:",
                minted.key.id,
                table::clean(&minted.key.name)
            ));
            out.line(minted.text.expose_secret())?;
        }
        Act::List { json: true } => {
            let keys = service.list_keys()?;
            let items: Vec<_> = keys.into_iter().map(http::key_form).collect();
            out.json(&json!({ "items": items }))?;
        }
        Act::List { json: false } => {
            let rows: Vec<Vec<String>> = service.list_keys()?.iter().map(row).collect();
            if rows.is_empty() {
                return Ok(out.line(NO_KEYS)?);
            }
            let heads = ["id", "name", "scope", "shops", "created", "expires", "last used"];
            out.table(&heads, &rows)?;
        }
        Act::Revoke { id } => {
            if !service.revoke_key(&id).await? {
                return Err(unknown(&id));
            }
            print_stderr(format_args!("key {} is revoked", table::clean(&id)));
        }
        Act::RotateMaster { json } => return rotate_master(service, json, out).await,
    }
    Ok(())
}

async fn rotate_master(service: &Service, json: bool, out: &mut Out) -> CommandResult {
    service.begin_rotation().await?;
    let is_done = service.finish_rotation().await?;
    let view = service.master_key();
    if !is_done {
        let left = view.rotation.and_then(|rotation| rotation.rows).map_or(0, |(_, left)| left);
        return Err(CommandError::Failed(anyhow::anyhow!(
            "the data keys are wrapped by the next master key; {left} rows of MySQL follow once the outbox has written their \
             shops: start `waybill serve`, which finishes the rotation"
        )));
    }
    if json {
        return Ok(out.json(&http::master_key_form(view))?);
    }
    print_stderr(format_args!("the master key is rotated; the new one is {}", view.id));
    if let Some(to_do) = view.to_do {
        print_stderr(format_args!("{to_do}"));
    }
    Ok(())
}

fn unknown(id: &str) -> CommandError {
    CommandError::Usage(format!("{id}: there is no such key; `waybill keys list` shows the ids"))
}

fn row(view: &KeyView) -> Vec<String> {
    let key = &view.key;
    vec![
        key.id.clone(),
        key.name.clone(),
        key.scope.as_str().to_owned(),
        key.shops.as_ref().map_or("all".to_owned(), |shops| shops.join(" ")),
        rfc3339(key.created_at),
        key.expires_at.map_or("never".to_owned(), rfc3339),
        view.last_used_at.map_or("never".to_owned(), rfc3339),
    ]
}
