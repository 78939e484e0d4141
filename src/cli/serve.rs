//! `waybill serve`: the service, until a stop signal.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

use super::held::{self, Instead};
use super::log::{self, Voice};
use super::out::Out;
use super::{Failure, Outcome, configure, stop};
use crate::app::{App, Holder, secret_file};
use crate::config::{Config, ConfigError, Draft};
use crate::domain::Clock;
use crate::domain::clock::{Millis, rfc3339};
use crate::http::backend::{Backend, KeyView, NewKey, Scope};

/// `--listen` lies over the file as this variable does.
const LISTEN_VARIABLE: &str = "WAYBILL_HTTP_LISTEN";
/// Admin keys that end within 30 days are told of at each start.
const ENDS_SOON_MS: i64 = 30 * 86_400_000;
/// How long a terminal may take to show the admin key.
const SHOW_PATIENCE: Duration = Duration::from_secs(5);

/// Run the service: sync on schedule, write to the sink, answer the API and the dashboard.
///
/// The first start needs no configuration: it makes its data directory, its key file and one admin
/// API key, which ends after a year; a start that finds no admin key that works makes one again. SIGTERM and Ctrl-C let work in flight end (limits.drain); a second one does not wait.
/// Nothing is lost by a stop of any kind.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill serve\n  waybill serve --config /etc/waybill/waybill.toml\n  \
    WAYBILL_MYSQL_URL=mysql://user:password@127.0.0.1/waybill waybill serve\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    /// Listen here instead of http.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

pub(super) async fn run(args: Args, path: Option<&Path>, mut out: Out) -> Outcome {
    let config = config(args, path)?;
    let drain = config.limits.drain;
    let file = config.file.clone();
    let has_admin_key = config.admin_key.is_some();
    let key_file = secret_file::beside(&config.data_dir, ".admin-key");
    let mut signals = stop::Signals::listen()?;
    // Before the work begins: a port that is taken must not start a second engine.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("http.listen: cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    Holder::introduce("serve", Some(address));
    let metrics = match config.metrics_listen {
        Some(at) => {
            let bound = TcpListener::bind(at).await;
            Some(bound.with_context(|| format!("http.metrics_listen: cannot listen on {at}"))?)
        }
        None => None,
    };
    // What MySQL has to say at a first start may take long; a stop does not wait for it.
    let app = tokio::select! {
        app = start(config) => app?,
        () = signals.requested() => return Ok(()),
    };
    if !has_admin_key {
        admin_key(&*app.backend(), &key_file, &mut out).await?;
    }
    if let Some(metrics) = metrics {
        let at = metrics.local_addr()?;
        app.serve_metrics(metrics);
        notice(&mut out, format_args!("metrics without a key: http://{at}/metrics"))?;
    }
    app.log_start(file.as_deref());
    notice(&mut out, format_args!("waybill listens on http://{address}/"))?;
    let served = tokio::select! {
        served = app.serve(listener) => served.map_err(Failure::Failed),
        () = signals.requested() => Ok(()),
        never = log::count_lost() => match never {},
    };
    let stopped = stop::stop_service(app, drain, &mut signals).await;
    served.and(stopped)
}

async fn start(config: Config) -> Result<App, Failure> {
    config.check_resources()?;
    let (data_dir, listen) = (config.data_dir.clone(), config.listen);
    let call = Instead::Call("GET /api/v1/status");
    App::start(config).await.map_err(|error| Failure::Failed(held::explain(error, &data_dir, listen, call)))
}

fn config(args: Args, path: Option<&Path>) -> Result<Config, Failure> {
    let Some(listen) = args.listen else { return configure(path, Voice::Service) };
    let mut environment = super::environment();
    environment.insert(LISTEN_VARIABLE.to_owned(), listen);
    let config = super::draft(path, &environment).and_then(Draft::finish).map_err(|mut error| {
        if let ConfigError::Problems(problems) = &mut error {
            let ours = problems.iter_mut().filter(|problem| problem.place == LISTEN_VARIABLE);
            ours.for_each(|problem| "--listen".clone_into(&mut problem.place));
        }
        error
    })?;
    log::start(&config.log, Voice::Service)?;
    Ok(config)
}

/// A service without an admin key that works could not be given another. Makes one then; on a terminal it is shown
/// once, else it goes to a file that only its owner reads, since standard output ends in a journal.
async fn admin_key(backend: &dyn Backend, file: &Path, out: &mut Out) -> Outcome {
    let keys = backend.list_keys().await?;
    let now = Clock::system().now();
    let working: Vec<&KeyView> = keys.iter().filter(|key| key.administers_at(now)).collect();
    let was_told = !is_untold(file);
    if !working.is_empty() && was_told {
        working.into_iter().filter(|key| ends_soon(key, now)).for_each(warn_of_end);
        return Ok(());
    }
    let why = match (was_told, keys.iter().any(|key| key.scope == Scope::Admin)) {
        // Keys of a smaller scope may be there already: made before the first start.
        (true, false) => "no admin API key is there",
        (true, true) => "no admin API key works any more",
        (false, _) => "an earlier start was cut off before it could show its key",
    };
    let new = NewKey { name: "made at a start".to_owned(), scope: Scope::Admin, shops: None, expires_days: None };
    // The file is made before the key, and says so until the key is told: one that nobody can read would lock
    // everybody out, whenever we end.
    secret_file::replace(file, UNTOLD).with_context(|| format!("cannot write an admin key to {}", file.display()))?;
    let minted = backend.create_key(new).await?;
    if out.is_terminal() {
        out.line(format_args!("{why}: this is the admin API key. It is shown only now:"))?;
        out.line(minted.key.expose_secret())?;
        // On a terminal that is halted it may not have been seen: the next start makes one again.
        if out.drained(SHOW_PATIENCE).await {
            fs::remove_file(file)?;
        }
    } else {
        secret_file::replace(file, minted.key.expose_secret())?;
        notice(out, format_args!("{why}: an admin API key is in {}", file.display()))?;
    }
    Ok(())
}

/// A line on standard output, as JSON when the log is.
fn notice(out: &mut Out, text: impl Display) -> std::io::Result<()> {
    out.line(log::in_json(&text).unwrap_or_else(|| text.to_string()))
}

/// What the file of the admin key holds while there is no key to read.
const UNTOLD: &str = "not made yet";

fn is_untold(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.trim_end() == UNTOLD)
}

fn ends_soon(key: &KeyView, now: Millis) -> bool {
    key.expires_at.is_some_and(|end| end.saturating_sub(now) < ENDS_SOON_MS)
}

fn warn_of_end(key: &KeyView) {
    tracing::warn!(
        key.id = %key.id,
        key.name = %key.name,
        expires_at = %key.expires_at.map(rfc3339).unwrap_or_default(),
        "an admin API key ends soon; make the next one with POST /api/v1/keys, or with `waybill keys create --scope \
         admin` while the service is stopped"
    );
}

#[cfg(test)]
mod tests {
    use super::ends_soon;
    use crate::app::secret_file::beside;
    use crate::http::backend::{KeyView, Scope};
    use std::path::Path;

    #[test]
    fn an_admin_key_works_until_its_end_which_is_told_before() {
        let day = 86_400_000;
        let key = |scope, shops, expires_at| KeyView {
            id: "k".into(),
            name: "n".into(),
            scope,
            shops,
            created_at: 0,
            expires_at,
            last_used_at: None,
        };
        let admin = key(Scope::Admin, None, Some(100 * day));
        assert!(admin.administers_at(99 * day) && !admin.administers_at(100 * day));
        assert!(!key(Scope::Read, None, None).administers_at(0));
        assert!(!key(Scope::Admin, Some(vec!["one".into()]), None).administers_at(0), "made before that was refused");
        assert!(ends_soon(&admin, 71 * day) && !ends_soon(&admin, 70 * day));
        assert!(!ends_soon(&key(Scope::Admin, None, None), 0));
    }

    #[test]
    fn the_key_file_lies_beside_the_data() {
        assert_eq!(
            beside(Path::new("/var/lib/waybill/data/"), ".admin-key"),
            Path::new("/var/lib/waybill/data.admin-key")
        );
        assert_eq!(beside(Path::new("data"), ".admin-key"), Path::new("data.admin-key"));
    }
}
