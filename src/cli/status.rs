//! `waybill status`: shows the age of each shop's data, and all problems.
//!
//! It reads the data directory, or asks the running server over its API. Both give the same JSON, from which the table
//! is made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::command_error::{CommandError, CommandResult};
use super::in_use::{self, Alternative};
use super::log::Voice;
use super::open::{Installation, configure, nothing_yet};
use super::output::Out;
use super::server::{Key, RemoteServer, ServerAnswer};
use super::shutdown;
use super::table::{self, Mark, TableCell};
use crate::app::{self, App};
use crate::config::Config;
use crate::domain::sentence::with_remedy;
use crate::domain::{Clock, Timestamp, rough_duration};
use crate::http;
use crate::service::HealthView;

/// Show the age of each shop's data, and all problems.
///
/// Reads the data directory, or asks the server that uses it, which is found automatically on the same machine. --server
/// asks any other. The API key (scope read is enough) comes from --key-file, else from WAYBILL_API_KEY or
/// WAYBILL_ADMIN_KEY; for a server on this machine also from its admin key file beside the data directory.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill status\n  waybill status --json\n  \
    WAYBILL_API_KEY=... waybill status --server https://waybill.example.com\n  \
    waybill status --server http://127.0.0.1:8080 --key-file key.txt\n\n\
    Exit codes: 0 done and all well, 1 failed or not well, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// Ask this server, without reading a configuration
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The file with the API key for the server; - reads standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Hanging indent of a reason.
const INDENT: usize = 2;

/// The status, and the time by its source's clock.
struct Given {
    status: Value,
    now: Timestamp,
    /// What to say if there is no shop.
    none: String,
}

/// What to say of a server that has no shop.
const NO_SHOPS: &str = "no shops yet; register one with `waybill shops add`";

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    if let Some(address) = &args.server {
        let Some(key) = Key::given(args.key_file.as_deref())? else {
            let what = "--server: needs an API key, in the variable WAYBILL_API_KEY or in a file (--key-file FILE); scope \
                read is enough: waybill keys create --name status --scope read";
            return Err(CommandError::Usage(what.to_owned()));
        };
        let answer = Box::pin(RemoteServer::at(address, key)?.status()).await?;
        return show(&given(answer), args.json, &mut out);
    }
    let config = configure(path, Voice::Command)?;
    if let Some(none) = nothing_yet(&config, None)? {
        if args.json {
            out.json(&json!({"health": HealthView::default(), "shops": []}))?;
        } else {
            out.line(none)?;
        }
        return Ok(());
    }
    let drain = config.limits.drain;
    let app = match App::at_rest(config.clone()).await {
        Ok(app) => app,
        Err(error) => {
            let answer = Box::pin(of_holder(error, &config, args.key_file.as_deref())).await?;
            return show(&given(answer), args.json, &mut out);
        }
    };
    let seen = Box::pin(at_rest(&app, &Installation::of(&config))).await;
    let stopped = shutdown::stop(app, drain).await;
    seen.and_then(|seen| show(&seen, args.json, &mut out)).and(stopped)
}

/// Asks the server that holds the data directory; fails with the name of any other holder.
async fn of_holder(
    error: anyhow::Error,
    config: &Config,
    key_file: Option<&Path>,
) -> Result<ServerAnswer, CommandError> {
    let call = Alternative::Call("GET /api/v1/status");
    let address = app::holder(&error).and_then(in_use::server);
    let explained = || in_use::explain(error, &config.data_dir, config.listen, call);
    let Some(address) = address else { return Err(CommandError::Failed(explained())) };
    match Key::given(key_file)?.or_else(|| Key::beside(&config.data_dir)) {
        Some(key) => RemoteServer::here(address, key)?.status().await,
        None => Err(CommandError::Failed(anyhow::anyhow!(
            "{}\nWith an API key in WAYBILL_API_KEY, or in a file (--key-file FILE), `waybill status` asks the server",
            explained()
        ))),
    }
}

fn given(answer: ServerAnswer) -> Given {
    let date = answer.date.and_then(|text| jiff::fmt::rfc2822::parse(&text).ok());
    let now = date.map_or_else(|| Clock::system().now(), |date| date.timestamp().into());
    Given { status: answer.status, now, none: NO_SHOPS.to_owned() }
}

async fn at_rest(app: &App, installation: &Installation) -> Result<Given, CommandError> {
    app.look_at_sink().await;
    let service = app.service();
    let mut shops = service.shops()?;
    shops.sort_by(|a, b| a.id.cmp(&b.id));
    let forms = http::shop_forms(service, shops)?;
    let health = service.status(None)?.health;
    // If MySQL may have shops, the health says so.
    let none = match service.unrestored() {
        None => installation.no_shops(),
        Some(_) => format!("no shop is known {installation}"),
    };
    Ok(Given { status: json!({"health": health, "shops": forms}), now: app.now(), none })
}

/// The parts of the status that the table shows.
#[derive(Deserialize)]
struct ShownStatus {
    health: ShownHealth,
    shops: Vec<ShownShop>,
}

#[derive(Deserialize)]
struct ShownHealth {
    level: String,
    reasons: Vec<ShownReason>,
}

#[derive(Deserialize)]
struct ShownReason {
    code: String,
    shop_id: Option<String>,
    resource: Option<String>,
    text: String,
    remedy: String,
}

#[derive(Deserialize)]
struct ShownShop {
    id: String,
    name: String,
    resources_health: Vec<ShownResource>,
}

#[derive(Deserialize)]
struct ShownResource {
    resource: String,
    state: String,
    age_seconds: Option<u64>,
    last_error: Option<ShownError>,
}

#[derive(Deserialize)]
struct ShownError {
    text: String,
    at: jiff::Timestamp,
}

fn show(given: &Given, json: bool, out: &mut Out) -> CommandResult {
    let shown = ShownStatus::deserialize(&given.status).map_err(|error| {
        anyhow::anyhow!("the status of the server cannot be read ({error}); use the `waybill` of the server's version")
    })?;
    if json {
        out.json(&given.status)?;
    } else {
        print_table(&shown, given, out)?;
    }
    match shown.health.level.as_str() {
        "ok" => Ok(()),
        level => Err(CommandError::Failed(anyhow::anyhow!("not well: {}", table::clean(level)))),
    }
}

fn print_table(shown: &ShownStatus, given: &Given, out: &mut Out) -> CommandResult {
    let heads = ["shop", "name", "resource", "state", "last success", "last error"];
    let rows: Vec<Vec<TableCell>> = shown
        .shops
        .iter()
        .flat_map(|shop| shop.resources_health.iter().map(|resource| row(shop, resource, given.now)))
        .collect();
    if shown.shops.is_empty() {
        out.line(&given.none)?;
    } else {
        out.table(&heads, &rows)?;
        out.line("")?;
    }
    out.line(format_args!("health: {}", table::clean(&shown.health.level)))?;
    for reason in &shown.health.reasons {
        out.sentence(&table::clean(&line(reason)), INDENT)?;
    }
    Ok(())
}

fn row(shop: &ShownShop, resource: &ShownResource, now: Timestamp) -> Vec<TableCell> {
    let ago = |age: Duration| format!("{} ago", rough_duration(age));
    let error = resource.last_error.as_ref();
    let error = error.map(|error| format!("{}: {}", ago(now.since(error.at.into())), error.text));
    vec![
        shop.id.as_str().into(),
        shop.name.as_str().into(),
        resource.resource.as_str().into(),
        TableCell::new(resource.state.as_str(), mark(&resource.state)),
        resource.age_seconds.map_or_else(|| "never".to_owned(), |age| ago(Duration::from_secs(age))).into(),
        error.unwrap_or_default().into(),
    ]
}

fn mark(state: &str) -> Mark {
    match state {
        "fresh" => Mark::Good,
        "failing" | "refused" => Mark::Bad,
        _ => Mark::Unsure,
    }
}

fn line(reason: &ShownReason) -> String {
    let of = [reason.shop_id.as_deref(), reason.resource.as_deref()];
    let of: Vec<&str> = of.into_iter().flatten().collect();
    let about = if of.is_empty() { reason.code.clone() } else { of.join(" ") };
    format!("{about}: {}", with_remedy(&reason.text, &reason.remedy))
}
