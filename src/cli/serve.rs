//! `waybill serve`: runs the service until a stop signal.

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command_error::{CommandError, CommandResult};
use super::first_key::{self, FirstKey, PLACEHOLDER};
use super::in_use::{self, Alternative};
use super::log::{self, Voice};
use super::open::{begin_log, configure};
use super::output::Out;
use super::shutdown;
use crate::app::{App, Entry, Holder, secret_file};
use crate::config::{Config, ConfigDraft, ConfigError};
use crate::domain::clock::rfc3339;
use crate::domain::{Clock, Timestamp};
use crate::http;
use crate::service::{KeyRecord, KeyView, NewKey, Scope, Service};

/// `--listen` overrides the file like this variable.
const LISTEN_VARIABLE: &str = "WAYBILL_HTTP_LISTEN";
/// How a running server says what it does.
const STATUS: Alternative = Alternative::Call("GET /api/v1/status");
/// Each start warns of admin keys that expire within 30 days.
const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);
/// How long to wait for a terminal to show the admin key.
const SHOW_PATIENCE: Duration = Duration::from_secs(5);

/// Run the service: sync on schedule, write to the sink, answer the API and the dashboard.
///
/// The first start needs no configuration: it creates the data directory, the key file and one admin API key, which
/// expires after a year; a later start without a valid admin key creates a new one. SIGTERM and Ctrl-C let work in
/// flight finish (limits.drain); a second one does not wait. No kind of stop loses anything.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill serve\n  waybill serve --config /etc/waybill/waybill.toml\n  \
    WAYBILL_MYSQL_URL=mysql://user:password@127.0.0.1/waybill waybill serve\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// Listen here instead of http.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Take the MySQL schema over from a process that is silent and, as you know, gone for good
    #[arg(long)]
    take_over: bool,
    /// Wait while another process works on the MySQL schema, and take over when it ends or is gone
    #[arg(long, conflicts_with = "take_over")]
    standby: bool,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let (is_standby, entry) = (args.standby, entry(&args));
    let config = config(args, path)?;
    if is_standby && config.mysql_url.is_none() {
        return Err(CommandError::Usage("--standby: there is nothing to take over without mysql.url".to_owned()));
    }
    let drain = config.limits.drain;
    let file = config.file.clone();
    let has_admin_key = config.admin_key.is_some();
    let key_file = secret_file::beside(&config.data_dir, ".admin-key");
    let mut signals = shutdown::StopSignals::listen()?;
    // Bind first: if the port is taken, no second engine may start.
    let listener = bind("http.listen", config.listen, &config).await?;
    let address = listener.local_addr()?;
    Holder::introduce("serve", Some(address));
    let metrics = match config.metrics_listen {
        Some(at) => Some(bind("http.metrics_listen", at, &config).await?),
        None => None,
    };
    // A restore from MySQL at the first start may take long; a stop does not wait for it.
    let (listener, waiting) = if is_standby { stand_by(listener, &mut out)? } else { (listener, None) };
    let app = tokio::select! {
        app = start(config, entry) => app?,
        () = signals.requested() => return Ok(()),
    };
    drop(waiting);
    if !has_admin_key {
        admin_key(app.service(), &key_file, &mut out).await?;
    }
    let first_key = FirstKey { service: app.service().clone(), file: key_file, is_configured: has_admin_key };
    first_key.retire();
    if let Some(metrics) = metrics {
        let at = metrics.local_addr()?;
        app.serve_metrics(metrics);
        notice(&mut out, format_args!("metrics without a key: http://{at}/metrics"))?;
    }
    app.log_start(file.as_deref());
    notice(&mut out, format_args!("waybill listens on http://{address}/"))?;
    let served = tokio::select! {
        served = app.serve(listener) => served.map_err(CommandError::Failed),
        () = signals.requested() => Ok(()),
        never = log::count_lost() => match never {},
        never = first_key.watch() => match never {},
    };
    let stopped = shutdown::stop_service(app, drain, &mut signals).await;
    served.and(stopped)
}

fn entry(args: &Args) -> Entry {
    let command = "serve".to_owned();
    match (args.standby, args.take_over) {
        (true, _) => Entry::Standby { command, waiting: tokio::sync::watch::Sender::default() },
        (false, true) => Entry::TakeOver { command },
        (false, false) => Entry::Serve { command },
    }
}

/// Answers on the listener that this process waits, until the guard is dropped; returns the listener for later.
fn stand_by(listener: TcpListener, out: &mut Out) -> Result<(TcpListener, Option<DropGuard>), CommandError> {
    let address = listener.local_addr()?;
    let listener = listener.into_std()?;
    let (later, now) = (listener.try_clone()?, TcpListener::from_std(listener)?);
    let waiting = CancellationToken::new();
    let took_over = waiting.clone().cancelled_owned();
    tokio::spawn(http::serve_standby(now, http::ServerLimits::default(), took_over));
    notice(out, format_args!("waybill is a standby on http://{address}/"))?;
    Ok((TcpListener::from_std(later)?, Some(waiting.drop_guard())))
}

async fn start(config: Config, entry: Entry) -> Result<App, CommandError> {
    config.check_resources()?;
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    Ok(App::start_as(config, entry).await.map_err(|error| in_use::explain(error, &data_dir, listen, STATUS))?)
}

/// Listens on the address of a key. If the port is taken because this data directory is served already, says that.
async fn bind(key: &str, at: SocketAddr, config: &Config) -> Result<TcpListener, CommandError> {
    let error = match TcpListener::bind(at).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let is_taken = error.kind() == ErrorKind::AddrInUse;
    if let Some(holder) = Holder::find(&config.data_dir).filter(|_| is_taken) {
        let what = in_use::text(holder.as_ref(), &config.data_dir, config.listen, STATUS);
        return Err(CommandError::Failed(anyhow::anyhow!(what)));
    }
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "another program uses port {}: `ss -ltnp` shows which; stop it, or choose another port with {key}",
            at.port()
        ),
        ErrorKind::PermissionDenied => format!("choose a port of 1024 or more with {key}"),
        _ => format!("choose an address of this machine with {key}"),
    };
    Err(CommandError::Failed(anyhow::anyhow!("{key}: cannot listen on {at}: {error}; {remedy}")))
}

fn config(args: Args, path: Option<&Path>) -> Result<Config, CommandError> {
    let Some(listen) = args.listen else { return configure(path, Voice::Service) };
    let mut environment = super::open::environment();
    environment.insert(LISTEN_VARIABLE.to_owned(), listen);
    let config = super::open::draft(path, &environment).and_then(ConfigDraft::finish).map_err(|mut error| {
        if let ConfigError::Problems(problems) = &mut error {
            let ours = problems.iter_mut().filter(|problem| problem.place == LISTEN_VARIABLE);
            ours.for_each(|problem| "--listen".clone_into(&mut problem.place));
        }
        error
    })?;
    begin_log(&config, Voice::Service)?;
    Ok(config)
}

/// Creates an admin key if none is valid, as nothing else could create one. On a terminal it is shown once; otherwise it
/// goes to a file readable only by its owner, since standard output ends up in a journal.
async fn admin_key(service: &Service, file: &Path, out: &mut Out) -> CommandResult {
    let keys = service.list_keys()?;
    let now = Clock::system().now();
    let working: Vec<&KeyView> = keys.iter().filter(|key| key.administers_at(now)).collect();
    let was_shown = !is_placeholder(file);
    if !working.is_empty() && was_shown {
        working.into_iter().map(|known| &known.key).filter(|key| ends_soon(key, now)).for_each(warn_of_end);
        return Ok(());
    }
    let why = match (was_shown, keys.iter().any(|known| known.key.scope == Scope::Admin)) {
        // Keys of a smaller scope may exist already, created before the first start.
        (true, false) => "created an admin API key, as there was none",
        (true, true) => "created another admin API key, as none is valid any more",
        (false, _) => "created another admin API key, as an earlier start was interrupted before it could show its key",
    };
    let new =
        NewKey { name: first_key::MADE_AT_START.to_owned(), scope: Scope::Admin, shops: None, expires_days: None };
    // The file is written before the key is created, with a placeholder: a key that was created but never shown would
    // lock everyone out.
    secret_file::replace(file, PLACEHOLDER)
        .with_context(|| format!("cannot write an admin key to {}", file.display()))?;
    let minted = service.create_key(new).await?;
    if out.is_terminal() {
        out.line(format_args!("{why}. It is shown only now:"))?;
        out.line(minted.text.expose_secret())?;
        // A paused terminal may not have shown it: then the next start creates another.
        if out.drained(SHOW_PATIENCE).await {
            fs::remove_file(file)?;
        }
    } else {
        secret_file::replace(file, minted.text.expose_secret())?;
        notice(out, format_args!("{why}; it is in {}; {}", file.display(), first_key::ADVICE))?;
    }
    Ok(())
}

/// Prints a line to standard output, as JSON if the log is.
fn notice(out: &mut Out, text: impl Display) -> std::io::Result<()> {
    out.line(log::in_json(&text).unwrap_or_else(|| text.to_string()))
}

fn is_placeholder(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.trim_end() == PLACEHOLDER)
}

fn ends_soon(key: &KeyRecord, now: Timestamp) -> bool {
    key.expires_at.is_some_and(|end| end.since(now) < ENDS_SOON)
}

fn warn_of_end(key: &KeyRecord) {
    tracing::warn!(
        key.id = %key.id,
        key.name = %key.name,
        expires_at = %key.expires_at.map(rfc3339).unwrap_or_default(),
        "an admin API key expires soon; create the next one with POST /api/v1/keys, or with `waybill keys create --scope \
         admin` while the service is stopped"
    );
}

#[cfg(test)]
mod tests {
    use super::ends_soon;
    use crate::app::secret_file::beside;
    use crate::domain::Timestamp;
    use crate::service::{KeyRecord, KeyView, Scope};
    use std::path::Path;

    fn at(days: i64) -> Timestamp {
        Timestamp::from_millis(days * 86_400_000)
    }

    #[test]
    fn an_admin_key_is_valid_until_it_expires_and_a_warning_comes_before() {
        let key = |scope, shops, expires_at| KeyView {
            key: KeyRecord { id: "k".into(), name: "n".into(), scope, shops, created_at: Timestamp::EPOCH, expires_at },
            last_used_at: None,
        };
        let admin = key(Scope::Admin, None, Some(at(100)));
        assert!(admin.administers_at(at(99)) && !admin.administers_at(at(100)));
        assert!(!key(Scope::Read, None, None).administers_at(Timestamp::EPOCH));
        assert!(
            !key(Scope::Admin, Some(vec!["one".into()]), None).administers_at(Timestamp::EPOCH),
            "limited to one shop"
        );
        assert!(ends_soon(&admin.key, at(71)) && !ends_soon(&admin.key, at(70)));
        assert!(!ends_soon(&key(Scope::Admin, None, None).key, Timestamp::EPOCH));
    }

    #[test]
    fn the_key_file_is_beside_the_data_directory() {
        assert_eq!(
            beside(Path::new("/var/lib/waybill/data/"), ".admin-key"),
            Path::new("/var/lib/waybill/data.admin-key")
        );
        assert_eq!(beside(Path::new("data"), ".admin-key"), Path::new("data.admin-key"));
    }
}
