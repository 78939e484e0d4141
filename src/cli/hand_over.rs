//! `waybill hand-over`: has the running server leave everything for its standby.

use std::path::Path;
use std::time::Duration;

use super::command_error::{CommandError, CommandResult};
use super::in_use;
use super::log::Voice;
use super::open::configure;
use super::output::Out;
use crate::app::{self, Holder};

/// Added to `limits.drain`, which the server may use.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// Hand the MySQL schema over to the standby, and stop the server on this machine.
///
/// The standby (`waybill serve --standby`, on another machine) goes on with everything: nothing is called twice, and no
/// rate window is waited for. SIGTERM to the server does the same; this command refuses if no standby is there.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:\n  waybill hand-over\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {}

pub(super) async fn run(_: Args, path: Option<&Path>, mut out: Out) -> CommandResult {
    let config = configure(path, Voice::Command)?;
    let failed = |what: String| CommandError::Failed(anyhow::anyhow!(what));
    let holder = Holder::find(&config.data_dir).flatten();
    let Some(holder) = holder.filter(|holder| in_use::server(Some(holder)).is_some()) else {
        let data_dir = config.data_dir.display();
        return Err(failed(format!("no server runs with {data_dir}; run this on the machine of the owner")));
    };
    let Some(standby) = app::standby_of(&config).await? else {
        return Err(failed(
            "no standby is there; start `waybill serve --standby` on another machine first. To only stop the server, send \
             it SIGTERM"
                .to_owned(),
        ));
    };
    app::machine::ask_to_end(holder.pid)?;
    let ended = async {
        while Holder::find(&config.data_dir).is_some() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(config.limits.drain + PATIENCE, ended).await.is_err() {
        return Err(failed(format!("{holder} did not end in time; see its log")));
    }
    out.line(format_args!("handed over to {standby}"))?;
    Ok(())
}
