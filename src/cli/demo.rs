//! `waybill demo`: the whole path from a sandbox to the archive, in its own folder.
//!
//! It never touches the user's configuration, variables or database: it writes a configuration into its folder and loads
//! only that. A folder that no demo created is refused, not emptied.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use sandbox::{Clock, Options, Sandbox};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpListener;

use super::command_error::{CommandError, CommandResult};
use super::log::{self, Voice};
use super::output::Out;
use super::progress::Bars;
use super::sandbox::shop as sandbox_shop;
use super::shutdown;
use super::watch::{Ended, Watched, until_idle};
use crate::app::App;
use crate::catalog::definition::Place;
use crate::catalog::{self, Definition};
use crate::config::Config;
use crate::domain::counted;
use crate::service::{Item, ListQuery, NewKey, NewShop, Scope, Service};

/// First line of the demo's configuration; a folder without it is never emptied.
const MARK: &str = "# Written by `waybill demo`. The next demo in this folder starts over.";
/// Fast enough to watch, slow enough to see the budget at work.
const QUICK_LIMIT: &str = "20/s";
/// Rows of the closing table.
const ROWS_SHOWN: usize = 10;
/// The same where each row is a block of lines.
const BLOCKS_SHOWN: usize = 3;
/// Columns of the closing table, the id included.
const COLUMNS_SHOWN: usize = 7;

/// See it work, without an account: a sandbox, an embedded archive and one shop.
///
/// Starts a sandbox, registers its shop, syncs it into the archive while showing the progress, and ends with the first
/// rows and where to look. Everything is in one folder, which the next demo empties. Your own configuration, variables
/// and database are not touched.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill demo\n  waybill demo --stay          # then open the dashboard\n  \
    waybill demo --rows 60 --real-limits\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// The demo's folder
    #[arg(long, default_value = "waybill-demo", value_name = "FOLDER")]
    dir: PathBuf,
    /// Documents in the shop
    #[arg(long, default_value_t = 240, value_name = "N")]
    rows: usize,
    /// Use the marketplace's real rate limits, which takes minutes longer
    #[arg(long)]
    real_limits: bool,
    /// Keep the API and the dashboard running afterwards, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

pub(super) async fn run(args: Args, mut out: Out) -> CommandResult {
    let _lock = fresh(&args.dir)?;
    let limits = if args.real_limits { BTreeMap::new() } else { quick_limits().map_err(anyhow::Error::msg)? };
    let shop = sandbox_shop(1, args.rows);
    // A first demo shows ordinary values, not edge cases.
    let options = Options { shops: vec![shop.clone()], limits: limits.clone(), odd: false, ..Options::default() };
    let stand_in = Sandbox::new(options, Clock::system()).context("sandbox")?;
    let api = TcpListener::bind("127.0.0.1:0").await.context("sandbox")?;
    let listener = listener().await?;
    let file = args.dir.join("waybill.toml");
    fs::write(&file, configuration(&args.dir, api.local_addr()?, listener.local_addr()?, &limits)?)?;
    let stop_sandbox = tokio_util::sync::CancellationToken::new();
    let served = tokio::spawn(stand_in.clone().serve(api, stop_sandbox.clone().cancelled_owned()));

    let log_only =
        super::open::environment().into_iter().filter(|(name, _)| name.starts_with("WAYBILL_LOG_")).collect();
    let config = Config::load(Some(&file), &log_only)?;
    log::start(&config.log, Voice::Command)?;
    let drain = config.limits.drain;
    let definitions = config.definitions.clone();
    let app = App::start(config).await?;
    let new = NewShop {
        name: "Demo shop".to_owned(),
        client_id: shop.client_id,
        client_secret: SecretString::from(shop.client_secret),
        account: None,
        resources: Vec::new(),
    };
    let demo = Demo { app: &app, stand_in: &stand_in, definitions: &definitions, file: &file, rows: args.rows };
    let played = Box::pin(demo.play(new, args.stay, listener, &mut out)).await;
    let stopped = shutdown::stop(app, drain).await;
    stop_sandbox.cancel();
    served.await.context("sandbox")?;
    played.and(stopped)
}

struct Demo<'a> {
    app: &'a App,
    stand_in: &'a Sandbox,
    definitions: &'a [std::sync::Arc<Definition>],
    file: &'a Path,
    rows: usize,
}

impl Demo<'_> {
    async fn play(&self, new: NewShop, stay: bool, listener: TcpListener, out: &mut Out) -> CommandResult {
        let service = self.app.service();
        let documents = counted(self.rows, "document", "documents");
        let begins = format!("A sandbox with one shop and {documents}. Syncing it into an embedded archive:");
        out.sentence(&begins, 0)?;
        let begun = Instant::now();
        let shop = service.create_shop(new).await?;
        let watched = Watched { names: BTreeMap::from([(shop.id, shop.name)]), runs: None };
        let mut bars = Bars::new(false);
        let ended = until_idle(self.app, &watched, &mut bars, None).await;
        bars.finish();
        match ended? {
            Ended::Idle => {}
            Ended::Stopped | Ended::TimedOut | Ended::SinkAway { .. } => {
                return Err(CommandError::Failed(anyhow::anyhow!("the demo was stopped")));
            }
        }
        let took = begun.elapsed();
        for definition in self.definitions {
            self.first_rows(service, definition, out).await?;
        }
        let audit = self.stand_in.audit();
        let breaches = audit.breaches().len();
        out.line("")?;
        let (calls, refused, took) = (audit.calls, audit.refused_429, took.as_secs_f64());
        let (calls, breaches) = (counted(calls, "call", "calls"), counted(breaches, "budget", "budgets"));
        let counts = format!(
            "{calls} in {took:.1} s, {refused} refused for their rate, {breaches} exceeded (counted by the sandbox)."
        );
        out.sentence(&counts, 0)?;
        let parked = service.status(None)?.parked;
        if parked > 0 || audit.details_distinct < u64::try_from(self.rows).unwrap_or(u64::MAX) {
            let what = format!("{} of {} documents were read, {parked} are parked", audit.details_distinct, self.rows);
            return Err(CommandError::Failed(anyhow::anyhow!(what)));
        }
        self.where_to_look(service, stay, listener, out).await
    }

    async fn first_rows(&self, service: &Service, definition: &Definition, out: &mut Out) -> CommandResult {
        let query = ListQuery { limit: ROWS_SHOWN, ..ListQuery::default() };
        let items = service.documents(&definition.name, &query, "demo").await?.items;
        let columns = columns(definition, &items);
        let mut heads = vec![definition.table.id_column.as_str()];
        heads.extend(columns.iter().copied());
        let rows: Vec<Vec<String>> = items.iter().map(|item| row(item, &columns)).collect();
        let rows = out.example(&heads, &rows, BLOCKS_SHOWN);
        out.line(format_args!("\nThe first {} rows of {}:", rows.len(), definition.table.name))?;
        out.table(&heads, rows)?;
        Ok(())
    }

    /// `stay` keeps the API up until a stop signal.
    async fn where_to_look(
        &self,
        service: &Service,
        stay: bool,
        listener: TcpListener,
        out: &mut Out,
    ) -> CommandResult {
        let new = NewKey { name: "demo".to_owned(), scope: Scope::Admin, shops: None, expires_days: Some(7) };
        let key = service.create_key(new).await?.text;
        let key = key.expose_secret();
        let address = listener.local_addr()?;
        let resource = self.definitions.first().map_or("", |definition| definition.name.as_str());
        if stay {
            out.line("\nWhere to look, until Ctrl-C:")?;
        } else {
            out.line("")?;
            out.sentence("Where to look (the rows stay; the sandbox is gone, so new syncs fail):", 0)?;
            out.line(format_args!("  {} serve --config {}", program(), self.file.display()))?;
        }
        out.line(format_args!("  http://{address}/ with the API key {key}"))?;
        out.line(format_args!("  curl -H 'Authorization: Bearer {key}' 'http://{address}/api/v1/{resource}?limit=3'"))?;
        if !stay {
            return Ok(());
        }
        tokio::select! {
            served = self.app.serve(listener) => Ok(served?),
            stopped = shutdown::requested() => stopped,
        }
    }
}

/// Listens on the default port, or on any free one.
async fn listener() -> Result<TcpListener, CommandError> {
    match TcpListener::bind("127.0.0.1:8080").await {
        Ok(listener) => Ok(listener),
        Err(_) => Ok(TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?),
    }
}

/// Creates the folder, or empties that of an earlier demo. The lock keeps other demos out while it is held.
fn fresh(dir: &Path) -> Result<File, CommandError> {
    let file = dir.join("waybill.toml");
    let is_empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    let is_ours = fs::read_to_string(&file).is_ok_and(|text| text.starts_with(MARK));
    if !is_empty && !is_ours {
        let what = format!("--dir {}: not empty, and not created by a demo; name another folder", dir.display());
        return Err(CommandError::Usage(what));
    }
    fs::create_dir_all(dir).with_context(|| format!("--dir {}", dir.display()))?;
    // Written first, so that the next demo accepts the folder of an interrupted one.
    if is_empty {
        fs::write(&file, format!("{MARK}\n"))?;
    }
    let lock = File::create(dir.join("demo.lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let what = format!("--dir {}: another demo runs in it; stop it, or name another folder", dir.display());
            return Err(CommandError::Failed(anyhow::anyhow!(what)));
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    if dir.join("data").exists() {
        fs::remove_dir_all(dir.join("data"))?;
    }
    if dir.join("data.key").exists() {
        fs::remove_file(dir.join("data.key"))?;
    }
    Ok(lock)
}

/// Every built-in rule, with a fast limit.
fn quick_limits() -> Result<BTreeMap<String, String>, String> {
    let rules = catalog::source_defaults()?.limits;
    Ok(rules.into_keys().map(|rule| (rule, QUICK_LIMIT.to_owned())).collect())
}

fn configuration(
    dir: &Path,
    api: SocketAddr,
    listen: SocketAddr,
    limits: &BTreeMap<String, String>,
) -> Result<String, CommandError> {
    let data_dir = std::path::absolute(dir.join("data"))?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = format!(
        "{MARK}\ndata_dir = {}\n\n[http]\nlisten = \"{listen}\"\n\n[source]\nbase_url = \"http://{api}\"\n\
         token_url = \"http://{api}/token\"\n\n[source.limits]\n",
        quoted(&data_dir.to_string_lossy())
    );
    for (rule, limit) in limits {
        text.push_str(&format!("{} = {}\n", quoted(rule), quoted(limit)));
    }
    Ok(text)
}

/// The columns worth showing first: the time, the filters, the search columns; without those empty in all rows.
fn columns<'a>(definition: &'a Definition, items: &[Item]) -> Vec<&'a str> {
    let layout = &definition.table;
    let places = layout.filters.iter().map(|(_, place)| place).chain(&layout.search);
    let named = places.filter_map(|place| match place {
        Place::Column(column) => Some(column),
        Place::Id | Place::Child { .. } => None,
    });
    let mut chosen: Vec<&str> = Vec::new();
    for column in layout.time.iter().chain(named) {
        let is_filled = items.iter().any(|item| value(item, column).is_some());
        let is_new = !chosen.contains(&column.as_str());
        if is_filled && is_new && chosen.len() + 1 < COLUMNS_SHOWN {
            chosen.push(column);
        }
    }
    chosen
}

fn row(item: &Item, columns: &[&str]) -> Vec<String> {
    let cells = columns.iter().map(|column| match value(item, column) {
        None => String::new(),
        Some(serde_json::Value::String(text)) => text,
        Some(other) => other.to_string(),
    });
    std::iter::once(item.id.clone()).chain(cells).collect()
}

fn value(item: &Item, column: &str) -> Option<serde_json::Value> {
    let (_, cell) = item.columns.iter().find(|(name, _)| name == column)?;
    serde_json::to_value(cell).ok().filter(|value| !value.is_null())
}

/// How a person starts this program: by its name if the shell finds it, otherwise by its path.
fn program() -> String {
    const NAME: &str = "waybill";
    let Ok(ours) = std::env::current_exe() else { return NAME.to_owned() };
    let is_ours = |folder: PathBuf| std::fs::canonicalize(folder.join(NAME)).is_ok_and(|found| found == ours);
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(is_ours) {
        return NAME.to_owned();
    }
    let here = std::env::current_dir().and_then(std::fs::canonicalize).ok();
    match here.as_ref().and_then(|here| ours.strip_prefix(here).ok()) {
        Some(below) => format!("./{}", below.display()),
        None => ours.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{configuration, fresh, quick_limits};
    use crate::config::Config;
    use std::collections::BTreeMap;
    use std::fs;

    #[test]
    fn the_demo_writes_a_configuration_that_loads() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("a \"quoted\" folder");
        let _lock = fresh(&dir).ok().unwrap();
        let (api, listen) = (([127, 0, 0, 1], 4000).into(), ([127, 0, 0, 1], 4001).into());
        let text = configuration(&dir, api, listen, &quick_limits().unwrap()).ok().unwrap();
        fs::write(dir.join("waybill.toml"), text).unwrap();
        let config = Config::load(Some(&dir.join("waybill.toml")), &BTreeMap::new()).unwrap();
        assert_eq!(config.data_dir, dir.join("data"));
        assert_eq!(config.source.token_url.as_str(), "http://127.0.0.1:4000/token");
        assert!(config.rules.rules().iter().all(|rule| rule.limit.unwrap().to_string() == "20/s"));
    }

    #[test]
    fn only_a_folder_of_a_demo_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("precious.txt"), "mine").unwrap();
        assert!(fresh(folder.path()).is_err());
        let dir = folder.path().join("demo");
        let first = fresh(&dir).ok().unwrap();
        assert!(fresh(&dir).is_err(), "another demo runs in it");
        drop(first);
        fs::create_dir(dir.join("data")).unwrap();
        fs::write(dir.join("data").join("db"), "old").unwrap();
        let _again = fresh(&dir).ok().unwrap();
        assert!(!dir.join("data").exists());
        assert!(folder.path().join("precious.txt").exists());
    }
}
