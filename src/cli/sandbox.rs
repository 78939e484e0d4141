//! `waybill sandbox`: runs the stand-in for the marketplace on loopback, until a stop signal.
//!
//! `demo` fills its sandbox shop with [`shop`] too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use sandbox::{Clock, FAULT_FIELDS, FAULT_KINDS, Limit, Options, Sandbox, ShopOptions};
use tokio::net::TcpListener;

use super::command_error::{CommandError, CommandResult};
use super::output::Out;
use super::shutdown;
use crate::domain::parse_duration;

/// Run a strict local stand-in for the marketplace's API.
///
/// It has tokens that expire, rate windows with their headers and refusals, pages that shift, unusual but legal values,
/// and faults on demand (POST /_sandbox/faults). The seed determines what it serves. It counts every call: GET
/// /_sandbox/audit. It does not authenticate its own endpoints, so it listens on loopback only.
#[derive(clap::Args)]
#[command(after_long_help = after_help())]
pub(super) struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Seed of everything it serves
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of shops
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    shops: u32,
    /// Documents in each shop
    #[arg(long, default_value_t = 240)]
    rows: usize,
    /// Override a real rate rule; "none" lifts it; repeatable
    #[arg(long = "limit", value_name = "RULE=LIMIT", value_parser = limit)]
    limits: Vec<(String, String)>,
    /// How long a token is valid
    #[arg(long, default_value = "599s", value_name = "TIME", value_parser = duration)]
    token_life: Duration,
    /// Latency of every response, like 80ms
    #[arg(long, value_name = "TIME", value_parser = duration)]
    latency: Option<Duration>,
    /// Add a new document this often, like 5s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    arrivals: Option<Duration>,
    /// Refuse calls without a Retry-After header
    #[arg(long)]
    no_retry_after: bool,
    /// End lists with an empty array instead of an empty object
    #[arg(long)]
    empty_array: bool,
    /// Serve ordinary values only
    #[arg(long)]
    tidy: bool,
}

/// The examples, and everything about faults.
fn after_help() -> String {
    let mut text = "Examples:\n  waybill sandbox\n  waybill sandbox --shops 3 --rows 500 --arrivals 5s\n  \
        waybill sandbox --limit 'GET /retailer/shipments/*=none'\n\nIt prints the lines for waybill.toml and the \
        credentials for `waybill shops add`.\n\nFaults: a list of rules, which replaces the one before; [] ends all faults. \
        The first rule that matches takes the call. A rule that can never take effect is refused (400).\n  \
        curl -d '[{\"match\": \"/retailer/shipments\", \"kind\": \"reset\", \"times\": 2}]' \\\n    \
        http://127.0.0.1:8090/_sandbox/faults\n\nFields of a rule:\n"
        .to_owned();
    for (name, what) in FAULT_FIELDS {
        text.push_str(&format!("  {name:<13}{what}\n"));
    }
    text.push_str("\nKinds, as values of \"kind\":\n");
    for (_, example, what) in FAULT_KINDS {
        text.push_str(&format!("  {example}\n      {what}\n"));
    }
    text.push_str("\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration.");
    text
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration; write it like 80ms, 5s or 10min"))
}

fn limit(text: &str) -> Result<(String, String), String> {
    let (rule, limit) = text.split_once('=').ok_or("write it like 'GET /path/*=25/min'")?;
    Limit::parse(limit)?;
    Ok((rule.trim().to_owned(), limit.to_owned()))
}

pub(super) async fn run(args: Args, mut out: Out) -> CommandResult {
    if !args.listen.ip().is_loopback() {
        let what = format!(
            "--listen {}: the sandbox has no authentication; use a loopback address like 127.0.0.1:8090",
            args.listen
        );
        return Err(CommandError::Usage(what));
    }
    let shops: Vec<ShopOptions> = (1..=args.shops).map(|number| shop(number, args.rows)).collect();
    let defaults = Options::default();
    let options = Options {
        seed: args.seed,
        shops: shops.clone(),
        limits: args.limits.into_iter().collect::<BTreeMap<_, _>>(),
        token_life: args.token_life,
        latency: args.latency.unwrap_or(defaults.latency),
        retry_after: !args.no_retry_after,
        empty_array: args.empty_array,
        odd: !args.tidy,
        arrivals: args.arrivals,
        ..defaults
    };
    let sandbox = Sandbox::new(options, Clock::system()).map_err(|error| CommandError::Usage(error.to_string()))?;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("--listen: cannot listen on {}", args.listen))?;
    let mut signals = shutdown::StopSignals::listen()?;
    for line in directions(listener.local_addr()?, &shops) {
        out.line(line)?;
    }
    sandbox.serve(listener, async move { signals.requested().await }).await;
    Ok(())
}

/// The sandbox's shop of this number, with three quarters of its documents in the first stream.
pub(super) fn shop(number: u32, rows: usize) -> ShopOptions {
    let fbb = rows / 4;
    let client_id = format!("sandbox-{number}");
    ShopOptions { client_secret: format!("secret-of-{client_id}"), client_id, fbr: rows - fbb, fbb }
}

/// Instructions for syncing from it.
fn directions(address: SocketAddr, shops: &[ShopOptions]) -> Vec<String> {
    let mut lines = vec![
        format!("sandbox listens on http://{address}"),
        String::new(),
        "For waybill.toml:".to_owned(),
        "  [source]".to_owned(),
        format!("  base_url = \"http://{address}\""),
        format!("  token_url = \"http://{address}/token\""),
        String::new(),
        "Shops (client id, client secret):".to_owned(),
    ];
    lines.extend(shops.iter().take(10).map(|shop| format!("  {}  {}", shop.client_id, shop.client_secret)));
    if shops.len() > 10 {
        lines.push(format!("  and so on, up to sandbox-{}", shops.len()));
    }
    lines.push(String::new());
    lines.push(format!("Calls so far: curl http://{address}/_sandbox/audit"));
    lines
}

#[cfg(test)]
mod tests {
    use super::{directions, limit, shop};

    #[test]
    fn limits_are_read_as_in_the_configuration() {
        assert_eq!(limit("GET /a/*=7/3min"), Ok(("GET /a/*".to_owned(), "7/3min".to_owned())));
        assert!(limit("GET /a").is_err() && limit("GET /a=often").is_err());
    }

    #[test]
    fn no_document_is_lost_between_the_streams() {
        for rows in [0, 1, 3, 240] {
            let shop = shop(1, rows);
            assert_eq!(shop.fbr + shop.fbb, rows);
        }
        let lines = directions(([127, 0, 0, 1], 8090).into(), &[shop(1, 4)]).join("\n");
        assert!(
            lines.contains("token_url = \"http://127.0.0.1:8090/token\"")
                && lines.contains("sandbox-1  secret-of-sandbox-1")
        );
    }
}
